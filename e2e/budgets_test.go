package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// line is one dimension of a run's budget.
type line struct {
	Dimension                                          string
	Limit, Consumed, Reserved, Remaining, Warned, Base int64
}

// budget reads what a run has used, by dimension.
func (w *world) budget(run string) map[string]line {
	w.t.Helper()
	r := w.op.ok(200, "GET", "/v1/runs/"+run+"/budget", nil)
	var v struct{ Dimensions []line }
	if err := json.Unmarshal(r.body, &v); err != nil {
		w.t.Fatalf("%v: %s", err, r)
	}
	out := map[string]line{}
	for _, l := range v.Dimensions {
		out[l.Dimension] = l
	}
	return out
}

func (w *world) runState(run string) string {
	w.t.Helper()
	return w.op.ok(200, "GET", "/v1/runs/"+run, nil).str("state")
}

// child creates a run inside another.
func (c cast) child(parent string, budget obj) string {
	c.t.Helper()
	return c.orc.ok(201, "POST", "/v1/runs", obj{"parent_run_id": parent, "budget": budget}).str("run_id")
}

// A tree of runs four levels deep, worked on by 64 at once through every
// replica: no level passes its limit, nobody starves while there is budget, and
// at the end the root has used exactly what was done.
func TestATreeUnderLoad(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		root := c.newRun(200)
		var leaves []string
		for i := range 2 {
			one := c.child(root, obj{"steps": 90})
			for j := range 2 {
				two := c.child(one, obj{"steps": 44})
				for k := range 2 {
					leaves = append(leaves, c.child(two, obj{"steps": 20 - i - j - k}))
				}
				c.orc.ok(200, "POST", "/v1/runs/"+two+"/seal", nil)
			}
			c.orc.ok(200, "POST", "/v1/runs/"+one+"/seal", nil)
		}
		c.orc.ok(200, "POST", "/v1/runs/"+root+"/seal", nil)
		for i := range 11 { // more than any leaf can pay for
			for _, leaf := range leaves {
				c.run = leaf
				c.enqueue(key(i), nil)
			}
		}
		const workers = 64
		var spent, finished, over atomic.Int64
		var wg sync.WaitGroup
		for i := range workers {
			worker := c.builder
			if i > 0 {
				worker = c.another()
			}
			worker = worker.at(w.gw[i%len(w.gw)])
			wg.Go(func() {
				for over.Load() == 0 {
					r, err := worker.try("POST", "/v1/tasks/claim", obj{"wait_s": 1})
					if err != nil || r.status != 200 {
						continue
					}
					l, verb := leaseOf(r), "complete"
					if l.fence%7 == 0 { // some give the task back, and with it half of what it cost
						verb = "release"
					}
					if r, err = worker.try("POST", "/v1/tasks/"+l.task+"/"+verb, l.hold(nil)); err != nil || r.status != 200 {
						t.Errorf("what has begun cannot end: %v %s", err, r)
						return
					}
					if verb == "release" {
						spent.Add(writ.StepsOfAttempt - 1)
						continue
					}
					spent.Add(writ.StepsOfAttempt)
					finished.Add(1)
				}
			})
		}
		within(t, 90*time.Second, "the tree ends", func() bool { return w.runState(root) != "active" })
		over.Store(1)
		wg.Wait()
		if got := w.budget(root)["steps"]; got.Consumed != spent.Load() || got.Reserved != 0 || got.Consumed > got.Limit {
			t.Errorf("the root: %+v, and %d steps were spent", got, spent.Load())
		}
		for _, leaf := range leaves {
			if got := w.budget(leaf)["steps"]; got.Remaining >= writ.StepsOfAttempt || got.Consumed > got.Limit || got.Reserved != 0 {
				t.Errorf("a leaf starved, or spent too much: %+v", got)
			}
		}
		if finished.Load() < 40 {
			t.Errorf("only %d tasks were done", finished.Load())
		}
		w.audited()
	})
}

