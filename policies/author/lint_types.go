package author

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// unlikeTypes finds comparisons that hold, or do not, by the type of their
// operands alone: "5" > 10 is true whatever the numbers mean. What the operands
// are is known of constants, of the input by its schema, and of data.yaml.
func unlikeTypes(s *subject, report reporter) {
	if s.draft.Compiler() == nil {
		return // without the compiler nothing is known of the input
	}
	s.rules(func(r *ast.Rule) {
		names := aliases(r)
		calls(r, func(op string, args []*ast.Term, loc *ast.Location) {
			if !slices.Contains([]string{"gt", "gte", "lt", "lte", "equal", "neq"}, op) || len(args) != 2 {
				return
			}
			a, b := s.kinds(args[0], names, 0), s.kinds(args[1], names, 0)
			if len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(k string) bool { return slices.Contains(b, k) }) {
				return
			}
			report(at(loc), "%s is of type %s, %s of type %s", args[0], a[0], args[1], b[0])
		})
	})
}

// aliases are the variables of a rule that stand for one reference:
// x := input.y, some x in input.y and every x in input.y.
func aliases(r *ast.Rule) map[ast.Var]*ast.Term {
	out := map[ast.Var]*ast.Term{}
	set := func(name, value *ast.Term) {
		v, ok := name.Value.(ast.Var)
		if !ok {
			return
		}
		if _, again := out[v]; again {
			value = nil // two scopes with one name: unknown
		}
		out[v] = value
	}
	element := func(of *ast.Term) *ast.Term {
		ref, ok := of.Value.(ast.Ref)
		if !ok {
			return nil
		}
		return ast.NewTerm(ref.Append(ast.VarTerm("$element")))
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Every:
			set(x.Value, element(x.Domain))
		case *ast.SomeDecl:
			if c, ok := x.Symbols[0].Value.(ast.Call); ok && len(c) >= 3 {
				set(c[len(c)-2], element(c[len(c)-1]))
			}
		case *ast.Expr:
			if x.IsAssignment() && len(x.Operands()) == 2 {
				set(x.Operand(0), x.Operand(1))
			}
		}
		return false
	}).Walk(r)
	return out
}

// kinds are the types a term can have, in the order of OPA; nil when unknown.
func (s *subject) kinds(t *ast.Term, names map[ast.Var]*ast.Term, depth int) []string {
	if t == nil || depth > 8 {
		return nil
	}
	switch v := t.Value.(type) {
	case ast.Var:
		return s.kinds(names[v], names, depth+1)
	case ast.Ref:
		if head, ok := v[0].Value.(ast.Var); ok {
			if alias := names[head]; alias != nil {
				ref, isRef := alias.Value.(ast.Ref)
				if !isRef {
					return nil
				}
				return s.kinds(ast.NewTerm(slices.Concat(ref, v[1:])), names, depth+1)
			}
		}
		if v.HasPrefix(ast.InputRootRef) {
			return kindsOf(s.draft.Compiler().TypeEnv.GetByRef(v))
		}
		return s.configKinds(v)
	case ast.Call:
		if slices.Contains([]string{"count", "to_number", "abs", "ceil", "floor", "round", "sum"}, v[0].Value.String()) {
			return []string{"number"}
		}
		if slices.Contains([]string{"lower", "upper", "trim", "concat", "trim_space", "format_int"}, v[0].Value.String()) {
			return []string{"string"}
		}
		return nil
	}
	if ast.IsConstant(t.Value) {
		return []string{ast.ValueName(t.Value)}
	}
	return nil
}

// configKinds looks a reference up in the pack's data.yaml.
func (s *subject) configKinds(r ast.Ref) []string {
	config := ast.MustParseRef("data." + s.ID + ".config")
	if !r.HasPrefix(config) {
		return nil
	}
	value := s.Config
	for _, part := range r[len(config):] {
		key, ok := part.Value.(ast.String)
		m, isMap := value.(map[string]any)
		if !ok || !isMap || m[string(key)] == nil {
			return nil
		}
		value = m[string(key)]
	}
	v, err := ast.InterfaceToValue(value)
	if err != nil {
		return nil
	}
	return []string{ast.ValueName(v)}
}

func kindsOf(t types.Type) []string {
	switch t := t.(type) {
	case types.Null, types.Boolean, types.Number, types.String:
		return []string{types.Sprint(t)}
	case *types.Array:
		return []string{"array"}
	case *types.Object:
		return []string{"object"}
	case *types.Set:
		return []string{"set"}
	case types.Any:
		var out []string
		for _, x := range t {
			k := kindsOf(x)
			if k == nil {
				return nil
			}
			out = append(out, k...)
		}
		return out
	}
	return nil
}
