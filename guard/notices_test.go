package guard_test

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// untold are the members an endpoint is to be told, by name.
func (w *world) untold(e writ.EndpointID) map[string]int64 {
	w.t.Helper()
	return w.scores(writ.Range{Index: writ.Notices(e), ByScore: true, Max: writ.MaxAmount, Limit: 1000})
}

// queue puts members on without a call.
func (w *world) queue(e writ.EndpointID, members map[string]int64) {
	w.t.Helper()
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	for m, at := range members {
		tx.Index(writ.Notices(e), m, at)
	}
	if _, err := w.store.Commit(w.t.Context(), shard, tx); err != nil {
		w.t.Fatal(err)
	}
}

// An allowed call that policy wants known is queued by its own transaction,
// under its receipt; a call that is denied, changes nothing or is about
// something nobody subscribed to is not.
func TestPolicyNotifyIsQueued(t *testing.T) {
	wants := writ.Finding{Pack: "p", Rule: "p.told", Effect: writ.EffectAllow, Duties: writ.Duties{Notify: []string{"p.told"}}}
	for name, tt := range map[string]struct {
		tell    writ.Subscribers
		finding writ.Finding
		verb    writ.CapabilityID
		told    bool
	}{
		"told":             {writ.Subscribers{writ.EventPolicyNotify: {"e1"}}, wants, "test.bump", true},
		"nobody":           {nil, wants, "test.bump", false},
		"other events":     {writ.Subscribers{writ.EventApprovalExpired: {"e1"}}, wants, "test.bump", false},
		"no obligation":    {writ.Subscribers{writ.EventPolicyNotify: {"e1"}}, writ.Finding{Pack: "p", Rule: "p.quiet", Effect: writ.EffectAllow}, "test.bump", false},
		"changes nothing":  {writ.Subscribers{writ.EventPolicyNotify: {"e1"}}, wants, "test.look", false},
		"denied after all": {writ.Subscribers{writ.EventPolicyNotify: {"e1"}}, writ.Finding{Pack: "p", Rule: "p.no", Effect: writ.EffectDeny, Code: "policy_denied"}, "test.bump", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *guard.Config) { c.Tell = tt.tell })
			alice := w.session("alice")
			if _, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
				t.Fatal(err)
			}
			w.law.deny[tt.verb] = tt.finding
			_, receipt, _ := w.call(alice, tt.verb, thingArgs{Run: runID(1)}, "")
			want := map[string]int64{}
			if tt.told {
				n := writ.Notice{Event: writ.EventPolicyNotify, Receipt: receipt.ID, At: w.now.Load(), Capability: tt.verb, Rules: []string{"p.told"}}
				want[n.Member()] = n.At
			}
			got := w.untold("e1")
			for m, at := range want {
				if got[m] != at {
					t.Errorf("waiting are %v, want %v", got, want)
				}
			}
			if len(got) != len(want) {
				t.Errorf("waiting are %v, want %v", got, want)
			}
		})
	}
}

// onStores runs a test on both hosts.
func onStores(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("bolt", func(t *testing.T) {
		st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		f(t, worldAt(t, st))
	})
	t.Run("redis", func(t *testing.T) {
		st, err := redisstore.Open(t.Context(), redisstore.Options{URL: redistest.Start(t).URL()})
		if err != nil {
			t.Fatal(err)
		}
		f(t, worldAt(t, st))
	})
}

func worldAt(t *testing.T, st store.Store) *world {
	now := &atomic.Int64{}
	now.Store(time.Now().UnixMilli())
	return worldOn(t, st, now)
}

func hold(t *testing.T, n *guard.Notices, e writ.EndpointID, life time.Duration) bool {
	t.Helper()
	ok, err := n.Hold(t.Context(), e, life)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// One replica delivers to an endpoint at a time, until it lets go or its time
// is over, however many want to at once.
func TestOneReplicaHoldsAnEndpoint(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		one, two := w.door.Notices(shard, "r-1", false), w.door.Notices(shard, "r-2", false)
		for range 2 { // taken, and renewed
			if !hold(t, one, "e1", time.Hour) || hold(t, two, "e1", time.Hour) {
				t.Fatal("want r-1, and not r-2")
			}
		}
		if !hold(t, two, "e2", time.Hour) || hold(t, one, "e2", time.Hour) {
			t.Fatal("an endpoint stands for another")
		}
		if err := one.Release(t.Context(), "e1"); err != nil {
			t.Fatal(err)
		}
		if !hold(t, two, "e1", -time.Second) || !hold(t, one, "e1", time.Hour) {
			t.Fatal("want r-2 after the release, and r-1 after its time is over")
		}
		if !hold(t, w.door.Notices(shard, "r-3", true), "e1", time.Hour) || hold(t, one, "e1", time.Hour) {
			t.Fatal("who is alone need not wait for those who are gone")
		}
		var wg sync.WaitGroup
		var held atomic.Int64
		for i := range 16 {
			n := w.door.Notices(shard, "r-"+strconv.Itoa(10+i), false)
			wg.Go(func() {
				ok, err := n.Hold(t.Context(), "raced", time.Hour)
				if err != nil {
					t.Error(err)
				}
				if ok {
					held.Add(1)
				}
			})
		}
		wg.Wait()
		if held.Load() != 1 {
			t.Errorf("%d replicas hold it", held.Load())
		}
	})
}

