package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskCompleteArgs end a task well.
type TaskCompleteArgs struct {
	Task   writ.TaskID    `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Lease  writ.LeaseID   `json:"lease_id" doc:"Lease the claim gave." pattern:"^lse_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Fence  int64          `json:"fence" doc:"Fence the claim gave." minimum:"1"`
	Result writ.RawObject `json:"result,omitempty" doc:"What the task gave: an object of at most 48 KiB."`
	Labels []writ.Label   `json:"labels,omitempty" doc:"Kinds of data the result carries, besides those of the task; unknown labels count as pii.chat.message." maxItems:"9"`
}

func completeCapability() *writ.Capability {
	return writ.Define[TaskCompleteArgs, TaskView](writ.Capability{
		ID: "task.complete", Summary: "End a task with its result.", Safety: writ.SafetyMutating, Metered: true,
	}, writ.Verb[TaskCompleteArgs]{
		Locks: func(_ *writ.Call, a *TaskCompleteArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := leaveReads(opComplete, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			if err == nil && a.Result != nil {
				rs.Docs = append(rs.Docs, resultKey(a.Task))
			}
			return rs, err
		},
		Describe: func(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot) (writ.Subject, error) {
			sub, err := describeTask(opComplete, c, s, a.Task)
			sub.Labels = writ.JoinLabels(sub.Labels, a.Labels)
			return sub, err
		},
		Plan: completePlan,
	})
}

const opComplete = "queue.Complete"

// resultKey is where a task's result is kept: beside the task, since arguments
// and result together may be larger than one document.
func resultKey(id writ.TaskID) writ.Key { return writ.Key("result/" + string(id)) }

// taskResult is that document, of kind "result". It is written once.
type taskResult struct {
	Result writ.RawObject `json:"result"`
	Labels []writ.Label   `json:"labels"`
}

func completePlan(c *writ.Call, a *TaskCompleteArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, err := loadTask(opComplete, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	r, err := loadRun(opComplete, s, t.Run)
	if err != nil {
		return refuse(err)
	}
	digest, err := completionDigest(c, a)
	if err != nil {
		return refuse(err)
	}
	if t.State == writ.TaskDone && t.DoneFence == a.Fence && t.ResultDigest == digest {
		return writ.Tx{}, unchanged(t, version), nil
	}
	end, err := holder(opComplete, c, s, t, version, a.Lease, a.Fence)
	if err != nil {
		return refuse(err)
	}
	if r.State != writ.RunActive {
		return refuse(runEnded(opComplete, r))
	}
	d := begin(opComplete, c, s)
	d.tx.NotAfter(end)
	d.drop(&t, wakeAtOnce)
	t.CancelAt, t.Failure = 0, nil
	t.Labels = writ.JoinLabels(t.Labels, a.Labels)
	t.ResultDigest, t.DoneFence = digest, a.Fence
	if err := d.end(&t, writ.TaskRunning, writ.TaskDone); err != nil {
		return refuse(err)
	}
	if a.Result != nil {
		if err := d.tx.PutDoc(s, resultKey(t.ID), "result", taskResult{Result: a.Result, Labels: t.Labels}); err != nil {
			return refuse(err)
		}
	}
	tx, err := d.done()
	return tx, changed(t), err
}

// completionDigest tells a repetition of a completion from another one. It
// covers the session, so nobody else can repeat it.
func completionDigest(c *writ.Call, a *TaskCompleteArgs) (string, error) {
	in := *a
	in.Labels = writ.JoinLabels(a.Labels)
	if a.Result != nil {
		var err error
		if in.Result, err = canonicalObject(opComplete, "/result", a.Result); err != nil {
			return "", err
		}
	}
	return digestOf(opComplete, struct {
		Session writ.SessionID   `json:"session"`
		Request TaskCompleteArgs `json:"request"`
	}{c.Caller.Session, in})
}
