package e2e

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// says binds or unbinds.
func (c caller) says(verb, principal string, role writ.Role) reply {
	c.t.Helper()
	return c.ok(200, "POST", "/v1/roles/"+string(role)+"/"+verb, obj{"principal": principal})
}

// While a role is taken and given back, calls in it go on at every replica. The
// log decides: after the commit that takes the role nothing of its principal is
// committed but denials, until the commit that gives it back, and no denial
// stands where it had the role.
func TestARoleIsTakenUnderLoad(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		mallory := w.session("mallory", writ.RoleOrchestrator, "")
		other := w.session("other", writ.RoleOrchestrator, "")
		stop := make(chan struct{})
		var done sync.WaitGroup
		var allowed, denied, turnedAway atomic.Int64
		for i := range 6 {
			c, taken := mallory, true
			if i >= 4 {
				c, taken = other, false
			}
			c = c.at(w.gw[i%len(w.gw)])
			done.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					r, err := c.try("POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 5}})
					switch {
					case err != nil:
						t.Error(err)
						return
					case r.status == 201:
						allowed.Add(1)
					case r.code() == writ.CodeRBAC && taken:
						denied.Add(1)
					case r.code() == writ.CodePolicyDown && r.header.Get("Retry-After") != "":
						turnedAway.Add(1)
						time.Sleep(5 * time.Millisecond) // less than it asks for
					default:
						t.Errorf("want a run, or the reason why not: %s", r)
						return
					}
				}
			})
		}
		rounds := 4
		if soak() {
			rounds = 100
		}
		for i := range rounds {
			time.Sleep(150 * time.Millisecond)
			at := w.op.at(w.gw[i%len(w.gw)])
			if r, err := at.insist("POST", "/v1/roles/orchestrator/unbind", obj{"principal": "mallory"}); err != nil || r.at("changed") != true {
				t.Errorf("unbind: %v %s", err, r)
			}
			if r := mallory.at(w.last()).do("POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 5}}); r.code() != writ.CodeRBAC && r.code() != writ.CodePolicyDown {
				t.Errorf("after the role was taken: %s", r)
			}
			time.Sleep(150 * time.Millisecond)
			if r, err := at.insist("POST", "/v1/roles/orchestrator/bind", obj{"principal": "mallory"}); err != nil || r.at("changed") != true {
				t.Errorf("bind: %v %s", err, r)
			}
		}
		time.Sleep(150 * time.Millisecond)
		close(stop)
		done.Wait()
		t.Logf("%d calls allowed, %d denied, %d turned away", allowed.Load(), denied.Load(), turnedAway.Load())
		if allowed.Load() == 0 || denied.Load() == 0 {
			t.Error("the load met the role only in one way")
		}
		if len(w.gw) == 1 && turnedAway.Load() > 0 {
			t.Error("the replica that makes the change holds the new bindings at once")
		}
		_, all := w.export()
		bound, changes, seen := true, 0, 0
		for _, s := range all {
			p := s.Predicate
			switch {
			case p.Outcome == writ.OutcomeOfTransition && p.Transition == "role.unbind":
				bound, changes = false, changes+1
			case p.Outcome == writ.OutcomeOfTransition && p.Transition == "role.bind":
				bound, changes = true, changes+1
			case p.Actor.Session != mallory.id || p.Transition != "run.create":
			case p.Outcome == writ.OutcomeOfTransition && !bound, p.Outcome == writ.OutcomeOfDenial && bound:
				t.Errorf("receipt %d: a %s by a principal that is bound: %t", p.Commit.Seq, p.Outcome, bound)
			default:
				seen++
			}
		}
		if changes != 2*rounds || seen == 0 {
			t.Errorf("the log tells of %d changes and %d calls", changes, seen)
		}
	})
}

// What was bound and unbound by capability stays on top of another bundle, and of
// the one before it; no replica that was ready turns a call away for it.
func TestBindingsStayWithAnyBundle(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		mallory := w.session("mallory", writ.RoleOrchestrator, "")
		s := shipped(t)
		const star = "g, principal:*, role:auditor, *\n"
		if !strings.Contains(s["roles/policy.csv"], star) {
			t.Fatal("the shipped roles have changed")
		}
		s["roles/policy.csv"] = strings.Replace(s["roles/policy.csv"], star, "g, principal:mallory, role:orchestrator, *\n", 1)
		digest := w.op.stage(s)
		w.settled(digest)

		w.op.says("unbind", "mallory", writ.RoleOrchestrator)
		w.op.says("bind", "alice", writ.RoleAuditor)
		revision := func() string { return w.op.ok(200, "GET", "/v1/policy", nil).str("bindings_revision") }
		before := revision()
		check := func(when string, auditors bool) {
			t.Helper()
			for i, g := range w.gw {
				within(t, 10*time.Second, "the bindings reach every replica", func() bool {
					return mallory.at(g).do("GET", "/v1/runs", nil).code() == writ.CodeRBAC
				})
				if r := mallory.at(g).do("POST", "/v1/runs", obj{"budget": obj{"steps": 5}}); r.code() != writ.CodeRBAC {
					t.Errorf("%s, replica %d: %s", when, i+1, r)
				}
				for who, want := range map[string]int{"alice": 201, "bob": 201} {
					if who == "bob" && !auditors {
						want = 403
					}
					if r := w.op.at(g).do("POST", "/v1/sessions", obj{"principal": who, "kind": "human", "role": "auditor"}); r.status != want {
						t.Errorf("%s, replica %d, a session of %s: %s", when, i+1, who, r)
					}
				}
			}
		}
		check("unbound", true)
		w.activate(digest)
		if r := mallory.at(w.last()).do("GET", "/v1/runs", nil); r.code() != writ.CodeRBAC {
			t.Errorf("activated, at once: %s", r)
		}
		check("activated", false)
		if revision() == before {
			t.Error("another file, and the same revision")
		}
		w.op.ok(200, "POST", "/v1/policy/rollback", obj{"from": digest})
		check("rolled back", true)
		if revision() != before {
			t.Error("the same file and bindings, and another revision")
		}
		for _, g := range w.gw {
			g.restart()
		}
		w.op = w.operator()
		check("started again", true)
		w.audit()
	})
}

