package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// Scopes overlap by whole segments, however they are written (N10).
func TestF2T1ScopesOverlapBySegment(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		scoped := func(name, scope string) string { return c.enqueue(name, obj{"write_scopes": []string{scope}}) }
		held := c.builder.claim(scoped("held", "fs:repo/ops/plugins2/"))
		for name, scope := range map[string]string{
			"same": "fs:repo/ops/plugins2", "upper": "FS:repo/ops/plugins2/", "inside": "fs:repo/ops/plugins2/a/b/", "around": "fs:repo/ops/",
		} {
			r := second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+scoped(name, scope)+"/claim", nil)
			if r.str("details", "holder") != held.task || r.str("details", "holder_agent") != "builder" {
				t.Errorf("%s: %s", name, r)
			}
		}
		for name, scope := range map[string]string{"prefix": "fs:repo/ops/plug/", "longer": "fs:repo/ops/plugins22/", "beside": "fs:repo/docs/"} {
			second.complete(second.claim(scoped(name, scope)))
		}
		c.builder.complete(held)
		second.claim(scoped("after", "fs:repo/ops/plugins2/"))
	})
}

// Of 100 tasks on one scope claimed at once, one runs.
func TestF2T2OneHolderPerScope(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		const n = 100
		sessions := make([]caller, 10)
		for i := range sessions {
			sessions[i] = c.another().at(w.gw[i%len(w.gw)])
		}
		tasks := make([]string, n)
		for i := range tasks {
			tasks[i] = c.enqueue(key(i), obj{"write_scopes": []string{"fs:repo/one/"}})
		}
		got := make([]reply, n)
		each(n, func(i int) {
			r, err := sessions[i%len(sessions)].insist("POST", "/v1/tasks/"+tasks[i]+"/claim", nil)
			if err != nil {
				t.Errorf("claim: %v", err)
			}
			got[i] = r
		})
		won := 0
		for i, r := range got {
			switch {
			case r.status == 200:
				won++
			case r.status != 409 || r.code() != "scope_conflict":
				t.Errorf("claim %d: %s", i, r)
			}
		}
		if won != 1 {
			t.Fatalf("%d claims won", won)
		}
		r := c.orc.ok(200, "GET", "/v1/tasks?run_id="+c.run+"&state=running", nil)
		if list, _ := r.at("tasks").([]any); len(list) != 1 {
			t.Fatalf("running: %s", r)
		}
	})
}

// A holder that goes silent loses the scope, and its later writes never land.
func TestF2T3SilentHolderLosesTheScope(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		scope := []string{"fs:repo/one/"}
		stale := c.builder.claim(c.enqueue("first", obj{"write_scopes": scope, "lease_ttl_s": 1, "max_attempts": 1}))
		next := c.enqueue("second", obj{"write_scopes": scope})
		second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+next+"/claim", nil)
		r := <-second.poll()
		if r.status != 200 || r.str("task", "task_id") != next {
			t.Fatalf("after the lease ended: %s", r)
		}
		c.builder.refused(409, "lease_lost", "POST", "/v1/tasks/"+stale.task+"/complete", stale.hold(obj{"result": obj{"late": true}}))
		r = c.orc.ok(200, "GET", "/v1/tasks/"+stale.task, nil)
		if r.str("state") != "dead" || r.at("result") != nil {
			t.Fatalf("the late write landed: %s", r)
		}
	})
}

// An agent never works outside its write scope.
func TestF2T4OutsideTheWriteScope(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("outside", obj{"write_scopes": []string{"fs:payroll/"}})
		r := c.builder.refused(403, "scope_denied", "POST", "/v1/tasks/"+task+"/claim", nil)
		if r.receipt() == "" || len(r.at("rule_ids").([]any)) == 0 {
			t.Fatalf("the denial: %s", r)
		}
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("handed out: %s", r)
		}
		if s := c.state(task); s != "queued" {
			t.Fatalf("the task is %s", s)
		}
		// Whoever waits for it can see why nobody takes it.
		r = c.orc.ok(200, "GET", "/v1/tasks/"+task, nil)
		if by, _ := r.at("refused_to").([]any); len(by) != 1 || by[0] != "builder" {
			t.Fatalf("set aside, but refused_to is %v", r.at("refused_to"))
		}
	})
}

