package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// hands is the body of a handoff.
func (l lease) hands(to, more obj) obj {
	b := l.hold(obj{"to": to})
	for k, v := range more {
		b[k] = v
	}
	return b
}

func (c caller) handoff(l lease, to, more obj) reply {
	c.t.Helper()
	return c.ok(200, "POST", "/v1/tasks/"+l.task+"/handoff", l.hands(to, more))
}

// A task that asks for references ends well only with all of them, each leading
// to something of the run.
func TestP5T1BoundaryContract(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.builder.complete(c.builder.claim(c.enqueue("plan", nil)))
		build := c.enqueue("build", obj{"handoff": obj{"refs": []obj{{"name": "acceptance_criteria_ref", "kind": "file"}, {"name": "plan_ref"}}}})
		test := c.enqueue("test", on("build"))
		l := c.builder.claim(build)
		path, to := "/v1/tasks/"+build+"/handoff", obj{"key": "test"}
		c.builder.refused(409, "predicate_unsatisfied", "POST", "/v1/tasks/"+build+"/complete", l.hold(nil))

		r := c.builder.refused(422, "input_invalid", "POST", path, l.hands(to, nil))
		for _, name := range []string{"acceptance_criteria_ref", "plan_ref"} {
			if !strings.Contains(string(r.body), "lacks "+name) {
				t.Errorf("got %s", r)
			}
		}
		criteria := obj{"name": "acceptance_criteria_ref", "kind": "file", "ref": "fs:repo/docs/criteria.md"}
		plan := obj{"name": "plan_ref", "kind": "task", "ref": "plan"}
		foreign := c.newRun(10)
		receipt := c.op.ok(200, "GET", "/v1/runs/"+foreign, nil).str("receipt")
		for _, refs := range [][]obj{
			{criteria, {"name": "plan_ref", "kind": "task", "ref": "test"}},                                   // not done
			{criteria, {"name": "plan_ref", "kind": "task", "ref": "no-such"}},                                // no task
			{criteria, {"name": "plan_ref", "kind": "receipt", "ref": receipt}},                               // of another run
			{criteria, {"name": "plan_ref", "kind": "commit", "ref": "HEAD"}},                                 // no hash
			{criteria, {"name": "plan_ref", "kind": "file", "ref": "fs:repo/../x"}},                           // no canonical URI
			{criteria, {"name": "plan_ref", "kind": "artifact", "ref": "sha256:ab"}},                          // no digest
			{criteria, {"name": "plan_ref", "kind": "artifact", "ref": "sha256:" + strings.Repeat("ab", 32)}}, // of nobody
			{{"name": "acceptance_criteria_ref", "kind": "task", "ref": "plan"}, plan},
			{criteria, criteria},
		} {
			c.builder.refused(422, "input_invalid", "POST", path, l.hands(to, obj{"refs": refs}))
		}
		if s := c.state(build); s != writ.TaskRunning {
			t.Fatalf("it is %s", s)
		}
		mine := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")
		done := c.builder.handoff(l, to, obj{"refs": []obj{criteria, plan, {"name": "run", "kind": "receipt", "ref": mine}}, "note": "mind the gap", "result": obj{"ok": true}})
		if done.str("task", "state") != "done" || done.str("task", "handed_to") != test || done.str("next", "state") != "queued" {
			t.Fatalf("got %s", done)
		}
		r = c.builder.ok(200, "POST", "/v1/tasks/"+test+"/claim", nil)
		if r.str("task", "handed_over", "0", "note") != "mind the gap" || r.str("task", "handed_over", "0", "refs", "0", "ref") != criteria["ref"] || r.str("task", "handed_over", "0", "from") != build {
			t.Fatalf("got %s", r)
		}
		again := c.builder.do("POST", path, l.hands(to, obj{"refs": []obj{criteria, plan, {"name": "run", "kind": "receipt", "ref": mine}}, "note": "mind the gap", "result": obj{"ok": true}}))
		if again.status != 200 || again.receipt() != "" || again.str("task", "handed_to") != test {
			t.Fatalf("again: %s", again)
		}
		w.audited()
	})
}

