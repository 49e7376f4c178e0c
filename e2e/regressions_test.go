package e2e

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// These tests are named after weaknesses measured in gateways like this one.

// N1: a result is data; nothing in it moves the task's fields.
func TestN1ResultCannotForgeState(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		forged := `x" | .claimed_by = "attacker" | .status = "verified`
		path := "/v1/tasks/" + l.task + "/complete"
		c.builder.refused(422, "input_invalid", "POST", path, l.hold(obj{"result": forged}))
		c.builder.refused(400, "malformed", "POST", path, l.hold(obj{"result": obj{}, "state": "verified"}))
		c.builder.refused(400, "malformed", "POST", path, l.hold(obj{"result": obj{}, "agent": "attacker"}))
		c.builder.ok(200, "POST", path, l.hold(obj{"result": obj{"note": forged, "state": "failed", "lease": obj{"agent": "attacker"}}}))
		r := c.orc.ok(200, "GET", "/v1/tasks/"+l.task, nil)
		if r.str("state") != "done" || r.str("result", "note") != forged || r.at("lease") != nil {
			t.Fatalf("the task: %s", r)
		}
	})
}

// N2: no id or name becomes a path.
func TestN2NamesAreNotPaths(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		outside := filepath.Dir(w.gw[0].data)
		before := files(t, outside)
		for _, name := range []string{"../../../../pwn", "..%2f..%2fpwn", "pwn\x00", "/etc/pwn", "a/b"} {
			c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task(name, nil))
		}
		for _, path := range []string{"/v1/tasks/..%2f..%2fpwn", "/v1/tasks/%2e%2e%2fpwn/claim", "/v1/agents/..%2fpwn", "/v1/receipts/..%2f..%2fkeys%2freceipt.key"} {
			for _, method := range []string{"GET", "POST", "PUT"} {
				if r := w.op.do(method, path, nil); r.status < 400 || r.status >= 500 {
					t.Errorf("%s", r)
				}
			}
		}
		for path := range files(t, outside) {
			if !before[path] && !slices.ContainsFunc(w.gw, func(g *gateway) bool { return strings.HasPrefix(path, g.data) }) {
				t.Errorf("a file appeared: %s", path)
			}
		}
	})
}

func files(t testing.TB, dir string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { out[path] = true; return err })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// N8, N11: who acts is what the token says, never what the request says.
func TestN8IdentityIsNotAnArgument(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for _, name := range []string{"actor", "principal", "role", "session_id", "tenant", "agent_id"} {
			c.builder.refused(400, "malformed", "POST", "/v1/tasks/claim", obj{name: "operator"})
		}
		forged := []string{"X-Role", "operator", "X-Forwarded-User", "operator", "X-Writ-Role", "operator"}
		c.builder.refused(403, "rbac_denied", "PUT", "/v1/agents/mine", obj{"archetypes": []string{"executor"}, "domain": "web"}, forged...)
		c.builder.refused(403, "rbac_denied", "POST", "/v1/sessions", obj{"principal": "builder", "kind": "human", "role": "operator"})
		// An operator cannot make an agent an operator either.
		w.op.refused(422, "input_invalid", "POST", "/v1/sessions", obj{"principal": "builder", "kind": "agent", "role": "operator", "agent_id": "builder"})
		w.op.refused(422, "input_invalid", "POST", "/v1/sessions", obj{"principal": "writ", "kind": "human", "role": "system"})
		w.op.refused(403, "not_eligible", "POST", "/v1/sessions", obj{"principal": "builder", "kind": "agent", "role": "orchestrator", "agent_id": "builder"})
	})
}

// N9: nothing is accepted after the end.
func TestN9NoWorkAfterTheEnd(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("one", nil))
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/cancel", nil)
		c.builder.refused(409, "illegal_transition", "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
		c.orc.refused(409, "illegal_transition", "POST", "/v1/runs/"+c.run+"/cancel", nil)
		c.orc.refused(409, "illegal_transition", "POST", "/v1/runs/"+c.run+"/seal", nil)
		c.orc.refused(409, "illegal_transition", "POST", "/v1/tasks", c.task("two", nil))
		// Nobody but owner and operator ends a run.
		c.run = c.newRun(5)
		c.builder.refused(403, "rbac_denied", "POST", "/v1/runs/"+c.run+"/cancel", nil)
		w.session("aud", "auditor", "").refused(403, "rbac_denied", "POST", "/v1/runs/"+c.run+"/cancel", nil)
	})
}

