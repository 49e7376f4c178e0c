package approvals_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/writtest"
)

func TestOneCallOneApprovalOneUse(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	l.wants(id, writ.ApprovalPending)
	if again := l.asked(planner, doArgs{What: "a", Lease: "lse_2", Fence: 9}, need(nil)); again != id {
		t.Errorf("the same call asked again: %s, then %s", id, again)
	}
	l.approves(alice, id)
	l.wants(id, writ.ApprovalApproved)
	if !slices.Equal(l.woken, []writ.ApprovalState{writ.ApprovalApproved}) {
		t.Errorf("who waits was told %v", l.woken)
	}
	l.happens(planner, doArgs{What: "a", Lease: "lse_3"}, need(nil))
	l.wants(id, writ.ApprovalConsumed)
	second := l.asked(planner, doArgs{What: "a"}, need(nil))
	if second == id {
		t.Error("a used approval was asked for again under its id")
	}
	l.wants(second, writ.ApprovalPending)
}

func TestAnotherCallIsNotCovered(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	id := l.asked(planner, doArgs{What: "a", Key: "k1"}, need(nil))
	l.approves(alice, id)
	other := l.planner()
	other.Principal = "planner-2"
	for name, f := range map[string]func() writ.ApprovalID{
		"other arguments":       func() writ.ApprovalID { return l.asked(planner, doArgs{What: "b", Key: "k1"}, need(nil)) },
		"other secret argument": func() writ.ApprovalID { return l.asked(planner, doArgs{What: "a", Key: "k2"}, need(nil)) },
		"another caller":        func() writ.ApprovalID { return l.asked(other, doArgs{What: "a", Key: "k1"}, need(nil)) },
		"another role": func() writ.ApprovalID {
			c := planner
			c.Role = writ.RoleExecutor
			return l.asked(c, doArgs{What: "a", Key: "k1"}, need(nil))
		},
	} {
		if got := f(); got == id {
			t.Errorf("%s: covered by the approval", name)
		}
	}
	a, _, _ := writtest.Get[writ.Approval](l.World, writ.ApprovalKey(id))
	if strings.Contains(string(a.Args), "k1") || !strings.Contains(string(a.Args), `"what":"a"`) {
		t.Errorf("people are shown %s", a.Args)
	}
	l.happens(planner, doArgs{What: "a", Key: "k1"}, need(nil))
}

// Policy may have changed since: the votes count for what it asks now.
func TestPolicyThatAsksForMore(t *testing.T) {
	for name, c := range map[string]struct {
		now     []writ.Need
		covered bool
	}{
		"the same":         {[]writ.Need{need(nil)}, true},
		"shorter":          {[]writ.Need{need(func(n *writ.Need) { n.ExpiresS = 60 })}, true},
		"one more role":    {[]writ.Need{need(func(n *writ.Need) { n.Roles = append(n.Roles, writ.RoleOperator) })}, true},
		"another rule":     {[]writ.Need{need(func(n *writ.Need) { n.Rule = "approvals.other" })}, false},
		"one more rule":    {[]writ.Need{need(nil), need(func(n *writ.Need) { n.Rule = "approvals.other" })}, false},
		"two people":       {[]writ.Need{need(func(n *writ.Need) { n.Approvers = 2 })}, false},
		"other roles":      {[]writ.Need{need(func(n *writ.Need) { n.Roles = []writ.Role{writ.RoleOperator} })}, false},
		"another kind":     {[]writ.Need{need(func(n *writ.Need) { n.Kind = writ.ApprovePolicyException })}, false},
		"a narrower scope": {[]writ.Need{need(nil)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			planner, alice := l.planner(), l.approver("alice")
			id := l.asked(planner, doArgs{What: "a"}, need(nil))
			l.approves(alice, id)
			out, err := l.do(planner, doArgs{What: "a"}, c.now...)
			if err != nil || out.met != c.covered {
				t.Fatalf("met %v, want %v (%v)", out.met, c.covered, err)
			}
			if c.covered {
				l.wants(id, writ.ApprovalConsumed)
				return
			}
			l.wants(id, writ.ApprovalSuperseded)
			l.wants(out.pending.Approval, writ.ApprovalPending)
			old, _, _ := writtest.Get[writ.Approval](l.World, writ.ApprovalKey(id))
			if old.Successor != out.pending.Approval {
				t.Errorf("superseded by %q, want %s", old.Successor, out.pending.Approval)
			}
		})
	}
}

