package client

import (
	"context"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
)

// TaskOptions describe a task to enqueue. Nil pointers take the gateway's
// defaults.
type TaskOptions struct {
	Run          writ.RunID        `json:"run_id"`
	Key          string            `json:"key"` // unique in the run; the same again gives the same task
	Summary      string            `json:"summary,omitempty"`
	Capability   writ.CapabilityID `json:"capability"`
	Args         any               `json:"args,omitempty"` // rendered as a JSON object
	Labels       []writ.Label      `json:"labels,omitempty"`
	Domain       string            `json:"required_domain"`
	Concern      string            `json:"concern,omitempty"`
	Agents       []writ.AgentID    `json:"required_agents,omitempty"`
	DependsOn    []Dependency      `json:"depends_on,omitempty"`
	Join         writ.Join         `json:"join,omitempty"` // how much of DependsOn must come about; all of it
	Produces     []Produce         `json:"produces,omitempty"`
	Consumes     []Consume         `json:"consumes,omitempty"`
	Verify       *Verification     `json:"verify,omitempty"`
	Handoff      *HandoffRules     `json:"handoff,omitempty"` // it ends well only by HandOn, with these
	WriteScopes  []string          `json:"write_scopes,omitempty"`
	Priority     *int64            `json:"priority,omitempty"`
	LeaseSeconds *int64            `json:"lease_ttl_s,omitempty"`
	MaxAttempts  *int64            `json:"max_attempts,omitempty"`
	BackoffMs    *int64            `json:"backoff_ms,omitempty"`
	DeadlineS    *int64            `json:"deadline_s,omitempty"` // seconds from the enqueue until it fails
	NotBefore    string            `json:"not_before,omitempty"` // RFC 3339
	Budget       map[string]int64  `json:"budget,omitempty"`     // what all attempts together may take: llm_tokens, cost_microusd, sandbox_cpu_ms
}

// Dependency is a task of the same run that must end first.
type Dependency struct {
	Key       string                `json:"key"`
	When      writ.DependencyEnd    `json:"when,omitempty"`       // which end of it: done, the default, or failed
	OnFailure writ.DependencyPolicy `json:"on_failure,omitempty"` // what then: fail, the default, skip or continue
}

// HandoffRules say what must come with a task when it is handed on.
type HandoffRules struct {
	Refs []writ.RefRule `json:"refs,omitempty"`
}

// Verification says who must accept the result of a task before it is done.
type Verification struct {
	Required  bool           `json:"required"`
	Agents    []writ.AgentID `json:"agents,omitempty"`
	Gates     []string       `json:"gates,omitempty"`
	MaxRework *int64         `json:"max_rework,omitempty"`
	Quorum    *int64         `json:"quorum,omitempty"` // how many must accept it
}

// Task is a task as the gateway shows it.
type Task struct {
	ID          writ.TaskID       `json:"task_id"`
	Run         writ.RunID        `json:"run_id"`
	Key         string            `json:"key"`
	Summary     string            `json:"summary,omitempty"`
	Capability  writ.CapabilityID `json:"capability"`
	Args        writ.RawObject    `json:"args,omitempty"`
	Labels      []writ.Label      `json:"labels"`
	Domain      string            `json:"required_domain"`
	WriteScopes []string          `json:"write_scopes,omitempty"`
	Priority    int64             `json:"priority"`
	Attempt     int64             `json:"attempt"`
	DeadlineAt  string            `json:"deadline_at,omitempty"` // RFC 3339
	Budget      map[string]Meter  `json:"budget,omitempty"`      // of its own
	State       writ.TaskState    `json:"state"`
	WaitsFor    writ.ApprovalID   `json:"waits_for,omitempty"` // parked until people agree
	DependsOn   []Dependency      `json:"depends_on,omitempty"`
	Join        writ.Join         `json:"join,omitempty"`
	Admitted    bool              `json:"admitted,omitempty"` // join manual: it may begin
	Verify      *Verification     `json:"verify,omitempty"`
	Votes       *writ.Votes       `json:"votes,omitempty"` // while it waits for several verdicts: how far they have come
	Artifacts   []Artifact        `json:"artifacts,omitempty"`
	Passes      []Passage         `json:"passes,omitempty"` // gates its result must pass
	Verified    bool              `json:"verified,omitempty"`
	Rework      int64             `json:"rework,omitempty"`
	Unblocked   []writ.TaskID     `json:"unblocked,omitempty"` // by this call
	HandedTo    writ.TaskID       `json:"handed_to,omitempty"`
	HandedOver  []HandedOver      `json:"handed_over,omitempty"`
	Lease       *Lease            `json:"lease,omitempty"`
	Result      writ.RawObject    `json:"result,omitempty"`
	Failure     *writ.Failure     `json:"failure,omitempty"`
	Receipt     writ.ReceiptID    `json:"receipt"`
	Version     int64             `json:"version"`
}

