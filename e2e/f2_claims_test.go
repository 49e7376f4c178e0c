package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// begun opens a session of an agent and starts it with write claims, none of which may
// be refused.
func (w *world) begun(agent writ.AgentID, claims ...obj) caller {
	w.t.Helper()
	c := w.openedOnly(agent, nil)
	c.ok(200, "POST", "/v1/sessions/"+string(c.id)+"/start", obj{"write_claims": claims})
	return c
}

// openedOnly opens a session of an agent that is not started.
func (w *world) openedOnly(agent writ.AgentID, more obj) caller {
	w.t.Helper()
	body := obj{"principal": agent, "kind": "agent", "role": writ.RoleExecutor, "agent_id": agent, "heartbeat_ttl_s": 300}
	for k, v := range more {
		body[k] = v
	}
	r := w.op.ok(201, "POST", "/v1/sessions", body)
	return caller{t: w.t, gw: w.gw[0], token: r.str("token"), id: writ.SessionID(r.str("session_id")), agent: agent}
}

func (c caller) startPath() string { return "/v1/sessions/" + string(c.id) + "/start" }

func claiming(mode string, scopes ...string) (out []obj) {
	for _, s := range scopes {
		out = append(out, obj{"resource": s, "mode": mode})
	}
	return out
}

// claimed lists the claims of sessions, as every replica shows them: resource, mode and session.
func (w *world) claimed(under string) (out []string) {
	w.t.Helper()
	list, _ := w.op.at(w.last()).ok(200, "GET", "/v1/scopes?under="+under, nil).at("scopes").([]any)
	for _, v := range list {
		if m := v.(map[string]any); m["session_id"] != nil {
			out = append(out, fmt.Sprint(m["resource"], " ", m["mode"], " ", m["session_id"]))
			if m["agent_id"] == nil || m["expires_at"] == nil {
				w.t.Errorf("who claims it, and until when: %v", m)
			}
		}
	}
	return out
}

// A claim keeps others out by whole segments, however it is written, and the refusal
// names who is there, in its receipt too.
func TestF2T1ClaimsOverlapBySegment(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		newCast(t, w)
		holder := w.begun("builder", claiming("exclusive", "fs:repo/ops/plugins2/")...)
		for name, scope := range map[string]string{
			"same": "fs:repo/ops/plugins2", "upper": "FS:repo/ops/plugins2/", "inside": "fs:repo/ops/plugins2/a/b/", "around": "fs:repo/ops/",
		} {
			for _, mode := range []string{"exclusive", "shared"} {
				c := w.openedOnly("builder", nil).at(w.last())
				r := c.refused(409, "scope_conflict", "POST", c.startPath(), obj{"write_claims": claiming(mode, "fs:repo/other/", scope)})
				if r.str("details", "holder") != string(holder.id) || r.str("details", "holder_agent") != "builder" || r.str("details", "scope") != "fs:repo/ops/plugins2/" {
					t.Errorf("%s: %s", name, r)
				}
				ev := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt())+"/evidence", nil)
				rec := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt()), nil)
				if !strings.Contains(string(ev.body), string(holder.id)) || !strings.Contains(string(rec.body), string(c.id)) {
					t.Errorf("%s: the receipt does not name both: %s %s", name, ev, rec)
				}
				c.ok(200, "POST", "/v1/sessions/"+string(c.id)+"/close", nil)
			}
		}
		if got := w.claimed("fs:repo/"); len(got) != 1 {
			t.Errorf("what was refused left something: %v", got)
		}
		c := w.openedOnly("builder", nil)
		r := c.ok(200, "POST", c.startPath(), obj{"write_claims": claiming("exclusive", "fs:repo/ops/plug/", "fs:repo/ops/plugins22", "fs:repo/docs/")})
		if list, _ := r.at("write_claims").([]any); len(list) != 3 {
			t.Errorf("granted: %s", r)
		}
		for pointer, claims := range map[string][]obj{
			"/write_claims/0/resource": claiming("exclusive", "fs:repo/../x/"), "/write_claims/1/resource": claiming("exclusive", "fs:repo/x/", "fs:repo/x/y/"),
		} {
			bad := w.openedOnly("builder", nil)
			if r := bad.refused(422, "input_invalid", "POST", bad.startPath(), obj{"write_claims": claims}); !strings.Contains(string(r.body), pointer) {
				t.Errorf("%s: %s", pointer, r)
			}
		}
	})
}

