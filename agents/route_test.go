package agents

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
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

// However many share a word, the one with the highest priority is found.
func TestPriorityAmongMany(t *testing.T) {
	r := newRoom(t)
	for i := range 3 * routePage {
		a := entry(writ.AgentID(fmt.Sprintf("agent-%03d", i)))
		a.Routing = &AgentRouting{Keywords: []string{"movie night"}}
		if i == 3*routePage-1 {
			a.Routing.Priority = 1
		}
		r.must("agent.register", r.ops, a)
		r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: a.AgentID})
	}
	for _, input := range []string{entry("x-y").Domain, "Movie Night", "night"} {
		got, err := writtest.Body[AgentRoute](r.must("agent.route", r.ops, &AgentRouteArgs{Input: input}))
		if err != nil {
			t.Fatal(err)
		}
		if want := writ.AgentID(fmt.Sprintf("agent-%03d", 3*routePage-1)); got.Data.Agent == nil || got.Data.Agent.ID != want || len(got.Data.Candidates) != maxCandidates {
			t.Errorf("%s: %+v", input, got.Data.Agent)
		}
	}
	last := writ.AgentID(fmt.Sprintf("agent-%03d", 3*routePage-1))
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: last})
	for _, m := range r.Members(writ.IndexRoutes) {
		if strings.HasSuffix(m, " "+string(last)) {
			t.Errorf("a suspended agent is left in %s", m)
		}
	}
}

// The largest entry that can be registered can be activated.
func TestAnAgentOfManyWords(t *testing.T) {
	r := newRoom(t)
	a := entry("wordy")
	a.Tools, a.Routing = nil, &AgentRouting{}
	for i := range 64 {
		a.Tools = append(a.Tools, writ.Tool{Name: writ.CapabilityID(fmt.Sprintf("site.tool%d", i)), Safety: writ.SafetyMutating})
	}
	for i := range 32 {
		a.WriteScope = append(a.WriteScope, fmt.Sprintf("fs:r%d/a/b/c/d/", i))
		a.Routing.Keywords = append(a.Routing.Keywords, fmt.Sprintf("a%d b%d", i, i))
	}
	r.must("agent.register", r.ops, a)
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: a.AgentID})
	a.AgentID = "too-wordy"
	a.WriteScope = nil
	a.Routing.Keywords[31] = "a b c"
	if e := r.refused(writ.CodeInputInvalid, "agent.register", r.ops, a); len(e.Fields) != 1 || e.Fields[0].Pointer != "/routing/keywords/31" {
		t.Errorf("got %+v", e)
	}
}
