package gateway

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

func TestToolSchema(t *testing.T) {
	v, _ := validator(t)
	schema := writ.RawObject(`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
		"properties":{"ref":{"$ref":"#/$defs/name"},"n":{"type":"integer","maximum":9007199254740992},"list":{"type":"array","items":{"$ref":"#/$defs/name"}}},
		"required":["ref"],"additionalProperties":false,"$defs":{"name":{"type":"string","minLength":2}}}`)
	for _, c := range []struct {
		value, pointer, msg string
		code                writ.Code
	}{
		{`{"ref":"main"}`, "", "", ""},
		{`{"ref":"main","n":9007199254740992}`, "", "", ""},
		{`{"ref":"main","n":9007199254740993}`, "/n", "does not meet maximum", writ.CodeInputInvalid},
		{``, "/ref", "is required", writ.CodeInputInvalid},
		{`{"ref":"x"}`, "/ref", "does not meet minLength", writ.CodeInputInvalid},
		{`{"ref":7}`, "/ref", "expected string", writ.CodeInputInvalid},
		{`{"ref":"main","list":["ab","c"]}`, "/list/1", "does not meet minLength", writ.CodeInputInvalid},
		{`{"ref":"main","canary":1}`, "", "does not meet additionalProperties", writ.CodeInputInvalid},
		{`{"ref":"main","ref":"main"}`, "", "", writ.CodeMalformed},
		{`{`, "", "", writ.CodeMalformed},
	} {
		err := v.Schema(schema, writ.RawObject(c.value))
		e := writ.AsError("", err)
		if writ.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want code %q", c.value, err, c.code)
			continue
		}
		if c.msg != "" && (len(e.Fields) != 1 || e.Fields[0].Pointer != c.pointer || e.Fields[0].Msg != c.msg) {
			t.Errorf("%s: fields %+v", c.value, e.Fields)
		}
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, e), "canary") {
			t.Errorf("%s: the value came back: %+v", c.value, e)
		}
	}
}

