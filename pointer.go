package writ

import "strings"

// Pointer is a JSON pointer (RFC 6901) into the body of a reply, read. The token
// * stands for every member or element; a member of that name cannot be meant
// alone.
type Pointer struct {
	Text string
	Path []string
}

// Bounds of the pointers of one obligation. All of them together may become one
// header of a reply.
const (
	MaxPointers     = 16
	MaxPointerBytes = 128
)

// kept are the members no pointer may name, at any depth: what says which kind
// of data a reply holds, and what proves and versions it, is never redacted.
var kept = map[string]bool{"labels": true, "receipt": true, "version": true}

// ParsePointer reads a pointer. It refuses the pointer to the whole body, one to
// or through labels, receipt or version, and one that is too long or holds what
// a header cannot show.
func ParsePointer(text string) (Pointer, bool) {
	if !strings.HasPrefix(text, "/") || len(text) > MaxPointerBytes {
		return Pointer{}, false
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return Pointer{}, false
		}
	}
	p := Pointer{Text: text, Path: strings.Split(text[1:], "/")}
	for i, token := range p.Path {
		if strings.Contains(escapes.Replace(token), "~") {
			return Pointer{}, false
		}
		if p.Path[i] = unescape.Replace(token); kept[p.Path[i]] {
			return Pointer{}, false
		}
	}
	return p, true
}

var (
	escapes  = strings.NewReplacer("~0", "", "~1", "")
	unescape = strings.NewReplacer("~0", "~", "~1", "/")
)
