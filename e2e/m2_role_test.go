package e2e

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// taskRoles are the shipped policies, in which executors may do nothing but the verbs
// of tasks, and start their session.
func taskRoles(t testing.TB) sources {
	t.Helper()
	s := shipped(t)
	var kept []string
	for line := range strings.Lines(s["roles/policy.csv"]) {
		if !strings.HasPrefix(line, "p, role:executor, ") || strings.Contains(line, " task.") || strings.Contains(line, " session.start,") {
			kept = append(kept, line)
		}
	}
	s["roles/policy.csv"] = strings.Join(kept, "")
	return s
}

// A role that has the verbs of tasks has those, by whichever way, and is refused
// everything else there is.
func TestM2T1TaskVerbsAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			rules := taskRoles(t)
			w := newWorld(t, host, "--policies", rules.dir(t))
			c := newCast(t, w)
			task := c.enqueue("one", nil)
			stand := strings.NewReplacer("{session_id}", string(c.builder.id), "{agent_id}", "builder", "{run_id}", c.run, "{task_id}", task, "{", "", "}", "")
			may := 0
			for i, op := range w.operations() {
				if op.capability == "session.start" || op.id == "task.claim" {
					continue // the one is done, the other follows
				}
				r := c.builder.at(w.gw[i%len(w.gw)]).do(op.method, stand.Replace(op.path), op.body())
				granted := strings.Contains(rules["roles/policy.csv"], "p, role:executor, *, "+op.capability+",")
				if denied := r.status == 403 && r.code() == writ.CodeRBAC; denied == granted || granted && !strings.HasPrefix(op.capability, "task.") {
					t.Errorf("granted %v: %s", granted, r)
				}
				if granted {
					may++
				}
			}
			if may < 7 {
				t.Errorf("it may make only %d calls", may)
			}
			c.builder.refused(403, writ.CodeRBAC, "POST", "/v1/invoke", obj{"capability": "run.create", "args": obj{"budget": obj{"steps": 1}}})
			again := c.enqueue("two", nil)
			c.builder.complete(c.builder.claim(again))
			w.audited()
		})
	}
}

// Every call about a task, whatever becomes of it, has a receipt that says who might
// make it by which bindings, by which policies it was judged, and which rules held.
func TestM2T2EveryTaskCallSaysByWhatRight(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		info := w.op.ok(200, "GET", "/v1/policy", nil)
		bindings, policy := info.str("bindings_revision"), info.str("policy_revision")
		outside := c.enqueue("outside", obj{"write_scopes": []string{"fs:payroll/"}})
		made := c.orc.ok(201, "POST", "/v1/tasks", c.task("one", nil))
		claimed := c.builder.ok(200, "POST", "/v1/tasks/"+made.str("task_id")+"/claim", nil)
		calls := map[string]reply{
			"task.enqueue transition": made, "task.claim transition": claimed,
			"task.complete denial":     c.another().refused(403, writ.CodeNotHolder, "POST", "/v1/tasks/"+made.str("task_id")+"/complete", leaseOf(claimed).hold(nil)),
			"task.complete transition": c.builder.complete(leaseOf(claimed)),
			"task.claim denial":        c.builder.at(w.last()).refused(403, writ.CodeScope, "POST", "/v1/tasks/"+outside+"/claim", nil),
			"task.cancel transition":   c.orc.ok(200, "POST", "/v1/tasks/"+outside+"/cancel", nil),
			"task.cancel denial":       c.builder.refused(403, writ.CodeRBAC, "POST", "/v1/tasks/"+outside+"/cancel", nil),
		}
		for what, r := range calls {
			verb, outcome, _ := strings.Cut(what, " ")
			s := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt()), nil)
			at := func(path ...string) string { return s.str(append([]string{"statement", "predicate"}, path...)...) }
			if at("transition") != verb || at("outcome") != outcome || at("decision", "bindings") != bindings {
				t.Errorf("%s: %s", what, s)
			}
			if judged := r.code() != writ.CodeRBAC; judged != (at("decision", "policy") == policy) || judged != (at("decision", "effect") != "") {
				t.Errorf("%s: judged %v: %s", what, judged, s)
			}
			told, _ := r.at("rule_ids").([]any)
			held, _ := s.at("statement", "predicate", "decision", "rules").([]any)
			if len(told) != len(held) || r.code() == writ.CodeScope && (len(held) == 0 || held[0] != told[0]) {
				t.Errorf("%s: the caller was told %v, the receipt says %v", what, told, held)
			}
		}
		w.audited()
	})
}
