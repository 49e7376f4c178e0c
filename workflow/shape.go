package workflow

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ/client"
)

// decode reads one JSON value, numbers as they stand.
func decode(b []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("is no JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return v, nil
}

// shape says of every member whether there is such a one, by exactly that name, and
// whether its value has the form it must have: what passes, decodes. It goes no
// deeper where anything may stand.
func shape(v any, t reflect.Type, report func(Problem), path ...any) {
	bad := func(msg string) { report(Problem{Pointer: at(path...), Msg: msg}) }
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if v == nil {
		return // stands for nothing
	}
	if t == reflect.TypeFor[Edge]() {
		if _, name := v.(string); name {
			return
		}
		t = reflect.TypeFor[client.Dependency]()
	}
	switch t.Kind() {
	case reflect.Interface:
	case reflect.String:
		if _, ok := v.(string); !ok {
			bad("must be a text")
		}
	case reflect.Bool:
		if _, ok := v.(bool); !ok {
			bad("must be true or false")
		}
	case reflect.Int, reflect.Int64:
		n, ok := v.(json.Number)
		if _, err := strconv.ParseInt(string(n), 10, 64); !ok || err != nil {
			bad("must be a whole number")
		}
	case reflect.Slice:
		list, ok := v.([]any)
		if !ok {
			bad("must be a list")
		}
		for i, item := range list {
			shape(item, t.Elem(), report, append(slices.Clip(path), i)...)
		}
	case reflect.Map:
		object, ok := v.(map[string]any)
		if !ok {
			bad("must be an object")
		}
		for _, name := range sorted(object) {
			shape(object[name], t.Elem(), report, append(slices.Clip(path), name)...)
		}
	case reflect.Struct:
		object, ok := v.(map[string]any)
		if !ok {
			bad("must be an object")
		}
		known := members(t)
		for _, name := range sorted(object) {
			if of, ok := known[name]; ok {
				shape(object[name], of, report, append(slices.Clip(path), name)...)
			} else {
				report(Problem{Pointer: at(path...), Msg: "there is no member", Name: name})
			}
		}
	default:
		bad(fmt.Sprintf("has a form that is not known: %s", t.Kind()))
	}
}

// members are the members of an object of a type.
func members(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && f.IsExported() && name != "-" {
			out[name] = f.Type
		}
	}
	return out
}

// fill decodes what has the shape of v.
func fill(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}
