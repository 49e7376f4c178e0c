package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies/policytest"
)

// asking are policies under which people are asked about runs, destructive work, and what
// publishes or stamps.
func asking(t testing.TB) string {
	return policytest.Asking(t, "run.create", "task.claim", "task.complete")
}

// onAskingHosts runs a test on both hosts under those policies.
func onAskingHosts(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, host, "--policies", asking(t)))
		})
	}
}

func (w *world) alice() caller { return w.session("alice", writ.RoleApprover, "") }
func (w *world) bob() caller   { return w.session("bob", writ.RoleApprover, "") }

func (c caller) approve(id string) reply {
	c.t.Helper()
	return c.ok(200, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve", "reason": "fine"})
}

func (c caller) deny(id string) reply {
	c.t.Helper()
	return c.ok(200, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "deny"})
}

// waits makes a call that people must agree to first, and returns the approval.
func (c caller) waits(method, path string, body any, headers ...string) string {
	c.t.Helper()
	r := c.do(method, path, body, headers...)
	if r.status != 202 || r.str("status") != "approval_required" || r.str("approval_id") == "" || r.str("hint") == "" {
		c.t.Fatalf("want 202 approval_required, got %s", r)
	}
	return r.str("approval_id")
}

// A risky call waits, is approved by a second person, and happens exactly once,
// whichever replica is asked.
func TestACallWaitsForApproval(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc := w.session("planner", writ.RoleOrchestrator, "planner")
		body, other := obj{"title": "risky", "budget": obj{"steps": 9}}, obj{"title": "else", "budget": obj{"steps": 9}}
		id := orc.waits("POST", "/v1/runs", body, "Idempotency-Key", "k1")
		if again := orc.at(w.last()).waits("POST", "/v1/runs", body, "Idempotency-Key", "k1"); again != id {
			t.Fatalf("the same call asked twice: %s, %s", id, again)
		}
		orc.refused(422, writ.CodeIdempotency, "POST", "/v1/runs", other, "Idempotency-Key", "k1")
		orc.refused(403, writ.CodeRBAC, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
		w.op.refused(403, writ.CodeRBAC, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
		if n := orc.ok(200, "GET", "/v1/runs", nil).at("runs"); len(n.([]any)) != 0 {
			t.Fatal("a run exists before anybody agreed")
		}
		seen := w.alice().ok(200, "GET", "/v1/approvals/"+id, nil)
		if seen.str("state") != "pending" || seen.str("requester", "principal") != "planner" || seen.str("args", "title") != "risky" {
			t.Errorf("what people are shown: %s", seen)
		}
		w.gw[0].restart()
		w.alice().at(w.last()).approve(id)
		made := orc.ok(201, "POST", "/v1/runs", body, "Idempotency-Key", "k1")
		replay := orc.at(w.last()).ok(201, "POST", "/v1/runs", body, "Idempotency-Key", "k1")
		if made.str("run_id") != replay.str("run_id") || replay.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("repeated: %s, then %s", made, replay)
		}
		if n := orc.ok(200, "GET", "/v1/runs", nil).at("runs"); len(n.([]any)) != 1 {
			t.Errorf("the call happened %d times", len(n.([]any)))
		}
		if s := w.alice().ok(200, "GET", "/v1/approvals/"+id, nil).str("state"); s != "consumed" {
			t.Errorf("the approval is %s", s)
		}
		if next := orc.waits("POST", "/v1/runs", body, "Idempotency-Key", "k2"); next == id {
			t.Error("a used approval covers another call")
		}
		w.audited()
	})
}

// Many callers race for one use.
func TestOneUseUnderLoad(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc := w.session("planner", writ.RoleOrchestrator, "planner")
		body := obj{"title": "once", "budget": obj{"steps": 9}}
		w.alice().approve(orc.waits("POST", "/v1/runs", body))
		got := w.race(16, orc, "POST", "/v1/runs", body)
		if got[201] != 1 || got[202] != 15 {
			t.Errorf("answers by status: %v, want one 201 and fifteen 202", got)
		}
		if n := orc.ok(200, "GET", "/v1/approvals?state=pending", nil).at("approvals"); len(n.([]any)) != 1 {
			t.Errorf("%d requests for the next one", len(n.([]any)))
		}
		w.audited()
	})
}

