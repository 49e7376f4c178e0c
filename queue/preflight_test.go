package queue

import (
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// ward finds agents as a test says; those that are not in it are healthy.
type ward map[writ.AgentID]writ.AgentHealth

func (w ward) Reads(writ.Snapshot, writ.AgentID, bool) (writ.ReadSet, error) {
	return writ.ReadSet{}, nil
}

func (w ward) Judge(_ writ.Snapshot, id writ.AgentID, _ bool, tx *writ.Tx) (writ.AgentHealth, error) {
	if h, ok := w[id]; ok {
		h.Agent = id
		return h, nil
	}
	if tx != nil {
		tx.Within(writ.HealthFailures(id), 0, 0)
	}
	return writ.AgentHealth{Agent: id, Status: writ.Healthy}, nil
}

var (
	ill = writ.AgentHealth{Status: writ.Unhealthy, Reason: writ.ReasonProbes, RetryMs: 4000, Probes: []writ.Probe{{Name: "api", State: writ.ProbeFail}}}
	old = writ.AgentHealth{Status: writ.Stale, Reason: writ.ReasonStale, RetryMs: 1000, Look: true}
)

func wardLab(t *testing.T) (*lab, ward) {
	l, w := newLab(t), ward{}
	for _, c := range Capabilities(Config{MinLeaseSeconds: 1, Health: w}) {
		l.caps[c.ID] = c
	}
	return l, w
}

func named(ids ...writ.AgentID) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.Agents = ids }
}

// Nobody makes up for another, and what keeps an agent healthy guards the claim.
func TestPreflight(t *testing.T) {
	l, w := wardLab(t)
	both, one := l.enqueue("both", named("agent-a", "agent-b")), l.enqueue("one", named("agent-a"))
	w["agent-b"] = ill
	e := l.refused(writ.CodePreflight, "task.claim", l.a, &TaskClaimArgs{Task: both})
	if e.Details["agent"] != "agent-b" || e.Details["status"] != "unhealthy" || e.Details["reason"] != "probes" || e.RetryMs != 4000 || len(e.Probes) != 1 {
		t.Errorf("got %+v", e)
	}
	l.refused(writ.CodePreflight, "task.claim", l.b, &TaskClaimArgs{}) // a poll, too
	if _, err := l.dispatch(l.a, writ.DirectedLane("agent-a", build, "web", 5), both); writ.CodeOf(err) != writ.CodePreflight {
		t.Errorf("from its lane: %v", err)
	}
	l.wantState(both, writ.TaskQueued)
	l.claim(l.a, one)
	v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: both}))
	if v.Assignable == nil || *v.Assignable || len(v.Unassignable) != 1 || v.Unassignable[0].Agent != "agent-b" {
		t.Errorf("got %+v", v)
	}
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: one})); v.Assignable != nil {
		t.Errorf("a running task is given to nobody: %+v", v)
	}
	delete(w, "agent-b")
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: both})); v.Assignable == nil || !*v.Assignable {
		t.Errorf("got %+v", v)
	}
	behind := l.enqueue("behind", named("agent-a"), func(a *TaskEnqueueArgs) { a.DependsOn = []TaskDependency{{Key: "both"}} })
	for _, id := range []writ.TaskID{both, behind} { // queued and blocked, whoever asks: nobody healthy may run it
		if v := body[TaskView](l, l.do("task.get", l.a, &TaskGetArgs{Task: id})); v.Assignable == nil || !*v.Assignable {
			t.Errorf("%s: got %+v", v.Key, v)
		}
	}
	l.w.Agent("agent-a", "web", "site.test")
	l.w.Agent("agent-b", "web", "site.test")
	for _, id := range []writ.TaskID{both, behind} {
		if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})); v.Assignable == nil || *v.Assignable || len(v.Unassignable) > 0 {
			t.Errorf("%s: got %+v", v.Key, v)
		}
	}
	l.w.Agent("agent-a", "web", build, "site.test")
	l.w.Agent("agent-b", "web", build, "site.test")
	call := l.w.NewCall(l.caps["task.claim"], l.b, &TaskClaimArgs{Task: both})
	p, err := l.w.Plan(l.caps["task.claim"], call)
	if err != nil {
		t.Fatal(err)
	}
	l.w.SetCounter(writ.HealthFailures("agent-a"), 1)
	if _, err := l.w.Commit(p); err == nil {
		t.Error("claimed although agent-a failed meanwhile")
	}
}

