package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func after(keys ...string) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) {
		for _, k := range keys {
			key, policy, _ := strings.Cut(k, ":")
			a.DependsOn = append(a.DependsOn, TaskDependency{Key: key, OnFailure: writ.DependencyPolicy(policy)})
		}
	}
}

// A diamond: the last waits for both in the middle, and is let go by the commit
// that ends the second.
func TestDependentsAreLetGo(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	left, right := l.enqueue("left", after("top")), l.enqueue("right", after("top"))
	last := l.enqueue("last", after("left", "right"))
	for _, id := range []writ.TaskID{left, right, last} {
		l.wantState(id, writ.TaskBlocked)
	}
	if got := l.refused(writ.CodeDeps, "task.claim", l.a, &TaskClaimArgs{Task: last}).Details["waiting_on"]; got != string(left)+","+string(right) {
		t.Errorf("waits for %s", got)
	}
	if got := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: last})); !slices.Equal(got.BlockedOn, asHolders(left, right)) || len(got.DependsOn) != 2 || got.DependsOn[0].OnFailure != "fail" {
		t.Errorf("got %+v", got)
	}
	done := body[TaskView](l, l.do("task.complete", l.a, l.claim(l.a, top).complete()))
	if !slices.Equal(done.Unblocked, []writ.TaskID{left, right}) || !l.inLane(left) || !l.inLane(right) {
		t.Errorf("unblocked %v", done.Unblocked)
	}
	audit(l)
	if got := body[TaskView](l, l.do("task.complete", l.a, l.claim(l.a, left).complete())); len(got.Unblocked) > 0 {
		t.Errorf("unblocked %v", got.Unblocked)
	}
	l.wantState(last, writ.TaskBlocked)
	audit(l)
	l.do("task.complete", l.b, l.claim(l.b, right).complete())
	l.wantState(last, writ.TaskQueued)
	audit(l)
	// What has ended well already is not waited for.
	l.wantState(l.enqueue("later", after("last", "top")), writ.TaskBlocked)
	l.do("task.complete", l.b, l.claim(l.b, last).complete())
	l.wantState(l.enqueue("latest", after("last", "top")), writ.TaskQueued)
	audit(l)
}

// What a task that ends without a result means to those that depend on it is
// theirs to say, and passes on along the chain.
func TestDependentsOfAFailure(t *testing.T) {
	for name, end := range map[string]func(*lab, writ.TaskID){
		"failed":    func(l *lab, id writ.TaskID) { l.do("task.fail", l.a, l.claim(l.a, id).fail(false)) },
		"cancelled": func(l *lab, id writ.TaskID) { l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id}) },
		"dead": func(l *lab, id writ.TaskID) {
			l.claim(l.a, id)
			l.w.Advance(100)
			l.sweep("task.expire", &TaskSweepArgs{Task: id})
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			first := l.enqueue("first", attempts(1))
			fails, skips, goes := l.enqueue("fails", after("first")), l.enqueue("skips", after("first:skip")), l.enqueue("goes", after("first:continue"))
			chain := l.enqueue("chain", after("fails", "goes"))
			end(l, first)
			l.unblockAll()
			if got := l.wantState(fails, writ.TaskFailed).Failure; got == nil || got.Class != writ.FailureDependency || got.Code != "dependency_failed" || got.Retryable {
				t.Errorf("got %+v", got)
			}
			l.wantState(skips, writ.TaskCancelled)
			l.wantState(goes, writ.TaskQueued)
			l.wantState(chain, writ.TaskFailed)
			audit(l)
			// One that comes later is told as well.
			late, both := l.enqueue("late", after("first")), l.enqueue("both", after("first:continue", "goes"))
			l.wantState(late, writ.TaskBlocked)
			l.unblockAll()
			l.wantState(late, writ.TaskFailed)
			l.wantState(both, writ.TaskBlocked)
			audit(l)
			l.do("task.complete", l.b, l.claim(l.b, goes).complete())
			l.wantState(both, writ.TaskQueued)
			audit(l)
		})
	}
}

