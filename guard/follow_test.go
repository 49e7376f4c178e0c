package guard_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// follower has something noted after every denial.
type follower struct{}

func (follower) Reads(*writ.Call, *writ.Capability, writ.Snapshot, writ.Subject) (writ.ReadSet, error) {
	return writ.ReadSet{}, nil
}

func (follower) Facts(*writ.Call, *writ.Capability, writ.Snapshot, func() bool, *writ.Subject) error {
	return nil
}

func (follower) Oblige(*writ.Call, *writ.Capability, writ.Snapshot, writ.Subject, *writ.Tx) (map[string]int64, []writ.BudgetWarning, error) {
	return nil, nil, nil
}

func (follower) Denied(_ *writ.Call, s writ.Snapshot, _ writ.Subject, _ writ.Decision, tx *writ.Tx) {
	tx.Index(writ.IndexTodo, "noted", s.Now)
}

// contested is a store in which others win the first commits without a fact.
type contested struct {
	store.Store
	conflicts, commits int
}

func (c *contested) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	c.commits++
	if tx.Fact == nil && c.conflicts > 0 {
		c.conflicts--
		return writ.Committed{}, &store.Conflict{Guard: writ.GuardExpect, Name: string(writ.GateKey)}
	}
	return c.Store.Commit(ctx, shard, tx)
}

// What follows from denials beyond the bucket of receipts makes neither more of
// them, however often it is tried, nor a commit for each.
func TestFollowUpsOfCountedDenials(t *testing.T) {
	st := &contested{}
	w := newWorld(t, func(c *guard.Config) {
		st.Store, c.Store = c.Store, st
		c.Obligors = []guard.Obligor{follower{}}
		c.DenialBurst, c.DenialPerSecond = 1, 0.0001
	})
	alice := w.session("alice")
	w.law.deny["test.bump"] = writ.Finding{Rule: "p.rule", Effect: writ.EffectDeny, Code: "policy_denied"}
	denied := func() {
		t.Helper()
		if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err == nil {
			t.Fatal("allowed")
		}
	}
	denied() // has the one receipt there is
	st.conflicts = 3
	denied()
	if st.conflicts != 0 {
		t.Fatal("the follow-up was not tried again")
	}
	if err := w.door.FlushDenials(t.Context()); err != nil {
		t.Fatal(err)
	}
	facts := w.facts()
	if n := predicate(t, facts[len(facts)-1])["count"]; n != float64(1) {
		t.Errorf("one denial beyond the bucket is receipted as %v", n)
	}
	before, began := st.commits, time.Now()
	for range 50 {
		denied()
	}
	if n, most := st.commits-before, 1+int(time.Since(began)/time.Second); n > most {
		t.Errorf("50 denials beyond the bucket made %d commits, want %d at most", n, most)
	}
}

// dry is a source of randomness that can fail.
type dry struct {
	io.Reader
	failing bool
}

func (d *dry) Read(p []byte) (int, error) {
	if d.failing {
		return 0, errors.New("no entropy")
	}
	return d.Reader.Read(p)
}

// Counts that could not be written are written later, whatever kept them.
func TestCountedDenialsAreFlushedLater(t *testing.T) {
	random := &dry{Reader: rand.Reader}
	w := newWorld(t, func(c *guard.Config) {
		c.Rand = random
		c.DenialBurst, c.DenialPerSecond = 1, 0.0001
	})
	alice := w.session("alice")
	w.law.deny["test.bump"] = writ.Finding{Rule: "p.rule", Effect: writ.EffectDeny, Code: "policy_denied"}
	for range 3 {
		if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err == nil {
			t.Fatal("allowed")
		}
	}
	random.failing = true
	if err := w.door.FlushDenials(t.Context()); err == nil {
		t.Fatal("written without an id")
	}
	random.failing = false
	if err := w.door.FlushDenials(t.Context()); err != nil {
		t.Fatal(err)
	}
	facts := w.facts()
	if n := predicate(t, facts[len(facts)-1])["count"]; n != float64(2) {
		t.Errorf("two denials beyond the bucket are receipted as %v", n)
	}
}

// whatever is a store in which something happens after a commit without a fact.
type whatever struct {
	store.Store
	after func()
}

func (w *whatever) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	c, err := w.Store.Commit(ctx, shard, tx)
	if tx.Fact == nil && err == nil && w.after != nil {
		after := w.after
		w.after = nil
		after()
	}
	return c, err
}

// What follows from a counted denial is no commit of the call: whatever changes
// meanwhile, the call is answered with the denial, and what it would have
// committed is not taken for committed.
func TestAFollowUpDoesNotAnswerTheCall(t *testing.T) {
	const from, to = writ.Key("from/a"), writ.Key("to/a")
	st := &whatever{}
	w := newWorld(t, func(c *guard.Config) {
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), follow(writ.CodeIllegal))...)
		if err != nil {
			t.Fatal(err)
		}
		st.Store, c.Store, c.Registry = c.Store, st, reg
		c.Obligors = []guard.Obligor{follower{}}
		c.DenialBurst, c.DenialPerSecond = 1, 0.0001
	})
	put := func(docs map[writ.Key]string) {
		call := &writ.Call{}
		if err := w.door.Stamp(call); err != nil {
			t.Fatal(err)
		}
		tx := writ.Tx{Call: call.ID, Fact: &writ.Fact{ID: writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0)), KeyID: "key", Head: []byte("{"), Tail: []byte("}")}}
		for k, body := range docs {
			tx.Put(k, []byte(`{"kind":"test","schema":1,"body":`+body+`}`))
		}
		if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
	}
	put(map[writ.Key]string{from: `"to/a"`})
	alice := w.session("alice")
	for i := range 2 { // the first has the one receipt there is
		if i == 1 {
			st.after = func() { put(map[writ.Key]string{from: `"to/a"`, to: `"here"`}) }
		}
		_, _, err := w.call(alice, "test.follow", followArgs{From: from}, "")
		if e := writ.AsError("", err); e == nil || e.Code != writ.CodeIllegal || e.Aggregated != (i == 1) {
			t.Errorf("call %d: got %v", i, err)
		}
	}
	if st.after != nil {
		t.Fatal("nothing followed")
	}
	if _, _, err := w.call(alice, "test.follow", followArgs{From: from}, ""); err != nil {
		t.Errorf("allowed by now: %v", err)
	}
}
