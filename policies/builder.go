package policies

import (
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// key is the name of a member of the input.
type key struct {
	term  *ast.Term
	json  string // as it stands in front of the value
	order uint8  // grows with the name among the members of one object; 0 for a name that is not of the schema
}

// keys are those of the schema, by name.
var keys = map[string]*key{}

// newKey makes a key of the schema. Those of one object MUST be made in their order.
func newKey(name string) *key {
	k := &key{ast.StringTerm(name), `"` + name + `":`, uint8(len(keys) + 1)}
	keys[name] = k
	return k
}

// builder makes canonical JSON and, if it is asked to, the same document as a
// value. Containers are opened and shut like brackets; members of an object come
// in the order of their keys. It notes where the members of the document and
// theirs stand, so that parts of the JSON can be had without writing them again.
type builder struct {
	json    []byte
	members []member // in the order of their places
	err     error

	valued bool           // make the value too
	done   ast.Value      // the outermost container, once it is shut
	items  [][2]*ast.Term // members of all open containers, outermost first

	stack [4]frame
	depth int
	top   int // of members: the one of the document that is being written
}

type frame struct {
	key  *key // under which the container goes into its parent; nil in a list
	from int  // its first item
	list bool
}

// member is where the JSON of a value stands.
type member struct {
	place    place
	from, to int
}

func newBuilder() *builder {
	return &builder{json: make([]byte, 0, 1536), members: make([]member, 0, 64)}
}

func (b *builder) open(k *key)     { b.begin(frame{key: k, from: len(b.items)}, '{') }
func (b *builder) openList(k *key) { b.begin(frame{key: k, from: len(b.items), list: true}, '[') }

func (b *builder) begin(f frame, bracket byte) {
	if b.depth > 0 {
		b.name(f.key)
	}
	b.stack[b.depth] = f
	b.depth++
	b.json = append(b.json, bracket)
}

// shut ends the innermost container.
func (b *builder) shut() {
	b.depth--
	f := b.stack[b.depth]
	if f.list {
		b.json = append(b.json, ']')
	} else {
		b.json = append(b.json, '}')
	}
	if b.valued {
		b.value(f)
	}
	if b.depth > 0 {
		b.end(f.key)
	}
}

// value makes the value of the container that is shut.
func (b *builder) value(f frame) {
	items := b.items[f.from:]
	b.items = b.items[:f.from]
	if f.list {
		terms := make([]*ast.Term, len(items))
		for i := range items {
			terms[i] = items[i][1]
		}
		b.done = ast.NewArray(terms...)
	} else {
		b.done = ast.NewObject(items...) // copies the items
	}
	if b.depth > 0 {
		b.put(f.key, ast.NewTerm(b.done))
	}
}

func (b *builder) put(k *key, v *ast.Term) {
	var name *ast.Term
	if k != nil {
		name = k.term
	}
	b.items = append(b.items, [2]*ast.Term{name, v})
}

// name writes the comma and the key in front of a member.
func (b *builder) name(k *key) {
	if last := b.json[len(b.json)-1]; last != '{' && last != '[' {
		b.json = append(b.json, ',')
	}
	if k == nil {
		return
	}
	b.json = append(b.json, k.json...)
	switch {
	case b.depth == 1:
		b.top = len(b.members)
		b.members = append(b.members, member{place: placeOf(k, nil), from: len(b.json)})
	case b.depth == 2 && k.order > 0:
		b.members = append(b.members, member{place: b.members[b.top].place | placeOf(nil, k), from: len(b.json)})
	}
}

// end notes where the value of a member ends.
func (b *builder) end(k *key) {
	switch {
	case b.depth == 1:
		b.members[b.top].to = len(b.json)
	case b.depth == 2 && k != nil && k.order > 0:
		b.members[len(b.members)-1].to = len(b.json)
	}
}

func (b *builder) text(k *key, s string) {
	if s == "" {
		return
	}
	b.name(k)
	b.quote(s)
	b.end(k)
	if b.valued {
		b.put(k, textTerm(s))
	}
}

// number puts an integer; within ±2^53 its decimal form is the canonical one.
func (b *builder) number(k *key, n int64) {
	b.name(k)
	b.json = strconv.AppendInt(b.json, n, 10)
	b.end(k)
	if b.valued {
		b.put(k, numberTerm(n))
	}
}

func (b *builder) boolean(k *key, v bool) {
	b.name(k)
	b.json = strconv.AppendBool(b.json, v)
	b.end(k)
	if b.valued {
		b.put(k, ast.InternedTerm(v))
	}
}

// list puts an array of texts.
func list[S ~string](b *builder, k *key, items []S) {
	b.name(k)
	b.json = append(b.json, '[')
	for i, s := range items {
		if i > 0 {
			b.json = append(b.json, ',')
		}
		b.quote(string(s))
	}
	b.json = append(b.json, ']')
	b.end(k)
	if !b.valued {
		return
	}
	value := ast.InternedEmptyArray
	if len(items) > 0 {
		terms := make([]*ast.Term, len(items))
		for i, s := range items {
			terms[i] = textTerm(string(s))
		}
		value = ast.NewTerm(ast.NewArray(terms...))
	}
	b.put(k, value)
}

// quote appends a JSON string with the escapes of RFC 8785, 3.2.2.2.
func (b *builder) quote(s string) {
	if !utf8.ValidString(s) {
		b.err = errors.New("the input holds text that is not UTF-8")
		return
	}
	const hex = "0123456789abcdef"
	out := append(b.json, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= ' ':
			out = append(out, c)
		case c == '\b':
			out = append(out, '\\', 'b')
		case c == '\f':
			out = append(out, '\\', 'f')
		case c == '\n':
			out = append(out, '\\', 'n')
		case c == '\r':
			out = append(out, '\\', 'r')
		case c == '\t':
			out = append(out, '\\', 't')
		default:
			out = append(out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b.json = append(out, '"')
}
