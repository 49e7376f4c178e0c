package gateway

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

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
