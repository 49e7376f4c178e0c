package guard_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// What the gateway does for a session is judged as that session's own, by what holds
// now: its role, its binding, its policies. That it has ended by itself does not undo
// what it ordered; that it was revoked does.
func TestBehalf(t *testing.T) {
	w := newWorld(t)
	c := w.sessionAs("planner", "", writ.RoleOrchestrator)
	var seen writ.PolicyInput
	w.law.judge = func(in writ.PolicyInput) *writ.Finding {
		if in.Capability.ID == "test.bump" {
			seen = in
		}
		return nil
	}
	do := func(id writ.CapabilityID) error {
		_, _, err := w.door.Behalf(t.Context(), shard, c.Session, id, thingArgs{Run: runID(1)})
		return err
	}
	if err := do("test.bump"); err != nil {
		t.Fatal(err)
	}
	if by := seen.Call.Caller; by.Principal != "planner" || by.Role != writ.RoleOrchestrator || by.Session != c.Session || by.Tenant != shard || seen.Session == nil {
		t.Errorf("judged as %+v", by)
	}
	if err := do("test.mandate"); writ.CodeOf(err) != writ.CodeNotFound {
		t.Errorf("what only the gateway may do: %v", err)
	}

	bind := writ.Bind{Principal: "planner", Role: writ.RoleOrchestrator}
	w.law.unbound[bind] = true
	if err := do("test.bump"); writ.CodeOf(err) != writ.CodeRBAC || writ.AsError("", err).Receipt == "" {
		t.Errorf("without its binding: %v", err)
	}
	delete(w.law.unbound, bind)
	w.law.forbid["test.bump"] = true
	if err := do("test.bump"); writ.CodeOf(err) != writ.CodeRBAC {
		t.Errorf("without its right: %v", err)
	}
	delete(w.law.forbid, "test.bump")
	w.law.deny["test.bump"] = writ.Finding{Rule: "no", Effect: writ.EffectDeny, Code: "policy_denied"}
	if err := do("test.bump"); writ.CodeOf(err) != writ.CodePolicy {
		t.Errorf("denied: %v", err)
	}
	delete(w.law.deny, "test.bump")

	w.now.Add(13 * 3600 * 1000)
	if _, _, err := w.call(c, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("its token is still good: %v", err)
	}
	if err := do("test.bump"); err != nil || seen.Session.State != writ.SessionActive {
		t.Errorf("once it has ended: %v, %+v", err, seen.Session)
	}
	if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: c.Session, Revoke: true}, nil); err != nil {
		t.Fatal(err)
	}
	if err := do("test.bump"); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("once it was revoked: %v", err)
	}
	if _, _, err := w.door.Behalf(t.Context(), shard, writ.SessionID(writ.MakeID(writ.PrefixSession, 1, [10]byte{7})), "test.bump", thingArgs{Run: runID(1)}); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("for nobody: %v", err)
	}
}

// What an agent's session ordered goes on while the agent is active, and not once it was
// stopped, whether or not it is active again: a session that has ended is not revoked
// with those that live.
func TestBehalfOfAnAgent(t *testing.T) {
	w := newWorld(t)
	agent := func(stopped int64) {
		t.Helper()
		if _, _, err := w.door.System(t.Context(), shard, "test.agent", writ.Agent{ID: "planner", StoppedAt: stopped}, nil); err != nil {
			t.Fatal(err)
		}
	}
	do := func(by writ.SessionID) writ.Code {
		_, _, err := w.door.Behalf(t.Context(), shard, by, "test.bump", thingArgs{Run: runID(1)})
		return writ.CodeOf(err)
	}
	open := func(n byte) writ.SessionID {
		t.Helper()
		w.now.Add(1)
		id := writ.SessionID(writ.MakeID(writ.PrefixSession, 1, [10]byte{n}))
		if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: id, Principal: "planner", Role: writ.RoleOrchestrator, Agent: "planner"}, nil); err != nil {
			t.Fatal(err)
		}
		return id
	}
	agent(w.now.Load())
	before := open(1)
	if code := do(before); code != "" {
		t.Errorf("while it is active: %s", code)
	}
	agent(w.now.Load())
	if code := do(before); code != writ.CodeUnauthenticated {
		t.Errorf("stopped, and active again: %q", code)
	}
	if code := do(open(2)); code != "" {
		t.Errorf("a session since then: %s", code)
	}
}