// Of 100 sessions that claim one scope at once, one starts.
func TestF2T2OneSessionClaims(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		newCast(t, w)
		const n = 100
		for _, a := range []writ.AgentID{"digger", "filler"} {
			w.agent(a, "web", "executor", tool, []string{"fs:yard/"}, obj{"shares_write_scope": true})
		}
		all := make([]caller, n)
		for i := range all {
			all[i] = w.openedOnly([]writ.AgentID{"digger", "filler"}[i%2], nil).at(w.gw[i%len(w.gw)])
		}
		got := make([]reply, n)
		each(n, func(i int) {
			r, err := all[i].insist("POST", all[i].startPath(), obj{"write_claims": claiming("exclusive", "fs:yard/one/")})
			if err != nil {
				t.Errorf("start: %v", err)
			}
			got[i] = r
		})
		winner := ""
		for i, r := range got {
			switch {
			case r.status == 200 && winner == "":
				winner = string(all[i].id)
			case r.status != 409 || r.code() != "scope_conflict":
				t.Errorf("start %d: %s", i, r)
			}
		}
		if held := w.claimed("fs:yard/"); len(held) != 1 || held[0] != "fs:yard/one/ exclusive "+winner {
			t.Errorf("%s won, and there is %v", winner, held)
		}
	})
}

// A session that goes silent loses what it claims, and no later write of it lands: its
// task is another's, and whoever waited for the scope is woken.
func TestF2T3SilentSessionLosesItsClaims(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		silent := w.openedOnly("builder", obj{"heartbeat_ttl_s": 10})
		silent.ok(200, "POST", silent.startPath(), obj{"write_claims": claiming("exclusive", "fs:repo/one/")})
		held := silent.claim(c.enqueue("held", obj{"write_scopes": []string{"fs:repo/one/a/"}, "lease_ttl_s": 600, "max_attempts": 1}))
		next := w.openedOnly("builder", nil).at(w.last())
		claim := obj{"write_claims": claiming("exclusive", "fs:repo/one/")}
		next.refused(409, "scope_conflict", "POST", next.startPath(), claim)
		within(t, 30*time.Second, "the session is suspended", func() bool {
			return w.op.ok(200, "GET", "/v1/sessions/"+string(silent.id), nil).str("state") == "suspended"
		})
		next.refused(409, "scope_conflict", "POST", next.startPath(), claim) // it may come back still
		within(t, 90*time.Second, "its claims are another's", func() bool {
			r := next.do("POST", next.startPath(), claim)
			return r.status == 200
		})
		silent.refused(401, "unauthenticated", "POST", "/v1/tasks/"+held.task+"/complete", held.hold(obj{"result": obj{"late": true}}))
		within(t, 10*time.Second, "its task is taken back", func() bool { return c.state(held.task) == writ.TaskDead })
		if r := c.orc.ok(200, "GET", "/v1/tasks/"+held.task, nil); r.at("result") != nil {
			t.Errorf("the late write landed: %s", r)
		}
		if got := w.claimed("fs:repo/"); !slices.Equal(got, []string{"fs:repo/one/ exclusive " + string(next.id)}) {
			t.Errorf("claimed: %v", got)
		}
	})
}

// A session that claims takes no work elsewhere, and keeps none from others of its agent.
func TestF2T4OutsideTheClaims(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		narrow := w.begun("builder", claiming("exclusive", "fs:repo/a/")...)
		outside := c.enqueue("outside", obj{"write_scopes": []string{"fs:repo/a/x/", "fs:repo/b/"}})
		r := narrow.refused(403, "scope_denied", "POST", "/v1/tasks/"+outside+"/claim", nil)
		if rules := fmt.Sprint(r.at("rule_ids")); rules != "[write_scopes.unclaimed]" || r.receipt() == "" {
			t.Errorf("the denial: %s", r)
		}
		beside := c.enqueue("beside", obj{"write_scopes": []string{"fs:repo/b/"}})
		inside := c.enqueue("inside", obj{"write_scopes": []string{"fs:repo/a/x/"}})
		if l := narrow.claimNext(); l.task != inside {
			t.Errorf("handed %s, want %s", l.task, inside)
		}
		if l := c.another().at(w.last()).claimNext(); l.task != beside {
			t.Errorf("another session of the agent was handed %q, want %s", l.task, beside)
		}
		// Nor does it claim what its agent may not write, nor does who only judges.
		far := w.openedOnly("builder", nil)
		if r := far.refused(403, "scope_denied", "POST", far.startPath(), obj{"write_claims": claiming("shared", "fs:payroll/")}); fmt.Sprint(r.at("rule_ids")) != "[write_scopes.outside]" {
			t.Errorf("the denial: %s", r)
		}
		w.agent("judge", "web", "verifier", "", []string{"fs:verdicts/"}, nil)
		judge := w.openedOnly("judge", obj{"role": writ.RoleVerifier})
		if r := judge.refused(403, "scope_denied", "POST", judge.startPath(), obj{"write_claims": claiming("exclusive", "fs:verdicts/")}); fmt.Sprint(r.at("rule_ids")) != "[write_scopes.readonly_role]" {
			t.Errorf("the denial: %s", r)
		}
	})
}

