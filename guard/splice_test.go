package guard

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSplice(t *testing.T) {
	for _, tt := range []struct {
		in   string
		path []string
		want string
	}{
		{`{"b":"x","version":0,"a":1}`, []string{"version"}, `{"b":"x","version":42,"a":1}`},
		{`{"task":{"version":0,"n":9007199254740993},"lease":{"id":"l","fence":0}}`, []string{"lease", "fence"}, `{"task":{"version":0,"n":9007199254740993},"lease":{"id":"l","fence":42}}`},
		{`{"task":{"x":{"version":1},"version":0}}`, []string{"task", "version"}, `{"task":{"x":{"version":1},"version":42}}`},
		{`{"a":"\\"version\\":0,{","b":[{"version":0}],"version":"x}","c":[]}`, []string{"version"}, `{"a":"\\"version\\":0,{","b":[{"version":0}],"version":42,"c":[]}`},
		{`{"a":{},"version":{"x":[1,{"y":"]"}]}}`, []string{"version"}, `{"a":{},"version":42}`},
		{`{"a":{"version":0}}`, []string{"version"}, ""},
		{`{"a":[1]}`, []string{"a", "b"}, ""},
		{`[1]`, []string{"a"}, ""},
		{`null`, []string{"a"}, ""},
		{`{}`, []string{"a"}, ""},
	} {
		got, err := splice([]byte(tt.in), tt.path, 42)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s at %v: got %s, %v", tt.in, tt.path, got, err)
		}
	}
}

// Whatever encoding/json writes can be spliced, and only the one value changes.
func TestSpliceChangesOneValue(t *testing.T) {
	names := rapid.OneOf(rapid.SampledFrom([]string{"version", "a", "fence", ""}), rapid.String())
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		kinds := []*rapid.Generator[any]{
			rapid.String().AsAny(), rapid.SampledFrom([]any{"\"", `\`, "}", "]", ",", ":", "{\"version\":0"}),
			rapid.Int32().AsAny(), rapid.Bool().AsAny(), rapid.Just[any](nil),
		}
		if depth > 0 {
			kinds = append(kinds,
				rapid.Custom(func(t *rapid.T) any { return rapid.SliceOfN(value(depth-1), 0, 3).Draw(t, "list") }),
				rapid.Custom(func(t *rapid.T) any { return rapid.MapOfN(names, value(depth-1), 0, 4).Draw(t, "object") }))
		}
		return rapid.OneOf(kinds...)
	}
	rapid.Check(t, func(t *rapid.T) {
		path := []string{"version"}
		inner := rapid.MapOfN(names, value(2), 0, 4).Draw(t, "inner")
		inner["version"] = value(2).Draw(t, "old")
		outer := inner
		if rapid.Bool().Draw(t, "nested") {
			path = slices.Insert(path, 0, "a")
			outer = rapid.MapOfN(names, value(2), 0, 4).Draw(t, "outer")
			outer["a"] = inner
		}
		text, err := json.Marshal(outer)
		if err != nil {
			t.Fatal(err)
		}
		before := slices.Clone(text)
		got, err := splice(text, path, 42)
		if err != nil || !slices.Equal(text, before) {
			t.Fatalf("%s: %v, left %s", before, err, text)
		}
		inner["version"] = 42
		want, err := json.Marshal(outer)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: got %s, want %s", before, got, want)
		}
	})
}
