package policies

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// What the pack's own modules may say of the package it adapts. Whatever is
// undefined there must deny, so its answers can only permit:
//
//	findings contains {…} if not _clean
//
//	_clean if count(data.<package>.deny) == 0 with input as _host_input
//
// A helper asks questions, and holds when the answers are as they should be; a
// finding denies its absence, and nothing else may be made of it. An input that
// cannot be built, a rule that is undefined and a value of another kind are then
// all denied.

// hostInput is the rule whose value the adapted package sees as its input.
const hostInput = "_host_input"

// question is the entry point an expression asks about, if it is one of the
// forms in which an answer may be taken.
func (p *pack) question(e *ast.Expr) (entry string, ok bool) {
	if p.Adapts == nil || e.Negated || len(e.With) != 1 || !e.IsCall() || e.Operator().String() != "equal" || len(e.Operands()) != 2 {
		return "", false
	}
	with := e.With[0]
	if with.Target.Value.Compare(ast.InputRootRef) != 0 || with.Value.Value.Compare(ast.Var(hostInput)) != 0 {
		return "", false
	}
	about, want := e.Operand(0).Value, e.Operand(1).Value
	denies := slices.Concat(p.Adapts.Entrypoints.Deny, p.Adapts.Entrypoints.Warn)
	if call, isCall := about.(ast.Call); isCall && len(call) == 2 && call[0].Value.String() == "count" && want.Compare(ast.Number("0")) == 0 {
		return p.entryOf(call[1].Value, denies, false)
	}
	switch want {
	case ast.Boolean(true):
		return p.entryOf(about, p.Adapts.Entrypoints.Allow, true)
	case ast.Boolean(false):
		return p.entryOf(about, denies, false)
	}
	return "", false
}

// entryOf finds the entry point a value refers to, or refers into.
func (p *pack) entryOf(v ast.Value, names []string, into bool) (string, bool) {
	r, _ := v.(ast.Ref)
	for _, name := range names {
		if entry := p.Adapts.entry(name); r.Equal(entry) || into && r.IsGround() && r.HasPrefix(entry) {
			return name, true
		}
	}
	return "", false
}

// withRule says in which form with may stand in the pack.
func (p *pack) withRule() string {
	if p.Adapts == nil {
		return "with is for tests"
	}
	var forms []string
	form := func(names []string, format string) {
		if len(names) > 0 {
			forms = append(forms, fmt.Sprintf(format, p.Adapts.entry(names[0])))
		}
	}
	form(p.Adapts.Entrypoints.Allow, "`%s == true with input as "+hostInput+"`")
	form(slices.Concat(p.Adapts.Entrypoints.Deny, p.Adapts.Entrypoints.Warn), "`count(%s) == 0 with input as "+hostInput+"`")
	return "with is for tests, and to ask a declared entry point: " + strings.Join(forms, " or ")
}

// admitWrapper checks how the pack's modules, taken together, use the package it
// adapts.
func (p *pack) admitWrapper() error {
	w := wrapper{pack: p, helpers: map[string][]string{}, denied: map[string][]*ast.Rule{}}
	rules := p.ownRules()
	for _, r := range rules {
		w.helper(r)
	}
	if inputs := w.named(rules, hostInput); len(inputs) != 1 {
		w.note(inPack(p.ID, "pack.yaml", fmt.Errorf("adapts wants one rule %s := {…} in the pack, with what their rules see as input; there are %d", hostInput, len(inputs))))
	} else if err := w.input(inputs[0]); err != nil {
		w.note(err)
	}
	for _, r := range rules {
		w.mentions(r)
	}
	for _, name := range p.Adapts.Entrypoints.all() {
		w.decides(name)
	}
	return errors.Join(w.bad...)
}

// ownRules are the rules of the pack's own modules, else branches included.
func (p *pack) ownRules() []*ast.Rule {
	var out []*ast.Rule
	for _, name := range slices.Sorted(maps.Keys(p.modules)) {
		for _, r := range p.modules[name].Rules {
			for ; r != nil; r = r.Else {
				out = append(out, r)
			}
		}
	}
	return out
}

type wrapper struct {
	*pack
	helpers map[string][]string    // name of a helper → entry points it asks
	denied  map[string][]*ast.Rule // name of a helper → findings that deny its absence
	bad     []error
}

func (w *wrapper) note(err error) { w.bad = append(w.bad, err) }

func (w *wrapper) named(rules []*ast.Rule, name string) []*ast.Rule {
	return slices.DeleteFunc(slices.Clone(rules), func(r *ast.Rule) bool { return r.Head.Ref().String() != name })
}

