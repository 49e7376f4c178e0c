package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
)

// published is a transparency log of which is said how far it is.
type published struct {
	size   atomic.Int64
	waited []int64
	down   bool
}

func (p *published) Size(context.Context, writ.Tenant) (int64, error) {
	if p.down {
		return 0, errors.New("nobody knows")
	}
	return p.size.Load(), nil
}

func (p *published) Wait(_ context.Context, _ writ.Tenant, seq int64) error {
	p.waited = append(p.waited, seq)
	if p.down || p.size.Load() <= seq {
		return context.DeadlineExceeded
	}
	return nil
}

// The answer to a call that policy wants in the log means that it is there, or says that
// it is not yet. What was committed stands, and a repetition asks again.
func TestAnswersWaitForTheLog(t *testing.T) {
	p := &published{}
	w, d := newDispatcher(t, func(c *guard.Config) { c.Published = p })
	alice := w.session("alice")
	w.law.deny["test.bump"] = writ.Finding{Rule: "p.logged", Effect: writ.EffectAllow, Duties: writ.Duties{Durability: writ.DurabilityLogged}}
	call := func(key string) (writ.Reply, *writ.Receipt) {
		t.Helper()
		raw, err := json.Marshal(thingArgs{Run: runID(1)})
		if err != nil {
			t.Fatal(err)
		}
		c := &writ.Call{Capability: "test.bump", Credential: alice, Raw: raw, IdempotencyKey: key}
		if err := w.door.Stamp(c); err != nil {
			t.Fatal(err)
		}
		reply, receipt, err := d.Do(t.Context(), c)
		if err != nil || receipt == nil {
			t.Fatalf("%v, receipt %v", err, receipt)
		}
		return reply, receipt
	}
	late := func(reply writ.Reply, receipt *writ.Receipt) {
		t.Helper()
		var u writ.Unlogged
		if err := json.Unmarshal(reply.JSON, &u); err != nil || reply.Outcome != writ.OutcomePending || u.Status != writ.StatusUnlogged || u.Receipt != receipt.ID {
			t.Errorf("%s %s, %v", reply.Outcome, reply.JSON, err)
		}
	}
	first, receipt := call("k")
	late(first, receipt)
	again, same := call("k")
	late(again, same)
	if !again.Replayed || same.ID != receipt.ID || len(w.facts()) != int(receipt.Seq)+1 {
		t.Errorf("a repetition made another change: %+v", again)
	}
	p.size.Store(receipt.Seq + 1)
	if reply, _ := call("k"); reply.Outcome != writ.OutcomeDone || !reply.Replayed {
		t.Errorf("once it is in the log: %+v", reply)
	}
	p.size.Store(receipt.Seq + 10)
	if reply, _ := call("k2"); reply.Outcome != writ.OutcomeDone || reply.Replayed {
		t.Errorf("where the log is there in time: %+v", reply)
	}
	if n := len(p.waited); n != 4 || p.waited[0] != receipt.Seq {
		t.Errorf("waited for %v", p.waited)
	}
	delete(w.law.deny, "test.bump")
	if reply, _ := call("k3"); reply.Outcome != writ.OutcomeDone || len(p.waited) != 4 {
		t.Errorf("what nobody wants in the log: %+v, waited for %v", reply, p.waited)
	}
}

// A call that must build on what is in the log does nothing before that is there.
func TestBuildsOnWhatIsLogged(t *testing.T) {
	p := &published{}
	w := newWorld(t, func(c *guard.Config) { c.Published = p })
	alice := w.session("alice")
	bump := func(want writ.Code) *writ.Receipt {
		t.Helper()
		before := len(w.facts())
		_, receipt, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
		if writ.CodeOf(err) != want || want != "" && len(w.facts()) != before {
			t.Fatalf("got %v, want %q; %d facts more", err, want, len(w.facts())-before)
		}
		return receipt
	}
	built := bump("")
	w.law.deny["test.bump"] = writ.Finding{Rule: "p.parents", Effect: writ.EffectAllow, Duties: writ.Duties{BuiltOnLogged: true}}
	p.size.Store(built.Seq)
	bump(writ.CodeReceiptPending)
	p.down = true
	bump(writ.CodeStore)
	p.down = false
	p.size.Store(built.Seq + 1)
	built = bump("")
	bump(writ.CodeReceiptPending) // it builds on its own last one
	p.size.Store(built.Seq + 1)
	bump("")

	bare := newWorld(t)
	bare.law.deny["test.bump"] = w.law.deny["test.bump"]
	if _, _, err := bare.call(bare.session("alice"), "test.bump", thingArgs{Run: runID(1)}, ""); writ.CodeOf(err) != writ.CodeStore {
		t.Errorf("without a log: %v", err)
	}
}
