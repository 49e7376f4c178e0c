package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// offeredAtOnce is how many tasks of one run lie offered in a lane.
const offeredAtOnce = 128

// A run that enqueues a thousand tasks does not keep the ten of another waiting behind
// them, and everything is handed out once.
func TestARunDoesNotKeepAnotherWaiting(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const many, few, hands = 1000, 10, 4
		fill(t, c, "first", many)
		other := c
		other.run = c.newRun(1000)
		fill(t, other, "second", few)

		var mu sync.Mutex
		var late []int
		claimed := map[string]bool{}
		each(hands, func(i int) {
			by := c.another().at(w.gw[i%len(w.gw)])
			for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); {
				r, err := by.try("POST", "/v1/tasks/claim", obj{"wait_s": 1})
				if err != nil || r.status != 200 && r.status != 204 {
					t.Errorf("claim: %v %s", err, r)
					return
				}
				mu.Lock()
				if r.status == 200 {
					l := leaseOf(r)
					if claimed[l.task] {
						t.Errorf("%s was handed out twice", l.task)
					}
					claimed[l.task] = true
					if r.str("task", "run_id") == other.run {
						late = append(late, len(claimed))
					}
				}
				all := len(claimed)
				mu.Unlock()
				switch {
				case r.status == 200:
					l := leaseOf(r)
					if r, err := by.try("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil)); err != nil || r.status != 200 {
						t.Errorf("complete: %v %s", err, r)
						return
					}
				case all == many+few:
					return
				}
			}
		})
		if len(claimed) != many+few {
			t.Fatalf("%d tasks were handed out of %d", len(claimed), many+few)
		}
		if len(late) != few || late[few-1] > 2*offeredAtOnce {
			t.Errorf("the second run's tasks came as %v", late)
		}
	})
}

// fill enqueues n tasks, sixteen at a time.
func fill(t *testing.T, c cast, name string, n int) {
	t.Helper()
	each(16, func(i int) {
		for ; i < n; i += 16 {
			if r, err := c.orc.insist("POST", "/v1/tasks", c.task(fmt.Sprintf("%s-%d", name, i), nil)); err != nil || r.status != 201 {
				t.Errorf("enqueue: %v %s", err, r)
				return
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// hand is a caller that repeats a call under its key until it is answered.
type hand struct {
	caller
	name string
	n    int
	open *request
}

// call makes a call, or the one that was not answered; answered is false while the
// gateway does not answer.
func (h *hand) call(path string, body any) (r reply, answered bool) {
	if h.open == nil {
		h.n++
		h.open = &request{path: path, key: fmt.Sprintf("%s-%d", h.name, h.n), body: body}
	}
	r, err := h.try("POST", h.open.path, h.open.body, "Idempotency-Key", h.open.key)
	if err != nil || r.status == 503 {
		return r, false
	}
	h.open = nil
	return r, true
}

// Killed between enqueues, claims and the refills of a backlog, the gateways and their
// store lose no task of it and hand none out twice.
func TestKilledWithABacklog(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		rng := random(t)
		c := newCast(t, w)
		const many, fillers, workers = 400, 4, 4
		for round := range shortRounds() / 2 {
			c.run = c.newRun(100_000)
			var mu sync.Mutex
			done, made := map[string]int{}, 0
			next := make(chan int, many)
			for i := range many {
				next <- i
			}
			close(next)
			var hands []func(stop <-chan struct{})
			for i := range fillers {
				h := &hand{caller: c.orc.at(w.gw[i%len(w.gw)]), name: fmt.Sprintf("fill-%d-%d", round, i)}
				key := -1
				hands = append(hands, func(<-chan struct{}) {
					for {
						if key < 0 {
							k, more := <-next
							if !more {
								return
							}
							key = k
						}
						r, answered := h.call("/v1/tasks", c.task(fmt.Sprintf("r%d-%d", round, key), nil))
						if !answered {
							return
						}
						if r.status != 201 {
							t.Errorf("enqueue: %s", r)
							return
						}
						key = -1
						mu.Lock()
						made++
						mu.Unlock()
					}
				})
			}
			for i := range workers {
				h := &hand{caller: c.another().at(w.gw[i%len(w.gw)]), name: fmt.Sprintf("work-%d-%d", round, i)}
				var l lease
				hands = append(hands, func(stop <-chan struct{}) {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if l.task == "" {
							r, answered := h.call("/v1/tasks/claim", obj{"wait_s": 1})
							switch {
							case !answered:
								return
							case r.status == 200:
								l = leaseOf(r)
							case r.status != 204 && r.status != 429:
								t.Errorf("claim: %s", r)
								return
							}
							continue
						}
						r, answered := h.call("/v1/tasks/"+l.task+"/complete", l.hold(nil))
						if !answered {
							return
						}
						if r.status != 200 {
							t.Errorf("complete: %s", r)
							return
						}
						mu.Lock()
						done[l.task]++
						mu.Unlock()
						l = lease{}
					}
				})
			}
			start := func() (stop func(), wait func()) {
				stopped := make(chan struct{})
				var wg sync.WaitGroup
				for _, f := range hands {
					wg.Go(func() { f(stopped) })
				}
				return sync.OnceFunc(func() { close(stopped) }), wg.Wait
			}
			at := func() (int, int) {
				mu.Lock()
				defer mu.Unlock()
				return made, len(done)
			}
			_, wait := start()
			moment := many/2 + rng.IntN(many/3)
			within(t, time.Minute, "a backlog", func() bool { n, _ := at(); return n >= moment })
			for _, g := range w.gw {
				g.kill()
			}
			if w.redis != nil && rng.IntN(2) == 0 {
				w.redis.Restart()
			}
			wait()
			n, ended := at()
			t.Logf("round %d: killed with %d enqueued and %d done", round, n, ended)
			for _, g := range w.gw {
				g.start()
			}
			w.ready()
			stop, wait := start()
			within(t, 2*time.Minute, "everything is done", func() bool { _, n := at(); return n == many || t.Failed() })
			stop()
			wait()
			for id, n := range done {
				if n != 1 {
					t.Errorf("%s was done %d times", id, n)
				}
			}
			if left := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil); left.num("open_tasks") != 0 {
				t.Errorf("left: %s", left)
			}
		}
		claims := map[string]int{}
		_, all := w.export()
		for _, s := range all {
			for _, m := range s.Predicate.Changes {
				if m.Kind == writ.ObjectTask && m.To == string(writ.TaskRunning) {
					claims[m.ID]++
				}
			}
		}
		for id, n := range claims {
			if n != 1 {
				t.Errorf("%s was handed out %d times", id, n)
			}
		}
	})
}