// Nobody hands on more than they were given.
func TestP5T2HandoffNarrows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("danger", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "site.wipe", "safety": "destructive"}, {"name": "site.polish", "safety": "destructive"}}})
		w.agent("polisher", "web", "executor", "", []string{"fs:site/"}, obj{"tools": []obj{{"name": "site.polish", "safety": "mutating"}, {"name": tool, "safety": "mutating"}}})
		polisher := w.session("polisher", writ.RoleExecutor, "polisher")
		id := c.enqueue("build", obj{"write_scopes": []string{"fs:site/pages/"}, "priority": 4, "max_attempts": 2, "deadline_s": 600, "labels": []string{"pii.redacted"}})
		l := polisher.claim(id)
		path := "/v1/tasks/" + id + "/handoff"
		next := func(more obj) obj {
			b := obj{"key": "next", "capability": tool, "args": obj{"ref": "x"}}
			for k, v := range more {
				b[k] = v
			}
			return obj{"task": b}
		}
		for reason, more := range map[string]obj{
			"capability":   {"capability": "site.wipe"},
			"safety":       {"capability": "site.polish"}, // another agent would do it with a sharper tool
			"write_scopes": {"write_scopes": []string{"fs:site/"}},
			"priority":     {"priority": 5},
			"max_attempts": {"max_attempts": 3},
			"deadline_s":   {"deadline_s": 3600},
		} {
			if r := polisher.refused(403, "scope_denied", "POST", path, l.hands(next(more), nil)); r.str("details", "reason") != reason {
				t.Errorf("%s: got %s", reason, r)
			}
		}
		c.enqueue("taken", nil)
		polisher.refused(409, "already_exists", "POST", path, l.hands(next(obj{"key": "taken"}), nil))
		polisher.refused(422, "no_eligible_agent", "POST", path, l.hands(next(obj{"required_domain": "mail"}), nil))
		polisher.refused(422, "input_invalid", "POST", path, l.hands(obj{"key": "taken"}, nil)) // does not wait for it
		polisher.refused(422, "input_invalid", "POST", path, l.hands(obj{"key": "no-such"}, nil))
		polisher.refused(422, "input_invalid", "POST", path, l.hands(obj{}, nil))
		polisher.refused(422, "input_invalid", "POST", path, l.hands(obj{"key": "taken", "task": next(nil)["task"]}, nil))
		w.session("polisher", writ.RoleExecutor, "polisher").refused(403, "not_holder", "POST", path, l.hands(next(nil), nil))
		c.orc.refused(403, "rbac_denied", "POST", path, l.hands(next(nil), nil))

		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil) // what is sealed takes what it is handed
		r := polisher.handoff(l, next(obj{"write_scopes": []string{"fs:site/pages/a/"}, "priority": 1}), obj{"labels": []string{"external.untrusted"}})
		got := c.orc.ok(200, "GET", "/v1/tasks/"+r.str("next", "task_id"), nil)
		labels, _ := got.at("labels").([]any)
		if got.str("state") != "queued" || got.num("priority") != 1 || got.num("max_attempts") != 2 || got.str("deadline_at") == "" ||
			!slices.Contains(labels, any("pii.redacted")) || !slices.Contains(labels, any("external.untrusted")) || got.str("args", "ref") != "x" {
			t.Fatalf("got %s", got)
		}
		if s := w.runState(c.run); s != "active" {
			t.Fatalf("the run is %s", s)
		}
		for range 2 {
			polisher.complete(polisher.claimNext())
		}
		if s := w.runState(c.run); s != "done" {
			t.Fatalf("the run is %s", s)
		}
		w.audited()
	})
}

// Work goes to and fro once, and a chain is no longer than eight.
func TestP5T4HandoffLoop(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		hands := func(who caller, l lease, key string, agent string) lease {
			t.Helper()
			r := who.handoff(l, obj{"task": obj{"key": key, "capability": tool, "required_agents": []string{agent}}}, nil)
			return lease{task: r.str("next", "task_id")}
		}
		who := map[string]caller{"builder": c.builder}
		for _, a := range []string{"second", "third", "fourth", "fifth"} {
			w.agent(writ.AgentID(a), "web", "executor", tool, []string{}, nil)
			who[a] = w.session(a, writ.RoleExecutor, writ.AgentID(a))
		}
		l := who["builder"].claim(c.enqueue("ping", nil))
		for i, to := range []string{"second", "builder", "second", "builder"} {
			from := []string{"builder", "second"}[i%2]
			l = who[to].claim(hands(who[from], l, key(i), to).task)
		}
		again := l.hands(obj{"task": obj{"key": "again", "capability": tool}}, nil)
		c.builder.refused(409, "handoff_loop", "POST", "/v1/tasks/"+l.task+"/handoff", again)
		c.builder.complete(l)

		order := []string{"builder", "second", "third", "fourth"}
		l = who["builder"].claim(c.enqueue("long", nil))
		for i := range 8 {
			to := order[(i+1)%4]
			l = who[to].claim(hands(who[order[i%4]], l, key(10+i), to).task)
		}
		l2 := l.hands(obj{"task": obj{"key": "ninth", "capability": tool, "required_agents": []string{"fifth"}}}, nil)
		who["builder"].refused(409, "handoff_loop", "POST", "/v1/tasks/"+l.task+"/handoff", l2)
		who["builder"].complete(l)
		w.audited()
	})
}

