// Package jcs writes and checks canonical JSON as RFC 8785 defines it, for the
// part of JSON that writ signs: objects, arrays, strings, booleans and whole
// numbers. It is not a general JSON library: null, fractions and exponents
// have no place in a signed text and are refused.
//
// Invariant: one value has exactly one text. Parse accepts that text and
// nothing else.
package jcs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Value is Object, Array, String, Int or Bool.
type Value interface {
	append(dst []byte, depth int) ([]byte, error)
}

type (
	// Object has its members written in the order of their names as UTF-16.
	Object map[string]Value
	Array  []Value
	// String must be valid UTF-8.
	String string
	// Int lies within ±MaxInt: RFC 8785 numbers are IEEE doubles.
	Int  int64
	Bool bool
)

const (
	// MaxInt is the largest whole number every JSON reader keeps exactly (RFC 7493).
	MaxInt = 1<<53 - 1
	// MaxDepth bounds the nesting of objects and arrays.
	MaxDepth = 32
)

var (
	errNil    = errors.New("jcs: a value is missing")
	errNumber = errors.New("jcs: number out of the exact range of a double")
	errUTF8   = errors.New("jcs: string is not valid UTF-8")
	errDepth  = fmt.Errorf("jcs: nested deeper than %d", MaxDepth)
)

// Marshal is the canonical text of v.
func Marshal(v Value) ([]byte, error) { return Append(nil, v) }

// Append appends the canonical text of v to dst.
func Append(dst []byte, v Value) ([]byte, error) {
	if v == nil {
		return nil, errNil
	}
	return v.append(dst, 0)
}

func (o Object) append(dst []byte, depth int) ([]byte, error) {
	if depth >= MaxDepth {
		return nil, errDepth
	}
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.SortFunc(names, compareUTF16)
	dst = append(dst, '{')
	var err error
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = String(name).append(dst, depth); err != nil {
			return nil, err
		}
		dst = append(dst, ':')
		if o[name] == nil {
			return nil, errNil
		}
		if dst, err = o[name].append(dst, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func (a Array) append(dst []byte, depth int) ([]byte, error) {
	if depth >= MaxDepth {
		return nil, errDepth
	}
	dst = append(dst, '[')
	var err error
	for i, v := range a {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v == nil {
			return nil, errNil
		}
		if dst, err = v.append(dst, depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

func (i Int) append(dst []byte, _ int) ([]byte, error) {
	if i > MaxInt || i < -MaxInt {
		return nil, errNumber
	}
	return strconv.AppendInt(dst, int64(i), 10), nil
}

func (b Bool) append(dst []byte, _ int) ([]byte, error) { return strconv.AppendBool(dst, bool(b)), nil }

// append writes the string as ECMAScript does (RFC 8785 3.2.2.2): the short
// escapes where they exist, lower-case \u00xx for other controls, and every
// other character as itself.
func (s String) append(dst []byte, _ int) ([]byte, error) {
	if !utf8.ValidString(string(s)) {
		return nil, errUTF8
	}
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return append(dst, '"'), nil
}

// compareUTF16 orders names by UTF-16 code units (RFC 8785 3.2.3), which
// differs from the order of bytes beyond the basic plane only.
func compareUTF16(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		if a[i] >= utf8.RuneSelf || b[i] >= utf8.RuneSelf {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		}
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}
