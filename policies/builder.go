package policies

import (
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// builder makes a value and its canonical JSON together. Containers are opened
// and shut like brackets; members of an object come in the order of their keys.
type builder struct {
	json  []byte
	done  ast.Value // the outermost container, once it is shut
	err   error
	items [][2]*ast.Term // members of all open containers, outermost first
	stack [4]frame
	depth int
}

type frame struct {
	key  *ast.Term // under which the container goes into its parent; nil in a list
	from int       // its first item
	list bool
}

func (b *builder) open(k *ast.Term)     { b.begin(frame{key: k, from: len(b.items)}, '{') }
func (b *builder) openList(k *ast.Term) { b.begin(frame{key: k, from: len(b.items), list: true}, '[') }

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
	items := b.items[f.from:]
	b.items = b.items[:f.from]
	if f.list {
		b.json = append(b.json, ']')
		terms := make([]*ast.Term, len(items))
		for i := range items {
			terms[i] = items[i][1]
		}
		b.done = ast.NewArray(terms...)
	} else {
		b.json = append(b.json, '}')
		b.done = ast.NewObject(items...) // copies the items
	}
	if b.depth > 0 {
		b.put(f.key, ast.NewTerm(b.done))
	}
}

func (b *builder) put(k, v *ast.Term) { b.items = append(b.items, [2]*ast.Term{k, v}) }

// name writes the comma and the key in front of a member.
func (b *builder) name(k *ast.Term) {
	if last := b.json[len(b.json)-1]; last != '{' && last != '[' {
		b.json = append(b.json, ',')
	}
	if k != nil {
		b.quote(string(k.Value.(ast.String)))
		b.json = append(b.json, ':')
	}
}

func (b *builder) text(k *ast.Term, s string) {
	if s == "" {
		return
	}
	b.name(k)
	b.quote(s)
	b.put(k, textTerm(s))
}

// number puts an integer; within ±2^53 its decimal form is the canonical one.
func (b *builder) number(k *ast.Term, n int64) {
	b.name(k)
	b.json = strconv.AppendInt(b.json, n, 10)
	b.put(k, numberTerm(n))
}

func (b *builder) boolean(k *ast.Term, v bool) {
	b.name(k)
	b.json = strconv.AppendBool(b.json, v)
	b.put(k, ast.InternedTerm(v))
}

// list puts an array of texts.
func list[S ~string](b *builder, k *ast.Term, items []S) {
	b.name(k)
	b.json = append(b.json, '[')
	value := ast.InternedEmptyArray
	if len(items) > 0 {
		terms := make([]*ast.Term, len(items))
		for i, s := range items {
			if i > 0 {
				b.json = append(b.json, ',')
			}
			b.quote(string(s))
			terms[i] = textTerm(string(s))
		}
		value = ast.NewTerm(ast.NewArray(terms...))
	}
	b.json = append(b.json, ']')
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