func TestApprovalsEndByTime(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	l.approves(alice, id)
	l.Advance(3599)
	late, err := l.settle(planner, doArgs{What: "a"}, writ.Subject{}, need(nil))
	if err != nil || !late.met {
		t.Fatalf("a second before the end: met %v, %v", late.met, err)
	}
	l.Advance(1)
	if err := l.Apply(late.tx); !isConflict(err) {
		t.Errorf("judged before the end and committed after it: %v", err)
	}
	next := l.asked(planner, doArgs{What: "a"}, need(nil)) // no sweep has come by
	if next == id {
		t.Error("an expired approval counts")
	}
	pending := l.asked(planner, doArgs{What: "b"}, need(nil))
	l.Advance(3600)
	refusedWith(t, l.decide(alice, pending, "approve"), writ.CodeIllegal)
	l.woken = nil
	expire := l.capability("approval.expire")
	for _, a := range []writ.ApprovalID{id, pending, pending} {
		if _, _, err := l.Call(expire, l.System(), &approvals.ApprovalExpireArgs{Approval: a}); err != nil {
			t.Fatal(err)
		}
	}
	l.wants(pending, writ.ApprovalExpired)
	if !slices.Equal(l.woken, []writ.ApprovalState{writ.ApprovalExpired}) { // who waited for a decided one was told then
		t.Errorf("who waits was told %v", l.woken)
	}
	refusedWith(t, l.decide(alice, pending, "approve"), writ.CodeIllegal)
}

func TestNobodyDecidesWhatTheyStandBehind(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	for name, c := range map[string]writ.Caller{
		"the requester in another role": func() writ.Caller { c := l.approver("planner"); return c }(),
		"who answers for the requester": l.approver("root"),
		"a second name of that person":  func() writ.Caller { c := l.approver("root-2"); c.Controller = "root"; return c }(),
		"a session the requester opened": func() writ.Caller {
			c := l.approver("mallory")
			c.Openers = []writ.PrincipalID{"planner", "root"}
			return c
		}(),
	} {
		if err := l.decide(c, id, "approve"); writ.CodeOf(err) != writ.CodeSoD {
			t.Errorf("%s: %v", name, err)
		}
		refusedWith(t, l.decide(c, id, "deny"), writ.CodeSoD)
	}
	refusedWith(t, l.decide(l.Open(writ.RoleOperator, "olga", ""), id, "approve"), writ.CodeNotEligible)
	l.wants(id, writ.ApprovalPending)
	l.approves(l.approver("alice"), id)
}

// A task's enqueuer stands behind it, whoever claims it.
func TestWhoEnqueuedATaskCannotApproveIt(t *testing.T) {
	l := newLab(t)
	enqueuer := l.Open(writ.RoleOrchestrator, "planner", "")
	worker := l.Open(writ.RoleExecutor, "worker", "builder")
	worker.Controller = "worker"
	task := writ.Task{ID: writ.TaskID(l.NewID(writ.PrefixTask)), Capability: "site.build", State: writ.TaskQueued, EnqueuedBy: enqueuer.Session}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	sub := writ.Subject{Task: &writ.TaskFacts{ID: task.ID, Capability: task.Capability}}
	n := need(func(n *writ.Need) { n.Scope = writ.ScopeTask })
	out, err := l.about(worker, doArgs{What: "a"}, sub, n)
	if err != nil || out.met {
		t.Fatal(out.met, err)
	}
	refusedWith(t, l.decide(l.approver("planner"), out.pending.Approval, "approve"), writ.CodeSoD)
	l.approves(l.approver("alice"), out.pending.Approval)
	other := l.Open(writ.RoleExecutor, "worker-2", "builder-2")
	other.Controller = "worker-2"
	if out, err := l.about(other, doArgs{What: "other"}, sub, n); err != nil || !out.met {
		t.Errorf("approved for the task, not for the first who asked: met %v, %v", out.met, err)
	}
}

// Who decided does not do it themselves.
func TestDecidersDoNotUse(t *testing.T) {
	l := newLab(t)
	sub, n, id := l.askedForATask()
	l.approves(l.approver("alice"), id)
	alice := l.Open(writ.RoleExecutor, "alice-worker", "builder")
	alice.Controller = "alice"
	_, err := l.about(alice, doArgs{What: "a"}, sub, n)
	refusedWith(t, err, writ.CodeSoD)
}

