package roster

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// text says whether a file is text as YAML wants it, and where it is not.
func (r *reader) text(b []byte) bool {
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.addAt(b[:i], "holds a byte that is no UTF-8 text")
			return false
		case c < 0x20 && c != '\t' && c != '\n' && c != '\r', c >= 0x7f && c < 0xa0 && c != 0x85, c == 0xfffe, c == 0xffff:
			r.addAt(b[:i], "holds a control character")
			return false
		}
		i += size
	}
	return true
}

var (
	saysLine   = regexp.MustCompile(`^line (\d+): `)
	saysAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// ofParser are what the package yaml says of a line it counts from 0.
var ofParser = []string{
	"did not find expected ',' or ']'", "did not find expected ',' or '}'", "did not find expected '-' indicator",
	"did not find expected <document start>", "did not find expected key", "did not find expected node content",
	"found duplicate %YAML directive", "found incompatible YAML document", "found undefined tag handle", "found duplicate %TAG directive",
}

// unread says why a text is no YAML. The package yaml knows no column and counts lines
// in two ways, and none where the line is the first. Of what was begun and not ended,
// it is the line where that began.
func (r *reader) unread(b []byte, err error) {
	if errors.Is(err, io.EOF) {
		r.addAt(nil, "is empty: must be an object with the member agents")
		return
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := saysAnchor.FindStringSubmatch(msg); m != nil { // it names what was written, and no line
		before, _, _ := bytes.Cut(b, []byte("*"+m[1]))
		r.addAt(before, anchored)
		return
	}
	line := 0
	if m := saysLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		if msg = msg[len(m[0]):]; slices.Contains(ofParser, msg) {
			line++
		}
	}
	r.problems = append(r.problems, Problem{Line: max(line, 1), Column: 1, Msg: cmp.Or(msg, "cannot be read")})
}

// addAt adds a problem with what comes after a part of the file.
func (r *reader) addAt(before []byte, msg string) {
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	r.problems = append(r.problems, Problem{Line: bytes.Count(before, []byte("\n")) + 1, Column: column, Msg: msg})
}
