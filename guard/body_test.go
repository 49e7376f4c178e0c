package guard_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// uploadArgs come with a body.
type uploadArgs struct {
	thingArgs
	Digest string `json:"digest,omitempty"`
}

func (a *uploadArgs) Received(r writ.Received) (bool, error) {
	if a.Digest != "" && a.Digest != r.Digest {
		return false, writ.Refuse(writ.CodeInputInvalid, "test", "other bytes", "")
	}
	blind := a.Digest == ""
	a.Digest = r.Digest
	return blind, nil
}

// upload is a body, and what was done with it.
type upload struct {
	text      string
	receiving func()
	received  int
	kept      int
}

func (u *upload) Receive(context.Context, int64) (writ.Received, error) {
	u.received++
	if u.receiving != nil {
		u.receiving()
	}
	sum := sha256.Sum256([]byte(u.text))
	return writ.Received{Digest: hex.EncodeToString(sum[:]), Size: int64(len(u.text)), Small: []byte(u.text)}, nil
}

func (u *upload) Keep(context.Context) error { u.kept++; return nil }

// uploads is a world whose test.upload is test.bump with a body.
func uploads(t *testing.T) *world {
	all := things()
	for _, k := range things() {
		if k.ID == "test.bump" {
			args := func(c *writ.Call) *writ.Call {
				inner := *c
				inner.Args = &c.Args.(*uploadArgs).thingArgs
				return &inner
			}
			all = append(all, writ.Define[uploadArgs, thingView](writ.Capability{ID: "test.upload", Summary: "Count.", Safety: writ.SafetyMutating}, writ.Verb[uploadArgs]{
				Locks: func(c *writ.Call, _ *uploadArgs) []writ.Key { return k.Locks(args(c)) },
				Reads: func(c *writ.Call, _ *uploadArgs, s writ.Snapshot) (writ.ReadSet, error) { return k.Reads(args(c), s) },
				Describe: func(c *writ.Call, _ *uploadArgs, s writ.Snapshot) (writ.Subject, error) {
					return k.Describe(args(c), s)
				},
				Plan: func(c *writ.Call, _ *uploadArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
					return k.Plan(args(c), s, d)
				},
			}))
		}
	}
	reg, err := writ.NewRegistry(append(guard.Capabilities(), all...)...)
	if err != nil {
		t.Fatal(err)
	}
	return newWorld(t, func(c *guard.Config) { c.Registry = reg })
}

func (w *world) upload(c *writ.Credential, id writ.CapabilityID, a uploadArgs, key string, u *upload) (writ.Reply, error) {
	w.t.Helper()
	raw, err := json.Marshal(a)
	if err != nil {
		w.t.Fatal(err)
	}
	call := &writ.Call{Capability: id, Credential: c, Raw: raw, IdempotencyKey: key, Body: u}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	r, _, err := w.door.Do(w.t.Context(), call)
	return r, err
}

