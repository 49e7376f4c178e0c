package checkpoint

import (
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// Lines of others are under no signature: they are read in the one form that every verifier reads alike, or not at all.
func TestLinesOfOthers(t *testing.T) {
	private, verifier, err := note.GenerateKey(strings.NewReader(strings.Repeat("seed", 8)), "log.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := note.Sign(&note.Note{Text: "log.example\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		line string
		good bool
	}{
		"none":                       {"", true},
		"somebody else's":            {"— other.example AAAAAAE=\n", true},
		"base64 of its own":          {"— other.example AAAAAAB=\n", false},
		"a name with a hard space":   {"— other\u00a0example AAAAAAE=\n", false},
		"a name that is no text":     {"— other\xff AAAAAAE=\n", false},
		"as long as nobody needs it": {"— other.example " + strings.Repeat("AAAA", 5000) + "\n", false},
		"no line":                    {"other.example AAAAAAE=\n", false},
	} {
		if _, err := Parse([]byte(string(text)+x.line), verifier); (err == nil) != x.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
