package queue

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
)

// step enqueues as the gateway does for whoever created the run.
func (l *lab) step(key string, change ...func(*TaskEnqueueArgs)) writ.TaskID {
	l.Helper()
	a := &TaskEnqueueArgs{Run: l.run, Key: key, Capability: build, Domain: "web"}
	for _, f := range change {
		f(a)
	}
	call := l.w.NewCall(l.caps["task.enqueue"], l.owner, a)
	call.Behalf = l.owner.Session
	r, _, err := l.w.Do(l.caps["task.enqueue"], call)
	if err != nil {
		l.Fatal(err)
	}
	return body[TaskView](l, r).ID
}

// While steps of a run's workflow are made tasks nothing of it is offered, whatever
// happens, and nobody else adds to it; when they are there everything is offered.
func TestNothingBeginsBeforeAllStepsAreThere(t *testing.T) {
	l := smallLab(t, 4)
	l.setRun(func(r *writ.Run) { r.Workflow = &writ.RunWorkflow{Digest: "sha256:0", Steps: 3} })
	l.refused(writ.CodePaused, "task.enqueue", l.owner, &TaskEnqueueArgs{Run: l.run, Key: "mine", Capability: build, Domain: "web"})
	one, two := l.step("one"), l.step("two", func(a *TaskEnqueueArgs) {
		a.DependsOn = []TaskDependency{{Key: "one", OnFailure: writ.DependencyContinue}}
	})
	if again := l.step("one"); again != one {
		t.Errorf("%s again is %s", one, again)
	}
	l.counts(0, 1)
	if len(l.w.Lane(l.lane())) != 0 || slices.ContainsFunc(l.w.Members(writ.IndexTodo), func(m string) bool { return m == todoRefillOf(l.run, l.lane()) }) {
		t.Errorf("it is offered: %v, %v", l.w.Lane(l.lane()), l.w.Members(writ.IndexTodo))
	}
	l.refused(writ.CodePaused, "task.claim", l.a, &TaskClaimArgs{Task: one})
	l.sweep("task.refill", &TaskRefillArgs{Run: l.run, Lane: l.lane()})
	l.counts(0, 1)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: one})
	l.sweep("task.unblock", &TaskSweepArgs{Task: one}) // which lets the other go
	l.wantState(two, writ.TaskQueued)
	l.counts(0, 1)
	audit(l)

	l.setRun(func(r *writ.Run) { r.Workflow.Unfolded, r.Sealed = true, true })
	l.sweep("run.offer", &RunOfferArgs{Run: l.run})
	l.refill()
	l.counts(1, 0)
	audit(l)
	if !l.inLane(two) {
		t.Error("it is not offered")
	}
	l.do("task.complete", l.a, l.claim(l.a, two).complete())
	if r := l.runDoc(); r.State != writ.RunFailed && r.State != writ.RunDone {
		t.Errorf("the run is %s", r.State)
	}
}

// A run whose steps are made tasks is not stalled.
func TestUnfoldingIsNoStall(t *testing.T) {
	l := newLab(t)
	l.setRun(func(r *writ.Run) {
		r.Workflow, r.StallAfter = &writ.RunWorkflow{Digest: "sha256:0", Steps: 3}, 60
	})
	l.step("one")
	l.w.Advance(3600)
	if got := body[RunStalled](l, l.do("run.stall", l.w.System(), &RunStallArgs{Run: l.run})); got.Stalled {
		t.Errorf("got %+v", got)
	}
}
