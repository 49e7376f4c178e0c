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
// engine could run.
type Fixture struct {
	File    string         `yaml:"-"`
	Name    string         `yaml:"name"`
	Foreign bool           `yaml:"foreign"` // this host makes no such input; another one might
	Input   map[string]any `yaml:"input"`
	Want    struct {
		Effect      writ.Effect       `yaml:"effect"`
		Rules       []string          `yaml:"rules"`       // in the order of the findings
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
			bad = append(bad, Finding{
				ID: "fixture-shape", Severity: Error, File: name, Line: 1, Message: err.Error(),
				Hint: "a fixture has name, input (see schema/input.json) and want: {effect, rules, codes, obligations}",
			})
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
	d, err := trial.Decide(ctx, in, timeout)
	if err != nil {
		return "the pack cannot answer, so the call would be refused: " + err.Error()
	}
	if d.Effect != f.Want.Effect || !slices.Equal(d.Rules(), f.Want.Rules) || !slices.Equal(codes(d), f.Want.Codes) {
		return fmt.Sprintf("got  %s rules %v codes %v\nwant %s rules %v codes %v",
			d.Effect, d.Rules(), codes(d), f.Want.Effect, f.Want.Rules, f.Want.Codes)
	}
	if got, want := obliges(d), plain(f.Want.Obligations); got != want {
		return fmt.Sprintf("got  obligations %s\nwant obligations %s", got, want)
	}
	return ""
}

// obliges is what the findings ask the host to do, as JSON.
func obliges(d writ.Decision) string {
	var all []writ.Obligation
	for _, f := range d.Findings {
		all = append(all, f.Obligations...)
	}
	return plain(all)
}

func plain(o []writ.Obligation) string {
	if len(o) == 0 {
		return "[]"
	}
	b, err := json.Marshal(o) // keys sorted
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func codes(d writ.Decision) []string {
	out := []string{}
	for _, f := range d.Findings {
		out = append(out, f.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