// Passage is what a gate gave of the result of a task; Status is open where it has not
// looked at it yet.
type Passage struct {
	Gate    writ.CapabilityID `json:"gate"`
	Status  string            `json:"status"`
	Task    writ.TaskID       `json:"task_id,omitempty"`
	Receipt writ.ReceiptID    `json:"receipt_id,omitempty"`
}

// Lease is the right to act on a task.
type Lease struct {
	ID        writ.LeaseID `json:"id,omitempty"`
	Agent     writ.AgentID `json:"agent,omitempty"`
	Fence     int64        `json:"fence"`
	ExpiresAt string       `json:"expires_at"` // RFC 3339; heartbeats extend it
	MaxUntil  string       `json:"max_until"`  // RFC 3339; none extends it past this
	Every     int64        `json:"heartbeat_every_s,omitempty"`
}

// Claimed is a task with the lease on it. Every further call about the task
// shows both.
type Claimed struct {
	Task   Task       `json:"task"`
	Inputs []Artifact `json:"inputs,omitempty"` // artifacts it is given; see ReadArtifact
	Lease  Lease      `json:"lease"`
}

// hold is what proves a claim.
type hold struct {
	Task  writ.TaskID  `json:"task_id"`
	Lease writ.LeaseID `json:"lease_id"`
	Fence int64        `json:"fence"`
}

func (t *Claimed) hold() hold { return hold{t.Task.ID, t.Lease.ID, t.Lease.Fence} }

// Enqueue adds a task to a run.
func (c *Client) Enqueue(ctx context.Context, o TaskOptions, opts ...Option) (t Task, err error) {
	_, err = c.Invoke(ctx, "task.enqueue", o, &t, opts...)
	return t, err
}

// ClaimOptions narrow what a claim takes.
type ClaimOptions struct {
	Task         writ.TaskID         `json:"task_id,omitempty"` // this one, or nothing
	Capabilities []writ.CapabilityID `json:"capabilities,omitempty"`
	Domains      []string            `json:"domains,omitempty"`
	Wait         time.Duration       `json:"-"` // for work, at most 30 s; whole seconds
}

// Claim takes the next task that fits, waiting for one if asked to. It returns
// nil when there was none.
func (c *Client) Claim(ctx context.Context, o ClaimOptions, opts ...Option) (*Claimed, error) {
	args := struct {
		ClaimOptions
		WaitSeconds int64 `json:"wait_s,omitempty"`
	}{o, int64(o.Wait / time.Second)}
	var out Claimed
	meta, err := c.Invoke(ctx, "task.claim", args, &out, append([]Option{WithWait(o.Wait)}, opts...)...)
	if err != nil || meta.Outcome == writ.OutcomeEmpty {
		return nil, err
	}
	return &out, nil
}

// Progress reports how far the work is. Seq must grow from report to report.
type Progress struct {
	Pct int64 `json:"pct"`
	Seq int64 `json:"seq"`
}

// Beat tells the holder of a task what to do next.
type Beat struct {
	Control   string `json:"control"`    // "continue", "wait", "pause", "checkpoint", or "cancel": stop and Release
	ExpiresAt string `json:"expires_at"` // RFC 3339
	Every     int64  `json:"heartbeat_every_s"`
}

// Cancelled says whether the holder should stop and release the task.
func (b Beat) Cancelled() bool { return b.Control == "cancel" }

// Heartbeat keeps the lease on a claimed task; progress may be nil.
func (c *Client) Heartbeat(ctx context.Context, t *Claimed, p *Progress, opts ...Option) (b Beat, err error) {
	_, err = c.Invoke(ctx, "task.heartbeat", struct {
		hold
		Progress *Progress `json:"progress,omitempty"`
	}{t.hold(), p}, &b, opts...)
	return b, err
}

// Await is Heartbeat for a holder that cannot go on before tasks or runs of the same tree
// of runs have ended, for example what it delegated. If they can never end as long as it
// holds the task, one of the tasks in that circle is taken back: then a later call about
// it is refused with writ.CodeLeaseLost. Call it again as long as it is so.
func (c *Client) Await(ctx context.Context, t *Claimed, ids []string, opts ...Option) (b Beat, err error) {
	_, err = c.Invoke(ctx, "task.heartbeat", struct {
		hold
		Awaits []string `json:"awaits,omitempty"`
	}{t.hold(), ids}, &b, opts...)
	return b, err
}

