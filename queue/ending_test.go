package queue

import (
	"fmt"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestTheLastTaskEndsASealedRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		close  writ.ClosePolicy
		sealed bool
		end    func(*lab, grip)
		want   writ.RunState
	}{
		{"complete", writ.CloseAuto, true, func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) }, writ.RunDone},
		{"cancel", writ.CloseAuto, true, func(l *lab, g grip) {
			l.do("task.cancel", l.owner, &TaskCancelArgs{Task: g.task})
			l.do("task.release", l.a, g.release())
		}, writ.RunDone},
		{"fail", writ.CloseAuto, true, func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(false)) }, writ.RunFailed},
		{"dead", writ.CloseAuto, true, func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(true)) }, writ.RunFailed},
		{"expire", writ.CloseAuto, true, func(l *lab, g grip) {
			l.w.Advance(61)
			l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
		}, writ.RunFailed},
		{"manual", writ.CloseManual, true, func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) }, writ.RunActive},
		{"not sealed", writ.CloseAuto, false, func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) }, writ.RunActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			first, last := l.claim(l.a, l.enqueue("first")), l.claim(l.a, l.enqueue("last", attempts(1)))
			l.setRun(func(r *writ.Run) { r.ClosePolicy, r.Sealed = c.close, c.sealed })
			l.do("task.complete", l.a, first.complete())
			if got := l.runDoc().State; got != writ.RunActive {
				t.Fatalf("the run is %s before its last task", got)
			}
			c.end(l, last)
			got := l.runDoc()
			if got.State != c.want || (got.State == writ.RunFailed) != (got.Reason == writ.ReasonTaskFailed) {
				t.Fatalf("the run is %s for %q, want %s", got.State, got.Reason, c.want)
			}
			if c.want != writ.RunActive {
				fact := l.w.Facts[len(l.w.Facts)-1]
				if len(fact.Changes) != 2 || fact.Changes[0].Kind != writ.ObjectTask || fact.Changes[1].Kind != writ.ObjectRun || got.Receipt != fact.Receipt {
					t.Fatalf("fact %+v, run's receipt %s", fact, got.Receipt)
				}
			}
			audit(l)
		})
	}
}

func TestAnEarlierFailureFailsTheRun(t *testing.T) {
	l := newLab(t)
	bad, good := l.claim(l.a, l.enqueue("bad")), l.claim(l.a, l.enqueue("good"))
	l.do("task.fail", l.a, bad.fail(false)) // before the run was sealed
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	l.do("task.complete", l.a, good.complete())
	if got := l.runDoc(); got.State != writ.RunFailed {
		t.Fatalf("the run is %s", got.State)
	}
	audit(l)
}

// The last two tasks end at once, each judged while the other was open: one
// must be judged again, or the run never ends.
func TestTwoLastTasksEndAtOnce(t *testing.T) {
	l := newLab(t)
	x, y := l.claim(l.a, l.enqueue("xx")), l.claim(l.b, l.enqueue("yy"))
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	c := l.caps["task.complete"]
	p, err := l.w.Plan(c, l.w.NewCall(c, l.b, y.complete()))
	if err != nil {
		t.Fatal(err)
	}
	l.do("task.complete", l.a, x.complete())
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("committed on a count nobody saw")
	}
	l.do("task.complete", l.b, y.complete())
	if got := l.runDoc().State; got != writ.RunDone {
		t.Fatalf("the run is %s", got)
	}
	audit(l)
}

// A session dies with every open task of a sealed run on their last attempt:
// one transaction ends them and the run.
func TestCleanupEndsARun(t *testing.T) {
	l := newLab(t)
	for i := range 3 {
		l.claim(l.a, l.enqueue(fmt.Sprintf("task-%d", i), attempts(1), scopes(fmt.Sprintf("fs:repo/%d", i))))
	}
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	if got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session}); got.Changed != 0 {
		t.Fatal("took work from a live session")
	}
	l.endSession(l.a.Session)
	if got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session}); got.Changed != 3 || got.More {
		t.Fatalf("%+v", got)
	}
	if got := l.runDoc(); got.State != writ.RunFailed {
		t.Fatalf("the run is %s", got.State)
	}
	if len(l.w.Index(writ.IndexTodo)) != 0 {
		t.Fatal("the follow-up stays")
	}
	audit(l)
	facts := len(l.w.Facts)
	if got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session}); got.Changed != 0 || len(l.w.Facts) != facts {
		t.Fatal("the second cleanup did something")
	}
}

