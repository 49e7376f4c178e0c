package guard_test

import (
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// A principal that is not bound to the role of its session makes no call, reads
// included; each refusal has its receipt. Others in the same role go on.
func TestNotBoundToTheRole(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.session("alice"), w.sessionAs("bob", "", writ.RoleOperator)
	w.law.unbound[writ.Bind{Principal: "alice", Role: writ.RoleOperator}] = true
	asked := w.law.decided
	for _, id := range []writ.CapabilityID{"test.bump", "test.look"} {
		_, _, err := w.call(alice, id, thingArgs{Run: runID(1)}, "")
		e := asError(t, err, writ.CodeRBAC)
		if e.Receipt == "" || e.Details["role"] != "operator" || !strings.Contains(e.Hint, "role.bind") || strings.Contains(e.Error()+e.Hint, "alice") {
			t.Errorf("%s: %+v", id, e)
		}
	}
	if _, _, err := w.call(bob, "test.bump", thingArgs{Run: runID(1)}, ""); err != nil {
		t.Error(err)
	}
	for _, f := range w.facts() {
		p := predicate(t, f)
		if dec, _ := p["decision"].(map[string]any); p["outcome"] == writ.OutcomeOfDenial && (len(dec) != 1 || dec["bindings"] != "bindings-1") {
			t.Errorf("the denial was by %v", dec)
		}
	}
	if got := w.law.decided - asked; got != 1 {
		t.Errorf("policy was asked %d times", got)
	}
}

// A role that is taken between the judgement and the commit is gone: the gate
// has changed, the call goes back, and is refused. This is what the other replica
// lives by.
func TestARoleTakenBeforeTheCommit(t *testing.T) {
	w := newWorld(t)
	alice := w.session("alice")
	before := len(w.facts())
	w.law.deciding = func() {
		w.law.mu.Lock()
		w.law.deciding = nil
		w.law.unbound[writ.Bind{Principal: "alice", Role: writ.RoleOperator}] = true
		w.law.policy = "policy-2" // the gate moves with the bindings
		w.law.mu.Unlock()
		w.gate()
	}
	_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
	asError(t, err, writ.CodeRBAC)
	facts := w.facts()[before:]
	if len(facts) != 2 || predicate(t, facts[1])["outcome"] != writ.OutcomeOfDenial {
		t.Errorf("%d facts; want the gate's and a denial", len(facts))
	}
}

// A call that gives a role is refused, with a receipt, unless who would get it is
// bound to it; the gateway's own calls too, which leave none.
func TestARoleIsGivenToWhoIsBound(t *testing.T) {
	w := newWorld(t)
	op := w.session("alice")
	w.law.unbound[writ.Bind{Principal: "mallory", Role: writ.RoleApprover}] = true
	give := func(p writ.PrincipalID, r writ.Role) giveArgs {
		return giveArgs{thingArgs: thingArgs{Run: runID(1)}, Principal: p, Role: r}
	}
	_, _, err := w.call(op, "test.give", give("mallory", writ.RoleApprover), "")
	e := asError(t, err, writ.CodeRBAC)
	if e.Receipt == "" || e.Details["role"] != "approver" || !strings.Contains(e.Hint, "role.bind") || strings.Contains(e.Error()+e.Hint, "mallory") {
		t.Errorf("%+v", e)
	}
	_, _, err = w.door.System(t.Context(), shard, "test.give", give("mallory", writ.RoleApprover), nil)
	if e := asError(t, err, writ.CodeRBAC); e.Receipt != "" {
		t.Errorf("%+v", e)
	}
	for _, ok := range []giveArgs{give("mallory", writ.RoleAuditor), give("bob", writ.RoleApprover)} {
		if _, _, err := w.call(op, "test.give", ok, ""); err != nil {
			t.Error(err)
		}
	}
}
