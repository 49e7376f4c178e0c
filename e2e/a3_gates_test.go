package e2e

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// Work that must pass a gate is accepted once somebody else has shown, after it was given,
// that it does; a run owes what its agents' work must pass, until a gate has looked at it.
func TestA3T3Gates(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		gate := []obj{{"name": "site.lint", "safety": "read-only", "gate": true}}
		w.agent("linter", "web", "executor", "", []string{}, obj{"tools": gate})
		w.agent("strict", "web", "executor", tool, []string{"fs:strict/"}, obj{"work_gates": []string{"site.lint"}})
		linter, strict := w.session("linter", writ.RoleExecutor, "linter").at(w.last()), w.session("strict", writ.RoleExecutor, "strict")
		judge := w.verifier("judge", "vera", "").at(w.last())
		c.judgedRun()
		run := "/v1/runs/" + c.run
		lint := func(key, on string) string {
			return c.orc.ok(201, "POST", "/v1/tasks", obj{
				"run_id": c.run, "key": key, "capability": "site.lint", "required_domain": "web", "depends_on": []obj{{"key": on, "when": "given"}},
			}).str("task_id")
		}
		says := func(id, status string) {
			l := linter.claim(id)
			linter.ok(200, "POST", "/v1/tasks/"+id+"/complete", l.hold(obj{"gate": status}))
		}
		shown := func(id string) obj {
			passes, _ := judge.ok(200, "GET", "/v1/tasks/"+id, nil).at("passes").([]any)
			if len(passes) != 1 {
				t.Fatalf("got %v", passes)
			}
			return obj{"gates": []obj{{"gate": "site.lint", "status": "pass", "receipt_id": passes[0].(map[string]any)["receipt_id"]}}}
		}
		id := c.enqueue("one", obj{"verify": obj{"required": true, "gates": []string{"site.lint"}}})
		task, first := "/v1/tasks/"+id, lint("lint", "one")
		c.orc.ok(200, "POST", run+"/seal", nil)
		c.builder.complete(c.builder.claim(id))
		path, bare := judge.verdict(task, "accept", obj{"gates": []obj{{"gate": "site.lint", "status": "pass"}}})
		if r := judge.refused(409, "predicate_unsatisfied", "POST", path, bare); r.str("details", "missing") != "gates/site.lint" {
			t.Fatalf("got %s", r)
		}
		says(first, "fail")
		path, reject := judge.verdict(task, "reject", nil)
		judge.ok(200, "POST", path, reject)
		w.crash()
		c.builder.complete(c.builder.claim(id))
		says(lint("lint-again", "one"), "pass") // the run is sealed
		_, accept := judge.verdict(task, "accept", shown(id))
		if r := judge.ok(200, "POST", path, accept); r.str("state") != "done" {
			t.Fatalf("got %s", r)
		}
		if s := w.runState(c.run); s != "verifying" {
			t.Fatalf("the run is %s", s)
		}
		path, accept = judge.verdict(run, "accept", nil)
		judge.ok(200, "POST", path, accept)

		// Of an agent whose work must pass, whoever enqueued it.
		c.judgedRun()
		run = "/v1/runs/" + c.run
		owing := c.enqueue("two", nil)
		strict.complete(strict.claim(owing))
		c.orc.ok(200, "POST", run+"/seal", nil)
		path, accept = judge.verdict(run, "accept", nil)
		if r := judge.refused(409, "predicate_unsatisfied", "POST", path, accept); r.str("details", "missing") != "gates/site.lint/"+owing {
			t.Fatalf("got %s", r)
		}
		_, reject = judge.verdict(run, "reject", nil)
		judge.ok(200, "POST", path, reject)
		says(lint("lint-two", "two"), "pass")
		c.orc.ok(200, "POST", run+"/seal", nil)
		_, accept = judge.verdict(run, "accept", nil)
		if r := judge.ok(200, "POST", path, accept); r.str("state") != "done" {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}
