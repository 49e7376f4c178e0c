package approvals_test

import (
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
)

// A vote counts as long as its caster has the role it was cast in: after that
// people are asked again, and nothing of the old approval is used.
func TestAVoteEndsWithItsRole(t *testing.T) {
	l := newLab(t)
	args := doArgs{What: "x"}
	id := l.asked(l.planner(), args, need(nil))
	l.approves(l.approver("alice"), id)
	l.wants(id, writ.ApprovalApproved)

	l.unbound = []writ.PrincipalID{l.approver("alice").Principal}
	next := l.asked(l.planner(), args, need(nil))
	if next == id {
		t.Fatal("the vote of somebody without the role was waited on again")
	}
	if old := l.approval(id); old.Uses != 0 {
		t.Fatalf("used %d times by a vote that no longer counts", old.Uses)
	}

	l.approves(l.approver("bob"), next)
	l.happens(l.planner(), args, need(nil))
}

// More budget is granted by the last vote, so that one must not count a vote that
// ended with its caster's role.
func TestNothingIsGrantedOnALostRole(t *testing.T) {
	l := newLab(t)
	run := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	out, err := l.about(l.planner(), doArgs{What: "x"}, sub, need(func(n *writ.Need) {
		n.Kind, n.Scope, n.Dimension, n.Add, n.Approvers = writ.ApproveBudgetExtension, writ.ScopeRun, "steps", 5, 2
	}))
	if err != nil {
		t.Fatal(err)
	}
	id := out.pending.Approval
	l.approves(l.approver("alice"), id)
	l.unbound = []writ.PrincipalID{"alice"}
	l.approves(l.approver("bob"), id)
	l.wants(id, writ.ApprovalPending)
	if len(l.woken) > 0 {
		t.Fatalf("told %v on one vote that counts", l.woken)
	}
	l.approves(l.approver("carol"), id)
	l.wants(id, writ.ApprovalConsumed)
}

// Whoever is one of several to agree cannot widen what the others agree to,
// whatever makes them several, and whether first or last.
func TestNobodyRemembersForOthers(t *testing.T) {
	l := newLab(t)
	run := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	alice := l.approver("alice")
	oscar := l.Open(writ.RoleOperator, "oscar", "")
	oscar.Controller = "oscar"
	for i, order := range [][]writ.Caller{{alice, oscar}, {oscar, alice}} {
		out, err := l.about(l.planner(), doArgs{What: string(rune('a' + i))}, sub,
			need(func(n *writ.Need) { n.Remember = 5 }),
			need(func(n *writ.Need) { n.Rule, n.Roles, n.Remember = "approvals.other", []writ.Role{writ.RoleOperator}, 5 }))
		if err != nil {
			t.Fatal(err)
		}
		id := out.pending.Approval
		for j, by := range order {
			_, _, err := l.Call(l.capability("approval.decide"), by, &approvals.ApprovalDecideArgs{
				Approval: id, Decision: "approve", Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 5},
			})
			at(t, err, writ.CodeInputInvalid, "/remember")
			l.approves(by, id)
			l.wants(id, []writ.ApprovalState{writ.ApprovalPending, writ.ApprovalApproved}[j])
		}
	}
}

// Who answers agrees to that answer: nobody replaces it, and only those who were
// asked give one.
func TestOneAnswer(t *testing.T) {
	l := newLab(t)
	respond := func(by writ.Caller, id writ.ApprovalID, answer string) error {
		_, _, err := l.Call(l.capability("approval.respond"), by, &approvals.ApprovalRespondArgs{Approval: id, Response: writ.RawObject(answer)})
		return err
	}
	id := l.asked(l.planner(), doArgs{What: "a"}, need(func(n *writ.Need) { n.Kind, n.Approvers = writ.ApproveHumanAction, 2 }))
	if err := respond(l.approver("alice"), id, `{"pick":"safe","n":1}`); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, respond(l.approver("bob"), id, `{"pick":"other","n":1}`), writ.CodeExists)
	if err := respond(l.approver("bob"), id, `{"n":1,"pick":"safe"}`); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalApproved)

	oscar := l.Open(writ.RoleOperator, "oscar", "")
	oscar.Controller = "oscar"
	id = l.asked(l.planner(), doArgs{What: "b"}, need(func(n *writ.Need) { n.Kind = writ.ApproveHumanAction }),
		need(func(n *writ.Need) { n.Rule, n.Roles = "approvals.other", []writ.Role{writ.RoleOperator} }))
	refusedWith(t, respond(oscar, id, `{"pick":"unsafe"}`), writ.CodeIllegal)
	l.approves(oscar, id)
	if err := respond(l.approver("alice"), id, `{"pick":"safe"}`); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalApproved)
	if got := string(l.approval(id).Response); got != `{"pick":"safe"}` {
		t.Errorf("the answer is %s", got)
	}
}