// Many dependents are let go by follow-ups, each exactly once.
func TestManyDependents(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	for i := range 40 {
		l.enqueue(fmt.Sprintf("task-%d", i), after("top"))
	}
	done := body[TaskView](l, l.do("task.complete", l.a, l.claim(l.a, top).complete()))
	if len(done.Unblocked) != releaseAtOnce {
		t.Errorf("unblocked %d", len(done.Unblocked))
	}
	audit(l)
	if n := l.unblockAll(); n != 4 {
		t.Errorf("%d follow-ups", n)
	}
	if queued := l.w.Lane(l.lane()); len(queued) != 41 { // the entry of the first was not dropped
		t.Errorf("%d in the lane", len(queued))
	}
	audit(l)
}

// A blocked task can be cancelled, and its run's end cancels it.
func TestBlockedTasksEnd(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	one, two := l.enqueue("one", after("top")), l.enqueue("two", after("top"))
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: one})
	l.wantState(one, writ.TaskCancelled)
	audit(l)
	l.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
	l.sweep("run.reap", &RunReapArgs{Run: l.run})
	l.wantState(two, writ.TaskCancelled)
	l.wantState(top, writ.TaskCancelled)
	audit(l)
	if left := l.w.Members(writ.Dependents(top)); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// A task waits for its time after what it depends on.
func TestBlockedUntilItsTime(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	timed := l.enqueue("timed", after("top"), func(a *TaskEnqueueArgs) { a.NotBefore = writ.FormatTime(l.w.Now + 60_000) })
	l.do("task.complete", l.a, l.claim(l.a, top).complete())
	if l.wantState(timed, writ.TaskQueued); l.inLane(timed) {
		t.Error("it is in its lane before its time")
	}
	audit(l)
	l.w.Advance(61)
	l.sweep("task.ready", &TaskSweepArgs{Task: timed})
	if !l.inLane(timed) {
		t.Error("it is not in its lane")
	}
}

// Only a completion between the same two reads can be missed, and the versions
// of both sides see to it that it is not.
func TestADependentMadeMeanwhile(t *testing.T) {
	l := newLab(t)
	top := l.enqueue("top")
	g := l.claim(l.a, top)
	plan := func(id writ.CapabilityID, by writ.Caller, args any) func() error {
		p, err := l.w.Plan(l.caps[id], l.w.NewCall(l.caps[id], by, args))
		if err != nil {
			t.Fatal(err)
		}
		return func() error { _, err := l.w.Commit(p); return err }
	}
	ask := &TaskEnqueueArgs{Run: l.run, Key: "next", Capability: build, Domain: "web", DependsOn: []TaskDependency{{Key: "top"}}}
	enqueue, complete := plan("task.enqueue", l.owner, ask), plan("task.complete", l.a, g.complete())
	if err := enqueue(); err != nil {
		t.Fatal(err)
	}
	if err := complete(); err == nil {
		t.Error("the completion did not see who waits")
	}
	complete = plan("task.complete", l.a, g.complete())
	other := *ask
	other.Key = "other"
	enqueue = plan("task.enqueue", l.owner, &other)
	if err := complete(); err != nil {
		t.Fatal(err)
	}
	if err := enqueue(); err == nil {
		t.Error("the new task waits for one that has ended")
	}
	audit(l)
}

