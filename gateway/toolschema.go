package gateway

import (
	"bytes"
	"crypto/sha256"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/writ-gateway/writ"
)

// Limits of a JSON Schema that an agent declares for a tool.
const (
	maxToolSchemaBytes = 32 << 10
	maxToolSchemaDepth = 32
	maxToolSchemaNodes = 512    // subschemas once every reference is written out
	maxToolSchemaSize  = 16_384 // values in their keywords, enum and const most of all
	maxToolPatterns    = 8192   // instructions of all compiled patterns
	maxToolSchemas     = 512    // compiled schemas kept

	maxToolSteps   = 200_000   // what one validation may come to: see work
	maxToolMatches = 8_000_000 // bytes × instructions of patterns, in one validation
)

// Schema says whether value, a JSON object ("" stands for {}), meets a JSON
// Schema 2020-12 that an agent declared.
//
// Errors: CodeInputInvalid with the places in value that fail;
// CodeMalformed when value is not well-formed; CodeUnavailable when the schema
// itself is not one this gateway runs (see [Validator.CheckSchema]).
func (v *Validator) Schema(schema, value writ.RawObject) error {
	const op = "gateway.Schema"
	compiled, err := v.tools.get(schema)
	if err != nil {
		return &writ.Error{
			Code: writ.CodeUnavailable, Op: op, Err: err,
			Msg:  "the declared input schema cannot be used: " + err.Error(),
			Hint: "register the agent again with a JSON Schema 2020-12 without remote or recursive references",
		}
	}
	if len(bytes.TrimSpace(value)) == 0 {
		value = writ.RawObject("{}")
	}
	tree, err := parseStrict(value)
	if err != nil {
		return writ.Refuse(writ.CodeMalformed, op, "the value is not well-formed JSON", "send one JSON object (RFC 8259)")
	}
	w := compiled.work(tree)
	if w.over() {
		return &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "the value is too large to be held to its declared schema",
			Hint: "send less, or declare a simpler schema", Fields: []writ.FieldError{{Msg: "too large for its schema"}},
		}
	}
	bad := compiled.schema.Validate(tree)
	if bad == nil {
		return nil
	}
	var f findings
	if e, ok := errors.AsType[*jsonschema.ValidationError](bad); ok {
		compiled.collect(e, &f)
	}
	if len(f.invalid) == 0 {
		f.invalid = []writ.FieldError{{Pointer: "", Msg: "not valid"}}
	}
	return f.refusal(op)
}

// CheckSchema says whether a schema is one this gateway runs: JSON Schema
// 2020-12, at most 32 KiB and 32 levels, with references only to places inside
// itself and none that lead back to where they came from, and no more than
// 512 subschemas when every reference is written out. Nothing is ever fetched,
// and the work of a validation is bounded. It returns CodeInputInvalid.
func (v *Validator) CheckSchema(schema writ.RawObject) error {
	if _, err := v.tools.get(schema); err != nil {
		return writ.Refuse(writ.CodeInputInvalid, "gateway.CheckSchema", "the input schema cannot be used: "+err.Error(),
			"send a JSON Schema 2020-12 without remote or recursive references")
	}
	return nil
}

// parseStrict reads a text that has no duplicate names and is not nested too
// deep, keeping numbers exact.
func parseStrict(raw []byte) (any, error) {
	if tooBig(raw, maxValues) != "" || !jsontext.Value(raw).IsValid() {
		return nil, errors.New("it is not well-formed JSON")
	}
	dec := stdjson.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, errors.New("it is not well-formed JSON")
	}
	if !plainNumbers(tree) {
		return nil, errors.New("it holds a number that no double can stand for")
	}
	return tree, nil
}

// plainNumbers says whether every number is one that is computed with cheaply:
// exact arithmetic on 1e-1000000 is not.
func plainNumbers(tree any) bool {
	switch t := tree.(type) {
	case stdjson.Number:
		_, exp, _ := strings.Cut(strings.ToLower(string(t)), "e")
		return len(t) <= 64 && len(strings.TrimLeft(exp, "+-0")) <= 3
	case []any:
		return !slices.ContainsFunc(t, func(v any) bool { return !plainNumbers(v) })
	case map[string]any:
		for _, v := range t {
			if !plainNumbers(v) {
				return false
			}
		}
	}
	return true
}

