package queue

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// MaxDependencies is how many tasks one task may depend on.
const MaxDependencies = 32

// releaseAtOnce is how many dependents the end of a task lets go itself; a
// follow-up lets go the rest, as many at a time.
const releaseAtOnce = 8

// errUnread is a defect: a task ends and nobody looked who waits for it.
var errUnread = errors.New("the dependents of a task that ends were not read")

// todoUnblock is the follow-up of a task that has ended and that others wait for.
const todoUnblock = "unblock"

// dependencyFailed is why a task failed that never began.
var dependencyFailed = writ.Failure{Class: writ.FailureDependency, Code: "dependency_failed"}

// TaskDependency names a task that must end first.
type TaskDependency struct {
	Key       string                `json:"key" doc:"Key of a task of the same run." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	OnFailure writ.DependencyPolicy `json:"on_failure,omitempty" doc:"What becomes of this task when that one ends without a result: it fails, it is cancelled (skip), or it goes on." enum:"fail,skip,continue" default:"fail"`
}

// dependencies brings those of a request into their stored form, by key. Which
// tasks they are is known once the run is read.
func dependencies(op, own string, in []TaskDependency) ([]writ.Dependency, error) {
	if len(in) > MaxDependencies {
		return nil, invalid(op, "/depends_on", "are too many")
	}
	var out []writ.Dependency
	for i, d := range in {
		at := "/depends_on/" + strconv.Itoa(i)
		if d.OnFailure == writ.DependencyFail {
			d.OnFailure = ""
		}
		switch {
		case !writ.ValidSlug(d.Key):
			return nil, invalid(op, at+"/key", "must be a slug")
		case d.Key == own:
			return nil, invalid(op, at+"/key", "is the task itself")
		case d.OnFailure != "" && d.OnFailure != writ.DependencySkip && d.OnFailure != writ.DependencyContinue:
			return nil, invalid(op, at+"/on_failure", "must be fail, skip or continue")
		case slices.ContainsFunc(out, func(o writ.Dependency) bool { return o.Key == d.Key }):
			return nil, invalid(op, at+"/key", "is named twice")
		}
		out = append(out, writ.Dependency{Key: d.Key, OnFailure: d.OnFailure})
	}
	slices.SortFunc(out, func(a, b writ.Dependency) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

// dependencyReads names what tells which tasks a new one depends on, and where
// those stand.
func dependencyReads(s writ.Snapshot, t writ.Task) ([]writ.Key, error) {
	var out []writ.Key
	for _, d := range t.DependsOn {
		name := writ.TaskNameKey(t.Run, d.Key)
		out = append(out, name)
		taken, ok, err := peek[taskName](s, name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, writ.TaskKey(taken.Task))
		}
	}
	return out, nil
}

// resolve finds the tasks a new one depends on. They are there already, so no
// circle can close.
func resolve(s writ.Snapshot, t writ.Task, asked []TaskDependency) ([]writ.Dependency, error) {
	out := slices.Clone(t.DependsOn)
	for i := range out {
		name, _, ok, err := writ.Get[taskName](s, writ.TaskNameKey(t.Run, out[i].Key))
		if err != nil {
			return nil, err
		}
		if !ok {
			at := slices.IndexFunc(asked, func(a TaskDependency) bool { return a.Key == out[i].Key })
			return nil, invalid(opEnqueue, "/depends_on/"+strconv.Itoa(at)+"/key", "names no task of the run; enqueue that one first")
		}
		out[i].Task = name.Task
	}
	return out, nil
}

// block makes a new task wait for what it depends on. It says false if there is
// nothing to wait for. What ended before without a result is left to the follow-up
// that lets go whoever waits for it, so that one place decides.
func (d *draft) block(t *writ.Task) (bool, error) {
	unmet := int64(0)
	for _, dep := range t.DependsOn {
		on, _, err := loadTask(d.op, d.s, dep.Task)
		if err != nil {
			return false, err
		}
		if on.State == writ.TaskDone {
			continue
		}
		unmet++
		d.tx.Index(writ.Dependents(dep.Task), string(t.ID), 0)
		if writ.TaskMoves.Terminal(on.State) {
			d.tx.Index(writ.IndexTodo, todo(todoUnblock, string(dep.Task)), d.s.Now)
		}
	}
	if unmet == 0 {
		return false, nil
	}
	t.State = writ.TaskBlocked
	d.tx.Add(writ.TaskUnmet(t.ID), unmet)
	return true, nil
}

// waitedFor names the tasks a task depends on.
func waitedFor(t writ.Task) (out []writ.Key) {
	for _, d := range t.DependsOn {
		out = append(out, writ.TaskKey(d.Task))
	}
	return out
}

// waiting are those of them, as far as read, that a blocked task still waits for.
func waiting(s writ.Snapshot, t writ.Task) (out []writ.TaskID, err error) {
	if t.State != writ.TaskBlocked {
		return nil, nil
	}
	for _, d := range t.DependsOn {
		on, ok, err := peek[writ.Task](s, writ.TaskKey(d.Task))
		if err != nil {
			return nil, err
		}
		if ok && !writ.TaskMoves.Terminal(on.State) {
			out = append(out, d.Task)
		}
	}
	return out, nil
}

// dependents are the tasks that wait for one. The index is versioned: whoever
// ends the task expects it as it was read, so nobody is forgotten.
func dependents(id writ.TaskID) writ.Range {
	return writ.Range{Index: writ.Dependents(id), Limit: releaseAtOnce + 1}
}

// releaseReads names what must be seen to let go the dependents of a task in the
// transaction that ends it.
func releaseReads(s writ.Snapshot, id writ.TaskID) (rs writ.ReadSet) {
	rs.Ranges = append(rs.Ranges, dependents(id))
	for _, m := range first(s.Ranges[dependents(id)].Members) {
		b := writ.TaskID(m.Name)
		rs.Docs = append(rs.Docs, writ.TaskKey(b))
		rs.Counters = append(rs.Counters, writ.TaskUnmet(b))
		rs.Ranges = append(rs.Ranges, dependents(b))
	}
	return rs
}

func first(m []writ.Member) []writ.Member { return m[:min(len(m), releaseAtOnce)] }

// release lets go those that wait for a task that has ended, as far as they were
// read, and leaves a follow-up for the others. In a run that has ended nobody is
// let go: its end cancels them.
func (d *draft) release(t writ.Task) error {
	waiting, read := d.s.Ranges[dependents(t.ID)]
	if !read {
		return writ.Fault(writ.CodeInternal, d.op, errUnread)
	}
	r, err := loadRun(d.op, d.s, t.Run)
	if err != nil || len(waiting.Members) == 0 || writ.RunMoves.Terminal(r.State) {
		return err
	}
	left := len(waiting.Members) > releaseAtOnce
	for _, m := range first(waiting.Members) {
		// One that ends in here leaves its own to a follow-up: they may be among
		// these, and a task moves once in a transaction.
		if d.releasing || d.full() || !d.s.Has(writ.TaskKey(writ.TaskID(m.Name))) {
			left = true
			break
		}
		b, ok, err := peek[writ.Task](d.s, writ.TaskKey(writ.TaskID(m.Name)))
		if err != nil {
			return err
		}
		d.tx.Unindex(writ.Dependents(t.ID), m.Name)
		if !ok || b.State != writ.TaskBlocked {
			continue
		}
		d.releasing = true
		err = d.met(&b, t)
		d.releasing = false
		if err != nil {
			return err
		}
	}
	if left {
		d.tx.Index(writ.IndexTodo, todo(todoUnblock, string(t.ID)), d.s.Now)
	}
	return nil
}

// met tells a blocked task that one it depends on has ended.
func (d *draft) met(b *writ.Task, t writ.Task) error {
	policy := writ.DependencyFail
	for _, dep := range b.DependsOn {
		if dep.Task == t.ID && dep.OnFailure != "" {
			policy = dep.OnFailure
		}
	}
	unmet := writ.TaskUnmet(b.ID)
	switch {
	case t.State != writ.TaskDone && policy == writ.DependencySkip:
		d.unblock(b)
		return d.end(b, writ.TaskBlocked, writ.TaskCancelled)
	case t.State != writ.TaskDone && policy != writ.DependencyContinue:
		d.unblock(b)
		b.Failure = &dependencyFailed
		return d.end(b, writ.TaskBlocked, writ.TaskFailed)
	case d.seen(unmet) > 1: // the document does not change: of two that end at once the second sees the first
		d.tx.Within(unmet, 2, writ.MaxAmount)
		d.tx.Add(unmet, -1)
		return nil
	}
	d.exactly(unmet)
	d.set(unmet, 0)
	d.enter(b, b.NotBefore)
	d.released = append(d.released, b.ID)
	return d.put(b, writ.TaskBlocked)
}

// unblock takes a task that ends while it is blocked off the lists of those it
// waits for. What it counted does not matter any more.
func (d *draft) unblock(b *writ.Task) {
	for _, dep := range b.DependsOn {
		d.tx.Unindex(writ.Dependents(dep.Task), string(b.ID))
	}
	b.NotBefore = 0
}

// unblockCapability lets go what waits for a task that has ended, past what its
// end let go itself.
func unblockCapability() *writ.Capability {
	const op = "queue.Unblock"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := taskReads(op, s, id)
		if err != nil {
			return rs, err
		}
		if t, ok, err := peek[writ.Task](s, writ.TaskKey(id)); err != nil {
			return rs, err
		} else if ok {
			rs.Counters = append(rs.Counters, writ.RunOpenTasks(t.Run), writ.RunBadTasks(t.Run))
		}
		return rs.Join(releaseReads(s, id)), nil
	}
	return taskMandate("task.unblock", "Let go the tasks that waited for one that has ended.", op, reads, func(d *draft, t writ.Task) (Swept, error) {
		follow := todo(todoUnblock, string(t.ID))
		d.tx.Unindex(writ.IndexTodo, follow)
		if !writ.TaskMoves.Terminal(t.State) {
			return Swept{}, nil
		}
		before := len(d.tx.Changes)
		err := d.release(t)
		last := d.tx.Ops[len(d.tx.Ops)-1]
		return Swept{Changed: len(d.tx.Changes) - before, More: last.Kind == writ.OpIndex && last.Member == follow}, err
	})
}
