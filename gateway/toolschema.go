package gateway

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp/syntax"
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
	if tooBig(raw) != "" || !jsontext.Value(raw).IsValid() {
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

// Keywords of JSON Schema 2020-12 that hold subschemas, by what these are held
// to: the value itself, the members of an object, their names, or the items of
// an array.
var (
	ofValue   = []string{"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"}
	ofMembers = []string{"additionalProperties", "patternProperties", "unevaluatedProperties"}
	ofItems   = []string{"contains", "items", "prefixItems", "unevaluatedItems"}
	ofNothing = []string{"contentSchema"} // an annotation here

	// forbidden anywhere in the document: they move what a reference means, so
	// that it would not be what it looks like. dependencies is of older drafts,
	// and refused as a keyword only.
	forbidden   = []string{"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$vocabulary"}
	annotations = []string{"$comment", "$defs", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"}
)

// onlyPlain refuses forbidden keywords in every object of a schema, whether it
// looks like a subschema or not.
func onlyPlain(node any, root bool) error {
	switch n := node.(type) {
	case map[string]any:
		for _, k := range forbidden {
			if _, ok := n[k]; ok {
				return errors.New("it uses " + k)
			}
		}
		if _, ok := n["$schema"]; ok && !root {
			return errors.New("it uses $schema inside")
		}
		for _, sub := range n {
			if err := onlyPlain(sub, false); err != nil {
				return err
			}
		}
	case []any:
		for _, sub := range n {
			if err := onlyPlain(sub, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// shape is what of a subschema decides how much work it makes. References are
// written out, so shapes form a tree.
type shape struct {
	size     int // values in its own keywords
	pattern  int // instructions of pattern
	patterns int // and of patternProperties
	unique   bool

	value   []*shape
	named   map[string]*shape // properties
	members []*shape
	names   []*shape
	items   []*shape
}

// schemaWalk makes the shape of a schema, within bounds.
type schemaWalk struct {
	root     map[string]any
	open     map[string]bool // references being followed
	names    map[string]bool
	programs map[string]int

	nodes, size, instructions int
}

func (w *schemaWalk) visit(node any, depth int) (*shape, error) {
	if w.nodes++; w.nodes > maxToolSchemaNodes {
		return nil, fmt.Errorf("it has more than %d subschemas", maxToolSchemaNodes)
	}
	if depth > maxToolSchemaDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxToolSchemaDepth)
	}
	out := &shape{}
	s, ok := node.(map[string]any)
	if !ok {
		return out, nil // true, false, or something the compiler refuses
	}
	if _, ok := s["dependencies"]; ok {
		return nil, errors.New("it uses dependencies")
	}
	for k, v := range s {
		into := &out.value
		switch {
		case k == "$ref":
			sub, err := w.follow(v, depth)
			if err != nil {
				return nil, err
			}
			out.value = append(out.value, sub)
			continue
		case k == "properties":
			named, _ := v.(map[string]any)
			out.named = make(map[string]*shape, len(named))
			for name, sub := range named {
				w.names[name] = true
				var err error
				if out.named[name], err = w.visit(sub, depth+1); err != nil {
					return nil, err
				}
			}
			continue
		case slices.Contains(ofValue, k):
		case slices.Contains(ofMembers, k):
			into = &out.members
		case slices.Contains(ofItems, k):
			into = &out.items
		case k == "propertyNames":
			into = &out.names
		case slices.Contains(ofNothing, k):
			into = &[]*shape{}
		case slices.Contains(annotations, k):
			continue
		default:
			if err := w.keyword(out, k, v); err != nil {
				return nil, err
			}
			continue
		}
		if err := w.subschemas(out, into, k, v, depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// subschemas visits what a keyword holds: one subschema, a list, or a map.
func (w *schemaWalk) subschemas(out *shape, into *[]*shape, k string, v any, depth int) error {
	var subs []any
	switch t := v.(type) {
	case []any:
		subs = t
	case map[string]any:
		if k != "patternProperties" && k != "dependentSchemas" {
			subs = []any{v}
			break
		}
		for name, sub := range t {
			if k == "patternProperties" {
				n, err := w.program(name)
				if err != nil {
					return err
				}
				out.patterns += n
			}
			subs = append(subs, sub)
		}
	default:
		subs = []any{v}
	}
	for _, sub := range subs {
		made, err := w.visit(sub, depth+1)
		if err != nil {
			return err
		}
		*into = append(*into, made)
	}
	return nil
}

// keyword weighs a keyword that holds no subschema.
func (w *schemaWalk) keyword(out *shape, k string, v any) error {
	n := values(v)
	out.size += n
	if w.size += n; w.size > maxToolSchemaSize {
		return fmt.Errorf("its keywords hold more than %d values", maxToolSchemaSize)
	}
	switch text, isText := v.(string); {
	case k == "uniqueItems":
		out.unique = v == true
	case k == "pattern" && isText:
		var err error
		out.pattern, err = w.program(text)
		return err
	}
	return nil
}

// program is how large a pattern is once compiled: what each byte it is held to
// may cost.
func (w *schemaWalk) program(pattern string) (int, error) {
	n, known := w.programs[pattern]
	if !known {
		re, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			return 0, errors.New("it holds a pattern that cannot be used")
		}
		prog, err := syntax.Compile(re.Simplify())
		if err != nil {
			return 0, errors.New("it holds a pattern that cannot be used")
		}
		n = len(prog.Inst)
		w.programs[pattern] = n
		if w.instructions += n; w.instructions > maxToolPatterns {
			return 0, errors.New("its patterns are too large")
		}
	}
	return n, nil
}

// values counts the values and names in a tree.
func values(tree any) int {
	n := 1
	switch t := tree.(type) {
	case []any:
		for _, v := range t {
			n += values(v)
		}
	case map[string]any:
		for _, v := range t {
			n += 1 + values(v)
		}
	}
	return n
}

// work counts what a validation comes to before it is made. It follows every
// subschema to every value it could be held to, so it never counts too little;
// it stops when the count is over.
type work struct{ steps, matches int }

func (t *toolSchema) work(value any) work {
	var w work
	w.walk(t.shape, value)
	return w
}

func (w *work) over() bool { return w.steps > maxToolSteps || w.matches > maxToolMatches }

func (w *work) walk(s *shape, value any) {
	w.steps += 1 + s.size
	switch v := value.(type) {
	case string:
		w.steps += len(v) / 256
		w.matches += s.pattern * (len(v) + 1)
	case []any:
		w.steps += len(v) // also the list a subschema keeps of what was evaluated
		if s.unique {
			w.steps += len(v)*len(v)/64 + 20*values(v)
		}
	case map[string]any:
		w.steps += len(v)
	}
	if w.over() {
		return
	}
	for _, sub := range s.value {
		if w.walk(sub, value); w.over() {
			return
		}
	}
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			for _, sub := range s.items {
				if w.walk(sub, item); w.over() {
					return
				}
			}
		}
	case map[string]any:
		for name, member := range v {
			w.matches += s.patterns * (len(name) + 1)
			if sub := s.named[name]; sub != nil {
				w.walk(sub, member)
			}
			for _, sub := range s.members {
				w.walk(sub, member)
			}
			for _, sub := range s.names {
				w.walk(sub, name)
			}
			if w.over() {
				return
			}
		}
	}
}

func (w *schemaWalk) follow(ref any, depth int) (*shape, error) {
	text, ok := ref.(string)
	if !ok || !strings.HasPrefix(text, "#") || strings.ContainsRune(text, '%') || (text != "#" && !strings.HasPrefix(text, "#/")) {
		return nil, errors.New("it refers to something outside itself")
	}
	if w.open[text] {
		return nil, errors.New("it is recursive")
	}
	var at any = w.root
	if text != "#" {
		for _, tok := range strings.Split(text[2:], "/") {
			m, ok := at.(map[string]any)
			if !ok {
				return nil, errors.New("it refers to something it does not have")
			}
			if at, ok = m[unescapePointer.Replace(tok)]; !ok {
				return nil, errors.New("it refers to something it does not have")
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
