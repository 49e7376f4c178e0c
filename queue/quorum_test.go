package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func quorum(n int64) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.Verify = &TaskVerification{Required: true, Quorum: &n} }
}

// verifier opens the session of somebody who had no part, of an agent of its own.
func (l *lab) verifier(name string) writ.Caller {
	l.Helper()
	id := writ.AgentID("agent-" + name)
	l.w.Agent(id, "web")
	return l.w.Open(writ.RoleVerifier, writ.PrincipalID(name), id)
}

// As many as it wants accept a task, each somebody else; until then it waits as it was.
func TestSeveralAcceptAResult(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", quorum(3))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	was := l.task(id)
	jane, jim := l.verifier("jane"), l.verifier("jim")
	accept := l.verdict(id, writ.VerdictAccept)
	for i, by := range []writ.Caller{l.judge, jane} {
		reply, tx, err := l.try("task.verify", by, accept)
		if err != nil {
			t.Fatal(err)
		}
		v := body[TaskView](l, reply)
		if v.State != writ.TaskVerifying || v.Receipt != was.Receipt || v.Votes == nil || v.Votes.Needed != 3 || v.Votes.Accepted != int64(i+1) || len(v.Votes.Receipts) != i+1 {
			t.Fatalf("got %+v, %+v", v, v.Votes)
		}
		if len(tx.Changes) != 1 || tx.Changes[0].Kind != writ.ObjectBallot || !tx.Mandate || !slices.Contains(tx.Causes, was.Receipt) {
			t.Errorf("changes %+v", tx.Changes)
		}
		if e := l.refused(writ.CodeSoD, "task.verify", by, accept); e.Details["reason"] != "voted" {
			t.Errorf("voting again: %+v", e)
		}
		if e := l.refused(writ.CodeSoD, "task.verify", by, l.verdict(id, writ.VerdictReject)); e.Details["reason"] != "voted" {
			t.Errorf("rejecting after accepting: %+v", e)
		}
		audit(l)
	}
	if v := body[TaskView](l, l.do("task.get", jim, &TaskGetArgs{Task: id})); v.Votes == nil || v.Votes.Accepted != 2 || *v.Verify.Quorum != 3 {
		t.Errorf("shown as %+v", v.Votes)
	}
	_, tx, err := l.try("task.verify", jim, accept)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.wantState(id, writ.TaskDone); !got.Verified {
		t.Errorf("got %+v", got)
	}
	if len(tx.Changes) < 2 || tx.Changes[0].Kind != writ.ObjectTask || tx.Changes[len(tx.Changes)-1].Kind != writ.ObjectBallot || len(tx.Causes) != 2 {
		t.Errorf("changes %+v, causes %v", tx.Changes, tx.Causes)
	}
	audit(l)
}

// Who is not somebody else by any name does not vote beside the other, whoever of the
// two comes first.
func TestVotersAreToldApart(t *testing.T) {
	key := writ.PublicKey{ID: "aabb"}
	for name, change := range map[string]func(one, two *writ.Caller, keys map[writ.AgentID]bool){
		"the same principal":       func(one, two *writ.Caller, _ map[writ.AgentID]bool) { two.Principal = one.Principal },
		"the same agent":           func(one, two *writ.Caller, _ map[writ.AgentID]bool) { two.Agent = one.Agent },
		"one key":                  func(one, two *writ.Caller, keys map[writ.AgentID]bool) { keys[one.Agent], keys[two.Agent] = true, true },
		"one controller":           func(one, two *writ.Caller, _ map[writ.AgentID]bool) { one.Controller, two.Controller = "carl", "carl" },
		"one answers to the other": func(one, two *writ.Caller, _ map[writ.AgentID]bool) { two.Controller = one.Principal },
		"one opened the other":     func(one, two *writ.Caller, _ map[writ.AgentID]bool) { two.Openers = []writ.PrincipalID{one.Principal} },
		"who answers opened the other": func(one, two *writ.Caller, _ map[writ.AgentID]bool) {
			one.Controller, two.Openers = "carl", []writ.PrincipalID{"carl"}
		},
	} {
		for _, first := range []int{0, 1} {
			t.Run(name, func(t *testing.T) {
				l := newLab(t)
				id := l.enqueue("one", quorum(2))
				l.do("task.complete", l.a, l.claim(l.a, id).complete())
				two := []writ.Caller{l.verifier("jane"), l.verifier("jim")}
				keys := map[writ.AgentID]bool{}
				change(&two[0], &two[1], keys)
				b := writ.Ballot{ID: string(id), State: writ.BallotOpen, About: l.task(id).Receipt}
				v := two[first]
				vote := writ.Acceptance{Receipt: b.About, Session: v.Session, Principal: v.Principal, Controller: v.Controller, Openers: v.Openers, Agent: v.Agent}
				if keys[v.Agent] {
					vote.Keys = []string{key.ID}
				}
				b.Votes = []writ.Acceptance{vote}
				l.w.Seed(writ.BallotKey(id), writ.ObjectBallot, b)
				other := two[1-first]
				accept := l.verdict(id, writ.VerdictAccept)
				if keys[other.Agent] { // without a signature nothing would count
					a, _, _ := writtest.Get[writ.Agent](l.w, writ.AgentKey(other.Agent))
					a.Keys = []writ.PublicKey{key}
					l.w.Seed(writ.AgentKey(other.Agent), writ.ObjectAgent, a)
					l.refused(writ.CodeVerdict, "task.verify", other, accept)
					return
				}
				if e := l.refused(writ.CodeSoD, "task.verify", other, accept); e.Details["reason"] != "voted" {
					t.Errorf("got %+v", e)
				}
			})
		}
	}
	// And who is, does.
	l := newLab(t)
	id := l.enqueue("one", quorum(2))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	for _, name := range []string{"jane", "jim"} {
		by := l.verifier(name)
		by.Openers = []writ.PrincipalID{"olga", writ.MachineOperator} // who opened both did nothing
		l.do("task.verify", by, l.verdict(id, writ.VerdictAccept))
	}
	l.wantState(id, writ.TaskDone)
}

