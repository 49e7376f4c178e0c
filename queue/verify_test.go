package queue

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func judged(most int64, gates ...string) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) {
		a.Verify = &TaskVerification{Required: true, Gates: gates, MaxRework: &most}
	}
}

// verdict is one on what there is.
func (l *lab) verdict(id writ.TaskID, v writ.Verdict, gates ...GateResult) *TaskVerifyArgs {
	l.Helper()
	a := &TaskVerifyArgs{Task: id, Verdict: v, Receipt: l.task(id).Receipt, Gates: gates}
	if v == writ.VerdictReject {
		a.Reasons = []string{"incomplete"}
	}
	return a
}

// A result that must be accepted is no result before: nobody who waits for it is
// let go, and its run does not end.
func TestAResultIsAccepted(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", judged(2, "tests", "lint"))
	next := l.enqueue("next", after("one"))
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	g := l.claim(l.a, id)
	done := l.do("task.complete", l.a, g.complete())
	if v := body[TaskView](l, done); v.State != writ.TaskVerifying || len(v.Unblocked) > 0 || v.Verified {
		t.Errorf("got %+v", v)
	}
	if again := l.do("task.complete", l.a, g.complete()); string(again.JSON) == "" || body[TaskView](l, again).State != writ.TaskVerifying {
		t.Errorf("completing twice: %s", again.JSON)
	}
	l.wantState(next, writ.TaskBlocked)
	audit(l)
	if page := body[TaskPage](l, l.do("task.list", l.judge, &TaskListArgs{State: writ.TaskVerifying})); len(page.Tasks) != 1 || page.Tasks[0].ID != id {
		t.Errorf("got %+v", page)
	}
	if v := body[TaskView](l, l.do("task.get", l.judge, &TaskGetArgs{Task: id})); string(v.Result) != `{"ok":true}` || v.Verify == nil {
		t.Errorf("got %+v", v)
	}

	// About something else, or without a check that passed.
	stale := l.verdict(id, writ.VerdictAccept, GateResult{Gate: "tests", Status: "pass"}, GateResult{Gate: "lint", Status: "pass"})
	stale.Receipt = l.task(next).Receipt
	if e := l.refused(writ.CodePredicate, "task.verify", l.judge, stale); e.Details["missing"] != "receipt_id" {
		t.Errorf("got %+v", e)
	}
	for _, gates := range [][]GateResult{nil, {{Gate: "tests", Status: "pass"}}, {{Gate: "tests", Status: "pass"}, {Gate: "lint", Status: "fail"}}, {{Gate: "tests", Status: "pass"}, {Gate: "lint", Status: "pass"}, {Gate: "lint", Status: "fail"}}} {
		if e := l.refused(writ.CodePredicate, "task.verify", l.judge, l.verdict(id, writ.VerdictAccept, gates...)); !strings.Contains(e.Details["missing"], "gates/lint") {
			t.Errorf("got %+v", e)
		}
	}
	v := body[TaskView](l, l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept, GateResult{Gate: "lint", Status: "pass"}, GateResult{Gate: "tests", Status: "pass"})))
	if v.State != writ.TaskDone || !v.Verified || !slices.Equal(v.Unblocked, []writ.TaskID{next}) {
		t.Errorf("got %+v", v)
	}
	audit(l)
	l.refused(writ.CodeIllegal, "task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
	l.do("task.complete", l.a, l.claim(l.a, next).complete())
	if r := l.runDoc(); r.State != writ.RunDone {
		t.Errorf("the run is %s", r.State)
	}
}

// A verdict that names another version than there is, is none.
func TestAVerdictWithIfMatch(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", judged(2))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	_, version, _ := writtest.Get[writ.Task](l.w, writ.TaskKey(id))
	for _, c := range []struct {
		named int64
		want  writ.Code
	}{{version - 1, writ.CodeVersion}, {version + 1, writ.CodeVersion}, {version, ""}} {
		call := l.w.NewCall(l.caps["task.verify"], l.judge, l.verdict(id, writ.VerdictAccept))
		call.IfVersion = c.named
		if _, _, err := l.w.Do(l.caps["task.verify"], call); writ.CodeOf(err) != c.want {
			t.Errorf("named %d of %d: got %v, want %q", c.named, version, err, c.want)
		}
	}
}

