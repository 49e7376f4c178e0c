package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// dusk is a law with one pack in shadow, which denies everything unless a test
// says otherwise.
type dusk struct {
	*law
	packs []writ.PackVer
	says  func(c writ.CapabilityID, record []byte) ([]writ.Finding, error)

	listing func() // runs inside Shadowed: what happens between read and commit of a flush
}

func (d *dusk) Decide(ctx context.Context, in writ.PolicyInput) (writ.Decision, error) {
	out, err := d.law.Decide(ctx, in)
	if err == nil {
		out.Record = []byte(`{"call":{"capability":"` + string(in.Capability.ID) + `"}}`)
	}
	return out, err
}

func (d *dusk) Shadowed() []writ.PackVer {
	if d.listing != nil {
		d.listing()
	}
	return d.packs
}

func (d *dusk) Shadows(c writ.CapabilityID) bool { return strings.HasPrefix(string(c), "test.") }

func denies(writ.CapabilityID, []byte) ([]writ.Finding, error) {
	return []writ.Finding{{Pack: "freeze", Rule: "freeze.frozen", Effect: writ.EffectDeny}}, nil
}

func (d *dusk) Shadow(_ context.Context, c writ.CapabilityID, record []byte) (out []writ.Shade) {
	for _, p := range d.packs {
		found, err := d.says(c, record)
		out = append(out, writ.Shade{Pack: p, Findings: found, Err: err})
	}
	return out
}

var freeze = writ.PackVer{ID: "freeze", Version: "1.0.0", Digest: "sha256:aa", Stage: writ.StageShadow}

func newDusk(t testing.TB, tune ...func(*guard.Config)) (*world, *dusk) {
	d := &dusk{packs: []writ.PackVer{freeze}, says: denies}
	w := newWorld(t, append(tune, func(c *guard.Config) {
		d.law = c.Decider.(*law)
		c.Decider = d
	})...)
	return w, d
}

// bump makes a change that is allowed.
func (w *world) bump(by *writ.Credential) {
	w.t.Helper()
	if _, _, err := w.call(by, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		w.t.Fatal(err)
	}
}

// asked lets a worker do all that waits, and stop: it writes its counts.
func (w *world) asked() {
	worker := guard.NewShadowWorker(w.door)
	worker.Start()
	worker.Stop()
	worker.Stop()
}

func (w *world) shadow() writ.Shadow {
	w.t.Helper()
	s, err := w.store.Read(w.t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.ShadowKey}})
	if err != nil {
		w.t.Fatal(err)
	}
	doc, _, _, err := writ.Get[writ.Shadow](s, writ.ShadowKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return doc
}

func (h *heard) of(reason string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shed[reason]
}

// A pack in shadow denies everything, and nobody notices: the call happens, and
// afterwards one aggregate says how often it would not have.
func TestShadowIsNeverEnforced(t *testing.T) {
	w, d := newDusk(t)
	alice := w.session("alice")
	_, allowed, err := w.call(alice, "test.bump", thingArgs{Run: runID(1), Note: "words of alice"}, "")
	if err != nil || allowed == nil {
		t.Fatalf("a pack in shadow was enforced: %v", err)
	}
	if _, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatalf("a pack in shadow was enforced: %v", err)
	}
	d.law.deny["test.bump"] = writ.Finding{Rule: "p.rule", Effect: writ.EffectDeny, Code: "policy_denied"}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicy {
		t.Fatalf("got %v", err)
	}
	before := len(w.facts())
	w.asked()
	facts := w.facts()[before:]
	if len(facts) != 1 {
		t.Fatalf("%d facts were written, want 1", len(facts))
	}
	p := predicate(t, facts[0])
	if p["outcome"] != "aggregate" || p["transition"] != "shadow.aggregate" || p["count"] != float64(2) || p["changes"] != nil {
		t.Errorf("got %v", p)
	}
	for _, secret := range []string{"freeze", "alice", string(alice.Session), string(allowed.ID)} {
		if bytes.Contains(facts[0].Payload(), []byte(secret)) {
			t.Errorf("the statement says %q: %s", secret, facts[0].Payload())
		}
	}
	doc := w.shadow()
	if len(doc.Packs) != 1 || doc.Receipt != facts[0].ID {
		t.Fatalf("got %+v", doc)
	}
	got := doc.Packs[0]
	if got.ID != "freeze" || got.Digest != freeze.Digest || got.Since == 0 || got.Evaluated != 3 || got.Changed != 2 || len(got.Changes) != 1 {
		t.Fatalf("got %+v", got)
	}
	c := got.Changes[0]
	if c.Rule != "freeze.frozen" || c.From != writ.EffectAllow || c.To != writ.EffectDeny || c.Count != 2 ||
		len(c.Samples) != 2 || c.Samples[0] != string(allowed.ID) || !strings.HasPrefix(c.Samples[1], writ.PrefixCall) {
		t.Errorf("got %+v, want the receipt %s and the call of a read", c, allowed.ID)
	}
	ev := unsealed(t, facts[0])
	b, err := json.Marshal(ev["args"])
	if err != nil {
		t.Fatal(err)
	}
	var args guard.ShadowArgs
	if err := json.Unmarshal(b, &args); err != nil || !reflect.DeepEqual(args.Packs, doc.Packs) {
		t.Errorf("the evidence holds %s, %v", b, err)
	}
	for what, n := range map[string]int{"shadow freeze allow deny": 2, "shadow freeze deny deny": 1} {
		if got := w.heard.of(what); got != n {
			t.Errorf("%s: heard %d times, want %d", what, got, n)
		}
	}
}

