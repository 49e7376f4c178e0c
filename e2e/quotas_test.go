package e2e

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// quota sets one and returns its id.
func (w *world) quota(metric, subject, value string, limit int, more obj) string {
	w.t.Helper()
	b := obj{"metric": metric, "subject": subject, "limit": limit}
	if value != "" {
		b["value"] = value
	}
	for k, v := range more {
		b[k] = v
	}
	return w.op.ok(201, "POST", "/v1/quotas", b).str("quota_id")
}

func (w *world) used(id string) int64 {
	w.t.Helper()
	return w.op.at(w.last()).ok(200, "GET", "/v1/quotas/"+id, nil).num("used")
}

// early waits for a time at which a minute has some left, on the clock that this
// machine and its stores share.
func early() {
	if s := time.Now().Second(); s > 40 {
		time.Sleep(time.Duration(61-s) * time.Second)
	}
}

// overQuota checks the refusal of a call that is over a quota.
func overQuota(t *testing.T, r reply, id, metric string) {
	t.Helper()
	if r.status != 429 || r.code() != writ.CodeQuota || r.header.Get("Retry-After") == "" ||
		r.str("details", "quota") != id || r.str("details", "metric") != metric || r.str("details", "limit") == "" {
		t.Errorf("want a refusal by quota %s on %s: %s", id, metric, r)
	}
}

// The call after the last is refused with the quota and when to come back; the
// first refusal has a receipt, the others of the window are counted; others and
// reads are not held to it; whoever takes the quota away lets the next one through.
func TestO2T1T4OneTooMany(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		early()
		id := w.quota("invocations_per_min", "session", string(c.orc.id), 2, nil)
		create := func(by caller) reply { return by.do("POST", "/v1/runs", obj{"budget": obj{"steps": 5}}) }
		for i := range 2 {
			if r := create(c.orc.at(w.gw[i%len(w.gw)])); r.status != 201 {
				t.Fatalf("call %d: %s", i, r)
			}
		}
		first := create(c.orc)
		overQuota(t, first, id, "invocations_per_min")
		if first.str("receipt") == "" || first.at("aggregated") == true {
			t.Errorf("the first refusal has no receipt: %s", first)
		}
		for i := range 6 {
			r := create(c.orc.at(w.gw[i%len(w.gw)]))
			overQuota(t, r, id, "invocations_per_min")
			if r.str("receipt") != "" || r.at("aggregated") != true {
				t.Errorf("another refusal of the window: %s", r)
			}
		}
		c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil)
		other := w.session("planner", writ.RoleOrchestrator, "planner")
		if r := create(other); r.status != 201 {
			t.Errorf("another session: %s", r)
		}
		if used := w.used(id); used != 2 {
			t.Errorf("used %d", used)
		}
		w.op.at(w.last()).ok(200, "POST", "/v1/quotas/"+id+"/delete", nil)
		if r := create(c.orc); r.status != 201 {
			t.Errorf("without the quota: %s", r)
		}
		denials, evidence := 0, ""
		_, all := w.export()
		for _, s := range all {
			if s.Predicate.Outcome == writ.OutcomeOfDenial && s.Predicate.Actor.Session == c.orc.id {
				denials++
				evidence = string(w.op.ok(200, "GET", "/v1/receipts/"+first.str("receipt")+"/evidence", nil).body)
			}
		}
		if denials != 1 {
			t.Errorf("%d receipts of denials", denials)
		}
		if want := `"quota":"` + id + `"`; !strings.Contains(evidence, want) {
			t.Errorf("the evidence does not name the quota: %s", evidence)
		}
		if r := (caller{t: t, gw: w.gw[0]}).do("GET", "/metrics", nil); !strings.Contains(string(r.body), `writ_quota_refused_total{metric="invocations_per_min"}`) {
			t.Error("the metrics do not count refusals")
		}
	})
}

// rush makes a call 64 times at once, at every replica, and counts those that pass; what
// was turned away before it was looked at is made again.
func (w *world) rush(call func(i int, at *gateway) (reply, error)) (passed int, over reply) {
	w.t.Helper()
	var mu sync.Mutex
	each(callers, func(i int) {
		for {
			r, err := call(i, w.gw[i%len(w.gw)])
			mu.Lock()
			retry := false
			switch {
			case err != nil:
				w.t.Error(err)
			case r.status >= 200 && r.status <= 202:
				passed++
			case r.code() == writ.CodeQuota:
				over = r
			case r.code() == writ.CodeContention || r.code() == writ.CodePolicyDown || r.code() == writ.CodeBackpressure:
				retry = true
			default:
				w.t.Errorf("neither passed nor over: %s", r)
			}
			mu.Unlock()
			if !retry {
				return
			}
			time.Sleep(5 * time.Millisecond) // less than it asks for
		}
	})
	return passed, over
}

