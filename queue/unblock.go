package queue

import (
	"errors"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// releaseAtOnce is how many dependents the end of a task lets go itself; a
// follow-up lets go the rest, as many at a time.
const releaseAtOnce = 8

// errUnread is a defect: a task ends and nobody looked who waits for it.
var errUnread = errors.New("the dependents of a task that ends were not read")

// todoUnblock is the follow-up of a task that has ended and that others wait for.
const todoUnblock = "unblock"

// dependencyFailed is why a task failed that never began.
var dependencyFailed = writ.Failure{Class: writ.FailureDependency, Code: "dependency_failed"}

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
		b := dependentID(m.Name)
		rs.Docs = append(rs.Docs, writ.TaskKey(b))
		rs.Counters = append(rs.Counters, writ.TaskUnmet(b))
		rs.Ranges = append(rs.Ranges, dependents(b))
		if t, ok, err := peek[writ.Task](s, writ.TaskKey(b)); err == nil && ok { // else the plan tells
			rs.Counters = append(rs.Counters, placeReads(t)...)
		}
	}
	return rs
}

// dependent is the member of Dependents(on) for a task that waits for on.
func dependent(t writ.Task, on writ.TaskID) string {
	for _, d := range t.DependsOn {
		if d.Task == on && d.When == writ.EndGiven {
			return givenMark + string(t.ID)
		}
	}
	return string(t.ID)
}

// givenMark stands before those that wait for a result only: it sorts before all ids.
const givenMark = "+"

func dependentID(member string) writ.TaskID {
	return writ.TaskID(strings.TrimPrefix(member, givenMark))
}

func first(m []writ.Member) []writ.Member { return m[:min(len(m), releaseAtOnce)] }

// release lets go those that wait for a task that has ended, or, if it has given a
// result that is yet to be judged, for that only; as far as they were
// read, and leaves a follow-up for the others; it says whether it did. In a run
// that has ended nobody is let go: its end cancels them.
func (d *draft) release(t writ.Task) (left bool, err error) {
	waiting, read := d.s.Ranges[dependents(t.ID)]
	if !read {
		return false, writ.Fault(writ.CodeInternal, d.op, errUnread)
	}
	r, err := loadRun(d.op, d.s, t.Run)
	if err != nil || len(waiting.Members) == 0 || writ.RunMoves.Terminal(r.State) {
		return false, err
	}
	members := waiting.Members
	if t.State == writ.TaskVerifying {
		n := slices.IndexFunc(members, func(m writ.Member) bool { return !strings.HasPrefix(m.Name, givenMark) })
		if n >= 0 {
			members = members[:n]
		}
	}
	left = len(members) > releaseAtOnce
	for _, m := range first(members) {
		id := dependentID(m.Name)
		if id == d.told {
			continue
		}
		// One that ends in here leaves its own to a follow-up: they may be among
		// these, and a task moves once in a transaction. So does one that ends with
		// others: their documents were read to end them, not to let them go.
		_, counted := d.s.Counters[writ.TaskUnmet(id)]
		if d.releasing || d.full() || !counted || !d.s.Has(writ.TaskKey(id)) {
			left = true
			break
		}
		b, ok, err := peek[writ.Task](d.s, writ.TaskKey(id))
		if err != nil {
			return false, err
		}
		d.tx.Unindex(writ.Dependents(t.ID), m.Name)
		if !ok || b.State != writ.TaskBlocked {
			continue
		}
		d.releasing = true
		err = d.met(&b, t)
		d.releasing = false
		if err != nil {
			return false, err
		}
	}
	if left {
		d.tx.Index(writ.IndexTodo, todo(todoUnblock, string(t.ID)), d.s.Now)
	}
	return left, nil
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
		d.tx.Unindex(writ.IndexTodo, todo(todoUnblock, string(t.ID)))
		if !writ.TaskMoves.Terminal(t.State) && t.State != writ.TaskVerifying {
			return Swept{}, nil
		}
		more, err := d.release(t)
		return Swept{Changed: len(d.tx.Changes), More: more}, err
	})
}
