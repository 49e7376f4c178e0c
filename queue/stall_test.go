package queue

import (
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func (l *lab) look() RunStalled {
	l.Helper()
	return body[RunStalled](l, l.do("run.stall", l.w.System(), &RunStallArgs{Run: l.run}))
}

// stalls gives the run of a lab what run.create would.
func (l *lab) stalls(on writ.StallPolicy) {
	l.Helper()
	l.setRun(func(r *writ.Run) {
		r.StallAfter, r.OnStall, r.CreatedAt, r.CreatedBy = 30, on, l.w.Now, l.owner.Session
	})
}

func (l *lab) wantStalled(want bool) {
	l.Helper()
	if got := l.look(); got.Stalled != want || got.State != writ.RunActive {
		l.Fatalf("%+v", got)
	}
	if r := l.runDoc(); (r.StalledAt != 0) != want {
		l.Fatalf("stalled at %d", r.StalledAt)
	}
}

func (l *lab) taskOf(key string) writ.TaskID {
	l.Helper()
	name, _, ok := writtest.Get[taskName](l.w, writ.TaskNameKey(l.run, key))
	if !ok {
		l.Fatalf("no task %s", key)
	}
	return name.Task
}

func (l *lab) only(agents ...writ.AgentID) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.Agents = agents }
}

// A run is stalled when nobody works in it, nobody is asked, and no agent may take
// what is queued; and no more once that changes.
func TestARunStallsAndGoesOn(t *testing.T) {
	l := newLab(t)
	l.stalls(writ.StallNotify)
	l.wantStalled(false) // who created it may add tasks
	id := l.enqueue("one", l.only("agent-a"))
	l.enqueue("two", after("one"))
	l.wantStalled(false)
	l.setAgent("agent-a", func(a *writ.Agent) { a.State = writ.AgentSuspended })
	l.w.Advance(30)
	l.wantStalled(true)
	since := l.runDoc().StalledAt
	if at := l.w.Index(writ.IndexTodo)[writ.TodoStall(l.run)]; at != l.w.Now+30_000 {
		t.Errorf("looked at again at %d", at)
	}
	l.w.Advance(30)
	l.wantStalled(true)
	if l.runDoc().StalledAt != since {
		t.Error("since when it is moves")
	}
	l.setAgent("agent-a", func(a *writ.Agent) { a.State = writ.AgentActive })
	l.wantStalled(false)
	l.setAgent("agent-a", func(a *writ.Agent) { a.State = writ.AgentSuspended })
	l.wantStalled(true)
	l.enqueue("three", func(a *TaskEnqueueArgs) { a.NotBefore = writ.FormatTime(l.w.Now + 800_000) })
	l.wantStalled(false)
	l.w.Advance(800)
	l.sweep("task.ready", &TaskSweepArgs{Task: l.taskOf("three")})
	g := l.claim(l.b, l.taskOf("three"))
	l.wantStalled(false)
	l.do("task.complete", l.b, g.complete())
	l.wantStalled(true)
	if at := l.w.Index(writ.IndexTodo)[writ.TodoStall(l.run)]; at != l.w.Now+30_000 {
		t.Errorf("looked at again at %d", at)
	}
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	l.sweep("task.unblock", &TaskSweepArgs{Task: id})
	l.wantStalled(false)
	if at := l.w.Index(writ.IndexTodo)[writ.TodoStall(l.run)]; at != l.w.Now+860_000/8 { // an older run is looked at less often
		t.Errorf("looked at again in %d", at-l.w.Now)
	}
	l.endSession(l.runDoc().CreatedBy)
	l.wantStalled(true) // nobody is left who would add one
	l.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseManual })
	l.wantStalled(false)
	audit(l)
}

// What was refused to every agent that may take it is for nobody, under those policies.
func TestWhatWasRefusedToAllStalls(t *testing.T) {
	l := newLab(t)
	l.stalls("")
	id := l.enqueue("one")
	for i, agent := range []writ.AgentID{"agent-a", "agent-b"} {
		l.wantStalled(false)
		l.w.SetIndex(writ.Refused(build, "web"), string(id), 0)
		l.w.SetIndex(writ.Refusers(id), writ.Refuser(agent, fmt.Sprint("p", i)), 0)
		l.wantStalled(false)
		l.w.DropIndex(writ.Refusers(id), writ.Refuser(agent, fmt.Sprint("p", i)))
		l.w.SetIndex(writ.Refusers(id), writ.Refuser(agent, ""), 0) // of the gate of this lab
	}
	l.wantStalled(true)
}

