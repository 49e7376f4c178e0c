package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskView is a task as callers see it. Times are RFC 3339 in UTC.
type TaskView struct {
	ID           writ.TaskID          `json:"task_id" doc:"Id of the task."`
	Run          writ.RunID           `json:"run_id" doc:"Run the task belongs to."`
	Key          string               `json:"key" doc:"Name of the task, unique in its run."`
	Summary      string               `json:"summary,omitempty" doc:"One line for people."`
	Capability   writ.CapabilityID    `json:"capability" doc:"What the task asks an agent to do."`
	Args         writ.RawObject       `json:"args,omitempty" doc:"Arguments for the capability; shown to the holder, to auditors and to those who manage the run."`
	Labels       []writ.Label         `json:"labels" doc:"What kinds of data the task carries."`
	Domain       string               `json:"required_domain" doc:"Domain an agent must have to take the task."`
	Concern      string               `json:"concern,omitempty" doc:"What the work is about, as its enqueuer said."`
	Agents       []writ.AgentID       `json:"required_agents,omitempty" doc:"If present, only these agents may take the task."`
	Assignable   *bool                `json:"assignable,omitempty" doc:"Whether the task could be given to one of its required_agents now: all of them are healthy, and one of them is active and may run it. Worked out when asked, while the task waits."`
	Unassignable []TaskUnassignable   `json:"unassignable,omitempty" doc:"Those that are not healthy. None, and not assignable: none of them may run it as the registry stands."`
	Safety       writ.Safety          `json:"safety" doc:"Strongest safety an agent that may run it declared." enum:"read-only,mutating,destructive"`
	Sinks        []writ.Sink          `json:"sinks,omitempty" doc:"Where the task's data can flow to."`
	WriteScopes  []string             `json:"write_scopes,omitempty" doc:"Resources the task locks while it runs."`
	Priority     int64                `json:"priority" doc:"0 to 9; 9 is taken first."`
	LeaseSeconds int64                `json:"lease_ttl_s" doc:"Seconds a lease lasts without a heartbeat."`
	MaxAttempts  int64                `json:"max_attempts" doc:"How often the task is tried at most."`
	Attempt      int64                `json:"attempt" doc:"Number of the present or last attempt; 0 before the first."`
	BackoffMs    int64                `json:"backoff_ms" doc:"Pause before the second attempt in milliseconds; it doubles from then on."`
	NotBefore    string               `json:"not_before,omitempty" doc:"The task does not start before this time."`
	DeadlineAt   string               `json:"deadline_at,omitempty" doc:"The task fails unless it has given its result by this time."`
	Budget       map[string]TaskMeter `json:"budget,omitempty" doc:"What all attempts together may take, by dimension, beside the budget of the run."`
	State        writ.TaskState       `json:"state" doc:"Where the task stands." enum:"blocked,queued,running,parked,verifying,done,failed,dead,cancelled"`
	Approval     writ.ToolApproval    `json:"approval,omitempty" doc:"Manual: an agent that may run it declared that a person must agree." enum:"auto,manual"`
	WaitsFor     writ.ApprovalID      `json:"waits_for,omitempty" doc:"Approval the task is parked for."`
	CancelAt     string               `json:"cancel_requested_at,omitempty" doc:"When somebody asked the holder to stop."`
	Produces     []TaskProduce        `json:"produces,omitempty" doc:"Artifacts the task is to make."`
	Consumes     []TaskConsume        `json:"consumes,omitempty" doc:"Artifacts it is given."`
	Artifacts    []TaskArtifact       `json:"artifacts,omitempty" doc:"What was put for the task, while it runs; what it was completed with, once it was."`
	Verify       *TaskVerification    `json:"verify,omitempty" doc:"Who must accept its result before it is done."`
	Votes        *writ.Votes          `json:"votes,omitempty" doc:"While it waits for several verdicts: how far they have come. Shown by task.get and task.verify."`
	Passes       []TaskGate           `json:"passes,omitempty" doc:"Gates its result must pass, and what they gave; shown by task.get to auditors, to those who manage the run and to who judges it."`
	Verified     bool                 `json:"verified,omitempty" doc:"Whether its result was accepted."`
	Rework       int64                `json:"rework,omitempty" doc:"How often its result was sent back."`
	DependsOn    []TaskEdge           `json:"depends_on,omitempty" doc:"Tasks that must end before this one begins."`
	Join         writ.Join            `json:"join,omitempty" doc:"How much of that must come about." enum:"all_of,any_of,first_success,manual"`
	Admitted     bool                 `json:"admitted,omitempty" doc:"Join manual: whether who manages the run has said that it may begin."`
	Handoff      *TaskHandoff         `json:"handoff,omitempty" doc:"What must come with it when it is handed on, which is the only way it ends well."`
	HandedTo     writ.TaskID          `json:"handed_to,omitempty" doc:"Task it was handed on to."`
	HandedOver   []HandedOver         `json:"handed_over,omitempty" doc:"What it was handed; shown to the holder, to auditors and to those who manage the run."`
	BlockedOn    []writ.Holder        `json:"blocked_on,omitempty" doc:"What this task waits for: tasks it depends on and that have not ended, running ones whose write scopes it needs, or sessions that claim them."`
	Unblocked    []writ.TaskID        `json:"unblocked,omitempty" doc:"Tasks that waited for this one and became queued by this call; more may follow."`
	RefusedTo    []writ.AgentID       `json:"refused_to,omitempty" doc:"Agents that asked for the task and that policy refused it to, for example because it writes outside their write scope: it is set aside until another agent asks or policy changes. The receipts of the run's denials name the rule. Shown by task.get to auditors and to those who manage the run."`
	Lease        *TaskLease           `json:"lease,omitempty" doc:"Who holds the task."`
	Pct          *int64               `json:"progress_pct,omitempty" doc:"Progress the holder last reported, in percent."`
	Result       writ.RawObject       `json:"result,omitempty" doc:"What the task gave; shown to auditors and to those who manage the run."`
	Failure      *TaskFailure         `json:"failure,omitempty" doc:"Why the last attempt ended without a result."`
	CreatedAt    string               `json:"created_at" doc:"When the task was enqueued."`
	UpdatedAt    string               `json:"updated_at" doc:"When the task last changed."`
	Receipt      writ.ReceiptID       `json:"receipt" doc:"Receipt of the last change."`
	Version      int64                `json:"version" doc:"Version of the task, for If-Match."`
}

