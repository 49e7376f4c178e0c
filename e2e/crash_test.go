package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// crowd is 64 callers at work, and everything they were answered.
type crowd struct {
	cast
	orcs, workers []caller

	mu       sync.Mutex
	accepted []accepted
	open     []open
}

// accepted is an answer of success that a caller has seen.
type accepted struct {
	reply
	task   string
	state  writ.TaskState // the answer left the task in
	body   string
	caller caller
	sent   request
}

// open is a change nobody knows the end of: its answer did not come.
type open struct {
	who  caller
	sent request
}

type request struct {
	path, key string
	body      any
}

const callers = 64

// Killed at any moment under load, a gateway has kept every change it
// acknowledged, with its receipt, and made none that no receipt explains.
func TestKilledUnderLoad(t *testing.T) {
	rounds := 2
	if soak() {
		rounds = 50
	}
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			rng := random(t)
			w := newWorldOf(t, raced, host)
			c := &crowd{cast: newCast(t, w)}
			for i := range 4 {
				c.orcs = append(c.orcs, w.session("planner", writ.RoleOrchestrator, "planner").at(w.gw[i%len(w.gw)]))
			}
			for i := range 12 {
				c.workers = append(c.workers, c.another().at(w.gw[i%len(w.gw)]))
			}
			for round := range rounds {
				c.round(t, round, rng)
				if t.Failed() {
					return
				}
			}
			if n := len(c.accepted); n < 20*rounds {
				t.Errorf("only %d calls were accepted in %d rounds: this tested nothing", n, rounds)
			}
		})
	}
}

func (c *crowd) round(t *testing.T, round int, rng *rand.Rand) {
	before := len(c.accepted)
	c.open = nil
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if !c.act(t, fmt.Sprintf("r%d-c%d-%d", round, i, n), i, own) {
					return
				}
			}
		})
	}
	victim := c.gw[rng.IntN(len(c.gw))]
	moment := time.Duration(150+rng.IntN(500)) * time.Millisecond
	if slow() { // the gateway gets less done
		moment *= 4
	}
	timer := time.NewTimer(moment)
	<-timer.C
	victim.kill()
	if c.redis != nil && rng.IntN(2) == 0 {
		c.redis.Restart() // killed too, with everything under way
	}
	close(stop)
	wg.Wait()
	victim.start()
	c.ready()
	t.Logf("round %d: killed after %v with %d calls accepted, %d open", round, moment, len(c.accepted)-before, len(c.open))
	c.settle(t)
	c.account(t, before)
}

// act makes one change, or two: a task is enqueued, or claimed and ended one
// way or another. It says whether the gateway still answers.
func (c *crowd) act(t *testing.T, name string, i int, rng *rand.Rand) bool {
	if rng.IntN(3) == 0 {
		more := obj{"backoff_ms": 0, "lease_ttl_s": 2 + rng.IntN(3)}
		if rng.IntN(4) == 0 {
			more["write_scopes"] = []string{fmt.Sprintf("fs:repo/area-%d/", rng.IntN(4))}
		}
		_, ok := c.send(t, c.orcs[i%len(c.orcs)], request{"/v1/tasks", name, c.task(name, more)}, writ.TaskQueued)
		return ok
	}
	who := c.workers[i%len(c.workers)]
	r, ok := c.send(t, who, request{"/v1/tasks/claim", name, obj{}}, writ.TaskRunning)
	if !ok || r.status != 200 {
		return ok
	}
	l := leaseOf(r)
	path := "/v1/tasks/" + l.task
	switch rng.IntN(10) {
	case 0: // goes silent
	case 1:
		_, ok = c.send(t, who, request{path + "/release", name + "-end", l.hold(nil)}, writ.TaskQueued)
	case 2:
		failure := obj{"class": "external", "code": "x", "retryable": false}
		_, ok = c.send(t, who, request{path + "/fail", name + "-end", l.hold(obj{"failure": failure})}, writ.TaskFailed)
	default:
		_, ok = c.send(t, who, request{path + "/complete", name + "-end", l.hold(obj{"result": obj{"by": name}})}, writ.TaskDone)
	}
	return ok
}

// send makes a keyed call and notes what became of it.
func (c *crowd) send(t *testing.T, who caller, q request, to writ.TaskState) (reply, bool) {
	r, err := who.try("POST", q.path, q.body, "Idempotency-Key", q.key)
	if err != nil {
		c.mu.Lock()
		c.open = append(c.open, open{who, q})
		c.mu.Unlock()
		return r, false
	}
	switch {
	case r.status == 200 || r.status == 201:
		task := r.str("task_id")
		if task == "" {
			task = r.str("task", "task_id")
		}
		c.mu.Lock()
		c.accepted = append(c.accepted, accepted{reply: r, task: task, state: to, body: string(r.body), caller: who, sent: q})
		c.mu.Unlock()
	case r.status == 204, r.status == 409, r.status == 429:
	case r.status == 503:
		c.mu.Lock()
		c.open = append(c.open, open{who, q})
		c.mu.Unlock()
	default:
		t.Errorf("%s: %s", q.path, r)
	}
	return r, true
}

// settle repeats the calls whose end nobody knows, with their keys: each must
// be decided now, and claims on the way to nowhere are given back.
func (c *crowd) settle(t *testing.T) {
	for _, o := range c.open {
		r, err := o.who.try("POST", o.sent.path, o.sent.body, "Idempotency-Key", o.sent.key)
		if err != nil || r.status >= 500 {
			t.Errorf("repeated: %v %s", err, r)
		}
	}
}

// account checks every accepted answer against the export, and every object
// against its receipts. Of the answers since the last round some are also asked
// for again one by one.
func (c *crowd) account(t *testing.T, since int) {
	e := c.audit()
	c.inTheLogAsExported()
	moves := map[writ.ReceiptID]writ.Change{}
	for id, s := range e.known {
		for _, m := range s.Predicate.Changes {
			if m.Kind == writ.ObjectTask && m.ID == s.Predicate.Task {
				moves[id] = m
			}
		}
	}
	for i, a := range c.accepted {
		id := a.receipt()
		if id == "" {
			t.Errorf("an accepted call without a receipt: %s", a.reply)
			continue
		}
		m, ok := moves[id]
		if !ok || m.ID != a.task || m.To != string(a.state) {
			t.Errorf("the receipt of %s tells of %+v: %s", a.sent.path, m, a.reply)
		}
		if i >= since && i%10 == 0 {
			got, err := c.op.try("GET", "/v1/receipts/"+string(id), nil)
			if err != nil || got.status != 200 {
				t.Errorf("receipt.get: %v %s", err, got)
			}
			again, err := a.caller.try("POST", a.sent.path, a.sent.body, "Idempotency-Key", a.sent.key)
			if err != nil || again.status != a.status || string(again.body) != a.body {
				t.Errorf("replayed after the crash: %v\nfirst %s\nagain %s", err, a.reply, again)
			}
		}
	}
}