// Many children are asked for at once: those that fit are made, and no more.
func TestChildrenRaceForTheBudget(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		root := c.newRun(62)
		var made, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range 64 {
			orc := c.orc.at(w.gw[i%len(w.gw)])
			wg.Go(func() {
				for {
					r, err := orc.try("POST", "/v1/runs", obj{"parent_run_id": root, "budget": obj{"steps": 5}})
					switch {
					case err != nil:
						t.Error(err)
						return
					case r.status == 201:
						made.Add(1)
						return
					case r.status == 403 && r.code() == writ.CodeBudget:
						refused.Add(1)
						return
					case r.status != 503 && r.status != 429:
						t.Errorf("got %s", r)
						return
					}
				}
			})
		}
		wg.Wait()
		if made.Load() != 12 || refused.Load() != 52 {
			t.Errorf("%d were made and %d refused", made.Load(), refused.Load())
		}
		if got := w.budget(root)["steps"]; got.Reserved != 60 || got.Remaining != 2 || got.Consumed != 0 {
			t.Errorf("got %+v", got)
		}
		if s := w.runState(root); s != "active" {
			t.Errorf("the root is %s: asking for too much ends nothing", s)
		}
	})
}

// Killed between taking and giving back, a gateway loses no budget and makes
// none.
func TestKilledBetweenReserveAndSettle(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		root := c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 20, "storage_write_bytes": 200_000}}).str("run_id")
		c.run = c.child(root, obj{"steps": 8, "storage_write_bytes": 150_000})
		c.enqueue("one", obj{"lease_ttl_s": 10, "max_attempts": 1})
		l := c.builder.claimNext()
		if got := w.budget(c.run)["storage_write_bytes"]; got.Reserved != 48<<10 {
			t.Fatalf("got %+v", got)
		}
		w.crash()
		if got := w.budget(c.run)["steps"]; got.Reserved != 1 || got.Consumed != 1 {
			t.Fatalf("after a crash: %+v", got)
		}
		c.builder.complete(l)
		got := w.budget(c.run)
		if s, b := got["steps"], got["storage_write_bytes"]; s.Consumed != 2 || s.Reserved != 0 || b.Reserved != 0 || b.Consumed != int64(len(`{"ref":"main"}`)+len(`{"ok":true}`)) {
			t.Fatalf("got %+v", got)
		}
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/cancel", nil)
		w.crash() // most likely before it is settled
		within(t, 20*time.Second, "the child is settled", func() bool { return w.budget(root)["steps"].Reserved == 0 })
		got = w.budget(root)
		if s, b := got["steps"], got["storage_write_bytes"]; s.Consumed != 2 || b.Consumed != int64(len(`{"ref":"main"}`)+len(`{"ok":true}`)) {
			t.Fatalf("got %+v", got)
		}
		w.audited()
	})
}

// The complaints about budgets that do not hold, of users of an LLM proxy.

// A cap that many calls are checked against at once is kept: 99 dollars are
// not spent of 30.
func TestACapHoldsUnderConcurrency(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("spender", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "llm.ask", "safety": "mutating", "costs": obj{"cost_microusd": 3_000_000}}}})
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 1000, "cost_microusd": 30_000_000}}).str("run_id")
		const n = 33
		for i := range n {
			c.enqueue(key(i), obj{"capability": "llm.ask"})
		}
		var holds atomic.Int64
		var leases sync.Map
		var wg sync.WaitGroup
		for i := range n {
			spender := w.session(fmt.Sprintf("spender-%d", i), writ.RoleExecutor, "spender").at(w.gw[i%len(w.gw)])
			wg.Go(func() {
				r, err := spender.try("POST", "/v1/tasks/claim", obj{"wait_s": 2})
				if err == nil && r.status == 200 {
					holds.Add(1)
					leases.Store(spender, leaseOf(r))
				}
			})
		}
		wg.Wait()
		if holds.Load() != 10 {
			t.Errorf("%d calls of 3 dollars run within a cap of 30", holds.Load())
		}
		if got := w.budget(c.run)["cost_microusd"]; got.Reserved != 30_000_000 || got.Remaining != 0 || got.Warned != 80 {
			t.Errorf("got %+v", got)
		}
		// Work under way is not ended by others asking for more than there is.
		leases.Range(func(k, v any) bool {
			who, l := k.(caller), v.(lease)
			who.in(t).complete(l)
			return true
		})
		if got := w.budget(c.run)["cost_microusd"]; got.Consumed != 30_000_000 || got.Reserved != 0 {
			t.Errorf("got %+v", got)
		}
		within(t, 20*time.Second, "the run ends for want of money", func() bool { return w.runState(c.run) == "failed" })
		w.audited()
	})
}

