package gateway

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-gateway/writ"
)

// argumentFields maps the JSON names of an argument struct to their types.
func argumentFields(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		out[name] = f.Type
	}
	return out
}

// queryTypes are the arguments of a capability that a query can carry: plain
// values, and those not in the path.
func queryTypes(r Route, args reflect.Type) map[string]reflect.Kind {
	out := map[string]reflect.Kind{}
	for name, t := range argumentFields(args) {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch k := t.Kind(); k {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Int32:
			if !slices.Contains(r.Params(), name) {
				out[name] = k
			}
		}
	}
	return out
}

// queryArgs turns a query into JSON members with the types of the arguments.
// Unknown and repeated parameters, and those that are not UTF-8, are refused by name only if the
// name is ours.
func queryArgs(raw string, types map[string]reflect.Kind) ([]byte, error) {
	const op = "gateway.query"
	if raw == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, writ.Refuse(writ.CodeMalformed, op, "the query is not well formed", "escape it as RFC 3986 says")
	}
	names := make([]string, 0, len(q))
	for name := range q {
		if _, ok := types[name]; !ok {
			known := make([]string, 0, len(types))
			for n := range types {
				known = append(known, n)
			}
			slices.Sort(known)
			hint := "this operation takes no query parameters"
			if len(known) > 0 {
				hint = "known parameters (case matters): " + strings.Join(known, ", ")
			}
			return nil, writ.Refuse(writ.CodeMalformed, op, "the query has an unknown parameter", hint)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	var b []byte
	for _, name := range names {
		bad := func(msg string) error {
			e := writ.Refuse(writ.CodeMalformed, op, "a query parameter is not valid", "correct the parameter named in errors")
			e.Fields = []writ.FieldError{{Pointer: "/" + escapePointer.Replace(name), Msg: msg}}
			return e
		}
		if len(q[name]) != 1 {
			return nil, bad("is given more than once")
		}
		value := q[name][0]
		if b, err = appendMember(b, name, value, types[name]); err != nil {
			return nil, bad(err.Error())
		}
	}
	return b, nil
}

// argError says what is wrong with a parameter, without its value.
type argError string

func (e argError) Error() string { return string(e) }

// appendMember appends `"name":value`, with a comma when b has members. What is no
// value of the kind goes as the text it is: the schema says what is wrong with it, as it
// does when the call comes through capability.invoke.
func appendMember(b []byte, name, value string, kind reflect.Kind) ([]byte, error) {
	if len(b) > 0 {
		b = append(b, ',')
	}
	b, err := jsontext.AppendQuote(b, name)
	if err != nil {
		return nil, argError("is not valid UTF-8")
	}
	b = append(b, ':')
	switch kind {
	case reflect.String:
	case reflect.Bool:
		if value == "true" || value == "false" {
			return append(b, value...), nil
		}
	default:
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			return strconv.AppendInt(b, n, 10), nil
		}
	}
	if b, err = jsontext.AppendQuote(b, value); err != nil {
		return nil, argError("is not valid UTF-8")
	}
	return b, nil
}

// pathArgs renders the path parameters of a request as JSON members. Patterns
// are the schema's business.
func pathArgs(r *http.Request, params []string) ([]byte, error) {
	var b []byte
	var err error
	for _, p := range params {
		if b, err = appendMember(b, p, r.PathValue(p), reflect.String); err != nil {
			return nil, writ.Refuse(writ.CodeMalformed, "gateway.path", "the path is not valid UTF-8", "use the ids the gateway gave out")
		}
	}
	return b, nil
}

// merge puts members in front of the members of an object. What the caller
// sent is not read here: a body that repeats a path parameter becomes an object
// with a duplicate name, which the validator refuses.
func merge(members, body []byte) ([]byte, error) {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 {
		body = []byte("{}")
	}
	if body[0] != '{' {
		return nil, writ.Refuse(writ.CodeMalformed, "gateway.merge", "the body is not a JSON object", "send one JSON object")
	}
	if len(members) == 0 {
		return body, nil
	}
	rest := bytes.TrimLeft(body[1:], " \t\r\n")
	out := make([]byte, 0, len(members)+len(rest)+2)
	out = append(out, '{')
	out = append(out, members...)
	if len(rest) == 0 || rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...), nil
}

// badText is why a text of the caller cannot be read, and where. Its words are
// ours.
type badText struct {
	offset int    // in the text that was read
	twice  string // the member at the top that is there twice
}

func (b *badText) Error() string { return "at byte " + strconv.Itoa(b.offset) }

// inBody says where in the body the caller sent a text that was merged from it
// went wrong, and of a member that is there twice that the path has it. It
// shows a position and nothing of the text.
func inBody(err error, merged, body []byte, params []string) error {
	bad, ok := errors.AsType[*badText](err)
	if !ok || len(body) == 0 {
		return err
	}
	e := *writ.AsError("gateway.body", err)
	if slices.Contains(params, bad.twice) {
		e.Msg, e.Hint = bad.twice+" comes from the path", "leave "+bad.twice+" out of the body"
	}
	// The end of the merged text is the end of the body.
	if at := bad.offset - (len(merged) - len(body)); at >= 0 && at <= len(body) {
		before := body[:at]
		line := 1 + bytes.Count(before, []byte("\n"))
		column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
		e.Msg += ": line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column) + " of the body"
	}
	return &e
}