// helper notes a rule that asks questions. It must be true or undefined, and
// have one body: a second would make the answers a matter of choice.
func (w *wrapper) helper(r *ast.Rule) {
	var asks []string
	for _, e := range r.Body {
		if entry, ok := w.question(e); ok {
			asks = append(asks, entry)
		}
	}
	if len(asks) == 0 {
		return
	}
	h := r.Head
	name := h.Ref().String()
	plain := h.RuleKind() == ast.SingleValue && len(h.Args) == 0 && len(h.Ref()) == 1 && h.Value.Value.Compare(ast.Boolean(true)) == 0
	if !plain || len(w.named(w.ownRules(), name)) > 1 {
		w.note(at(r.Location, "what asks the adapted package is a helper with one body: _clean if count(…) == 0 with input as %s", hostInput))
	}
	w.helpers[name] = asks
}

// input checks the rule that makes their input. Its value is written out, so that
// it is known what their rules are shown, and undefined when a part of it is.
func (w *wrapper) input(r *ast.Rule) error {
	h := r.Head
	if object, ok := h.Value.Value.(ast.Object); ok && h.RuleKind() == ast.SingleValue && len(h.Args) == 0 && !r.Default {
		return writtenOut(object)
	}
	return at(r.Location, "%s must be one object that is written out: %s := {…}", hostInput, hostInput)
}

// mentions refuses every use of the adapted package, of what asks it and of its
// input that is neither a question nor a denial.
func (w *wrapper) mentions(r *ast.Rule) {
	root := w.Adapts.root()
	visit := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Rule:
			return true // an else branch is looked at by itself
		case ast.Ref:
			if x.HasPrefix(root) {
				w.note(at(r.Location, "%s may be used in one form only: %s", x, w.withRule()))
				return true
			}
			if own := pathRef("data.packs." + w.ID); x.HasPrefix(own) && len(x) > len(own) && w.guarded(string(stringOf(x[len(own)]))) {
				w.note(w.only(r, string(stringOf(x[len(own)]))))
			}
		case ast.Var:
			if w.guarded(string(x)) {
				w.note(w.only(r, string(x)))
			}
		}
		return false
	})
	for _, arg := range r.Head.Args {
		visit.Walk(arg)
	}
	for _, part := range []*ast.Term{r.Head.Key, r.Head.Value} {
		if part != nil {
			visit.Walk(part)
		}
	}
	for _, e := range r.Body {
		if _, ok := w.question(e); ok {
			continue
		}
		if name, ok := w.denial(r, e); ok {
			w.denied[name] = append(w.denied[name], r)
			continue
		}
		visit.Walk(e)
	}
}

func stringOf(t *ast.Term) ast.String {
	s, _ := t.Value.(ast.String)
	return s
}

func (w *wrapper) guarded(name string) bool { return name == hostInput || w.helpers[name] != nil }

func (w *wrapper) only(r *ast.Rule, name string) error {
	return at(r.Location, "%s may only be denied: `not %s`, as the whole body of a finding", name, name)
}

// denial is the helper whose absence is all that an expression, and its finding,
// is about.
func (w *wrapper) denial(r *ast.Rule, e *ast.Expr) (string, bool) {
	not, ok := e.Terms.(*ast.Not)
	if !ok || len(not.Body) != 1 || len(not.Body[0].With) > 0 || len(e.With) > 0 || len(r.Body) != 1 || r.Head.Ref().String() != "findings" {
		return "", false
	}
	t, _ := not.Body[0].Terms.(*ast.Term)
	if t == nil {
		return "", false
	}
	v, _ := t.Value.(ast.Var)
	return string(v), w.guarded(string(v))
}

// decides checks that an entry point's answer comes to something.
func (w *wrapper) decides(entry string) {
	strong, any := false, false
	for name, asks := range w.helpers {
		if !slices.Contains(asks, entry) {
			continue
		}
		for _, r := range w.denied[name] {
			for _, made := range w.rules {
				if made.location == r.Location {
					made.asks = append(made.asks, entry)
					any = true
					strong = strong || made.finding.Effect == writ.EffectDeny || made.finding.Effect == writ.EffectRequireApproval
				}
			}
		}
	}
	if !any || !strong && !slices.Contains(w.Adapts.Entrypoints.Warn, entry) {
		w.note(inPack(w.ID, "pack.yaml", fmt.Errorf("adapts.entrypoints: no finding of effect deny or require_approval depends on %s: "+
			"`findings contains {…} if not _clean`, and `_clean if` it is as it should be", entry)))
	}
}

// adapt checks the wrapper and says what the adapted package is shown.
func (p *pack) adapt() error {
	if err := p.admitWrapper(); err != nil {
		return err
	}
	shown, err := p.shown()
	if err != nil {
		return err
	}
	p.schematise(shown)
	return p.readByName(shown)
}
