package guard

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func pointers(t testing.TB, texts ...string) (out []writ.Pointer) {
	t.Helper()
	for _, text := range texts {
		p, ok := writ.ParsePointer(text)
		if !ok {
			t.Fatalf("%q is no pointer", text)
		}
		out = append(out, p)
	}
	return out
}

func TestRedact(t *testing.T) {
	for _, tt := range []struct {
		in, at string // at: pointers, separated by spaces
		out    string
		met    string
	}{
		{`{"a":"x","b":9007199254740993}`, "/a", `{"a":"[redacted]","b":9007199254740993}`, "/a"},
		{`{"a":"","b":1.50}`, "/a", `{"a":"[redacted]","b":1.50}`, "/a"},
		{`{"n":7,"m":-1e9,"t":true,"f":false,"z":null}`, "/n /m /t /f /z", `{"n":0,"m":0,"t":false,"f":false,"z":null}`, "/n /m /t /f /z"},
		{`{"o":{"p":1},"l":[1,2]}`, "/o /l", `{"o":{},"l":[]}`, "/o /l"},
		{`{"o":{"p":1,"q":2}}`, "/o/p", `{"o":{"p":0,"q":2}}`, "/o/p"},
		{`{"o":{"p":1}}`, "/o /o/p", `{"o":{}}`, "/o"},
		{`{"tasks":[{"args":{"x":1},"id":"a"},{"id":"b"},{"args":{},"id":"c"}]}`, "/tasks/*/args", `{"tasks":[{"args":{},"id":"a"},{"id":"b"},{"args":{},"id":"c"}]}`, "/tasks/*/args"},
		{`[["a"],["b"]]`, "/1/0", `[["a"],["[redacted]"]]`, "/1/0"},
		{`["a","b"]`, "/01 /- /2", `["a","b"]`, ""},
		{`{"0":"a"}`, "/0", `{"0":"[redacted]"}`, "/0"},
		{`{"a":{"b":"x"},"c":{"b":"y"}}`, "/*/b", `{"a":{"b":"[redacted]"},"c":{"b":"[redacted]"}}`, "/*/b"},
		{`{"a":{"labels":["pii"],"b":2}}`, "/a/*", `{"a":{"labels":[],"b":0}}`, "/a/*"},
		{`{"a":{"b":"x"}}`, "/a/b/c /b /a/c", `{"a":{"b":"x"}}`, ""},
		{`{"\u0061":"x","a":"y","b":"}],{"}`, "/a", `{"\u0061":"[redacted]","a":"[redacted]","b":"}],{"}`, "/a"},
		{`{"a/b":"x","c~d":"y","":"z"}`, "/a~1b /c~0d /", `{"a/b":"[redacted]","c~d":"[redacted]","":"[redacted]"}`, "/a~1b /c~0d /"},
		{`{"a":"x"}`, "", `{"a":"x"}`, ""},
		{`null`, "/a", `null`, ""},
		{` { "a" : [ 1 , 2 ] } `, "/a/0", `{"a":[0,2]}`, "/a/0"},
	} {
		got, met, err := redact([]byte(tt.in), pointers(t, strings.Fields(tt.at)...))
		if err != nil || string(got) != tt.out || strings.Join(met, " ") != tt.met {
			t.Errorf("%s at %s:\ngot  %s, %v, %v\nwant %s, [%s]", tt.in, tt.at, got, met, err, tt.out, tt.met)
		}
	}
	if got, _, err := redact([]byte(`{"a":`), pointers(t, "/a")); err == nil {
		t.Errorf("half a text: got %s", got)
	}
}

// What a pointer covers is not written again by a replay.
func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		at, path string
		want     bool
	}{
		{"/lease/fence", "lease.fence", true},
		{"/lease", "lease.fence", true},
		{"/*", "version", true},
		{"/*/fence", "lease.fence", true},
		{"/lease/fence/x", "lease.fence", false},
		{"/lease", "version", false},
		{"/task/fence", "lease.fence", false},
	} {
		if got := covers(pointers(t, tt.at), strings.Split(tt.path, ".")); got != tt.want {
			t.Errorf("%s of %s: got %v", tt.at, tt.path, got)
		}
	}
}

