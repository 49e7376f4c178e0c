package gateway

import (
	"bytes"
	"fmt"
	"reflect"
	"sync"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

const draft2020 = "https://json-schema.org/draft/2020-12/schema"

// Schemas renders the JSON Schemas (2020-12) of a capability's arguments, path
// parameters among them, and of its result. Each stands alone: what it refers
// to is under its own $defs. They are nil for an internal capability and for one
// that was not in the registry the validator was made from.
func (v *Validator) Schemas(c *writ.Capability) (args, result writ.RawObject) {
	render := v.cat.published[c.ID]
	if render == nil {
		return nil, nil
	}
	return render()
}

// publish is what renders the schemas of a capability, when they are asked for: to
// render those of all is a third of what a gateway does when it starts.
func (c *catalogue) publish(k *writ.Capability) func() (args, result writ.RawObject) {
	sent := c.args[k.Args]
	var replied *huma.Schema
	if k.Result != nil {
		replied = c.result(k)
	}
	return sync.OnceValues(func() (args, result writ.RawObject) {
		if replied != nil {
			result = c.mustStandalone(replied)
		}
		return c.mustStandalone(sent), result
	})
}

// mustStandalone is standalone for what was derived from Go types: it cannot fail.
func (c *catalogue) mustStandalone(s *huma.Schema) writ.RawObject {
	text, err := c.standalone(s)
	if err != nil {
		panic(fmt.Sprintf("gateway: a schema of ours cannot be written: %v", err))
	}
	return text
}

// result is the schema of a capability's result.
func (c *catalogue) result(k *writ.Capability) *huma.Schema {
	t := k.Result
	if k.ID == capabilityInvoke {
		t = reflect.TypeFor[Envelope]()
	}
	return c.reg.Schema(t, true, pascal(string(k.ID))+"Result")
}

// standalone renders a schema with everything it refers to.
func (c *catalogue) standalone(s *huma.Schema) (writ.RawObject, error) {
	text, err := stdjson.Marshal(s)
	if err != nil {
		return nil, err
	}
	var root map[string]stdjson.RawMessage
	if err := stdjson.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	defs := map[string]*huma.Schema{}
	c.reach(s, defs)
	root["$schema"] = stdjson.RawMessage(`"` + draft2020 + `"`)
	if len(defs) > 0 {
		if root["$defs"], err = stdjson.Marshal(defs); err != nil {
			return nil, err
		}
	}
	if text, err = stdjson.Marshal(root); err != nil {
		return nil, err
	}
	return bytes.ReplaceAll(text, []byte(`"$ref":"`+schemaPrefix), []byte(`"$ref":"#/$defs/`)), nil
}

// reach collects the named schemas that s leads to.
func (c *catalogue) reach(s *huma.Schema, defs map[string]*huma.Schema) {
	if s == nil {
		return
	}
	if s.Ref != "" {
		name := s.Ref[len(schemaPrefix):]
		if defs[name] != nil {
			return
		}
		s = c.reg.SchemaFromRef(s.Ref)
		defs[name] = s
	}
	c.reach(s.Items, defs)
	for _, p := range s.Properties {
		c.reach(p, defs)
	}
	for _, p := range s.OneOf {
		c.reach(p, defs)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		c.reach(more, defs)
	}
}
