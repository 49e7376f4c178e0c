package queue

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// bring makes a task in a state, with the grip of its last claim.
func bring(l *lab, s writ.TaskState) grip {
	l.Helper()
	id := l.enqueue("task-"+string(s), attempts(1))
	if s == writ.TaskQueued {
		return grip{id, writ.LeaseID(l.w.NewID(writ.PrefixLease)), 1}
	}
	g := l.claim(l.a, id)
	switch s {
	case writ.TaskDone:
		l.do("task.complete", l.a, g.complete())
	case writ.TaskFailed:
		l.do("task.fail", l.a, g.fail(false))
	case writ.TaskDead:
		l.do("task.fail", l.a, g.fail(true))
	case writ.TaskCancelled:
		l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
		l.do("task.release", l.a, g.release())
	}
	l.wantState(id, s)
	return g
}

// TestEveryVerbInEveryState walks all pairs: what a verb leads to, or the code
// that refuses it.
func TestEveryVerbInEveryState(t *testing.T) {
	states := []writ.TaskState{writ.TaskQueued, writ.TaskRunning, writ.TaskDone, writ.TaskFailed, writ.TaskDead, writ.TaskCancelled}
	const lost, illegal = writ.CodeLeaseLost, writ.CodeIllegal
	type want map[writ.TaskState]any // a state, or a code
	verbs := []struct {
		name string
		id   writ.CapabilityID
		by   func(*lab) writ.Caller
		args func(grip) any
		want want
	}{
		{"claim", "task.claim", func(l *lab) writ.Caller { return l.b }, func(g grip) any { return &TaskClaimArgs{Task: g.task} }, want{
			"queued": writ.TaskRunning, "running": writ.CodeClaimed, "done": illegal, "failed": illegal, "dead": illegal, "cancelled": illegal,
		}},
		{"heartbeat", "task.heartbeat", func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.beat() }, want{
			"queued": lost, "running": writ.TaskRunning, "done": lost, "failed": lost, "dead": lost, "cancelled": lost,
		}},
		{"complete", "task.complete", func(l *lab) writ.Caller { return l.a }, func(g grip) any {
			a := g.complete()
			a.Result = writ.RawObject(`{"other":1}`)
			return a
		}, want{"queued": lost, "running": writ.TaskDone, "done": lost, "failed": lost, "dead": lost, "cancelled": lost}},
		{"complete again", "task.complete", func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.complete() }, want{
			"queued": lost, "running": writ.TaskDone, "done": writ.TaskDone, "failed": lost, "dead": lost, "cancelled": lost,
		}},
		{"fail", "task.fail", func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.fail(false) }, want{
			"queued": lost, "running": writ.TaskFailed, "done": lost, "failed": lost, "dead": lost, "cancelled": lost,
		}},
		{"release", "task.release", func(l *lab) writ.Caller { return l.a }, func(g grip) any { return g.release() }, want{
			"queued": lost, "running": writ.TaskQueued, "done": lost, "failed": lost, "dead": lost, "cancelled": lost,
		}},
		{"cancel", "task.cancel", func(l *lab) writ.Caller { return l.owner }, func(g grip) any { return &TaskCancelArgs{Task: g.task} }, want{
			"queued": writ.TaskCancelled, "running": writ.TaskRunning, "done": illegal, "failed": illegal, "dead": illegal, "cancelled": illegal,
		}},
		{"expire", "task.expire", func(l *lab) writ.Caller { return l.w.System() }, func(g grip) any { return &TaskSweepArgs{Task: g.task} }, want{
			"queued": writ.TaskQueued, "running": writ.TaskRunning, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled,
		}},
		{"expire late", "task.expire", func(l *lab) writ.Caller { l.w.Advance(3600); return l.w.System() }, func(g grip) any { return &TaskSweepArgs{Task: g.task} }, want{
			"queued": writ.TaskQueued, "running": writ.TaskDead, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled,
		}},
		{"ready", "task.ready", func(l *lab) writ.Caller { return l.w.System() }, func(g grip) any { return &TaskSweepArgs{Task: g.task} }, want{
			"queued": writ.TaskQueued, "running": writ.TaskRunning, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled,
		}},
		{"wake", "task.wake", func(l *lab) writ.Caller { return l.w.System() }, func(g grip) any { return &TaskSweepArgs{Task: g.task} }, want{
			"queued": writ.TaskQueued, "running": writ.TaskRunning, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled,
		}},
		{"reoffer", "task.reoffer", func(l *lab) writ.Caller { return l.w.System() }, func(g grip) any { return &TaskSweepArgs{Task: g.task} }, want{
			"queued": writ.TaskQueued, "running": writ.TaskRunning, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled,
		}},
		{"refuse", "task.refuse", func(l *lab) writ.Caller { return l.w.System() }, func(g grip) any {
			return &TaskRefuseArgs{Task: g.task, Agent: "agent-a", Lane: writ.LaneOf(build, "web", 5)}
		}, want{"queued": writ.TaskQueued, "running": writ.TaskRunning, "done": writ.TaskDone, "failed": writ.TaskFailed, "dead": writ.TaskDead, "cancelled": writ.TaskCancelled}},
	}
	for _, v := range verbs {
		for _, s := range states {
			t.Run(v.name+"/"+string(s), func(t *testing.T) {
				l := newLab(t)
				g := bring(l, s)
				facts := len(l.w.Facts)
				_, tx, err := l.try(v.id, v.by(l), v.args(g))
				switch want := v.want[s].(type) {
				case writ.Code:
					l.wantCode(want, err)
					l.wantState(g.task, s)
					if len(l.w.Facts) != facts {
						t.Fatal("a refusal changed something")
					}
				case writ.TaskState:
					if err != nil {
						t.Fatal(err)
					}
					l.wantState(g.task, want)
					if want != s && (len(tx.Changes) == 0 || tx.Changes[0].ID != string(g.task) || tx.Changes[0].To != string(want)) {
						t.Fatalf("changes %v do not begin with the task's move", tx.Changes)
					}
				}
				audit(l)
			})
		}
	}
}

// TestMandatesRunTwice: a mandate that has nothing left to do leaves no fact.
func TestMandatesRunTwice(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.Advance(61)
	for i, want := range []int{1, 0} {
		facts := len(l.w.Facts)
		if got := l.sweep("task.expire", &TaskSweepArgs{Task: g.task}); got.Changed != want || len(l.w.Facts)-facts != want {
			t.Fatalf("expire %d: changed %d with %d facts, want %d", i, got.Changed, len(l.w.Facts)-facts, want)
		}
	}
	l.w.Advance(2)
	for i, want := range []int{1, 0} {
		l.w.SetIndex(writ.IndexReady, string(g.task), l.w.Now) // a sweeper's list may be old
		if got := l.sweep("task.ready", &TaskSweepArgs{Task: g.task}); got.Changed != want {
			t.Fatalf("ready %d: changed %d, want %d", i, got.Changed, want)
		}
	}
	if n := len(l.w.Lane(l.lane())); n != 2 { // the entry of the enqueue, never acked, and one more
		t.Fatalf("%d lane entries, want 2", n)
	}
	audit(l)
}