// The gateway is killed while people decide and callers use what they decided:
// afterwards the call either has not happened or has happened once, with the
// approval used by it, and repeating both finishes it.
func TestKilledWhileApproving(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc, alice := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		const rounds = 5
		for round := range rounds {
			body, key := obj{"title": fmt.Sprintf("round %d", round), "budget": obj{"steps": 9}}, fmt.Sprintf("k%d", round)
			id := orc.at(w.gw[0]).waits("POST", "/v1/runs", body, "Idempotency-Key", key)
			decision := obj{"decision": "approve"}
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = alice.at(w.gw[0]).try("POST", "/v1/approvals/"+id+"/decision", decision) })
			for i := range 4 {
				gw := w.gw[i%len(w.gw)]
				wg.Go(func() {
					for range 10 {
						if r, err := orc.at(gw).try("POST", "/v1/runs", body, "Idempotency-Key", key); err != nil || r.status == 201 {
							return
						}
					}
				})
			}
			time.Sleep(time.Duration(rng.IntN(16)) * time.Millisecond)
			w.gw[0].kill()
			wg.Wait()
			w.gw[0].start()

			state := alice.at(w.gw[0]).ok(200, "GET", "/v1/approvals/"+id, nil).str("state")
			made := len(orc.at(w.gw[0]).ok(200, "GET", "/v1/runs", nil).at("runs").([]any))
			t.Logf("round %d: killed with the approval %s, %d runs", round, state, made)
			if want := map[string]int{"pending": round, "approved": round, "consumed": round + 1}; made != want[state] {
				t.Errorf("the approval is %s with %d runs, want %d", state, made, want[state])
			}
			if state == "pending" {
				alice.at(w.gw[0]).approve(id)
			}
			orc.at(w.gw[0]).ok(201, "POST", "/v1/runs", body, "Idempotency-Key", key)
			if n := len(orc.at(w.gw[0]).ok(200, "GET", "/v1/runs", nil).at("runs").([]any)); n != round+1 {
				t.Fatalf("%d runs after %d approvals", n, round+1)
			}
		}
		w.audited()
	})
}

// Destructive work is parked until a person agrees, and only then handed out.
func TestATaskWaitsToBeClaimed(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		for name, claim := range map[string]func(task string) string{
			"by id": func(task string) string {
				return c.builder.waits("POST", "/v1/tasks/"+task+"/claim", nil)
			},
			"next": func(task string) string {
				if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
					t.Fatalf("handed out: %s", r)
				}
				return c.op.ok(200, "GET", "/v1/tasks/"+task, nil).str("waits_for")
			},
		} {
			task := c.burning("burn-" + name[:2])
			id := claim(task)
			if s := c.state(task); s != writ.TaskParked || id == "" {
				t.Fatalf("%s: the task is %s, waits for %q", name, s, id)
			}
			if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
				t.Fatalf("%s: handed out: %s", name, r)
			}
			wait := c.builder.poll()
			w.alice().approve(id)
			r := <-wait
			if r.status != 200 || r.str("task", "task_id") != task {
				t.Fatalf("%s: who waited got %s", name, r)
			}
			c.builder.complete(leaseOf(r))
			if s := c.op.ok(200, "GET", "/v1/approvals/"+id, nil).str("state"); s != "consumed" {
				t.Errorf("%s: the approval is %s", name, s)
			}
		}
		task := c.burning("burn-no")
		w.alice().deny(c.builder.waits("POST", "/v1/tasks/"+task+"/claim", nil))
		if r := c.op.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("state") != "failed" || r.str("failure", "code") != "approval_denied" {
			t.Errorf("after a denial: %s", r)
		}
		// What people need not decide any more, they are not asked.
		task = c.burning("burn-cancel")
		id := c.builder.waits("POST", "/v1/tasks/"+task+"/claim", nil)
		c.orc.ok(200, "POST", "/v1/tasks/"+task+"/cancel", nil)
		within(t, 10*time.Second, "nobody is asked about a cancelled task", func() bool {
			return c.op.ok(200, "GET", "/v1/approvals/"+id, nil).str("state") == "expired"
		})
		w.audited()
	})
}