// Who is bound to what is said over HTTP and on the command line alike, and what
// is no principal is refused without being repeated.
func TestRolesOverTheWire(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		for _, id := range []string{"role:operator", "principal:alice", "al,ice", "alice\ng, principal:alice, role:operator, *", `"alice"`, "**", "a*", "Alice", "", "../gate", "alice operator"} {
			r := w.op.do("POST", "/v1/roles/auditor/bind", obj{"principal": id})
			if r.status != 422 || len(id) > 2 && strings.Contains(string(r.body), id) {
				t.Errorf("%q: %s", id, r)
			}
		}
		for _, role := range []string{"system", "root", "*", "Operator"} {
			if r := w.op.do("POST", "/v1/roles/"+role+"/bind", obj{"principal": "alice"}); r.status != 422 {
				t.Errorf("role %s: %s", role, r)
			}
		}
		writ1 := func(want int, args ...string) result {
			t.Helper()
			r := command(t, append(args, "--data", w.gw[0].data)...)
			if r.code != want {
				t.Errorf("%v: %s", args, r)
			}
			return r
		}
		writ1(0, "role", "bind", "--principal", "alice", "--role", "approver")
		writ1(0, "role", "unbind", "--principal", "*", "--role", "approver")
		if r := writ1(0, "role", "list", "--role", "approver"); !strings.Contains(r.stdout, "alice") || !strings.Contains(r.stdout, "removed") || !strings.Contains(r.stdout, "roles/policy.csv:") {
			t.Errorf("role list: %s", r)
		}
		if r := writ1(0, "role", "permissions", "--principal", "alice", "--role", "approver"); !strings.Contains(r.stdout, "approval.decide") || !strings.Contains(r.stdout, "bound by name") {
			t.Errorf("role permissions: %s", r)
		}
		if r := writ1(4, "session", "open", "--principal", "bob", "--kind", "human", "--role", "approver"); !strings.Contains(r.stderr, "role bind") {
			t.Errorf("session open: %s", r)
		}
		writ1(7, "role", "unbind", "--principal", "operator", "--role", "operator")
		// The caller is the machine's operator, who lost approver with everybody.
		if r := writ1(4, "role", "bind", "--principal", "operator", "--role", "approver"); !strings.Contains(r.stderr, "sod_violation") {
			t.Errorf("an operator binds himself: %s", r)
		}

		bob := w.session("bob", writ.RoleVerifier, "")
		mine := bob.ok(200, "GET", "/v1/roles/permissions", nil)
		if mine.str("principal") != "bob" || !strings.Contains(string(mine.body), `"task.get"`) {
			t.Errorf("what may I do: %s", mine)
		}
		bob.refused(404, writ.CodeNotFound, "GET", "/v1/roles/permissions?principal=alice", nil)
		bob.refused(403, writ.CodeRBAC, "POST", "/v1/roles/verifier/bind", obj{"principal": "alice"})
		if r := bob.ok(200, "GET", "/v1/roles", nil); strings.Contains(string(r.body), "alice") {
			t.Errorf("others are told of: %s", r)
		}
	})
}

// A session that somebody's service opened gives him no role, and decides nothing
// that he asks for.
func TestRolesAreNotGivenThroughAService(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.op.says("unbind", "*", writ.RoleApprover)
		opens := func(by caller, body obj) caller {
			r := by.ok(201, "POST", "/v1/sessions", body)
			c := caller{t: t, gw: w.gw[0], token: r.str("token"), id: writ.SessionID(r.str("session_id"))}
			c.ok(200, "POST", "/v1/sessions/"+string(c.id)+"/start", nil)
			return c
		}
		bot := opens(w.op, obj{"principal": "bot", "kind": "service", "role": "operator", "controller": "olga"})
		carol := opens(bot, obj{"principal": "carol", "kind": "human", "role": "operator"})
		for _, p := range []string{"olga", "*"} {
			carol.refused(403, writ.CodeSoD, "POST", "/v1/roles/approver/bind", obj{"principal": p})
		}
		carol.ok(200, "POST", "/v1/roles/approver/bind", obj{"principal": "alice"})
	})
}
