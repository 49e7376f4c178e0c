package guard

import "testing"

func TestSplice(t *testing.T) {
	for _, tt := range []struct {
		in   string
		path []string
		want string
	}{
		{`{"b":"x","version":0,"a":1}`, []string{"version"}, `{"b":"x","version":42,"a":1}`},
		{`{"task":{"version":0,"n":9007199254740993},"lease":{"id":"l","fence":0}}`, []string{"lease", "fence"}, `{"task":{"version":0,"n":9007199254740993},"lease":{"id":"l","fence":42}}`},
		{`{"task":{"x":{"version":1},"version":0}}`, []string{"task", "version"}, `{"task":{"x":{"version":1},"version":42}}`},
		{`{"version":  0 }`, []string{"version"}, `{"version":  42 }`},
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