// What changes nothing is not worth a receipt; it is counted with the next change.
func TestShadowThatChangesNothingCommitsNothing(t *testing.T) {
	w, d := newDusk(t)
	alice := w.session("alice")
	d.says = func(writ.CapabilityID, []byte) ([]writ.Finding, error) { return nil, nil }
	for range 3 {
		w.bump(alice)
	}
	before := len(w.facts())
	w.asked()
	if n := len(w.facts()) - before; n != 0 {
		t.Errorf("%d facts were written", n)
	}
	if got := w.door.Shadow(shard); len(got) != 1 || got[0].Evaluated != 3 || got[0].Changed != 0 {
		t.Errorf("not in the store yet: %+v", got)
	}
	d.says = denies
	w.bump(alice)
	w.asked()
	if got := w.shadow().Packs; len(got) != 1 || got[0].Evaluated != 4 || got[0].Changed != 1 {
		t.Errorf("got %+v", got)
	}
	if got := w.door.Shadow(shard); len(got) != 0 {
		t.Errorf("still not in the store: %+v", got)
	}
}

// A call that is judged twice, because what it stood on changed, is one decision.
func TestShadowIsAskedOncePerDecision(t *testing.T) {
	w, d := newDusk(t)
	alice := w.session("alice")
	var once first
	d.law.deciding = func() { once.do(func() { w.now.Add(6_000) }) }
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "key"); err != nil {
		t.Fatal(err)
	}
	if d.law.decided < 2 {
		t.Fatalf("decided %d times; the test wants a conflict", d.law.decided)
	}
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "key"); err != nil { // a replay decides nothing
		t.Fatal(err)
	}
	if _, _, err := w.door.System(t.Context(), shard, "test.finish-anyway", thingArgs{Run: runID(1)}, nil); err != nil { // nor is a mandate decided
		t.Fatal(err)
	}
	d.law.down = true
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(2)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("got %v", err)
	}
	w.asked()
	if got := w.shadow().Packs; len(got) != 1 || got[0].Evaluated != 1 {
		t.Errorf("got %+v, want one decision", got)
	}
}

// When packs in shadow cannot keep up, calls do not wait: decisions are lost and
// counted.
func TestShadowQueueIsBounded(t *testing.T) {
	w, _ := newDusk(t, func(c *guard.Config) { c.ShadowQueue = 2 })
	alice := w.session("alice")
	for range 5 { // nobody takes anything out of the queue
		w.bump(alice)
	}
	if n := w.heard.of("lost queue"); n != 3 {
		t.Errorf("%d decisions were lost, want 3", n)
	}
	w.asked()
	if got := w.shadow().Packs; len(got) != 1 || got[0].Evaluated != 2 {
		t.Errorf("got %+v, want the two that had room", got)
	}
}

