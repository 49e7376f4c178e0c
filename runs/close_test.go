package runs

import (
	"errors"
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// judged is a run that waits for its verdict, and a verifier who had no part in it.
func (r *room) judged() (writ.RunID, writ.Caller) {
	r.t.Helper()
	id := r.created(r.orc, writ.CloseVerifier)
	r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	if s := r.run(id).State; s != writ.RunVerifying {
		r.t.Fatalf("the run is %s", s)
	}
	return id, r.Open(writ.RoleVerifier, "judge", "")
}

func (r *room) verdict(id writ.RunID, v writ.Verdict) *RunCloseArgs {
	a := &RunCloseArgs{RunID: id, Verdict: v, Receipt: r.run(id).Receipt}
	if v == writ.VerdictReject {
		a.Reasons = []string{"incomplete"}
	}
	return a
}

func TestARunIsAccepted(t *testing.T) {
	r := newRoom(t)
	id, judge := r.judged()
	if l := body[RunList](t, r.must("run.list", judge, &RunListArgs{State: writ.RunVerifying})); len(l.Runs) != 1 || l.Runs[0].RunID != id {
		t.Fatalf("got %+v", l)
	}
	for name, by := range map[string]writ.Caller{
		"its owner as an orchestrator": r.orc, "an operator": r.ops, "an auditor": r.aud,
		"its owner as a verifier": r.Open(writ.RoleVerifier, "orc", ""),
	} {
		if _, _, err := r.Call(r.caps["run.close"], by, r.verdict(id, writ.VerdictAccept)); writ.CodeOf(err) != writ.CodeSoD {
			t.Errorf("%s: %v", name, err)
		}
	}
	v := body[RunView](t, r.must("run.close", judge, r.verdict(id, writ.VerdictAccept)))
	if v.State != writ.RunDone || v.Rework != 0 {
		t.Fatalf("got %+v", v)
	}
	r.refused(writ.CodeIllegal, "run.close", judge, r.verdict(id, writ.VerdictAccept))
	if left := r.Members(writ.IndexClose); len(left) > 0 {
		t.Errorf("%v still wait", left)
	}
	if todo := r.Members(writ.IndexTodo); len(todo) > 0 {
		t.Errorf("left to do: %v", todo)
	}
	// One that does not wait for it.
	r.refused(writ.CodeIllegal, "run.close", judge, r.verdict(r.created(r.orc, writ.CloseVerifier), writ.VerdictAccept))
	r.refused(writ.CodeNotFound, "run.close", judge, &RunCloseArgs{RunID: "run_01ARYZ6S410000000000000000", Verdict: writ.VerdictAccept})
}

// A verdict is about what there is now, and rests on tasks of the run only.
func TestAVerdictOnSomethingElse(t *testing.T) {
	r := newRoom(t)
	id, judge := r.judged()
	other := r.created(r.orc, writ.CloseVerifier)
	task := func(run writ.RunID, s writ.TaskState) TaskEvidence {
		e := TaskEvidence{writ.TaskID(r.NewID(writ.PrefixTask)), writ.ReceiptID(r.NewID(writ.PrefixReceipt))}
		r.Seed(writ.TaskKey(e.Task), writ.ObjectTask, writ.Task{ID: e.Task, Run: run, State: s, Receipt: e.Receipt})
		return e
	}
	mine := task(id, writ.TaskDone)
	stale := mine
	stale.Receipt = r.run(id).Receipt
	a := r.verdict(id, writ.VerdictAccept)
	a.Receipt = r.run(other).Receipt
	a.Tasks = []TaskEvidence{mine, stale, task(other, writ.TaskDone), task(id, writ.TaskFailed), {writ.TaskID(r.NewID(writ.PrefixTask)), mine.Receipt}}
	_, _, err := r.Call(r.caps["run.close"], judge, a)
	if e := writ.AsError("", err); e == nil || e.Code != writ.CodePredicate || e.Details["missing"] != "receipt_id,tasks/1,tasks/2,tasks/3,tasks/4" {
		t.Errorf("got %+v", err)
	}
	a = r.verdict(id, writ.VerdictAccept)
	a.Tasks = []TaskEvidence{mine}
	r.must("run.close", judge, a)
}

// A run that is sent back takes tasks again; sent back too often, it fails.
func TestARunIsSentBack(t *testing.T) {
	r := newRoom(t)
	id, judge := r.judged()
	r.refused(writ.CodeInputInvalid, "run.close", judge, r.verdict(id, "")) // what is no verdict accepts nothing
	without := r.verdict(id, writ.VerdictReject)
	without.Reasons = nil
	r.refused(writ.CodeInputInvalid, "run.close", judge, without)
	for i := range int64(writ.MaxRunRework) {
		v := body[RunView](t, r.must("run.close", judge, r.verdict(id, writ.VerdictReject)))
		if v.State != writ.RunActive || v.Sealed || v.Rework != i+1 {
			t.Fatalf("got %+v", v)
		}
		if left := r.Members(writ.IndexClose); len(left) > 0 {
			t.Errorf("%v still wait", left)
		}
		if due := r.Index(writ.IndexTodo)[writ.TodoOverrun(id)]; due == 0 {
			t.Error("its time does not run")
		}
		r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	}
	if v := body[RunView](t, r.must("run.close", judge, r.verdict(id, writ.VerdictReject))); v.State != writ.RunFailed || v.Reason != "verification" {
		t.Fatalf("got %+v", v)
	}
}

// Nobody is waited for for ever.
func TestAnUnjudgedRunEnds(t *testing.T) {
	r := newRoom(t)
	id, _ := r.judged()
	r.must("run.overrun", r.System(), &RunOverrunArgs{RunID: id})
	if s := r.run(id).State; s != writ.RunVerifying {
		t.Fatalf("the run is %s", s)
	}
	r.Advance(15 * 24 * 3600)
	r.must("run.overrun", r.System(), &RunOverrunArgs{RunID: id})
	if run := r.run(id); run.State != writ.RunFailed || run.Reason != "lifetime" {
		t.Fatalf("got %+v", run)
	}
	cancelled, _ := r.judged()
	r.must("run.cancel", r.orc, &RunCancelArgs{RunID: cancelled})
	if left := r.Members(writ.IndexClose); len(left) > 0 {
		t.Errorf("%v still wait", left)
	}
}

// A child's verdict is what its parent waits for.
func TestAParentWaitsForTheVerdict(t *testing.T) {
	r := newRoom(t)
	parent := r.created(r.orc, "")
	child := body[RunView](t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, Parent: parent, Budget: RunBudget{Steps: 2}})).RunID
	for _, id := range []writ.RunID{parent, child} {
		r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	}
	if s := r.run(parent).State; s != writ.RunActive {
		t.Fatalf("the parent is %s", s)
	}
	judge := r.Open(writ.RoleVerifier, "judge", "")
	r.must("run.close", judge, r.verdict(child, writ.VerdictAccept))
	r.must("run.settle", r.System(), &RunSettleArgs{RunID: child})
	if s := r.run(parent).State; s != writ.RunDone {
		t.Fatalf("the parent is %s", s)
	}
}