// Who shares a scope is listed, all of them, takes turns there, and keeps everybody
// else out, as anybody keeps them out where he is alone.
func TestF6T1SharedClaims(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		one, two := w.begun("builder", claiming("shared", "fs:repo/docs/")...), w.begun("builder", claiming("shared", "fs:repo/docs/")...).at(w.last())
		want := []string{"fs:repo/docs/ shared " + string(one.id), "fs:repo/docs/ shared " + string(two.id)}
		if got := w.claimed("fs:repo/docs/"); !slices.Equal(got, want) {
			t.Errorf("claimed: %v", got)
		}
		if r := w.op.ok(200, "GET", "/v1/sessions/"+string(one.id), nil); fmt.Sprint(r.at("write_claims")) != "[map[mode:shared resource:fs:repo/docs/]]" {
			t.Errorf("shown: %s", r)
		}
		alone := w.openedOnly("builder", nil)
		alone.refused(409, "scope_conflict", "POST", alone.startPath(), obj{"write_claims": claiming("exclusive", "fs:repo/")})
		alone.ok(200, "POST", alone.startPath(), obj{"write_claims": claiming("exclusive", "fs:repo/ops/")})
		three := w.openedOnly("builder", nil)
		three.refused(409, "scope_conflict", "POST", three.startPath(), obj{"write_claims": claiming("shared", "fs:repo/docs/", "fs:repo/ops/a/")})

		task := c.enqueue("one", obj{"write_scopes": []string{"fs:repo/docs/"}})
		c.builder.refused(409, "scope_conflict", "POST", "/v1/tasks/"+task+"/claim", nil)
		l := one.claim(task)
		other := c.enqueue("two", obj{"write_scopes": []string{"fs:repo/docs/a/"}})
		if r := two.refused(409, "scope_conflict", "POST", "/v1/tasks/"+other+"/claim", nil); r.str("details", "holder") != task {
			t.Errorf("in the way: %s", r)
		}
		one.complete(l)
		two.complete(two.claim(other))
	})
}

// What somebody meets where a session claims is offered to that session, and to all once
// it has ended.
func TestTasksWaitForTheSession(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		holder := w.begun("builder", claiming("exclusive", "fs:repo/a/")...).at(w.last())
		first, second := c.enqueue("first", obj{"write_scopes": []string{"fs:repo/a/"}}), c.enqueue("second", obj{"write_scopes": []string{"fs:repo/a/x/"}})
		if r := c.builder.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("handed out: %s", r)
		}
		for _, task := range []string{first, second} {
			if r := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil); fmt.Sprint(r.at("blocked_on")) != "["+string(holder.id)+"]" {
				t.Errorf("it waits for %v", r.at("blocked_on"))
			}
		}
		l := holder.claimNext()
		if l.task != first {
			t.Fatalf("the session was handed %q, want %s", l.task, first)
		}
		holder.complete(l)
		waits := c.builder.poll()
		r := holder.ok(200, "POST", "/v1/sessions/"+string(holder.id)+"/close", nil)
		ev := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt())+"/evidence", nil)
		if !strings.Contains(string(ev.body), `"given_back":["fs:repo/a/ `+string(holder.id)+`"]`) {
			t.Errorf("the receipt of the end does not list what was given back: %s", ev)
		}
		if r := <-waits; r.status != 200 || r.str("task", "task_id") != second {
			t.Errorf("after the session ended: %s", r)
		}
	})
}

// Killed while sessions start with claims, a gateway grants all of what one claims or
// nothing, and a session nobody comes back for is ended and keeps nothing.
func TestKilledWhileSessionsClaim(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		newCast(t, w)
		all := make([]caller, 40)
		for i := range all {
			all[i] = w.openedOnly("builder", obj{"lifetime_s": 15}).at(w.gw[i%len(w.gw)])
		}
		var wg sync.WaitGroup
		for i, c := range all {
			wg.Go(func() {
				_, _ = c.try("POST", c.startPath(), obj{"write_claims": claiming([]string{"exclusive", "shared"}[i%2], fmt.Sprintf("fs:repo/%d/", i/3), fmt.Sprintf("fs:repo/b/%d/", i/3))})
			})
			if i == len(all)/2 {
				wg.Go(w.crash)
			}
		}
		wg.Wait()
		var want []string
		for i, c := range all {
			r := w.op.ok(200, "GET", "/v1/sessions/"+string(c.id), nil)
			if list, _ := r.at("write_claims").([]any); (len(list) == 2) != (r.str("state") == "active") || len(list) == 1 {
				t.Errorf("session %d is %s", i, r)
			} else if len(list) == 2 {
				for _, one := range list {
					m := one.(map[string]any)
					want = append(want, fmt.Sprint(m["resource"], " ", m["mode"], " ", c.id))
				}
			}
		}
		slices.Sort(want)
		if got := w.claimed("fs:repo/"); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("listed %v\nsessions have %v", got, want)
		}
		w.crash()
		within(t, 40*time.Second, "nothing is left of sessions nobody comes back for", func() bool { return len(w.claimed("fs:repo/")) == 0 })
		next := w.begun("builder", claiming("exclusive", "fs:repo/")...)
		if got := w.claimed("fs:repo/"); !slices.Equal(got, []string{"fs:repo/ exclusive " + string(next.id)}) {
			t.Errorf("claimed: %v", got)
		}
	})
}