// A body is taken in for a call that would be accepted, once, with no lock held,
// and stored before the commit; of any other call not a byte is read.
func TestABodyComesLast(t *testing.T) {
	w := uploads(t)
	me := w.session("olga")
	a := uploadArgs{thingArgs: thingArgs{Run: runID(1)}}

	u := &upload{text: "x"}
	stranger := *me
	stranger.SecretHash = [32]byte{}
	w.law.deny["test.upload"] = writ.Finding{Rule: "test.no", Effect: writ.EffectDeny, Code: string(writ.CodePolicy)}
	_, err := w.upload(me, "test.upload", a, "", u)
	delete(w.law.deny, "test.upload")
	if writ.CodeOf(err) != writ.CodePolicy {
		t.Fatalf("got %v", err)
	}
	if _, err := w.upload(&stranger, "test.upload", a, "", u); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Fatalf("got %v", err)
	}
	w.law.forbid["test.upload"] = true
	_, err = w.upload(me, "test.upload", a, "", u)
	delete(w.law.forbid, "test.upload")
	if writ.CodeOf(err) != writ.CodeRBAC || u.received != 0 {
		t.Fatalf("received %d times, %v", u.received, err)
	}
	if _, err := w.upload(me, "test.bump", a, "", u); writ.CodeOf(err) != writ.CodeInternal || u.received != 0 { // takes no body
		t.Fatalf("received %d times, %v", u.received, err)
	}

	u.receiving = func() {
		// Others change the same document meanwhile.
		if _, _, err := w.call(me, "test.bump", a.thingArgs, ""); err != nil {
			t.Error(err)
		}
	}
	r, err := w.upload(me, "test.upload", a, "key", u)
	if err != nil || u.received != 1 || u.kept != 1 || r.Body.(thingView).Count != 2 {
		t.Fatalf("received %d, kept %d, %+v, %v", u.received, u.kept, r.Body, err)
	}

	// The key belongs to the bytes too.
	again := &upload{text: "x"}
	if r, err := w.upload(me, "test.upload", a, "key", again); err != nil || !r.Replayed || again.kept != 0 {
		t.Errorf("the same again: %+v, %v, kept %d", r, err, again.kept)
	}
	said, sum := a, sha256.Sum256([]byte("x"))
	said.Digest = hex.EncodeToString(sum[:])
	again = &upload{text: "x"}
	if r, err := w.upload(me, "test.upload", said, "key", again); err != nil || !r.Replayed || again.received != 0 {
		t.Errorf("its digest again: %+v, %v, received %d", r, err, again.received)
	}
	if _, err := w.upload(me, "test.upload", a, "key", &upload{text: "y"}); writ.CodeOf(err) != writ.CodeIdempotency {
		t.Errorf("other bytes under the same key: %v", err)
	}
	wrong := a
	wrong.Digest = "00"
	u = &upload{text: "x"}
	if _, err := w.upload(me, "test.upload", wrong, "", u); writ.CodeOf(err) != writ.CodeInputInvalid || u.kept != 0 {
		t.Errorf("kept %d, %v", u.kept, err)
	}
}

// What a caller may is looked at again once the body has come.
func TestABodyIsJudgedAgain(t *testing.T) {
	for what, change := range map[string]func(*world){
		"role": func(w *world) { w.law.forbid["test.upload"] = true },
		"policy": func(w *world) {
			w.law.deny["test.upload"] = writ.Finding{Rule: "test.no", Effect: writ.EffectDeny, Code: string(writ.CodePolicy)}
		},
		"session": func(w *world) { w.now.Add(366 * 24 * 3600 * 1000) },
		"binding": func(w *world) { w.law.unbound[writ.Bind{Principal: "olga", Role: writ.RoleOperator}] = true },
	} {
		w := uploads(t)
		me := w.session("olga")
		u := &upload{text: "x", receiving: func() { change(w) }}
		_, err := w.upload(me, "test.upload", uploadArgs{thingArgs: thingArgs{Run: runID(1)}}, "", u)
		if !slices.Contains([]writ.Code{writ.CodeRBAC, writ.CodePolicy, writ.CodeUnauthenticated}, writ.CodeOf(err)) || u.received != 1 || u.kept != 0 {
			t.Errorf("%s: received %d times, kept %d, %v", what, u.received, u.kept, err)
		}
	}
}

// Bytes are shown whole or not at all: where policy hides anything, whether the reply
// has it or not, they are refused.
func TestBytesAreNotMasked(t *testing.T) {
	all := things()
	for _, k := range things() {
		if k.ID == "test.look" {
			k.ID, k.Bytes = "test.bytes", true
			all = append(all, k)
		}
	}
	reg, err := writ.NewRegistry(append(guard.Capabilities(), all...)...)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *guard.Config) { c.Registry = reg })
	me := w.session("olga")
	for _, id := range []writ.CapabilityID{"test.bump", "test.bytes"} {
		if _, _, err := w.call(me, id, thingArgs{Run: runID(1)}, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.law.deny["test.bytes"] = hides(t, "/nothing")
	if _, _, err := w.call(me, "test.bytes", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicy {
		t.Errorf("got %v", err)
	}
}