// No time of the run passes while it waits for its verdict.
func TestTheVerdictTakesNoTime(t *testing.T) {
	r := newRoom(t)
	wall := int64(2000)
	id := body[RunView](t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, Budget: RunBudget{Steps: 10, Wall: &wall}})).RunID
	r.Advance(1)
	r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	r.Advance(3600)
	judge := r.Open(writ.RoleVerifier, "judge", "")
	r.must("run.close", judge, r.verdict(id, writ.VerdictReject))
	if run := r.run(id); run.PausedAt != 0 || run.Worked(r.Now) != 1000 {
		t.Errorf("worked %d, paused %d", run.Worked(r.Now), run.PausedAt)
	}
	if due := r.Index(writ.IndexTodo)[writ.TodoOverrun(id)]; due != r.Now+1000 {
		t.Errorf("its time is up at %d, want %d", due, r.Now+1000)
	}
}

// Whatever time it waited in, a run is looked at when it ends at the latest.
func TestWaitingMakesNoRunLast(t *testing.T) {
	r := newRoom(t)
	judge := r.Open(writ.RoleVerifier, "judge", "")
	began := r.Now
	id := body[RunView](t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, Budget: RunBudget{Steps: 10}})).RunID
	r.must("run.seal", r.orc, &RunSealArgs{RunID: id})
	r.Advance(3600)
	r.must("run.close", judge, r.verdict(id, writ.VerdictReject))
	due := r.Index(writ.IndexTodo)[writ.TodoOverrun(id)]
	if end := began + writ.MaxRunMs; due != end {
		t.Errorf("it is looked at %d ms after it must have ended", due-end)
	}
}