// TaskEdge is a task another one depends on.
type TaskEdge struct {
	Key       string                `json:"key" doc:"Its key in the run."`
	Task      writ.TaskID           `json:"task_id" doc:"Its id."`
	When      writ.DependencyEnd    `json:"when,omitempty" doc:"Which end of it this one waits for; absent: done." enum:"done,given,failed"`
	OnFailure writ.DependencyPolicy `json:"on_failure" doc:"What becomes of this task when that one ends without a result." enum:"fail,skip,continue"`
}

func edgesOf(t writ.Task) []TaskEdge {
	var out []TaskEdge
	for _, d := range t.DependsOn {
		out = append(out, TaskEdge{d.Key, d.Task, d.When, d.Missed()})
	}
	return out
}

func shownVerification(v *writ.Verification) *TaskVerification {
	if v == nil {
		return nil
	}
	out := &TaskVerification{Required: true, Agents: v.Agents, Gates: v.Gates, MaxRework: &v.MaxRework}
	if v.Quorum > 1 {
		out.Quorum = &v.Quorum
	}
	return out
}

// TaskLease is a lease as callers see it.
type TaskLease struct {
	ID        writ.LeaseID `json:"id,omitempty" doc:"Id of the lease; shown to its holder only."`
	Agent     writ.AgentID `json:"agent,omitempty" doc:"Agent that holds the task."`
	Fence     int64        `json:"fence" doc:"Number every call of the holder must carry; it grows with every claim."`
	ExpiresAt string       `json:"expires_at" doc:"End of the lease unless a heartbeat extends it."`
	MaxUntil  string       `json:"max_until" doc:"No heartbeat extends the lease past this time."`
	Every     int64        `json:"heartbeat_every_s,omitempty" doc:"Seconds between heartbeats that keep the lease safe."`
}

// timeOf renders milliseconds; "" for none.
func timeOf(ms int64) string {
	if ms == 0 {
		return ""
	}
	return writ.FormatTime(ms)
}

// viewOf shows a task without its arguments, its result and its lease.
// version is 0 when the commit will give it.
func viewOf(t writ.Task, version int64) TaskView {
	return TaskView{
		ID: t.ID, Run: t.Run, Key: t.Key, Summary: t.Summary, Capability: t.Capability, Labels: t.Labels,
		Domain: t.Domain, Concern: t.Concern, Agents: t.Agents, Safety: t.Safety, Sinks: t.Sinks, WriteScopes: t.WriteScopes,
		Priority: t.Priority, LeaseSeconds: t.LeaseSeconds, MaxAttempts: t.MaxAttempts, Attempt: t.Attempt,
		BackoffMs: t.BackoffMs, NotBefore: timeOf(t.NotBefore), DeadlineAt: timeOf(t.DeadlineAt), Budget: shownCeiling(t.Budget), State: t.State, CancelAt: timeOf(t.CancelAt),
		Approval: t.Approval, WaitsFor: t.WaitsFor, DependsOn: edgesOf(t), Handoff: shownHandoff(t.Handoff), HandedTo: t.HandedTo, Join: t.Join, Admitted: t.Admitted, Verify: shownVerification(t.Verify), Verified: t.Verified, Rework: t.Rework,
		Failure: (*TaskFailure)(t.Failure), CreatedAt: timeOf(t.CreatedAt), UpdatedAt: timeOf(t.UpdatedAt), Receipt: t.Receipt,
		Version:  version,
		Produces: shownProduces(t), Consumes: shownConsumes(t), Artifacts: shownArtifacts(t),
	}
}

// leaseOf shows the lease of a running task.
func leaseOf(t writ.Task, version, end int64) *TaskLease {
	if t.Lease == nil {
		return nil
	}
	return &TaskLease{
		Agent: t.Lease.Agent, Fence: t.FenceOf(version), ExpiresAt: timeOf(end), MaxUntil: timeOf(t.Lease.MaxUntil),
		Every: max(1, t.LeaseSeconds/3),
	}
}

// changed replies with a task the transaction writes.
func changed(t writ.Task) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: viewOf(t, 0), Versioned: []string{"version"}, ETag: -1}
}

// ended replies with a task whose end the transaction writes, and whom it lets go.
func (d *draft) ended(t writ.Task) writ.Reply {
	r := changed(t)
	v := viewOf(t, 0)
	v.Unblocked = d.released
	r.Body = v
	return r
}

// unchanged replies with a task as it is stored.
func unchanged(t writ.Task, version int64) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: viewOf(t, version), ETag: version}
}