// Complete ends a claimed task with a result, rendered as a JSON object; nil
// for none. labels are kinds of data the result carries besides the task's.
func (c *Client) Complete(ctx context.Context, t *Claimed, result any, labels []writ.Label, opts ...Option) (out Task, err error) {
	return c.CompleteWith(ctx, t, result, labels, nil, opts...)
}

// CompleteWith is Complete with artifacts that PutArtifact has stored.
func (c *Client) CompleteWith(ctx context.Context, t *Claimed, result any, labels []writ.Label, made []Artifact, opts ...Option) (out Task, err error) {
	_, err = c.Invoke(ctx, "task.complete", struct {
		hold
		Result    any             `json:"result,omitempty"`
		Artifacts []madeArtifact  `json:"artifacts,omitempty"`
		Labels    []writ.Label    `json:"labels,omitempty"`
		Gate      writ.GateStatus `json:"gate,omitempty"`
	}{t.hold(), result, named(made), labels, optionsOf(opts).gate}, &out, opts...)
	return out, err
}

// madeArtifact is an artifact of the result of a task, as calls name it.
type madeArtifact struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

func named(made []Artifact) (out []madeArtifact) {
	for _, a := range made {
		out = append(out, madeArtifact{a.Name, a.Digest})
	}
	return out
}

// Handoff says what follows a task: the key of one that waits for it, or a new
// one, and what whoever goes on must know.
type Handoff struct {
	To        HandoffTarget `json:"to"`
	Refs      []HandoffRef  `json:"refs,omitempty"`
	Note      string        `json:"note,omitempty"`
	Result    any           `json:"result,omitempty"` // rendered as a JSON object
	Artifacts []Artifact    `json:"-"`                // of the result, as PutArtifact gave them
	Labels    []writ.Label  `json:"labels,omitempty"`
}

// HandoffTarget is one of the two.
type HandoffTarget struct {
	Key  string       `json:"key,omitempty"`
	Task *HandoffTask `json:"task,omitempty"`
}

// HandoffTask is a new task within what the one at hand may. What it does not say
// it takes from that one.
type HandoffTask struct {
	Key         string            `json:"key"`
	Summary     string            `json:"summary,omitempty"`
	Capability  writ.CapabilityID `json:"capability"`
	Args        any               `json:"args,omitempty"` // rendered as a JSON object
	Domain      string            `json:"required_domain,omitempty"`
	Agents      []writ.AgentID    `json:"required_agents,omitempty"`
	WriteScopes []string          `json:"write_scopes,omitempty"`
	Priority    *int64            `json:"priority,omitempty"`
	MaxAttempts *int64            `json:"max_attempts,omitempty"`
	DeadlineS   *int64            `json:"deadline_s,omitempty"`
}

// HandoffRef points at something whoever goes on must know.
type HandoffRef struct {
	Name string       `json:"name"`
	Kind writ.RefKind `json:"kind"`
	Ref  string       `json:"ref"`
}

// HandedOver is what the holder of a task before said to whoever goes on.
type HandedOver struct {
	From  writ.TaskID  `json:"from"`
	Agent writ.AgentID `json:"agent"`
	Refs  []HandoffRef `json:"refs,omitempty"`
	Note  string       `json:"note,omitempty"`
}

// HandOn ends a claimed task with a result and lets what follows begin.
func (c *Client) HandOn(ctx context.Context, t *Claimed, h Handoff, opts ...Option) (done, next Task, err error) {
	var out struct {
		Task Task `json:"task"`
		Next Task `json:"next"`
	}
	_, err = c.Invoke(ctx, "task.handoff", struct {
		hold
		Handoff
		Artifacts []madeArtifact `json:"artifacts,omitempty"`
	}{t.hold(), h, named(h.Artifacts)}, &out, opts...)
	return out.Task, out.Next, err
}

// Delegation gives work to the agent for it: in a run, or out of a claimed task.
type Delegation struct {
	Run   writ.RunID   // for those who manage it
	Held  *Claimed     // instead of Run, for the holder of a task
	Input string       // what the agent is found by
	To    writ.AgentID // the agent, instead of Input
	Task  HandoffTask  // without Domain and Agents, which are the agent's
}

