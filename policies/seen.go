package policies

import (
	"errors"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The compiler holds every reference of a vendored rule to what its wrapper shows
// (shown.go), as long as each step is a constant. What follows finds the other
// ways to a field: by a name in a call, by a variable, and through an object that
// is handed on whole. A field read like that and not shown is undefined, and the
// rule that reads it silent.

// readByName checks the vendored modules of a pack against what it shows them.
func (p *pack) readByName(s schema) error {
	var all []error
	for _, m := range p.vendored {
		v := seer{shows: s, ignores: p.Adapts.Ignores, aliases: map[ast.Var]ast.Ref{}}
		v.collect(m)
		v.look(m)
		all = append(all, v.found...)
	}
	return errors.Join(all...)
}

// seer looks through one module.
type seer struct {
	shows   schema
	ignores []string
	aliases map[ast.Var]ast.Ref // of the input or an object in it, by any name they have in the module
	found   []error
}

// collect finds the names that stand for the input or an object in it: x := input.user,
// import input.user, and names for these.
func (v *seer) collect(m *ast.Module) {
	for _, i := range m.Imports {
		if r, ok := i.Path.Value.(ast.Ref); ok && r.HasPrefix(ast.InputRootRef) {
			v.alias(i.Name(), r)
		}
	}
	for before := -1; before != len(v.aliases); {
		before = len(v.aliases)
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.IsAssignment() || e.IsEquality() {
				a, b := e.Operand(0), e.Operand(1)
				v.names(a, b)
				v.names(b, a)
			}
			return false
		})
	}
}

func (v *seer) names(name, what *ast.Term) {
	if x, ok := name.Value.(ast.Var); ok {
		if r, ok := v.object(what); ok {
			v.alias(x, r)
		}
	}
}

func (v *seer) alias(name ast.Var, r ast.Ref) {
	if _, whole := v.descend(r); whole {
		v.aliases[name] = r
	}
}

// input is the reference below the input that a term is, with names resolved.
func (v *seer) input(t *ast.Term) (ast.Ref, bool) {
	switch x := t.Value.(type) {
	case ast.Var:
		if x.Equal(ast.InputRootDocument.Value) {
			return ast.InputRootRef, true
		}
		r, ok := v.aliases[x]
		return r, ok
	case ast.Ref:
		if x.HasPrefix(ast.InputRootRef) {
			return x, true
		}
		if head, ok := x[0].Value.(ast.Var); ok {
			if r, ok := v.aliases[head]; ok {
				return r.Concat(x[1:]), true
			}
		}
	}
	return nil, false
}

// object says whether a term is the input or an object in it, whole.
func (v *seer) object(t *ast.Term) (ast.Ref, bool) {
	r, ok := v.input(t)
	if !ok {
		return nil, false
	}
	_, whole := v.descend(r)
	return r, whole
}

// descend follows a reference. chosen is the step at which a variable chooses the
// field of an object; whole says that the reference ends at an object.
func (v *seer) descend(r ast.Ref) (chosen *ast.Term, whole bool) {
	s := v.shows
	for i, step := range r[1:] {
		if v.looked(r[1 : i+1]) {
			return nil, false
		}
		properties, object := s["properties"].(schema)
		if !object {
			return nil, false
		}
		name, constant := step.Value.(ast.String)
		if !constant {
			return step, false
		}
		s, _ = properties[string(name)].(schema)
	}
	_, whole = s["properties"].(schema)
	return nil, whole && !v.looked(r[1:])
}

// looked says whether somebody has looked at what is read of an object unseen.
func (v *seer) looked(path ast.Ref) bool {
	var names []string
	for _, step := range path {
		name, _ := step.Value.(ast.String)
		names = append(names, string(name))
	}
	return slices.Contains(v.ignores, strings.Join(names, ".")+wholeObject)
}

// look finds what is read unseen.
func (v *seer) look(m *ast.Module) {
	for _, r := range m.Rules {
		for r := r; r != nil; r = r.Else {
			v.handed(r.Head.Value, "a rule gives")
			v.handed(r.Head.Key, "a rule gives")
		}
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			switch terms, ok := x.Terms.([]*ast.Term); {
			case !ok:
			case x.IsAssignment(), x.IsEquality():
				for _, t := range terms[1:] {
					v.takenApart(t)
				}
			default:
				v.call(terms)
			}
		case *ast.Every:
			v.handed(x.Domain, "every goes over")
		case *ast.ArrayComprehension:
			v.handed(x.Term, "a comprehension collects")
		case *ast.SetComprehension:
			v.handed(x.Term, "a comprehension collects")
		case *ast.ObjectComprehension:
			v.handed(x.Value, "a comprehension collects")
		case *ast.Term:
			if call, ok := x.Value.(ast.Call); ok {
				v.call(call)
			}
			if r, ok := x.Value.(ast.Ref); ok { // into an array or object that holds one: what comes out has no name here
				if _, named := r[0].Value.(ast.Var); !named {
					v.handed(r[0], "a reference goes into")
				}
			}
			if r, ok := v.input(x); ok {
				if step, _ := v.descend(r); step != nil {
					v.found = append(v.found, at(x.Location, "reads a field of %s that a variable names: name the fields one by one, since those %s does not write out would not be missed", r, hostInput))
				}
			}
		}
		return false
	}).Walk(m)
}

// takenApart refuses an object of the input in an array or object that is assigned:
// the names it gets on the other side would not be known for it.
func (v *seer) takenApart(t *ast.Term) {
	switch t.Value.(type) {
	case *ast.Array, ast.Object, ast.Set:
		v.handed(t, "an assignment takes apart")
	}
}

// call looks at what a call is given. object.get with a constant name is a read
// like any other, and may be; anything else that is handed an object can read all
// there could be in it.
func (v *seer) call(terms []*ast.Term) {
	args := terms[1:]
	if terms[0].Value.String() == "object.get" && len(args) == 3 {
		if of, ok := v.object(args[0]); ok && constantKey(args[1]) {
			if !has(v.shows, of[1:], args[1]) {
				v.found = append(v.found, at(args[0].Location, "reads %s of %s, which %s does not write out; add it there, or name it in adapts.ignores", args[1], of, hostInput))
			}
			args = args[1:]
		}
	}
	for _, a := range args {
		v.handed(a, terms[0].Value.String()+" is given")
	}
}

func constantKey(t *ast.Term) bool {
	if list, ok := t.Value.(*ast.Array); ok {
		return list.IsGround()
	}
	_, ok := t.Value.(ast.String)
	return ok
}

// handed refuses an object of the input, by itself or in what is made of it.
func (v *seer) handed(t *ast.Term, how string) {
	if t == nil {
		return
	}
	ast.WalkTerms(t, func(x *ast.Term) bool {
		switch x.Value.(type) {
		case ast.Call, *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			return true // looked at by itself
		}
		if r, ok := v.object(x); ok {
			v.found = append(v.found, at(x.Location, "%s %s whole: name the fields that are read, since those %s does not write out would not be missed", how, r, hostInput))
			return true
		}
		_, isRef := x.Value.(ast.Ref)
		return isRef
	})
}