// A revocation that comes while such a call is judged comes before it or after it, and
// the edge cannot make one.
func TestBehalfMeetsARevocation(t *testing.T) {
	w := newWorld(t)
	c := w.sessionAs("planner", "", writ.RoleOrchestrator)
	once := true
	w.law.deciding = func() {
		if once {
			once = false
			if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: c.Session, Revoke: true}, nil); err != nil {
				t.Error(err)
			}
		}
	}
	if _, _, err := w.door.Behalf(t.Context(), shard, c.Session, "test.bump", thingArgs{Run: runID(1)}); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("it was revoked before the commit: %v", err)
	}
	call := &writ.Call{Capability: "test.bump", Behalf: c.Session, Raw: []byte(`{}`)}
	if _, _, err := w.door.Do(t.Context(), call); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("from outside: %v", err)
	}
	call.Credential = w.session("other")
	if _, _, err := w.door.Do(t.Context(), call); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("from outside, for somebody else: %v", err)
	}
}

// keptArgs hold bytes for the store of blobs.
type keptArgs struct {
	thingArgs
	Text string `json:"text"`
}

func (a *keptArgs) Kept() []byte { return []byte(a.Text) }

// blobStore keeps bytes in memory.
type blobStore struct {
	put  func(string) error
	kept []string
}

func (b *blobStore) Put(_ context.Context, r io.Reader) (string, error) {
	text, err := io.ReadAll(r)
	if err == nil {
		err = b.put(string(text))
	}
	b.kept = append(b.kept, string(text))
	return writ.DigestOf(text), err
}

func (*blobStore) Examine(context.Context, string) (writ.BlobState, error) {
	return writ.BlobIntact, nil
}

// What arguments hold for the store of blobs is there before the commit that is about
// it, and where it cannot be stored nothing happens.
func TestKeptBeforeTheCommit(t *testing.T) {
	k := &blobStore{}
	w := newWorld(t, func(c *guard.Config) {
		caps := append(guard.Capabilities(), things()...)
		bump := things()[1]
		caps = append(caps, writ.Define[keptArgs, thingView](writ.Capability{ID: "test.keep", Summary: "Count, and keep.", Safety: writ.SafetyMutating}, writ.Verb[keptArgs]{
			Reads: func(call *writ.Call, a *keptArgs, s writ.Snapshot) (writ.ReadSet, error) {
				return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}}, nil
			},
			Plan: func(call *writ.Call, a *keptArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
				inner := *call
				inner.Args = &a.thingArgs
				return bump.Plan(&inner, s, d)
			},
		}))
		reg, err := writ.NewRegistry(caps...)
		if err != nil {
			t.Fatal(err)
		}
		c.Registry, c.Blobs = reg, k
	})
	c := w.session("olivia")
	before := len(w.facts())
	k.put = func(string) error {
		if n := len(w.facts()); n != before {
			t.Errorf("it was committed before the bytes were there: %d facts, then %d", before, n)
		}
		return nil
	}
	if _, _, err := w.call(c, "test.keep", keptArgs{thingArgs{Run: runID(1)}, "a workflow"}, ""); err != nil || len(k.kept) != 1 || k.kept[0] != "a workflow" {
		t.Fatalf("%v %v", err, k.kept)
	}
	before = len(w.facts())
	k.put = func(string) error { return errors.New("the disk is full") }
	if _, _, err := w.call(c, "test.keep", keptArgs{thingArgs{Run: runID(1)}, "another"}, ""); writ.CodeOf(err) != writ.CodeStore || len(w.facts()) != before {
		t.Errorf("%v, %d facts", err, len(w.facts())-before)
	}
}