func TestToolSchemasThatAreRefused(t *testing.T) {
	v, _ := validator(t)
	wide := `{"$defs":{` + func() string {
		var b strings.Builder
		for i := range 20 {
			fmt.Fprintf(&b, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
		}
		return b.String()
	}() + `"d20":{"type":"string"}},"$ref":"#/$defs/d0"}`
	for name, schema := range map[string]string{
		"empty":                  ``,
		"not an object":          `[]`,
		"not a schema":           `{"type":7}`,
		"another draft":          `{"$schema":"http://json-schema.org/draft-07/schema#"}`,
		"remote":                 `{"$ref":"https://example.com/schema.json"}`,
		"file":                   `{"$ref":"file:///etc/passwd"}`,
		"relative":               `{"$ref":"other.json"}`,
		"own id":                 `{"$id":"https://example.com/","type":"object"}`,
		"id inside":              `{"properties":{"a":{"$id":"https://example.com/"}}}`,
		"id in $defs":            `{"$defs":{"a":{"$id":"urn:a","$defs":{"b":{"items":{"$ref":"#"}}},"allOf":[{"$ref":"#/$defs/b"}]},"b":true},"items":{"$ref":"#/$defs/a"}}`,
		"id that rebases":        `{"$defs":{"x":true,"a":{"$id":"urn:a","properties":{"a":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}},"$ref":"#/$defs/a"}`,
		"id where no schema is":  `{"examples":[{"$id":"urn:a"}]}`,
		"anchor unused":          `{"$defs":{"a":{"$anchor":"x"}}}`,
		"schema inside":          `{"$defs":{"a":{"$schema":"http://json-schema.org/draft-07/schema#"}}}`,
		"dependencies":           `{"dependencies":{"a":{"properties":{"a":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}}}`,
		"many consts":            `{"items":{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"const":1},`, 1500), ",") + `]}}`,
		"keywords of weight":     `{"$defs":{"a":{"enum":[` + strings.TrimSuffix(strings.Repeat("1,", 9000), ",") + `]}},"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/a"}]}`,
		"large pattern":          `{"pattern":"` + strings.Repeat("(?:.{0,1000})", 12) + `"}`,
		"large pattern of names": `{"patternProperties":{"` + strings.Repeat("(?:.{0,1000})", 12) + `":true}}`,
		"small number":           `{"maximum":1e-999999}`,
		"large number":           `{"maximum":1e99999}`,
		"long number":            `{"maximum":0.` + strings.Repeat("1", 100) + `}`,
		"recursive":              `{"properties":{"next":{"$ref":"#"}}}`,
		"recursive by turns":     `{"$defs":{"a":{"items":{"$ref":"#/$defs/b"}},"b":{"items":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}`,
		"dynamic":                `{"$dynamicRef":"#x"}`,
		"nowhere":                `{"$ref":"#/$defs/none"}`,
		"escaped pointer":        `{"$defs":{"a":{}},"$ref":"#/%24defs/a"}`,
		"explosion":              wide,
		"deep":                   strings.Repeat(`{"not":`, 40) + `{}` + strings.Repeat(`}`, 40),
		"large":                  `{"description":"` + strings.Repeat("x", maxToolSchemaBytes) + `"}`,
		"bad pattern":            `{"pattern":"("}`,
		"duplicate":              `{"type":"object","type":"array"}`,
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			if err := v.Schema(writ.RawObject(schema), writ.RawObject(`{}`)); writ.CodeOf(err) != writ.CodeUnavailable {
				t.Errorf("Schema: %v", err)
			}
			if err := v.CheckSchema(writ.RawObject(schema)); writ.CodeOf(err) != writ.CodeInputInvalid {
				t.Errorf("CheckSchema: %v", err)
			}
			if err := v.CheckSchema(writ.RawObject(schema)); strings.HasPrefix(name, "recursive") && !strings.Contains(err.Error(), "it is recursive") {
				t.Errorf("the reason is not given: %v", err)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

// What a validation comes to is counted before it is made, and refused when it
// is too much, however few values or subschemas there are.
func TestToolSchemaWorkIsBounded(t *testing.T) {
	v, _ := validator(t)
	list := func(unit string, n int) string { return strings.TrimSuffix(strings.Repeat(unit+",", n), ",") }
	var consts strings.Builder
	for i := range 400 {
		fmt.Fprintf(&consts, `{"const":"c%d"},`, i)
	}
	anyOf := strings.TrimSuffix(consts.String(), ",")
	for name, c := range map[string]struct {
		schema, value string
		over          bool
	}{
		"consts of items":         {`{"properties":{"a":{"items":{"anyOf":[` + anyOf + `]}}}}`, `{"a":[` + list("0", 5000) + `]}`, true},
		"consts of few items":     {`{"properties":{"a":{"items":{"anyOf":[` + anyOf + `]}}}}`, `{"a":["c1","c2"]}`, false},
		"enum of items":           {`{"properties":{"a":{"items":{"enum":[` + list("1", 8000) + `]}}}}`, `{"a":[` + list("0", 5000) + `]}`, true},
		"members":                 {`{"properties":{"a":{"additionalProperties":{"anyOf":[` + anyOf + `]}}}}`, `{"a":{` + members(3000) + `}}`, true},
		"names":                   {`{"properties":{"a":{"propertyNames":{"anyOf":[` + anyOf + `]}}}}`, `{"a":{` + members(3000) + `}}`, true},
		"lists of what was done":  {`{"unevaluatedProperties":false,"allOf":[` + list("true", 400) + `]}`, `{` + members(3000) + `}`, true},
		"a pattern":               {`{"additionalProperties":{"pattern":"^(?:.{0,1000})$"}}`, `{"a":"` + strings.Repeat("x", 30_000) + `"}`, true},
		"patterns of names":       {`{"patternProperties":{"^(?:.{0,900})z$":true}}`, `{` + members(5000) + `}`, true},
		"distinct items":          {`{"properties":{"a":{"uniqueItems":true}}}`, `{"a":[` + list("[]", 9000) + `]}`, true},
		"a vector":                {`{"properties":{"a":{"items":{"type":"number","minimum":-1}}}}`, `{"a":[` + list("0.25", 9000) + `]}`, false},
		"what is not looked into": {`{"type":"object"}`, `{"a":[` + list("0", 19_000) + `]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			compiled, err := v.tools.get([]byte(c.schema))
			if err != nil {
				t.Fatal(err)
			}
			tree, err := parseStrict([]byte(c.value))
			if err != nil {
				t.Fatal(err)
			}
			w := compiled.work(tree)
			if w.over() != c.over {
				t.Errorf("counted %d steps and %d matches", w.steps, w.matches)
			}
			// Counting stops soon after it is over.
			if w.steps > 10*maxToolSteps || w.matches > 100*maxToolMatches {
				t.Errorf("counted on to %d steps and %d matches", w.steps, w.matches)
			}
			err = v.Schema(writ.RawObject(c.schema), writ.RawObject(c.value))
			if e := writ.AsError("", err); c.over && (e == nil || e.Code != writ.CodeInputInvalid || e.Fields[0].Msg != "too large for its schema") {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := v.Schema(writ.RawObject(`{"type":"object"}`), writ.RawObject(`{"a":1e-999999}`)); writ.CodeOf(err) != writ.CodeMalformed {
		t.Errorf("a number nobody computes with: %v", err)
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"n%d":0,`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestToolSchemasAreCompiledOnce(t *testing.T) {
	var c toolCache
	a, err := c.get([]byte(`{"type":"object"}`))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := c.get([]byte(`{"type":"object"}`))
	if a != b {
		t.Error("compiled twice")
	}
	for i := range maxToolSchemas + 10 {
		if _, err := c.get(fmt.Appendf(nil, `{"minProperties":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.m) > maxToolSchemas {
		t.Errorf("%d schemas kept", len(c.m))
	}
}

// A published schema stands alone: this gateway's own validator takes it.
func TestPublishedSchemasStandAlone(t *testing.T) {
	v, reg := validator(t)
	for _, c := range reg.All() {
		args, result := v.Schemas(c)
		if c.Internal {
			if args != nil || result != nil {
				t.Errorf("%s is internal, but shown", c.ID)
			}
			continue
		}
		if len(args) == 0 || len(result) == 0 {
			t.Errorf("%s: no schemas", c.ID)
		}
		if err := v.CheckSchema(args); err != nil {
			t.Errorf("%s: arguments: %v: %s", c.ID, err, args)
		}
		if err := v.CheckSchema(result); err != nil {
			t.Errorf("%s: result: %v: %s", c.ID, err, result)
		}
	}
	args, _ := v.Schemas(reg.Get("agent.register"))
	if err := v.Schema(args, writ.RawObject(`{"agent_id":"plug-editor","archetypes":["executor"],"tools":[{"name":"site.build","safety":"mutating"}]}`)); err != nil {
		t.Errorf("a valid value: %v", err)
	}
	if err := v.Schema(args, writ.RawObject(`{"agent_id":"plug-editor","archetypes":["executor"],"tools":[{"name":"site.build"}]}`)); writ.CodeOf(err) != writ.CodeInputInvalid {
		t.Errorf("an invalid value: %v", err)
	}
}

func FuzzToolSchema(f *testing.F) {
	f.Add([]byte(`{"type":"object","required":["a"]}`), []byte(`{"a":1}`))
	f.Add([]byte(`{"$ref":"#/$defs/~1","$defs":{"/":{}}}`), []byte(`{}`))
	f.Add([]byte(`{"if":{},"then":false}`), []byte(`{}`))
	v, _ := validator(f)
	f.Fuzz(func(t *testing.T, schema, value []byte) {
		switch err := v.Schema(schema, value); writ.CodeOf(err) {
		case "", writ.CodeUnavailable, writ.CodeInputInvalid, writ.CodeMalformed:
		default:
			t.Fatalf("%v", err)
		}
	})
}
