package agents

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// A session that an agent's session opened stands and falls with that agent, however
// many are in between, and whoever it is for.
func TestOpenedSessionsFallToo(t *testing.T) {
	r := newRoom(t)
	for _, id := range []writ.AgentID{"root", "branch"} {
		r.must("agent.register", r.ops, entry(id))
		r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: id})
	}
	openedBy := func(by writ.Caller, agent writ.AgentID, kind writ.PrincipalKind, role writ.Role) (writ.Caller, writ.SessionID) {
		got := body[SessionOpened](t, r.must("session.open", by, &SessionOpenArgs{Principal: "somebody", Kind: kind, Role: role, AgentID: agent}))
		s := r.session(got.SessionID)
		return writ.Caller{Tenant: by.Tenant, Principal: s.Principal, Kind: s.Kind, Role: s.Role, Session: s.ID, Agent: s.Agent, Behind: s.Behind}, s.ID
	}
	root, first := openedBy(r.ops, "root", writ.KindAgent, writ.RoleExecutor)
	branch, second := openedBy(root, "branch", writ.KindAgent, writ.RoleExecutor)
	leaf, third := openedBy(branch, "", writ.KindHuman, writ.RoleAuditor)
	_, other := openedBy(r.ops, "branch", writ.KindAgent, writ.RoleExecutor)
	if got := leaf.Agents(); !slices.Equal(got, []writ.AgentID{"branch", "root"}) {
		t.Fatalf("the last one stands on %v", got)
	}
	revoked := r.must("agent.revoke", r.ops, &AgentRevokeArgs{AgentID: "root"})
	_, tx, err := r.call("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "root"})
	if err != nil {
		t.Fatal(err)
	}
	receipt := body[AgentView](t, revoked).Receipt
	if !slices.Contains(tx.Causes, receipt) {
		t.Errorf("the cascade does not name the revocation: %v", tx.Causes)
	}
	for _, id := range []writ.SessionID{first, second, third} {
		if s := r.session(id); s.State != writ.SessionRevoked || s.Reason != "agent_revoked" || s.Cause != receipt {
			t.Errorf("%+v", s)
		}
	}
	if s := r.session(other); s.State != writ.SessionOpened {
		t.Errorf("a session of its own fell too: %+v", s)
	}
}

// Before nothing is left of what it had set going, a revoked agent does not come back;
// whatever else becomes of it, the sweep goes on.
func TestRevokedComesBackOnlyOnceSwept(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	r.must("agent.revoke", r.ops, &AgentRevokeArgs{AgentID: "builder"})
	r.refused(writ.CodeUnavailable, "agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	r.must("agent.register", r.ops, entry("builder"))
	r.refused(writ.CodeUnavailable, "agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	r.refused(writ.CodeUnavailable, "agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	r.must("agent.settle", r.System(), &AgentSettleArgs{AgentID: "builder"})
	facts := len(r.Facts)
	r.must("agent.settle", r.System(), &AgentSettleArgs{AgentID: "builder"})
	if len(r.Facts) != facts {
		t.Error("settled twice")
	}
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
}

// When an agent was last stopped is known for good: what was ordered before stays stopped.
func TestWhenItWasStopped(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	at := r.Now
	r.Advance(5)
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	r.must("agent.register", r.ops, entry("builder"))
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "builder"})
	if a, _, ok := writtest.Get[writ.Agent](r.World, writ.AgentKey("builder")); !ok || a.StoppedAt != at || a.Halt != nil {
		t.Errorf("got %+v", a)
	}
}

// An agent that was stopped and registered again is revoked like one that was only
// stopped: it need not be active once more for that.
func TestRevokedAfterItWasRegisteredAgain(t *testing.T) {
	r := newRoom(t)
	r.active("builder")
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	r.must("agent.register", r.ops, entry("builder"))
	r.refused(writ.CodeIllegal, "agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "builder"})
	got := body[AgentView](t, r.must("agent.revoke", r.ops, &AgentRevokeArgs{AgentID: "builder"}))
	if got.State != writ.AgentSuspended || got.Revocation == nil || got.Revocation.Swept {
		t.Errorf("%+v", got)
	}
	_, tx, err := r.call("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "builder"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Kind == writ.OpIndex && o.Member == todoRecall("builder") }) {
		t.Error("what it had set going is not taken back")
	}
}