// What is sent back is done again, with another result, as often as it says; then
// the task fails.
func TestAResultIsSentBack(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", judged(1), attempts(1))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	l.refused(writ.CodeInputInvalid, "task.verify", l.judge, l.verdict(id, "")) // what is no verdict accepts nothing
	without := l.verdict(id, writ.VerdictReject)
	without.Reasons = nil
	l.refused(writ.CodeInputInvalid, "task.verify", l.judge, without)
	v := body[TaskView](l, l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject)))
	if v.State != writ.TaskQueued || v.Rework != 1 || v.Failure == nil || v.Failure.Code != "rejected" {
		t.Errorf("got %+v", v)
	}
	audit(l)
	again := l.claim(l.b, id)
	empty := again.complete()
	empty.Result = nil
	l.do("task.complete", l.b, empty)
	if r, _, ok := writtest.Get[taskResult](l.w, writ.ResultKey(id)); ok {
		t.Errorf("what was sent back is still the result: %+v", r)
	}
	audit(l)
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject))
	if got := l.wantState(id, writ.TaskFailed); got.Rework != 2 || got.Failure.Retryable {
		t.Errorf("got %+v", got)
	}
	audit(l)
}

// Nobody judges work of a run they had a part in, and whoever had none does.
func TestWhoJudges(t *testing.T) {
	l := newLab(t)
	named := l.enqueue("named", func(a *TaskEnqueueArgs) {
		a.Verify = &TaskVerification{Required: true, Agents: []writ.AgentID{"agent-w"}}
	})
	id := l.enqueue("one", judged(2))
	for _, g := range []grip{l.claim(l.a, named), l.claim(l.a, id)} {
		l.do("task.complete", l.a, g.complete())
	}
	l.w.Agent("agent-w", "web")
	l.w.Agent("agent-m", "media")
	open := func(p writ.PrincipalID, a writ.AgentID, change ...func(*writ.Caller)) writ.Caller {
		c := l.w.Open(writ.RoleVerifier, p, a)
		for _, f := range change {
			f(&c)
		}
		return c
	}
	for name, by := range map[string]writ.Caller{
		"who worked on it":       open("worker-a", "agent-v"),
		"the agent that did":     open("twin", "agent-a"),
		"who owns the run":       open("boss", ""),
		"answers to the owner":   open("twin", "", func(c *writ.Caller) { c.Controller = "boss" }),
		"opened by the worker":   open("twin", "", func(c *writ.Caller) { c.Openers = []writ.PrincipalID{"worker-a"} }),
		"no verifier":            l.oper,
		"an executor without it": l.w.Open(writ.RoleExecutor, "worker-c", "agent-b"),
	} {
		t.Run(name, func(t *testing.T) {
			l.refused(writ.CodeSoD, "task.verify", by, l.verdict(id, writ.VerdictAccept))
		})
	}
	if e := l.refused(writ.CodeNotEligible, "task.verify", open("m", "agent-m"), l.verdict(id, writ.VerdictAccept)); e.Details["reason"] != "domain" {
		t.Errorf("got %+v", e)
	}
	if e := l.refused(writ.CodeNotEligible, "task.verify", l.judge, l.verdict(named, writ.VerdictAccept)); e.Details["reason"] != "verify_agents" {
		t.Errorf("got %+v", e)
	}
	l.do("task.verify", open("w", "agent-w"), l.verdict(named, writ.VerdictAccept))
	l.do("task.verify", open("person", ""), l.verdict(id, writ.VerdictAccept))
	audit(l)
}

// A task that waits for its verdict can be cancelled, and its run's end cancels it.
func TestUnjudgedTasksEnd(t *testing.T) {
	l := newLab(t)
	one, two := l.enqueue("one", judged(2)), l.enqueue("two", judged(2))
	for _, id := range []writ.TaskID{one, two} {
		l.do("task.complete", l.a, l.claim(l.a, id).complete())
	}
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: one})
	l.wantState(one, writ.TaskCancelled)
	audit(l)
	l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
	l.refused(writ.CodeIllegal, "task.verify", l.judge, l.verdict(two, writ.VerdictAccept))
	l.sweep("run.reap", &RunReapArgs{Run: l.run})
	l.wantState(two, writ.TaskCancelled)
	audit(l)
}

