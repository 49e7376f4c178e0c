package daemon

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/writ-gateway/writ/gateway"
)

// Every array a caller can send says how long it may be, so that the work of
// checking arguments has an end.
func TestEveryArrayOfArgumentsIsBounded(t *testing.T) {
	cat := Catalog()
	v, err := gateway.NewValidator(cat)
	if err != nil {
		t.Fatal(err)
	}
	arrays := 0
	var walk func(path string, node any)
	walk = func(path string, node any) {
		switch n := node.(type) {
		case map[string]any:
			if n["type"] == "array" {
				arrays++
				if most, ok := n["maxItems"].(float64); !ok || most > 256 {
					t.Errorf("%s has no maxItems, or a large one", path)
				}
			}
			for name, sub := range n {
				walk(path+"/"+name, sub)
			}
		case []any:
			for _, sub := range n {
				walk(path, sub)
			}
		}
	}
	for _, k := range cat.All() {
		args, _ := v.Schemas(k)
		if args == nil {
			continue
		}
		var schema any
		if err := json.Unmarshal(args, &schema); err != nil {
			t.Fatal(err)
		}
		walk(string(k.ID), schema)
	}
	if arrays < 5 {
		t.Errorf("%d arrays were found", arrays)
	}
}

// What the API reference, the help of commands and the schemas say of arguments and
// replies stands beside them in the code: beside each.
func TestEverythingIsDocumented(t *testing.T) {
	for _, c := range Catalog().All() {
		for _, typ := range []reflect.Type{c.Args, c.Result} {
			for _, f := range reflect.VisibleFields(typ) {
				if f.IsExported() && !f.Anonymous && (f.Tag.Get("doc") == "" || f.Tag.Get("json") == "") { // members of what is embedded are among them
					t.Errorf("%s: %s.%s has no doc or json tag", c.ID, typ.Name(), f.Name)
				}
			}
		}
	}
}
