package policies

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What a wrapper shows to the package it adapts, as a JSON Schema: exactly what
// _host_input writes out. A reference of theirs to anything else is a compile
// error. So no rule of theirs is silent because a field has another name here,
// and as the value of an object is undefined with any of its parts, all they may
// read is there whenever they are asked.

type schema = map[string]any

// writtenOut checks that the names in an object are constant.
func writtenOut(o ast.Object) error {
	return o.Iter(func(k, v *ast.Term) error {
		if _, ok := k.Value.(ast.String); !ok {
			return at(k.Location, "the names in %s must be constant texts", hostInput)
		}
		if inner, ok := v.Value.(ast.Object); ok {
			return writtenOut(inner)
		}
		return nil
	})
}

// shown is the schema of what the pack shows, with the fields it ignores.
func (p *pack) shown() (schema, error) {
	var s schema
	for _, r := range p.ownRules() {
		if r.Head.Ref().String() == hostInput {
			s = p.shape(r.Head.Value)
		}
	}
	if s["properties"] == nil {
		return nil, inPack(p.ID, "pack.yaml", fmt.Errorf("%s shows nothing to the adapted package", hostInput))
	}
	var all []error
	for _, field := range p.Adapts.Ignores {
		if strings.HasSuffix(field, wholeObject) {
			if _, object := sub(s, strings.TrimSuffix(field, wholeObject))["properties"]; !object {
				all = append(all, inPack(p.ID, "pack.yaml", fmt.Errorf("adapts.ignores: %s is for an object that %s writes out", field, hostInput)))
			}
			continue
		}
		if !ignore(s, field) {
			all = append(all, inPack(p.ID, "pack.yaml", fmt.Errorf("adapts.ignores: %s is written out in %s, or is below a value there", field, hostInput)))
		}
	}
	return s, errors.Join(all...)
}

// wholeObject ends an entry of adapts.ignores that is about all fields of an object:
// somebody has looked at what their rules read of it unseen.
const wholeObject = ".*"

// sub is the part of a schema a field leads to; nil when there is none.
func sub(s schema, field string) schema {
	for step := range strings.SplitSeq(field, ".") {
		properties, _ := s["properties"].(schema)
		s, _ = properties[step].(schema)
	}
	return s
}

// shape is the schema of a term of _host_input.
func (p *pack) shape(t *ast.Term) schema {
	switch v := t.Value.(type) {
	case ast.Object:
		properties := schema{}
		v.Foreach(func(k, x *ast.Term) { properties[string(stringOf(k))] = p.shape(x) })
		return objectOf(properties)
	case *ast.ArrayComprehension:
		return listOf(p.shape(v.Term))
	case *ast.SetComprehension:
		return listOf(p.shape(v.Term))
	case *ast.Array:
		var items []any
		v.Foreach(func(x *ast.Term) { items = append(items, p.shape(x)) })
		return listOf(items...)
	case ast.Ref:
		if value, ok := p.configured(v); ok {
			return shapeOf(value)
		}
	}
	return leaf()
}

// shapeOf is the schema of a value in data.yaml.
func shapeOf(value any) schema {
	switch v := value.(type) {
	case map[string]any:
		properties := schema{}
		for k, x := range v {
			properties[k] = shapeOf(x)
		}
		return objectOf(properties)
	case []any:
		var items []any
		for _, x := range v {
			items = append(items, shapeOf(x))
		}
		return listOf(items...)
	}
	return leaf()
}

// objectOf is closed; one without members has nothing to be read either.
func objectOf(properties schema) schema {
	if len(properties) == 0 {
		return leaf()
	}
	return schema{"type": "object", "properties": properties}
}

func listOf(items ...any) schema {
	if len(items) == 0 {
		return leaf()
	}
	return schema{"type": "array", "items": schema{"anyOf": items}}
}

// leaf is a value that is not written out, so nothing can be read below it but
// the elements of a list.
func leaf() schema {
	scalars := func() []any { // to the compiler null would be anything
		return []any{schema{"type": "string"}, schema{"type": "number"}, schema{"type": "boolean"}}
	}
	return schema{"anyOf": append(scalars(), schema{"type": "array", "items": schema{"anyOf": scalars()}})}
}

// ignore puts a field that may stay undefined into a schema; false when there is
// something in its place already.
func ignore(s schema, field string) bool {
	for {
		properties, ok := s["properties"].(schema)
		if !ok {
			return false
		}
		step, rest, more := strings.Cut(field, ".")
		switch inner, there := properties[step].(schema); {
		case !more && there:
			return false
		case !more:
			properties[step] = schema{}
			return true
		case !there:
			inner = schema{"type": "object", "properties": schema{}}
			properties[step] = inner
			s = inner
		default:
			s = inner
		}
		field = rest
	}
}

// has says whether a schema describes what a path and a key, or an array of
// keys, lead to; what is not constant is not looked at.
func has(s schema, path ast.Ref, key *ast.Term) bool {
	if list, ok := key.Value.(*ast.Array); ok {
		list.Foreach(func(t *ast.Term) { path = path.Append(t) })
	} else {
		path = path.Append(key)
	}
	for _, step := range path {
		name, ok := step.Value.(ast.String)
		properties, object := s["properties"].(schema)
		if !ok || len(s) == 0 {
			return true
		}
		if !object {
			return false
		}
		if s, ok = properties[string(name)].(schema); !ok {
			return false
		}
	}
	return true
}