// What people agreed to holds for no more uses, no longer and no wider than
// policy says when it is used.
func TestPolicyThatHasBecomeStricter(t *testing.T) {
	run := func(l *lab) writ.Subject {
		r := l.World.Run("planner", 10)
		return writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}
	}
	wide := func(n *writ.Need) { n.Scope, n.MaxUses = writ.ScopeRun, 100 }
	agreed := func(l *lab, sub writ.Subject) {
		out, err := l.about(l.planner(), doArgs{What: "a"}, sub, need(wide))
		if err != nil {
			l.Fatal(err)
		}
		l.approves(l.approver("alice"), out.pending.Approval)
	}
	met := func(l *lab, sub writ.Subject, what string, n writ.Need, want bool) {
		l.Helper()
		if out, err := l.about(l.planner(), doArgs{What: what}, sub, n); err != nil || out.met != want {
			l.Errorf("%s: met %v, %v", what, out.met, err)
		}
	}
	t.Run("uses", func(t *testing.T) {
		l := newLab(t)
		sub := run(l)
		agreed(l, sub)
		once := need(func(n *writ.Need) { wide(n); n.MaxUses = 1 })
		met(l, sub, "b", once, true)
		met(l, sub, "c", once, false)
	})
	t.Run("time", func(t *testing.T) {
		l := newLab(t)
		sub := run(l)
		agreed(l, sub)
		l.Advance(100)
		met(l, sub, "b", need(func(n *writ.Need) { wide(n); n.ExpiresS = 101 }), true)
		met(l, sub, "c", need(func(n *writ.Need) { wide(n); n.ExpiresS = 100 }), false)
	})
	t.Run("remembered, now asked for as wide", func(t *testing.T) {
		l := newLab(t)
		sub := run(l)
		out, err := l.about(l.planner(), doArgs{What: "a"}, sub, need(func(n *writ.Need) { n.Remember = 100 }))
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := l.Call(l.capability("approval.decide"), l.approver("alice"), &approvals.ApprovalDecideArgs{
			Approval: out.pending.Approval, Decision: "approve", Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 100},
		}); err != nil {
			t.Fatal(err)
		}
		met(l, sub, "b", need(func(n *writ.Need) { n.Scope = writ.ScopeRun }), false)
	})
}

// A yes that is remembered stands in nobody's way: whom it cannot serve, others
// are asked about.
func TestRememberedLeavesOthersToAsk(t *testing.T) {
	l := newLab(t)
	r := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}
	may := need(func(n *writ.Need) { n.Remember = 5 })
	planner := l.planner()
	out, err := l.about(planner, doArgs{What: "a"}, sub, may)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Call(l.capability("approval.decide"), l.approver("alice"), &approvals.ApprovalDecideArgs{
		Approval: out.pending.Approval, Decision: "approve", Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 5},
	}); err != nil {
		t.Fatal(err)
	}
	planner.Openers = []writ.PrincipalID{"alice"} // another session, which the decider opened
	out, err = l.about(planner, doArgs{What: "b"}, sub, may)
	if err != nil || out.met {
		t.Fatalf("met %v, %v", out.met, err)
	}
	l.approves(l.approver("bob"), out.pending.Approval)
	l.wants(out.pending.Approval, writ.ApprovalApproved)
}