// One that rejects is enough, and what was said of a result is not said of the next.
func TestOneRejectionIsEnough(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", quorum(2))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	before := l.verdict(id, writ.VerdictAccept)
	jane := l.verifier("jane")
	l.do("task.verify", l.judge, before)
	l.do("task.verify", jane, l.verdict(id, writ.VerdictReject))
	l.wantState(id, writ.TaskQueued)
	if b, _, _ := writtest.Get[writ.Ballot](l.w, writ.BallotKey(id)); b.State != writ.BallotVoid || len(b.Votes) != 0 {
		t.Errorf("got %+v", b)
	}
	audit(l)
	l.do("task.complete", l.b, l.claim(l.b, id).complete())
	l.refused(writ.CodePredicate, "task.verify", l.verifier("jim"), before)
	if v := body[TaskView](l, l.do("task.get", jane, &TaskGetArgs{Task: id})); v.Votes.Accepted != 0 {
		t.Errorf("got %+v", v.Votes)
	}
	l.do("task.verify", jane, l.verdict(id, writ.VerdictAccept)) // who rejected then may accept now
	l.wantState(id, writ.TaskVerifying)
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
	l.wantState(id, writ.TaskDone)
	audit(l)

	// A ballot on something else is none, whatever it says.
	other := l.enqueue("two", quorum(2))
	l.do("task.complete", l.a, l.claim(l.a, other).complete())
	l.w.Seed(writ.BallotKey(other), writ.ObjectBallot, writ.Ballot{
		ID: string(other), State: writ.BallotOpen, About: before.Receipt, Votes: []writ.Acceptance{{Session: "ses_x", Principal: "x"}},
	})
	l.do("task.verify", l.judge, l.verdict(other, writ.VerdictAccept))
	l.wantState(other, writ.TaskVerifying)
}

// A verdict counts only as long as who gave it could give it still.
func TestVotesThatStandNoMore(t *testing.T) {
	for name, meanwhile := range map[string]func(*lab, writ.Caller){
		"took a part in the run": func(l *lab, _ writ.Caller) {
			l.claim(l.w.Open(writ.RoleExecutor, "jane", "agent-b"), l.enqueue("two"))
		},
		"its agent was suspended": func(l *lab, by writ.Caller) {
			l.setAgent(by.Agent, func(a *writ.Agent) { a.State = writ.AgentSuspended })
		},
		"the key that signed was taken away": func(l *lab, _ writ.Caller) {
			id := l.w.Members(writ.IndexVerify)[0]
			b, _, _ := writtest.Get[writ.Ballot](l.w, writ.BallotKey(id))
			b.Votes[0].SignedBy = "aabb"
			l.w.Seed(writ.BallotKey(id), writ.ObjectBallot, b)
		},
		"was revoked": func(l *lab, by writ.Caller) {
			ses, _, _ := writtest.Get[writ.Session](l.w, writ.SessionKey(by.Session))
			ses.State = writ.SessionRevoked
			l.w.Seed(writ.SessionKey(by.Session), writ.ObjectSession, ses)
		},
		"has keys now and signed with none": func(l *lab, by writ.Caller) {
			l.setAgent(by.Agent, func(a *writ.Agent) { a.Keys = []writ.PublicKey{{ID: "ccdd"}} })
		},
		"": func(*lab, writ.Caller) {},
	} {
		l := newLab(t)
		id := l.enqueue("one", quorum(2))
		l.do("task.complete", l.a, l.claim(l.a, id).complete())
		jane := l.verifier("jane")
		l.do("task.verify", jane, l.verdict(id, writ.VerdictAccept))
		meanwhile(l, jane)
		l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
		want := writ.TaskVerifying
		if name == "" {
			want = writ.TaskDone
		}
		if got := l.task(id).State; got != want {
			t.Errorf("who voted %s: the task is %s", name, got)
		}
		audit(l)
	}
}

