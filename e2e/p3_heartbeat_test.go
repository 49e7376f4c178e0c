package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// A holder that goes silent loses its task to another attempt, and what it
// brings later is refused.
func TestP3T1SilentHolderLosesTheTask(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		task := c.enqueue("slow", obj{"lease_ttl_s": 1, "backoff_ms": 0})
		stale := c.builder.claim(task)
		r := <-second.poll()
		if r.status != 200 || r.str("task", "task_id") != task || r.num("task", "attempt") != 2 {
			t.Fatalf("after the lease ended: %s", r)
		}
		fresh := leaseOf(r)
		if fresh.fence <= stale.fence {
			t.Fatalf("the fence went from %d to %d", stale.fence, fresh.fence)
		}
		late := c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+task+"/complete", stale.hold(obj{"result": obj{"from": "stale"}}))
		if late.receipt() == "" {
			t.Fatalf("no receipt: %s", late)
		}
		for _, verb := range []string{"heartbeat", "release"} {
			c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+task+"/"+verb, stale.hold(nil))
		}
		second.ok(200, "POST", "/v1/tasks/"+task+"/complete", fresh.hold(obj{"result": obj{"from": "fresh"}}))
		if r := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("result", "from") != "fresh" || r.str("state") != "done" {
			t.Fatalf("the task: %s", r)
		}

		_, all := w.export()
		expired := 0
		for _, s := range all {
			if s.Predicate.Transition == "task.expire" && s.Predicate.Task == task {
				expired++
			}
		}
		if expired != 1 {
			t.Errorf("%d receipts of an expiry, want 1", expired)
		}
	})
}

// A heartbeat keeps the lease for longer than it would last without.
func TestP3HeartbeatKeepsTheLease(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("slow", obj{"lease_ttl_s": 1, "backoff_ms": 0}))
		path := "/v1/tasks/" + l.task
		began, seq := time.Now(), 0
		within(t, 10*time.Second, "two seconds of heartbeats", func() bool {
			seq++
			r := c.builder.ok(200, "POST", path+"/heartbeat", l.hold(obj{"progress": obj{"pct": min(seq, 100), "seq": seq}}))
			if r.str("control") != "continue" {
				t.Fatalf("heartbeat: %s", r)
			}
			return time.Since(began) > 2*time.Second
		})
		r := c.builder.refused(409, "version_conflict", "POST", path+"/heartbeat", l.hold(obj{"progress": obj{"pct": 1, "seq": 1}}))
		if r.str("details", "reason") != "stale" {
			t.Fatalf("an old report: %s", r)
		}
		c.builder.refused(412, "version_conflict", "POST", path+"/heartbeat", l.hold(nil), "If-Match", `"1"`)
		if r := c.builder.complete(l); r.num("attempt") != 1 {
			t.Fatalf("the lease ended in between: %s", r)
		}
	})
}

// Only the holder's session renews a lease, whatever it knows of it.
func TestP3T2HeartbeatBySomebodyElse(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("builder-2", "web", "executor", tool, []string{"fs:other/"}, nil)
		l := c.builder.claim(c.enqueue("one", nil))
		for _, other := range []caller{c.another(), w.session("builder-2", "executor", "builder-2").at(w.last())} {
			other.refused(403, "not_holder", "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil))
		}
		c.orc.refused(403, "rbac_denied", "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil))
		c.builder.complete(l)
	})
}