// What people granted is the run's, and others may have used it by the time the
// call is made again: if it does not fit then, people are asked again, and the
// yes to the rest of it is used only by a call that does fit.
func TestAGrantIsMadeOnce(t *testing.T) {
	more := need(func(n *writ.Need) {
		n.Rule, n.Kind, n.Scope, n.Dimension, n.Add = "budgets.extend.steps", writ.ApproveBudgetExtension, writ.ScopeRun, writ.BudgetSteps, 5
	})
	for name, c := range map[string]struct {
		now []writ.Need
		met bool
	}{
		"it fits":             {[]writ.Need{need(nil)}, true},
		"others have used it": {[]writ.Need{need(nil), more}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			run := l.World.Run("planner", 10)
			sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
			first, err := l.about(l.planner(), doArgs{What: "a"}, sub, need(nil), more)
			if err != nil {
				t.Fatal(err)
			}
			id := first.pending.Approval
			if again, err := l.about(l.planner(), doArgs{What: "a"}, sub, need(nil), more); err != nil || again.pending.Approval != id {
				t.Errorf("asked again while people decide: %v, %v", again.pending.Approval, err)
			}
			l.approves(l.approver("alice"), id)
			l.wants(id, writ.ApprovalApproved)
			out, err := l.about(l.planner(), doArgs{What: "a"}, sub, c.now...)
			if err != nil || out.met != c.met {
				t.Fatalf("met %v, %v", out.met, err)
			}
			if !c.met {
				l.wants(id, writ.ApprovalSuperseded)
				l.wants(out.pending.Approval, writ.ApprovalPending)
			}
		})
	}
}

// An answer binds others as long as a vote for it counts: whoever has lost the
// role it was given in decides nothing for them.
func TestAnAnswerEndsWithItsRole(t *testing.T) {
	l := newLab(t)
	respond := func(by writ.PrincipalID, id writ.ApprovalID, answer string) error {
		_, _, err := l.Call(l.capability("approval.respond"), l.approver(by), &approvals.ApprovalRespondArgs{Approval: id, Response: writ.RawObject(answer)})
		return err
	}
	id := l.asked(l.planner(), doArgs{What: "a"}, need(func(n *writ.Need) { n.Kind, n.Approvers = writ.ApproveHumanAction, 2 }))
	if err := respond("mallory", id, `{"pick":"unsafe"}`); err != nil {
		t.Fatal(err)
	}
	l.unbound = []writ.PrincipalID{"mallory"}
	if err := respond("bob", id, `{"pick":"safe"}`); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, respond("alice", id, `{"pick":"unsafe"}`), writ.CodeExists)
	l.unbound = nil // with the role comes no vote for what she did not answer
	l.wants(id, writ.ApprovalPending)
	refusedWith(t, respond("bob", id, `{"pick":"safe"}`), writ.CodeSoD)
	refusedWith(t, respond("mallory", id, `{"pick":"unsafe"}`), writ.CodeExists)
	if err := respond("mallory", id, `{"pick":"safe"}`); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalApproved)
	if got := string(l.approval(id).Response); got != `{"pick":"safe"}` {
		t.Errorf("the answer is %s", got)
	}
}

// The very call that was remembered can be asked about too, by whom the yes cannot
// serve, and that does not take it from those whom it does.
func TestRememberedStaysWhenOthersAreAsked(t *testing.T) {
	may := need(func(n *writ.Need) { n.Remember = 5 })
	remembered := func(l *lab) (writ.ApprovalID, writ.Subject) {
		r := l.World.Run("planner", 10)
		sub := writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}
		out, err := l.about(l.planner(), doArgs{What: "a"}, sub, may)
		if err != nil {
			l.Fatal(err)
		}
		if _, _, err := l.Call(l.capability("approval.decide"), l.approver("alice"), &approvals.ApprovalDecideArgs{
			Approval: out.pending.Approval, Decision: "approve", Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 5},
		}); err != nil {
			l.Fatal(err)
		}
		return out.pending.Approval, sub
	}
	met := func(l *lab, by writ.Caller, what string, sub writ.Subject, want bool) settled {
		l.Helper()
		out, err := l.about(by, doArgs{What: what}, sub, may)
		if err != nil || out.met != want {
			t.Fatalf("%s: met %v, %v", what, out.met, err)
		}
		return out
	}
	for name, used := range map[string]int{"unused": 0, "used": 1} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			id, sub := remembered(l)
			for range used {
				met(l, l.planner(), "b", sub, true)
			}
			other := l.planner()
			other.Openers = []writ.PrincipalID{"alice"} // another session, which the decider opened
			next := met(l, other, "a", sub, false).pending.Approval
			l.wants(id, writ.ApprovalApproved)
			l.approves(l.approver("bob"), next)
			met(l, other, "a", sub, true)
			for i := range 5 - used {
				met(l, l.planner(), string(rune('c'+i)), sub, true)
			}
			l.wants(id, writ.ApprovalConsumed)
		})
	}
	t.Run("policy asks for more", func(t *testing.T) { // and then for what it asked for before
		l := newLab(t)
		id, sub := remembered(l)
		out, err := l.about(l.planner(), doArgs{What: "a"}, sub, need(func(n *writ.Need) { n.Remember, n.Approvers = 5, 2 }))
		if err != nil || out.met {
			t.Fatalf("met %v, %v", out.met, err)
		}
		l.wants(id, writ.ApprovalApproved)
		met(l, l.planner(), "b", sub, true)
	})
}

