package gateway

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

const schemaPrefix = "#/components/schemas/"

// Huma's process-wide switches. Without strict casing a member "Label" passes
// the checks of no member and is then decoded as "label"; Huma's own error
// model would repeat what the caller sent.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, _ string, _ ...error) huma.StatusError { return bareProblem(status) }
}

// catalogue holds the one schema of every argument and result type. It is
// filled once and only read after that; published renders a capability's as JSON.
type catalogue struct {
	reg       huma.Registry
	args      map[reflect.Type]*huma.Schema
	defaults  map[reflect.Type][]fieldPlan
	published map[writ.CapabilityID]func() (args, result writ.RawObject)
}

// newCatalogue derives the schemas of everything in the registry. Tags that
// make no schema are defects of the program and come back as an error.
func newCatalogue(reg *writ.Registry) (c *catalogue, err error) {
	defer func() {
		if p := recover(); p != nil {
			c, err = nil, fmt.Errorf("schema: %v", p)
		}
	}()
	c = &catalogue{
		reg:       huma.NewMapRegistry(schemaPrefix, namer()),
		args:      map[reflect.Type]*huma.Schema{},
		defaults:  map[reflect.Type][]fieldPlan{},
		published: map[writ.CapabilityID]func() (args, result writ.RawObject){},
	}
	c.reg.RegisterTypeAlias(reflect.TypeFor[writ.RawObject](), reflect.TypeFor[anyObject]())
	sent := map[*huma.Schema]bool{}
	for _, k := range reg.All() {
		if k.Args == nil || k.Args.Kind() != reflect.Struct {
			return nil, fmt.Errorf("schema: the arguments of %s are not a struct", k.ID)
		}
		if c.args[k.Args] != nil {
			continue
		}
		s := huma.SchemaFromType(c.reg, k.Args)
		c.refuseNullArrays(s, sent)
		inOrder(s, k.Args)
		c.args[k.Args] = s
		if err := c.planDefaults(k.Args); err != nil {
			return nil, fmt.Errorf("schema: arguments of %s: %w", k.ID, err)
		}
	}
	c.reg.Schema(reflect.TypeFor[Problem](), true, "Problem")
	for _, k := range reg.All() {
		if k.Result != nil && !k.Internal {
			c.result(k)
		}
	}
	// Replies may gain members in a later version; requests take none they do
	// not know.
	for _, s := range c.reg.Map() {
		if !sent[s] && s.AdditionalProperties == false {
			s.AdditionalProperties = nil
		}
	}
	for _, k := range reg.All() {
		if !k.Internal {
			c.published[k.ID] = c.publish(k)
		}
	}
	return c, nil
}

// anyObject is the schema of writ.RawObject: a JSON object nobody looks into.
type anyObject struct{}

func (anyObject) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// namer names schemas after their types, and prefixes the package when two
// packages use one name (Huma's own namer panics then).
func namer() func(reflect.Type, string) string {
	taken := map[string]reflect.Type{}
	return func(t reflect.Type, hint string) string {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		name := huma.DefaultSchemaNamer(t, hint)
		if t.Kind() != reflect.Struct || t.Name() == "" {
			return name
		}
		if have, ok := taken[name]; ok && have != t {
			name = huma.DefaultSchemaNamer(t, "")
			pkg := []byte(path.Base(t.PkgPath()))
			pkg[0] -= 'a' - 'A'
			name = string(pkg) + name
		}
		taken[name] = t
		return name
	}
}

// resolve follows references.
func (c *catalogue) resolve(s *huma.Schema) *huma.Schema {
	for s != nil && s.Ref != "" {
		s = c.reg.SchemaFromRef(s.Ref)
	}
	return s
}

// inOrder names the required members of arguments in the order of the struct: Huma
// puts those of structs it embeds last.
func inOrder(s *huma.Schema, t reflect.Type) {
	var required []string
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if slices.Contains(s.Required, name) {
			required = append(required, name)
		}
	}
	if len(required) == len(s.Required) {
		s.Required = required
	}
}

// refuseNullArrays makes the arrays of a request plain: Huma takes null for
// any array, which would pass minItems and enum unseen. Replies keep it, since
// Go writes an empty slice as null.
func (c *catalogue) refuseNullArrays(s *huma.Schema, seen map[*huma.Schema]bool) {
	s = c.resolve(s)
	if s == nil || seen[s] {
		return
	}
	seen[s] = true
	if s.Type == huma.TypeArray {
		s.Nullable = false
	}
	c.refuseNullArrays(s.Items, seen)
	for _, p := range s.Properties {
		c.refuseNullArrays(p, seen)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		c.refuseNullArrays(more, seen)
	}
}
