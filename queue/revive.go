package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// TaskReviveArgs ask for what died to be tried once more.
type TaskReviveArgs struct {
	Task writ.TaskID `json:"task_id" doc:"The task that died." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Key  string      `json:"key" doc:"Name of the new task, unique in its run; asking for the same again gives the same task." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Run  writ.RunID  `json:"run_id,omitempty" doc:"Run of the new task; absent: that of the one that died. If that one has ended or is sealed, as a submitted workflow is, name another." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

const opRevive = "queue.Revive"

type reviver struct{ enqueuer }

// reviveCapability enqueues what died once more, as a task of its own: what has
// ended has ended, and those that waited for it know.
func reviveCapability(cfg Config) *writ.Capability {
	v := reviver{enqueuer{cfg}}
	return writ.Define[TaskReviveArgs, TaskView](writ.Capability{
		ID: "task.revive", Summary: "Enqueue a task that died once more, as a task of its own.", Safety: writ.SafetyMutating, Steps: 1,
		Example:  `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","key":"build-again"}`,
		JudgedAs: "task.enqueue",
	}, writ.Verb[TaskReviveArgs]{Reads: v.reads, Describe: v.describe, Plan: v.plan})
}

// again is the request that would make the task that died, under another name. It
// depends on nothing: what it depended on has ended. What is given artifacts names
// their makers, and begins at once nevertheless.
func (a *TaskReviveArgs) again(t writ.Task) *TaskEnqueueArgs {
	out := &TaskEnqueueArgs{
		Run: a.Run, Key: a.Key, Summary: t.Summary, Capability: t.Capability, Args: t.Args, Labels: t.Labels, Concern: t.Concern, Domain: t.Domain, Agents: t.Agents,
		Verify: shownVerification(t.Verify), Handoff: shownHandoff(t.Handoff), Produces: shownProduces(t), WriteScopes: t.WriteScopes,
		Priority: &t.Priority, LeaseSeconds: &t.LeaseSeconds, MaxAttempts: &t.MaxAttempts, BackoffMs: &t.BackoffMs,
	}
	if out.Run == "" {
		out.Run = t.Run
	}
	if len(t.Consumes) > 0 && out.Run == t.Run {
		out.Consumes = shownConsumes(t)
		for _, d := range t.DependsOn {
			out.DependsOn = append(out.DependsOn, TaskDependency{d.Key, d.When, d.OnFailure})
		}
		if t.Join.Any() {
			out.Join = t.Join
		}
	}
	out.Budget = ceilingOf(t.Budget)
	if t.DeadlineS > 0 {
		out.DeadlineS = &t.DeadlineS
	}
	return out
}

// dead is the task that died, for somebody who manages its run.
func (v reviver) dead(c *writ.Call, a *TaskReviveArgs, s writ.Snapshot) (writ.Task, error) {
	t, _, err := managed(opRevive, c, s, a.Task)
	if err == nil && t.State != writ.TaskDead {
		err = writ.Refuse(writ.CodeIllegal, opRevive, "the task has not died", "enqueue another task instead; what is dead shows task.list with state dead").
			With("kind", writ.ObjectTask).With("from", string(t.State))
	}
	if err == nil && a.Key == t.Key {
		err = invalid(opRevive, "/key", "is the name of the task that died; choose another")
	}
	if err == nil && a.Run != "" && a.Run != t.Run && slices.ContainsFunc(t.Consumes, func(c writ.Consume) bool { return !c.Optional }) {
		err = invalid(opRevive, "/run_id", "must be the run of the task, which is given artifacts there; in another one, enqueue it anew")
	}
	return t, err
}

func (v reviver) reads(c *writ.Call, a *TaskReviveArgs, s writ.Snapshot) (writ.ReadSet, error) {
	rs, err := taskReads(opRevive, s, a.Task)
	if err != nil {
		return rs, err
	}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
	if err != nil || !ok {
		return rs, err
	}
	more, err := v.enqueuer.reads(c, a.again(t), s)
	return rs.Join(more), err
}

func (v reviver) describe(c *writ.Call, a *TaskReviveArgs, s writ.Snapshot) (writ.Subject, error) {
	t, err := v.dead(c, a, s)
	if err != nil {
		return writ.Subject{}, err
	}
	return v.enqueuer.describe(c, a.again(t), s)
}

func (v reviver) plan(c *writ.Call, a *TaskReviveArgs, s writ.Snapshot, dec writ.Decision) (writ.Tx, writ.Reply, error) {
	t, err := v.dead(c, a, s)
	if err != nil {
		return writ.Tx{}, writ.Reply{}, err
	}
	tx, reply, err := v.enqueuer.plan(c, a.again(t), s, dec)
	tx.Cause(t.Receipt) // the receipts lead from the new task to what it asks for, in whichever run that died
	return tx, reply, err
}
