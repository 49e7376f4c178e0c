package approvals_test

import (
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/approvals"
)

// A decision is taken before the end of the request or not at all.
func TestNoVoteAfterTheEnd(t *testing.T) {
	l := newLab(t)
	id := l.asked(l.planner(), doArgs{What: "a"}, need(nil))
	decide := l.capability("approval.decide")
	p, err := l.Plan(decide, l.NewCall(decide, l.approver("alice"), &approvals.ApprovalDecideArgs{Approval: id, Decision: "approve"}))
	if err != nil {
		t.Fatal(err)
	}
	l.Advance(3600)
	if _, err := l.Commit(p); !isConflict(err) {
		t.Errorf("judged before the end and committed after it: %v", err)
	}
}

// Who answers for the requester stands behind it, whoever opened its session.
func TestWhoAnswersForTheRequesterDoesNotDecide(t *testing.T) {
	l := newLab(t)
	planner := l.planner()
	planner.Openers = nil
	id := l.asked(planner, doArgs{What: "a"}, need(nil))
	refusedWith(t, l.decide(l.approver("root"), id, "approve"), writ.CodeSoD)
}

// Two keys of one person, of which neither is that person's own name.
func TestTwoKeysOfOnePersonVoteOnce(t *testing.T) {
	l := newLab(t)
	id := l.asked(l.planner(), doArgs{What: "a"}, need(func(n *writ.Need) { n.Approvers = 2 }))
	first, second := l.approver("alice-1"), l.approver("alice-2")
	first.Controller, second.Controller = "alice", "alice"
	l.approves(first, id)
	refusedWith(t, l.decide(second, id, "approve"), writ.CodeSoD)
}

// Who answers for the one that enqueued a task stands behind it too.
func TestWhoAnswersForTheEnqueuerDoesNotDecide(t *testing.T) {
	l := newLab(t)
	enqueuer := writ.Session{ID: writ.SessionID(l.NewID(writ.PrefixSession)), Principal: "planner", Controller: "boss", Role: writ.RoleOrchestrator}
	l.Seed(writ.SessionKey(enqueuer.ID), writ.ObjectSession, enqueuer)
	task := writ.Task{ID: writ.TaskID(l.NewID(writ.PrefixTask)), Capability: "site.build", State: writ.TaskQueued, EnqueuedBy: enqueuer.ID}
	l.Seed(writ.TaskKey(task.ID), writ.ObjectTask, task)
	sub := writ.Subject{Task: &writ.TaskFacts{ID: task.ID, Capability: task.Capability}}
	worker := l.Open(writ.RoleExecutor, "worker", "builder")
	out, err := l.about(worker, doArgs{What: "a"}, sub, need(func(n *writ.Need) { n.Scope = writ.ScopeTask }))
	if err != nil {
		t.Fatal(err)
	}
	refusedWith(t, l.decide(l.approver("boss"), out.pending.Approval, "approve"), writ.CodeSoD)
}

// The user of an approval is held apart from who voted: by whoever opened the
// user's session, and by whom the user opened a session for.
func TestUsersAndVotersAreNotOfOneHand(t *testing.T) {
	for name, c := range map[string]struct{ voter, user func(*writ.Caller) }{
		"a key of who opened the user's session": {
			func(c *writ.Caller) { c.Controller = "boss" },
			func(c *writ.Caller) { c.Openers = []writ.PrincipalID{"boss"} },
		},
		"a session the user opened": {
			func(c *writ.Caller) { c.Openers = []writ.PrincipalID{"worker"} },
			func(*writ.Caller) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			sub, n, id := l.askedForATask()
			voter := l.approver("alice")
			c.voter(&voter)
			l.approves(voter, id)
			user := l.Open(writ.RoleExecutor, "worker", "builder")
			user.Controller = "worker"
			c.user(&user)
			_, err := l.about(user, doArgs{What: "a"}, sub, n)
			refusedWith(t, err, writ.CodeSoD)
		})
	}
}

// Who asks for something in a run has a part in it, and does not judge it.
func TestWhoAsksHasAPart(t *testing.T) {
	l := newLab(t)
	run := l.World.Run("planner", 10)
	sub := writ.Subject{Run: &writ.RunFacts{ID: run.ID, State: run.State}}
	worker := l.Open(writ.RoleExecutor, "worker", "builder")
	if _, err := l.about(worker, doArgs{What: "a"}, sub, need(nil)); err != nil {
		t.Fatal(err)
	}
	duty := func(c writ.Caller) writ.DutyFacts {
		return *writ.DutyIn(l.Snapshot(writ.ReadSet{Ranges: writ.DutyReads(run.ID, c, nil)}), run.ID, c, nil)
	}
	if d := duty(worker); d != (writ.DutyFacts{Requested: true}) {
		t.Errorf("got %+v", d)
	}
	judge := l.Open(writ.RoleVerifier, "judge", "")
	if d := duty(judge); !d.Independent() {
		t.Errorf("got %+v", d)
	}
	// That people must agree to a verdict is no part in what it judges.
	sub.Duty = &writ.DutyFacts{}
	if _, err := l.about(judge, doArgs{What: "b"}, sub, need(nil)); err != nil {
		t.Fatal(err)
	}
	if d := duty(judge); !d.Independent() {
		t.Errorf("got %+v", d)
	}
}
