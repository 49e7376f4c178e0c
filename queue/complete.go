package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskCompleteArgs end a task well.
type TaskCompleteArgs struct {
	TaskHold
	Result    writ.RawObject  `json:"result,omitempty" doc:"What the task gave: an object of at most 48 KiB."`
	Artifacts []TaskMade      `json:"artifacts,omitempty" doc:"Which of the artifacts put for the task are of the result: all it must make, and what else it made." maxItems:"8"`
	Gate      writ.GateStatus `json:"gate,omitempty" doc:"Of a tool that is declared as a gate, and only of such: whether what the tasks gave that it depends on passes." enum:"pass,fail"`
	Labels    []writ.Label    `json:"labels,omitempty" doc:"Kinds of data the result carries, besides those of the task; unknown labels count as pii.chat.message." maxItems:"9"`
}

func completeCapability() *writ.Capability {
	return writ.Define[TaskCompleteArgs, TaskView](writ.Capability{
		ID: "task.complete", Summary: "End a task with its result.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9,"result":{"ok":true}}`,
	}, writ.Verb[TaskCompleteArgs]{
		Locks: func(_ *writ.Call, a *TaskCompleteArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := leaveReads(opComplete, s, a.Task)
			rs.Docs = append(append(rs.Docs, callerAgent(c)...), writ.GivenKey(c.Caller.Session))
			if c.Caller.Agent != "" {
				rs.Counters = append(rs.Counters, writ.HealthFailures(c.Caller.Agent))
			}
			if err != nil {
				return rs, err
			}
			t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
			if ok && len(a.Artifacts) > 0 {
				rs.Ranges = append(rs.Ranges, madeInRun(t.Run))
			}
			if ok && err == nil {
				var of []writ.Key
				if of, err = endReads(c, s, t); err != nil {
					return rs, err
				}
				rs.Docs = append(rs.Docs, of...)
			}
			if a.Result != nil || t.Rework > 0 { // which has a result already, perhaps
				rs.Docs = append(rs.Docs, writ.ResultKey(a.Task))
			}
			return rs.Join(releaseReads(s, a.Task)), err
		},
		Describe: func(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot) (writ.Subject, error) {
			sub, err := describeTask(opComplete, c, s, a.Task)
			sub.Labels = writ.JoinLabels(sub.Labels, a.Labels)
			sub.Claimed = claimed(c)
			if t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task)); err == nil && ok {
				sub.Labels = writ.JoinLabels(sub.Labels, labelsMade(t, a.Artifacts))
			}
			return sub, err
		},
		Plan: completePlan,
	})
}

const opComplete = "queue.Complete"

// taskResult is the document at writ.ResultKey, of kind "result". It is written
// by the completion, again if the result was sent back; MaxArgsBytes and the
// closed list of labels keep it within a document.
type taskResult struct {
	Result writ.RawObject `json:"result"`
	Labels []writ.Label   `json:"labels"`
}

func completePlan(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opComplete, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	result, digest, err := completion(c, a)
	if err != nil {
		return refuse(err)
	}
	if (t.State == writ.TaskDone || t.State == writ.TaskVerifying) && t.DoneFence == a.Fence && t.ResultDigest == digest {
		return writ.Tx{}, unchanged(t, version), nil
	}
	if err := holder(opComplete, c, t, version, a.TaskHold); err != nil {
		return refuse(err)
	}
	d := begin(opComplete, c, s)
	if err := d.inTime(t.ID); err != nil {
		return refuse(err)
	}
	if err := c.Match(opComplete, version); err != nil {
		return refuse(err)
	}
	if r.State != writ.RunActive && r.State != writ.RunPausedApproval { // what has begun may end while the run waits
		return refuse(runEnded(opComplete, r))
	}
	if t.Handoff != nil {
		return refuse(writ.Refuse(writ.CodePredicate, opComplete, "the task is not for its holder to end: it must be handed on", "call task.handoff, with the references the task asks for"))
	}
	agent, _, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return refuse(err)
	}
	if err := d.gave(c, t, agent, a.Gate, a.Fence); err != nil {
		return refuse(err)
	}
	if err := d.finish(&t, r, ended{a.Result != nil, result, a.Artifacts, a.Labels, digest, a.Fence, writ.Gave(c, agent.Keys)}, nil); err != nil {
		return refuse(err)
	}
	tx, err := d.done()
	return tx, d.ended(t), err
}

// completion gives the result as it is stored, and the digest that tells a
// repetition of a completion from another one. The digest covers the session,
// so nobody else can repeat it.
func completion(c *writ.Call, a *TaskCompleteArgs) (result writ.RawObject, digest string, err error) {
	in := *a
	in.Labels = writ.JoinLabels(a.Labels)
	if a.Result != nil {
		if in.Result, err = canonicalObject(opComplete, "/result", a.Result); err != nil {
			return nil, "", err
		}
	}
	digest, err = digestOf(opComplete, struct {
		Session writ.SessionID   `json:"session"`
		Request TaskCompleteArgs `json:"request"`
	}{c.Caller.Session, in})
	return in.Result, digest, err
}

// ended is how the holder ends a task: with a result or without, with artifacts,
// and the request that says so.
type ended struct {
	gave   bool
	result writ.RawObject
	made   []TaskMade
	labels []writ.Label
	digest string
	fence  int64
	by     writ.Acceptance
}

// finish ends a running task well, or leaves it to who judges it. Whatever next
// does comes before those who wait for the task are told.
func (d *draft) finish(t *writ.Task, r writ.Run, e ended, next func() error) error {
	d.usedSteps, d.stored = true, int64(len(e.result))
	if err := d.made(t, r, e.made); err != nil {
		return err
	}
	d.succeeded(t.Lease.Agent)
	agent := t.Lease.Agent
	t.Labels = writ.JoinLabels(t.Labels, e.labels)
	if err := d.tx.Give(d.s, t.Lease.Session, t.Labels); err != nil { // it says that this is what it has
		return err
	}
	d.drop(t, wakeAtOnce)
	t.CancelAt, t.Failure = 0, nil
	t.ResultDigest, t.DoneFence = e.digest, e.fence
	t.State = writ.TaskDone
	if t.Verify != nil {
		t.State = writ.TaskVerifying
		d.tx.Index(writ.IndexVerify, string(t.ID), 0)
	}
	if err := d.owe(t, agent, e); err != nil {
		return err
	}
	if next != nil {
		if err := next(); err != nil {
			return err
		}
	}
	var err error
	if t.State == writ.TaskDone {
		err = d.end(t, writ.TaskRunning, writ.TaskDone)
	} else if err = d.put(t, writ.TaskRunning); err == nil {
		_, err = d.release(*t) // those that look at it
	}
	if err != nil {
		return err
	}
	if _, there, err := peek[taskResult](d.s, writ.ResultKey(t.ID)); err != nil {
		return err
	} else if there && !e.gave { // what was sent back is no result
		d.tx.Delete(writ.ResultKey(t.ID))
	}
	if !e.gave {
		return nil
	}
	return d.tx.PutDoc(d.s, writ.ResultKey(t.ID), "result", taskResult{Result: e.result, Labels: t.Labels})
}