// A cost nobody states is not taken for none.
func TestAnUnknownCostIsRefused(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w) // whose tool states nothing
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100, "cost_microusd": 1}}).str("run_id")
		task := c.enqueue("one", nil)
		r := c.builder.refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+task+"/claim", nil)
		if !strings.Contains(string(r.body), "budgets.unpriced") {
			t.Errorf("got %s", r)
		}
		if s := w.runState(c.run); s != "active" || c.state(task) != writ.TaskQueued {
			t.Errorf("the run is %s", s)
		}
		c.run = c.newRun(100) // where money is no matter it runs
		c.builder.claim(c.enqueue("one", nil))
	})
}

// What is held ready for the worst case starves nobody: as soon as less was
// used, others get it, and the run does not fail meanwhile.
func TestTheWorstCaseStarvesNobody(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 1000, "storage_write_bytes": 60_000}}).str("run_id")
		for i := range 8 {
			c.enqueue(key(i), nil)
		}
		second := c.another()
		for range 4 { // with hardly anything spent, only one fits at a time
			l := c.builder.claimNext()
			if l.task == "" {
				t.Fatal("nothing to do")
			}
			if r := second.do("POST", "/v1/tasks/claim", nil); r.status == 200 {
				t.Fatalf("two worst cases fit: %s", r)
			}
			c.builder.complete(l)
			within(t, 15*time.Second, "another gets it", func() bool {
				r := second.do("POST", "/v1/tasks/claim", obj{"wait_s": 2})
				if r.status == 200 {
					second.complete(leaseOf(r))
				}
				return r.status == 200
			})
		}
		if got := w.budget(c.run)["storage_write_bytes"]; got.Reserved != 0 || got.Consumed != 8*int64(len(`{"ref":"main"}`)+len(`{"ok":true}`)) {
			t.Errorf("got %+v", got)
		}
		if s := w.runState(c.run); s != "active" {
			t.Errorf("the run is %s", s)
		}
	})
}

// At half and at four fifths of a budget the caller is told, once each,
// whatever is given back and used again.
func TestWarningsComeOnce(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.newRun(10)
		for i := range 6 {
			c.enqueue(key(i), nil)
		}
		var told []string
		for i := range 8 {
			r := c.builder.do("POST", "/v1/tasks/claim", obj{"wait_s": 2})
			if r.status != 200 {
				break
			}
			told = append(told, r.header.Values("Budget-Warning")...)
			l := leaseOf(r)
			if i%2 == 0 {
				c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/release", l.hold(nil))
			} else {
				c.builder.complete(l)
			}
		}
		if got := strings.Join(told, " "); got != "steps=50 steps=80" {
			t.Errorf("told %q", got)
		}
		if got := w.budget(c.run)["steps"].Warned; got != 80 {
			t.Errorf("got %d", got)
		}
		metrics := caller{t: t, gw: w.gw[0]}.ok(200, "GET", "/metrics", nil)
		if !strings.Contains(string(metrics.body), `writ_budget_warnings_total{dimension="steps",percent="80"} 1`) {
			t.Error("the metrics do not say it")
		}
	})
}

