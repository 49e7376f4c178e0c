package queue

import (
	"github.com/writ-gateway/writ"
)

// joining brings the join of a request into its stored form.
func joining(op string, j writ.Join, dependencies int) (writ.Join, error) {
	switch {
	case j == writ.JoinAll:
		return "", nil
	case j == "" || j == writ.JoinManual:
		return j, nil
	case !j.Any():
		return "", invalid(op, "/join", "must be all_of, any_of, first_success or manual")
	case dependencies == 0:
		return "", invalid(op, "/join", "needs something to choose from")
	}
	return j, nil
}

// block makes a new task wait for what it depends on. It says false if there is
// nothing to wait for. What ended before in another way is left to the follow-up
// that lets go whoever waits for it, so that one place decides.
func (d *draft) block(t *writ.Task) (bool, error) {
	var open []writ.Task
	for _, dep := range t.DependsOn {
		on, _, err := loadTask(d.op, d.s, dep.Task)
		switch {
		case err != nil:
			return false, err
		case !dep.CameAbout(on):
			open = append(open, on)
		case t.Join.Any():
			d.won(*t)
			return false, nil
		}
	}
	unmet := int64(len(open))
	if t.Join == writ.JoinManual {
		unmet++ // for task.admit
	}
	if unmet == 0 {
		return false, nil
	}
	for _, on := range open {
		d.tx.Index(writ.Dependents(on.ID), dependent(*t, on.ID), 0)
		if writ.TaskMoves.Terminal(on.State) {
			d.tx.Index(writ.IndexTodo, todo(todoUnblock, string(on.ID)), d.s.Now)
		}
	}
	t.State = writ.TaskBlocked
	d.tx.Add(writ.TaskUnmet(t.ID), unmet)
	return true, nil
}

// met tells a blocked task that one it depends on has ended.
func (d *draft) met(b *writ.Task, t writ.Task) error {
	came, policy := false, writ.DependencyFail
	for _, dep := range b.DependsOn {
		if dep.Task == t.ID {
			came, policy = dep.CameAbout(t), dep.Missed()
		}
	}
	any, last := b.Join.Any(), d.seen(writ.TaskUnmet(b.ID)) <= 1
	if any && !came && last { // none of it came about
		policy = strictest(b.DependsOn)
	}
	switch {
	case any && came:
		d.won(*b)
		return d.letGo(b)
	case came || policy == writ.DependencyContinue || any && !last:
		if last {
			return d.letGo(b)
		}
		return d.less(b)
	case policy == writ.DependencySkip:
		d.unblock(b)
		return d.end(b, writ.TaskBlocked, writ.TaskCancelled)
	}
	d.unblock(b)
	b.Failure = &dependencyFailed
	return d.end(b, writ.TaskBlocked, writ.TaskFailed)
}

// strictest is what becomes of a task none of whose dependencies came about.
func strictest(deps []writ.Dependency) writ.DependencyPolicy {
	out := writ.DependencyContinue
	for _, d := range deps {
		switch d.Missed() {
		case writ.DependencyFail:
			return writ.DependencyFail
		case writ.DependencySkip:
			out = writ.DependencySkip
		}
	}
	return out
}

// less counts one thing less that a blocked task waits for. The document does not
// change: of two that end at once the second sees the count of the first.
func (d *draft) less(b *writ.Task) error {
	d.tx.Within(writ.TaskUnmet(b.ID), 2, writ.MaxAmount)
	d.tx.Add(writ.TaskUnmet(b.ID), -1)
	return nil
}

// letGo queues a blocked task that nothing keeps any more.
func (d *draft) letGo(b *writ.Task) error {
	d.exactly(writ.TaskUnmet(b.ID))
	d.set(writ.TaskUnmet(b.ID), 0)
	notBefore := b.NotBefore
	d.unblock(b)
	d.enter(b, notBefore)
	d.released = append(d.released, b.ID)
	return d.put(b, writ.TaskBlocked)
}

// unblock takes a task that stops being blocked off the lists of those it waits
// for. What it counted does not matter any more.
func (d *draft) unblock(b *writ.Task) {
	for _, dep := range b.DependsOn {
		d.tx.Unindex(writ.Dependents(dep.Task), dependent(*b, dep.Task))
	}
	b.NotBefore = 0
}

// todoOutrun is the follow-up of a task that takes the first success, once there
// is one.
const todoOutrun = "outrun"

