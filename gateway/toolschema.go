package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	stdjson "encoding/json"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/writ-gateway/writ"
)

// Limits of a JSON Schema that an agent declares for a tool.
const (
	maxToolSchemaBytes = 32 << 10
	maxToolSchemaDepth = 32
	maxToolSchemaNodes = 2000 // subschemas once every reference is written out
	maxToolSchemas     = 512  // compiled schemas kept
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
// 2,000 subschemas when every reference is written out. Nothing is ever
// fetched, and the work of a validation is bounded. It returns CodeInputInvalid.
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
	if tooBig(raw) != "" || !jsontext.Value(raw).IsValid() {
		return nil, errors.New("it is not well-formed JSON")
	}
	dec := stdjson.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, errors.New("it is not well-formed JSON")
	}
	return tree, nil
}

// toolSchema is a compiled schema and every property name it declares: the
// only names of a value that may be shown.
type toolSchema struct {
	schema *jsonschema.Schema
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
	w := schemaWalk{root: root, open: map[string]bool{}, names: map[string]bool{}}
	if err := w.visit(root, 0); err != nil {
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
	return &toolSchema{schema: s, names: w.names}, nil
}

// noLoader refuses to fetch anything.
type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errors.New("nothing is loaded") }

// Keywords of JSON Schema 2020-12 that hold subschemas, by form.
var (
	oneSchema  = []string{"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
	manySchema = []string{"allOf", "anyOf", "oneOf", "prefixItems"}
	namedOnes  = []string{"dependentSchemas", "patternProperties", "properties"}
	forbidden  = []string{"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
)

// schemaWalk counts what a validation may have to do: every subschema, with
// references written out.
type schemaWalk struct {
	root  map[string]any
	open  map[string]bool // references being followed
	names map[string]bool
	nodes int
}

func (w *schemaWalk) visit(node any, depth int) error {
	if w.nodes++; w.nodes > maxToolSchemaNodes {
		return fmt.Errorf("it has more than %d subschemas", maxToolSchemaNodes)
	}
	if depth > maxToolSchemaDepth {
		return fmt.Errorf("it is nested deeper than %d levels", maxToolSchemaDepth)
	}
	s, ok := node.(map[string]any)
	if !ok {
		return nil // true, false, or something the compiler refuses
	}
	for _, k := range forbidden {
		if _, ok := s[k]; ok {
			return errors.New("it uses " + k)
		}
	}
	if ref, ok := s["$ref"]; ok {
		if err := w.follow(ref, depth); err != nil {
			return err
		}
	}
	for _, k := range oneSchema {
		if sub, ok := s[k]; ok {
			if err := w.visit(sub, depth+1); err != nil {
				return err
			}
		}
	}
	for _, k := range manySchema {
		list, _ := s[k].([]any)
		for _, sub := range list {
			if err := w.visit(sub, depth+1); err != nil {
				return err
			}
		}
	}
	for _, k := range namedOnes {
		named, _ := s[k].(map[string]any)
		for name, sub := range named {
			if k == "properties" {
				w.names[name] = true
			}
			if err := w.visit(sub, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *schemaWalk) follow(ref any, depth int) error {
	text, ok := ref.(string)
	if !ok || !strings.HasPrefix(text, "#") || strings.ContainsRune(text, '%') || (text != "#" && !strings.HasPrefix(text, "#/")) {
		return errors.New("it refers to something outside itself")
	}
	if w.open[text] {
		return errors.New("it is recursive")
	}
	var at any = w.root
	if text != "#" {
		for _, tok := range strings.Split(text[2:], "/") {
			m, ok := at.(map[string]any)
			if !ok {
				return errors.New("it refers to something it does not have")
			}
			if at, ok = m[unescapePointer.Replace(tok)]; !ok {
				return errors.New("it refers to something it does not have")
			}
		}
	}
	w.open[text] = true
	defer delete(w.open, text)
	return w.visit(at, depth+1)
}

// collect turns the leaves of a validation error into findings. Only names
// the schema declares are shown; every text is ours.
func (t *toolSchema) collect(e *jsonschema.ValidationError, f *findings) {
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
	known := slices.Concat(oneSchema, manySchema, namedOnes, []string{
		"const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains", "maxItems",
		"maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
		"multipleOf", "pattern", "uniqueItems",
	})
	if !slices.Contains(known, path[0]) {
		return "not valid"
	}
	return "does not meet " + path[0]
}
