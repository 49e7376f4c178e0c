package queue

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/writ-gateway/writ"
)

// FuzzCanonicalObject: what is accepted is one JSON object, and its canonical
// form is a fixed point that means the same.
func FuzzCanonicalObject(f *testing.F) {
	for _, s := range []string{`{}`, ` {"b":1,"a":[1.50,null]} `, `[]`, `{"a":1}{}`, `null`, `{"a":1e400}`, `{"<":"\u2028"}`, "{\"\xff\":1}", ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := canonicalObject("test", "/args", in)
		if err != nil {
			if writ.CodeOf(err) != writ.CodeInputInvalid {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if len(in) > 0 && !json.Valid(in) {
			t.Fatalf("accepted %q", in)
		}
		if len(out) > MaxArgsBytes || out[0] != '{' {
			t.Fatalf("%q gave %q", in, out)
		}
		again, err := canonicalObject("test", "/args", out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q is not a fixed point: %q %v", out, again, err)
		}
	})
}
