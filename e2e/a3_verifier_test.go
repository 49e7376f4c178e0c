package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// verifier is a session that judges, of a person answerable for it.
func (w *world) verifier(principal, controller string, agent writ.AgentID) caller {
	w.t.Helper()
	return w.opened(obj{"principal": principal, "kind": "service", "role": "verifier", "controller": controller}, agent)
}

// judgedRun is a run that ends by a verdict.
func (c *cast) judgedRun() {
	c.t.Helper()
	c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"close_policy": "verifier", "budget": obj{"steps": 100}}).str("run_id")
}

// verdict is one on what the caller reads.
func (c caller) verdict(path, verdict string, more obj) (string, obj) {
	c.t.Helper()
	b := obj{"verdict": verdict, "receipt_id": c.ok(200, "GET", path, nil).str("receipt")}
	if verdict == "reject" {
		b["reasons"] = []string{"incomplete"}
	}
	for k, v := range more {
		b[k] = v
	}
	if strings.HasPrefix(path, "/v1/runs/") {
		return path + "/close", b
	}
	return path + "/verify", b
}

// Nobody closes a run but a verifier who had no part in it, by whatever name; and
// nobody at all by force.
func TestA1T3A3T1T2WhoCloses(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("both", "web", "executor", tool, []string{"fs:else/"}, obj{"archetypes": []string{"executor", "verifier"}})
		w.agent("checker", "web", "verifier", "", []string{}, nil)
		c.judgedRun()
		run := "/v1/runs/" + c.run
		one, two := c.enqueue("one", nil), c.enqueue("two", nil)
		c.orc.ok(200, "POST", run+"/seal", nil)
		c.builder.complete(c.builder.claim(one))
		worker := w.session("both", writ.RoleExecutor, "both").at(w.last())
		worker.complete(worker.claim(two))
		if s := w.runState(c.run); s != "verifying" {
			t.Fatalf("the run is %s", s)
		}
		path, accept := c.orc.verdict(run, "accept", nil)
		for name, by := range map[string]caller{"the orchestrator": c.orc, "an executor": c.builder, "an operator": w.op} {
			if r := by.do("POST", path, accept); r.status != 403 || r.code() != writ.CodeRBAC || r.receipt() == "" {
				t.Errorf("%s: %s", name, r)
			}
		}
		for name, by := range map[string]caller{
			"the agent that worked, in another session": w.verifier("both", "vera", "both"),
			"the principal that worked":                 w.verifier("builder", "vera", ""),
			"the principal that planned":                w.verifier("planner", "vera", ""),
			"who answers to the same person":            w.verifier("judge", "operator", ""),
			"who answers to the one that worked":        w.verifier("judge", "builder", ""),
		} {
			r := by.at(w.last()).do("POST", path, accept)
			if r.status != 403 || r.code() != writ.CodeSoD || r.receipt() == "" {
				t.Errorf("%s: %s", name, r)
			}
		}
		// Nothing else moves it, and nothing in it moves.
		c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks", c.task("more", nil))
		c.orc.refused(409, "illegal_transition", "POST", run+"/seal", nil)

		judge := w.verifier("judge", "vera", "checker")
		w.crash()
		path, accept = judge.verdict(run, "accept", nil)
		done := judge.ok(200, "POST", path, accept)
		if done.str("state") != "done" {
			t.Fatalf("got %s", done)
		}
		judge.refused(409, "illegal_transition", "POST", path, accept)
		w.audited()
	})
}

// A verdict names what it is about: another run's tasks, what has changed since, or
// a check that has not passed are named in the refusal.
func TestA3T3WhatAVerdictRestsOn(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "").at(w.last())
		other := c.enqueue("elsewhere", nil) // in another run
		c.builder.complete(c.builder.claim(other))
		c.judgedRun()
		run := "/v1/runs/" + c.run
		task := c.enqueue("one", obj{"verify": obj{"required": true, "gates": []string{"tests"}, "max_rework": 1}})
		next := c.enqueue("next", on("one"))
		c.orc.ok(200, "POST", run+"/seal", nil)
		l := c.builder.claim(task)
		c.builder.ok(200, "POST", "/v1/tasks/"+task+"/complete", l.hold(obj{"result": obj{"site": "built"}}))

		waiting := judge.ok(200, "GET", "/v1/tasks?state=verifying", nil)
		if list, _ := waiting.at("tasks").([]any); len(list) != 1 {
			t.Fatalf("got %s", waiting)
		}
		if r := judge.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("result", "site") != "built" {
			t.Fatalf("who judges does not see the result: %s", r)
		}
		path, accept := judge.verdict("/v1/tasks/"+task, "accept", nil)
		if r := judge.refused(409, "predicate_unsatisfied", "POST", path, accept); r.str("details", "missing") != "gates/tests" {
			t.Fatalf("got %s", r)
		}
		passed := obj{"gates": []obj{{"gate": "tests", "status": "pass"}}}
		_, stale := judge.verdict("/v1/tasks/"+task, "accept", passed)
		path, reject := judge.verdict("/v1/tasks/"+task, "reject", nil)
		judge.ok(200, "POST", path, reject)
		c.builder.complete(c.builder.claimNext()) // again
		if r := judge.refused(409, "predicate_unsatisfied", "POST", path, stale); r.str("details", "missing") != "receipt_id" {
			t.Fatalf("got %s", r)
		}
		if s := c.state(next); s != writ.TaskBlocked {
			t.Fatalf("the next is %s before the verdict", s)
		}
		path, accept = judge.verdict("/v1/tasks/"+task, "accept", passed)
		if r := judge.ok(200, "POST", path, accept); r.str("state") != "done" || r.at("verified") != true {
			t.Fatalf("got %s", r)
		}
		c.builder.complete(c.builder.claimNext())

		at := judge.ok(200, "GET", "/v1/tasks/"+task, nil).str("receipt")
		elsewhere := w.op.ok(200, "GET", "/v1/tasks/"+other, nil).str("receipt")
		closing, evidence := judge.verdict(run, "accept", obj{"tasks": []obj{{"task_id": task, "receipt_id": at}, {"task_id": other, "receipt_id": elsewhere}}})
		if r := judge.refused(409, "predicate_unsatisfied", "POST", closing, evidence); r.str("details", "missing") != "tasks/1" {
			t.Fatalf("got %s", r)
		}
		_, evidence = judge.verdict(run, "accept", obj{"tasks": []obj{{"task_id": task, "receipt_id": at}}})
		judge.ok(200, "POST", closing, evidence)
		w.audited()
	})
}