// Of 64 callers who meet at a quota, at every replica, exactly as many pass as it
// says: for what counts how many there are, for what is used in a day, and for calls
// in a minute.
func TestO2T2ExactlyAsManyPass(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const most = 20
		queued := w.quota("queued_tasks", "tenant", "", most, nil)
		passed, over := w.rush(func(i int, at *gateway) (reply, error) {
			return c.orc.at(at).insist("POST", "/v1/tasks", c.task(key(i), nil))
		})
		overQuota(t, over, queued, "queued_tasks")
		if used := w.used(queued); passed != most || used != most {
			t.Errorf("%d of %d wait, counted %d", passed, most, used)
		}
		w.op.ok(200, "POST", "/v1/quotas/"+queued+"/delete", nil)

		zero, one := 0, 1
		w.agent("priced", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "site.cost", "safety": "mutating", "costs": obj{"llm_tokens": one, "cost_microusd": zero}}}})
		worker := w.session("priced", writ.RoleExecutor, "priced")
		var tasks []string
		for i := range callers {
			tasks = append(tasks, c.enqueue(fmt.Sprint("cost-", i), obj{"capability": "site.cost"}))
		}
		tokens := w.quota("tokens_per_day", "agent", "priced", most, nil)
		passed, over = w.rush(func(i int, at *gateway) (reply, error) {
			return worker.at(at).insist("POST", "/v1/tasks/"+tasks[i]+"/claim", nil)
		})
		overQuota(t, over, tokens, "tokens_per_day")
		if used := w.used(tokens); passed != most || used != most {
			t.Errorf("%d of %d were claimed, counted %d", passed, most, used)
		}
		w.op.ok(200, "POST", "/v1/quotas/"+tokens+"/delete", nil)

		early()
		calls := w.quota("invocations_per_min", "capability", "run.create", most, nil)
		passed, over = w.rush(func(i int, at *gateway) (reply, error) {
			return c.orc.at(at).insist("POST", "/v1/runs", obj{"budget": obj{"steps": 1}})
		})
		overQuota(t, over, calls, "invocations_per_min")
		minutes := map[int64]int{}
		_, log := w.export()
		for _, s := range log {
			if s.Predicate.Transition == "run.create" && s.Predicate.Outcome == writ.OutcomeOfTransition && s.Predicate.Run != c.run {
				minutes[s.Predicate.Commit.At.Unix()/60]++
			}
		}
		for minute, n := range minutes {
			if n > most {
				t.Errorf("%d calls in minute %d", n, minute)
			}
		}
		if len(minutes) == 1 && passed != most {
			t.Errorf("%d of %d calls passed", passed, most)
		}
	})
}

// The same of claims: for what is under way, for what it costs and for how many there
// are in a minute; and of requests for approval that are open.
func TestO2T2ExactlyAsManyClaimAndAsk(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const most = 20
		w.agent("worker", "web", "executor", "", []string{}, obj{"tools": []obj{
			{"name": "site.cost", "safety": "mutating", "costs": obj{"llm_tokens": 0, "cost_microusd": 3}},
			{"name": "mail.send", "safety": "mutating", "approval": "manual"},
		}})
		worker := w.session("worker", writ.RoleExecutor, "worker")
		for _, q := range []struct {
			metric, subject, value string
			each                   int64 // what one claim comes to
		}{
			{"running_tasks", "capability", "site.cost", 1},
			{"cost_microusd_per_day", "agent", "worker", 3},
			{"claims_per_min", "session", string(worker.id), 1},
		} {
			tasks := make([]string, callers)
			w.rush(func(i int, at *gateway) (reply, error) {
				name := fmt.Sprint(strings.ReplaceAll(q.metric, "_", "-"), "-", i)
				r, err := c.orc.at(at).insist("POST", "/v1/tasks", c.task(name, obj{"capability": "site.cost"}))
				tasks[i] = r.str("task_id")
				return r, err
			})
			if q.metric == "claims_per_min" {
				early()
			}
			id := w.quota(q.metric, q.subject, q.value, most*int(q.each)+int(q.each)-1, nil)
			before := w.used(id)
			passed, over := w.rush(func(i int, at *gateway) (reply, error) {
				return worker.at(at).insist("POST", "/v1/tasks/"+tasks[i]+"/claim", nil)
			})
			overQuota(t, over, id, q.metric)
			if used := w.used(id); before != 0 || passed != most || used != most*q.each {
				t.Errorf("%s: %d of %d were claimed, counted %d after %d", q.metric, passed, most, used, before)
			}
			w.op.ok(200, "POST", "/v1/quotas/"+id+"/delete", nil)
		}

		open := w.quota("open_approvals", "role", "orchestrator", most, nil)
		passed, over := w.rush(func(i int, at *gateway) (reply, error) {
			return c.orc.at(at).insist("POST", "/v1/tasks", c.task(fmt.Sprint("mail-", i), obj{"capability": "mail.send"}))
		})
		overQuota(t, over, open, "open_approvals")
		pending, _ := w.op.ok(200, "GET", "/v1/approvals?state=pending&limit=100", nil).at("approvals").([]any)
		if used := w.used(open); passed != most || used != most || len(pending) != most {
			t.Errorf("%d of %d asked, %d are open, counted %d", passed, most, len(pending), used)
		}
		w.audited()
	})
}

