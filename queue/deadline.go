package queue

import (
	"github.com/writ-gateway/writ"
)

// maxDeadlineSeconds is how far ahead the deadline of a task may lie.
const maxDeadlineSeconds = 366 * 24 * 3600

// todoDeadline is the follow-up of a task at its deadline.
const todoDeadline = "deadline"

// deadlinePassed is why a task failed that did not give its result in time.
var deadlinePassed = writ.Failure{Class: writ.FailureFreshness, Code: "deadline"}

// races says whether time runs against a task in a state: until it has given a
// result. How long a verdict takes is not its affair.
func races(s writ.TaskState) bool {
	switch s {
	case writ.TaskBlocked, writ.TaskQueued, writ.TaskRunning, writ.TaskParked:
		return true
	}
	return false
}

// alarm keeps a task in the list of deadlines exactly as long as time runs
// against it.
func (d *draft) alarm(t *writ.Task, from writ.TaskState) {
	switch {
	case t.DeadlineAt == 0 || races(from) == races(t.State):
	case races(t.State):
		d.tx.Index(writ.IndexTodo, todo(todoDeadline, string(t.ID)), t.DeadlineAt)
	default:
		d.tx.Unindex(writ.IndexTodo, todo(todoDeadline, string(t.ID)))
	}
}

// before is at, or the deadline of the task if that comes first.
func before(t writ.Task, at int64) int64 {
	if t.DeadlineAt == 0 {
		return at
	}
	return min(at, t.DeadlineAt)
}

// overdueCapability fails a task whose deadline has passed.
func overdueCapability() *writ.Capability {
	const op = "queue.Overdue"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := leaveReads(op, s, id)
		rs.Ranges = append(rs.Ranges, queueReads(id)...)
		return rs, err
	}
	return taskMandate("task.overdue", "Fail a task whose deadline has passed.", op, reads, func(d *draft, t writ.Task) (Swept, error) {
		from := t.State
		switch {
		case t.DeadlineAt == 0 || !races(from):
			d.tx.Unindex(writ.IndexTodo, todo(todoDeadline, string(t.ID)))
			return Swept{}, nil
		case d.s.Now < t.DeadlineAt:
			d.tx.Index(writ.IndexTodo, todo(todoDeadline, string(t.ID)), t.DeadlineAt)
			return Swept{}, nil
		}
		d.quit(&t)
		t.CancelAt, t.Failure = 0, &deadlinePassed
		return Swept{Changed: 1}, d.end(&t, from, writ.TaskFailed)
	})
}

// quit takes a task that ends off whatever it lies in, waits for or holds. It
// wants leaveReads and queueReads.
func (d *draft) quit(t *writ.Task) {
	switch t.State {
	case writ.TaskBlocked:
		d.unblock(t)
	case writ.TaskQueued:
		d.leave(t)
	case writ.TaskRunning:
		d.drop(t, wakeAtOnce)
	case writ.TaskParked:
		d.giveUpParked(t)
	case writ.TaskVerifying:
		d.tx.Unindex(writ.IndexVerify, string(t.ID))
	}
}
