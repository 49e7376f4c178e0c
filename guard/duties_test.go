package guard_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// hides is a finding that redacts.
func hides(t *testing.T, fields ...string) writ.Finding {
	t.Helper()
	f := writ.Finding{Rule: "p.hides", Effect: writ.EffectRedact}
	for _, text := range fields {
		p, ok := writ.ParsePointer(text)
		if !ok {
			t.Fatalf("%q is no pointer", text)
		}
		f.Duties.Redact = append(f.Duties.Redact, p)
	}
	return f
}

func TestRedactedReply(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	for _, id := range []writ.CapabilityID{"test.bump", "test.look"} {
		w.law.deny[id] = hides(t, "/count", "/run_id", "/nothing")
	}
	const hidden = `{"run_id":"[redacted]","count":0,"version":`
	first, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || receipt == nil || !strings.HasPrefix(string(first.JSON), hidden) || strings.Join(first.Redacted, " ") != "/count /run_id" {
		t.Fatalf("got %s, %v, %v", first.JSON, first.Redacted, err)
	}
	if first.ETag <= 0 {
		t.Errorf("no version: %d", first.ETag)
	}
	// What is kept under the key is what the caller saw, whatever is decided now.
	clear(w.law.deny)
	again, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || !again.Replayed || string(again.JSON) != string(first.JSON) || strings.Join(again.Redacted, " ") != "/count /run_id" {
		t.Fatalf("replayed %v: got %s, %v, %v; want %s", again.Replayed, again.JSON, again.Redacted, err, first.JSON)
	}
	w.law.deny["test.look"] = hides(t, "/count", "/run_id", "/nothing")
	look, receipt, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, "")
	if err != nil || receipt != nil || !strings.HasPrefix(string(look.JSON), hidden) || strings.Join(look.Redacted, " ") != "/count /run_id" {
		t.Fatalf("got %s, %v, %v", look.JSON, look.Redacted, err)
	}
	// The receipt says that policy redacts, and its evidence which rule did.
	facts := w.facts()
	p := predicate(t, facts[len(facts)-1])
	if d, _ := p["decision"].(map[string]any); d["effect"] != "redact" {
		t.Errorf("stated: %v", p["decision"])
	}
}

// The version a commit gives is not written back where it was redacted.
func TestRedactedVersionIsNotReplayed(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.deny["test.bump"] = hides(t, "/*")
	first, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if want := `{"run_id":"[redacted]","count":0,"version":0}`; err != nil || string(first.JSON) != want {
		t.Fatalf("got %s, %v, want %s", first.JSON, err, want)
	}
	again, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "k")
	if err != nil || !again.Replayed || string(again.JSON) != string(first.JSON) {
		t.Fatalf("got %s, %v, want %s", again.JSON, err, first.JSON)
	}
}

// A secret is not kept under a key, redacted or not.
func TestRedactedSecretIsStillWithheld(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	w.law.deny["test.secret"] = hides(t, "/count")
	reply, _, err := w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k")
	var got thingView
	if uerr := json.Unmarshal(reply.JSON, &got); err != nil || uerr != nil || got.Token != "s3cret" || got.Count != 0 {
		t.Fatalf("got %s, %v", reply.JSON, err)
	}
	if _, _, err := w.call(alice, "test.secret", thingArgs{Run: runID(1)}, "k"); writ.CodeOf(err) != writ.CodeTokenIssued {
		t.Fatalf("got %v", err)
	}
}

// What cannot be denied is not obliged to anything.
func TestMandatesOweNothing(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	w.law.deny["test.mandate"] = hides(t, "/count")
	reply, receipt, err := w.door.System(t.Context(), shard, "test.mandate", thingArgs{Run: runID(1)}, nil)
	if err != nil || receipt == nil || len(reply.Redacted) > 0 || !strings.Contains(string(reply.JSON), `"count":2`) {
		t.Fatalf("got %s, %v, %v", reply.JSON, reply.Redacted, err)
	}
}
