package guard_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// crowded is a store that says what a test wants about the room it has.
type crowded struct {
	store.Store
	info atomic.Pointer[store.Info]
	head atomic.Pointer[store.Head]
}

func (c *crowded) Info(ctx context.Context) (store.Info, error) {
	if i := c.info.Load(); i != nil {
		return *i, nil
	}
	return c.Store.Info(ctx)
}

func (c *crowded) Head(ctx context.Context, shard writ.Tenant) (store.Head, error) {
	if h := c.head.Load(); h != nil {
		return *h, nil
	}
	return c.Store.Head(ctx, shard)
}

// Without room for it nothing new is taken on; what makes room goes on, and
// when there is room again so does everything.
func TestNewWorkIsRefusedWithoutRoom(t *testing.T) {
	trimmed := func(t *testing.T, w *world) {
		head, err := w.store.Head(t.Context(), shard)
		if err == nil {
			err = w.store.Trim(t.Context(), shard, head.Seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		reason       string
		below, above func(t *testing.T, w *world, c *crowded)
		lift         func(t *testing.T, w *world, c *crowded)
	}{
		{
			"backlog",
			func(_ *testing.T, _ *world, c *crowded) {
				c.head.Store(&store.Head{Trimmed: -1, Backlog: guard.MaxBacklog})
			},
			func(_ *testing.T, _ *world, c *crowded) {
				c.head.Store(&store.Head{Trimmed: -1, Backlog: guard.MaxBacklog + 1})
			},
			func(t *testing.T, w *world, c *crowded) { trimmed(t, w); c.head.Store(nil) },
		},
		{
			"memory",
			func(_ *testing.T, _ *world, c *crowded) { c.info.Store(&store.Info{MemoryUsed: 800, MemoryMax: 1000}) },
			func(_ *testing.T, _ *world, c *crowded) { c.info.Store(&store.Info{MemoryUsed: 801, MemoryMax: 1000}) },
			func(_ *testing.T, _ *world, c *crowded) { c.info.Store(&store.Info{MemoryUsed: 700, MemoryMax: 1000}) },
		},
		{
			"age",
			func(_ *testing.T, w *world, _ *crowded) { w.now.Add(guard.MaxWait.Milliseconds()) },
			func(_ *testing.T, w *world, _ *crowded) { w.now.Add(1) },
			func(t *testing.T, w *world, _ *crowded) { trimmed(t, w) },
		},
	} {
		t.Run(tt.reason, func(t *testing.T) {
			c := &crowded{}
			w := newWorld(t, func(cfg *guard.Config) { c.Store, cfg.Store = cfg.Store, c })
			alice := w.session("alice")
			watch := func(want bool) {
				t.Helper()
				if err := w.door.Watch(t.Context(), shard); err != nil || w.door.Refusing() != "" != want {
					t.Fatalf("refusing %q, %v", w.door.Refusing(), err)
				}
			}
			for n := range byte(2) { // runs 1 and 2 are there before
				if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(n + 1)}, ""); err != nil {
					t.Fatal(err)
				}
			}
			tt.below(t, w, c)
			watch(false)
			tt.above(t, w, c)
			watch(true)
			_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(3)}, "")
			if e := asError(t, err, writ.CodeBackpressure); e.RetryMs == 0 || e.Msg != w.door.Refusing() {
				t.Errorf("got %+v", e)
			}
			if got := w.heard.shed; got[tt.reason] != 1 || len(got) != 1 {
				t.Errorf("counted %v", got)
			}
			// What is there already moves on and ends, and mandates run.
			if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
				t.Error(err)
			}
			if _, _, err := w.call(alice, "test.finish", thingArgs{Run: runID(1)}, ""); err != nil {
				t.Error(err)
			}
			if _, _, err := w.door.System(t.Context(), shard, "test.finish-anyway", thingArgs{Run: runID(2)}, nil); err != nil {
				t.Error(err)
			}
			tt.lift(t, w, c)
			watch(false)
			if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(3)}, ""); err != nil {
				t.Error(err)
			}
		})
	}
}

// The ledger leaves the last fact it has in the outbox, where it grows old: it
// does not wait for anything, unlike the one after it.
func TestWhatTheLedgerHasDoesNotWait(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	watch := func(when string, want bool) {
		t.Helper()
		if err := w.door.Watch(t.Context(), shard); err != nil || w.door.Refusing() != "" != want {
			t.Fatalf("%s: refusing %q, %v", when, w.door.Refusing(), err)
		}
	}
	head, err := w.store.Head(t.Context(), shard)
	if err == nil {
		err = w.store.Trim(t.Context(), shard, head.Seq-1)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.now.Add(2 * guard.MaxWait.Milliseconds())
	watch("all is in the ledger", false)
	if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Fatal(err)
	}
	watch("one is new", false)
	w.now.Add(guard.MaxWait.Milliseconds() + 1)
	watch("one has waited", true)
}

// The sweeper is what looks at the store.
func TestTheSweeperWatches(t *testing.T) {
	c := &crowded{}
	w := newWorld(t, func(cfg *guard.Config) { c.Store, cfg.Store = cfg.Store, c })
	c.info.Store(&store.Info{MemoryUsed: 9, MemoryMax: 10})
	s := guard.NewSweeper(w.door, guard.SweeperConfig{Shards: []writ.Tenant{shard}, Every: 10 * time.Millisecond})
	s.Start()
	defer s.Stop()
	for end := time.Now().Add(10 * time.Second); w.door.Refusing() == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed")
		}
	}
}
