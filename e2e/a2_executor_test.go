package e2e

import (
	"maps"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// What is done for a task wants its lease: without one, with one of nobody, and with
// one that is given back, every call is refused, through the wrapper too.
func TestA2T1NoCallWithoutALease(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		calls := func(l lease) map[string]obj {
			all := map[string]obj{
				"task.heartbeat": l.hold(nil), "task.complete": l.hold(nil), "task.fail": l.hold(gaveUp), "task.release": l.hold(nil),
				"task.handoff":   l.hands(obj{"task": obj{"key": "next", "capability": tool}}, nil),
				"agent.delegate": l.hold(obj{"to": "builder", "task": obj{"key": "part", "capability": tool}}),
			}
			for id, body := range all {
				all[id] = with(body, "task_id", l.task)
			}
			return all
		}
		lost := func(l lease) {
			t.Helper()
			for id, body := range calls(l) {
				path, sent := "/v1/agents/delegate", body
				if verb, ok := strings.CutPrefix(id, "task."); ok {
					path, sent = "/v1/tasks/"+l.task+"/"+verb, maps.Clone(body)
					delete(sent, "task_id")
				}
				for _, r := range []reply{
					c.builder.refused(409, writ.CodeLeaseLost, "POST", path, sent),
					c.builder.at(w.last()).refused(409, writ.CodeLeaseLost, "POST", "/v1/invoke", obj{"capability": id, "args": body}),
				} {
					if r.str("receipt") == "" && r.at("aggregated") != true {
						t.Errorf("%s: no receipt: %s", id, r)
					}
				}
			}
		}
		task := c.enqueue("one", nil)
		lost(lease{task: task, id: "lse_01HZZZZZZZZZZZZZZZZZZZZZZZ", fence: 1})
		if s := c.state(task); s != writ.TaskQueued {
			t.Fatalf("the task is %s", s)
		}
		l := c.builder.claim(task)
		c.builder.ok(200, "POST", "/v1/tasks/"+task+"/release", l.hold(nil))
		lost(l)
		// The tool itself is nobody's to call past a task, and work is not given away without one.
		c.builder.refused(409, writ.CodeUnavailable, "POST", "/v1/invoke", obj{"capability": tool, "args": obj{}})
		c.builder.refused(403, writ.CodeNotHolder, "POST", "/v1/agents/delegate", obj{"run_id": c.run, "to": "builder", "task": obj{"key": "part", "capability": tool}})
		c.builder.complete(c.builder.claimNext())
		w.audited()
	})
}

// Who did a task does not say that it is done: not as the executor it is, and not as a
// verifier.
func TestA2T2NobodyVerifiesTheirOwnTask(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("both", "web", "executor", tool, []string{"fs:else/"}, obj{"archetypes": []string{"executor", "verifier"}})
		works := w.session("both", writ.RoleExecutor, "both").at(w.last())
		task := c.enqueue("one", obj{"verify": obj{"required": true}, "write_scopes": []string{"fs:else/x/"}})
		works.complete(works.claim(task))
		judge := w.verifier("judge", "vera", "")
		path, accept := judge.verdict("/v1/tasks/"+task, "accept", nil)
		works.refused(403, writ.CodeRBAC, "POST", path, accept)
		for _, own := range []caller{w.verifier("both", "vera", "both"), w.verifier("both", "vera", ""), w.verifier("other", "both", "")} {
			if r := own.refused(403, writ.CodeSoD, "POST", path, accept); r.receipt() == "" {
				t.Errorf("no receipt: %s", r)
			}
		}
		if s := c.state(task); s != writ.TaskVerifying {
			t.Fatalf("the task is %s", s)
		}
		judge.ok(200, "POST", path, accept) // though it may not write where the task did
		w.audited()
	})
}