// What is handed on keeps the write scopes: nobody gets in between, and whoever
// waits for them gets them afterwards.
func TestHandoffPassesScopesOn(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		site := obj{"write_scopes": []string{"fs:repo/site/"}}
		with := func(more obj) obj {
			b := obj{"write_scopes": []string{"fs:repo/site/"}}
			for k, v := range more {
				b[k] = v
			}
			return b
		}
		second := c.another().at(w.last())
		build := c.enqueue("build", site)
		publish := c.enqueue("publish", with(on("build")))
		rival := c.enqueue("rival", with(obj{"priority": 9}))
		l := c.builder.claim(build)
		if r := second.do("POST", "/v1/tasks/claim", nil); r.status != 204 { // the rival waits for the holder from now on
			t.Fatalf("got %s", r)
		}
		c.builder.handoff(l, obj{"key": "publish"}, nil)
		r := second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+rival+"/claim", nil)
		if r.str("details", "holder") != publish {
			t.Fatalf("got %s", r)
		}
		if r := c.op.ok(200, "GET", "/v1/scopes", nil); r.str("scopes", "0", "task_id") != publish || r.str("scopes", "0", "expires_at") == "" {
			t.Fatalf("got %s", r)
		}
		got := second.claimNext()
		if got.task != publish {
			t.Fatalf("got %+v", got)
		}
		second.complete(got)
		if l := c.builder.claimNext(); l.task != rival {
			t.Fatalf("got %+v", l)
		} else {
			c.builder.complete(l)
		}
		// Nobody takes what was handed on, and it is cancelled: its scopes come free.
		first := c.builder.claim(c.enqueue("first", site))
		r = c.builder.handoff(first, obj{"task": obj{"key": "unwanted", "capability": tool, "write_scopes": []string{"fs:repo/site/"}}}, nil)
		free := c.enqueue("free", site)
		second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+free+"/claim", nil)
		c.orc.ok(200, "POST", "/v1/tasks/"+r.str("next", "task_id")+"/cancel", nil)
		second.complete(second.claim(free))
		w.audited()
	})
}

// Whoever checks a result checks what becomes of it: until then what follows waits.
func TestHandoffWaitsForTheVerdict(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		id := c.enqueue("build", obj{"verify": obj{"required": true, "gates": []string{"links"}}})
		step := c.enqueue("step", on("build"))
		l := c.builder.claim(id)
		r := c.builder.handoff(l, obj{"task": obj{"key": "next", "capability": tool}}, obj{"result": obj{"ok": true}})
		next := r.str("next", "task_id")
		if r.str("task", "state") != "verifying" || r.str("next", "state") != "blocked" || r.str("next", "verify", "gates", "0") != "links" {
			t.Fatalf("got %s", r)
		}
		path, yes := judge.verdict("/v1/tasks/"+id, "accept", obj{"gates": []obj{{"gate": "links", "status": "pass"}}})
		judge.ok(200, "POST", path, yes)
		for _, id := range []string{next, step} {
			if s := c.state(id); s != writ.TaskQueued {
				t.Fatalf("it is %s", s)
			}
		}
		w.audited()
	})
}