// A window ends by the store's clock: whoever comes back when the refusal said passes,
// at any replica, and by the receipts it is another minute.
func TestO2T3TheWindowEndsByTheStoresClock(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		id := w.quota("invocations_per_min", "session", string(c.orc.id), 1, nil)
		create := func(at *gateway) reply { return c.orc.at(at).do("POST", "/v1/runs", obj{"budget": obj{"steps": 5}}) }
		first, refused := create(w.gw[0]), create(w.last())
		if first.status != 201 {
			t.Fatalf("got %s", first)
		}
		if refused.status != 201 { // the minute may have ended between the two
			overQuota(t, refused, id, "invocations_per_min")
			after, err := strconv.Atoi(refused.header.Get("Retry-After"))
			if err != nil || after < 1 || after > 60 {
				t.Fatalf("Retry-After %q", refused.header.Get("Retry-After"))
			}
			time.Sleep(time.Duration(after) * time.Second)
			if r := create(w.last()); r.status != 201 {
				t.Errorf("when it said: %s", r)
			}
		}
		var minutes []int64
		_, all := w.export()
		for _, s := range all {
			if p := s.Predicate; p.Transition == "run.create" && p.Outcome == writ.OutcomeOfTransition && p.Run != c.run {
				minutes = append(minutes, p.Commit.At.Unix()/60)
			}
		}
		if len(minutes) != 2 || minutes[0] == minutes[1] || w.used(id) != 1 {
			t.Errorf("calls in the minutes %v, used %d", minutes, w.used(id))
		}
		w.audited()
	})
}

// A claim that waits for work passes over what a quota keeps from it, and takes the
// rest; with nothing else there the quota says whether it is refused or waits on.
func TestClaimsPassOverWhatIsUsedUp(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("both", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "site.first", "safety": "mutating"}, {"name": "site.second", "safety": "mutating"}}})
		both := w.session("both", writ.RoleExecutor, "both")
		id := w.quota("running_tasks", "capability", "site.first", 0, nil)
		c.enqueue("kept", obj{"capability": "site.first", "priority": 9})
		taken := c.enqueue("free", obj{"capability": "site.second", "priority": 1})
		if l := both.claimNext(); l.task != taken {
			t.Errorf("claimed %+v", l)
		}
		overQuota(t, both.do("POST", "/v1/tasks/claim", obj{"wait_s": 5}), id, "running_tasks")

		w.op.ok(200, "POST", "/v1/quotas", obj{"metric": "running_tasks", "subject": "capability", "value": "site.first", "limit": 0, "action": "queue"})
		waiting := both.poll()
		if r := both.do("POST", "/v1/tasks/claim", nil); r.status != 204 && r.code() != writ.CodeBackpressure {
			t.Errorf("a claim that waits on: %s", r)
		}
		second := c.enqueue("more", obj{"capability": "site.second"})
		if r := <-waiting; r.status != 200 || r.str("task", "task_id") != second {
			t.Errorf("a claim that waited: %s", r)
		}
	})
}

