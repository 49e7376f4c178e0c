package queue

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func TestAnOldFenceNeverCompletes(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", backoff(0))
	old := l.claim(l.a, id)
	l.w.Advance(61)
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, old.complete()) // even before the sweeper came
	l.refused(writ.CodeLeaseLost, "task.fail", l.a, old.fail(true))
	l.sweep("task.expire", &TaskSweepArgs{Task: id})
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, old.complete())
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, old.beat())
	l.refused(writ.CodeLeaseLost, "task.release", l.a, old.release())
	fresh := l.claim(l.b, id)
	if fresh.fence <= old.fence {
		t.Fatalf("fence went from %d to %d", old.fence, fresh.fence)
	}
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, old.complete())
	l.do("task.release", l.b, fresh.release())
	again := l.claim(l.a, id) // the same session holds it again
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, old.complete())
	mixed := again
	mixed.fence = old.fence
	l.refused(writ.CodeLeaseLost, "task.complete", l.a, mixed.complete())
	l.do("task.complete", l.a, again.complete())
	audit(l)
}

func TestCompleteIsIdempotent(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	first := l.do("task.complete", l.a, g.complete())
	l.w.Advance(600)
	a := g.complete()
	a.Result = writ.RawObject(`{ "ok" : true }`)
	second, tx, err := l.try("task.complete", l.a, a)
	if err != nil || !tx.Empty() {
		t.Fatalf("err %v, tx %+v", err, tx)
	}
	if x, y := body[TaskView](l, first), body[TaskView](l, second); x.Receipt != y.Receipt || x.Version != y.Version || second.ETag != first.ETag {
		t.Fatalf("first %+v, second %+v", x, y)
	}
}

func TestCompletionDoesNotCommitPastTheLease(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.Advance(60)
	cap := l.caps["task.complete"]
	p, err := l.w.Plan(cap, l.w.NewCall(cap, l.a, g.complete()))
	if err != nil {
		t.Fatal(err)
	}
	l.w.Now++
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("committed after the lease ended")
	}
	l.wantState(g.task, writ.TaskRunning)
}

func TestRenewalAndExpiryAreSerialised(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.Advance(60)
	beat, expire := l.caps["task.heartbeat"], l.caps["task.expire"]
	renewal, err := l.w.Plan(beat, l.w.NewCall(beat, l.a, g.beat()))
	if err != nil {
		t.Fatal(err)
	}
	l.w.Now++
	expiry, err := l.w.Plan(expire, l.w.NewCall(expire, l.w.System(), &TaskSweepArgs{Task: g.task}))
	if err != nil {
		t.Fatal(err)
	}
	l.w.Now-- // the renewal reaches the store first
	if _, err := l.w.Commit(renewal); err != nil {
		t.Fatal(err)
	}
	l.w.Now++
	if _, err := l.w.Commit(expiry); err == nil {
		t.Fatal("a lease that was renewed expired")
	}
	audit(l)
}

func TestHeartbeat(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	start := l.w.Now
	facts := len(l.w.Facts)
	l.w.Advance(20)
	a := g.beat()
	a.Progress = &TaskProgress{Pct: 40, Seq: 1}
	got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, a))
	if got.Control != "continue" || got.ExpiresAt != writ.FormatTime(start+80_000) || got.Every != 20 {
		t.Fatalf("got %+v", got)
	}
	if e := l.refused(writ.CodeVersion, "task.heartbeat", l.a, a); e.Details["reason"] != "stale" {
		t.Fatalf("details %v", e.Details)
	}
	if len(l.w.Facts) != facts {
		t.Fatal("a heartbeat left a fact")
	}
	v := body[TaskView](l, l.do("task.get", l.a, &TaskGetArgs{Task: g.task}))
	if *v.Pct != 40 || v.Lease.ID != g.lease || v.Lease.Fence != g.fence || v.Lease.ExpiresAt != got.ExpiresAt {
		t.Fatalf("view %+v %+v", v, v.Lease)
	}
	for l.w.Now < start+maxLeaseMs-50_000 { // no heartbeat goes past max_until
		l.w.Advance(50)
		l.do("task.heartbeat", l.a, g.beat())
		audit(l)
	}
	l.w.Now = start + maxLeaseMs
	l.do("task.heartbeat", l.a, g.beat())
	l.w.Now++
	l.refused(writ.CodeLeaseLost, "task.heartbeat", l.a, g.beat())
}

