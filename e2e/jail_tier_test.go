package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ"
)

// needRoot fails a test of sandboxes where nobody can make one: only root can.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("jails with a kernel of their own are root's to make: run the tests as root, or in a container")
	}
}

// Data that policy wants in strong jails gets to agents in those alone, and agents of a
// domain that deals with it run in one whatever their registration says.
func TestJailTiers(t *testing.T) {
	needRoot(t)
	s := shipped(t)
	s.add(t, filepath.Join("..", "examples", "confinement-pack"), "packs")
	onCellsWith(t, "", func(t *testing.T, c cells) {
		// A person gives the work: agents that run anywhere cannot even do that.
		if r := c.orc.do("POST", "/v1/tasks", c.task("none", obj{"labels": []string{"pii.chat.message"}})); r.status != 403 {
			t.Errorf("an orchestrator that runs anywhere: %s", r)
		}
		c.orc = c.session("paula", writ.RoleOrchestrator, "")
		c.cast.run = c.newRun(1000)
		chat := func(key, capability string) string {
			return c.enqueue(key, obj{"capability": capability, "required_domain": "cage", "labels": []string{"pii.chat.message"}})
		}
		// Who runs anywhere, and who runs in a jail of the machine's kernel, does not get it.
		c.agent("free", "cage", "executor", "cage.free", nil, nil)
		loose := c.session("free", writ.RoleExecutor, "free")
		if r := loose.do("POST", "/v1/tasks/"+chat("one", "cage.free")+"/claim", obj{}); r.status != 403 || r.code() != writ.CodePolicy {
			t.Errorf("out of a jail: %s", r)
		}
		c.agent("other", "cage", "executor", "cage.shared", nil, nil) // whom it may be enqueued for
		two := chat("two", "cage.shared")
		c.caged("shared", "take="+two, nil)
		c.ended(c.spawn("shared", nil), "revoked jail_ended: exited, code 3, signal 0")

		// In a jail with a kernel of its own it is work like any other.
		c.caged("strong", "work", obj{"tier": "gvisor"})
		three := chat("three", "cage.strong")
		session := c.ended(c.spawn("strong", nil), "closed exited: exited, code 0, signal 0")
		if has := func(f string) string { return session.str("jail", "features", f) }; has("backend") != "runsc" || has("runtime") == "" || session.str("jail", "spec", "tier") != "gvisor" {
			t.Errorf("held by %v", session.at("jail"))
		}
		if done := c.orc.ok(200, "GET", "/v1/tasks/"+three, nil); done.str("state") != "done" || done.num("result", "uid") != 2_000_000_000 || done.str("result", "wrote") != "wrote" {
			t.Errorf("the task: %s", done)
		}

		c.agent("taker", "intake", "executor", "intake.take", nil, obj{"jail": obj{"program": "inmate", "args": []string{"exit=0"}}})
		id := c.spawn("taker", nil)
		if session := c.ended(id, "closed exited: exited, code 0, signal 0"); session.str("jail", "spec", "tier") != "gvisor" {
			t.Errorf("the jail is %v", session.at("jail"))
		}
		c.audited()
	}, "--policies", s.dir(t))
}

// Where there is no such jail the agent is not run, and what is missing is named.
func TestJailTierThatIsNotThere(t *testing.T) {
	onCellsWith(t, "gvisor: {runsc: /nowhere/runsc}\n", func(t *testing.T, c cells) {
		c.caged("strong", "exit=0", obj{"tier": "gvisor"})
		c.ended(c.spawn("strong", nil), "revoked jail_ended: unavailable, code 0, signal 0sandbox")
		c.caged("claims", "exit=0", obj{"tier": "gvisor", "profile": "tools"})
		c.ended(c.spawn("claims", obj{"write_claims": []obj{{"resource": "fs:site/claims/"}}}), "revoked jail_ended: unavailable, code 0, signal 0scope")
		c.audited()
	})
}
