package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskCancelArgs stop a task.
type TaskCancelArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func cancelCapability() *writ.Capability {
	return writ.Define[TaskCancelArgs, TaskView](writ.Capability{
		ID: "task.cancel", Summary: "Cancel a task nobody works on, or ask the holder of a running one to stop.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}`,
		Steps:   1,
	}, writ.Verb[TaskCancelArgs]{
		Locks: func(_ *writ.Call, a *TaskCancelArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskCancelArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := holderReads(opCancel, c, s, a.Task)
			rs.Ranges = append(rs.Ranges, queueReads(a.Task)...)
			return rs, err
		},
		Describe: func(c *writ.Call, a *TaskCancelArgs, s writ.Snapshot) (writ.Subject, error) {
			if _, _, err := managed(opCancel, c, s, a.Task); err != nil {
				return writ.Subject{}, err
			}
			return describeTask(opCancel, c, s, a.Task)
		},
		Plan: cancelPlan,
	})
}

const opCancel = "queue.Cancel"

// managed is a task of a run the caller may manage.
func managed(op string, c *writ.Call, s writ.Snapshot, id writ.TaskID) (writ.Task, int64, error) {
	t, version, err := loadTask(op, s, id)
	if err != nil {
		return t, 0, err
	}
	r, err := loadRun(op, s, t.Run)
	if err == nil && !owns(c.Caller, r) {
		err = notFound(op, "task")
	}
	return t, version, err
}

func cancelPlan(c *writ.Call, a *TaskCancelArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, err := managed(opCancel, c, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	if err := c.Match(opCancel, version); err != nil {
		return refuse(err)
	}
	d := begin(opCancel, c, s)
	d.tx.Mandate = true // stopping work must go on in a full store
	switch {
	case writ.TaskMoves.Terminal(t.State):
		return refuse(writ.IllegalMove(opCancel, writ.ObjectTask, string(t.State), string(writ.TaskCancelled)))
	case t.CancelAt != 0 && t.State == writ.TaskRunning:
		return writ.Tx{}, unchanged(t, version), nil
	}
	if err := d.cancel(&t, version); err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	return tx, changed(t), err
}

// cancel ends a task nobody works on, and asks whoever works on it to stop. It
// wants leaveReads and queueReads.
func (d *draft) cancel(t *writ.Task, version int64) error {
	from := t.State
	if from == writ.TaskRunning {
		t.CancelAt = d.s.Now
		t.Lease.Fence = t.FenceOf(version) // the version changes, the holder's fence does not
		return d.put(t, from)
	}
	d.quit(t)
	return d.end(t, from, writ.TaskCancelled)
}
