package e2e

import (
	"sync"
	"testing"
)

// The same key twice is one task.
func TestP1T1SameKeyTwiceIsOneTask(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		body := c.task("build", nil)
		first := c.orc.ok(201, "POST", "/v1/tasks", body)
		again := c.orc.at(w.last()).do("POST", "/v1/tasks", body)
		if again.status != 200 || again.str("task_id") != first.str("task_id") {
			t.Fatalf("the second time: %s", again)
		}
		// Another request under the same key is neither the same nor a new task.
		c.orc.refused(422, "idempotency_mismatch", "POST", "/v1/tasks", c.task("build", obj{"priority": 9}))

		got := c.builder.claimNext()
		if got.task != first.str("task_id") {
			t.Fatalf("claimed %q", got.task)
		}
		c.builder.complete(got)
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("one key gave two entries in the queue: %s", r)
		}
	})
}

// An Idempotency-Key replays the reply: same status, same body.
func TestP1T1IdempotencyKeyReplays(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for _, call := range []struct {
			path string
			body obj
		}{
			{"/v1/tasks", c.task("build", nil)},
			{"/v1/runs", obj{"budget": obj{"steps": 5}}},
		} {
			first := c.orc.ok(201, "POST", call.path, call.body, "Idempotency-Key", "key-"+call.path[4:])
			again := c.orc.at(w.last()).ok(201, "POST", call.path, call.body, "Idempotency-Key", "key-"+call.path[4:])
			if string(again.body) != string(first.body) || again.receipt() != first.receipt() || again.version() != first.version() {
				t.Fatalf("first %s\nagain %s", first, again)
			}
			if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
				t.Fatalf("Idempotency-Replayed: %q then %q", first.header.Get("Idempotency-Replayed"), again.header.Get("Idempotency-Replayed"))
			}
			c.orc.refused(422, "idempotency_mismatch", "POST", "/v1/runs", obj{"budget": obj{"steps": 6}}, "Idempotency-Key", "key-"+call.path[4:])
		}
	})
}

// What nobody could run is not queued.
func TestP1T2UnknownCapabilityAndBadArguments(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("strict", "strict", "executor", "", []string{}, obj{"tools": []obj{{
			"name": "strict.run", "safety": "mutating",
			"input_schema": obj{"type": "object", "required": []string{"n"}, "properties": obj{"n": obj{"type": "integer"}}},
		}}})
		c.orc.refused(422, "no_eligible_agent", "POST", "/v1/tasks", c.task("one", obj{"capability": "nope.nope"}))
		c.orc.refused(422, "no_eligible_agent", "POST", "/v1/tasks", c.task("two", obj{"required_domain": "elsewhere"}))
		strict := obj{"capability": "strict.run", "required_domain": "strict"}
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("three", with(strict, "args", obj{"n": "many"})))
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("four", with(strict, "args", obj{})))
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("five", obj{"write_scopes": []string{"fs:repo/../etc/"}}))
		c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("six", obj{"lease_ttl_s": 601}))

		r := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run, nil)
		if list, _ := r.at("tasks").([]any); len(list) != 0 {
			t.Fatalf("something was queued: %s", r)
		}
		c.orc.ok(201, "POST", "/v1/tasks", c.task("good", with(strict, "args", obj{"n": 1})))
	})
}

func with(o obj, name string, value any) obj {
	out := obj{name: value}
	for k, v := range o {
		if k != name {
			out[k] = v
		}
	}
	return out
}

// Enqueues from every replica at once: distinct tasks, each claimable once.
func TestP1T3ManyEnqueues(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		n := 300
		switch {
		case w.redis != nil && !slow() || soak():
			n = 10_000
		case w.redis != nil:
			n = 1000
		}
		const workers = 16
		ids := make([]string, n)
		each(workers, func(worker int) {
			orc := c.orc.at(w.gw[worker%len(w.gw)])
			for i := worker; i < n; i += workers {
				r, err := orc.insist("POST", "/v1/tasks", c.task(key(i), nil))
				if err != nil || r.status != 201 {
					t.Errorf("enqueue: %v %s", err, r)
					return
				}
				ids[i] = r.str("task_id")
			}
		})
		if t.Failed() {
			return
		}
		queued := map[string]bool{}
		for _, id := range ids {
			queued[id] = true
		}
		if len(queued) != n {
			t.Fatalf("%d enqueues gave %d ids", n, len(queued))
		}

		var mu sync.Mutex
		claimed := map[string]int{}
		sessions := make([]caller, 8)
		for i := range sessions {
			sessions[i] = c.another().at(w.gw[i%len(w.gw)])
		}
		each(len(sessions), func(i int) {
			for {
				r, err := sessions[i].insist("POST", "/v1/tasks/claim", nil)
				if err != nil || r.status != 200 {
					if err != nil || r.status != 204 {
						t.Errorf("claim: %v %s", err, r)
					}
					return
				}
				l := leaseOf(r)
				mu.Lock()
				claimed[l.task]++
				mu.Unlock()
				if r, err := sessions[i].insist("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil)); err != nil || r.status != 200 {
					t.Errorf("complete: %v %s", err, r)
					return
				}
			}
		})
		for id := range queued {
			if claimed[id] != 1 {
				t.Errorf("%s was claimed %d times", id, claimed[id])
			}
		}
		if len(claimed) != n {
			t.Errorf("%d tasks were claimed of %d", len(claimed), n)
		}
	})
}

// each runs f(0) … f(n-1) at once and waits for all.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

// An ended or sealed run takes no more work.
func TestP1T4EnqueueIntoAnEndedRun(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.enqueue("only", nil)
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks", c.task("late", nil))
		c.builder.complete(c.builder.claimNext())
		if r := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil); r.str("state") != "done" {
			t.Fatalf("the run: %s", r)
		}
		r := c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks", c.task("later", nil))
		if r.str("details", "from") != "done" || r.receipt() == "" {
			t.Fatalf("the refusal: %s", r)
		}

		c.run = c.newRun(10)
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/cancel", nil)
		c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks", c.task("late", nil))
	})
}
