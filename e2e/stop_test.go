package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// A gateway told to stop under load ends well: it finishes what it has begun,
// answers the claim that waits, keeps everything it answered, has done nothing
// it did not answer, and leaves the queue so that the next start hands it out
// at once.
func TestStopUnderLoad(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.agent("idler", "web", "executor", "site.idle", []string{}, nil)
		idler := c.session("idler", writ.RoleExecutor, "idler")
		const callers = 32
		workers := make([]caller, callers)
		for i := range workers {
			if workers[i] = c.orc; i%2 == 0 {
				workers[i] = c.another()
			}
		}
		for i := range 40 {
			c.enqueue(key(i), nil)
		}
		waiting := idler.poll()
		within(t, 5*time.Second, "the claim waits", func() bool {
			return idler.do("POST", "/v1/tasks/claim", nil).code() == "backpressure" // one poll per session
		})

		// Each caller works until it gets no answer. Without connections that
		// are kept, nothing is repeated behind its back.
		var mu sync.Mutex
		var answered []reply
		var lost []open
		busy := make(chan struct{}, callers*4)
		var wg sync.WaitGroup
		for i, who := range workers {
			own := rand.New(rand.NewPCG(1, uint64(i)))
			wg.Go(func() {
				send := func(q request) (reply, bool) {
					r, err := who.try("POST", q.path, q.body, "Idempotency-Key", q.key, "Connection", "close")
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						if r.status != 0 {
							t.Errorf("cut in the middle of its answer: %v %s", err, r)
						}
						lost = append(lost, open{who, q})
						return r, false
					}
					switch {
					case r.status < 300:
						answered = append(answered, r)
					case r.status != 409 && r.status != 429 && r.status != 503:
						t.Errorf("%s", r)
					}
					select {
					case busy <- struct{}{}:
					default:
					}
					return r, true
				}
				for n := 0; ; n++ {
					name := fmt.Sprintf("c%d-%d", i, n)
					if i%2 == 1 {
						if _, ok := send(request{"/v1/tasks", name, c.task(name, nil)}); !ok {
							return
						}
						continue
					}
					r, ok := send(request{"/v1/tasks/claim", name, obj{}})
					if !ok {
						return
					}
					if r.status != http.StatusOK || own.IntN(3) == 0 {
						continue
					}
					l := leaseOf(r)
					if _, ok := send(request{"/v1/tasks/" + l.task + "/complete", name + "-end", l.hold(nil)}); !ok {
						return
					}
				}
			})
		}
		for range cap(busy) {
			<-busy
		}
		if code := w.gw[0].stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		wg.Wait()
		if r := <-waiting; r.status != 204 && r.status != 503 {
			t.Errorf("the waiting claim: %s", r)
		}

		w.gw[0].start()
		began := time.Now()
		queued := c.queued()
		for got := map[string]bool{}; ; {
			r, err := c.builder.insist("POST", "/v1/tasks/claim", nil)
			if err != nil || r.status != 200 && r.status != 204 {
				t.Fatalf("claim: %v %s", err, r)
			}
			if r.status == 204 {
				if len(got) != len(queued) {
					t.Errorf("%d tasks were queued, %d were handed out at once", len(queued), len(got))
				}
				break
			}
			l := leaseOf(r)
			if !queued[l.task] {
				t.Errorf("handed out and not queued: %s", l.task)
			}
			got[l.task] = true
			c.builder.complete(l)
		}
		took := time.Since(began) // entries left with the process before would come after 30 s

		e := w.audit()
		receipts := 0
		for _, r := range answered {
			if r.status == http.StatusNoContent {
				continue
			}
			receipts++
			if _, ok := e.known[r.receipt()]; !ok {
				t.Errorf("answered, and not in the export: %s", r)
			}
		}
		for _, o := range lost {
			r, err := o.who.try("POST", o.sent.path, o.sent.body, "Idempotency-Key", o.sent.key)
			if err != nil || r.header.Get("Idempotency-Replayed") != "" {
				t.Errorf("done, and never answered: %v %s", err, r)
			}
		}
		t.Logf("%d answered with a receipt, %d without an answer, %d queued and handed out in %v", receipts, len(lost), len(queued), took)
		if receipts < callers || len(queued) == 0 {
			t.Error("this tested nothing")
		}
	})
}

// queued are the tasks of the run that wait.
func (c cast) queued() map[string]bool {
	c.t.Helper()
	out := map[string]bool{}
	for after := ""; ; {
		r := c.op.ok(200, "GET", "/v1/tasks?state=queued&limit=100&run_id="+c.run+after, nil)
		list, _ := r.at("tasks").([]any)
		for _, one := range list {
			id, _ := one.(map[string]any)["task_id"].(string)
			out[id] = true
		}
		if r.str("next") == "" {
			return out
		}
		after = "&after=" + r.str("next")
	}
}
