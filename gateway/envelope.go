package gateway

import (
	stdjson "encoding/json"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

// EnvelopePath is where the schema of every request about a task is served.
const EnvelopePath = "/schemas/task-envelope.json"

// envelopeID names the schema, wherever it is served from.
const envelopeID = "https://writ-gateway.github.io/writ" + EnvelopePath

// envelope is the JSON Schema of every request about a task, in the one form that
// all of them have: the body of POST /v1/invoke. Who acts, and when, is not in it:
// the gateway knows. A later version may add verbs and optional members, and
// takes none away.
func (c *catalogue) envelope(reg *writ.Registry) ([]byte, error) {
	root := &huma.Schema{
		Title:       "A request about a task",
		Description: "The body of POST /v1/invoke for one of the verbs of tasks. The Idempotency-Key is a header.",
	}
	for _, k := range reg.All() {
		if k.Internal || !strings.HasPrefix(string(k.ID), "task.") && k.ID != "agent.delegate" {
			continue
		}
		one := &huma.Schema{
			Type: huma.TypeObject, Title: string(k.ID), Description: k.Summary, AdditionalProperties: false,
			Properties: map[string]*huma.Schema{
				"capability": {Type: huma.TypeString, Enum: []any{string(k.ID)}},
				"args":       c.args[k.Args],
			},
			Required: []string{"capability", "args"},
		}
		if args := exampleArgs(k); args != nil {
			one.Examples = []any{map[string]any{"capability": k.ID, "args": args}}
		}
		root.OneOf = append(root.OneOf, one)
	}
	text, err := c.standalone(root)
	if err != nil {
		return nil, err
	}
	var parts map[string]stdjson.RawMessage
	if err := stdjson.Unmarshal(text, &parts); err != nil {
		return nil, err
	}
	parts["$id"] = stdjson.RawMessage(`"` + envelopeID + `"`)
	text, err = stdjson.MarshalIndent(parts, "", "  ")
	return append(text, '\n'), err
}

// TaskEnvelope renders that schema for a registry.
func TaskEnvelope(reg *writ.Registry) ([]byte, error) {
	c, err := newCatalogue(reg)
	if err != nil {
		return nil, err
	}
	return c.envelope(reg)
}
