package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskFailArgs end an attempt without a result.
type TaskFailArgs struct {
	TaskHold
	Failure TaskFailure `json:"failure" doc:"Why the attempt failed."`
}

// TaskFailure says why an attempt failed.
type TaskFailure struct {
	Class     writ.FailureClass `json:"class" doc:"What kind of trouble it was." enum:"deterministic,freshness,dependency,cleanup,policy,external"`
	Code      string            `json:"code" doc:"Short name of the trouble, chosen by the agent." pattern:"^[a-z][a-z0-9_.-]{0,63}$" maxLength:"64"`
	Retryable bool              `json:"retryable" doc:"Whether another attempt may help."`
}

func failCapability() *writ.Capability {
	return writ.Define[TaskFailArgs, TaskView](writ.Capability{
		ID: "task.fail", Summary: "End an attempt at a task without a result.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9,"failure":{"class":"external","code":"timeout","retryable":true}}`,
	}, writ.Verb[TaskFailArgs]{
		Locks: func(_ *writ.Call, a *TaskFailArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskFailArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return holderReads(opFail, c, s, a.Task)
		},
		Describe: func(c *writ.Call, a *TaskFailArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(opFail, c, s, a.Task)
		},
		Plan: func(c *writ.Call, a *TaskFailArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return giveUp(opFail, c, s, a.TaskHold, true, func(d *draft, t *writ.Task, r writ.Run) error {
				if err := d.inTime(t.ID); err != nil {
					return err
				}
				d.failed(c.Caller.Agent, a.Failure.Class)
				t.Failure = &writ.Failure{Class: a.Failure.Class, Code: a.Failure.Code, Retryable: a.Failure.Retryable}
				if !a.Failure.Retryable {
					return d.end(t, writ.TaskRunning, writ.TaskFailed)
				}
				return d.retry(t, r)
			})
		},
	})
}

const (
	opFail    = "queue.Fail"
	opRelease = "queue.Release"
)

// TaskReleaseArgs give a task back.
type TaskReleaseArgs struct {
	TaskHold
}

func releaseCapability() *writ.Capability {
	return writ.Define[TaskReleaseArgs, TaskView](writ.Capability{
		ID: "task.release", Summary: "Give a task back to the queue; the attempt does not count.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9}`,
	}, writ.Verb[TaskReleaseArgs]{
		Locks: func(_ *writ.Call, a *TaskReleaseArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskReleaseArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return holderReads(opRelease, c, s, a.Task)
		},
		Describe: func(c *writ.Call, a *TaskReleaseArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(opRelease, c, s, a.Task)
		},
		Plan: func(c *writ.Call, a *TaskReleaseArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			return giveUp(opRelease, c, s, a.TaskHold, false, func(d *draft, t *writ.Task, r writ.Run) error {
				t.Attempt--
				if stopping(*t, r) {
					return d.end(t, writ.TaskRunning, writ.TaskCancelled)
				}
				if !t.Budget.Again() {
					t.Failure = &writ.Failure{Class: writ.FailurePolicy, Code: "budget"}
					return d.end(t, writ.TaskRunning, writ.TaskDead)
				}
				d.enter(t, 0)
				return d.put(t, writ.TaskRunning)
			})
		},
	})
}

func holderReads(op string, c *writ.Call, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
	rs, err := leaveReads(op, s, id)
	rs.Docs = append(rs.Docs, callerAgent(c)...)
	return rs, err
}

// giveUp is what the holder's verbs other than complete share: check the
// holder, drop the lease, let next choose the state. paid says that the claim
// has paid for this call.
func giveUp(op string, c *writ.Call, s writ.Snapshot, held TaskHold, paid bool,
	next func(*draft, *writ.Task, writ.Run) error,
) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(op, s, held.Task)
	if err != nil {
		return refuse(err)
	}
	if err := holder(op, c, t, version, held); err != nil {
		return refuse(err)
	}
	if err := c.Match(op, version); err != nil {
		return refuse(err)
	}
	d := begin(op, c, s)
	d.usedSteps, d.uncounted = paid, !paid
	d.drop(&t, wakeAtOnce)
	if err := next(d, &t, r); err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	return tx, changed(t), err
}
