package queue

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Escapes make what a caller sends six times larger than what it means. What
// is stored is what was measured.
func TestEscapedArgumentsAreStoredCanonically(t *testing.T) {
	l := newLab(t)
	escaped := writ.RawObject(`{ "x": "` + strings.Repeat(`\u0061`, 10_600) + `" }`) // just under 64 KiB
	plain := `{"x":"` + strings.Repeat("a", 10_600) + `"}`
	id := l.enqueue("one", func(a *TaskEnqueueArgs) { a.Args = escaped })
	if got := string(l.task(id).Args); got != plain {
		t.Fatalf("%d bytes of arguments are stored, want %d", len(got), len(plain))
	}
	g := l.claim(l.a, id)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	a := g.complete()
	a.Result = escaped
	l.do("task.complete", l.a, a)
	got, _, ok := writtest.Get[taskResult](l.w, writ.ResultKey(id))
	if !ok || string(got.Result) != plain {
		t.Fatalf("%d bytes of result are stored, want %d", len(got.Result), len(plain))
	}
}

// The largest task that is accepted goes through every move; one byte more is
// refused when it is enqueued, not when somebody wants to work on it.
func TestTheLargestTaskGoesThroughEveryMove(t *testing.T) {
	l := newLab(t)
	c := l.caps["task.enqueue"]
	request := func(key string, n int) *TaskEnqueueArgs {
		a := &TaskEnqueueArgs{
			Run: l.run, Key: key, Capability: build, Domain: "web", Summary: strings.Repeat("\x01", 500),
			Args: writ.RawObject(`{"x":"` + strings.Repeat("y", n) + `"}`),
		}
		for i := range MaxScopes {
			a.WriteScopes = append(a.WriteScopes, fmt.Sprintf("fs:%02d%s", i, strings.Repeat("<", 200))) // "<" is stored in six bytes
		}
		return a
	}
	refusal := func(n int) error {
		_, err := l.w.Plan(c, l.w.NewCall(c, l.owner, request("one", n)))
		return err
	}
	n := sort.Search(MaxArgsBytes, func(n int) bool { return refusal(n) != nil }) - 1
	if n < 20_000 || n > MaxArgsBytes-10_000 {
		t.Fatalf("at most %d bytes of arguments are accepted", n)
	}
	if e := l.wantCode(writ.CodeInputInvalid, refusal(n+1)); len(e.Fields) != 1 || e.Fields[0].Pointer != "/args" {
		t.Fatalf("fields %v", e.Fields)
	}

	largest := func(key string) writ.TaskID {
		return body[TaskView](l, l.do("task.enqueue", l.owner, request(key, n))).ID
	}
	id, other := largest("one"), largest("two")
	// The agent's tool grew more dangerous since, which the claim records.
	l.setAgent("agent-a", func(a *writ.Agent) {
		a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyDestructive, writ.Sinks()
	})
	fail := l.claim(l.a, id).fail(true)
	fail.Failure.Class, fail.Failure.Code = writ.FailureDeterministic, strings.Repeat("c", 64)
	l.do("task.fail", l.a, fail)
	l.w.Advance(1)
	l.sweep("task.ready", &TaskSweepArgs{Task: id})
	g := l.claim(l.a, id)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	a := g.complete()
	a.Labels = writ.Labels()
	a.Result = writ.RawObject(`{"x":"` + strings.Repeat("y", MaxArgsBytes-8) + `"}`)
	l.do("task.complete", l.a, a)
	l.wantState(id, writ.TaskDone)

	l.claim(l.a, other)
	l.w.Advance(61)
	l.sweep("task.expire", &TaskSweepArgs{Task: other})
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: other})
	l.wantState(other, writ.TaskCancelled)
	audit(l)
}

// However many agents a task was refused to, and however many others wait with
// it, the end of its run fits into transactions, each of which gets further.
func TestTheEndOfARunFitsIntoTransactions(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	for i := range 2 * reapBatch {
		id := l.enqueue(fmt.Sprintf("refused-%d", i))
		for j := range 64 {
			l.w.SetIndex(writ.Refusers(id), writ.Refuser(writ.AgentID(fmt.Sprintf("agent-%02d", j)), "p"), 0)
		}
		l.w.SetIndex(writ.Refused(build, "web"), string(id), 0)
		l.enqueue(fmt.Sprintf("blocked-%d", i), after("top", fmt.Sprintf("refused-%d", i)))
		parked := l.task(l.enqueue(fmt.Sprintf("parked-%d", i)))
		l.unplace(parked)
		parked.State, parked.WaitsFor, parked.ParkedAt = writ.TaskParked, writ.ApprovalID(l.w.NewID(writ.PrefixApproval)), l.w.Now
		l.w.Seed(writ.TaskKey(parked.ID), writ.ObjectTask, parked)
		l.w.DropIndex(writ.RunTasksIn(l.run, writ.TaskQueued), string(parked.ID))
		l.w.SetIndex(writ.RunTasksIn(l.run, writ.TaskParked), string(parked.ID), 0)
	}
	l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
	l.finishes("run.reap", &RunReapArgs{Run: l.run})
	l.wantState(top, writ.TaskCancelled)
	audit(l)
}