func TestFourEyesAreFourEyes(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	id := l.asked(planner, doArgs{What: "a"}, two)
	l.approves(alice, id)
	l.wants(id, writ.ApprovalPending)
	refusedWith(t, l.decide(alice, id, "approve"), writ.CodeSoD)
	refusedWith(t, l.decide(l.approver("alice"), id, "approve"), writ.CodeSoD) // another session of hers
	second := l.approver("alice-2")
	second.Controller = "alice"
	refusedWith(t, l.decide(second, id, "approve"), writ.CodeSoD)
	if out, err := l.do(planner, doArgs{What: "a"}, two); err != nil || out.met {
		t.Errorf("one of two votes: met %v, %v", out.met, err)
	}
	l.approves(l.approver("bob"), id)
	l.wants(id, writ.ApprovalApproved)
	l.happens(planner, doArgs{What: "a"}, two)
}

func TestOneDenialIsEnough(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	id := l.asked(planner, doArgs{What: "a"}, two)
	l.approves(l.approver("alice"), id)
	if err := l.decide(l.approver("bob"), id, "deny"); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalDenied)
	if !slices.Equal(l.woken, []writ.ApprovalState{writ.ApprovalDenied}) {
		t.Errorf("who waits was told %v", l.woken)
	}
	refusedWith(t, l.decide(l.approver("carol"), id, "approve"), writ.CodeIllegal)
	_, err := l.do(planner, doArgs{What: "a"}, two)
	refusedWith(t, err, writ.CodeApprovalDenied)
	l.Advance(3600)
	if again := l.asked(planner, doArgs{What: "a"}, two); again == id {
		t.Error("a denied approval was asked for again under its id")
	}
}

func TestTwoAtOnce(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	a, err := l.settle(planner, doArgs{What: "a"}, writ.Subject{}, need(nil))
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.settle(planner, doArgs{What: "a"}, writ.Subject{}, need(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(a.tx); err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(b.tx); !isConflict(err) {
		t.Errorf("two requests for one call: %v", err)
	}
	id := a.pending.Approval
	decide := l.capability("approval.decide")
	plan := func(by writ.Caller, decision string) *writtest.Planned {
		p, err := l.Plan(decide, l.NewCall(decide, by, &approvals.ApprovalDecideArgs{Approval: id, Decision: decision}))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	yes, no := plan(l.approver("alice"), "approve"), plan(l.approver("bob"), "deny")
	if _, err := l.Commit(yes); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Commit(no); !isConflict(err) {
		t.Errorf("decided twice: %v", err)
	}
	a, _ = l.settle(planner, doArgs{What: "a"}, writ.Subject{}, need(nil))
	b, _ = l.settle(planner, doArgs{What: "a"}, writ.Subject{}, need(nil))
	if !a.met || !b.met {
		t.Fatal("not met")
	}
	if err := l.Apply(a.tx); err != nil {
		t.Fatal(err)
	}
	if err := l.Apply(b.tx); !isConflict(err) {
		t.Errorf("one use for two calls: %v", err)
	}
}

func TestRememberedApprovals(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	run, other := l.World.Run("planner", 10), l.World.Run("planner", 10)
	in := func(r writ.Run) writ.Subject { return writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}} }
	ask := func(n writ.Need, what string) writ.ApprovalID {
		out, err := l.about(planner, doArgs{What: what}, in(run), n)
		if err != nil || out.met {
			t.Fatal(out.met, err)
		}
		return out.pending.Approval
	}
	decide := func(id writ.ApprovalID, scope writ.ApprovalScope, uses int64) error {
		_, _, err := l.Call(l.capability("approval.decide"), alice, &approvals.ApprovalDecideArgs{
			Approval: id, Decision: "approve", Remember: &approvals.Remember{Scope: scope, MaxUses: uses},
		})
		return err
	}
	plain := need(nil)
	refusedWith(t, decide(ask(plain, "x"), writ.ScopeRun, 2), writ.CodeInputInvalid)

	may := need(func(n *writ.Need) { n.Remember = 3 })
	id := ask(may, "a")
	refusedWith(t, decide(id, writ.ScopeRun, 4), writ.CodeInputInvalid)
	if err := decide(id, writ.ScopeRun, 3); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"b", "a", "c"} {
		if out, err := l.about(planner, doArgs{What: what}, in(run), may); err != nil || !out.met {
			t.Errorf("%s: met %v, %v", what, out.met, err)
		}
		if out, err := l.about(planner, doArgs{What: what}, in(other), may); err != nil || out.met {
			t.Errorf("%s in another run: met %v, %v", what, out.met, err)
		}
	}
	l.wants(id, writ.ApprovalConsumed)
	if out, err := l.about(planner, doArgs{What: "d"}, in(run), may); err != nil || out.met {
		t.Errorf("a fourth use: met %v, %v", out.met, err)
	}
	// A policy that no longer allows remembering does not honour what was remembered.
	id = ask(may, "e")
	if err := decide(id, writ.ScopeRun, 3); err != nil {
		t.Fatal(err)
	}
	if out, err := l.about(planner, doArgs{What: "f"}, in(run), plain); err != nil || out.met {
		t.Errorf("met %v, %v", out.met, err)
	}
}