// FuzzRedact holds what is written byte by byte against the same done to a
// decoded tree.
func FuzzRedact(f *testing.F) {
	f.Add(`{"a":[{"b":"x","c":[1,true,null]},{"b":{}}],"\u0061":1}`, "/a/*/b", "/a/0/c/1")
	f.Add(`[[["x"]],{"~":{"/":1}}]`, "/*/~0/~1", "/0/0")
	f.Add(`"x"`, "/", "/*")
	f.Fuzz(func(t *testing.T, text, one, two string) {
		var at []writ.Pointer
		for _, s := range []string{one, two} {
			if p, ok := writ.ParsePointer(s); ok {
				at = append(at, p)
			}
		}
		before := []byte(text)
		got, met, err := redact(before, at)
		if string(before) != text {
			t.Fatal("the text was changed")
		}
		if len(at) == 0 {
			return
		}
		if !json.Valid(before) {
			if err == nil {
				t.Fatalf("%q is no JSON: got %s", text, got)
			}
			return
		}
		if err != nil || !json.Valid(got) {
			t.Fatalf("%q: got %q, %v", text, got, err)
		}
		want := tree(t, before)
		var hit []string
		for _, p := range at {
			if had := touches(want, p.Path); had {
				hit = append(hit, p.Text)
			}
		}
		for _, p := range at {
			want = blanked(want, p.Path)
		}
		if !reflect.DeepEqual(tree(t, got), want) {
			t.Fatalf("%q at %q %q:\ngot  %s\nwant %v", text, one, two, got, want)
		}
		// A pointer below another may not be met any more.
		if slices.ContainsFunc(met, func(m string) bool { return !slices.Contains(hit, m) }) || len(hit) > 0 && len(met) == 0 {
			t.Fatalf("%q at %q %q: met %v, want of %v", text, one, two, met, hit)
		}
	})
}

// pairs are the members of an object, in order: a name may be there twice.
type pairs []pair

type pair struct {
	name  string
	value any
}

func tree(t *testing.T, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var read func() any
	token := func() json.Token {
		x, err := d.Token()
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		return x
	}
	read = func() any {
		switch x := token(); x {
		case json.Delim('{'):
			out := pairs{}
			for d.More() {
				name := token().(string)
				out = append(out, pair{name, read()})
			}
			token()
			return out
		case json.Delim('['):
			out := []any{}
			for d.More() {
				out = append(out, read())
			}
			token()
			return out
		default:
			return x
		}
	}
	return read()
}

func touches(v any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch v := v.(type) {
	case pairs:
		return slices.ContainsFunc(v, func(m pair) bool { return (path[0] == "*" || path[0] == m.name) && touches(m.value, path[1:]) })
	case []any:
		for i, x := range v {
			if (path[0] == "*" || path[0] == strconv.Itoa(i)) && touches(x, path[1:]) {
				return true
			}
		}
	}
	return false
}

func blanked(v any, path []string) any {
	switch v := v.(type) {
	case pairs:
		if len(path) == 0 {
			return pairs{}
		}
		out := pairs{}
		for _, m := range v {
			if path[0] == "*" || path[0] == m.name {
				m.value = blanked(m.value, path[1:])
			}
			out = append(out, m)
		}
		return out
	case []any:
		if len(path) == 0 {
			return []any{}
		}
		out := []any{}
		for i, x := range v {
			if path[0] == "*" || path[0] == strconv.Itoa(i) {
				x = blanked(x, path[1:])
			}
			out = append(out, x)
		}
		return out
	}
	if len(path) > 0 {
		return v
	}
	switch v.(type) {
	case string:
		return "[redacted]"
	case bool:
		return false
	case json.Number:
		return json.Number("0")
	}
	return nil
}