// What people decide about does not stall; nor does what is not looked at.
func TestWhatDoesNotStall(t *testing.T) {
	l := newLab(t)
	l.stalls(writ.StallFail)
	g := l.claim(l.a, l.enqueue("one"))
	l.enqueue("gate", func(a *TaskEnqueueArgs) { a.Join = writ.JoinManual })
	l.do("task.complete", l.a, g.complete())
	l.wantStalled(false)
	for i := range stallQueued + 1 {
		l.enqueue(fmt.Sprint("more-", i), l.only("agent-a"))
	}
	l.do("task.admit", l.owner, &TaskAdmitArgs{Task: l.taskOf("gate")})
	l.do("task.complete", l.b, l.claim(l.b, l.taskOf("gate")).complete())
	l.setAgent("agent-a", func(a *writ.Agent) { a.State = writ.AgentSuspended })
	l.wantStalled(false)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: l.taskOf("more-0")})
	l.wantStalled(true)
}

// However many agents might take its tasks, a look fits into its transaction; a run of
// which not all can be seen does not stall.
func TestALookFits(t *testing.T) {
	for agents, want := range map[int]bool{10: true, 30: false, 64: false} {
		l := newLab(t)
		l.stalls("")
		for i := range stallQueued {
			tool := writ.CapabilityID(fmt.Sprint("site.t", i))
			for j := range agents {
				id := writ.AgentID(fmt.Sprintf("agent-%d-%d", i, j))
				l.w.Agent(id, "web", tool)
			}
			l.enqueue(fmt.Sprint("task-", i), func(a *TaskEnqueueArgs) { a.Capability = tool })
			for j := range agents {
				l.setAgent(writ.AgentID(fmt.Sprintf("agent-%d-%d", i, j)), func(a *writ.Agent) { a.Domain = "mail" })
			}
		}
		k := l.caps["run.stall"]
		p, err := l.w.Plan(k, l.w.NewCall(k, l.w.System(), &RunStallArgs{Run: l.run}))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-16 {
			t.Errorf("%d agents: %d guards and operations", agents, n)
		}
		if got := p.Reply.Body.(RunStalled).Stalled; got != want {
			t.Errorf("%d agents: stalled %v", agents, got)
		}
	}
}

// A run that is to fail does so once it is stalled as long again, not at once and not
// if it went on meanwhile.
func TestARunFailsThatStalls(t *testing.T) {
	l := newLab(t)
	l.stalls(writ.StallFail)
	l.enqueue("one", l.only("agent-a"))
	suspend := func(s writ.AgentState) { l.setAgent("agent-a", func(a *writ.Agent) { a.State = s }) }
	suspend(writ.AgentSuspended)
	l.wantStalled(true)
	l.w.Advance(29)
	l.wantStalled(true)
	suspend(writ.AgentActive)
	l.wantStalled(false)
	suspend(writ.AgentSuspended)
	l.w.Advance(30)
	l.wantStalled(true)
	l.w.Advance(30)
	if got := l.look(); got.State != writ.RunFailed {
		t.Fatalf("%+v", got)
	}
	r := l.runDoc()
	if r.Reason != "stalled" || r.StalledAt != 0 {
		t.Errorf("%+v", r)
	}
	todo := l.w.Index(writ.IndexTodo)
	if _, left := todo[writ.TodoStall(l.run)]; left || todo["run "+string(l.run)] == 0 {
		t.Errorf("%v", todo)
	}
	l.sweep("run.reap", &RunReapArgs{Run: l.run})
	l.wantState(l.taskOf("one"), writ.TaskCancelled)
	if got := l.look(); got.State != writ.RunFailed || got.Stalled {
		t.Errorf("%+v", got)
	}
	audit(l)
}
