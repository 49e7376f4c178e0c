package gateway

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	stdjson "encoding/json"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/writ-gateway/writ"
)

// Whatever the query is, what is taken from it are members of our names, once
// each, of our types or else the text that was sent; what is refused is named by our names and no others.
func FuzzQueryArgs(f *testing.F) {
	for _, raw := range []string{
		"", "limit=10&after=-3&short=true", "name=a%20b&name=c", "Limit=1", "limit=1.0", "limit=+1", "limit=01", "short=TRUE", "name=%ff", "name=%22%2c%22x%22%3a1",
		"a;b", "%zz", "=", "&", "name", "limit=9223372036854775808",
	} {
		f.Add(raw)
	}
	types := map[string]reflect.Kind{"name": reflect.String, "limit": reflect.Int64, "after": reflect.Int, "short": reflect.Bool, "a/b~c": reflect.String}
	messages := []string{"is given more than once", "is not valid UTF-8"}
	f.Fuzz(func(t *testing.T, raw string) {
		b, err := queryArgs(raw, types)
		if err != nil {
			e, ok := errors.AsType[*writ.Error](err)
			if !ok || e.Code != writ.CodeMalformed || b != nil || len(e.Fields) > 1 {
				t.Fatalf("%q: %v, %s", raw, err, b)
			}
			for _, field := range e.Fields {
				name := strings.NewReplacer("~1", "/", "~0", "~").Replace(strings.TrimPrefix(field.Pointer, "/"))
				if _, known := types[name]; !known || !slices.Contains(messages, field.Msg) {
					t.Fatalf("%q: field %+v", raw, field)
				}
			}
			return
		}
		whole := jsontext.Value("{" + string(b) + "}") // strict: well formed, no name twice, UTF-8
		if !whole.IsValid() {
			t.Fatalf("%q: %s is not an object", raw, whole)
		}
		var got map[string]any
		if err := stdjson.Unmarshal(whole, &got); err != nil {
			t.Fatal(err)
		}
		sent, _ := url.ParseQuery(raw)
		if len(got) != len(sent) {
			t.Fatalf("%q: %d members of %d parameters", raw, len(got), len(sent))
		}
		for name, v := range got {
			switch v := v.(type) {
			case string:
				if v != sent.Get(name) {
					t.Fatalf("%q: %s is %q", raw, name, v)
				}
			case bool:
				if types[name] != reflect.Bool || strconv.FormatBool(v) != sent.Get(name) {
					t.Fatalf("%q: %s is %v", raw, name, v)
				}
			case float64:
				if k := types[name]; k != reflect.Int64 && k != reflect.Int {
					t.Fatalf("%q: %s is %v", raw, name, v)
				}
			default:
				t.Fatalf("%q: %s is %v", raw, name, v)
			}
		}
	})
}

// Headers are taken as they are, or refused; never in part, and never as
// something else.
func FuzzPreconditions(f *testing.F) {
	for _, c := range [][2]string{
		{"", ""},
		{"key-1", `"42"`},
		{"key", "42"},
		{"a b", "*"},
		{strings.Repeat("k", 129), `W/"1"`},
		{"\x00", `"01"`},
		{"é", `"-1"`},
		{"x", `""42""`},
		{"x", `"42`},
		{"x", "9223372036854775808"},
		{"x", "+1"},
		{"x", `"1", "2"`},
	} {
		f.Add(c[0], c[1], false)
	}
	f.Add("key", `"1"`, true)
	f.Fuzz(func(t *testing.T, key, match string, twice bool) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header = http.Header{"Idempotency-Key": {key}, "If-Match": {match}}
		if twice {
			r.Header.Add("If-Match", match)
		}
		var call writ.Call
		err := preconditions(&call, r)
		if err != nil {
			if e := writ.AsError("", err); e.Code != writ.CodeMalformed || call.IfVersion != 0 {
				t.Fatalf("%q, %q: %v, version %d", key, match, err, call.IfVersion)
			}
			return
		}
		if twice {
			t.Fatal("a header given twice was taken")
		}
		if call.IdempotencyKey != key || len(key) > 128 || strings.ContainsFunc(key, func(c rune) bool { return c < '!' || c > '~' }) {
			t.Fatalf("key %q was taken as %q", key, call.IdempotencyKey)
		}
		n := strconv.FormatInt(call.IfVersion, 10)
		if match == "" && call.IfVersion == 0 || call.IfVersion > 0 && (match == n || match == `"`+n+`"`) {
			return
		}
		t.Fatalf("If-Match %q was taken as %d", match, call.IfVersion)
	})
}
