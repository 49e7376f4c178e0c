package policies

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// What a pack may be made of. The compiler finds mistakes of the language;
// these rules find policies that are fine Rego and would still fail open,
// reach into somebody else's pack, or answer differently tomorrow.

var ruleID = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$`)

// banned builtins are deterministic, and still have no place in a decision:
// sprintf is undefined when an argument is, which makes a deny disappear.
var banned = []string{"sprintf", "trace"}

// capabilities are the language packs may use: no builtin that reads a clock,
// randomness, the network or the host, and no remote schemas.
func capabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return b.Nondeterministic || slices.Contains(banned, b.Name)
	})
	c.AllowNet = []string{}
	return c
}

func at(loc *ast.Location, format string, args ...any) error {
	return Problem{File: loc.File, Line: loc.Row, Col: loc.Col, Msg: fmt.Sprintf(format, args...)}
}

// admit checks a parsed module and collects the rules that make findings.
func (p *pack) admit(m *ast.Module) error {
	if want := "data.packs." + p.ID; m.Package.Path.String() != want {
		return at(m.Package.Location, "the package must be packs.%s", p.ID)
	}
	var all []error
	note := func(e error) { all = append(all, e) }
	sound := false // negation is true of what is undefined
	for _, imp := range m.Imports {
		switch path := imp.Path.Value.(ast.Ref); path[0].Value.String() {
		case "future", "rego":
			s := path.String()
			sound = sound || s == "future.keywords.not" || s == "future.keywords" || s == "rego.v2"
		default:
			note(at(imp.Location, "packs import language features only; write the full path instead"))
		}
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if e.Negated && !sound {
			note(at(e.Location, "not is used without `import future.keywords.not`: it would not hold of what is undefined"))
		}
		if _, asks := p.question(e); len(e.With) > 0 && !asks {
			note(at(e.Location, "%s", p.withRule()))
		}
		return false
	})
	for _, a := range m.Annotations {
		a.Schemas = nil // the shape of the input is the gateway's to say
	}
	for _, r := range m.Rules {
		name := r.Head.Ref().String()
		switch {
		case name == "findings":
			if err := p.admitFinding(r); err != nil {
				note(err)
			}
		case !strings.HasPrefix(name, "_"):
			note(at(r.Location, "a pack exports findings only; the names of its helpers start with _"))
		}
	}
	return errors.Join(all...)
}

// admitFinding checks one rule that adds to findings. Everything a finding
// says is a constant: so it can be listed, tested and translated, and it can
// never carry what a caller sent.
func (p *pack) admitFinding(r *ast.Rule) error {
	if r.Head.RuleKind() != ast.MultiValue || r.Default || r.Else != nil || len(r.Head.Args) > 0 {
		return at(r.Location, "findings must be a set: findings contains {…} if {…}")
	}
	object, ok := r.Head.Key.Value.(ast.Object)
	if !ok {
		return at(r.Location, "a finding must be written out as an object in the head of its rule")
	}
	text := map[string]string{}
	var err error
	var owes *ast.Term
	object.Foreach(func(k, v *ast.Term) {
		key, ok := k.Value.(ast.String)
		switch value, constant := v.Value.(ast.String); {
		case err != nil:
		case ok && key == "obligations":
			if err = p.constant(v); err == nil {
				owes, err = p.resolved(v)
			}
		case !ok || !slices.Contains([]string{"rule", "effect", "code", "message"}, string(key)):
			err = at(k.Location, "a finding has rule, effect, code, message and perhaps obligations")
		case !constant || value == "":
			err = at(v.Location, "%s must be a constant text", string(key))
		default:
			text[string(key)] = string(value)
		}
	})
	if err != nil {
		return err
	}
	f := writ.Finding{
		Pack: p.ID, Rule: text["rule"], Effect: writ.Effect(text["effect"]),
		Code: text["code"], Message: text["message"],
	}
	switch {
	case len(text) != 4:
		return at(r.Location, "a finding needs rule, effect, code and message")
	case !strings.HasPrefix(f.Rule, p.ID+".") || !ruleID.MatchString(f.Rule):
		return at(r.Location, "rule ids look like %s.some_name", p.ID)
	case !slices.Contains(p.Effects, f.Effect):
		return at(r.Location, "effect is not one of those in the manifest")
	case !writ.Code(f.Code).Receipted():
		return at(r.Location, "code must be one that a denial with a receipt can have")
	case p.rules[f.Rule] != nil:
		return at(r.Location, "rule %s is there twice; put the alternatives into a helper", f.Rule)
	}
	described := rule{finding: f, location: r.Location, last: lastLine(r)}
	described.obligations, described.needs, _, described.known = obligations(f.Rule, f.Effect, owes)
	for _, a := range r.Annotations {
		if a.Scope != "rule" {
			continue
		}
		described.title, described.description = a.Title, a.Description
		described.severity, _ = a.Custom["severity"].(string)
		described.control, _ = a.Custom["control"].(string)
		if id, _ := a.Custom["id"].(string); id != f.Rule {
			return at(r.Location, "custom.id in METADATA must be %s", f.Rule)
		}
	}
	switch {
	case described.title == "" || described.description == "":
		return at(r.Location, "METADATA with title and description must stand above the rule")
	case !slices.Contains([]string{"low", "medium", "high", "critical"}, described.severity):
		return at(r.Location, "custom.severity in METADATA must be low, medium, high or critical")
	case described.control == "":
		return at(r.Location, "custom.control in METADATA must say what the rule is for")
	}
	p.rules[f.Rule] = &described
	p.order = append(p.order, f.Rule)
	return nil
}

// constant holds an obligations term to values known when the pack is loaded:
// constants, and entries of the pack's own data.yaml that are there. Anything
// else could be undefined, and with it the finding would disappear.
func (p *pack) constant(t *ast.Term) error {
	if _, ok := t.Value.(*ast.Array); !ok {
		return at(t.Location, "obligations must be written out as an array")
	}
	var err error
	ast.WalkTerms(t, func(x *ast.Term) bool {
		switch v := x.Value.(type) {
		case ast.Ref:
			if value, _ := p.configured(v); err == nil && !scalars(value) {
				err = at(x.Location, "obligations hold constants and entries of data.%s.config that data.yaml has", p.ID)
			}
			return true
		case ast.Var, ast.Call, *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, *ast.TemplateString:
			if err == nil {
				err = at(x.Location, "obligations must be constant: what is undefined would make the finding disappear")
			}
			return true
		}
		return err != nil
	})
	return err
}

// resolved is an obligations term with the values of data.yaml in it.
func (p *pack) resolved(t *ast.Term) (*ast.Term, error) {
	x, err := ast.TransformRefs(t.Copy().Value, func(r ast.Ref) (ast.Value, error) {
		entry, _ := p.configured(r) // what is not there was refused
		return ast.InterfaceToValue(entry)
	})
	v, ok := x.(ast.Value)
	if err != nil || !ok {
		return nil, at(t.Location, "obligations cannot be read")
	}
	return ast.NewTerm(v), nil
}

// configured is what a reference names in data.yaml.
func (p *pack) configured(r ast.Ref) (any, bool) {
	config := ast.MustParseRef("data." + p.ID + ".config")
	if !r.HasPrefix(config) || !r.IsGround() {
		return nil, false
	}
	at := p.config
	for _, step := range r[len(config):] {
		m, _ := at.(map[string]any)
		key, ok := step.Value.(ast.String)
		if !ok {
			return nil, false
		}
		if at = m[string(key)]; at == nil {
			return nil, false
		}
	}
	return at, true
}

// scalars says whether a value of data.yaml is a number, a text or a truth
// value, or a list of them.
func scalars(v any) bool {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	return !slices.ContainsFunc(list, func(x any) bool {
		switch x.(type) {
		case string, json.Number, float64, int, bool:
			return false
		}
		return true
	})
}

// ownRefs checks compiled modules, where every name is resolved: a pack sees
// the input, its own rules and its own configuration, and its wrapper the package
// it adapts.
func (p *pack) ownRefs(c *ast.Compiler) error {
	rules := ast.MustParseRef("data.packs." + p.ID)
	config := ast.MustParseRef("data." + p.ID + ".config")
	var all []error
	for _, name := range slices.Sorted(maps.Keys(p.modules)) {
		for _, rule := range c.Modules[name].Rules {
			ast.WalkRefs(rule, func(r ast.Ref) bool {
				own := r.HasPrefix(config) || r.HasPrefix(rules) && len(r) > len(rules) ||
					p.Adapts != nil && r.HasPrefix(p.Adapts.root()) // in the forms of wrapper.go
				if r.HasPrefix(ast.DefaultRootRef) && !own {
					loc := r[0].Location
					if loc == nil {
						loc = rule.Location
					}
					all = append(all, at(loc, "a pack reads its own data.%s.config and rules only", p.ID))
				}
				return false
			})
		}
	}
	return errors.Join(all...)
}

// lastLine is the line of the last condition of a rule.
func lastLine(r *ast.Rule) int {
	last := r.Location.Row
	ast.WalkExprs(r, func(e *ast.Expr) bool {
		if e.Location != nil {
			last = max(last, e.Location.Row)
		}
		return false
	})
	return last
}