// Nor does one that takes a part while the last is under way; and of two that come at
// once one is counted after the other.
func TestVotesAreGuarded(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", quorum(2))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	plan := func(by writ.Caller) *writtest.Planned {
		p, err := l.w.Plan(l.caps["task.verify"], l.w.NewCall(l.caps["task.verify"], by, l.verdict(id, writ.VerdictAccept)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	jane := l.verifier("jane")
	first, second := plan(jane), plan(l.judge)
	if _, err := l.w.Commit(first); err != nil {
		t.Fatal(err)
	}
	var c *writtest.Conflict
	if _, err := l.w.Commit(second); !errors.As(err, &c) {
		t.Fatalf("got %v, want a conflict", err)
	}
	last := plan(l.judge)
	l.claim(l.w.Open(writ.RoleExecutor, "jane", "agent-b"), l.enqueue("two"))
	if _, err := l.w.Commit(last); !errors.As(err, &c) {
		t.Fatalf("got %v, want a conflict", err)
	}
}

// What is handed on asks for as many verdicts as what it comes from, and what is
// revived as many as what died; neither has one yet.
func TestAQuorumIsPassedOn(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", quorum(2), attempts(1))
	g := l.claim(l.a, id)
	h := body[HandedOff](l, l.do("task.handoff", l.a, &TaskHandoffArgs{
		TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}, To: HandoffTarget{Task: &HandoffTask{Key: "next", Capability: build}},
	}))
	if n := l.task(h.Next.ID).Verify.Quorum; n != 2 {
		t.Errorf("what follows wants %d", n)
	}
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
	l.wantState(h.Next.ID, writ.TaskBlocked)
	l.do("task.verify", l.verifier("jane"), l.verdict(id, writ.VerdictAccept))
	l.wantState(h.Next.ID, writ.TaskQueued)
	l.do("task.complete", l.b, l.claim(l.b, h.Next.ID).complete())
	l.do("task.verify", l.judge, l.verdict(h.Next.ID, writ.VerdictAccept))
	l.wantState(h.Next.ID, writ.TaskVerifying)

	dead := l.enqueue("dying", quorum(2), attempts(1))
	l.do("task.fail", l.a, l.claim(l.a, dead).fail(true))
	died := l.task(dead).Receipt
	reply, tx, err := l.try("task.revive", l.owner, &TaskReviveArgs{Task: dead, Key: "again"})
	if err != nil || !slices.Equal(tx.Causes, []writ.ReceiptID{died}) {
		t.Fatalf("%v, from %v; want %s", err, tx.Causes, died)
	}
	again := body[TaskView](l, reply)
	if again.Verify == nil || again.Verify.Quorum == nil || *again.Verify.Quorum != 2 {
		t.Errorf("revived as %+v", again.Verify)
	}
	audit(l)
}

// More verdicts than there may be, or than agents may give, are refused at once.
func TestQuorumsThatCannotBe(t *testing.T) {
	l := newLab(t)
	for _, n := range []int64{0, -1, writ.MaxQuorum + 1} {
		a := &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", Verify: &TaskVerification{Required: true, Quorum: &n}}
		l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, a)
	}
	two := int64(2)
	a := &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", Verify: &TaskVerification{Required: true, Quorum: &two, Agents: []writ.AgentID{"agent-v", "agent-v"}}}
	if e := l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, a); !slices.Equal(e.Fields, []writ.FieldError{{Pointer: "/verify/quorum", Msg: e.Fields[0].Msg}}) {
		t.Errorf("got %+v", e.Fields)
	}
}

// The last of as many verdicts as there may be fits into its transaction, whoever
// stands behind them, and lets go who waits.
func TestTheLargestQuorumFits(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", quorum(writ.MaxQuorum))
	for i := range releaseAtOnce {
		l.enqueue(fmt.Sprintf("next-%d", i), after("one"))
	}
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	for i := range writ.MaxQuorum {
		by := l.verifier(fmt.Sprintf("voter-%d", i))
		by.Controller = writ.PrincipalID(fmt.Sprintf("person-%d", i))
		for j := range 8 {
			by.Openers = append(by.Openers, writ.PrincipalID(fmt.Sprintf("opener-%d-%d", i, j)))
		}
		if i > 0 { // keys of those before, as if the agents had had them
			b, _, _ := writtest.Get[writ.Ballot](l.w, writ.BallotKey(id))
			b.Votes[i-1].Keys = []string{fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i), fmt.Sprintf("c%d", i), fmt.Sprintf("d%d", i)}
			l.w.Seed(writ.BallotKey(id), writ.ObjectBallot, b)
		}
		l.do("task.verify", by, l.verdict(id, writ.VerdictAccept))
	}
	l.wantState(id, writ.TaskDone)
	audit(l)
}