func TestAnswersOfPeople(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	n := need(func(n *writ.Need) { n.Kind, n.Schema = writ.ApproveHumanAction, writ.RawObject(`{"ok":true}`) })
	id := l.asked(planner, doArgs{What: "a"}, n)
	refusedWith(t, l.decide(alice, id, "approve"), writ.CodeIllegal)
	respond := func(answer string) error {
		_, _, err := l.Call(l.capability("approval.respond"), alice, &approvals.ApprovalRespondArgs{Approval: id, Response: writ.RawObject(answer)})
		return err
	}
	refusedWith(t, respond(`{"ok":false}`), writ.CodeInputInvalid)
	if err := respond(`{"ok":true}`); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalApproved)
	l.happens(planner, doArgs{What: "a"}, n)
	plain := l.asked(planner, doArgs{What: "b"}, need(nil))
	_, _, err := l.Call(l.capability("approval.respond"), alice, &approvals.ApprovalRespondArgs{Approval: plain, Response: writ.RawObject(`{}`)})
	refusedWith(t, err, writ.CodeIllegal)
}

func TestRevoke(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	revoke := func() error {
		_, _, err := l.Call(l.capability("approval.revoke"), l.Open(writ.RoleOperator, "root", ""), &approvals.ApprovalRevokeArgs{Approval: id})
		return err
	}
	refusedWith(t, revoke(), writ.CodeIllegal)
	l.approves(alice, id)
	if err := revoke(); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalRevoked)
	if next := l.asked(planner, doArgs{What: "a"}, need(nil)); next == id {
		t.Error("a revoked approval counts")
	}
}

func TestWhoMaySeeApprovals(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	stranger := l.Open(writ.RoleOrchestrator, "stranger", "")
	for _, c := range []struct {
		by   writ.Caller
		sees bool
	}{
		{planner, true}, {l.approver("alice"), true}, {l.Open(writ.RoleAuditor, "ada", ""), true}, {l.Open(writ.RoleOperator, "root", ""), true}, {stranger, false},
	} {
		_, _, err := l.Call(l.capability("approval.get"), c.by, &approvals.ApprovalGetArgs{Approval: id})
		if (err == nil) != c.sees || err != nil && writ.CodeOf(err) != writ.CodeNotFound {
			t.Errorf("%s: %v", c.by.Principal, err)
		}
		reply, _, err := l.Call(l.capability("approval.list"), c.by, &approvals.ApprovalListArgs{State: writ.ApprovalPending})
		if err != nil {
			t.Fatal(err)
		}
		page, err := writtest.Body[approvals.ApprovalList](reply)
		if err != nil || (len(page.Approvals) == 1) != c.sees {
			t.Errorf("%s lists %d (%v)", c.by.Principal, len(page.Approvals), err)
		}
	}
	refusedWith(t, l.decide(stranger, id, "approve"), writ.CodeNotFound)
}

