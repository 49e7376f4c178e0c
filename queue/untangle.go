package queue

import "github.com/writ-gateway/writ"

// Untangled says what was found out about a task whose holder waits.
type Untangled struct {
	Waits  bool        `json:"waits" doc:"Whether it still waits, so that it is looked at again."`
	Circle []string    `json:"circle,omitempty" doc:"Tasks and runs each of which waits for the next, and the last for the first."`
	Victim writ.TaskID `json:"victim,omitempty" doc:"Task of them that was taken back from its holder and is tried again."`
}

// deadlocked is why an attempt ended that waited in a circle.
var deadlocked = writ.Failure{Class: writ.FailureDependency, Code: "deadlock", Retryable: true}

const opUntangle = "queue.Untangle"

// untangleCapability looks whether what the holder of a task waits for can ever end,
// and if not takes one task of the circle back. Approvals are never in a circle: they
// end by themselves.
func untangleCapability() *writ.Capability {
	description := mandate("task.untangle", "Take a task back that waits for what waits for it.")
	description.Hops = 2*maxDepth + 6 // two at each, the task itself first, and the victim's own
	return writ.Define[TaskSweepArgs, Untangled](description, writ.Verb[TaskSweepArgs]{
		Locks: func(_ *writ.Call, a *TaskSweepArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: untangleReads,
		Describe: func(c *writ.Call, a *TaskSweepArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(opUntangle, c, s, a.Task)
		},
		Plan: untanglePlan,
	})
}

func untangleReads(_ *writ.Call, a *TaskSweepArgs, s writ.Snapshot) (writ.ReadSet, error) {
	rs, err := taskReads(opUntangle, s, a.Task)
	if err != nil {
		return rs, err
	}
	w, more, err := waitsOf(s, a.Task)
	if err != nil {
		return rs, err
	}
	rs = rs.Join(more)
	if v, _, ok := w.victim(); ok {
		more, err = leaveReads(opUntangle, s, v.ID)
		rs = rs.Join(more)
	}
	return rs, err
}

func untanglePlan(c *writ.Call, a *TaskSweepArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, _, err := loadTask(opUntangle, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	w, _, err := waitsOf(s, a.Task)
	if err != nil {
		return refuse(err)
	}
	d, out := begin(opUntangle, c, s), Untangled{}
	out.Waits = t.State == writ.TaskRunning && len(t.Lease.Awaits) > 0
	if v, circle, ok := w.victim(); ok && out.Waits {
		out.Circle, out.Victim = circle, v.ID
		out.Waits = v.ID != t.ID
		d.rest = deadlockEvery // so that those it kept come first
		if err := d.lapse(&v, deadlocked, wakeAtOnce); err != nil {
			return refuse(err)
		}
	}
	if out.Waits {
		d.tx.Index(writ.IndexTodo, todo(todoUntangle, string(t.ID)), s.Now+deadlockEvery)
	} else {
		d.tx.Unindex(writ.IndexTodo, todo(todoUntangle, string(t.ID)))
	}
	d.tx.Mandate = true
	tx, err := d.done()
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, err
}
