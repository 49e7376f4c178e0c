package guard_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// decoding counts what was looked into.
type decoding struct {
	plainJSON
	n atomic.Int64
}

func (d *decoding) Decode(c *writ.Capability, raw []byte) (any, error) {
	d.n.Add(1)
	return d.plainJSON.Decode(c, raw)
}

// What a caller sends is looked into, locked for and read for only once he is
// known, the gate is the one in force, and his role may make the call.
func TestNothingIsDoneForThoseWhoMayNot(t *testing.T) {
	var looked decoding
	w := newWorld(t, func(c *guard.Config) { c.Validator = &looked })
	alice := w.session("alice")
	stranger := *alice
	stranger.SecretHash[0] ^= 1
	malformed := []byte(`{"run_id":`)
	for _, tt := range []struct {
		name string
		who  *writ.Credential
		id   writ.CapabilityID
		set  func()
		code writ.Code
	}{
		{"a stranger", &stranger, "test.bump", func() {}, writ.CodeUnauthenticated},
		{"no such capability", alice, "no.such", func() {}, writ.CodeNotFound},
		{"a capability of the gateway's own", alice, "test.finish-anyway", func() {}, writ.CodeNotFound},
		{"a role that may not", alice, "test.bump", func() { w.law.forbid["test.bump"] = true }, writ.CodeRBAC},
		{"a principal that is not bound to its role", alice, "test.look", func() { w.law.unbound[writ.Bind{Principal: "alice", Role: writ.RoleOperator}] = true }, writ.CodeRBAC},
		{"a replica that is behind", alice, "test.bump", func() { w.law.policy = "policy-2" }, writ.CodePolicyDown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.set()
			looked.n.Store(0)
			w.reads.asked = nil
			call := &writ.Call{Capability: tt.id, Credential: tt.who, Raw: malformed}
			if err := w.door.Stamp(call); err != nil {
				t.Fatal(err)
			}
			_, _, err := w.door.Do(t.Context(), call)
			if e := asError(t, err, tt.code); tt.code.Receipted() != (e.Receipt != "") {
				t.Errorf("receipt %q", e.Receipt)
			}
			if n := looked.n.Load(); n != 0 {
				t.Errorf("the arguments were decoded %d times", n)
			}
			want := []writ.Key{writ.GateKey, writ.SessionKey(alice.Session)}
			if len(w.reads.asked) != 1 || !slices.Equal(w.reads.asked[0].Docs, want) || len(w.reads.asked[0].Ranges) != 0 {
				t.Errorf("read: %+v", w.reads.asked)
			}
		})
	}
}

// A call that reads in several hops and commits nothing has no guards: it is
// still not answered for a session that was revoked, or under a gate that
// moved, before its last hop.
func TestReadsLookAgainAtSessionAndGate(t *testing.T) {
	for name, change := range map[string]func(*world, *writ.Credential) writ.Code{
		"session": func(w *world, c *writ.Credential) writ.Code {
			if _, _, err := w.door.System(context.Background(), shard, "test.session", sessionArgs{ID: c.Session, Revoke: true}, nil); err != nil {
				w.t.Error(err)
			}
			return writ.CodeUnauthenticated
		},
		"gate": func(w *world, _ *writ.Credential) writ.Code {
			w.law.mu.Lock()
			w.law.policy = "policy-2"
			w.law.mu.Unlock()
			w.gate()
			w.law.mu.Lock()
			w.law.policy = "policy-1" // this replica has not heard yet
			w.law.mu.Unlock()
			return writ.CodePolicyDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			alice := w.session("alice")
			if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
				t.Fatal(err)
			}
			var once first
			var want writ.Code
			w.reads.before = func(rs writ.ReadSet) {
				if slices.Contains(rs.Docs, writ.RunKey(runID(1))) {
					once.do(func() { want = change(w, alice) })
				}
			}
			reply, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, "")
			if want == "" || writ.CodeOf(err) != want || len(reply.JSON) > 0 {
				t.Fatalf("got %s, %v, want %s", reply.JSON, err, want)
			}
		})
	}
}

// Receipts come from elsewhere and are read before the look at the session.
func TestArchiveReadsLookAgainToo(t *testing.T) {
	var order []string
	w := newWorld(t, func(c *guard.Config) {
		c.Archive = archived(func() { order = append(order, "archive") })
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), writ.Define[thingArgs, thingView](
			writ.Capability{ID: "test.receipts", Summary: "Look.", Safety: writ.SafetyReadOnly},
			writ.Verb[thingArgs]{
				Reads: func(*writ.Call, *thingArgs, writ.Snapshot) (writ.ReadSet, error) {
					return writ.ReadSet{Archive: []writ.ArchiveRead{{After: -1, Limit: 1}}}, nil
				},
				Plan: func(*writ.Call, *thingArgs, writ.Snapshot, writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
					return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
				},
			}))...)
		if err != nil {
			t.Fatal(err)
		}
		c.Registry = reg
	})
	alice := w.session("alice")
	w.reads.before = func(writ.ReadSet) { order = append(order, "store") }
	if _, _, err := w.call(alice, "test.receipts", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, " "); got != "store archive store" {
		t.Errorf("read in this order: %s", got)
	}
}

type archived func()

func (f archived) Read(context.Context, writ.Tenant, writ.ArchiveRead) ([]writ.Receipt, error) {
	f()
	return nil, nil
}
