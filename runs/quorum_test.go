package runs

import (
	"errors"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// wanting is a run that waits for so many verdicts.
func (r *room) wanting(n int64) writ.RunID {
	r.t.Helper()
	id := body[RunView](r.t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, CloseQuorum: &n, Budget: RunBudget{Steps: 10}})).RunID
	r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	return id
}

// As many as it wants close a run, each somebody else; one sends it back.
func TestSeveralAcceptARun(t *testing.T) {
	r := newRoom(t)
	id := r.wanting(2)
	was := r.run(id)
	jane, jim := r.Open(writ.RoleVerifier, "jane", ""), r.Open(writ.RoleVerifier, "jim", "")
	v := body[RunView](t, r.must("run.close", jane, r.verdict(id, writ.VerdictAccept)))
	if v.State != writ.RunVerifying || v.Receipt != was.Receipt || v.CloseQuorum != 2 || v.Votes == nil || v.Votes.Needed != 2 || v.Votes.Accepted != 1 {
		t.Fatalf("got %+v, %+v", v, v.Votes)
	}
	if v := body[RunView](t, r.must("run.get", jim, &RunGetArgs{RunID: id})); v.Votes == nil || len(v.Votes.Receipts) != 1 {
		t.Errorf("shown as %+v", v.Votes)
	}
	for name, by := range map[string]writ.Caller{
		"herself": jane, "in another session": r.Open(writ.RoleVerifier, "jane", ""),
	} {
		_, _, err := r.Call(r.caps["run.close"], by, r.verdict(id, writ.VerdictAccept))
		if e := writ.AsError("", err); e == nil || e.Code != writ.CodeSoD || e.Details["reason"] != "voted" {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.must("run.close", jim, r.verdict(id, writ.VerdictReject))
	if s := r.run(id).State; s != writ.RunActive {
		t.Fatalf("the run is %s", s)
	}
	r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	r.must("run.close", jim, r.verdict(id, writ.VerdictAccept)) // the one of before does not count
	if s := r.run(id).State; s != writ.RunVerifying {
		t.Fatalf("the run is %s", s)
	}
	r.must("run.close", jane, r.verdict(id, writ.VerdictAccept))
	if s := r.run(id).State; s != writ.RunDone {
		t.Fatalf("the run is %s", s)
	}
	if b, _, _ := writtest.Get[writ.Ballot](r.World, writ.BallotKey(id)); b.State != writ.BallotCarried || len(b.Votes) != 2 {
		t.Errorf("got %+v", b)
	}
}

// Who takes a part elsewhere in the tree after a verdict on a child of it has given none.
func TestAPartTakenAfterTheVote(t *testing.T) {
	r := newRoom(t)
	parent := r.created(r.orc, writ.CloseVerifier)
	n := int64(2)
	child := body[RunView](t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, CloseQuorum: &n, Parent: parent, Budget: RunBudget{Steps: 2}})).RunID
	r.must("run.seal", r.orc, &RunSealArgs{RunID: child})
	r.must("run.close", r.Open(writ.RoleVerifier, "olivia", ""), r.verdict(child, writ.VerdictAccept))
	r.must("run.create", r.ops, &RunCreateArgs{Parent: parent, Budget: RunBudget{Steps: 2}}) // by olivia
	r.must("run.close", r.Open(writ.RoleVerifier, "jane", ""), r.verdict(child, writ.VerdictAccept))
	if s := r.run(child).State; s != writ.RunVerifying {
		t.Fatalf("the run is %s", s)
	}
	r.must("run.close", r.Open(writ.RoleVerifier, "jim", ""), r.verdict(child, writ.VerdictAccept))
	if s := r.run(child).State; s != writ.RunDone {
		t.Fatalf("the run is %s", s)
	}
}

func TestQuorumsOfRunsThatCannotBe(t *testing.T) {
	r := newRoom(t)
	for policy, ns := range map[writ.ClosePolicy][]int64{writ.CloseVerifier: {0, -1, 6}, writ.CloseAuto: {2}, writ.CloseManual: {2}} {
		for _, n := range ns {
			r.refused(writ.CodeInputInvalid, "run.create", r.orc, &RunCreateArgs{ClosePolicy: policy, CloseQuorum: &n, Budget: RunBudget{Steps: 1}})
		}
	}
}

// A run is not accepted while a result of it has not passed a gate that it must; it is sent
// back, and what comes to be owed meanwhile keeps it, too.
func TestARunOwesNothing(t *testing.T) {
	r := newRoom(t)
	id, judge := r.judged()
	r.SetIndex(writ.RunOwed(id), "site.lint tsk_a", 0)
	_, _, err := r.Call(r.caps["run.close"], judge, r.verdict(id, writ.VerdictAccept))
	if e := writ.AsError("", err); e == nil || e.Code != writ.CodePredicate || e.Details["missing"] != "gates/site.lint/tsk_a" {
		t.Fatalf("got %v", err)
	}
	r.DropIndex(writ.RunOwed(id), "site.lint tsk_a")
	p, err := r.Plan(r.caps["run.close"], r.NewCall(r.caps["run.close"], judge, r.verdict(id, writ.VerdictAccept)))
	if err != nil {
		t.Fatal(err)
	}
	r.SetIndex(writ.RunOwed(id), "site.lint tsk_a", 0)
	var c *writtest.Conflict
	if _, err := r.Commit(p); !errors.As(err, &c) {
		t.Fatalf("got %v, want a conflict", err)
	}
	r.must("run.close", judge, r.verdict(id, writ.VerdictReject))
}