// A claim that meets what nobody has looked at in time asks for a look, once,
// and changes nothing meanwhile. Where a look would not help none is asked for.
func TestPreflightAsksForALook(t *testing.T) {
	l, w := wardLab(t)
	both := l.enqueue("both", named("agent-a", "agent-b"))
	w["agent-b"] = old
	before := len(l.w.Facts)
	r := l.do("task.claim", l.a, &TaskClaimArgs{Task: both})
	if len(r.Probe) != 1 || r.Probe[0] != "agent-b" || len(l.w.Facts) != before {
		t.Errorf("got %+v", r)
	}
	if r := l.do("task.claim", l.b, &TaskClaimArgs{}); len(r.Probe) != 1 || r.Poll != nil {
		t.Errorf("got %+v", r)
	}
	call := l.w.NewCall(l.caps["task.claim"], l.a, &TaskClaimArgs{Task: both})
	call.Probed = true
	if _, _, err := l.w.Do(l.caps["task.claim"], call); writ.CodeOf(err) != writ.CodePreflight {
		t.Errorf("got %v", err)
	}
	w["agent-a"] = ill
	l.refused(writ.CodePreflight, "task.claim", l.a, &TaskClaimArgs{Task: both})
}

// Attempts that end for reasons outside count against their agent, others do
// not, and one that ends well wipes them out.
func TestFailuresAreCounted(t *testing.T) {
	count := func(l *lab) int64 { return l.w.Counter(writ.HealthFailures("agent-a")) }
	for name, c := range map[string]struct {
		end  func(l *lab, g grip)
		want int64
	}{
		"failed outside": {func(l *lab, g grip) { l.do("task.fail", l.a, g.fail(true)) }, 3},
		"failed by itself": {func(l *lab, g grip) {
			f := g.fail(true)
			f.Failure.Class = writ.FailureDeterministic
			l.do("task.fail", l.a, f)
		}, 2},
		"released":  {func(l *lab, g grip) { l.do("task.release", l.a, g.release()) }, 2},
		"completed": {func(l *lab, g grip) { l.do("task.complete", l.a, g.complete()) }, 0},
		"lease ran out": {func(l *lab, g grip) {
			l.w.Advance(61)
			l.sweep("task.expire", &TaskSweepArgs{Task: g.task})
		}, 3},
		"session ended on purpose": {func(l *lab, _ grip) {
			l.endSession(l.a.Session)
			l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
		}, 2},
		"session fell silent": {func(l *lab, _ grip) {
			l.endSession(l.a.Session)
			s, _, _ := writtest.Get[writ.Session](l.w, writ.SessionKey(l.a.Session))
			s.State = writ.SessionExpired
			l.w.Seed(writ.SessionKey(l.a.Session), writ.ObjectSession, s)
			l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			g := l.claim(l.a, l.enqueue("one"))
			l.w.SetCounter(writ.HealthFailures("agent-a"), 2)
			c.end(l, g)
			if got := count(l); got != c.want {
				t.Errorf("%d failures, want %d", got, c.want)
			}
			if _, told := l.w.Index(writ.IndexTodo)[writ.TodoHealth("agent-a")]; told != (c.want != 2) {
				t.Errorf("told: %v", told)
			}
		})
	}
}

// A failure that comes beside a completion is not wiped out unseen.
func TestSuccessForgetsWhatItSaw(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	l.w.SetCounter(writ.HealthFailures("agent-a"), 2)
	p, err := l.w.Plan(l.caps["task.complete"], l.w.NewCall(l.caps["task.complete"], l.a, g.complete()))
	if err != nil {
		t.Fatal(err)
	}
	l.w.SetCounter(writ.HealthFailures("agent-a"), 3)
	if _, err := l.w.Commit(p); err == nil {
		t.Error("committed on a count that was not the one it saw")
	}
}

// A task that is set aside for what passes is offered again by itself.
func TestSetAsideForAWhile(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", named("agent-a"))
	lane := writ.DirectedLane("agent-a", build, "web", 5)
	l.sweep("task.refuse", &TaskRefuseArgs{Task: id, Agent: "agent-a", Lane: lane, Again: 4000})
	member := todo(todoReoffer, string(id))
	if at := l.w.Index(writ.IndexTodo)[member]; at != l.w.Now+4000 {
		t.Fatalf("due at %d, now is %d", at, l.w.Now)
	}
	before := len(l.w.Lane(lane))
	l.sweep("task.reoffer", &TaskSweepArgs{Task: id})
	if _, left := l.w.Index(writ.IndexTodo)[member]; left || len(l.w.Lane(lane)) != before+1 {
		t.Errorf("left: %v, %d entries", left, len(l.w.Lane(lane)))
	}
}