// overtaken is a store in which something happens right before a commit.
type overtaken struct {
	store.Store
	first func()
}

func (b *overtaken) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if f := b.first; f != nil {
		b.first = nil
		f()
	}
	return b.Store.Commit(ctx, shard, tx)
}

// Whoever looked first and commits last does not win; nothing is dropped of an
// endpoint somebody has just come back to.
func TestHoldsAreTakenOnWhatWasSeen(t *testing.T) {
	b := &overtaken{}
	w := newWorld(t, func(c *guard.Config) { b.Store = c.Store; c.Store = b })
	one, two := w.door.Notices(shard, "r-1", false), w.door.Notices(shard, "r-2", false)
	b.first = func() {
		if !hold(t, two, "e1", time.Minute) {
			t.Error("nobody held it")
		}
	}
	if hold(t, one, "e1", time.Minute) {
		t.Error("two replicas hold it")
	}
	w.queue("e1", map[string]int64{"m": 1})
	w.now.Add((49 * time.Hour).Milliseconds())
	b.first = func() { hold(t, two, "e1", time.Minute) }
	if n, err := one.Tidy(t.Context()); err == nil || len(n) != 0 || len(w.untold("e1")) != 1 {
		t.Errorf("%d dropped, %v", len(n), err)
	}
}

// What is due comes in order, what is not does not, and settling is one change.
func TestDueAndSettled(t *testing.T) {
	onStores(t, func(t *testing.T, w *world) {
		n := w.door.Notices(shard, "r-1", false)
		notice := func(i int64) writ.Notice {
			return writ.Notice{Event: writ.EventPolicyNotify, Receipt: writ.ReceiptID("rcp_" + strconv.FormatInt(i, 10)), At: i, Capability: "run.create", Due: i}
		}
		later := notice(3)
		later.Due = time.Now().Add(time.Hour).UnixMilli()
		w.queue("e1", map[string]int64{
			notice(1).Member(): 1, notice(2).Member(): 2, later.Member(): later.Due, "approval.moved of a newer version": 0,
		})
		now, due, err := n.Due(t.Context(), "e1", 10)
		if err != nil || now < 1_700_000_000_000 || len(due) != 2 || due[0].Member() != notice(1).Member() || due[1].Due != 2 {
			t.Fatalf("at %d due are %+v, %v", now, due, err)
		}
		if _, due, _ := n.Due(t.Context(), "e1", 1); len(due) != 1 {
			t.Errorf("what cannot be read is in the way: due are %+v", due)
		}
		again := due[1]
		again.Tries, again.Due = 1, later.Due
		if err := n.Settle(t.Context(), "e1", due, []writ.Notice{again}); err != nil {
			t.Fatal(err)
		}
		if _, due, err := n.Due(t.Context(), "e1", 10); err != nil || len(due) != 0 {
			t.Errorf("due are %+v, %v", due, err)
		}
		got := w.untold("e1")
		if len(got) != 3 || got[again.Member()] != later.Due || got[later.Member()] != later.Due {
			t.Errorf("waiting are %v", got)
		}
		if count, err := n.Waiting(t.Context(), "e1"); err != nil || count != 3 {
			t.Errorf("%d wait, %v", count, err)
		}
	})
}

// What waits for an endpoint that nobody knows any more is dropped in the end;
// what a replica still delivers is not.
func TestAbandonedEndpointsAreTidied(t *testing.T) {
	w := newWorld(t)
	old, here := w.door.Notices(shard, "r-1", false), w.door.Notices(shard, "r-2", false)
	const many = writ.MaxOps/2 + 10
	members := map[string]int64{}
	for i := range many {
		members["m"+strconv.Itoa(i)] = 1
	}
	w.queue("gone", members)
	w.queue("kept", map[string]int64{"m": 1})
	hold(t, old, "gone", time.Minute)
	if got, err := here.Served(t.Context()); err != nil || !slices.Equal(got, []writ.EndpointID{"gone"}) {
		t.Errorf("served are %v, %v", got, err)
	}
	tidy := func() int {
		t.Helper()
		hold(t, here, "kept", time.Minute)
		dropped, err := here.Tidy(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(dropped)
	}
	w.now.Add((48 * time.Hour).Milliseconds())
	if n := tidy(); n != 0 {
		t.Errorf("%d dropped too early", n)
	}
	w.now.Add(time.Minute.Milliseconds())
	if got := []int{tidy(), tidy(), tidy()}; !slices.Equal(got, []int{writ.MaxOps / 2, 10, 0}) {
		t.Errorf("dropped %v of %d", got, many)
	}
	if len(w.untold("gone")) != 0 || len(w.untold("kept")) != 1 {
		t.Errorf("waiting are %v and %v", w.untold("gone"), w.untold("kept"))
	}
	if got, err := here.Served(t.Context()); err != nil || !slices.Equal(got, []writ.EndpointID{"kept"}) {
		t.Errorf("served are %v, %v", got, err)
	}
	if hold(t, old, "kept", time.Minute) {
		t.Error("tidying has let go of what is held")
	}
}