// An agent that signs with the same key as the one that planned is the same.
func TestATwinDoesNotJudge(t *testing.T) {
	r := newRoom(t)
	for _, id := range []writ.AgentID{"planner", "twin"} {
		a := r.Agent(id, "web")
		a.Keys = []writ.PublicKey{{ID: "aabb"}}
		r.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
	}
	r.orc = r.Open(writ.RoleOrchestrator, "planner", "planner")
	id, _ := r.judged()
	r.refused(writ.CodeSoD, "run.close", r.Open(writ.RoleVerifier, "twin", "twin"), r.verdict(id, writ.VerdictAccept))
	// Nor does who planned a child judge its parent.
	parent := r.created(r.other, writ.CloseVerifier)
	child := body[RunView](t, r.must("run.create", r.ops, &RunCreateArgs{Parent: parent, Budget: RunBudget{Steps: 2}})).RunID
	r.must("run.seal", r.ops, &RunSealArgs{RunID: child})
	r.must("run.settle", r.System(), &RunSettleArgs{RunID: child})
	r.must("run.seal", r.other, &RunSealArgs{RunID: parent})
	r.refused(writ.CodeSoD, "run.close", r.Open(writ.RoleVerifier, "olivia", ""), r.verdict(parent, writ.VerdictAccept))
	r.must("run.close", r.Open(writ.RoleVerifier, "judge", ""), r.verdict(parent, writ.VerdictAccept))
}

// Nor does who takes a part elsewhere in the tree while it judges.
func TestAPartTakenMeanwhile(t *testing.T) {
	r := newRoom(t)
	parent := r.created(r.orc, writ.CloseVerifier)
	child := body[RunView](t, r.must("run.create", r.orc, &RunCreateArgs{ClosePolicy: writ.CloseVerifier, Parent: parent, Budget: RunBudget{Steps: 2}})).RunID
	r.must("run.seal", r.orc, &RunSealArgs{RunID: child})
	judge := r.Open(writ.RoleVerifier, "olivia", "")
	p, err := r.Plan(r.caps["run.close"], r.NewCall(r.caps["run.close"], judge, r.verdict(child, writ.VerdictAccept)))
	if err != nil {
		t.Fatal(err)
	}
	r.must("run.create", r.ops, &RunCreateArgs{Parent: parent, Budget: RunBudget{Steps: 2}})
	var c *writtest.Conflict
	if _, err := r.Commit(p); !errors.As(err, &c) {
		t.Fatalf("got %v, want a conflict", err)
	}
	r.refused(writ.CodeSoD, "run.close", judge, r.verdict(child, writ.VerdictAccept))
}

// Nobody accepts a run whose artifacts are not what they were, or are more than are
// looked at; and for nobody else are they read.
func TestARunIsAcceptedWithItsBytes(t *testing.T) {
	r := newRoom(t)
	id, judge := r.judged()
	hex := func(n int) string { return fmt.Sprintf("%064x", n) }
	r.SetIndex(writ.RunArtifacts(id), hex(0)+" tsk_a", 0)
	r.SetIndex(writ.RunArtifacts(id), hex(0)+" tsk_b", 0)
	accept := r.verdict(id, writ.VerdictAccept)
	if _, _, err := r.Call(r.caps["run.close"], r.Open(writ.RoleVerifier, "orc", ""), accept); writ.CodeOf(err) != writ.CodeSoD || len(r.Examined) != 0 {
		t.Fatalf("read %v, %v", r.Examined, err)
	}
	r.refused(writ.CodeArtifact, "run.close", judge, accept)
	if len(r.Examined) != 1 {
		t.Errorf("read %v", r.Examined)
	}
	r.Blobs = map[string]writ.BlobState{"sha256:" + hex(0): writ.BlobDamaged}
	r.refused(writ.CodeArtifact, "run.close", judge, accept)
	r.Blobs["sha256:"+hex(0)] = writ.BlobIntact
	for i := range 1000 {
		r.Blobs["sha256:"+hex(i)] = writ.BlobIntact
		r.SetIndex(writ.RunArtifacts(id), hex(i)+" tsk_a", 0)
	}
	r.refused(writ.CodePredicate, "run.close", judge, accept)
	for i := 1; i < 1000; i++ {
		r.DropIndex(writ.RunArtifacts(id), hex(i)+" tsk_a")
	}
	r.must("run.close", judge, accept)
}