// burning enqueues destructive work, to which two people agree as the shipped
// policies ask.
func (c cast) burning(key string) string {
	c.t.Helper()
	body := c.task(key, obj{"capability": "site.burn"})
	id := c.orc.waits("POST", "/v1/tasks", body)
	c.alice().approve(id)
	c.bob().approve(id)
	return c.orc.ok(201, "POST", "/v1/tasks", body).str("task_id")
}

func (w *world) riskyCast(t testing.TB) cast {
	w.t, w.op.t = t, t
	w.agent("planner", "web", "orchestrator", "", []string{}, nil)
	w.agent("builder", "web", "executor", tool, []string{"fs:repo/"}, obj{"tools": []obj{
		{"name": tool, "safety": "mutating"},
		{"name": "site.burn", "safety": "destructive"},
		{"name": "site.publish", "safety": "mutating"},
		{"name": "site.stamp", "safety": "mutating"},
	}})
	c := cast{world: w, orc: w.session("planner", writ.RoleOrchestrator, "planner"), builder: w.session("builder", writ.RoleExecutor, "builder")}
	body := obj{"title": "a run", "budget": obj{"steps": 1000}}
	w.alice().approve(c.orc.waits("POST", "/v1/runs", body))
	c.run = c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
	return c
}

// A holder's call waits for two people: no time runs on the lease, the fence
// stays, and the call then happens.
func TestAHolderWaits(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		task := c.enqueue("publish", obj{"capability": "site.publish", "lease_ttl_s": 10, "write_scopes": []string{"fs:repo/site/"}})
		l := c.builder.claim(task)
		path, body := "/v1/tasks/"+task+"/complete", l.hold(obj{"result": obj{"ok": true}})
		id := c.builder.waits("POST", path, body)
		if s := c.state(task); s != writ.TaskParked {
			t.Fatalf("the task is %s", s)
		}
		c.builder.refused(403, writ.CodeApprovalRequired, "POST", path, body)
		beat := func() string {
			return c.builder.ok(200, "POST", "/v1/tasks/"+task+"/heartbeat", l.hold(nil)).str("control")
		}
		if got := beat(); got != "wait" {
			t.Errorf("control is %q", got)
		}
		// Its scope is still held.
		rival := c.enqueue("rival", obj{"write_scopes": []string{"fs:repo/site/"}})
		c.builder.refused(409, writ.CodeScopeConflict, "POST", "/v1/tasks/"+rival+"/claim", nil)
		alice := w.alice()
		alice.approve(id)
		alice.refused(403, writ.CodeSoD, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
		w.alice().refused(403, writ.CodeSoD, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
		if got := beat(); got != "wait" {
			t.Errorf("control is %q after one of two votes", got)
		}
		w.bob().at(w.last()).approve(id)
		if got := beat(); got != "continue" {
			t.Errorf("control is %q after both votes", got)
		}
		c.builder.ok(200, "POST", path, body)
		if s := c.state(task); s != writ.TaskDone {
			t.Errorf("the task is %s", s)
		}
		c.builder.claim(rival)

		// Denied: the task fails and gives up what it held.
		again := c.enqueue("publish-2", obj{"capability": "site.publish"})
		l = c.builder.claim(again)
		w.bob().deny(c.builder.waits("POST", "/v1/tasks/"+again+"/complete", l.hold(nil)))
		if s := c.state(again); s != writ.TaskFailed {
			t.Errorf("the task is %s", s)
		}
		c.builder.refused(409, writ.CodeLeaseLost, "POST", "/v1/tasks/"+again+"/complete", l.hold(nil))

		// A holder that goes away while it waits: the task goes back.
		third := c.enqueue("publish-3", obj{"capability": "site.publish"})
		gone := c.another()
		l = gone.claim(third)
		gone.waits("POST", "/v1/tasks/"+third+"/complete", l.hold(nil))
		gone.ok(200, "POST", "/v1/sessions/"+string(gone.id)+"/close", nil)
		within(t, 10*time.Second, "the task is queued again", func() bool { return c.state(third) == writ.TaskQueued })
		w.audited()
	})
}

