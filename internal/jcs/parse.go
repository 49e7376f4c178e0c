package jcs

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

var errNotCanonical = errors.New("jcs: not the canonical text of its value")

// Check refuses everything but the canonical text of one value.
func Check(text []byte) error {
	_, err := Parse(text)
	return err
}

// Parse reads the canonical text of one value. It decodes strictly (no
// duplicate names, no lone surrogates, no invalid UTF-8, no null, no
// fractions) and then requires that the value written again gives text.
func Parse(text []byte) (Value, error) {
	p := parser{text: text}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.at != len(text) {
		return nil, p.fail("text after the value")
	}
	again, err := Append(make([]byte, 0, len(text)), v)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, text) {
		return nil, errNotCanonical
	}
	return v, nil
}

// parser is a recursive descent over text. It knows no white space, because
// canonical text has none.
type parser struct {
	text []byte
	at   int
}

func (p *parser) fail(what string) error { return fmt.Errorf("jcs: %s at byte %d", what, p.at) }

// peek is the next byte, 0 at the end (which no production accepts).
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) word(w string) bool {
	if bytes.HasPrefix(p.text[p.at:], []byte(w)) {
		p.at += len(w)
		return true
	}
	return false
}

func (p *parser) value(depth int) (Value, error) {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return nil, errDepth
		}
		if c == '{' {
			return p.object(depth)
		}
		return p.array(depth)
	case c == '"':
		return p.string()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case p.word("true"):
		return Bool(true), nil
	case p.word("false"):
		return Bool(false), nil
	}
	return nil, p.fail("no value")
}

func (p *parser) object(depth int) (Value, error) {
	p.at++
	o := Object{}
	if p.take('}') {
		return o, nil
	}
	for {
		if p.peek() != '"' {
			return nil, p.fail("no member name")
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		if _, twice := o[string(name)]; twice {
			return nil, p.fail("a member name twice")
		}
		if !p.take(':') {
			return nil, p.fail("no colon")
		}
		if o[string(name)], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if p.take('}') {
			return o, nil
		}
		if !p.take(',') {
			return nil, p.fail("no comma")
		}
	}
}

func (p *parser) array(depth int) (Value, error) {
	p.at++
	a := Array{}
	if p.take(']') {
		return a, nil
	}
	for {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
		if p.take(']') {
			return a, nil
		}
		if !p.take(',') {
			return nil, p.fail("no comma")
		}
	}
}

func (p *parser) number() (Value, error) {
	from := p.at
	p.take('-')
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.at++
	}
	if c := p.peek(); c == '.' || c == 'e' || c == 'E' {
		return nil, p.fail("not a whole number")
	}
	n, err := strconv.ParseInt(string(p.text[from:p.at]), 10, 64)
	if err != nil {
		return nil, p.fail("no whole number")
	}
	return Int(n), nil
}

func (p *parser) string() (String, error) {
	p.at++
	var out []byte
	for {
		if p.at >= len(p.text) {
			return "", p.fail("a string without an end")
		}
		c := p.text[p.at]
		p.at++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", errUTF8
			}
			return String(out), nil
		case c < ' ':
			return "", p.fail("a control character in a string")
		case c != '\\':
			out = append(out, c)
		default:
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		}
	}
}

// escape reads what follows a backslash. Surrogates must come in pairs.
func (p *parser) escape() (rune, error) {
	c := p.peek()
	p.at++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		r, err := p.unit()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		if !p.word(`\u`) {
			return 0, p.fail("a lone surrogate")
		}
		low, err := p.unit()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, p.fail("a lone surrogate")
		}
		return r, nil
	}
	return 0, p.fail("an unknown escape")
}

func (p *parser) unit() (rune, error) {
	if p.at+4 > len(p.text) {
		return 0, p.fail("a short escape")
	}
	n, err := strconv.ParseUint(string(p.text[p.at:p.at+4]), 16, 16)
	if err != nil {
		return 0, p.fail("a wrong escape")
	}
	p.at += 4
	return rune(n), nil
}
