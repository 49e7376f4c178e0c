package queue

import (
	"github.com/writ-gateway/writ"
)

// Swept says what a mandate did, for the sweeper.
type Swept struct {
	Changed int  `json:"changed" doc:"How many tasks it moved."`
	More    bool `json:"more,omitempty" doc:"Whether work of the same kind is left."`
}

// TaskSweepArgs name the task a mandate is about.
type TaskSweepArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// mandate completes the description of what only the sweeper and the
// dispatcher call.
func mandate(id writ.CapabilityID, summary string) writ.Capability {
	return writ.Capability{
		ID: id, Summary: summary, Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
	}
}

// taskMandate is a mandate about one task. reads adds to the task and its run.
func taskMandate(id writ.CapabilityID, summary, op string,
	reads func(string, writ.Snapshot, writ.TaskID) (writ.ReadSet, error),
	plan func(*draft, writ.Task) (Swept, error),
) *writ.Capability {
	return writ.Define[TaskSweepArgs, Swept](mandate(id, summary), writ.Verb[TaskSweepArgs]{
		Locks: func(_ *writ.Call, a *TaskSweepArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(_ *writ.Call, a *TaskSweepArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return reads(op, s, a.Task)
		},
		Describe: func(c *writ.Call, a *TaskSweepArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(op, c, s, a.Task)
		},
		Plan: func(c *writ.Call, a *TaskSweepArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			t, _, err := loadTask(op, s, a.Task)
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			d := begin(op, c, s)
			return d.swept(plan(d, t))
		},
	})
}

// firstRun is the run of the first of some tasks that a sweep is to move. A sweep moves
// tasks of one run in a commit, so that each receipt is of one run, and stands among
// what is shown of it.
func firstRun(op string, s writ.Snapshot, tasks []writ.Member, moves func(writ.Task) bool) (writ.RunID, error) {
	for _, m := range tasks {
		t, _, err := loadTask(op, s, writ.TaskID(m.Name))
		if err != nil {
			return "", err
		}
		if moves(t) {
			return t.Run, nil
		}
	}
	return "", nil
}

// describeRun is Describe for a sweep through tasks of one run; of one that moves nothing there is none.
func describeRun(op string, s writ.Snapshot, run writ.RunID, err error) (writ.Subject, error) {
	if run == "" || err != nil {
		return writ.Subject{}, err
	}
	r, err := loadRun(op, s, run)
	return writ.Subject{Run: &writ.RunFacts{ID: r.ID, State: r.State}}, err
}

// swept finishes a mandate.
func (d *draft) swept(out Swept, err error) (writ.Tx, writ.Reply, error) {
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	d.tx.Mandate = true
	tx, err := d.done()
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, err
}

// Why an attempt ended that no holder ended.
var (
	leaseExpired = writ.Failure{Class: writ.FailureExternal, Code: "lease_expired", Retryable: true}
	sessionEnded = writ.Failure{Class: writ.FailureExternal, Code: "session_ended", Retryable: true}
)

// expireCapability ends a lease that was not renewed.
func expireCapability() *writ.Capability {
	const op = "queue.Expire"
	return taskMandate("task.expire", "End a lease that ran out.", op, leaveReads, func(d *draft, t writ.Task) (Swept, error) {
		if t.State != writ.TaskRunning {
			d.tx.Unindex(writ.IndexLeases, string(t.ID))
			return Swept{}, nil
		}
		if end := d.seen(leaseEnd(t.ID)); d.s.Now <= end {
			d.exactly(leaseEnd(t.ID))
			d.tx.Index(writ.IndexLeases, string(t.ID), end)
			return Swept{}, nil
		}
		d.failed(t.Lease.Agent, leaseExpired.Class)
		return Swept{Changed: 1}, d.lapse(&t, leaseExpired, wakeAtOnce)
	})
}

// lapse ends the attempt at a running task whose holder is gone.
func (d *draft) lapse(t *writ.Task, why writ.Failure, wake int) error {
	r, err := loadRun(d.op, d.s, t.Run)
	if err != nil {
		return err
	}
	d.drop(t, wake)
	t.Failure, t.WaitsFor, t.ParkedAt = &why, "", 0
	return d.retry(t, r)
}

// readyCapability moves a task whose time has come to its lanes.
func readyCapability() *writ.Capability {
	const op = "queue.Ready"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := placedReads(op, s, id)
		rs.Counters = append(rs.Counters, readiedUpTo(id))
		return rs, err
	}
	return taskMandate("task.ready", "Queue a task whose time has come.", op, reads, func(d *draft, t writ.Task) (Swept, error) {
		switch served := readiedUpTo(t.ID); {
		case t.State != writ.TaskQueued || t.NotBefore == d.seen(served):
		case t.NotBefore > d.s.Now:
			d.tx.Index(writ.IndexReady, string(t.ID), t.NotBefore)
			return Swept{}, nil
		default:
			// The document does not change, so this counter makes one of two
			// sweepers push.
			d.exactly(served)
			d.set(served, t.NotBefore)
			d.offer(t)
			d.tx.Unindex(writ.IndexReady, string(t.ID))
			return Swept{Changed: 1}, nil
		}
		d.tx.Unindex(writ.IndexReady, string(t.ID))
		return Swept{}, nil
	})
}

// wakeBatch is how many waiting tasks one follow-up wakes: each is five operations, and
// three more if no other is of its run and lane.
const wakeBatch = 48

// wakeCapability wakes tasks that waited for a task, past what its release
// woke itself.
func wakeCapability() *writ.Capability {
	const op = "queue.Wake"
	reads := func(op string, s writ.Snapshot, id writ.TaskID) (writ.ReadSet, error) {
		rs, err := taskReads(op, s, id)
		rs.Ranges = append(rs.Ranges, waiters(id, wakeBatch))
		rs.Counters = append(rs.Counters, wakeReads(s.Ranges[waiters(id, wakeBatch)].Members)...)
		return rs, err
	}
	return taskMandate("task.wake", "Wake tasks that waited for a scope.", op, reads, func(d *draft, t writ.Task) (Swept, error) {
		members := d.s.Ranges[waiters(t.ID, wakeBatch)].Members
		for _, m := range members {
			d.wakeOne(writ.Holder(t.ID), m.Name)
		}
		more := len(members) == wakeBatch
		if !more {
			d.tx.Unindex(writ.IndexTodo, todo(todoWake, string(t.ID)))
		}
		return Swept{Changed: len(members), More: more}, nil
	})
}