// So does one that looks at what was refused to others first.
func TestClaimsPassOverWhatIsUsedUpAmongWhatWasSetAside(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		tools := []obj{{"name": "site.first", "safety": "mutating"}, {"name": "site.second", "safety": "mutating"}}
		w.agent("narrow", "web", "executor", "", []string{"fs:other/"}, obj{"tools": tools})
		w.agent("both", "web", "executor", "", []string{"fs:site/"}, obj{"tools": tools})
		var tasks []string
		for _, name := range []string{"first", "second"} {
			task := c.enqueue(name, obj{"capability": "site." + name, "write_scopes": []string{"fs:site/" + name + "/"}})
			w.session("narrow", writ.RoleExecutor, "narrow").ok(204, "POST", "/v1/tasks/claim", nil)
			if by, _ := w.op.ok(200, "GET", "/v1/tasks/"+task, nil).at("refused_to").([]any); len(by) != 1 {
				t.Fatalf("refused to %v", by)
			}
			tasks = append(tasks, task)
		}
		w.quota("running_tasks", "capability", "site.first", 0, nil)
		both := w.session("both", writ.RoleExecutor, "both")
		if l := both.claimNext(); l.task != tasks[1] {
			t.Errorf("claimed %+v", l)
		}
		both.ok(204, "POST", "/v1/tasks/claim", nil)
	})
}

// Open requests for approval are a level as well: they count until people decide.
func TestOpenApprovalsAreLimited(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("mailer", "web", "executor", "", []string{}, obj{"tools": []obj{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}})
		id := w.quota("open_approvals", "role", "orchestrator", 2, nil)
		ask := func(key string) reply {
			return c.orc.do("POST", "/v1/tasks", c.task(key, obj{"capability": "mail.send"}))
		}
		one := c.orc.waits("POST", "/v1/tasks", c.task("mail-1", obj{"capability": "mail.send"}))
		c.orc.waits("POST", "/v1/tasks", c.task("mail-2", obj{"capability": "mail.send"}))
		c.orc.waits("POST", "/v1/tasks", c.task("mail-2", obj{"capability": "mail.send"})) // the same request
		overQuota(t, ask("mail-3"), id, "open_approvals")
		if n := w.used(id); n != 2 {
			t.Errorf("%d are open", n)
		}
		w.alice().deny(one)
		if n := w.used(id); n != 1 {
			t.Errorf("%d are open", n)
		}
		if r := ask("mail-3"); r.status != 202 {
			t.Errorf("with room again: %s", r)
		}
	})
}

// Killed at any moment under load, what is counted is what there is.
func TestLevelsAfterKills(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		rng := random(t)
		queued, running := w.quota("queued_tasks", "tenant", "", 1000, nil), w.quota("running_tasks", "tenant", "", 1000, nil)
		rounds := 3
		if soak() {
			rounds = 30
		}
		for round := range rounds {
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 8 {
				own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
				orc, worker := c.orc.at(w.gw[i%len(w.gw)]), c.another().at(w.gw[i%len(w.gw)])
				wg.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						made, err := orc.try("POST", "/v1/tasks", c.task(fmt.Sprintf("t-%d-%d-%d", round, i, n), obj{"backoff_ms": 0, "lease_ttl_s": own.IntN(2) + 1}))
						if err != nil || made.status != 201 {
							continue
						}
						task := made.str("task_id")
						if own.IntN(4) == 0 {
							_, _ = orc.try("POST", "/v1/tasks/"+task+"/cancel", nil)
							continue
						}
						r, err := worker.try("POST", "/v1/tasks/"+task+"/claim", nil)
						if err != nil || r.status != 200 || own.IntN(4) == 0 { // the lease ends by itself
							continue
						}
						l := leaseOf(r)
						verb := []string{"complete", "release"}[own.IntN(2)]
						_, _ = worker.try("POST", "/v1/tasks/"+task+"/"+verb, l.hold(nil))
					}
				})
			}
			time.Sleep(time.Duration(300+rng.IntN(500)) * time.Millisecond)
			w.gw[rng.IntN(len(w.gw))].kill()
			time.Sleep(100 * time.Millisecond)
			close(stop)
			wg.Wait()
			w.crash()
			w.t.Log("round", round, "queued", w.used(queued), "running", w.used(running))
			within(t, 20*time.Second, "what is counted is what there is", func() bool {
				return w.used(queued) == c.in("queued")+c.in("blocked") && w.used(running) == c.in("running")
			})
		}
		if w.used(queued) == 0 {
			t.Error("this tested nothing")
		}
	})
}

// in counts the tasks of the run in a state.
func (c cast) in(state string) (n int64) {
	c.t.Helper()
	after := ""
	for {
		path := "/v1/tasks?run_id=" + c.run + "&state=" + state + "&limit=100"
		if after != "" {
			path += "&after=" + after
		}
		r := c.op.ok(200, "GET", path, nil)
		list, _ := r.at("tasks").([]any)
		n += int64(len(list))
		if after = r.str("next"); after == "" {
			return n
		}
	}
}

