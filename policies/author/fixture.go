package author

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
	"go.yaml.in/yaml/v3"
)

// Fixture is one call and what one pack must say about it, in a form that any
// engine could run: what the pack says, before a host makes anything of it.
type Fixture struct {
	File    string         `yaml:"-"`
	Name    string         `yaml:"name"`
	Foreign bool           `yaml:"foreign"` // this host makes no such input, so the schema is not asked
	Input   map[string]any `yaml:"input"`
	Want    struct {
		Effect      writ.Effect       `yaml:"effect"`      // the strongest
		Rules       []string          `yaml:"rules"`       // strongest first, then by id
		Codes       []string          `yaml:"codes"`       // each once, sorted
		Obligations []writ.Obligation `yaml:"obligations"` // in the order of the rules
	} `yaml:"want"`
}

func parseFixture(b []byte) (Fixture, error) {
	var f Fixture
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&f); err != nil {
		return f, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return f, errors.New("holds more than one document")
	}
	switch {
	case f.Name == "":
		return f, errors.New("name must say what the case is about")
	case f.Want.Effect.Rank() > writ.EffectDeny.Rank():
		return f, fmt.Errorf("want.effect must be allow, redact, require_approval or deny")
	}
	return f, nil
}

// fixtures reads a pack's fixtures; the findings are those that cannot be run.
func (t *Tree) fixtures(id string) ([]Fixture, []Finding) {
	var out []Fixture
	var bad []Finding
	for _, name := range t.in("fixtures/"+id, "*") {
		f, err := parseFixture(t.files[name])
		if err == nil && !strings.HasSuffix(name, ".yaml") {
			err = errors.New("a fixture's name ends in .yaml")
		}
		if err == nil && !f.Foreign {
			err = meetsSchema(f.Input)
		}
		if err != nil {
			bad = append(bad, lint("fixture-shape").finding(id, place{name, 1, 0}, err.Error()))
			continue
		}
		f.File = name
		out = append(out, f)
	}
	return out, bad
}

// meetsSchema says whether packs could be shown such an input. The empty call
// is none, and still the first fixture of every pack.
func meetsSchema(input map[string]any) error {
	if len(input) == 0 {
		return nil
	}
	rs, err := schemaQuery().Eval(context.Background(), rego.EvalInput(map[string]any{"doc": input, "schema": string(policies.InputSchema())}))
	if err != nil || len(rs) != 1 {
		return errors.Join(errors.New("input cannot be held against the schema"), err)
	}
	x, _ := rs[0].Bindings["x"].([]any)
	if len(x) == 2 && x[0] == true {
		return nil
	}
	list, _ := x[1].([]any)
	var said []string
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			said = append(said, fmt.Sprint(m["error"]))
		}
	}
	slices.Sort(said)
	return fmt.Errorf("input is not what packs are shown: %s", strings.Join(said, "; "))
}

// run says how the pack's answer differs from the fixture's; "" when it does not.
func (f Fixture) run(ctx context.Context, trial *policies.Trial, timeout time.Duration) string {
	in, err := ast.InterfaceToValue(f.Input)
	if err != nil {
		return err.Error()
	}
	found, err := trial.Said(ctx, in, timeout)
	if err != nil {
		return "the pack cannot answer, so the call would be refused: " + err.Error()
	}
	effect, rules, codes, obligations := writ.EffectAllow, []string{}, []string{}, []writ.Obligation{}
	for _, x := range found {
		effect = found[0].Effect
		rules = append(rules, x.Rule)
		codes = append(codes, x.Code)
		obligations = append(obligations, x.Obligations...)
	}
	slices.Sort(codes)
	got := answer(effect, rules, slices.Compact(codes), obligations)
	want := answer(f.Want.Effect, f.Want.Rules, f.Want.Codes, f.Want.Obligations)
	if got == want {
		return ""
	}
	return "got  " + got + "\nwant " + want
}

// answer is an answer as text that can be compared and read.
func answer(effect writ.Effect, rules, codes []string, obligations []writ.Obligation) string {
	text := fmt.Sprintf("%s rules %v codes %v", effect, rules, codes)
	if len(obligations) == 0 {
		return text
	}
	b, err := json.Marshal(obligations) // sorts the keys of arguments
	if err != nil {
		return text + " obligations: " + err.Error()
	}
	return text + " obligations " + string(b)
}