// A run that has worked as long as it may ends, and its work with it.
func TestTimeIsALimit(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100, "wall_ms": 1500}}).str("run_id")
		c.enqueue("one", nil)
		c.enqueue("two", nil)
		l := c.builder.claimNext()
		within(t, 15*time.Second, "the run fails", func() bool { return w.runState(c.run) == "failed" })
		if r := c.op.ok(200, "GET", "/v1/runs/"+c.run, nil); r.str("reason") != "budget_exceeded" {
			t.Errorf("got %s", r)
		}
		if r := c.builder.do("POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil)); r.str("control") != "cancel" {
			t.Errorf("the holder is not told: %s", r)
		}
		c.orc.refused(409, writ.CodeIllegal, "POST", "/v1/tasks", c.task("three", nil))
		w.audited()
	})
}

// Nobody ends somebody else's run by asking for more than there is, or for what
// he may not have anyway.
func TestNobodyEndsARunByAsking(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		costs := func(money, memory int) obj {
			return obj{"tools": []obj{{"name": tool, "safety": "mutating", "costs": obj{"cost_microusd": money, "sandbox_mem_peak_bytes": memory}}}}
		}
		w.agent("dear", "web", "executor", "", []string{"fs:else/"}, costs(900_000, 5))
		w.agent("large", "web", "executor", "", []string{"fs:other/"}, costs(400_000, 10))
		w.agent("barred", "web", "executor", "", []string{"fs:third/"}, costs(400_000, 5))
		w.agent("fair", "web", "executor", "", []string{"fs:site/"}, costs(400_000, 5))
		w.agent("costly", "web", "executor", "", []string{"fs:fourth/"}, costs(300_000, 5))
		w.agent("cheap", "web", "executor", "", []string{"fs:fifth/"}, costs(50_000, 5))
		as := func(agent writ.AgentID) caller { return w.session(string(agent), writ.RoleExecutor, agent) }
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100, "cost_microusd": 500_000, "sandbox_mem_peak_bytes": 5}}).str("run_id")
		one, two := c.enqueue("one", nil), c.enqueue("two", obj{"write_scopes": []string{"fs:site/x/"}})
		goesOn := func(after string) {
			t.Helper()
			for range 8 { // as long as a sweep would take to end it
				if s := w.runState(c.run); s != "active" {
					t.Fatalf("after %s the run is %s", after, s)
				}
				time.Sleep(250 * time.Millisecond)
			}
		}
		as("dear").refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+one+"/claim", nil)
		as("large").refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+one+"/claim", nil)
		goesOn("tools that take more than there is")
		fair := as("fair")
		l := fair.claim(one)
		fair.complete(l)
		r := as("barred").refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+two+"/claim", nil)
		if !strings.Contains(string(r.body), "write_scopes.outside") {
			t.Fatalf("got %s", r)
		}
		goesOn("a claim that was not for that agent anyway")
		three := c.enqueue("three", nil)
		as("costly").refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+three+"/claim", nil)
		goesOn("a tool that takes more than is left, while another's takes less")
		cheap := as("cheap")
		cheap.complete(cheap.claim(three))
	})
}

// What follows from a denial follows too when its receipt is only counted: a task
// refused for want of budget is offered again once there is some.
func TestRefusedBeyondReceipts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 1000, "storage_write_bytes": 60_000}}).str("run_id")
		first, waits := c.enqueue("first", nil), c.enqueue("waits", nil)
		l := c.builder.claim(first)
		second, counted := c.another(), false
		for range 60 {
			r := second.refused(403, writ.CodeBudget, "POST", "/v1/tasks/"+waits+"/claim", nil)
			counted = counted || r.at("aggregated") == true
		}
		if !counted {
			t.Fatal("every denial had a receipt: this tested nothing")
		}
		if r := second.do("POST", "/v1/tasks/claim", nil); r.status == 200 { // set aside, by a refusal that is only counted
			t.Fatalf("got %s", r)
		}
		c.builder.complete(l)
		within(t, 15*time.Second, "the task is offered again", func() bool {
			r := second.do("POST", "/v1/tasks/claim", obj{"wait_s": 2})
			return r.status == 200 && r.str("task", "task_id") == waits
		})
	})
}

