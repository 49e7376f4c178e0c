package daemon

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
)

// Every capability that can be called shows how: with arguments its own schema, the
// published one of requests about tasks, and the decoder of the door take. The API
// reference shows them, at each way a call can come.
func TestEveryCapabilityHasAnExample(t *testing.T) {
	reg := Catalog()
	v, err := gateway.NewValidator(reg)
	if err != nil {
		t.Fatal(err)
	}
	compile := func(name string, text []byte) *jsonschema.Schema {
		t.Helper()
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		if err := c.AddResource(name, doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	text, err := gateway.TaskEnvelope(reg)
	if err != nil {
		t.Fatal(err)
	}
	envelope := compile("envelope.json", text)
	about := 0
	for _, k := range reg.All() {
		if k.Internal {
			continue
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(k.Example))
		if err != nil {
			t.Errorf("%s has no example, or one that is not JSON: %v", k.ID, err)
			continue
		}
		args, _ := v.Schemas(k)
		if err := compile("args.json", args).Validate(value); err != nil {
			t.Errorf("%s: its schema refuses its example: %v", k.ID, err)
		}
		if _, err := v.Decode(k, []byte(k.Example)); err != nil {
			t.Errorf("%s: the door refuses its example: %v %+v", k.ID, err, writ.AsError("", err).Fields)
		}
		if strings.HasPrefix(string(k.ID), "task.") || k.ID == "agent.delegate" {
			about++
			if err := envelope.Validate(map[string]any{"capability": string(k.ID), "args": value}); err != nil {
				t.Errorf("%s: the schema of requests about tasks refuses its example: %v", k.ID, err)
			}
		}
	}
	if about < 12 {
		t.Errorf("only %d examples are about tasks", about)
	}

	api, err := gateway.OpenAPI(reg)
	if err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(api)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Parameters []struct {
				Name    string
				Example any
			}
			RequestBody struct {
				Content map[string]struct{ Example map[string]any }
			}
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[writ.CapabilityID]bool{}
	for _, methods := range doc.Paths {
		for _, op := range methods {
			k := reg.Get(writ.CapabilityID(op.ID))
			if k == nil {
				continue // another way to a capability
			}
			seen[k.ID] = true
			shown, want := map[string]any{}, map[string]any{}
			maps.Copy(shown, op.RequestBody.Content["application/json"].Example)
			for _, p := range op.Parameters {
				if p.Example != nil {
					shown[p.Name] = p.Example
				}
			}
			if err := json.Unmarshal([]byte(k.Example), &want); err != nil || !reflect.DeepEqual(shown, want) {
				t.Errorf("%s: the reference shows %v, the example is %s: %v", k.ID, shown, k.Example, err)
			}
		}
	}
	for _, k := range reg.All() {
		if !k.Internal && !seen[k.ID] {
			t.Errorf("the reference does not show %s", k.ID)
		}
	}
}