func TestProgressStartsAfreshWithEachClaim(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	g := l.claim(l.a, id)
	a := g.beat()
	a.Progress = &TaskProgress{Pct: 90, Seq: 7}
	l.do("task.heartbeat", l.a, a)
	l.do("task.release", l.a, g.release())
	g = l.claim(l.b, id)
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})); *v.Pct != 0 {
		t.Fatalf("pct %d", *v.Pct)
	}
	a = g.beat()
	a.Progress = &TaskProgress{Pct: 5, Seq: 1}
	l.do("task.heartbeat", l.b, a)
}

func TestCancelOfARunningTask(t *testing.T) {
	for _, how := range []string{"release", "retry", "expire", "complete"} {
		t.Run(how, func(t *testing.T) {
			l := newLab(t)
			g := l.claim(l.a, l.enqueue("one"))
			l.w.Advance(10)
			l.do("task.cancel", l.oper, &TaskCancelArgs{Task: g.task})
			l.wantState(g.task, writ.TaskRunning)
			if _, tx, err := l.try("task.cancel", l.owner, &TaskCancelArgs{Task: g.task}); err != nil || !tx.Empty() {
				t.Fatalf("a second request: %v", err)
			}
			before := l.w.Counter(leaseEnd(g.task))
			got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat())) // the old fence is still good
			if got.Control != "cancel" || l.w.Counter(leaseEnd(g.task)) != before {
				t.Fatalf("control %s, lease moved by %d", got.Control, l.w.Counter(leaseEnd(g.task))-before)
			}
			want := writ.TaskCancelled
			switch how {
			case "release":
				l.do("task.release", l.a, g.release())
			case "retry":
				l.do("task.fail", l.a, g.fail(true))
			case "expire":
				l.w.Advance(61)
				l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
			case "complete": // it was finished before the holder knew
				l.do("task.complete", l.a, g.complete())
				want = writ.TaskDone
			}
			l.wantState(g.task, want)
			audit(l)
		})
	}
}

func TestHoldersOfAnEndedRun(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
	if got := body[TaskHeartbeat](l, l.do("task.heartbeat", l.a, g.beat())); got.Control != "cancel" {
		t.Fatalf("control %s", got.Control)
	}
	l.refused(writ.CodeIllegal, "task.complete", l.a, g.complete()) // no work is accepted after the end
	l.do("task.release", l.a, g.release())
	l.wantState(g.task, writ.TaskCancelled)
	audit(l)
}

// What kinds of data a session has had is written with the claim, once for each, and
// stays when the task does not.
func TestWhatASessionIsGivenStays(t *testing.T) {
	l := newLab(t)
	carries := func(labels ...writ.Label) func(*TaskEnqueueArgs) {
		return func(a *TaskEnqueueArgs) { a.Labels = labels }
	}
	given := func(want int64, labels ...writ.Label) int64 {
		t.Helper()
		g, version, _ := writtest.Get[writ.Given](l.w, writ.GivenKey(l.a.Session))
		if !slices.Equal(g.Labels, labels) || want != 0 && version != want {
			t.Errorf("given %v in %d, want %v in %d", g.Labels, version, labels, want)
		}
		return version
	}
	l.do("task.release", l.a, l.claim(l.a, l.enqueue("one", carries(writ.LabelPIIAttachment))).release())
	first := given(0, writ.LabelPIIAttachment)
	l.do("task.complete", l.a, l.claim(l.a, l.enqueue("two", carries(writ.LabelPIIAttachment))).complete())
	given(first, writ.LabelPIIAttachment) // nothing new
	l.claim(l.a, l.enqueue("three", carries(writ.LabelInternalSystem)))
	given(0, writ.LabelInternalSystem, writ.LabelPIIAttachment)
}

func TestReleaseIsFree(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", attempts(1))
	for range 5 {
		l.do("task.release", l.a, l.claim(l.a, id).release())
	}
	if got := l.wantState(id, writ.TaskQueued); got.Attempt != 0 || got.NotBefore != 0 {
		t.Fatalf("attempt %d, not before %d", got.Attempt, got.NotBefore)
	}
	l.do("task.fail", l.a, l.claim(l.a, id).fail(true))
	l.wantState(id, writ.TaskDead)
}

func TestPause(t *testing.T) {
	for _, c := range []struct{ base, attempt, want int64 }{
		{0, 1, 0}, {0, 20, 0}, {1000, 1, 1000}, {1000, 2, 2000}, {1000, 4, 8000}, {1000, 20, maxBackoffMs}, {600_000, 1, 600_000}, {600_000, 2, 600_000},
	} {
		if got := pause(c.base, c.attempt); got != c.want {
			t.Errorf("pause(%d, %d) = %d, want %d", c.base, c.attempt, got, c.want)
		}
	}
}

