package author

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/writ-gateway/writ"
)

// Answer is what the packs say to one call.
type Answer struct {
	Capability writ.CapabilityID `json:"capability"`
	Packs      []string          `json:"packs"` // that were asked
	Effect     writ.Effect       `json:"effect"`
	Findings   []writ.Finding    `json:"findings"`
}

// Eval asks the packs that judge a capability about an input: YAML or JSON of
// what schema/input.json describes, or a fixture, whose expectation is not
// looked at. Capability is by default the one the input names; packs, when
// given, are asked instead of those routed to.
func (t *Tree) Eval(ctx context.Context, input []byte, capability writ.CapabilityID, packs []string) (Answer, error) {
	doc, err := inputOf(input)
	if err != nil {
		return Answer{}, err
	}
	if err := meetsSchema(doc); err != nil {
		return Answer{}, err
	}
	call, _ := doc["call"].(map[string]any)
	named, _ := call["capability"].(string)
	if capability == "" {
		capability = writ.CapabilityID(named)
	}
	if capability == "" {
		return Answer{}, errors.New("the input names no capability; say which with --capability")
	}
	if named != "" && string(capability) != named {
		return Answer{}, fmt.Errorf("--capability is %s but the input's call.capability is %s; a gateway never sends the two apart", capability, named)
	}
	if err := t.has(packs); err != nil {
		return Answer{}, err
	}
	draft, err := t.load(ctx)
	if err != nil {
		return Answer{}, err
	}
	if len(packs) == 0 {
		packs = draft.Route(capability)
	}
	if len(packs) == 0 {
		return Answer{}, fmt.Errorf("no pack judges %s; see match.capabilities in pack.yaml", capability)
	}
	packs = slices.Compact(slices.Sorted(slices.Values(packs)))
	trial, err := draft.Trial(ctx, packs, true)
	if err != nil {
		return Answer{}, err
	}
	value, err := ast.InterfaceToValue(doc)
	if err != nil {
		return Answer{}, err
	}
	d, err := trial.Decide(ctx, value, 10*time.Second)
	if err != nil {
		return Answer{}, fmt.Errorf("the packs cannot answer, so the call would be refused with policy_unavailable: %w", err)
	}
	if d.Findings == nil {
		d.Findings = []writ.Finding{}
	}
	return Answer{Capability: capability, Packs: packs, Effect: d.Effect, Findings: d.Findings}, nil
}

// inputOf takes an input out of its file; a fixture's is under input.
func inputOf(b []byte) (map[string]any, error) {
	var doc map[string]any
	if err := util.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("the input is neither JSON nor YAML: %s", firstLine(err))
	}
	if inner, ok := doc["input"].(map[string]any); ok && doc["want"] != nil {
		return inner, nil
	}
	return doc, nil
}

// firstLine keeps a decoder from quoting the whole document.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
