package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// The gateway is killed while work is handed on: afterwards either both have
// happened or neither, and once.
func TestP5T3KilledWhileWorkIsHandedOn(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		rng := random(t)
		c := newCast(t, w)
		once := map[string]int{}
		for round := range shortRounds() {
			name := fmt.Sprintf("round-%d", round)
			scopes := obj{"write_scopes": []string{"fs:repo/" + name + "/"}}
			from := c.enqueue("from-"+name, scopes)
			l := c.builder.claim(from)
			body := l.hands(obj{"task": obj{"key": "to-" + name, "capability": tool, "write_scopes": scopes["write_scopes"]}}, obj{"result": obj{"ok": true}})
			hands := func(gw *gateway) func() {
				return func() {
					_, _ = c.builder.at(gw).try("POST", "/v1/tasks/"+from+"/handoff", body, "Idempotency-Key", name)
				}
			}
			moment := w.killed(rng, 10*time.Millisecond, hands(w.gw[0]), hands(w.last()))
			page := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run+"&limit=100", nil)
			var keys []string
			list, _ := page.at("tasks").([]any)
			for _, x := range list {
				keys = append(keys, x.(map[string]any)["key"].(string))
			}
			state, made := c.state(from), slices.Contains(keys, "to-"+name)
			t.Logf("round %d: killed after %v with the task %s", round, moment, state)
			if (state == writ.TaskDone) != made || state != writ.TaskDone && state != writ.TaskRunning {
				t.Fatalf("the task is %s, what follows is there: %v", state, made)
			}
			hands(w.gw[0])()
			r := c.builder.do("POST", "/v1/tasks/"+from+"/handoff", body)
			next := r.str("next", "task_id")
			if r.status != 200 || next == "" {
				t.Fatalf("again: %s", r)
			}
			c.builder.complete(c.builder.claim(next))
			once["task "+from+" running done"], once["task "+next+"  queued"] = 0, 0
		}
		w.happenedOnce(once)
		w.audited()
	})
}

// Tasks that want the same scopes, named in another order, do not keep each other
// from going on: all of them end.
func TestO3T1CrossingScopes(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		tasks := 40
		if soak() {
			tasks = 1000
		}
		x, y := "fs:repo/x/", "fs:repo/y/"
		orders := [][]string{{x, y}, {y, x}, {x}, {y, "fs:repo/x/z/"}}
		for i := range tasks {
			c.enqueue(key(i), obj{"write_scopes": orders[i%len(orders)]})
		}
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		var wg sync.WaitGroup
		for i := range 4 {
			by := c.another()
			if i%2 == 1 {
				by = by.at(w.last())
			}
			wg.Go(func() {
				for {
					r, err := by.try("POST", "/v1/tasks/claim", obj{"wait_s": 1})
					if err != nil {
						return
					}
					if r.status == 200 {
						l := leaseOf(r)
						_, _ = by.insist("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
						continue
					}
					if r, err := by.try("GET", "/v1/runs/"+c.run, nil); err != nil || r.str("state") != "active" {
						return
					}
				}
			})
		}
		wg.Wait()
		if s := w.runState(c.run); s != "done" {
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}