// An answer holds for the question it was given to: when policy asks another, or
// asks for a form of answer by now, people are asked that.
func TestAnAnswerIsToItsQuestion(t *testing.T) {
	question := func(schema string) writ.Need {
		return need(func(n *writ.Need) { n.Kind, n.Schema = writ.ApproveHumanAction, writ.RawObject(schema) })
	}
	for name, c := range map[string]struct {
		was, is string
		covered bool
	}{
		"the same":        {`{"n":1}`, `{"n":1}`, true},
		"in other order":  {`{"n":1,"<":"&"}`, `{"<":"&","n":1}`, true},
		"none, none":      {``, ``, true},
		"none, then some": {``, `{"n":1}`, false},
		"some, then none": {`{"n":1}`, ``, false},
		"another":         {`{"n":1}`, `{"n":2}`, false},
	} {
		for _, answered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, answered %v", name, answered), func(t *testing.T) {
				l := newLab(t)
				id := l.asked(l.planner(), doArgs{What: "a"}, question(c.was))
				if answered {
					response := l.approval(id).Needs[0].Schema // the one answer it knows
					if len(response) == 0 {
						response = writ.RawObject(`{}`)
					}
					_, _, err := l.Call(l.capability("approval.respond"), l.approver("alice"), &approvals.ApprovalRespondArgs{Approval: id, Response: response})
					if err != nil {
						t.Fatal(err)
					}
				}
				out, err := l.do(l.planner(), doArgs{What: "a"}, question(c.is))
				if err != nil || out.met != (answered && c.covered) {
					t.Fatalf("met %v, %v", out.met, err)
				}
				if !out.met && (out.pending.Approval == id) != c.covered {
					t.Errorf("waits for %s, asked as %s", out.pending.Approval, id)
				}
			})
		}
	}
}

// Enough votes may stand although the last of them completed nothing, because one
// did not count at that moment. Then one of those who voted says it again; nobody
// counts twice, and who is one of too few says nothing again.
func TestAVoteThatCountsAgainCompletes(t *testing.T) {
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	for name, again := range map[string]writ.PrincipalID{"the first": "alice", "the last": "bob"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			id := l.asked(l.planner(), leased("all"), two)
			l.approves(l.approver("alice"), id)
			l.unbound = []writ.PrincipalID{"alice"}
			l.approves(l.approver("bob"), id)
			l.wants(id, writ.ApprovalPending)
			refusedWith(t, l.decide(l.approver("bob"), id, "approve"), writ.CodeSoD)
			l.unbound = nil
			_, err := l.modifies(l.approver(again), id, `{"what":"one"}`)
			refusedWith(t, err, writ.CodeSoD)
			decide := l.capability("approval.decide")
			p, err := l.Plan(decide, l.NewCall(decide, l.approver(again), &approvals.ApprovalDecideArgs{Approval: id, Decision: "approve"}))
			if err != nil {
				t.Fatal(err)
			}
			if p.Subject.Approval.Voted {
				t.Error("policy is told that this one has voted and may not again")
			}
			if _, err := l.Commit(p); err != nil {
				t.Fatal(err)
			}
			l.wants(id, writ.ApprovalApproved)
			l.happens(l.planner(), leased("all"), two)
		})
	}
	t.Run("a no", func(t *testing.T) {
		l := newLab(t)
		id := l.asked(l.planner(), leased("all"), two)
		l.approves(l.approver("alice"), id)
		l.unbound = []writ.PrincipalID{"alice"}
		l.approves(l.approver("bob"), id)
		l.unbound = nil
		if err := l.decide(l.approver("alice"), id, "deny"); err != nil {
			t.Fatal(err)
		}
		l.wants(id, writ.ApprovalDenied)
	})
}