// N12: an unsigned token is no token.
func TestN12UnsignedToken(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		jwt := part(`{"alg":"none","typ":"JWT"}`) + "." + part(`{"sub":"operator","role":"operator"}`) + "."
		for _, token := range []string{jwt, jwt + "x", "default." + jwt, "none", "null", "undefined", " "} {
			c := caller{t: t, gw: w.gw[0], token: token}
			c.refused(401, "unauthenticated", "POST", "/v1/runs", obj{"budget": obj{"steps": 1}})
		}
		nobody := caller{t: t, gw: w.gw[0]}
		real := w.op.token
		nobody.refused(401, "unauthenticated", "GET", "/v1/runs", nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("operator:"+real)))
		nobody.refused(401, "unauthenticated", "GET", "/v1/runs", nil, "Cookie", "session="+real)
		nobody.refused(400, "malformed", "GET", "/v1/runs?access_token="+real, nil, "Authorization", "Bearer "+real)
	})
}

// N13: a denial by policy is 403 with its rule, never 200 and never 500.
func TestN13DenialIsForbidden(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		leak := c.task("leak", obj{"capability": w.sinking(), "labels": []string{"pii.chat.message"}})
		r := c.orc.refused(403, "classification_denied", "POST", "/v1/tasks", leak)
		rules, _ := r.at("rule_ids").([]any)
		if len(rules) == 0 || !strings.HasPrefix(rules[0].(string), "classification.") || r.receipt() == "" || r.str("receipt") != string(r.receipt()) {
			t.Fatalf("the denial: %s", r)
		}
		s := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt()), nil)
		if s.str("statement", "predicate", "outcome") != "denial" || s.at("statement", "predicate", "changes") != nil {
			t.Fatalf("its receipt: %s", s)
		}
	})
}

// N16: no session moves its own run's state or budget.
func TestN16NoSelfService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	c := newCast(t, w)
	for _, path := range []string{"/transition", "/resume"} {
		c.builder.refused(404, "not_found", "POST", "/v1/runs/"+c.run+path, obj{"state": "active"})
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} { // it can be read, and that is all
		c.builder.refused(405, "malformed", method, "/v1/runs/"+c.run+"/budget", obj{"steps": 9})
	}
	c.builder.refused(403, "rbac_denied", "POST", "/v1/runs", obj{"budget": obj{"steps": 9}})
	c.builder.refused(403, "rbac_denied", "POST", "/v1/runs/"+c.run+"/seal", nil)
	accept := obj{"verdict": "accept", "receipt_id": c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")}
	c.builder.refused(403, "rbac_denied", "POST", "/v1/runs/"+c.run+"/close", accept)
	c.orc.refused(403, "rbac_denied", "POST", "/v1/runs/"+c.run+"/close", accept)
}

// N18: a wrapper launders nothing.
func TestN18InvokeLaundersNothing(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		invoke := func(id string, args obj) obj { return obj{"capability": id, "args": args} }
		c.builder.refused(403, "rbac_denied", "POST", "/v1/invoke", invoke("run.create", obj{"budget": obj{"steps": 1}}))
		nested := invoke("capability.invoke", invoke("run.create", obj{"budget": obj{"steps": 1}}))
		if r := c.builder.do("POST", "/v1/invoke", nested); r.status < 400 || r.status >= 500 {
			t.Errorf("nested: %s", r)
		}
		if r := c.orc.do("POST", "/v1/invoke", nested); r.status < 400 || r.status >= 500 {
			t.Errorf("nested: %s", r)
		}
		// What the role may do, the wrapper does, with the same receipt.
		r := c.orc.ok(200, "POST", "/v1/invoke", invoke("run.get", obj{"run_id": c.run}))
		if r.str("data", "run_id") != c.run || r.str("status") != "done" {
			t.Errorf("invoke: %s", r)
		}
	})
}

// N19: a refusal is never counted as work done.
func TestN19RefusalIsNotSuccess(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.run = c.newRun(4)
		outside := c.enqueue("outside", obj{"write_scopes": []string{"fs:payroll/"}})
		used := func() int64 { return c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).num("budget", "steps", "used") }
		for range 3 {
			c.builder.refused(403, "scope_denied", "POST", "/v1/tasks/"+outside+"/claim", nil)
		}
		if n := used(); n != 0 {
			t.Fatalf("three refusals cost %d steps", n)
		}
		c.orc.ok(200, "POST", "/v1/tasks/"+outside+"/cancel", nil)
		c.builder.complete(c.builder.claim(c.enqueue("inside", nil)))
		if n := used(); n != 2 {
			t.Fatalf("claim and complete cost %d steps", n)
		}
		// A call over the limit changes nothing, and nothing under work that is
		// paid for: the last claim there was can be completed. Then the run ends.
		third := c.builder.claim(c.enqueue("third", nil))
		last := c.enqueue("fourth", nil)
		c.builder.refused(403, "budget_exceeded", "POST", "/v1/tasks/"+last+"/claim", nil)
		time.Sleep(500 * time.Millisecond) // the sweeper has looked at it
		c.builder.complete(third)
		if n := used(); n != 4 {
			t.Fatalf("%d steps were used of 4", n)
		}
		why := func() string { return c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).str("reason") }
		for range 100 {
			if why() != "" {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if why() != "budget_exceeded" {
			t.Fatalf("the run ended because of %q", why())
		}
	})
}