// A session with many large tasks is cleaned up in several transactions that
// each fit the store.
func TestCleanupInSteps(t *testing.T) {
	l := newLab(t)
	l.setAgent("agent-a", func(a *writ.Agent) { a.MaxConcurrent = 100 })
	large := writ.RawObject(`{"x":"` + strings.Repeat("y", 45_000) + `"}`)
	for i := range 40 {
		l.claim(l.a, l.enqueue(fmt.Sprintf("task-%d", i), func(a *TaskEnqueueArgs) {
			if i%2 == 0 {
				a.Args = large
			}
		}))
	}
	l.endSession(l.a.Session)
	calls, done := 0, 0
	for more := true; more; calls++ {
		got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
		if got.Changed == 0 && got.More {
			t.Fatal("no progress")
		}
		done, more = done+got.Changed, got.More
		audit(l)
	}
	if done != 40 || calls > 20 {
		t.Fatalf("%d tasks in %d calls", done, calls)
	}
}

func TestReap(t *testing.T) {
	l := newLab(t)
	large := writ.RawObject(`{"x":"` + strings.Repeat("y", 45_000) + `"}`)
	for i := range 100 {
		id := l.enqueue(fmt.Sprintf("task-%d", i), func(a *TaskEnqueueArgs) {
			if i%10 == 0 {
				a.Args = large
			}
			if i%7 == 0 {
				a.NotBefore = writ.FormatTime(l.w.Now + 60_000)
			}
		})
		if i == 3 {
			l.do("task.refuse", l.w.System(), &TaskRefuseArgs{Task: id, Agent: "agent-a", Lane: l.lane()})
		}
	}
	g := l.claim(l.a, l.enqueue("running"))
	l.w.SetIndex(writ.IndexTodo, todo(todoRun, string(l.run)), l.w.Now)
	if got := l.sweep("run.reap", &RunReapArgs{Run: l.run}); got.Changed != 0 || len(l.w.Index(writ.IndexTodo)) != 0 {
		t.Fatalf("reaped an active run: %+v", got)
	}
	l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
	l.w.SetIndex(writ.IndexTodo, todo(todoRun, string(l.run)), l.w.Now)
	done := 0
	for more := true; more; {
		got := l.sweep("run.reap", &RunReapArgs{Run: l.run})
		if (len(l.w.Index(writ.IndexTodo)) == 1) != got.More || (got.Changed == 0 && got.More) {
			t.Fatalf("%+v with follow-ups %v", got, l.w.Index(writ.IndexTodo))
		}
		done, more = done+got.Changed, got.More
		audit(l)
	}
	if done != 100 || len(l.w.Index(writ.IndexReady)) != 0 {
		t.Fatalf("%d cancelled", done)
	}
	l.wantState(g.task, writ.TaskRunning)
	// Its entries in the lanes are dropped when met.
	for _, e := range l.w.Lane(l.lane()) {
		if r, err := l.dispatch(l.b, l.lane(), writ.TaskID(e)); err != nil || r.Outcome != writ.OutcomeEmpty {
			t.Fatalf("%v %v", r.Outcome, err)
		}
	}
	l.w.Advance(61)
	l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
	l.wantState(g.task, writ.TaskCancelled)
	audit(l)
}

// A task that is queued in a run that has just ended is not given out.
func TestNoClaimInAnEndedRun(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	l.setRun(func(r *writ.Run) { r.State = writ.RunFailed })
	l.refused(writ.CodeIllegal, "task.claim", l.a, &TaskClaimArgs{Task: id})
	if r, err := l.dispatch(l.a, l.lane(), id); err != nil || r.Outcome != writ.OutcomeEmpty {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	l.wantState(id, writ.TaskQueued)
}