// What the two halves of a diamond do at once lets the last go exactly once.
func TestBothHalvesAtOnce(t *testing.T) {
	l := newLab(t)
	left, right := l.enqueue("left"), l.enqueue("right")
	last := l.enqueue("last", after("left", "right"))
	ga, gb := l.claim(l.a, left), l.claim(l.b, right)
	complete := l.caps["task.complete"]
	pa, err := l.w.Plan(complete, l.w.NewCall(complete, l.a, ga.complete()))
	if err != nil {
		t.Fatal(err)
	}
	pb, err := l.w.Plan(complete, l.w.NewCall(complete, l.b, gb.complete()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.w.Commit(pa); err != nil {
		t.Fatal(err)
	}
	if _, err := l.w.Commit(pb); err == nil {
		t.Fatal("the second did not see the first")
	}
	l.do("task.complete", l.b, gb.complete())
	l.wantState(last, writ.TaskQueued)
	if n := strings.Count(strings.Join(l.w.Lane(l.lane()), " "), string(last)); n != 1 {
		t.Errorf("%d entries", n)
	}
	audit(l)
}

func TestDependenciesAreChecked(t *testing.T) {
	l := newLab(t)
	l.enqueue("top")
	many := make([]string, writ.MaxDependencies+1)
	for i := range many {
		many[i] = fmt.Sprintf("task-%d", i)
	}
	for name, c := range map[string]struct {
		on      []string
		pointer string
	}{
		"itself":    {[]string{"top", "next"}, "/depends_on/1/key"},
		"unknown":   {[]string{"top", "nowhere"}, "/depends_on/1/key"},
		"no slug":   {[]string{"../top"}, "/depends_on/0/key"},
		"twice":     {[]string{"top", "top:skip"}, "/depends_on/1/key"},
		"no policy": {[]string{"top:explode"}, "/depends_on/0/on_failure"},
		"too many":  {many, "/depends_on"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &TaskEnqueueArgs{Run: l.run, Key: "next", Capability: build, Domain: "web"}
			after(c.on...)(a)
			if e := l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, a); len(e.Fields) != 1 || e.Fields[0].Pointer != c.pointer {
				t.Errorf("got %+v", e.Fields)
			}
		})
	}
	// The same request again is the same task, other dependencies are another.
	id := l.enqueue("next", after("top"))
	if l.enqueue("next", after("top:fail")) != id {
		t.Error("fail is the default")
	}
	a := &TaskEnqueueArgs{Run: l.run, Key: "next", Capability: build, Domain: "web"}
	l.refused(writ.CodeIdempotency, "task.enqueue", l.owner, a)
}

// unblockAll carries out every follow-up for dependents, and says how many.
func (l *lab) unblockAll() (n int) {
	l.Helper()
	for range 100 {
		did := false
		for _, m := range l.w.Members(writ.IndexTodo) {
			if id, ok := strings.CutPrefix(m, todoUnblock+" "); ok {
				l.sweep("task.unblock", &TaskSweepArgs{Task: writ.TaskID(id)})
				audit(l)
				n, did = n+1, true
			}
		}
		if !did {
			return n
		}
	}
	l.Fatal("it never ends")
	return n
}

// Of tasks that depend on each other and are taken back, or come too late, together,
// each moves once: the end of one does not decide what becomes of the others, and
// leaves what it has not read to a follow-up.
func TestThoseThatEndTogetherMoveOnce(t *testing.T) {
	family := func(l *lab) []writ.TaskID {
		return []writ.TaskID{
			l.enqueue("top"), l.enqueue("fails", after("top")), l.enqueue("skips", after("top:skip")),
			l.enqueue("goes", after("top:continue")), l.enqueue("last", after("fails:continue", "goes")),
		}
	}
	once := func(l *lab, id writ.CapabilityID, args any) {
		l.Helper()
		for more := true; more; {
			r, tx, err := l.try(id, l.w.System(), args)
			if err != nil {
				l.Fatal(err)
			}
			for i, c := range tx.Changes {
				if slices.ContainsFunc(tx.Changes[:i], func(o writ.Change) bool { return o.Kind == c.Kind && o.ID == c.ID }) {
					l.Errorf("%s moves twice: %+v", c.ID, tx.Changes)
				}
			}
			more = body[Swept](l, r).More
		}
		l.unblockAll()
		audit(l)
	}
	t.Run("recall", func(t *testing.T) {
		l := newLab(t)
		l.revoked("agent-b")
		all := family(l)
		l.setGoing("agent-b", all...)
		once(l, "task.recall", &TaskRecallArgs{Agent: "agent-b"})
		for _, id := range all {
			l.wantState(id, writ.TaskCancelled)
		}
	})
	t.Run("outrun", func(t *testing.T) {
		l := newLab(t)
		all := family(l)
		wins := l.enqueue("wins")
		join := l.enqueue("join", after("wins", "top", "fails", "skips", "goes", "last"), func(a *TaskEnqueueArgs) { a.Join = writ.JoinFirst })
		l.do("task.complete", l.a, l.claim(l.a, wins).complete())
		l.wantState(join, writ.TaskQueued)
		once(l, "task.outrun", &TaskSweepArgs{Task: join})
		for _, id := range all {
			l.wantState(id, writ.TaskCancelled)
		}
	})
}