// won leaves the rest of a race to a follow-up.
func (d *draft) won(b writ.Task) {
	if b.Join == writ.JoinFirst {
		d.tx.Index(writ.IndexTodo, todo(todoOutrun, string(b.ID)), d.s.Now)
	}
}

// outrunBatch is how many tasks a follow-up cancels that came too late.
const outrunBatch = 4

// late are those a task depends on, as far as read, that have not ended and were
// not asked to.
func late(s writ.Snapshot, b writ.Task) (out []writ.TaskID, err error) {
	for _, dep := range b.DependsOn {
		t, ok, err := peek[writ.Task](s, writ.TaskKey(dep.Task))
		if err != nil {
			return nil, err
		}
		if ok && !writ.TaskMoves.Terminal(t.State) && t.CancelAt == 0 {
			out = append(out, t.ID)
		}
	}
	return out, nil
}

// outrunCapability cancels what a task depends on that takes the first success,
// and has it.
func outrunCapability() *writ.Capability {
	const op = "queue.Outrun"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := taskReads(op, s, id)
		if err != nil {
			return rs, err
		}
		b, ok, err := peek[writ.Task](s, writ.TaskKey(id))
		if err != nil || !ok {
			return rs, err
		}
		rs.Docs = append(rs.Docs, waitedFor(b)...)
		losers, err := late(s, b)
		for _, l := range losers[:min(len(losers), outrunBatch)] {
			more, err := leaveReads(op, s, l)
			if err != nil {
				return rs, err
			}
			more.Ranges = append(more.Ranges, queueReads(l)...)
			rs = rs.Join(more)
		}
		return rs, err
	}
	return taskMandate("task.outrun", "Cancel what came too late for a task that takes the first success.", op, reads, func(d *draft, b writ.Task) (Swept, error) {
		losers, err := late(d.s, b)
		if err != nil {
			return Swept{}, err
		}
		out := Swept{}
		for i, id := range losers {
			if out.More = i == outrunBatch || d.full(); out.More {
				break
			}
			t, version, err := loadTask(d.op, d.s, id)
			if err != nil {
				return Swept{}, err
			}
			if err := d.cancel(&t, version); err != nil {
				return Swept{}, err
			}
			out.Changed++
		}
		if !out.More {
			d.tx.Unindex(writ.IndexTodo, todo(todoOutrun, string(b.ID)))
		}
		return out, nil
	})
}

// TaskAdmitArgs name a task to let begin.
type TaskAdmitArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

const opAdmit = "queue.Admit"

// admitCapability is how who manages a run lets a task of join manual begin.
func admitCapability() *writ.Capability {
	return writ.Define[TaskAdmitArgs, TaskView](writ.Capability{
		ID: "task.admit", Summary: "Let a task of join manual begin, once what it depends on has ended.", Safety: writ.SafetyMutating, Steps: 1,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}`,
	}, writ.Verb[TaskAdmitArgs]{
		Locks: func(_ *writ.Call, a *TaskAdmitArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskAdmitArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := placedReads(opAdmit, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			rs.Counters = append(rs.Counters, writ.TaskUnmet(a.Task))
			return rs, err
		},
		Describe: func(c *writ.Call, a *TaskAdmitArgs, s writ.Snapshot) (writ.Subject, error) {
			if _, _, err := managed(opAdmit, c, s, a.Task); err != nil {
				return writ.Subject{}, err
			}
			return describeTask(opAdmit, c, s, a.Task)
		},
		Plan: admitPlan,
	})
}

func admitPlan(c *writ.Call, a *TaskAdmitArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, err := managed(opAdmit, c, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	if err := c.Match(opAdmit, version); err != nil {
		return refuse(err)
	}
	switch {
	case t.Admitted:
		return writ.Tx{}, unchanged(t, version), nil
	case t.State != writ.TaskBlocked:
		return refuse(writ.IllegalMove(opAdmit, writ.ObjectTask, string(t.State), string(writ.TaskQueued)))
	case t.Join != writ.JoinManual:
		return refuse(writ.Refuse(writ.CodeDeps, opAdmit, "the task waits for others alone", "it is queued once they have ended"))
	}
	d := begin(opAdmit, c, s)
	t.Admitted = true
	if d.seen(writ.TaskUnmet(t.ID)) <= 1 {
		err = d.letGo(&t)
	} else if err = d.less(&t); err == nil {
		err = d.put(&t, writ.TaskBlocked)
	}
	if err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	return tx, changed(t), err
}