// Delegate enqueues a task for the agent for it, and says which one that is.
func (c *Client) Delegate(ctx context.Context, d Delegation, opts ...Option) (t Task, to writ.AgentID, err error) {
	args := struct {
		Run   writ.RunID   `json:"run_id,omitempty"`
		Task  writ.TaskID  `json:"task_id,omitempty"`
		Lease writ.LeaseID `json:"lease_id,omitempty"`
		Fence int64        `json:"fence,omitempty"`
		Input string       `json:"input,omitempty"`
		To    writ.AgentID `json:"to,omitempty"`
		Work  HandoffTask  `json:"task"`
	}{Run: d.Run, Input: d.Input, To: d.To, Work: d.Task}
	if d.Held != nil {
		args.Task, args.Lease, args.Fence = d.Held.Task.ID, d.Held.Lease.ID, d.Held.Lease.Fence
	}
	var out struct {
		Decision struct {
			Agent writ.AgentID `json:"agent_id"`
		} `json:"decision"`
		Task Task `json:"task"`
	}
	_, err = c.Invoke(ctx, "agent.delegate", args, &out, opts...)
	return out.Task, out.Decision.Agent, err
}

// Fail ends the attempt; the task is tried again if f.Retryable and attempts
// are left.
func (c *Client) Fail(ctx context.Context, t *Claimed, f writ.Failure, opts ...Option) (out Task, err error) {
	_, err = c.Invoke(ctx, "task.fail", struct {
		hold
		Failure writ.Failure `json:"failure"`
	}{t.hold(), f}, &out, opts...)
	return out, err
}

// Release gives a claimed task back.
func (c *Client) Release(ctx context.Context, t *Claimed, opts ...Option) (out Task, err error) {
	_, err = c.Invoke(ctx, "task.release", t.hold(), &out, opts...)
	return out, err
}

type taskArg struct {
	ID writ.TaskID `json:"task_id"`
}

// CancelTask cancels a queued task, or asks the holder of a running one to stop.
func (c *Client) CancelTask(ctx context.Context, id writ.TaskID, opts ...Option) (t Task, err error) {
	_, err = c.Invoke(ctx, "task.cancel", taskArg{id}, &t, opts...)
	return t, err
}

// GetTask shows a task.
func (c *Client) GetTask(ctx context.Context, id writ.TaskID) (t Task, err error) {
	_, err = c.Invoke(ctx, "task.get", taskArg{id}, &t)
	return t, err
}

// ListTasks shows the tasks of a run, or, without a run, those of all runs that
// wait for a verdict or died; after is the page's Next. They come without
// arguments and results.
func (c *Client) ListTasks(ctx context.Context, run writ.RunID, state writ.TaskState, after writ.TaskID) (page TaskPage, err error) {
	_, err = c.Invoke(ctx, "task.list", struct {
		Run   writ.RunID     `json:"run_id,omitempty"`
		State writ.TaskState `json:"state,omitempty"`
		After writ.TaskID    `json:"after,omitempty"`
	}{run, state, after}, &page)
	return page, err
}

// TaskPage is a page of tasks in the order they were enqueued.
type TaskPage struct {
	Tasks []Task      `json:"tasks"`
	Next  writ.TaskID `json:"next,omitempty"`
}

// Gate is what a check gave that a task asks for.
type Gate struct {
	Name    string         `json:"gate"`
	Status  string         `json:"status"`               // pass or fail
	Receipt writ.ReceiptID `json:"receipt_id,omitempty"` // of a gate, whose name has a dot: of the task that showed it
}

// VerifyTask accepts the result of a task as it was read, or sends it back for
// the reasons given. The receipts of gates, where they are not given, are those the task shows.
func (c *Client) VerifyTask(ctx context.Context, t Task, v writ.Verdict, gates []Gate, reasons []string, opts ...Option) (out Task, err error) {
	gates = slices.Clone(gates)
	for i, g := range gates {
		for _, p := range t.Passes {
			if g.Receipt == "" && g.Name == string(p.Gate) {
				gates[i].Receipt = p.Receipt
			}
		}
	}
	_, err = c.Invoke(ctx, "task.verify", struct {
		Task    writ.TaskID    `json:"task_id"`
		Verdict writ.Verdict   `json:"verdict"`
		Receipt writ.ReceiptID `json:"receipt_id"`
		Gates   []Gate         `json:"gates,omitempty"`
		Reasons []string       `json:"reasons,omitempty"`
		Signed  string         `json:"verdict_dsse,omitempty"`
	}{t.ID, v, t.Receipt, gates, reasons, signedIn(opts)}, &out, opts...)
	return out, err
}
