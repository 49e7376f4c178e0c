package guard_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
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

func newSweeper(t *testing.T, every time.Duration) (*world, *guard.Sweeper) {
	t.Helper()
	w := newWorld(t, func(c *guard.Config) {
		reg, err := writ.NewRegistry(append(append(guard.Capabilities(), things()...), stepCapability(), leaveCapability())...)
		if err != nil {
			t.Fatal(err)
		}
		c.Registry = reg
	})
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
