package policies

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// place names a part of the input: a member of the document, or of such a member.
// Places are ordered as what they name stands in the canonical JSON.
type place uint16

func placeOf(top, below *key) place {
	var p place
	if top != nil {
		p = place(top.order) << 8
	}
	if below != nil {
		p |= place(below.order)
	}
	return p
}

// readSet is what a pack can see of the input. Two inputs that agree on it get
// the same answer from the pack.
type readSet struct {
	places []place // sorted, none inside another; nothing when clock is set
	clock  bool    // it sees the time, or all of the input
}

// readsOf works out the read-set from a pack's compiled modules, where every name
// is resolved. Whatever of the input comes into an evaluation comes in by a
// reference that begins at the input, and brings all that is below it: what
// happens to the value then does not matter. So a reference counts up to the
// first step that is not a constant, or below which no parts are told apart.
//
// OPA's dependencies.Base follows a value further, through variables, and says
// less than was read: of `x := input.agent; not x.domain` it says
// input.agent.domain, which is absent with an agent of no domain and without any
// agent, and only then the rule does not hold.
func (p *pack) readsOf(c *ast.Compiler) readSet {
	seen := map[place]bool{}
	var out readSet
	note := func(r ast.Ref) bool {
		if !r.HasPrefix(ast.InputRootRef) {
			return false
		}
		top := step(r, 1)
		switch below := step(r, 2); {
		case top == nil, top == kEnv:
			out.clock = true
		case below == nil:
			seen[placeOf(top, nil)] = true
		default:
			seen[placeOf(top, below)] = true
		}
		return false
	}
	for name := range p.modules {
		for _, rule := range c.Modules[name].Rules {
			for r := rule; r != nil; r = r.Else {
				WalkReads(r.Head.Reference, note) // not part of what is walked below
			}
			WalkReads(rule, note)
		}
	}
	if out.clock {
		return out
	}
	for s := range seen {
		if whole := s &^ 0xff; s == whole || !seen[whole] {
			out.places = append(out.places, s)
		}
	}
	slices.Sort(out.places)
	return out
}

// WalkReads calls f for every reference. That a wrapper gives the rules it adapts
// another input (with input as …) reads nothing of this one: they see what the
// value is made of, and references to that are met where it is made.
func WalkReads(x any, f func(ast.Ref) bool) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.With:
			if r, ok := x.Target.Value.(ast.Ref); ok && r.Equal(ast.InputRootRef) {
				WalkReads(x.Value, f)
				return true
			}
		case ast.Ref:
			return f(x)
		}
		return false
	}).Walk(x)
}

// step is the key of the schema at a place of a reference; nil when there is
// none, or another for each evaluation.
func step(r ast.Ref, at int) *key {
	if at >= len(r) {
		return nil
	}
	name, _ := r[at].Value.(ast.String)
	return keys[string(name)]
}

// key appends the parts of an input that are in the read-set, each behind a zero
// byte. JSON holds no zero byte, and no value is empty, so two inputs have one key
// exactly if they agree on every part.
func (s readSet) key(to []byte, b *builder) []byte {
	i := 0
	for _, p := range s.places {
		to = append(to, 0)
		for i < len(b.members) && b.members[i].place < p {
			i++
		}
		if i < len(b.members) && b.members[i].place == p {
			to = append(to, b.json[b.members[i].from:b.members[i].to]...)
		}
	}
	return to
}
