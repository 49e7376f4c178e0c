package guard_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// stepArgs work off a todo in steps: each call takes one from a counter and
// removes the member with the last.
type stepArgs struct {
	Name string `json:"name"`
	Fail bool   `json:"fail,omitempty"`
}

var steps = writ.Counter{Entity: "steps", Field: "left"}

func stepCapability() *writ.Capability {
	return writ.Define[stepArgs, thingView](writ.Capability{ID: "test.step", Summary: "Step.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[stepArgs]{
		Reads: func(*writ.Call, *stepArgs, writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Counters: []writ.Counter{steps}}, nil
		},
		Plan: func(_ *writ.Call, a *stepArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if a.Fail {
				return tx, r, writ.Refuse(writ.CodeIllegal, "test", "no", "")
			}
			left := s.Counters[steps]
			tx.Within(steps, left, left)
			if left > 0 {
				tx.Add(steps, -1)
			}
			if left <= 1 {
				tx.Unindex(writ.IndexTodo, "step "+a.Name)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
		},
	})
}

// leaveCapability leaves a todo for now.
func leaveCapability() *writ.Capability {
	return writ.Define[stepArgs, thingView](writ.Capability{ID: "test.leave", Summary: "Leave work.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true}, writ.Verb[stepArgs]{
		Plan: func(_ *writ.Call, a *stepArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Index(writ.IndexTodo, "step "+a.Name, s.Now)
			return tx, writ.Reply{Outcome: writ.OutcomeDone}, nil
		},
	})
}

func newSweeper(t *testing.T, every time.Duration, tune ...func(*guard.Config)) (*world, *guard.Sweeper) {
	t.Helper()
	w := newWorld(t, append(tune, func(c *guard.Config) {
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), stepCapability(), leaveCapability())...)
		if err != nil {
			t.Fatal(err)
		}
		c.Registry = reg
	})...)
	s := guard.NewSweeper(w.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Every: every, Dues: []guard.Due{
		guard.Todo(map[string]func(string) (writ.CapabilityID, map[string]any){
			"step": func(id string) (writ.CapabilityID, map[string]any) { return "test.step", map[string]any{"name": id} },
			"fail": func(id string) (writ.CapabilityID, map[string]any) {
				return "test.step", map[string]any{"name": id, "fail": true}
			},
		}),
	}})
	return w, s
}

func (w *world) todo(member string, at, left int64) {
	w.t.Helper()
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	tx.Index(writ.IndexTodo, member, at)
	if left != 0 {
		tx.Add(steps, left)
	}
	if _, err := w.store.Commit(w.t.Context(), shard, tx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) todos() map[string]int64 {
	w.t.Helper()
	return w.scores(writ.Range{Index: writ.IndexTodo, Limit: 100})
}

// scores are the members in a range of the store, by name.
func (w *world) scores(r writ.Range) map[string]int64 {
	w.t.Helper()
	s, err := w.store.Read(w.t.Context(), shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]int64{}
	for _, m := range s.Ranges[r].Members {
		out[m.Name] = m.Score
	}
	return out
}

// Work in steps is done in one sweep, what is not due yet is left alone, and a
// member that fails is put off without blocking the others.
func TestSweep(t *testing.T) {
	w, s := newSweeper(t, time.Hour)
	now := w.now.Load()
	w.todo("fail x", now-20, 0)
	w.todo("nothing y", now-15, 0)
	w.todo("step a", now-10, 20)
	w.todo("step later", now+60_000, 0)
	if !s.Sweep(t.Context(), false) {
		t.Fatal("the store did not answer")
	}
	got := w.todos()
	if _, ok := got["step a"]; ok {
		t.Error("work in steps was not finished")
	}
	if got["step later"] != now+60_000 {
		t.Error("what is not due was touched")
	}
	if got["fail x"] != now-20 || got["nothing y"] != now-15 {
		t.Errorf("what failed is gone: %v", got)
	}
	before := w.heard.calls.Load()
	s.Sweep(t.Context(), false)
	if n := w.heard.calls.Load() - before; n != 0 {
		t.Errorf("what failed was tried again at once: %d calls", n)
	}
}

// schema writes the schema of the gate, as another version of writ would.
func (w *world) schema(n int) {
	w.t.Helper()
	w.regate(func(g *writ.Gate) { g.Schema = n })
}

// regate changes the gate behind the door's back.
func (w *world) regate(change func(*writ.Gate)) {
	w.t.Helper()
	snap, err := w.store.Read(w.t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.GateKey}})
	if err != nil {
		w.t.Fatal(err)
	}
	gate, _, _, err := writ.Get[writ.Gate](snap, writ.GateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	change(&gate)
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID, Fact: &w.facts()[0].Fact}
	if err := tx.PutDoc(snap, writ.GateKey, writ.ObjectGate, gate); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Commit(w.t.Context(), shard, tx); err != nil {
		w.t.Fatal(err)
	}
}

// What keeps the gateway from acting at all is no fault of what is due: all of it
// is done in the first sweep after, however long it took and however many times it
// was tried.
func TestSweepAfterAnOutage(t *testing.T) {
	policy := func(w *world, revision string) {
		w.law.mu.Lock()
		defer w.law.mu.Unlock()
		w.law.policy = revision
	}
	for name, outage := range map[string]struct{ begin, end func(w *world) }{
		"of the policies in force": {func(w *world) { policy(w, "policy-2") }, func(w *world) { policy(w, "policy-1") }},
		"of the signer":            {func(w *world) { w.seal.unusable.Store(true) }, func(w *world) { w.seal.unusable.Store(false) }},
		"of this version":          {func(w *world) { w.schema(writ.Schema + 1) }, func(w *world) { w.schema(writ.Schema) }},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			w, s := newSweeper(t, time.Hour, func(c *guard.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
			now := w.now.Load()
			w.todo("step a", now-1, 0)
			w.todo("step b", now, 0)
			outage.begin(w)
			for range 5 {
				if s.Sweep(t.Context(), false) {
					t.Fatal("nothing could be done, and that went unnoticed")
				}
			}
			if len(w.todos()) != 2 {
				t.Fatalf("left: %v", w.todos())
			}
			outage.end(w)
			if !s.Sweep(t.Context(), false) || len(w.todos()) != 0 {
				t.Errorf("left: %v", w.todos())
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "again") {
				t.Errorf("want one line for the outage and one for its end:\n%s", log.String())
			}
		})
	}
}