// Work that destroys is not planned past the people who would have to agree to it.
func TestHandoffOfDangerousWork(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		wipes := "site.wipe"
		w.agent("wiper", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": tool, "safety": "mutating"}, {"name": wipes, "safety": "destructive"}}})
		wiper := w.session("wiper", writ.RoleExecutor, "wiper")
		l := wiper.claim(c.enqueue("tidy", nil))
		body := l.hands(obj{"task": obj{"key": "wipe", "capability": wipes}}, nil)
		id := wiper.waits("POST", "/v1/tasks/"+l.task+"/handoff", body)
		if s := c.state(l.task); s != writ.TaskParked {
			t.Fatalf("it is %s", s)
		}
		w.alice().approve(id)
		w.bob().approve(id)
		c.becomes(l.task, writ.TaskRunning)
		// What people agreed to is this work and no other.
		other := l.hands(obj{"task": obj{"key": "wipe", "capability": wipes, "args": obj{"path": "everything"}}}, nil)
		asked := wiper.waits("POST", "/v1/tasks/"+l.task+"/handoff", other)
		if asked == id {
			t.Fatal("the approval of other work was used")
		}
		w.alice().deny(asked)
		c.becomes(l.task, writ.TaskFailed)
		l = wiper.claim(c.enqueue("tidy-2", nil))
		body = l.hands(obj{"task": obj{"key": "wipe", "capability": wipes}}, nil)
		id = wiper.waits("POST", "/v1/tasks/"+l.task+"/handoff", body)
		w.alice().approve(id)
		w.bob().approve(id)
		c.becomes(l.task, writ.TaskRunning)
		r := wiper.ok(200, "POST", "/v1/tasks/"+l.task+"/handoff", body)
		if r.str("next", "safety") != "destructive" {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}

// What is sent back was not handed on: what was made for that is cancelled, what
// waited anyway waits on, and neither keeps a word of it.
func TestHandoffOfWhatIsSentBack(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "")
		reject := func(id string) {
			t.Helper()
			path, no := judge.verdict("/v1/tasks/"+id, "reject", obj{"reasons": []string{"wrong"}})
			judge.ok(200, "POST", path, no)
		}
		id := c.enqueue("build", obj{"verify": obj{"required": true}})
		step := c.enqueue("step", on("build"))
		one := c.builder.handoff(c.builder.claim(id), obj{"task": obj{"key": "one", "capability": tool}}, obj{"note": "first"}).str("next", "task_id")
		reject(id)
		if s := c.state(one); s != writ.TaskCancelled {
			t.Fatalf("what was made by what was sent back is %s", s)
		}
		c.builder.handoff(c.builder.claim(id), obj{"key": "step"}, obj{"note": "second"})
		reject(id)
		if s := c.state(step); s != writ.TaskBlocked {
			t.Fatalf("what waits anyway is %s", s)
		}
		l := c.builder.claim(id)
		c.builder.complete(l)
		if r := c.orc.ok(200, "GET", "/v1/tasks/"+id, nil); r.str("handed_to") != "" {
			t.Fatalf("got %s", r)
		}
		path, yes := judge.verdict("/v1/tasks/"+id, "accept", nil)
		judge.ok(200, "POST", path, yes)
		if r := c.builder.ok(200, "POST", "/v1/tasks/"+step+"/claim", nil); strings.Contains(string(r.body), "handed_over") {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}

// Nothing comes out of a task that was told to stop, nor, beyond what is handed on
// one for one, in a run that is sealed, nor out of what a revoked agent set going.
func TestNothingComesOutOfWhatIsStopped(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("helper", "web", "executor", tool, []string{}, nil)
		helper := w.session("helper", writ.RoleExecutor, "helper")
		part := func(l lease, key string) obj {
			return obj{"task_id": l.task, "lease_id": l.id, "fence": l.fence, "to": "helper", "task": obj{"key": key, "capability": tool}}
		}
		next := func(l lease, key string) obj { return l.hands(obj{"task": obj{"key": key, "capability": tool}}, nil) }
		l := c.builder.claim(c.enqueue("stopped", nil))
		c.orc.ok(200, "POST", "/v1/tasks/"+l.task+"/cancel", nil)
		c.builder.refused(409, "illegal_transition", "POST", "/v1/tasks/"+l.task+"/handoff", next(l, "escapes"))
		c.builder.refused(409, "illegal_transition", "POST", "/v1/agents/delegate", part(l, "escapes"))
		c.builder.complete(l)

		from := c.builder.claim(c.enqueue("from", nil))
		given := c.builder.ok(201, "POST", "/v1/agents/delegate", part(from, "given")).str("task", "task_id")
		l2 := helper.claim(given)
		out := helper.handoff(l2, obj{"task": obj{"key": "out", "capability": tool}}, nil).str("next", "task_id")
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.builder.refused(409, "illegal_transition", "POST", "/v1/agents/delegate", part(from, "more"))
		l3 := helper.claim(out)
		c.op.ok(200, "POST", "/v1/agents/planner/revoke", nil) // all of it goes back to the planner
		c.becomes(out, writ.TaskCancelled)
		if r := helper.do("POST", "/v1/tasks/"+out+"/handoff", next(l3, "late")); r.status != 409 {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}