// Every way to make a task counts, and ends are free.
func TestQuotasOfTasksMadeOtherwise(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.op.ok(201, "POST", "/v1/quotas", obj{"subject": "tenant", "metric": "queued_tasks", "limit": 1})
		held := c.builder.claim(c.enqueue("held", nil))
		given := obj{"run_id": c.run, "to": "builder", "task": obj{"key": "given", "capability": tool}}
		id := c.orc.ok(201, "POST", "/v1/agents/delegate", given).str("task", "task_id")
		given["task"] = obj{"key": "more", "capability": tool}
		c.orc.refused(429, "quota_exceeded", "POST", "/v1/agents/delegate", given)
		next := held.hands(obj{"task": obj{"key": "next", "capability": tool}}, nil)
		c.builder.refused(429, "quota_exceeded", "POST", "/v1/tasks/"+held.task+"/handoff", next)
		c.orc.ok(200, "POST", "/v1/tasks/"+id+"/cancel", nil)
		r := c.builder.ok(200, "POST", "/v1/tasks/"+held.task+"/handoff", next)
		c.orc.refused(429, "quota_exceeded", "POST", "/v1/agents/delegate", given)
		c.builder.complete(c.builder.claim(r.str("next", "task_id")))
		c.orc.ok(201, "POST", "/v1/agents/delegate", given)
		w.audited()
	})
}

// Bytes of workflows count until every step is a task or the run has ended, also of those
// that come at once, at two replicas.
func TestO2T2BytesOfWorkflows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		flow := graph(map[string]obj{"aa": plain(obj{"args": obj{"text": strings.Repeat("x", 1000)}})}, nil)
		kept := c.create(c.orc, flow, nil)
		c.unfolded(kept)
		bytes := w.quota("artifact_bytes", "tenant", "", 5000, nil)
		room := w.quota("queued_tasks", "tenant", "", 0, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var runs []string
		for i := range 8 {
			wg.Go(func() {
				r := c.orc.at(w.gw[i%len(w.gw)]).do("POST", "/v1/runs", obj{"title": fmt.Sprint(i), "budget": obj{"steps": 9}, "workflow": flow})
				switch mu.Lock(); {
				case r.status == 201:
					runs = append(runs, r.str("run_id"))
				default:
					overQuota(t, r, bytes, "artifact_bytes")
				}
				mu.Unlock()
			})
		}
		wg.Wait()
		used := w.used(bytes)
		if len(runs) != 4 || used < 4000 || used > 5000 || used%4 != 0 {
			t.Fatalf("%d fitted, %d bytes are counted", len(runs), used)
		}
		c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 9}}) // has none
		c.orc.ok(200, "POST", "/v1/runs/"+runs[0]+"/cancel", nil)
		if now := w.used(bytes); now != used/4*3 {
			t.Errorf("one was cancelled, and %d of %d bytes are counted", now, used)
		}
		runs[0] = c.create(c.orc, flow, nil)
		w.stopped(func() { w.examined() })
		w.op.ok(200, "POST", "/v1/quotas/"+room+"/delete", nil)
		for _, run := range runs {
			c.unfolded(run)
		}
		if now := w.used(bytes); now != 0 {
			t.Errorf("every step is a task, and %d bytes are counted", now)
		}
		w.audited()
	})
}

// Bytes of artifacts that are put at once, at two replicas, never come to more than the
// quota; what is replaced makes room.
func TestO2T2BytesOfArtifacts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		id := w.quota("artifact_bytes", "tenant", "", 100, nil)
		type held struct {
			caller
			lease
		}
		var all []held
		for i := range 4 {
			task := c.enqueue(fmt.Sprintf("t%d-x", i), obj{"produces": []obj{made("site", "text/plain", nil)}})
			by := c.builder
			if i%2 == 1 {
				by = by.at(w.last())
			}
			all = append(all, held{by, by.claim(task)})
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		fit := 0
		for _, h := range all {
			wg.Go(func() {
				r := h.do("PUT", putPath(h.lease, "site"), strings.Repeat("x", 30))
				switch mu.Lock(); {
				case r.status == 201:
					fit++
				default:
					overQuota(t, r, id, "artifact_bytes")
				}
				mu.Unlock()
			})
		}
		wg.Wait()
		if used := w.used(id); fit != 3 || used != 90 {
			t.Fatalf("%d fitted, %d bytes are counted", fit, used)
		}
		for _, h := range all {
			if r := h.do("PUT", putPath(h.lease, "site"), strings.Repeat("y", 10)); r.status != 201 {
				t.Errorf("got %s", r)
			}
		}
		if used := w.used(id); used != 40 {
			t.Errorf("%d bytes are counted", used)
		}
		w.audited()
	})
}