// What is done and only not proven yet is done.
func TestSweepWhileReceiptsArePending(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, func(c *guard.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	s := guard.NewSweeper(w.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Dues: []guard.Due{
		{Index: writ.IndexTodo, Call: func(string) (writ.CapabilityID, map[string]any, bool) {
			return "test.mandate", map[string]any{"run_id": runID(1)}, true
		}},
	}})
	w.todo("count", w.now.Load(), 0)
	w.seal.broken.Store(true)
	before := len(w.facts())
	for n := range 3 {
		if !s.Sweep(t.Context(), false) || len(w.facts()) != before+n+1 {
			t.Fatalf("sweep %d: %d facts", n, len(w.facts())-before)
		}
	}
	if log.Len() != 0 {
		t.Errorf("got %s", log.String())
	}
}

// A member that others keep changing is tried again with the next sweep, and holds
// up no others.
func TestSweepOfAContendedMember(t *testing.T) {
	var log bytes.Buffer
	st := &contended{}
	w, s := newSweeper(t, time.Hour, func(c *guard.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, nil))
		st.Store, c.Store = c.Store, st
	})
	w.todo("step a", w.now.Load()-1, 0)
	w.todo("step b", w.now.Load(), 0)
	st.member.Store("step a")
	if !s.Sweep(t.Context(), false) {
		t.Fatal("the store did not answer")
	}
	if _, ok := w.todos()["step a"]; !ok || len(w.todos()) != 1 {
		t.Fatalf("left: %v", w.todos())
	}
	st.member.Store("")
	s.Sweep(t.Context(), false)
	if len(w.todos()) != 0 || log.Len() != 0 {
		t.Errorf("left: %v; %s", w.todos(), log.String())
	}
}

// contended is a store in which somebody is always faster at one member.
type contended struct {
	store.Store
	member atomic.Value
}

func (c *contended) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if m, _ := c.member.Load().(string); m != "" && slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Member == m }) {
		return writ.Committed{}, &store.Conflict{Guard: writ.GuardWithin, Name: "steps"}
	}
	return c.Store.Commit(ctx, shard, tx)
}

// However many members fail, with whatever scores, the others have their turn.
func TestFailingMembersDoNotStarveTheOthers(t *testing.T) {
	for name, score := range map[string]func(i int64) int64{
		"scores of their own": func(i int64) int64 { return -10_000 + i },
		"one score":           func(int64) int64 { return -10_000 },
		"two scores":          func(i int64) int64 { return -10_000 + i/1000 },
	} {
		t.Run(name, func(t *testing.T) {
			w, s := newSweeper(t, time.Hour)
			now := w.now.Load()
			const failing = 1500
			for i := int64(0); i < failing; i += 500 {
				call := &writ.Call{}
				if err := w.door.Stamp(call); err != nil {
					t.Fatal(err)
				}
				tx := writ.Tx{Call: call.ID}
				for j := i; j < i+500; j++ {
					tx.Index(writ.IndexTodo, fmt.Sprintf("fail %04d", j), now+score(j))
				}
				if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
					t.Fatal(err)
				}
			}
			w.todo("step a", now-1, 0)
			waits := func() bool {
				r := writ.Range{Index: writ.IndexTodo, ByScore: true, Min: now - 1, Max: now - 1, Limit: 1}
				snap, err := w.store.Read(t.Context(), shard, writ.ReadSet{Ranges: []writ.Range{r}})
				if err != nil {
					t.Fatal(err)
				}
				return len(snap.Ranges[r].Members) > 0
			}
			sweeps := 0
			for ; waits(); sweeps++ {
				if sweeps > failing/64+2 {
					t.Fatalf("not done after %d sweeps", sweeps)
				}
				if !s.Sweep(t.Context(), false) {
					t.Fatal("the store did not answer")
				}
			}
		})
	}
}

// A commit that leaves follow-up work does not wait for the next sweep.
func TestCommitKicksTheSweeper(t *testing.T) {
	w, s := newSweeper(t, time.Hour)
	s.Start()
	defer s.Stop()
	if _, _, err := w.door.System(t.Context(), shard, "test.leave", stepArgs{Name: "a"}, nil); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, ok := w.todos()["step a"]; !ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the sweeper waited for its hour")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestQuietTimesLeaveLeasesAlone(t *testing.T) {
	w := newWorld(t)
	called := ""
	s := guard.NewSweeper(w.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Dues: []guard.Due{
		{Index: writ.IndexLeases, Grace: true, Call: func(m string) (writ.CapabilityID, map[string]any, bool) {
			called += m
			return "", nil, false
		}},
	}})
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	tx.Index(writ.IndexLeases, "x", w.now.Load()-1)
	if _, err := w.store.Commit(t.Context(), shard, tx); err != nil {
		t.Fatal(err)
	}
	s.Sweep(t.Context(), true)
	if called != "" {
		t.Fatal("a lease was touched in quiet times")
	}
	s.Sweep(t.Context(), false)
	if !strings.Contains(called, "x") {
		t.Fatal("a lease was never looked at")
	}
}