// A step with a budget of its own is worked on as often as that lasts, whoever gives it
// back however often; who would take more than is left may not take it, and when it is
// used up the step ends, not the run.
func TestAStepsOwnBudget(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		costs := func(n int) obj {
			return obj{"tools": []obj{{"name": "site.cost", "safety": "mutating", "costs": obj{"cost_microusd": n}}}}
		}
		w.agent("cheap", "web", "executor", "", []string{}, costs(300))
		w.agent("dear", "web", "executor", "", []string{}, costs(600))
		cheap, dear := w.session("cheap", writ.RoleExecutor, "cheap"), w.session("dear", writ.RoleExecutor, "dear").at(w.last())
		ordered := func(budget obj) obj {
			return obj{"budget": obj{"steps": 50, "cost_microusd": 5000}, "workflow": obj{"version": 1, "steps": obj{
				"limited": obj{"capability": "site.cost", "required_domain": "web", "backoff_ms": 0, "budget": budget}, "after": obj{"capability": tool, "required_domain": "web", "depends_on": []obj{{"key": "limited", "on_failure": "continue"}}},
			}}}
		}
		r := c.orc.refused(422, writ.CodeInputInvalid, "POST", "/v1/runs", ordered(obj{"cost_microusd": 5001}))
		if !strings.Contains(string(r.body), `"pointer":"/budget/cost_microusd"`) {
			t.Errorf("got %s", r)
		}
		c.run = c.orc.ok(201, "POST", "/v1/runs", ordered(obj{"cost_microusd": 700})).str("run_id")
		ids := map[string]string{}
		within(t, 10*time.Second, "all steps are tasks", func() bool {
			return c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).at("workflow", "unfolded") == true
		})
		list, _ := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run, nil).at("tasks").([]any)
		for _, v := range list {
			ids[v.(map[string]any)["key"].(string)] = v.(map[string]any)["task_id"].(string)
		}
		task := "/v1/tasks/" + ids["limited"]
		used := func(want int64) {
			t.Helper()
			if r := w.op.at(w.last()).ok(200, "GET", task, nil); r.num("budget", "cost_microusd", "used") != want || r.num("budget", "cost_microusd", "remaining") != 700-want {
				t.Errorf("want %d used: %s", want, r)
			}
		}
		used(0)
		l := cheap.claim(ids["limited"])
		cheap.ok(200, "POST", task+"/release", l.hold(nil))
		used(300)
		w.crash()
		r = dear.at(w.last()).refused(403, writ.CodeNotEligible, "POST", task+"/claim", nil)
		if r.str("details", "reason") != "budget" || r.receipt() == "" {
			t.Errorf("got %s", r)
		}
		dear.ok(204, "POST", "/v1/tasks/claim", nil)
		l = cheap.claim(ids["limited"])
		used(600)
		if r := cheap.ok(200, "POST", task+"/release", l.hold(nil)); r.str("state") != "dead" || r.str("failure", "code") != "budget" {
			t.Errorf("got %s", r)
		}
		c.becomes(ids["after"], writ.TaskQueued)
		if b := w.budget(c.run)["cost_microusd"]; b.Consumed != 600 {
			t.Errorf("the run is charged %+v", b)
		}
		c.orc.refused(422, writ.CodeNoAgent, "POST", "/v1/tasks", obj{"run_id": c.newRun(9), "key": "none", "capability": "site.cost", "required_domain": "web", "budget": obj{"llm_tokens": 9}})
		w.audited()
	})
}
