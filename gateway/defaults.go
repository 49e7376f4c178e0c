package gateway

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// fieldPlan is what filling in a field takes: its JSON name and its default as
// JSON, empty when it has none.
type fieldPlan struct {
	index int
	name  string
	value []byte
}

// planDefaults notes the `default:` tags of a struct type and of all types
// below it.
func (c *catalogue) planDefaults(t reflect.Type) error {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return c.planDefaults(t.Elem())
	case reflect.Struct:
	default:
		return nil
	}
	if _, done := c.defaults[t]; done {
		return nil
	}
	c.defaults[t] = nil
	var plans []fieldPlan
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" && !f.Anonymous {
			name = f.Name
		}
		p := fieldPlan{index: i, name: name}
		if text, ok := f.Tag.Lookup("default"); ok {
			p.value = defaultJSON(f.Type, text)
			if err := json.Unmarshal(p.value, reflect.New(f.Type).Interface()); err != nil {
				return fmt.Errorf("default of %s.%s: %w", t, f.Name, err)
			}
		}
		if err := c.planDefaults(f.Type); err != nil {
			return err
		}
		plans = append(plans, p)
	}
	c.defaults[t] = plans
	return nil
}

// defaultJSON renders a tag as JSON: strings need no quotes, arrays of strings
// no brackets, as in the schema.
func defaultJSON(t reflect.Type, text string) []byte {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.String:
		return []byte(strconv.Quote(text))
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && !strings.HasPrefix(text, "["):
		var quoted []string
		for _, s := range strings.Split(text, ",") {
			quoted = append(quoted, strconv.Quote(strings.TrimSpace(s)))
		}
		return []byte("[" + strings.Join(quoted, ",") + "]")
	}
	return []byte(text)
}

// fill sets the defaults of v for every member that sent, the decoded JSON it
// came from, does not have. A null counts as absent.
func (c *catalogue) fill(v reflect.Value, sent any) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return c.fill(v.Elem(), sent)
	case reflect.Slice, reflect.Array:
		items, _ := sent.([]any)
		for i := range min(v.Len(), len(items)) {
			if err := c.fill(v.Index(i), items[i]); err != nil {
				return err
			}
		}
		return nil
	case reflect.Struct:
	default:
		return nil
	}
	members, _ := sent.(map[string]any)
	for _, p := range c.defaults[v.Type()] {
		field := v.Field(p.index)
		if p.name == "" { // embedded: its members are ours
			if err := c.fill(field, sent); err != nil {
				return err
			}
			continue
		}
		if members[p.name] == nil {
			if p.value != nil {
				if err := json.Unmarshal(p.value, field.Addr().Interface()); err != nil {
					return err
				}
			}
			continue
		}
		if err := c.fill(field, members[p.name]); err != nil {
			return err
		}
	}
	return nil
}