func TestQuota(t *testing.T) {
	l := newLab(t)
	var ids []writ.TaskID
	for _, k := range []string{"t1", "t2", "t3", "t4", "t5"} {
		ids = append(ids, l.enqueue(k))
	}
	var g grip
	for _, id := range ids[:4] {
		g = l.claim(l.a, id)
	}
	for _, a := range []*TaskClaimArgs{{Task: ids[4]}, {}} {
		if e := l.refused(writ.CodeQuota, "task.claim", l.a, a); e.RetryMs != 1000 {
			t.Fatalf("retry %d", e.RetryMs)
		}
	}
	l.do("task.complete", l.a, g.complete())
	l.claim(l.a, ids[4])
	audit(l)
}

// Two heartbeats judged on the same end of the lease: the end moves once, or
// it would run ahead of the alarm.
func TestTwoHeartbeatsAtOnce(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.Advance(10)
	beat := l.caps["task.heartbeat"]
	p, err := l.w.Plan(beat, l.w.NewCall(beat, l.a, g.beat()))
	if err != nil {
		t.Fatal(err)
	}
	l.do("task.heartbeat", l.a, g.beat())
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("both were committed")
	}
	audit(l)
}

// A claim has paid for the call that ends the attempt; whatever else ends it
// gives that step back, once.
func TestWhatWasPaidInAdvanceComesBack(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(l *lab, g grip)
		left int64 // of the claim's two steps
	}{
		"complete":      {func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) }, 2},
		"fail":          {func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(false)) }, 2},
		"fail to retry": {func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(true)) }, 2},
		"release":       {func(l *lab, g grip) { l.do("task.release", l.a, g.release()) }, 1},
		"expire": {func(l *lab, g grip) {
			l.w.Advance(61)
			l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
			l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
		}, 1},
		"cancel, then release": {func(l *lab, g grip) {
			l.do("task.cancel", l.owner, &TaskCancelArgs{Task: g.task})
			l.do("task.release", l.a, g.release())
		}, 1},
		"end of the session": {func(l *lab, g grip) {
			l.endSession(l.a.Session)
			l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
			l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			g := l.claim(l.a, l.enqueue("one"))
			l.w.SetCounter(writ.BudgetUsed(l.run, writ.BudgetSteps), l.caps["task.claim"].Steps)
			c.end(l, g)
			if got := l.w.Counter(writ.BudgetUsed(l.run, writ.BudgetSteps)); got != c.left {
				t.Fatalf("the attempt cost %d steps, want %d", got, c.left)
			}
		})
	}
}

// pulse notes which sessions were renewed.
type pulse struct{ writ.Index }

func (p pulse) Reads(writ.SessionID) writ.ReadSet { return writ.ReadSet{} }

func (p pulse) Renew(id writ.SessionID, s writ.Snapshot, tx *writ.Tx) (int64, error) {
	tx.Index(p.Index, string(id), s.Now)
	return 5000, nil
}

func TestWorkIsAHeartbeatOfTheSession(t *testing.T) {
	l, heard := newLab(t), pulse{"due/test"}
	for _, c := range Capabilities(Config{MinLeaseSeconds: 1, Alive: heard}) {
		l.caps[c.ID] = c
	}
	renewed := func(verb string, want bool) {
		t.Helper()
		if _, ok := l.w.Index(heard.Index)[string(l.a.Session)]; ok != want {
			t.Fatalf("%s renewed the session: %v", verb, ok)
		}
		l.w.DropIndex(heard.Index, string(l.a.Session))
	}
	id := l.enqueue("one")
	if r := l.do("task.claim", l.a, &TaskClaimArgs{WaitSeconds: 20}); r.Poll == nil || r.Poll.AgainMs != 5000 {
		t.Fatalf("got %+v", r.Poll)
	}
	renewed("a waiting claim", true)
	g := l.claim(l.a, id)
	renewed("a claim", true)
	l.do("task.heartbeat", l.a, g.beat())
	renewed("a task heartbeat", true)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	l.do("task.heartbeat", l.a, g.beat())
	renewed("a task heartbeat that is told to stop", true)
	l.refused(writ.CodeClaimed, "task.claim", l.a, &TaskClaimArgs{Task: id})
	renewed("a refused claim", false)
}