// Cancelling a run reaches the holder with its next heartbeat; then the task
// ends cancelled, whether it is given back or its lease runs out.
func TestP3T3CancelReachesTheHolder(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		short := obj{"lease_ttl_s": 2, "backoff_ms": 0}
		given, silent := c.builder.claim(c.enqueue("given-back", short)), c.builder.claim(c.enqueue("silent", short))
		queued := c.enqueue("queued", nil)
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/cancel", nil)
		for _, l := range []lease{given, silent} {
			r := c.builder.at(w.last()).ok(200, "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil))
			if r.str("control") != "cancel" {
				t.Fatalf("heartbeat after the cancel: %s", r)
			}
		}
		r := c.builder.do("POST", "/v1/tasks/"+given.task+"/complete", given.hold(nil))
		if r.status != 409 || r.code() != "illegal_transition" {
			t.Fatalf("completing work of a cancelled run: %s", r)
		}
		if r := c.builder.ok(200, "POST", "/v1/tasks/"+given.task+"/release", given.hold(nil)); r.str("state") != "cancelled" {
			t.Fatalf("released: %s", r)
		}
		within(t, 10*time.Second, "the silent task and the queued one are cancelled", func() bool {
			return c.state(silent.task) == "cancelled" && c.state(queued) == "cancelled"
		})
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("work of a cancelled run was handed out: %s", r)
		}
	})
}

// A single task can be called back too.
func TestP3T3TaskCancelReachesTheHolder(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		r := c.orc.ok(200, "POST", "/v1/tasks/"+l.task+"/cancel", nil)
		if r.str("state") != "running" || r.str("cancel_requested_at") == "" {
			t.Fatalf("the request: %s", r)
		}
		if r := c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/heartbeat", l.hold(nil)); r.str("control") != "cancel" {
			t.Fatalf("heartbeat: %s", r)
		}
		if r := c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/release", l.hold(nil)); r.str("state") != "cancelled" {
			t.Fatalf("released: %s", r)
		}
	})
}

// Attempts are bounded: the last one leaves the task dead, and not queued.
func TestP3AttemptsEnd(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("hard", obj{"max_attempts": 2, "backoff_ms": 0})
		for range 2 {
			l := c.builder.claimNext()
			failure := obj{"class": "external", "code": "no-network", "retryable": true}
			c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/fail", l.hold(obj{"failure": failure}))
		}
		if s := c.state(task); s != "dead" {
			t.Fatalf("the task is %s", s)
		}
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		if r := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil); r.str("state") != "failed" || !strings.HasPrefix(r.str("reason"), "task") {
			t.Fatalf("the run: %s", r)
		}
	})
}

// What died is found without knowing its run: over the API and on the command
// line, by those who look after the whole.
func TestDeadLettersAreListed(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		auditor := w.session("auditor", writ.RoleAuditor, "")
		var dead []string
		for i := range 3 {
			c.run = c.newRun(10)
			l := c.builder.claim(c.enqueue(key(i), obj{"max_attempts": 1}))
			failure := obj{"class": "external", "code": "no-disk", "retryable": true}
			c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/fail", l.hold(obj{"failure": failure}))
			dead = append(dead, l.task)
		}
		c.enqueue("alive", nil)
		for _, who := range []caller{c.op, auditor} {
			var got []string
			for path := "/v1/tasks?state=dead&limit=2"; ; {
				r := who.at(w.last()).ok(200, "GET", path, nil)
				list, _ := r.at("tasks").([]any)
				for _, v := range list {
					one := v.(map[string]any)
					if one["state"] != "dead" || one["failure"].(map[string]any)["code"] != "no-disk" {
						t.Errorf("listed %v", one)
					}
					got = append(got, one["task_id"].(string))
				}
				if r.str("next") == "" {
					break
				}
				path = "/v1/tasks?state=dead&limit=2&after=" + r.str("next")
			}
			if !slices.Equal(got, dead) {
				t.Errorf("got %v, want %v", got, dead)
			}
		}
		c.orc.refused(403, "rbac_denied", "GET", "/v1/tasks?state=dead", nil)
		c.op.refused(422, "input_invalid", "GET", "/v1/tasks", nil)
		if r := command(t, "task", "list", "--state", "dead", "--data", w.gw[0].data, "-o", "json"); r.code != 0 || strings.Count(r.stdout, `"task_id"`) != 3 {
			t.Errorf("on the command line: %s", r)
		}
	})
}
