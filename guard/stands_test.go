package guard_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/writ-gateway/writ"
)

// Whose agent was stopped is told that and nothing else, whatever is sent: not which
// capabilities there are, nor what is wrong with arguments.
func TestWhoseAgentWasStoppedIsToldNothingElse(t *testing.T) {
	w := newWorld(t)
	hash := sha256.Sum256([]byte("a secret"))
	id := writ.SessionID(writ.MakeID(writ.PrefixSession, w.now.Load(), [10]byte{1}))
	if _, _, err := w.door.System(t.Context(), shard, "test.session", sessionArgs{ID: id, Hash: hex.EncodeToString(hash[:]), Principal: "rogue", Role: writ.RoleOperator, Agent: "rogue"}, nil); err != nil {
		t.Fatal(err)
	}
	by := &writ.Credential{Tenant: shard, Session: id, SecretHash: hash}
	w.law.forbid["test.give"] = true
	before := len(w.facts())
	for verb, raw := range map[writ.CapabilityID]string{
		"test.bump": `{"run_id":"run_01J00000000000000000000001"}`, "test.no": `{}`, "test.look": `{"run_id":`, "test.give": `{}`,
	} {
		call := &writ.Call{Capability: verb, Credential: by, Raw: []byte(raw)}
		if err := w.door.Stamp(call); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.door.Do(context.Background(), call); writ.CodeOf(err) != writ.CodeUnauthenticated {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if n := len(w.facts()) - before; n != 0 {
		t.Errorf("%d receipts of calls of nobody", n)
	}
}