// toolSchema is a compiled schema, what a validation by it comes to, and every
// property name it declares: the only names of a value that may be shown.
type toolSchema struct {
	schema *jsonschema.Schema
	shape  *shape
	names  map[string]bool
}

// toolCache keeps compiled schemas by the digest of their bytes. The zero
// value is ready.
type toolCache struct {
	mu sync.Mutex
	m  map[[32]byte]*toolSchema
}

func (c *toolCache) get(raw []byte) (*toolSchema, error) {
	if len(raw) > maxToolSchemaBytes {
		return nil, fmt.Errorf("it has more than %d bytes", maxToolSchemaBytes)
	}
	digest := sha256.Sum256(raw)
	c.mu.Lock()
	have := c.m[digest]
	c.mu.Unlock()
	if have != nil {
		return have, nil
	}
	s, err := compileTool(raw)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= maxToolSchemas {
		c.m = map[[32]byte]*toolSchema{} // start over rather than keep an order
	}
	c.m[digest] = s
	return s, nil
}

// compileTool checks and compiles. Its errors show nothing of the schema.
func compileTool(raw []byte) (*toolSchema, error) {
	doc, err := parseStrict(raw)
	if err != nil {
		return nil, err
	}
	root, ok := doc.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	if d, ok := root["$schema"]; ok && d != draft2020 {
		return nil, errors.New("its $schema is not " + draft2020)
	}
	if err := onlyPlain(root, true); err != nil {
		return nil, err
	}
	w := schemaWalk{root: root, open: map[string]bool{}, names: map[string]bool{}, programs: map[string]int{}}
	top, err := w.visit(root, 0)
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	const url = "urn:writ:tool"
	if err := compiler.AddResource(url, doc); err != nil {
		return nil, errors.New("it is not a JSON Schema")
	}
	s, err := compiler.Compile(url)
	if err != nil {
		return nil, errors.New("it is not a valid JSON Schema 2020-12")
	}
	return &toolSchema{schema: s, shape: top, names: w.names}, nil
}

// noLoader refuses to fetch anything.
type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errors.New("nothing is loaded") }

// collect turns the leaves of a validation error into findings. Only names
// the schema declares are shown; every text is ours.
func (t *toolSchema) collect(e *jsonschema.ValidationError, f *findings) {
	if len(f.invalid) > 4*maxFields {
		return // more than is shown, even when some are the same
	}
	for _, c := range e.Causes {
		t.collect(c, f)
	}
	if len(e.Causes) > 0 {
		return
	}
	var p strings.Builder
	for _, seg := range e.InstanceLocation {
		if !t.names[seg] && !isIndex(seg) {
			break
		}
		p.WriteString("/" + escapePointer.Replace(seg))
	}
	if k, ok := e.ErrorKind.(*kind.Required); ok {
		for _, name := range k.Missing {
			ptr := p.String() + "/" + escapePointer.Replace(name)
			f.missing = append(f.missing, ptr[1:])
			f.invalid = append(f.invalid, writ.FieldError{Pointer: ptr, Msg: "is required"})
		}
		return
	}
	f.invalid = append(f.invalid, writ.FieldError{Pointer: p.String(), Msg: keywordMessage(e.ErrorKind)})
}

// keywordMessage says which keyword of the schema failed, without its value.
func keywordMessage(k jsonschema.ErrorKind) string {
	if t, ok := k.(*kind.Type); ok {
		return "expected " + strings.Join(t.Want, " or ")
	}
	path := k.KeywordPath()
	if len(path) == 0 {
		return "not valid"
	}
	if !slices.Contains(keywords, path[0]) {
		return "not valid"
	}
	return "does not meet " + path[0]
}

var keywords = slices.Concat(ofValue, ofMembers, ofItems, []string{
	"const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems",
	"maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
	"multipleOf", "pattern", "properties", "propertyNames", "uniqueItems",
})