// Who holds which scope can be seen, on every replica, before a conflict is met.
func TestF6T1HeldScopes(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", obj{"write_scopes": []string{"fs:repo/docs/"}}))
		held := func() []any {
			t.Helper()
			list, _ := c.orc.at(w.last()).ok(200, "GET", "/v1/scopes?under=fs:repo/", nil).at("scopes").([]any)
			return list
		}
		list := held()
		if len(list) != 1 {
			t.Fatalf("got %v", list)
		}
		one, _ := list[0].(map[string]any)
		if one["resource"] != "fs:repo/docs/" || one["task_id"] != l.task || one["agent_id"] != "builder" || fmt.Sprint(one["fence"]) != fmt.Sprint(l.fence) || one["expires_at"] == "" {
			t.Errorf("got %v", one)
		}
		r := c.another().refused(409, "scope_conflict", "POST", "/v1/tasks/"+c.enqueue("two", obj{"write_scopes": []string{"fs:repo/docs/api/"}})+"/claim", nil)
		if r.str("details", "holder") != l.task || r.receipt() == "" {
			t.Errorf("got %s", r)
		}
		c.builder.complete(l)
		if list := held(); len(list) != 0 {
			t.Errorf("got %v", list)
		}
	})
}

// A claim that was denied for a scope leaves a receipt of who was denied what, and its
// evidence says who held it.
func TestF6T2ADeniedClaimNamesBothSides(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		shares := obj{"shares_write_scope": true}
		w.agent("first", "web", "executor", tool, []string{"fs:docs/"}, shares)
		w.agent("second", "web", "executor", tool, []string{"fs:docs/"}, shares)
		first, second := w.session("first", writ.RoleExecutor, "first"), w.session("second", writ.RoleExecutor, "second").at(w.last())
		held := first.claim(c.enqueue("one", obj{"write_scopes": []string{"fs:docs/api/"}}))
		wanted := c.enqueue("two", obj{"write_scopes": []string{"fs:docs/"}})
		r := second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+wanted+"/claim", nil)

		ada := w.session("ada", writ.RoleAuditor, "")
		p := ada.ok(200, "GET", "/v1/receipts/"+r.str("receipt"), nil)
		for want, got := range map[string]string{
			"denial": p.str("statement", "predicate", "outcome"), "scope_conflict": p.str("statement", "predicate", "code"), "task.claim": p.str("statement", "predicate", "transition"),
			"second": p.str("statement", "predicate", "actor", "agent"), string(second.id): p.str("statement", "predicate", "actor", "session"), wanted: p.str("statement", "predicate", "task"),
		} {
			if got != want {
				t.Errorf("got %q, want %q: %s", got, want, p)
			}
		}
		ev := ada.ok(200, "GET", "/v1/receipts/"+r.str("receipt")+"/evidence", nil)
		if ev.str("evidence", "object", "details", "holder") != held.task || ev.str("evidence", "object", "details", "holder_agent") != "first" {
			t.Errorf("the holder is not in the evidence: %s", ev)
		}
		if ev.str("digest") != p.str("statement", "predicate", "evidence") {
			t.Errorf("the receipt does not bind %s", ev)
		}
		// What policy judged has words of callers. The receipt names it by a digest that needs the salt, which the evidence has.
		var kept struct {
			Evidence struct {
				Salt   string `json:"salt"`
				Object struct {
					Record json.RawMessage `json:"policy_record"`
				} `json:"object"`
			} `json:"evidence"`
		}
		if err := json.Unmarshal(ev.body, &kept); err != nil {
			t.Fatal(err)
		}
		salt, err := hex.DecodeString(kept.Evidence.Salt)
		if err != nil || len(salt) != 16 || !strings.Contains(string(kept.Evidence.Object.Record), "fs:docs/") {
			t.Fatalf("the evidence has no salt or no record: %v %s", err, ev)
		}
		named := p.str("statement", "predicate", "decision", "input")
		if want := fmt.Sprintf("%x", sha256.Sum256(slices.Concat([]byte("writ policy input v1\x00"), salt, kept.Evidence.Object.Record))); named != want {
			t.Errorf("the receipt names %s, and not %s", named, want)
		}
		w.audited()
	})
}
