package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-gateway/writ"
)

// What any JSON of a caller may hold. Reading costs memory by the value, so
// these are counted before anything is read.
const (
	maxDepth   = 64
	maxValues  = 20_000
	manyValues = 400_000 // of arguments that may be large
	maxChecked = 4096    // values that a schema looks into one by one
)

// strict is how every JSON text of a caller is read (RFC 8259 with the rules
// of RFC 7493): duplicate names and invalid UTF-8 are refused, and names match
// exactly.
var strict = json.JoinOptions(
	jsontext.AllowDuplicateNames(false), jsontext.AllowInvalidUTF8(false),
	json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(false),
)

// tooBig says why a text is refused unread: it nests deeper than maxDepth, or
// holds more than most values and names; "" when it does not. It looks at
// punctuation outside strings only, so it is right for well-formed texts and
// harmless for others.
func tooBig(raw []byte, most int) string {
	depth, values, quoted := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			values++
			if depth++; depth > maxDepth {
				return fmt.Sprintf("nest at most %d levels", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == ',' || c == ':':
			values++
		}
		if values > most {
			return fmt.Sprintf("send at most %d values", most)
		}
	}
	return ""
}

// Validator decodes arguments against the schemas that OpenAPI publishes. It
// is safe for concurrent use.
type Validator struct {
	cat   *catalogue
	tools toolCache
}

// NewValidator derives the schemas of all capabilities. It fails when an
// argument type has tags that make no schema.
func NewValidator(reg *writ.Registry) (*Validator, error) {
	cat, err := newCatalogue(reg)
	if err != nil {
		return nil, err
	}
	return &Validator{cat: cat}, nil
}

// Decode turns raw arguments into a new value of the capability's Args type, a
// pointer. Empty input stands for {}; a member that is null counts as absent;
// absent members get their defaults.
//
// Errors: CodeMalformed when raw is not one well-formed JSON object of known,
// distinct members; CodeInputInvalid when it does not meet the schema, with
// every place and every missing member. Neither repeats a value or a name the
// caller made up.
func (v *Validator) Decode(c *writ.Capability, raw []byte) (any, error) {
	const op = "gateway.Decode"
	s, ok := v.cat.args[c.Args]
	if !ok {
		return nil, writ.Fault(writ.CodeInternal, op, fmt.Errorf("no schema for the arguments of %s", c.ID))
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = []byte("{}")
	}
	most := maxValues
	if c.Large {
		most = manyValues
	}
	if why := tooBig(raw, most); why != "" {
		return nil, writ.Refuse(writ.CodeMalformed, op, "the arguments hold more than is read in one call", why)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree, strict); err != nil {
		return nil, v.malformed(op, raw, s, err)
	}
	if _, ok := tree.(map[string]any); !ok {
		return nil, writ.Refuse(writ.CodeMalformed, op, "the arguments are not a JSON object", "send one JSON object")
	}
	if err := v.check(op, s, tree); err != nil {
		return nil, err
	}
	out := reflect.New(c.Args)
	if err := json.Unmarshal(raw, out.Interface(), strict); err != nil {
		return nil, v.mistyped(op, s, err)
	}
	if err := v.cat.fill(out.Elem(), tree); err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	return out.Interface(), nil
}

// check validates a decoded tree and reports what is wrong.
func (v *Validator) check(op string, s *huma.Schema, tree any) (err error) {
	w := extent{cat: v.cat}
	if f := w.walk(s, tree, nil); len(f.unknown)+len(f.invalid) > 0 {
		return f.refusal(op)
	}
	// Huma compares items of a uniqueItems array with ==, which panics when a
	// caller puts objects into it. That is bad input like any other.
	defer func() {
		if p := recover(); p != nil {
			err = writ.Refuse(writ.CodeInputInvalid, op, "the arguments do not meet their schema",
				"send plain values in arrays of distinct items")
		}
	}()
	var res huma.ValidateResult
	huma.Validate(v.cat.reg, s, huma.NewPathBuffer(make([]byte, 0, 64), 0), huma.ModeWriteToServer, tree, &res)
	if len(res.Errors) == 0 {
		return nil
	}
	var f findings
	for _, e := range res.Errors {
		d, ok := e.(*huma.ErrorDetail)
		if !ok {
			d = &huma.ErrorDetail{}
		}
		f.add(v.cat, s, d)
	}
	return f.refusal(op)
}

// extent walks a tree before Huma does. Huma makes an error of every item of
// an array before it says that there are too many, and of every unknown member;
// so where those are many the walk ends with that as the one finding.
type extent struct {
	cat              *catalogue
	checked, unknown int
}

