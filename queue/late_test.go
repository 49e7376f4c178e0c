package queue

import (
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// The gateway was away for longer than the lease: the holder, who worked on,
// keeps the task as long as nobody took it back.
func TestHeartbeatAfterAnOutage(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.Advance(600)
	got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat()))
	if got.Control != "continue" || got.ExpiresAt != writ.FormatTime(l.w.Now+60_000) {
		t.Fatalf("got %+v", got)
	}
	audit(l)
	if s := l.sweep("task.expire", &TaskSweepArgs{Task: g.task}); s.Changed != 0 {
		t.Fatal("a renewed lease expired")
	}
	l.do("task.complete", l.a, g.complete())
	l.wantState(g.task, writ.TaskDone)
}

func TestALateHeartbeatNeedsTheLease(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	wrongLease, wrongFence := g, g
	wrongLease.lease = writ.LeaseID(l.w.NewID(writ.PrefixLease))
	wrongFence.fence--
	l.w.Advance(61)
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, wrongLease.beat())
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, wrongFence.beat())
	l.refused(writ.CodeNotHolder, "task.heartbeat", l.b, g.beat())
	l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, g.beat())
}

func TestALateHeartbeatStopsAtMaxUntil(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	until := l.task(g.task).Lease.MaxUntil
	l.w.Now = until - 5000
	got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat()))
	if got.ExpiresAt != writ.FormatTime(until) {
		t.Fatalf("renewed until %s, want %s", got.ExpiresAt, writ.FormatTime(until))
	}
	audit(l)

	// Nor may a heartbeat that was judged in time commit past it.
	beat := l.caps["task.heartbeat"]
	p, err := l.w.Plan(beat, l.w.NewCall(beat, l.a, g.beat()))
	if err != nil {
		t.Fatal(err)
	}
	l.w.Now = until + 1
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("committed past max_until")
	}
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, g.beat())
}

// Work nobody wants any more is not kept alive, late or not.
func TestALateHeartbeatDoesNotKeepStoppedWork(t *testing.T) {
	for name, stop := range map[string]func(*lab, grip){
		"cancel":  func(l *lab, g grip) { l.do("task.cancel", l.owner, &TaskCancelArgs{Task: g.task}) },
		"run end": func(l *lab, _ grip) { l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled }) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			g := l.claim(l.a, l.enqueue("one"))
			stop(l, g)
			end := l.w.Counter(leaseEnd(g.task))
			l.w.Advance(61)
			got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat()))
			if got.Control != "cancel" || l.w.Counter(leaseEnd(g.task)) != end {
				t.Fatalf("control %s, end moved by %d", got.Control, l.w.Counter(leaseEnd(g.task))-end)
			}
			l.do("task.release", l.a, g.release()) // as it was told, though late
			l.wantState(g.task, writ.TaskCancelled)
			audit(l)
		})
	}
}

// A late renewal and the expiry were judged on the same end: whichever comes
// first, the other does not commit.
func TestLateRenewalAndExpiryAreSerialised(t *testing.T) {
	for _, renewedFirst := range []bool{true, false} {
		l := newLab(t)
		g := l.claim(l.a, l.enqueue("one"))
		l.w.Advance(61)
		beat, expire := l.caps["task.heartbeat"], l.caps["task.expire"]
		plan := func(c *writ.Capability, by writ.Caller, args any) *writtest.Planned {
			p, err := l.w.Plan(c, l.w.NewCall(c, by, args))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		first, second := plan(beat, l.a, g.beat()), plan(expire, l.w.System(), &TaskSweepArgs{Task: g.task})
		want := writ.TaskRunning
		if !renewedFirst {
			first, second, want = second, first, writ.TaskQueued
		}
		if _, err := l.w.Commit(first); err != nil {
			t.Fatal(err)
		}
		if _, err := l.w.Commit(second); err == nil {
			t.Fatal("both were committed")
		}
		l.wantState(g.task, want)
		audit(l)
	}
}
