package e2e

import (
	"fmt"
	"testing"
	"time"
)

// The gateway is killed while a result is handed in and accepted, and again while
// the run is closed: afterwards each happened once, and whoever waited for the
// result was let go once.
func TestKilledWhileOthersWaitForAVerdict(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		const waiting = 20 // more than the commit that ends the task lets go itself
		rng := random(t)
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		once := map[string]int{} // moves that may happen once, by object
		for round := range shortRounds() {
			name := fmt.Sprintf("round-%d", round)
			c.judgedRun()
			run := "/v1/runs/" + c.run
			top := c.enqueue("top", obj{"verify": obj{"required": true}})
			path := "/v1/tasks/" + top
			var next []string
			for i := range waiting {
				next = append(next, c.enqueue(key(i), on("top")))
			}
			c.orc.ok(200, "POST", run+"/seal", nil)
			l := c.builder.claim(top)
			completes := func(gw *gateway) func() {
				return func() {
					_, _ = c.builder.at(gw).try("POST", path+"/complete", l.hold(nil), "Idempotency-Key", name)
				}
			}
			// accepts gives the verdict on what there is, as soon as there is something.
			accepts := func(gw *gateway, about, verb string) func() {
				return func() {
					for range 200 {
						r, err := judge.at(gw).try("GET", about, nil)
						if err != nil || r.str("state") == "done" {
							return
						}
						if r.str("state") == "verifying" {
							if r, err = judge.at(gw).try("POST", about+verb, obj{"verdict": "accept", "receipt_id": r.str("receipt")}); err != nil || r.status == 200 {
								return
							}
						}
					}
				}
			}
			moment := w.killed(rng, 15*time.Millisecond, completes(w.gw[0]), completes(w.last()), accepts(w.gw[0], path, "/verify"), accepts(w.last(), path, "/verify"))
			t.Logf("round %d: killed after %v with the task %s", round, moment, c.state(top))
			completes(w.gw[0])() // again, if it was handed in
			accepts(w.gw[0], path, "/verify")()
			within(t, 20*time.Second, "everybody is let go", func() bool {
				page := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run+"&state=queued&limit=100", nil)
				list, _ := page.at("tasks").([]any)
				return len(list) == waiting
			})
			for range next {
				c.builder.complete(c.builder.claimNext())
			}
			moment = w.killed(rng, 8*time.Millisecond, accepts(w.gw[0], run, "/close"), accepts(w.last(), run, "/close"))
			t.Logf("round %d: killed after %v with the run %s", round, moment, w.runState(c.run))
			accepts(w.gw[0], run, "/close")()
			if s := w.runState(c.run); s != "done" {
				t.Fatalf("the run is %s", s)
			}
			once["task "+top+" verifying done"], once["run "+c.run+" verifying done"] = 0, 0
			for _, id := range next {
				once["task "+id+" blocked queued"] = 0
			}
		}
		w.happenedOnce(once)
		w.audited()
	})
}