func (w *extent) walk(s *huma.Schema, tree any, path []string) (f findings) {
	s = w.cat.resolve(s)
	if s == nil {
		return f
	}
	if w.checked++; w.checked > maxChecked {
		f.invalid = []writ.FieldError{{Pointer: pointer(path), Msg: fmt.Sprintf("the arguments hold more than %d values up to here", maxChecked)}}
		return f
	}
	switch t := tree.(type) {
	case []any:
		if s.Type != huma.TypeArray {
			return f
		}
		if s.MaxItems != nil && len(t) > *s.MaxItems {
			f.invalid = []writ.FieldError{{Pointer: pointer(path), Msg: fmt.Sprintf(validation.MsgExpectedMaxItems, *s.MaxItems)}}
			return f
		}
		for i, item := range t {
			if f = w.walk(s.Items, item, append(path, strconv.Itoa(i))); len(f.unknown)+len(f.invalid) > 0 {
				return f
			}
		}
	case map[string]any:
		if s.Type != huma.TypeObject {
			return f
		}
		for name, member := range t {
			sub, known := s.Properties[name]
			at := append(path, name)
			if more, ok := s.AdditionalProperties.(*huma.Schema); ok && !known {
				sub, at = more, path // the name is the caller's
			} else if !known && s.AdditionalProperties == false {
				if w.unknown++; w.unknown > maxFields {
					f.unknown = []writ.FieldError{{Pointer: pointer(path), Msg: unknownMember(s)}}
					return f
				}
			}
			if f = w.walk(sub, member, at); len(f.unknown)+len(f.invalid) > 0 {
				return f
			}
		}
	}
	return f
}

// pointer is a JSON pointer (RFC 6901) to a path.
func pointer(path []string) string {
	var p strings.Builder
	for _, seg := range path {
		p.WriteString("/" + escapePointer.Replace(seg))
	}
	return p.String()
}

// malformed explains why raw could not be read at all.
func (v *Validator) malformed(op string, raw []byte, s *huma.Schema, err error) error {
	e := &writ.Error{Code: writ.CodeMalformed, Op: op, Msg: "the arguments are not well-formed JSON", Hint: "send one JSON object (RFC 8259)"}
	syn, isSyntax := errors.AsType[*jsontext.SyntacticError](err)
	if isSyntax {
		bad := &badText{offset: int(syn.ByteOffset)}
		if errors.Is(syn.Err, jsontext.ErrDuplicateName) && len(tokens(syn.JSONPointer)) == 1 {
			bad.twice = tokens(syn.JSONPointer)[0]
		}
		e.Err = bad
	}
	if !utf8.Valid(raw) {
		e.Msg = "the arguments are not valid UTF-8"
		return e
	}
	if isSyntax {
		ptr, _ := v.cat.locate(s, tokens(syn.JSONPointer))
		msg := "not well-formed here or just after"
		if errors.Is(syn.Err, jsontext.ErrDuplicateName) {
			e.Msg, e.Hint, msg = "a member appears twice", "send every member once", "a member appears twice"
		}
		e.Fields = []writ.FieldError{{Pointer: ptr, Msg: msg}}
	} else if sem, ok := errors.AsType[*json.SemanticError](err); ok {
		ptr, _ := v.cat.locate(s, tokens(sem.JSONPointer))
		e.Msg, e.Hint = "a number is out of range", "send numbers a double can hold (RFC 7493)"
		e.Fields = []writ.FieldError{{Pointer: ptr, Msg: "number out of range"}}
	}
	return e
}

// mistyped explains what the schema let through and the Go type does not hold:
// integers beyond 64 bits or written with a fraction or an exponent.
func (v *Validator) mistyped(op string, s *huma.Schema, err error) error {
	sem, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return &writ.Error{Code: writ.CodeInputInvalid, Op: op, Msg: "the arguments do not meet their schema", Hint: "see the published schema"}
	}
	ptr, at := v.cat.locate(s, tokens(sem.JSONPointer))
	var f findings
	switch {
	case errors.Is(err, json.ErrUnknownName):
		f.unknown = append(f.unknown, writ.FieldError{Pointer: ptr, Msg: unknownMember(at)})
	case at.Type == huma.TypeInteger:
		f.invalid = append(f.invalid, writ.FieldError{Pointer: ptr, Msg: "expected a 64-bit integer without fraction or exponent"})
	default:
		f.invalid = append(f.invalid, writ.FieldError{Pointer: ptr, Msg: "not valid"})
	}
	return f.refusal(op)
}

func tokens(p jsontext.Pointer) []string {
	var out []string
	for t := range p.Tokens() {
		out = append(out, t)
	}
	return out
}