// Policy sees what kinds of data a reader of approvals would see, and no others.
func TestReadsDescribeLabels(t *testing.T) {
	l := newLab(t)
	planner, other := l.planner(), l.Open(writ.RoleOrchestrator, "other", "")
	var ids []writ.ApprovalID
	for _, c := range []struct {
		by    writ.Caller
		label writ.Label
	}{{planner, writ.LabelPIIChatMessage}, {other, writ.LabelSecretToken}} {
		out, err := l.about(c.by, doArgs{What: "a"}, writ.Subject{Labels: []writ.Label{c.label}}, need(nil))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, out.pending.Approval)
	}
	auditor := l.Open(writ.RoleAuditor, "ada", "")
	for _, c := range []struct {
		by   writ.Caller
		id   writ.CapabilityID
		args any
		want []writ.Label
	}{
		{auditor, "approval.get", &approvals.ApprovalGetArgs{Approval: ids[0]}, []writ.Label{writ.LabelPIIChatMessage}},
		{auditor, "approval.get", &approvals.ApprovalGetArgs{Approval: ids[1]}, []writ.Label{writ.LabelSecretToken}},
		{auditor, "approval.list", &approvals.ApprovalListArgs{}, []writ.Label{writ.LabelPIIChatMessage, writ.LabelSecretToken}},
		{auditor, "approval.list", &approvals.ApprovalListArgs{Limit: 1}, []writ.Label{writ.LabelPIIChatMessage}},
		{planner, "approval.list", &approvals.ApprovalListArgs{}, []writ.Label{writ.LabelPIIChatMessage}},
	} {
		k := l.capability(c.id)
		p, err := l.Plan(k, l.NewCall(k, c.by, c.args))
		if err != nil || !slices.Equal(p.Subject.Labels, c.want) {
			t.Errorf("%s %+v by %s: got %v, %v, want %v", c.id, c.args, c.by.Principal, p.Subject.Labels, err, c.want)
		}
	}
}

func TestArgumentsTooLargeToShow(t *testing.T) {
	l := newLab(t)
	_, err := l.do(l.planner(), doArgs{What: strings.Repeat("x", 50<<10)}, need(nil))
	refusedWith(t, err, writ.CodeTooLarge)
}

// More budget is used by being granted, and whoever meets the limit next asks
// for the same.
func TestBudgetRequestsAreShared(t *testing.T) {
	l := newLab(t)
	run := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	n := need(func(n *writ.Need) {
		n.Rule, n.Kind, n.Scope, n.Dimension, n.Add = "budgets.extend.steps", writ.ApproveBudgetExtension, writ.ScopeRun, "steps", 5
	})
	first, err := l.about(l.planner(), doArgs{What: "a"}, sub, n)
	if err != nil {
		t.Fatal(err)
	}
	worker := l.Open(writ.RoleExecutor, "worker", "builder")
	second, err := l.about(worker, doArgs{What: "b"}, sub, n)
	if err != nil || second.pending.Approval != first.pending.Approval {
		t.Errorf("asked twice for one run: %s, %s (%v)", first.pending.Approval, second.pending.Approval, err)
	}
	l.approves(l.approver("alice"), first.pending.Approval)
	l.wants(first.pending.Approval, writ.ApprovalConsumed)
}

// People who are asked for everything look at nothing.
func TestOnePrincipalAsksForSoMuch(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	var first writ.ApprovalID
	for i := range writ.MaxApprovalsAsked {
		id := l.asked(planner, doArgs{What: strings.Repeat("x", i+1)}, need(nil))
		if i == 0 {
			first = id
		}
	}
	_, err := l.do(planner, doArgs{What: "one more"}, need(nil))
	refusedWith(t, err, writ.CodeApprovalRequired)
	l.asked(l.Open(writ.RoleOrchestrator, "other", ""), doArgs{What: "of somebody else"}, need(nil))
	if err := l.decide(l.approver("alice"), first, "deny"); err != nil {
		t.Fatal(err)
	}
	l.asked(planner, doArgs{What: "one more"}, need(nil))
	_, err = l.do(planner, doArgs{What: "two more"}, need(nil))
	refusedWith(t, err, writ.CodeApprovalRequired)
}

// Two names of one person are one person, whichever of the two answers for the
// other.
func TestOnePersonCountsOnce(t *testing.T) {
	l := newLab(t)
	two := need(func(n *writ.Need) { n.Approvers = 2 })
	id := l.asked(l.planner(), doArgs{What: "a"}, two)
	alice := l.approver("alice")
	alice.Controller = "zed"
	l.approves(alice, id)
	second := l.approver("alice-1")
	second.Controller = "alice"
	refusedWith(t, l.decide(second, id, "approve"), writ.CodeSoD)
	third := l.approver("zed")
	refusedWith(t, l.decide(third, id, "approve"), writ.CodeSoD)
	l.wants(id, writ.ApprovalPending)
}

