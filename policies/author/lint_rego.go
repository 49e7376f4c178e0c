package author

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/writ-gateway/writ/policies"
)

// Lints of what the rules say.

// rules calls visit for every rule of the pack, else branches included.
func (s *subject) rules(visit func(*ast.Rule)) {
	for _, name := range slices.Sorted(maps.Keys(s.Modules)) {
		for _, r := range s.Modules[name].Rules {
			for ; r != nil; r = r.Else {
				visit(r)
			}
		}
	}
}

// calls calls visit for every call of a builtin or function in a rule,
// wherever it stands, with its operands.
func calls(r *ast.Rule, visit func(name string, args []*ast.Term, loc *ast.Location)) {
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Rule:
			return x != r // an else branch is visited by itself
		case *ast.Expr:
			if x.IsCall() {
				visit(x.Operator().String(), x.Operands(), x.Location)
			}
		case *ast.Term:
			if c, ok := x.Value.(ast.Call); ok {
				loc := x.Location
				if loc == nil {
					loc = r.Location
				}
				visit(c[0].Value.String(), c[1:], loc)
			}
		}
		return false
	}).Walk(r)
}

func prints(s *subject, report reporter) {
	s.rules(func(r *ast.Rule) {
		calls(r, func(name string, _ []*ast.Term, loc *ast.Location) {
			if name == "print" {
				report(at(loc), "print tells the log about calls; packs do not")
			}
		})
	})
}

func globs(s *subject, report reporter) {
	s.rules(func(r *ast.Rule) {
		calls(r, func(name string, args []*ast.Term, loc *ast.Location) {
			if name != "glob.match" || len(args) == 0 {
				return
			}
			if pattern, ok := args[0].Value.(ast.String); ok && strings.Contains(string(pattern), "**") {
				report(at(loc), "glob.match(%q, …) matches more than the directory it looks like", string(pattern))
			}
		})
	})
}

// unguardedToNumber: with strict builtin errors, to_number of "999x" ends the
// evaluation.
func unguardedToNumber(s *subject, report reporter) {
	s.rules(func(r *ast.Rule) {
		guarded := map[string]bool{}
		calls(r, func(name string, args []*ast.Term, _ *ast.Location) {
			switch {
			case name == "is_number" && len(args) > 0:
				guarded[args[0].String()] = true
			case (name == "regex.match" || name == "re_match") && len(args) > 1:
				guarded[args[1].String()] = true
			}
		})
		calls(r, func(name string, args []*ast.Term, loc *ast.Location) {
			if name == "to_number" && len(args) > 0 && !guarded[args[0].String()] {
				report(at(loc), "to_number(%s) fails when it is no number", args[0])
			}
		})
	})
}

// conflicting: complete rules of one name with different constant values.
func conflicting(s *subject, report reporter) {
	values := map[string]*ast.Term{}
	s.rules(func(r *ast.Rule) {
		h := r.Head
		if h.RuleKind() != ast.SingleValue || h.Value == nil || r.Default || len(h.Reference) > 1 || len(h.Args) > 0 {
			return
		}
		name := h.Ref().String()
		before, seen := values[name]
		switch {
		case !seen:
			values[name] = h.Value
		case before.Equal(h.Value):
		case elseOf(s, r):
		default:
			report(at(r.Location), "%s is given a second value: %s after %s", name, h.Value, before)
		}
	})
}

// elseOf says whether a rule is the else branch of another.
func elseOf(s *subject, r *ast.Rule) bool {
	for _, m := range s.Modules {
		for _, top := range m.Rules {
			for e := top.Else; e != nil; e = e.Else {
				if e == r {
					return true
				}
			}
		}
	}
	return false
}

// unindexable: a comparison of a constant with something computed from the
// input, which no index can look up, so every such rule is tried on every call.
func unindexable(s *subject, report reporter) {
	s.rules(func(r *ast.Rule) {
		for _, e := range r.Body {
			if e.Negated || !e.IsCall() || !slices.Contains([]string{"equal", "eq"}, e.Operator().String()) || len(e.Operands()) != 2 {
				continue
			}
			a, b := e.Operand(0), e.Operand(1)
			if ast.IsConstant(a.Value) {
				a, b = b, a
			}
			call, ok := a.Value.(ast.Call)
			if !ok || !ast.IsConstant(b.Value) || !readsInput(call) {
				continue
			}
			report(at(e.Location), "%s(…) of the input is compared with a constant", call[0].Value)
		}
	})
}

// wholeInput: a reference to the input itself, or to whichever part of it.
func wholeInput(s *subject, report reporter) {
	if s.Forgets {
		return
	}
	compiled := s.draft.Compiler()
	if compiled == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Modules)) {
		for _, r := range compiled.Modules[name].Rules {
			policies.WalkReads(r, func(ref ast.Ref) bool {
				if ref.HasPrefix(ast.InputRootRef) && len(ref.ConstantPrefix()) == 1 {
					report(at(ref[0].Location), "all of the input is read, and a part of it would do")
				}
				return false
			})
		}
	}
}

func readsInput(x any) bool {
	found := false
	ast.WalkRefs(x, func(r ast.Ref) bool {
		found = found || r.HasPrefix(ast.InputRootRef)
		return found
	})
	return found
}
