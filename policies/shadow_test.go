package policies

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// inShadow moves a pack of a source into shadow.
func inShadow(f files, id string) {
	name := "packs/" + id + "/pack.yaml"
	f[name] = bytes.Replace(f[name], []byte("kind: guard"), []byte("kind: guard, stage: shadow"), 1)
}

// shaded is the built-in packs with one that denies every claim, in shadow.
func shaded(t testing.TB) (files, *Engine) {
	t.Helper()
	f := sources(t)
	guardPack(f, "freeze", "task.*", "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.call.capability == "task.claim"`)
	inShadow(f, "freeze")
	return f, loadFrom(t, from(f))
}

// A pack in shadow is no part of a decision; the revision covers it all the same.
func TestShadowIsNotDecidedBy(t *testing.T) {
	f, e := shaded(t)
	d := decide(t, e, claim())
	if d.Effect != writ.EffectAllow || len(d.Findings) != 0 || slices.ContainsFunc(d.Packs, func(p writ.PackRef) bool { return p.ID == "freeze" }) {
		t.Errorf("got %+v", d)
	}
	with, _ := e.Revisions()
	if without, _ := load(t).Revisions(); with == without {
		t.Error("the revision does not cover the pack in shadow")
	}
	f["packs/freeze/pack.yaml"] = bytes.Replace(f["packs/freeze/pack.yaml"], []byte("stage: shadow"), []byte("stage: enforce"), 1)
	enforcing := loadFrom(t, from(f))
	if d := decide(t, enforcing, claim()); d.Effect != writ.EffectDeny || !slices.Equal(d.Rules(), []string{"freeze.rule"}) {
		t.Errorf("enforced: got %s %v", d.Effect, d.Rules())
	}
	if now, _ := enforcing.Revisions(); now == with {
		t.Error("moving a pack out of shadow leaves the revision as it is")
	}
	// So a replay of what was decided with the pack in shadow shows what it would change.
	if got, err := enforcing.Judge(t.Context(), "task.claim", d.Record); err != nil || got.Effect != writ.EffectDeny {
		t.Errorf("replayed: got %s %v", got.Effect, err)
	}
	if got, err := e.Judge(t.Context(), "task.claim", d.Record); err != nil || got.Effect != writ.EffectAllow {
		t.Errorf("replayed in shadow: got %s %v", got.Effect, err)
	}
}

func TestShadow(t *testing.T) {
	_, e := shaded(t)
	s := e.now.Load()
	if got := e.Shadowed(); len(got) != 1 || got[0].ID != "freeze" || got[0].Stage != StageShadow || got[0].Version != "1.0.0" || !strings.HasPrefix(got[0].Digest, "sha256:") {
		t.Errorf("got %+v", got)
	}
	for c, want := range map[writ.CapabilityID]bool{"task.claim": true, "task.enqueue": true, "run.create": false, "no.such": false} {
		if got := s.Shadows(c); got != want {
			t.Errorf("%s: got %t, want %t", c, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Shadows("task.claim") }); n != 0 {
		t.Errorf("Shadows allocates %.0f times", n)
	}
	d := decide(t, e, claim())
	got := s.Shadow(t.Context(), "task.claim", d.Record)
	if len(got) != 1 || got[0].Err != nil || got[0].Pack != e.Shadowed()[0] || len(got[0].Findings) != 1 || got[0].Findings[0].Rule != "freeze.rule" || got[0].Effect(d.Effect) != writ.EffectDeny {
		t.Errorf("got %+v", got)
	}
	if got := s.Shadow(t.Context(), "task.enqueue", d.Record); len(got) != 1 || got[0].Err != nil {
		t.Errorf("got %+v", got)
	}
	if got := s.Shadow(t.Context(), "run.create", d.Record); len(got) != 0 {
		t.Errorf("got %+v of packs that would not judge it", got)
	}
	for _, p := range e.Info().Packs {
		if want := map[bool]string{true: StageShadow, false: StageEnforce}[p.ID == "freeze"]; p.Stage != want {
			t.Errorf("%s: stage %s, want %s", p.ID, p.Stage, want)
		}
	}
	c, err := OpenBundle(s.bundle, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Packs {
		if (p.Stage == StageShadow) != (p.ID == "freeze") {
			t.Errorf("%+v in the bundle", p)
		}
	}
}

// One pack in shadow that fails keeps no other from answering, and nothing of it
// reaches the caller.
func TestShadowFailsAlone(t *testing.T) {
	f, _ := shaded(t)
	for id, body := range map[string]string{
		"broken":  `to_number(input.run.id) > 10`,
		"endless": `some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a * b == -1; input.run`,
	} {
		guardPack(f, id, "task.claim", "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.run.state == "active"; `+body)
		inShadow(f, id)
	}
	e, err := Load(t.Context(), from(f), Options{Capabilities: verbs, Timeout: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d := decide(t, e, claim())
	if d.Effect != writ.EffectAllow {
		t.Fatalf("got %s %v", d.Effect, d.Rules())
	}
	s := e.now.Load()
	failed := map[string]bool{}
	for _, one := range s.Shadow(t.Context(), "task.claim", d.Record) {
		failed[one.Pack.ID] = one.Err != nil
	}
	if want := map[string]bool{"broken": true, "endless": true, "freeze": false}; len(failed) != 3 || !failed["broken"] || !failed["endless"] || failed["freeze"] {
		t.Errorf("failed: got %v, want %v", failed, want)
	}
	for _, one := range s.Shadow(t.Context(), "task.claim", []byte("{")) {
		if one.Err == nil {
			t.Errorf("%s answers to a damaged record", one.Pack.ID)
		}
	}
	if _, err := s.shade(t.Context(), &pack{}, ast.NewObject()); err == nil {
		t.Error("a panic is no error")
	}
}

// A route needs a pack that is enforced.
func TestShadowIsNoRoute(t *testing.T) {
	f := sources(t)
	guardPack(f, "freeze", "extra.do", "deny", `"effect": "deny", "code": "quota_exceeded"`, `input.run`)
	inShadow(f, "freeze")
	d := ExaminePacks(t.Context(), from(f), time.Minute)
	if len(d.Problems()) != 0 {
		t.Fatal(d.Problems())
	}
	if got := d.Route("extra.do"); slices.Contains(got, "freeze") {
		t.Errorf("routed to %v", got)
	}
}
