package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// asked are the approvals of a task or a run that gave their place to no other.
func (c cast) asked(about, id string) (out []obj) {
	c.t.Helper()
	for after := ""; ; {
		page := c.op.ok(200, "GET", "/v1/approvals?limit=200"+after, nil)
		for _, a := range page.at("approvals").([]any) {
			if a := obj(a.(map[string]any)); a[about] == id && a["capability"] != "task.enqueue" && a["state"] != "superseded" {
				out = append(out, a)
			}
		}
		next := page.str("next")
		if next == "" {
			return out
		}
		after = "&after=" + next
	}
}

// agrees approves what a task or a run waits for, as soon as it waits, until
// the gateway is gone.
func (c cast) agrees(who caller, path string) {
	for range 200 {
		r, err := c.op.at(who.gw).try("GET", path, nil)
		if err != nil {
			return
		}
		if id := r.str("waits_for"); id != "" {
			if r, err := who.try("POST", "/v1/approvals/"+id+"/decision", obj{"decision": "approve"}); err != nil || r.status == 200 {
				return
			}
		}
	}
}

// killed runs calls until the first gateway has been killed and has started
// again.
func (w *world) killed(rng *rand.Rand, most time.Duration, calls ...func()) time.Duration {
	var wg sync.WaitGroup
	for _, call := range calls {
		wg.Go(call)
	}
	moment := time.Duration(rng.Int64N(int64(most)))
	<-time.After(moment)
	w.gw[0].kill()
	wg.Wait()
	w.gw[0].start()
	return moment
}

func shortRounds() int {
	if soak() {
		return 40
	}
	return 4
}

// The gateway is killed while a task's claim is asked about, approved and made:
// afterwards the task waits exactly for what is asked, and is handed out once.
func TestKilledWhileATaskIsParked(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		rng := random(t)
		c := w.riskyCast(t)
		alice := w.alice()
		var tasks []string
		for round := range shortRounds() {
			name := fmt.Sprintf("burn-%d", round)
			task := c.burning(name)
			tasks = append(tasks, task)
			path := "/v1/tasks/" + task
			claims := func(gw *gateway) func() {
				return func() {
					for range 200 {
						if r, err := c.builder.at(gw).try("POST", path+"/claim", nil, "Idempotency-Key", name); err != nil || r.status == 200 {
							return
						}
					}
				}
			}
			moment := w.killed(rng, 60*time.Millisecond, claims(w.gw[0]), claims(w.last()), func() { c.agrees(alice, path) }, func() { c.agrees(alice.at(w.last()), path) })

			now := c.op.ok(200, "GET", path, nil)
			asked := c.asked("task_id", task)
			t.Logf("round %d: killed after %v with the task %s, asked %d times", round, moment, now.str("state"), len(asked))
			state := "" // of what was asked
			if len(asked) > 1 {
				t.Fatalf("asked %d times for one claim: %v", len(asked), asked)
			}
			if len(asked) == 1 {
				state = asked[0]["state"].(string)
			}
			waits, claimed := "", now.str("state") == "running"
			switch {
			case state == "pending" && now.str("state") == "parked" && now.str("waits_for") == asked[0]["approval_id"]:
				waits = now.str("waits_for")
			case state == "" && now.str("state") == "queued", state == "approved" && now.str("state") == "queued", state == "consumed" && claimed:
			default:
				t.Fatalf("what is asked is %q, and the task: %s", state, now)
			}
			if state == "" {
				waits = c.builder.waits("POST", path+"/claim", nil, "Idempotency-Key", name)
			}
			if waits != "" {
				alice.approve(waits)
			}
			l := leaseOf(c.builder.ok(200, "POST", path+"/claim", nil, "Idempotency-Key", name)) // again, if it was claimed
			c.builder.complete(l)
			if asked = c.asked("task_id", task); len(asked) != 1 || asked[0]["state"] != "consumed" {
				t.Errorf("what was asked for one claim: %v", asked)
			}
		}
		started := map[string]int{}
		_, all := w.export()
		for _, s := range all {
			for _, m := range s.Predicate.Changes {
				if m.Kind == writ.ObjectTask && m.From == "queued" && m.To == "running" {
					started[m.ID]++
				}
			}
		}
		for _, task := range tasks {
			if s := c.state(task); started[task] != 1 || s != writ.TaskDone {
				t.Errorf("%s was handed out %d times and is %s", task, started[task], s)
			}
		}
	})
}