// The last task of a run that must be accepted brings it to its verdict; one that
// failed ends it.
func TestTheLastTaskOfAJudgedRun(t *testing.T) {
	for want, end := range map[writ.RunState]func(*lab, grip){
		writ.RunVerifying: func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) },
		writ.RunFailed:    func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(false)) },
	} {
		l := newLab(t)
		id := l.enqueue("one")
		l.setRun(func(r *writ.Run) { r.Sealed, r.ClosePolicy = true, writ.CloseVerifier })
		end(l, l.claim(l.a, id))
		if r := l.runDoc(); r.State != want {
			t.Errorf("the run is %s, want %s", r.State, want)
		}
		if listed := l.w.Members(writ.IndexClose); (len(listed) == 1) != (want == writ.RunVerifying) {
			t.Errorf("%s: listed %v", want, listed)
		}
		l.refused(writ.CodeIllegal, "task.enqueue", l.owner, &TaskEnqueueArgs{Run: l.run, Key: "more", Capability: build, Domain: "web"})
	}
}

// A result that was sent back is no retry: neither the run's limit of those nor the
// task's keeps it from being done again.
func TestReworkIsNoRetry(t *testing.T) {
	l := newLab(t)
	l.setRun(func(r *writ.Run) {
		r.Budget[writ.BudgetRetries], r.Budget[writ.BudgetTaskRetries] = 0, 0
	})
	id := l.enqueue("one", judged(3))
	for range 2 {
		l.do("task.complete", l.a, l.claim(l.a, id).complete())
		l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject))
		charge := attemptCharge(l.task(id), writ.Tool{})
		if charge[writ.BudgetRetries] != 0 || charge[writ.BudgetTaskRetries] != 0 {
			t.Fatalf("charged %v", charge)
		}
		audit(l)
	}
	// One that fails is.
	l.do("task.fail", l.a, l.claim(l.a, id).fail(true))
	l.wantState(id, writ.TaskDead)
}

// Who may judge a task, or its run, sees what it is about, and no other verifier.
func TestWhatVerifiersSee(t *testing.T) {
	l := newLab(t)
	l.w.Agent("agent-f", "finance")
	finance := l.w.Open(writ.RoleVerifier, "frank", "agent-f")
	plain := l.enqueue("plain")
	named := l.enqueue("named", func(a *TaskEnqueueArgs) {
		a.Verify = &TaskVerification{Required: true, Agents: []writ.AgentID{"agent-w"}}
	})
	open := l.enqueue("open", judged(1))
	see := func(by writ.Caller, id writ.TaskID) bool {
		_, _, err := l.try("task.get", by, &TaskGetArgs{Task: id})
		return err == nil
	}
	for id, want := range map[writ.TaskID][2]bool{plain: {false, false}, named: {false, false}, open: {true, false}} {
		if got := [2]bool{see(l.judge, id), see(finance, id)}; got != want {
			t.Errorf("%s: seen %v, want %v", l.task(id).Key, got, want)
		}
	}
	l.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseVerifier })
	if !see(l.judge, plain) || see(finance, plain) {
		t.Error("who may judge the run does not see its task, or another does")
	}
}

// What is done in a child is done for its parent: who had a part in one run of a
// tree judges none of it.
func TestPartsAreOfTheTree(t *testing.T) {
	l := newLab(t)
	root := l.run
	l.run = l.w.Run("boss", 100).ID
	l.setRun(func(r *writ.Run) { r.Parent, r.Root, r.Depth = root, root, 1 })
	l.do("task.complete", l.a, l.claim(l.a, l.enqueue("in-the-child")).complete())
	l.run = root
	id := l.enqueue("one", judged(1))
	l.do("task.complete", l.b, l.claim(l.b, id).complete())
	l.refused(writ.CodeSoD, "task.verify", l.w.Open(writ.RoleVerifier, "worker-a", ""), l.verdict(id, writ.VerdictAccept))
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
}

// Who judges and works at the same time, through another session, does not judge:
// the commit expects that the part nobody found has not come to be.
func TestAPartTakenMeanwhile(t *testing.T) {
	l := newLab(t)
	id, other := l.enqueue("one", judged(1)), l.enqueue("two")
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	judge := l.w.Open(writ.RoleVerifier, "worker-b", "")
	verdict := l.w.NewCall(l.caps["task.verify"], judge, l.verdict(id, writ.VerdictAccept))
	p, err := l.w.Plan(l.caps["task.verify"], verdict)
	if err != nil {
		t.Fatal(err)
	}
	l.claim(l.b, other)
	var c *writtest.Conflict
	if _, err := l.w.Commit(p); !errors.As(err, &c) {
		t.Fatalf("got %v, want a conflict", err)
	}
	l.refused(writ.CodeSoD, "task.verify", judge, l.verdict(id, writ.VerdictAccept))
	l.wantState(id, writ.TaskVerifying)
	audit(l)
}
