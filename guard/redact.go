package guard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/writ-gateway/writ"
)

// finish is the package's finish, and takes from the body what policy does not
// let the caller see. The reply says so, and which arguments were limited.
func (t *try) finish(r *writ.Reply, c writ.Committed) error {
	err := finish(r, c)
	r.Limited = t.limited
	if err == nil {
		if r.JSON, r.Redacted, err = redact(r.JSON, t.hidden(*r)); err != nil {
			err = writ.Fault(writ.CodeInternal, "guard.finish", err)
		}
	}
	return err
}

// hidden is what a reply must not show. That people must agree first is no
// reply of the capability's: it holds ids and words of the gateway, and the
// caller needs them all.
func (t *try) hidden(r writ.Reply) []writ.Pointer {
	if r.Outcome == writ.OutcomePending {
		return nil
	}
	return t.dec.Duties.Redact
}

// redact blanks what the pointers point to in a JSON text and leaves every other
// byte but space as it is. met are the pointers that pointed to something.
func redact(b []byte, pointers []writ.Pointer) (out []byte, met []string, err error) {
	if len(pointers) == 0 {
		return b, nil, nil
	}
	var text bytes.Buffer
	if err := json.Compact(&text, b); err != nil {
		return nil, nil, fmt.Errorf("redact: %w", err)
	}
	r := redactor{in: text.Bytes(), out: make([]byte, 0, text.Len()), met: make([]bool, len(pointers))}
	marks := make([]mark, len(pointers))
	for i, p := range pointers {
		marks[i] = mark{i, p.Path}
	}
	r.value(0, marks)
	for i, p := range pointers {
		if r.met[i] {
			met = append(met, p.Text)
		}
	}
	return r.out, met, nil
}

// covers says whether a path of members leads to, or through, what pointers
// point to.
func covers(pointers []writ.Pointer, path []string) bool {
	return slices.ContainsFunc(pointers, func(p writ.Pointer) bool {
		return len(p.Path) <= len(path) && slices.EqualFunc(p.Path, path[:len(p.Path)], func(token, name string) bool { return token == "*" || token == name })
	})
}

// redactor copies a well-formed text without space, value by value.
type redactor struct {
	in, out []byte
	met     []bool // by pointer
}

// mark is a pointer on its way: the tokens that are still to be followed.
type mark struct {
	pointer int
	rest    []string
}

// value copies, or blanks, the value at in[i] and returns where it ends.
func (r *redactor) value(i int, marks []mark) int {
	end := valueEnd(r.in, i)
	reached := false
	for _, m := range marks {
		if len(m.rest) == 0 {
			r.met[m.pointer], reached = true, true
		}
	}
	open := r.in[i]
	switch {
	case reached:
		r.out = append(r.out, blank(open)...)
		return end
	case len(marks) == 0 || open != '{' && open != '[':
		r.out = append(r.out, r.in[i:end]...)
		return end
	}
	r.out = append(r.out, open)
	i++
	for n := 0; i < end-1; n++ {
		if r.in[i] == ',' {
			r.out = append(r.out, ',')
			i++
		}
		token := strconv.Itoa(n)
		if open == '{' {
			colon := valueEnd(r.in, i)
			// Names are compared by what they say, however they are written.
			if err := json.Unmarshal(r.in[i:colon], &token); err != nil {
				token = "" // of a valid text, no name fails
			}
			r.out = append(r.out, r.in[i:colon+1]...)
			i = colon + 1
		}
		i = r.value(i, below(marks, token))
	}
	r.out = append(r.out, r.in[end-1])
	return end
}

// below are the marks that go on into a member or an element.
func below(marks []mark, token string) (out []mark) {
	for _, m := range marks {
		if m.rest[0] == "*" || m.rest[0] == token {
			out = append(out, mark{m.pointer, m.rest[1:]})
		}
	}
	return out
}

// blank stands for a value that begins with c and says nothing of it. It is of
// the same type, so that the reply still meets its schema: a member that is
// required is there. That 0, false or {} is not the value is said beside the
// reply (Reply.Redacted).
func blank(c byte) string {
	switch c {
	case '{':
		return "{}"
	case '[':
		return "[]"
	case '"':
		return `"[redacted]"`
	case 't', 'f':
		return "false"
	case 'n':
		return "null"
	}
	return "0"
}
