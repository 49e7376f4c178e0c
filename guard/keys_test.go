package guard_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
)

// A fact names the key of the gate it was judged by, whatever its replica used last. When
// the gate changes while a call is decided, the call goes back and names the new one; a
// replica that does not hold the key in force commits nothing.
func TestAFactNamesTheKeyOfItsGate(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	old := w.seal.KeyID()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.seal.Hold(key)
	if err != nil {
		t.Fatal(err)
	}
	bump := func() string {
		t.Helper()
		_, r, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
		if err != nil {
			t.Fatal(err)
		}
		rec, err := receipts.Decode(r.Payload)
		if err != nil || rec.Statement.KeyID != r.KeyID {
			t.Fatalf("%v: it states %s and is signed with %s", err, rec.Statement.KeyID, r.KeyID)
		}
		return r.KeyID
	}
	if got := bump(); got != old {
		t.Errorf("signed with %s", got)
	}
	var once first
	w.law.mu.Lock()
	w.law.deciding = func() { once.do(func() { w.regate(func(g *writ.Gate) { g.ReceiptKeyID = second }) }) }
	w.law.mu.Unlock()
	if got := bump(); got != second {
		t.Errorf("judged under the old gate and committed under the new one, signed with %s", got)
	}
	// Another call has used a newer gate meanwhile; this one's is what it was judged by.
	if !w.seal.Use(old, 1<<40) {
		t.Fatal("it is not held")
	}
	if got := bump(); got != second {
		t.Errorf("signed with %s, which is not the gate's", got)
	}
	// A replica that starts says which key it has; that changes nothing.
	if _, _, err := w.door.System(t.Context(), shard, "gate.set", guard.GateSetArgs{PolicyRevision: "policy-1", BindingsRevision: "bindings-1", ReceiptKeyID: old}, nil); err != nil {
		t.Fatal(err)
	}
	if got := bump(); got != second {
		t.Errorf("gate.set has changed the key to %s", got)
	}
	n := len(w.facts())
	w.regate(func(g *writ.Gate) { g.ReceiptKeyID = "SHA256:" + strings.Repeat("x", 43) })
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Errorf("with a key nobody here holds: %v", err)
	}
	if _, _, err := w.call(alice, "test.look", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Errorf("a read, with a key nobody here holds: %v", err)
	}
	if got := len(w.facts()); got != n+1 { // the change of the gate
		t.Errorf("%d facts were added", got-n)
	}
}