// Who uses an approval need not be who asked: nobody who stands behind the user
// may have agreed either.
func TestUsersAreHeldToSeparationToo(t *testing.T) {
	l := newLab(t)
	task := writ.Task{ID: writ.TaskID(l.NewID(writ.PrefixTask)), Capability: "site.build", State: writ.TaskQueued, Args: writ.RawObject(`{"target":"prod","n":12345678901234567890}`)}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	sub := writ.Subject{Task: &writ.TaskFacts{ID: task.ID, Capability: task.Capability}}
	n := need(func(n *writ.Need) { n.Scope = writ.ScopeTask })
	out, err := l.about(l.planner(), doArgs{What: "a"}, sub, n)
	if err != nil {
		t.Fatal(err)
	}
	shown, _, _ := writtest.Get[writ.Approval](l.World, writ.ApprovalKey(out.pending.Approval))
	if !strings.Contains(string(shown.Args), `"target":"prod"`) || !strings.Contains(string(shown.Args), "12345678901234567890") {
		t.Errorf("people are shown %s", shown.Args)
	}
	l.approves(l.approver("mallory"), out.pending.Approval)
	for name, openers := range map[string][]writ.PrincipalID{"opened by who agreed": {"mallory", "root"}, "by nobody of them": {"root"}} {
		worker := l.Open(writ.RoleExecutor, "worker", "builder")
		worker.Controller, worker.Openers = "worker", openers
		got, err := l.settle(worker, doArgs{What: "b"}, sub, n)
		if len(openers) == 2 {
			refusedWith(t, err, writ.CodeSoD)
		} else if err != nil || !got.met {
			t.Errorf("%s: met %v, %v", name, got.met, err)
		}
	}
}

// One of several does not widen alone, and a policy that remembers less than it
// did is obeyed.
func TestRememberingHasLimits(t *testing.T) {
	l := newLab(t)
	planner, alice := l.planner(), l.approver("alice")
	run := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	decide := func(n writ.Need, what string) error {
		out, err := l.about(planner, doArgs{What: what}, sub, n)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = l.Call(l.capability("approval.decide"), alice, &approvals.ApprovalDecideArgs{
			Approval: out.pending.Approval, Decision: "approve", Remember: &approvals.Remember{Scope: writ.ScopeRun, MaxUses: 5},
		})
		return err
	}
	refusedWith(t, decide(need(func(n *writ.Need) { n.Remember, n.Approvers = 5, 2 }), "two"), writ.CodeInputInvalid)
	if err := decide(need(func(n *writ.Need) { n.Remember = 5 }), "a"); err != nil {
		t.Fatal(err)
	}
	less := need(func(n *writ.Need) { n.Remember = 1 })
	for i, what := range []string{"b", "c"} {
		if out, err := l.about(planner, doArgs{What: what}, sub, less); err != nil || out.met != (i == 0) {
			t.Errorf("use %d: met %v, %v", i, out.met, err)
		}
	}
}

// Who waits for a request that gives way to another is told.
func TestSupersededTellsWhoWaits(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	next := l.asked(planner, doArgs{What: "a"}, need(func(n *writ.Need) { n.Approvers = 2 }))
	if next == id || !slices.Equal(l.woken, []writ.ApprovalState{writ.ApprovalSuperseded}) {
		t.Errorf("%s, then %s; who waits was told %v", id, next, l.woken)
	}
	l.wants(id, writ.ApprovalSuperseded)
}

// What an approval is about must be readable to be decided about: a task whose
// state is not known may have ended.
func TestATaskThatCannotBeReadIsNotDecidedAbout(t *testing.T) {
	l := newLab(t)
	task := writ.Task{ID: writ.TaskID(l.NewID(writ.PrefixTask)), Capability: "site.build", State: writ.TaskQueued}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	out, err := l.about(l.planner(), doArgs{What: "a"}, writ.Subject{Task: &writ.TaskFacts{ID: task.ID, Capability: task.Capability}}, need(nil))
	if err != nil {
		t.Fatal(err)
	}
	id := out.pending.Approval
	expire := func() error {
		_, _, err := l.Call(l.capability("approval.expire"), l.System(), &approvals.ApprovalExpireArgs{Approval: id})
		return err
	}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, map[string]any{"state": 7})
	refusedWith(t, l.decide(l.approver("alice"), id, "approve"), writ.CodeInternal)
	refusedWith(t, l.decide(l.approver("alice"), id, "deny"), writ.CodeInternal)
	refusedWith(t, expire(), writ.CodeInternal)
	l.wants(id, writ.ApprovalPending)

	task.State = writ.TaskCancelled
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	refusedWith(t, l.decide(l.approver("alice"), id, "approve"), writ.CodeIllegal)
	if err := expire(); err != nil {
		t.Fatal(err)
	}
	l.wants(id, writ.ApprovalExpired)
}
