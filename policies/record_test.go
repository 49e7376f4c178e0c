package policies

import (
	"bytes"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A decision is repeated exactly from its record, and explained rule by rule.
func TestRecordsAreJudgedAndExplained(t *testing.T) {
	e := load(t)
	in := claim()
	in.Subject.Scopes = []string{"fs:payroll/"}
	d := decide(t, e, in)
	if d.Effect != writ.EffectDeny || len(d.Record) == 0 {
		t.Fatalf("got %+v", d)
	}
	for _, text := range []string{"secret-argument", "arguments"} {
		if bytes.Contains(d.Record, []byte(text)) {
			t.Errorf("the record holds %q", text)
		}
	}
	again, err := e.Judge(t.Context(), "task.claim", d.Record)
	if err != nil || again.Effect != d.Effect || strings.Join(again.Rules(), " ") != strings.Join(d.Rules(), " ") {
		t.Errorf("judged again: %v %v, %v", again.Effect, again.Rules(), err)
	}
	x, err := e.OfRevision(d.PolicyRevision).Explain(t.Context(), "task.claim", d.Record)
	if err != nil || x.Effect != writ.EffectDeny {
		t.Fatalf("%+v, %v", x, err)
	}
	held, stopped := 0, 0
	for _, r := range x.Rules {
		if r.File == "" || r.Line == 0 {
			t.Errorf("%s stands nowhere", r.Rule)
		}
		switch {
		case r.Held != (r.Rule == "write_scopes.outside"):
			t.Errorf("%s held: %v", r.Rule, r.Held)
		case r.Held:
			held++
		case r.Stopped > r.Line:
			stopped++
		}
	}
	if held != 1 || stopped < len(x.Rules)*2/3 {
		t.Errorf("%d rules held, %d of %d say where they stopped", held, stopped, len(x.Rules))
	}
	if e.OfRevision("sha256:other") != nil {
		t.Error("rules of a revision nobody loaded")
	}
	for name, record := range map[string][]byte{"none": nil, "damaged": []byte(`{"call":`), "too long": bytes.Repeat([]byte(" "), maxRecord+1)} {
		if _, err := e.Judge(t.Context(), "task.claim", record); err == nil {
			t.Errorf("%s: judged", name)
		}
		if _, err := e.OfRevision(d.PolicyRevision).Explain(t.Context(), "task.claim", record); err == nil {
			t.Errorf("%s: explained", name)
		}
	}
	// The packs are those of what the record names, which is what a call was judged as.
	elsewhere := bytes.Replace(d.Record, []byte(`"capability":"task.claim"`), []byte(`"capability":"no.such"`), 1)
	if bytes.Equal(elsewhere, d.Record) {
		t.Fatal("the record does not name its capability")
	}
	if _, err := e.Judge(t.Context(), "task.claim", elsewhere); err == nil {
		t.Error("a record of a capability without a route was judged")
	}
	if again, err := e.Judge(t.Context(), "agent.delegate", d.Record); err != nil || again.Effect != d.Effect {
		t.Errorf("a record of what was judged as task.claim: %+v, %v", again, err)
	}
}

func BenchmarkReplay(b *testing.B) {
	e := load(b)
	d := decide(b, e, claim())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Judge(b.Context(), "task.claim", d.Record); err != nil {
			b.Fatal(err)
		}
	}
}
