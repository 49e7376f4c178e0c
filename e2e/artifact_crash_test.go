package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// The gateway is killed while artifacts are put and tasks completed with them:
// afterwards whatever a task has can be read, and is what was put; the work goes on,
// and each task was completed once.
func TestP4KilledWhileArtifactsArePut(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		rng := random(t)
		c := newCast(t, w)
		other := c.another()
		once := map[string]int{}
		for round := range shortRounds() {
			name := fmt.Sprintf("round-%d", round)
			task := c.enqueue("make-"+name, obj{"lease_ttl_s": 600, "produces": []obj{made("site", "text/plain", nil)}})
			next := c.enqueue("use-"+name, obj{"depends_on": []obj{{"key": "make-" + name}}, "consumes": []obj{{"name": "site", "from": "make-" + name}}})
			l := c.builder.claim(task)
			text := strings.Repeat(name, 1+rng.IntN(200_000))
			digest := digestOf(text)
			works := func(gw *gateway) func() {
				return func() {
					by := c.builder.at(gw)
					if r, err := by.try("PUT", putPath(l, "site", "digest="+digest), text, "Idempotency-Key", "put-"+name); err == nil && r.status < 300 {
						_, _ = by.try("POST", "/v1/tasks/"+task+"/complete", l.hold(obj{"artifacts": []obj{{"name": "site", "digest": digest}}}), "Idempotency-Key", "done-"+name)
					}
				}
			}
			moment := w.killed(rng, 40*time.Millisecond, works(w.gw[0]), works(w.last()))
			state := c.state(task)
			if state != writ.TaskDone && state != writ.TaskRunning {
				t.Fatalf("the task is %s", state)
			}
			listed := c.orc.ok(200, "GET", "/v1/artifacts?run_id="+c.run+"&limit=100", nil)
			list, _ := listed.at("artifacts").([]any)
			t.Logf("round %d: killed after %v with the task %s, %d artifacts", round, moment, state, len(list))
			for _, x := range list {
				a, _ := x.(map[string]any)
				d, from := fmt.Sprint(a["digest"]), fmt.Sprint(a["from_task_id"])
				if r := c.orc.content(from, d); r.status != 200 || digestOf(string(r.body)) != d {
					t.Fatalf("a task has what cannot be read: %v: %d", a, r.status)
				}
			}
			works(w.gw[0])() // again
			if s := c.state(task); s != writ.TaskDone {
				t.Fatalf("the task is %s", s)
			}
			other.claim(next)
			if r := other.content(next, digest); r.status != 200 || string(r.body) != text {
				t.Fatalf("handed on: %d, %d bytes", r.status, len(r.body))
			}
			once["task "+task+" running done"] = 0
		}
		w.happenedOnce(once)
		w.audited()
	})
}