// A run out of budget pauses; more is granted by a person, never by itself, and
// work goes on.
func TestARunWaitsForBudget(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		make := func(steps int) string {
			body := obj{"title": "short", "budget": obj{"steps": steps}}
			w.alice().approve(c.orc.waits("POST", "/v1/runs", body))
			return c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
		}
		c.run = make(1)
		for _, k := range []string{"one", "two", "three"} {
			c.enqueue(k, nil)
		}
		var l lease
		var id string
		for id == "" { // how many steps a claim takes is the budget's business
			r := c.builder.do("POST", "/v1/tasks/claim", nil)
			switch r.status {
			case 200:
				l = leaseOf(r)
				r = c.builder.do("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
				id = r.str("approval_id")
			case 204:
				id = c.op.ok(200, "GET", "/v1/runs/"+c.run, nil).str("waits_for")
			default:
				t.Fatal(r)
			}
		}
		if s := c.op.ok(200, "GET", "/v1/runs/"+c.run, nil); s.str("state") != "paused_approval" {
			t.Fatalf("the run: %s", s)
		}
		// Nobody of the run leaves the pause.
		c.orc.refused(423, writ.CodePaused, "POST", "/v1/tasks", c.task("more", nil))
		c.orc.refused(423, writ.CodePaused, "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.orc.refused(403, writ.CodeRBAC, "POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"})
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Errorf("a paused run hands out work: %s", r)
		}
		if l.task != "" && c.state(l.task) == writ.TaskRunning { // what has begun may end
			c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
		}
		w.alice().at(w.last()).approve(id)
		run := c.op.ok(200, "GET", "/v1/runs/"+c.run, nil)
		if run.str("state") != "active" || run.num("budget", "steps", "limit") != 6 {
			t.Fatalf("the run: %s", run)
		}
		within(t, 10*time.Second, "work of the run is handed out again", func() bool {
			r := c.builder.do("POST", "/v1/tasks/claim", nil)
			if r.status == 200 {
				l = leaseOf(r)
			}
			return r.status == 200
		})

		c.run = make(1)
		c.enqueue("one", nil)
		var paused string
		within(t, 10*time.Second, "the run pauses", func() bool {
			r := c.builder.do("POST", "/v1/tasks/claim", nil)
			if r.status == 200 {
				l = leaseOf(r)
				c.builder.do("POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
			}
			paused = c.op.ok(200, "GET", "/v1/runs/"+c.run, nil).str("waits_for")
			return paused != ""
		})
		w.alice().deny(paused)
		if s := c.op.ok(200, "GET", "/v1/runs/"+c.run, nil); s.str("state") != "failed" || s.str("reason") != "approval_denied" {
			t.Errorf("the run: %s", s)
		}
		w.audited()
	})
}

// One yes to destructive work for which the budget does not suffice grants once:
// when others have used what was granted, people are asked again, and the run
// never uses more than its limit.
func TestOneApprovalGrantsOnce(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		body := obj{"title": "short", "budget": obj{"steps": 2}}
		w.alice().approve(c.orc.waits("POST", "/v1/runs", body))
		c.run = c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
		burn, first, second, third := c.burning("burn"), c.enqueue("one", nil), c.enqueue("two", nil), c.enqueue("three", nil)
		c.builder.complete(c.builder.claim(first))
		claim := "/v1/tasks/" + burn + "/claim"
		id := c.builder.waits("POST", claim, nil)
		w.alice().at(w.last()).approve(id)
		if steps := w.budget(c.run)["steps"]; steps.Limit != 7 || w.approval(id).str("state") != "approved" {
			t.Fatalf("after the yes: %+v, %s", steps, w.approval(id))
		}
		c.builder.complete(c.builder.claim(second))
		c.builder.complete(c.builder.claim(third))
		again := c.builder.waits("POST", claim, nil)
		if steps := w.budget(c.run)["steps"]; again == id || steps.Limit != 7 || steps.Consumed+steps.Reserved > steps.Limit {
			t.Fatalf("waits for %s after %s: %+v", again, id, steps)
		}
		w.alice().approve(again)
		c.builder.complete(c.builder.claim(burn))
		if steps := w.budget(c.run)["steps"]; steps.Limit != 12 || steps.Consumed != 8 {
			t.Errorf("after it has happened: %+v", steps)
		}
		if s := w.approval(again).str("state"); s != "consumed" {
			t.Errorf("the second approval is %s", s)
		}
		w.audited()
	})
}
