package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// A task of the parent run holds a scope and waits for the child run, whose task waits
// for that scope: who waits is taken back within two looks, with a receipt that names
// the circle, and both runs come to their end.
func TestO3T2AParentAndItsChildWaitForEachOther(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		outer := c.enqueue("outer", obj{"write_scopes": []string{"fs:repo/"}})
		l := c.builder.claim(outer)
		child := c.orc.ok(201, "POST", "/v1/runs", obj{"parent_run_id": c.run, "budget": obj{"steps": 20}}).str("run_id")
		inner := c.orc.ok(201, "POST", "/v1/tasks", obj{"run_id": child, "key": "inner", "capability": tool, "required_domain": "web", "write_scopes": []string{"fs:repo/docs/"}}).str("task_id")
		c.orc.ok(200, "POST", "/v1/runs/"+child+"/seal", nil)
		helper := c.another()
		waiting := helper.poll()

		beat := func(more obj) reply { return c.builder.do("POST", "/v1/tasks/"+outer+"/heartbeat", l.hold(more)) }
		for _, id := range []string{outer, "run_01J00000000000000000000001"} {
			c.builder.refused(422, "input_invalid", "POST", "/v1/tasks/"+outer+"/heartbeat", l.hold(obj{"awaits": []string{id}}))
		}
		begun := time.Now()
		within(t, 25*time.Second, "the holder that waits is taken back", func() bool {
			r := beat(obj{"awaits": []string{child}})
			return r.status == 409 && r.str("code") == "lease_lost"
		})
		t.Logf("taken back %v after it said that it waits", time.Since(begun))
		task := w.op.ok(200, "GET", "/v1/tasks/"+outer, nil)
		if task.str("state") != "queued" || task.str("failure", "code") != "deadlock" {
			t.Fatalf("got %s", task)
		}
		r := <-waiting
		if r.status != 200 { // its wait ended before: it asks again
			r = helper.ok(200, "POST", "/v1/tasks/claim", obj{"wait_s": 10})
		}
		if h := leaseOf(r); h.task == inner {
			helper.complete(h)
		} else {
			t.Fatalf("got %s", r)
		}
		if s := w.runState(child); s != "done" {
			t.Errorf("the child run is %s", s)
		}
		l = lease{}
		within(t, 20*time.Second, "what was taken back is tried again", func() bool {
			l = c.builder.claimNext()
			return l.task == outer
		})
		c.builder.complete(l)

		_, all := w.export()
		found := 0
		for _, s := range all {
			if s.Predicate.Transition != "task.untangle" || len(s.Predicate.Changes) == 0 {
				continue
			}
			found++
			if m := s.Predicate.Changes[0]; m.ID != outer || m.From != "running" || m.To != "queued" {
				t.Errorf("%+v", m)
			}
		}
		if found != 1 {
			t.Errorf("%d receipts of a circle taken apart", found)
		}
		w.audited()
	})
}

// A run in which nothing can go on says so, to whoever asks and by a receipt; one that
// is to fail then does. One that goes on again says that too.
func TestO3Stalls(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		lost := obj{"title": "lost", "budget": obj{"steps": 20}, "stall_after_s": 10}
		run := c.orc.ok(201, "POST", "/v1/runs", lost).str("run_id")
		fails := c.orc.ok(201, "POST", "/v1/runs", obj{"title": "fails", "budget": obj{"steps": 20}, "stall_after_s": 10, "on_stall": "fail"}).str("run_id")
		works := c.orc.ok(201, "POST", "/v1/runs", obj{"title": "works", "budget": obj{"steps": 20}, "stall_after_s": 10, "on_stall": "fail"}).str("run_id")
		w.agent("gone", "web", "executor", "site.gone", []string{}, nil)
		enqueue := func(run, key, tool string) string {
			return c.orc.ok(201, "POST", "/v1/tasks", obj{"run_id": run, "key": key, "capability": tool, "required_domain": "web"}).str("task_id")
		}
		task := enqueue(run, "one", "site.gone")
		enqueue(fails, "one", "site.gone")
		l := c.builder.claim(enqueue(works, "one", tool))
		enqueue(works, "two", "site.gone")
		w.op.ok(200, "POST", "/v1/agents/gone/suspend", nil)
		stalled := func(run string) string { return w.op.ok(200, "GET", "/v1/runs/"+run, nil).str("stalled_at") }
		within(t, 40*time.Second, "the run is stalled", func() bool {
			c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil))
			return stalled(run) != ""
		})
		within(t, 40*time.Second, "the other run fails", func() bool { return w.runState(fails) == "failed" })
		if r := w.op.ok(200, "GET", "/v1/runs/"+fails, nil); r.str("reason") != "stalled" || !strings.Contains(string(r.body), `"state":"failed"`) {
			t.Errorf("got %s", r)
		}
		if s := stalled(works); s != "" || w.runState(works) != "active" {
			t.Errorf("somebody works in it: stalled since %s", s)
		}
		w.op.ok(200, "POST", "/v1/agents/gone/activate", nil)
		w.session("gone", writ.RoleExecutor, "gone")
		within(t, 40*time.Second, "the run goes on", func() bool { return stalled(run) == "" })
		c.orc.ok(200, "POST", "/v1/tasks/"+task+"/cancel", nil)
		w.audited()
	})
}