// A completion with the largest result fits into its transaction, whatever waits
// for it: what does not fit is let go by the follow-up.
func TestALargeResultLetsLargeTasksGo(t *testing.T) {
	l := newLab(t)
	args := func(n int) func(*TaskEnqueueArgs) {
		return func(a *TaskEnqueueArgs) { a.Args = writ.RawObject(`{"x":"` + strings.Repeat("y", n) + `"}`) }
	}
	top := l.enqueue("top", args(48_000))
	for i := range releaseAtOnce {
		l.enqueue(fmt.Sprintf("next-%d", i), after("top"), args(39_500)) // two and the first are just under half of what fits
	}
	a := l.claim(l.a, top).complete()
	a.Result = writ.RawObject(`{"x":"` + strings.Repeat("y", 48_000) + `"}`)
	c := l.caps["task.complete"]
	p, err := l.w.Plan(c, l.w.NewCall(c, l.a, a))
	if err != nil {
		t.Fatal(err)
	}
	size := len(a.Result) // the evidence holds it too
	for _, o := range p.Tx.Ops {
		size += len(o.Body)
	}
	if size > writ.MaxTxBytes-16<<10 {
		t.Errorf("%d bytes", size)
	}
	if _, err := l.w.Commit(p); err != nil {
		t.Fatal(err)
	}
	l.unblockAll()
	for _, id := range l.w.Members(writ.RunTasks(l.run)) {
		if s := l.task(writ.TaskID(id)).State; s == writ.TaskBlocked {
			t.Errorf("%s is blocked", id)
		}
	}
}

// However much there is to a task a revoked agent had enqueued, taking it back fits
// into a transaction, and each gets further.
func TestTakingBackFitsIntoTransactions(t *testing.T) {
	l := newLab(t)
	l.revoked("agent-b")
	top := l.enqueue("top")
	for i := range 2 * recallBatch {
		task := l.task(l.enqueue(fmt.Sprintf("largest-%d", i), after("top")))
		id := task.ID
		l.w.DropIndex(writ.Dependents(top), string(id))
		l.w.DropIndex(writ.RunTasksIn(l.run, writ.TaskBlocked), string(id))
		l.w.SetIndex(writ.RunTasksIn(l.run, writ.TaskQueued), string(id), 0)
		task.State, task.DependsOn = writ.TaskQueued, nil
		task.KeptUntil, task.NotBefore, task.DeadlineAt = l.w.Now+1, l.w.Now+1, l.w.Now+1
		for j := range MaxScopes {
			task.WriteScopes = append(task.WriteScopes, fmt.Sprintf("fs:%d/%d/", i, j))
		}
		for j := range 9 { // as many as can be behind a session, and quotas on one metric that count for one
			agent := writ.AgentID(fmt.Sprintf("agent-%d", j))
			if j == 8 {
				agent = "agent-b"
			} else {
				task.Agents = append(task.Agents, agent)
			}
			task.Behind, task.Counted = append(task.Behind, agent), append(task.Counted, fmt.Sprintf("quota-%d", j))
			l.w.SetIndex(writ.SetGoing(writ.ObjectTask, agent), string(id), 0)
		}
		for j := range 8 {
			l.w.SetIndex(writ.BlockedOn(id), l.w.NewID(writ.PrefixTask), int64(j))
		}
		for j := range []int{53, 53, 64, 33, 33, 64}[i%6] { // two of which just leave room for one more
			l.w.SetIndex(writ.Refusers(id), writ.Refuser(writ.AgentID(fmt.Sprintf("agent-%02d", j)), "p"), 0)
		}
		l.w.Seed(writ.TaskKey(id), writ.ObjectTask, task)
		for j := range releaseAtOnce + 1 {
			l.enqueue(fmt.Sprintf("waits-%d-%d", i, j), after(task.Key))
		}
	}
	l.finishes("task.recall", &TaskRecallArgs{Agent: "agent-b"})
	if left := l.w.Members(writ.SetGoing(writ.ObjectTask, "agent-b")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// finishes makes a mandate's calls until nothing is left: each fits into a transaction,
// with what the door adds, and gets further.
func (l *lab) finishes(id writ.CapabilityID, args any) {
	l.Helper()
	for more := true; more; {
		p, err := l.w.Plan(l.caps[id], l.w.NewCall(l.caps[id], l.w.System(), args))
		if err != nil {
			l.Fatal(err)
		}
		if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-16 {
			l.Fatalf("%d guards and %d operations", len(p.Tx.Guards), len(p.Tx.Ops))
		}
		r, err := l.w.Commit(p)
		if err != nil {
			l.Fatal(err)
		}
		got := body[Swept](l, r)
		if more = got.More; more && got.Changed == 0 {
			l.Fatal("it does not get further")
		}
	}
}