// A pack in shadow without an answer harms nobody: it is counted, and there is
// one line of log however often it fails.
func TestShadowThatFails(t *testing.T) {
	var log bytes.Buffer
	w, d := newDusk(t, func(c *guard.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	alice := w.session("alice")
	d.says = func(writ.CapabilityID, []byte) ([]writ.Finding, error) { return nil, errors.New("eval_conflict_error") }
	for range 20 {
		w.bump(alice)
	}
	w.asked()
	if n := w.heard.of("lost error"); n != 20 {
		t.Errorf("%d failures were counted, want 20", n)
	}
	if n := strings.Count(log.String(), "eval_conflict_error"); n != 1 {
		t.Errorf("%d lines of log, want 1:\n%s", n, log.String())
	}
	if got := w.door.Shadow(shard); len(got) != 1 || got[0].Failed != 20 || got[0].Evaluated != 0 {
		t.Errorf("got %+v", got)
	}
}

// Counts that could not be written are written later, with what came since.
func TestShadowIsFlushedLater(t *testing.T) {
	w, _ := newDusk(t)
	alice := w.session("alice")
	w.bump(alice)
	w.seal.unusable.Store(true)
	w.asked()
	if err := w.door.FlushShadow(t.Context()); writ.CodeOf(err) != writ.CodeNotReady {
		t.Fatalf("got %v", err)
	}
	w.seal.unusable.Store(false)
	w.bump(alice)
	w.asked()
	if got := w.shadow().Packs; len(got) != 1 || got[0].Evaluated != 2 || got[0].Changed != 2 || len(got[0].Changes[0].Samples) != 2 {
		t.Errorf("got %+v", got)
	}
}

// Two replicas flush at once: neither count is lost.
func TestShadowFlushesMeet(t *testing.T) {
	w, d := newDusk(t)
	alice := w.session("alice")
	w.bump(alice)
	var once first
	d.listing = func() {
		once.do(func() {
			other := writ.Tx{Call: writ.CallID(writ.MakeID(writ.PrefixCall, 1, [10]byte{})), Mandate: true, Fact: &w.facts()[0].Fact}
			if err := other.PutDoc(writ.Snapshot{}, writ.ShadowKey, writ.ObjectShadow, writ.Shadow{Packs: []writ.ShadowPack{
				{ID: "freeze", Digest: freeze.Digest, Since: 1, Evaluated: 7, Changed: 1},
			}}); err != nil {
				t.Error(err)
			}
			if _, err := w.store.Commit(context.Background(), shard, other); err != nil {
				t.Error(err)
			}
		})
	}
	w.asked()
	if w.heard.conflicts.Load() != 1 {
		t.Errorf("%d conflicts, want 1: the flushes did not meet", w.heard.conflicts.Load())
	}
	if got := w.shadow().Packs; len(got) != 1 || got[0].Evaluated != 8 || got[0].Changed != 2 || got[0].Since != 1 {
		t.Errorf("got %+v", got)
	}
}

// A pack that was put in force, or taken out, leaves the list; of other bytes, it
// begins anew.
func TestShadowPackLeaves(t *testing.T) {
	w, d := newDusk(t)
	alice := w.session("alice")
	w.bump(alice)
	w.asked()
	next := freeze
	next.Digest = "sha256:bb"
	d.packs = []writ.PackVer{next}
	w.bump(alice)
	w.asked()
	if got := w.shadow().Packs; len(got) != 1 || got[0].Digest != next.Digest || got[0].Evaluated != 1 {
		t.Errorf("got %+v", got)
	}
	w.bump(alice)
	worker := guard.NewShadowWorker(w.door)
	d.says = func(writ.CapabilityID, []byte) ([]writ.Finding, error) {
		d.packs = nil // put in force while it is asked
		return denies("", nil)
	}
	before := len(w.facts())
	worker.Start()
	worker.Stop()
	if n := len(w.facts()) - before; n != 0 {
		t.Errorf("%d facts about a pack that is not in shadow", n)
	}
}

// Calls, worker and flushes at once: every decision is counted or lost.
func TestShadowConcurrently(t *testing.T) {
	w, _ := newDusk(t, func(c *guard.Config) { c.ShadowQueue = 8 })
	alice := w.session("alice")
	worker := guard.NewShadowWorker(w.door)
	worker.Start()
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			for range 25 {
				if _, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeNotFound {
					t.Error(err)
				}
				if err := w.door.FlushShadow(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	calls.Wait()
	worker.Stop()
	var counted int64
	for _, p := range w.shadow().Packs {
		counted += p.Evaluated
	}
	if lost := w.heard.of("lost queue"); counted+int64(lost) != 100 || counted == 0 {
		t.Errorf("%d decisions were counted and %d lost, of 100", counted, lost)
	}
}
