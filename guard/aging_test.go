package guard_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-gateway/writ"
)

func laneAt(priority int64) writ.Lane { return writ.LaneOf("site.build", "web", priority) }

// pushTo adds the n-th entry of a test to a lane.
func (w *world) pushTo(l writ.Lane, n int) writ.TaskID {
	w.t.Helper()
	id := writ.TaskID(writ.MakeID(writ.PrefixTask, 1_767_225_600_000, [10]byte{byte(n >> 8), byte(n)}))
	w.commitLanes(func(tx *writ.Tx) { tx.Push(l, string(id)) })
	return id
}

func (w *world) commitLanes(change func(*writ.Tx)) {
	w.t.Helper()
	call := &writ.Call{}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID}
	change(&tx)
	if _, err := w.store.Commit(w.t.Context(), shard, tx); err != nil {
		w.t.Fatal(err)
	}
}

// However much urgent work there is, what is not urgent has a turn when it has waited
// for a class a minute.
func TestALaneRisesWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newDispatcher(t)
		alice, n := w.session("alice"), 1
		low := map[writ.TaskID]bool{}
		for range 3 {
			low[w.pushTo(laneAt(0), n)] = true
			n++
		}
		start := time.Now()
		var at []time.Duration
		for len(at) < 2 {
			if time.Since(start) > 20*time.Minute {
				t.Fatalf("after %v the low lane had its turn at %v", time.Since(start), at)
			}
			w.pushTo(laneAt(9), n) // there is always more
			n++
			switch got := w.got(d, alice); {
			case got == "":
				t.Fatal("nothing was handed out")
			case low[got]:
				at = append(at, time.Since(start))
			}
			time.Sleep(5 * time.Second)
		}
		for i, a := range at {
			if turn := a - time.Duration(i)*9*time.Minute; turn < 9*time.Minute || turn > 9*time.Minute+30*time.Second {
				t.Errorf("turn %d came after %v", i, a)
			}
		}
	})
}

// What has not waited for a minute is handed out by priority, and of one priority lane
// after lane.
func TestWithoutWaitingPriorityDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newDispatcher(t)
		alice := w.session("alice")
		want := map[writ.TaskID]int64{}
		for i, p := range []int64{0, 9, 5, 5, 7, 3, 9} {
			want[w.pushTo(laneAt(p), i+1)] = p
		}
		last := int64(9)
		for range len(want) {
			got := w.got(d, alice)
			if p, ok := want[got]; !ok || p > last {
				t.Fatalf("got %q of priority %d after %d", got, p, last)
			}
			last = want[got]
			time.Sleep(7 * time.Second)
		}
		a, b := writ.LaneOf("site.build", "web", 5), writ.LaneOf("site.test", "web", 5)
		of := map[writ.TaskID]writ.Lane{}
		for i := range 4 {
			of[w.pushTo(a, 100+i)], of[w.pushTo(b, 200+i)] = a, b
		}
		w.pushTo(laneAt(9), 300)
		w.got(d, alice) // both are seen
		for i := range 8 {
			time.Sleep(time.Second)
			if got, want := of[w.got(d, alice)], []writ.Lane{a, b}[i%2]; got != want {
				t.Fatalf("turn %d: %q, want %s", i, got, want)
			}
		}
	})
}

// What is dropped when it is met costs a lane neither its age nor others their poll.
func TestDroppedEntriesAreNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newDispatcher(t)
		alice := w.session("alice")
		done := w.pushTo(laneAt(5), 1)
		if got := w.got(d, alice); got != done {
			t.Fatalf("got %q", got)
		}
		const stale = 40
		w.commitLanes(func(tx *writ.Tx) {
			for range stale {
				tx.Push(laneAt(0), string(done))
			}
		})
		low := w.pushTo(laneAt(0), 2)
		w.pushTo(laneAt(9), 3)
		w.got(d, alice) // sees what waits
		time.Sleep(9 * time.Minute)
		for i := range 1 + stale/8 { // the first one is met as if it had been there all the time, the next polls drop eight each
			urgent := w.pushTo(laneAt(9), 10+i)
			if got := w.got(d, alice); got != urgent {
				t.Fatalf("poll %d got %q before what is urgent", i, got)
			}
		}
		w.pushTo(laneAt(9), 20)
		if got := w.got(d, alice); got != low {
			t.Errorf("got %q, want what lay behind %d stale entries", got, stale)
		}
	})
}

// However many stale entries lie in the most urgent lane, the others are met in the same poll.
func TestStaleEntriesOfALaneKeepNoOther(t *testing.T) {
	w, d := newDispatcher(t)
	alice := w.session("alice")
	done := w.pushTo(laneAt(9), 1)
	if got := w.got(d, alice); got != done {
		t.Fatalf("got %q", got)
	}
	w.commitLanes(func(tx *writ.Tx) {
		for range 200 {
			tx.Push(laneAt(9), string(done))
		}
	})
	low := w.pushTo(laneAt(5), 2)
	if got := w.got(d, alice); got != low {
		t.Errorf("got %q, want what lies in the lane below", got)
	}
}

// Many polls at once: each lane has its turn once and not once per poll, and everything
// is handed out once.
func TestTurnsOfManyPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, d := newDispatcher(t)
		const each, pollers = 24, 6
		n := 0
		left := map[writ.TaskID]int64{}
		for p := range int64(3) {
			for range each {
				n++
				left[w.pushTo(laneAt(p*4), n)] = p * 4
			}
		}
		w.got(d, w.session("first"))
		time.Sleep(3 * time.Minute)
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[writ.TaskID]int{}
		for i := range pollers {
			c := w.session(fmt.Sprintf("worker-%d", i))
			wg.Go(func() {
				for {
					got := w.got(d, c)
					if got == "" {
						return
					}
					mu.Lock()
					seen[got]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(seen) != len(left)-1 {
			t.Errorf("%d tasks were handed out of %d", len(seen), len(left)-1)
		}
		for id, n := range seen {
			if _, ok := left[id]; !ok || n != 1 {
				t.Errorf("%s was handed out %d times", id, n)
			}
		}
	})
}
