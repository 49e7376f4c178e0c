package agents

import (
	"testing"

	"pgregory.net/rapid"
)

func TestWordsAreCompared(t *testing.T) {
	for in, want := range map[string]string{
		"Media": "media", "  MEDIA\t": "media", "ｍedia": "media", "Straße": "strasse", "movie \u00a0 night": "movie night", "ﬁle": "file", "": "", " \n": "",
	} {
		if got := normal(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "words")
		if once := normal(s); normal(once) != once {
			t.Fatalf("%q is %q, then %q", s, once, normal(once))
		}
	})
}

// Keywords that say nothing, or the same twice, are named.
func TestKeywordsAreChecked(t *testing.T) {
	a := &AgentRegisterArgs{Routing: &AgentRouting{Keywords: []string{"Movie Night", " ", "movie  NIGHT", "ok"}}}
	got := map[string]string{}
	words := a.routes(func(list string, i int, field, msg string) { got[list+string(rune('0'+i))+field] = msg })
	if len(got) != 2 || got["routing/keywords1"] == "" || got["routing/keywords2"] == "" {
		t.Errorf("got %v", got)
	}
	if len(words.Keywords) != 2 || words.Keywords[0] != "movie night" {
		t.Errorf("got %+v", words)
	}
}
