package writ_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestParsePointer(t *testing.T) {
	for text, want := range map[string][]string{
		"/args":             {"args"},
		"/args/e~0mail~1to": {"args", "e~mail/to"},
		"/tasks/*/args":     {"tasks", "*", "args"},
		"/":                 {""},
		"/a//0":             {"a", "", "0"},
		"/~01":              {"~1"},
		"/" + strings.Repeat("a", writ.MaxPointerBytes-1): {strings.Repeat("a", writ.MaxPointerBytes-1)},
	} {
		if p, ok := writ.ParsePointer(text); !ok || p.Text != text || !slices.Equal(p.Path, want) {
			t.Errorf("%s: got %+v %v, want %q", text, p, ok, want)
		}
	}
	for _, text := range []string{
		"", "args", "#/args", "/a~", "/a~2", "/~", "/é", "/a\nb", "/a\"b", `/a\b`, "/\x7f", "/" + strings.Repeat("a", writ.MaxPointerBytes),
		"/labels", "/labels/0", "/tasks/*/labels", "/receipt", "/a/receipt/b", "/version",
	} {
		if p, ok := writ.ParsePointer(text); ok {
			t.Errorf("%q: got %+v, want no pointer", text, p)
		}
	}
}