// N31: tokens stand in no log, no store file and no receipt.
func TestN31TokensAreKeptNowhere(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	w.gw = []*gateway{newGateway(t, filepath.Join(t.TempDir(), "one"), "--log", "debug")}
	w.op = w.operator()
	c := newCast(t, w)
	c.builder.complete(c.builder.claim(c.enqueue("one", nil)))
	again := obj{"principal": "aud", "kind": "human", "role": "auditor"}
	opened := w.op.ok(201, "POST", "/v1/sessions", again, "Idempotency-Key", "open-once")
	// A repetition must not show the token again: it is kept nowhere.
	w.op.refused(409, "token_already_issued", "POST", "/v1/sessions", again, "Idempotency-Key", "open-once")
	w.export()
	if code := w.gw[0].stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, token := range []string{c.orc.token, c.builder.token, opened.str("token")} {
		secret := token[strings.LastIndex(token, ".")+1:]
		if strings.Contains(w.gw[0].log.String(), secret) {
			t.Error("a token stands in the log")
		}
		for path := range files(t, w.gw[0].data) {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(secret)) {
				t.Errorf("a token stands in %s", path)
			}
		}
	}
}

// N31: the token of a closed session is good for nothing at once, everywhere.
func TestN31TokenDiesWithItsSession(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for _, end := range []func(s caller){
			func(s caller) { s.ok(200, "POST", "/v1/sessions/"+string(s.id)+"/close", nil) },
			func(s caller) { w.op.ok(200, "POST", "/v1/sessions/"+string(s.id)+"/revoke", nil) },
		} {
			s := c.another()
			l := s.claim(c.enqueue("held-"+strings.ToLower(string(s.id)[20:]), obj{"backoff_ms": 0}))
			end(s)
			for _, g := range w.gw {
				s.at(g).refused(401, "unauthenticated", "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
				s.at(g).refused(401, "unauthenticated", "GET", "/v1/capabilities", nil)
			}
			// What it held is given back.
			r := <-c.builder.poll()
			if r.status != 200 || r.str("task", "task_id") != l.task {
				t.Fatalf("after the session ended: %s", r)
			}
			c.builder.complete(leaseOf(r))
		}
	})
}

// Nothing is said, and nothing signed, about a part of the log that there is
// not yet.
func TestNothingIsSaidAboutTheEndThatIsNotThere(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		last := int64(-1)
		for more := true; more; {
			r := w.op.ok(200, "GET", "/v1/receipts?limit=200&after="+strconv.FormatInt(last, 10), nil)
			last, more = r.num("next_after"), r.at("more") == true
		}
		for _, path := range []string{"/v1/receipts", "/v1/receipts/export"} {
			w.op.ok(200, "GET", path+"?after="+strconv.FormatInt(last, 10), nil)
			for _, after := range []string{"1000000", "100000000000000", "9007199254740992", "9223372036854775807"} {
				if r := w.op.refused(422, "input_invalid", "GET", path+"?after="+after, nil); strings.Contains(string(r.body), after) && len(after) != 15 {
					t.Errorf("repeats what was sent: %s", r)
				}
			}
		}
	})
}

// N11: what a caller says of itself, in headers, arguments or the environment of
// its process, is no role and no approval.
func TestN11ClaimsAreNotRights(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		body := obj{"budget": obj{"steps": 9}}
		for _, header := range [][]string{
			{"Role", "operator"},
			{"X-Role", "operator"},
			{"X-Forwarded-User", "operator"},
			{"X-Principal", "operator"},
			{"X-Approved", "true"},
			{"X-Approval-Id", "apr_01HZZZZZZZZZZZZZZZZZZZZZZZ"},
			{"Remote-User", "operator"},
			{"X-Original-Method", "GET"},
		} {
			if r, err := c.builder.try("POST", "/v1/runs", body, header...); err != nil || r.status != 403 || r.code() != writ.CodeRBAC {
				t.Errorf("%v: %s %v", header, r, err)
			}
		}
		for _, claim := range []obj{{"role": "operator"}, {"confirm": true}, {"approved": true}, {"principal": "operator"}, {"force": true}} {
			args := obj{"budget": obj{"steps": 9}}
			for k, v := range claim {
				args[k] = v
			}
			c.orc.refused(400, "malformed", "POST", "/v1/runs", args)
		}
		token := filepath.Join(t.TempDir(), "builder.token")
		if err := os.WriteFile(token, []byte(c.builder.token), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"WRIT_ROLE", "WRIT_PRINCIPAL", "WRIT_TENANT", "WRIT_AGENT", "USER"} {
			cmd := exec.Command(binary, "run", "create", "--budget", `{"steps":9}`, "--url", w.gw[0].url, "--token-file", token)
			cmd.Env = append(environ(t), name+"=operator", "WRIT_APPROVED=true")
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "rbac_denied") {
				t.Errorf("%s: %v %s", name, err, out)
			}
		}
	})
}
