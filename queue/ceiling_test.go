package queue

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// priced makes both agents' tools state what an attempt costs; 0 states nothing.
func priced(t *testing.T, a, b int64) *lab {
	t.Helper()
	l := newLab(t)
	for id, n := range map[writ.AgentID]int64{"agent-a": a, "agent-b": b} {
		l.setAgent(id, func(agent *writ.Agent) {
			agent.Tools[0].Costs = nil
			if n > 0 {
				agent.Tools[0].Costs = &writ.ToolCosts{Money: amount(n)}
			}
		})
	}
	return l
}

// costing limits what a task may cost.
func costing(n int64) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.Budget, a.MaxAttempts = &TaskCeiling{Money: &n}, amount(20) }
}

func (l *lab) spent(id writ.TaskID) TaskMeter {
	l.Helper()
	return body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})).Budget[writ.BudgetMoney]
}

func (l *lab) ineligible(why string, by writ.Caller, id writ.TaskID) {
	l.Helper()
	if e := l.refused(writ.CodeNotEligible, "task.claim", by, &TaskClaimArgs{Task: id}); e.Details["reason"] != why {
		l.Errorf("refused for %v, want %s", e.Details, why)
	}
}

// Every claim counts against the task's own budget, whatever becomes of the attempt, and
// the task ends when an attempt like the last would not fit any more.
func TestATasksOwnBudget(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(l *lab, g grip)
		budget int64
		state  writ.TaskState
	}{
		"released": {func(l *lab, g grip) { l.do("task.release", l.a, g.release()) }, 800, writ.TaskDead},
		"failed":   {func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(true)) }, 899, writ.TaskDead},
		"expired": {func(l *lab, g grip) {
			l.w.Advance(3600)
			l.do("task.expire", l.w.System(), &TaskSweepArgs{Task: g.task})
		}, 600, writ.TaskDead},
	} {
		t.Run(name, func(t *testing.T) {
			l := priced(t, 300, 0)
			id := l.enqueue("one", costing(c.budget))
			for n := int64(1); n <= 2; n++ {
				l.w.Advance(3600) // past any pause
				g := l.claim(l.a, id)
				if got, want := l.spent(id), (TaskMeter{c.budget, n * 300, c.budget - n*300}); got != want {
					t.Fatalf("attempt %d: %+v, want %+v", n, got, want)
				}
				c.end(l, g)
				if n == 1 {
					l.wantState(id, writ.TaskQueued)
				}
			}
			if d := l.wantState(id, c.state); d.Failure == nil {
				t.Error("it does not say why")
			}
			again := body[TaskView](l, l.do("task.revive", l.owner, &TaskReviveArgs{Task: id, Key: "again"}))
			if got := l.spent(again.ID); got != (TaskMeter{c.budget, 0, c.budget}) {
				t.Errorf("revived it has %+v", got)
			}
		})
	}
}

// Who would take more than is left, or says nothing of it, may not take the task; it is
// not enqueued if nobody may, and the run says that it is stalled once nobody is left.
func TestWhoATasksBudgetKeepsOut(t *testing.T) {
	l := priced(t, 300, 500)
	for limit, code := range map[int64]writ.Code{299: writ.CodeNoAgent, -1: writ.CodeInputInvalid} {
		a := &TaskEnqueueArgs{Run: l.run, Key: "other", Capability: build, Domain: "web"}
		costing(limit)(a)
		l.refused(code, "task.enqueue", l.owner, a)
	}
	id := l.enqueue("one", costing(400))
	l.ineligible("budget", l.b, id)
	l.setAgent("agent-b", func(a *writ.Agent) { a.Tools[0].Costs = nil })
	l.ineligible("budget", l.b, id)
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[0].Costs.Money = amount(401) })
	l.ineligible("budget", l.a, id)
	l.stalls(writ.StallNotify)
	l.w.Advance(30)
	l.wantStalled(true)
	l.setAgent("agent-b", func(a *writ.Agent) { a.Tools[0].Costs = &writ.ToolCosts{Money: amount(0)} })
	g := l.claim(l.b, id)
	l.do("task.release", l.b, g.release())
	l.wantState(id, writ.TaskQueued) // what costs nothing fits always
	l.setAgent("agent-b", func(a *writ.Agent) { a.Tools[0].Costs.Money = amount(150) })
	l.do("task.release", l.b, l.claim(l.b, id).release())
	l.wantState(id, writ.TaskQueued)
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[0].Costs.Money = amount(251) })
	l.ineligible("budget", l.a, id) // 250 are left of 400
}

// What comes out of a task with a budget of its own would escape it.
func TestNothingIsMadeOutOfATaskWithABudget(t *testing.T) {
	l := priced(t, 300, 300)
	g := l.claim(l.a, l.enqueue("one", costing(900)))
	made := &HandoffTask{Key: "next", Capability: build}
	e := l.refused(writ.CodeScope, "task.handoff", l.a, &TaskHandoffArgs{TaskHold: g.release().TaskHold, To: HandoffTarget{Task: made}})
	if e.Details["reason"] != "budget" {
		t.Errorf("refused for %v", e.Details)
	}
	l.enqueue("later", func(a *TaskEnqueueArgs) { a.DependsOn = []TaskDependency{{Key: "one"}} })
	l.do("task.handoff", l.a, &TaskHandoffArgs{TaskHold: g.release().TaskHold, To: HandoffTarget{Key: "later"}})
}

// A result that is sent back is done again only if that fits.
func TestSentBackWithinTheBudget(t *testing.T) {
	l := priced(t, 300, 300)
	id := l.enqueue("one", costing(500), func(a *TaskEnqueueArgs) { a.Verify = &TaskVerification{Required: true} })
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	l.do("task.verify", l.verifier("judge"), l.verdict(id, writ.VerdictReject))
	l.wantState(id, writ.TaskFailed)
}