// The gateway is killed while a run meets the end of its budget and is given
// more: afterwards every grant a person agreed to is there once, and the run
// waits exactly for what is asked.
func TestKilledWhileARunIsPaused(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		const budget, grant = 1, 5
		rng := random(t)
		c := w.riskyCast(t)
		alice := w.alice()
		for round := range shortRounds() {
			body := obj{"title": fmt.Sprintf("round %d", round), "budget": obj{"steps": budget}}
			alice.approve(c.orc.waits("POST", "/v1/runs", body))
			c.run = c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
			path := "/v1/runs/" + c.run
			var tasks []string
			for i := range 3 {
				tasks = append(tasks, c.enqueue(key(i), nil))
			}
			// work makes the calls for one task, and says whether it is done.
			work := func(gw *gateway, task string) (bool, error) {
				who := c.builder.at(gw)
				r, err := who.try("POST", "/v1/tasks/"+task+"/claim", nil, "Idempotency-Key", "claim-"+task)
				if err != nil || r.status != 200 {
					return false, err
				}
				l := leaseOf(r)
				r, err = who.try("POST", "/v1/tasks/"+task+"/complete", l.hold(nil), "Idempotency-Key", "complete-"+task)
				return r.status == 200, err
			}
			works := func() {
				for range 50 {
					left := 0
					for _, task := range tasks {
						done, err := work(w.gw[0], task)
						if err != nil {
							return
						}
						if !done {
							left++
						}
					}
					if left == 0 {
						return
					}
				}
			}
			moment := w.killed(rng, 80*time.Millisecond, works, func() { c.agrees(alice, path) }, func() { c.agrees(alice.at(w.last()), path) })

			// tally holds the run to what people agreed to.
			tally := func(when string) (pending string) {
				run, granted := c.op.ok(200, "GET", path, nil), int64(0)
				for _, a := range c.asked("run_id", c.run) {
					switch a["state"] {
					case "pending":
						if pending != "" {
							t.Fatalf("%s: %s and %s are asked for one run", when, pending, a["approval_id"])
						}
						pending = a["approval_id"].(string)
					case "consumed":
						granted++
					default:
						t.Fatalf("%s: %v", when, a)
					}
				}
				limit, used := run.num("budget", "steps", "limit"), run.num("budget", "steps", "used")
				if limit != budget+grant*granted || used > limit || run.str("waits_for") != pending || (pending != "") != (run.str("state") == "paused_approval") {
					t.Fatalf("%s: %d grants, %q is asked, and the run: %s", when, granted, pending, run)
				}
				return pending
			}
			pending := tally("after the kill")
			t.Logf("round %d: killed after %v, waiting for %q", round, moment, pending)
			for _, task := range tasks {
				within(t, 20*time.Second, "a task of the run is done", func() bool {
					if pending := tally("meanwhile"); pending != "" {
						alice.approve(pending)
					}
					done, err := work(w.gw[0], task)
					return done && err == nil
				})
			}
			if tally("at the end") != "" {
				t.Error("more is asked for than the run needs")
			}
			if n := len(c.asked("run_id", c.run)); n == 0 {
				t.Error("nothing was asked: this tested nothing")
			}
		}
		w.audited()
	})
}

// The gateway is killed while a person agrees to less and the caller does what
// they agreed to: afterwards the decision is whole or was not made, and the
// smaller call happens once.
func TestKilledWhileModifying(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		rng := random(t)
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc, alice := w.session("planner", writ.RoleOrchestrator, "planner"), w.alice()
		for round := range shortRounds() {
			name := fmt.Sprintf("k%d", round)
			all, less := obj{"title": name, "budget": obj{"steps": 9}}, obj{"title": name, "budget": obj{"steps": 3}}
			id := orc.waits("POST", "/v1/runs", all)
			tries := func(gw *gateway) func() {
				return func() {
					for range 200 {
						r, err := orc.at(gw).try("POST", "/v1/runs", all)
						if err == nil && r.str("details", "successor") != "" {
							r, err = orc.at(gw).try("POST", "/v1/runs", less, "Idempotency-Key", name)
						}
						if err != nil || r.status == 201 {
							return
						}
					}
				}
			}
			moment := w.killed(rng, 30*time.Millisecond, tries(w.gw[0]), tries(w.last()), func() {
				_, _ = alice.at(w.gw[0]).try("POST", "/v1/approvals/"+id+"/decision", obj{"decision": "modify", "args": less})
			})

			first := w.approval(id)
			next, made := first.str("superseded_by"), len(orc.ok(200, "GET", "/v1/runs", nil).at("runs").([]any))
			state := first.str("state")
			if state == "superseded" {
				state = w.approval(next).str("state")
			}
			t.Logf("round %d: killed after %v with the approval %s, the call %s", round, moment, first.str("state"), state)
			if want, ok := map[string]int{"pending": round, "approved": round, "consumed": round + 1}[state]; !ok || made != want {
				t.Fatalf("the approval is %s, what became of it %s, with %d runs in round %d", first.str("state"), state, made, round)
			}
			if state == "pending" {
				next = alice.modify(id, less)
			}
			orc.replaced(next, "POST", "/v1/runs", all)
			orc.ok(201, "POST", "/v1/runs", less, "Idempotency-Key", name)
			if n := len(orc.ok(200, "GET", "/v1/runs", nil).at("runs").([]any)); n != round+1 {
				t.Fatalf("%d runs after %d approvals", n, round+1)
			}
		}
		w.audited()
	})
}