// A run that is sent back takes tasks again, and ends by a later verdict.
func TestARunIsSentBack(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		c.judgedRun()
		run := "/v1/runs/" + c.run
		c.orc.ok(200, "POST", run+"/seal", nil)
		path, reject := judge.verdict(run, "reject", nil)
		if r := judge.ok(200, "POST", path, reject); r.str("state") != "active" || r.at("sealed") != false {
			t.Fatalf("got %s", r)
		}
		more := c.enqueue("more", nil)
		c.orc.ok(200, "POST", run+"/seal", nil)
		c.builder.complete(c.builder.claim(more))
		waiting := judge.ok(200, "GET", "/v1/runs?state=verifying", nil)
		if list, _ := waiting.at("runs").([]any); len(list) != 1 {
			t.Fatalf("got %s", waiting)
		}
		path, accept := judge.verdict(run, "accept", nil)
		// Two verdicts at once, and a cancellation: one of them counts.
		statuses := make(chan int, 3)
		for _, f := range []func() reply{
			func() reply { return judge.do("POST", path, accept) },
			func() reply { return judge.at(w.last()).do("POST", path, accept) },
			func() reply { return c.orc.do("POST", run+"/cancel", nil) },
		} {
			go func() { statuses <- f().status }()
		}
		won := 0
		for range 3 {
			select {
			case s := <-statuses:
				if s == 200 {
					won++
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no answer")
			}
		}
		if won != 1 {
			t.Fatalf("%d of three counted", won)
		}
		w.audited()
	})
}

// Whoever opened the session that worked, or planned, stands behind it and does not judge
// what it did; nor does a session that was opened by somebody who had a part. That one
// person opened both is no part.
func TestA3WhoOpenedTheSessionsOfARun(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		olga, ivan := w.session("olga", writ.RoleOperator, ""), w.session("ivan", writ.RoleOperator, "")
		opens := func(by caller, body obj) caller { // as world.opened, by a person
			r := by.ok(201, "POST", "/v1/sessions", body)
			s := caller{t: t, gw: w.last(), token: r.str("token"), id: writ.SessionID(r.str("session_id"))}
			s.ok(200, "POST", s.startPath(), nil)
			return s
		}
		judges := func(principal, controller string) obj {
			return obj{"principal": principal, "kind": "service", "role": "verifier", "controller": controller}
		}
		works := opens(olga, obj{"principal": "builder", "kind": "agent", "role": "executor", "agent_id": "builder", "heartbeat_ttl_s": 300})
		plans := opens(ivan, obj{"principal": "paula", "kind": "human", "role": "orchestrator"})
		run := plans.ok(201, "POST", "/v1/runs", obj{"close_policy": "verifier", "budget": obj{"steps": 100}}).str("run_id")
		c.run = run
		task := plans.ok(201, "POST", "/v1/tasks", c.task("one", obj{"verify": obj{"required": true}})).str("task_id")
		plans.ok(200, "POST", "/v1/runs/"+run+"/seal", nil)
		works.complete(works.claim(task))

		paula := opens(olga, obj{"principal": "paula", "kind": "human", "role": "operator"})
		none := map[string]caller{
			"who opened the session that worked":        w.session("olga", writ.RoleVerifier, ""),
			"who opened the session that planned":       w.session("ivan", writ.RoleVerifier, ""),
			"who answers to who opened the one":         w.verifier("judge", "olga", ""),
			"a session that who planned opened":         opens(paula, judges("judge", "vera")),
			"a session that one opened that she opened": opens(opens(paula, obj{"principal": "otto", "kind": "human", "role": "operator"}), judges("judge", "vera")),
		}
		judge := opens(olga, judges("judge", "vera"))
		for _, path := range []string{"/v1/tasks/" + task, "/v1/runs/" + run} {
			path, accept := judge.verdict(path, "accept", nil)
			for name, by := range none {
				for _, g := range w.gw {
					if r := by.at(g).do("POST", path, accept); r.status != 403 || r.code() != writ.CodeSoD || r.str("receipt") == "" && r.at("aggregated") != true {
						t.Errorf("%s, %s: %s", path, name, r)
					}
				}
			}
			if strings.HasSuffix(path, "/close") {
				accept["tasks"] = []obj{{"task_id": task, "receipt_id": judge.ok(200, "GET", "/v1/tasks/"+task, nil).str("receipt")}}
			}
			if r := judge.ok(200, "POST", path, accept); r.str("state") != "done" {
				t.Errorf("%s", r)
			}
		}
		w.audited()
	})
}
