package client

import (
	"context"
	"encoding/json"

	"github.com/writ-gateway/writ"
)

// RunOptions describe a run to create. Budget maps dimensions to hard limits;
// writ.BudgetSteps is required.
type RunOptions struct {
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	ClosePolicy writ.ClosePolicy `json:"close_policy,omitempty"`
	CloseQuorum int64            `json:"close_quorum,omitempty"` // how many verifiers must accept it; 0 is one
	Parent      writ.RunID       `json:"parent_run_id,omitempty"`
	Budget      map[string]int64 `json:"budget"`
	StallAfter  int64            `json:"stall_after_s,omitempty"` // seconds; 0 is the gateway's default
	OnStall     writ.StallPolicy `json:"on_stall,omitempty"`
	Workflow    json.RawMessage  `json:"workflow,omitempty"` // version, sequence and steps
	Open        bool             `json:"open,omitempty"`     // with a workflow: do not seal the run
}

// Run is a run as the gateway shows it.
type Run struct {
	ID          writ.RunID       `json:"run_id"`
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	State       writ.RunState    `json:"state"`
	Reason      string           `json:"reason,omitempty"`
	WaitsFor    writ.ApprovalID  `json:"waits_for,omitempty"` // paused until people agree
	ClosePolicy writ.ClosePolicy `json:"close_policy"`
	CloseQuorum int64            `json:"close_quorum,omitempty"`
	Votes       *writ.Votes      `json:"votes,omitempty"` // while it waits for several verdicts: how far they have come
	Sealed      bool             `json:"sealed"`
	StalledAt   string           `json:"stalled_at,omitempty"` // RFC 3339: since when nothing in it can go on
	Owner       writ.PrincipalID `json:"owner"`
	Parent      writ.RunID       `json:"parent_run_id,omitempty"`
	Workflow    *RunWorkflow     `json:"workflow,omitempty"` // it was created with
	Budget      map[string]Meter `json:"budget"`
	OpenTasks   int64            `json:"open_tasks"`
	BadTasks    int64            `json:"bad_tasks"`
	Receipt     writ.ReceiptID   `json:"receipt"`
	Version     int64            `json:"version"`
}

// RunWorkflow is how the workflow of a run stands: each of its steps becomes a task, and
// none begins before all are.
type RunWorkflow struct {
	Digest   string `json:"digest"`
	Steps    int64  `json:"steps"`
	Made     int64  `json:"made"`
	Unfolded bool   `json:"unfolded"`

	Outputs []writ.RunOutput `json:"outputs,omitempty"` // artifacts of steps that are its results

	Step string    `json:"step,omitempty"` // that waits to be made, or could not be
	Code writ.Code `json:"code,omitempty"` // why

	Denial writ.ReceiptID    `json:"denial,omitempty"`
	Wrong  []writ.FieldError `json:"wrong,omitempty"` // by pointers into the step
}

// Meter is one dimension of a budget.
type Meter struct {
	Limit     int64 `json:"limit"`
	Used      int64 `json:"used"`
	Remaining int64 `json:"remaining"`
}

type runArg struct {
	ID writ.RunID `json:"run_id"`
}

// CreateRun creates a run.
func (c *Client) CreateRun(ctx context.Context, o RunOptions, opts ...Option) (r Run, err error) {
	_, err = c.Invoke(ctx, "run.create", o, &r, opts...)
	return r, err
}

// SealRun declares that no task will be added any more.
func (c *Client) SealRun(ctx context.Context, id writ.RunID, opts ...Option) (r Run, err error) {
	_, err = c.Invoke(ctx, "run.seal", runArg{id}, &r, opts...)
	return r, err
}

// CancelRun ends a run and its queued tasks.
func (c *Client) CancelRun(ctx context.Context, id writ.RunID, opts ...Option) (r Run, err error) {
	_, err = c.Invoke(ctx, "run.cancel", runArg{id}, &r, opts...)
	return r, err
}

// GetRun shows a run.
func (c *Client) GetRun(ctx context.Context, id writ.RunID) (r Run, err error) {
	_, err = c.Invoke(ctx, "run.get", runArg{id}, &r)
	return r, err
}

// BudgetReport is the budget of a run: what it limits, what is used and held of
// it, and where it came from.
type BudgetReport struct {
	Run        writ.RunID      `json:"run_id"`
	State      writ.RunState   `json:"state"`
	Reason     string          `json:"reason,omitempty"`
	WaitsFor   writ.ApprovalID `json:"waits_for,omitempty"`
	Parent     writ.RunID      `json:"parent_run_id,omitempty"`
	Root       writ.RunID      `json:"root_run_id,omitempty"`
	Dimensions []BudgetLine    `json:"dimensions"`
	Grants     []BudgetGrant   `json:"grants"`
	Children   []BudgetChild   `json:"children"`
}

// BudgetLine is one dimension of a budget.
type BudgetLine struct {
	Dimension string `json:"dimension"`
	Measure   string `json:"measure"` // sum, peak or time
	Base      int64  `json:"base"`
	Granted   int64  `json:"granted"`
	Limit     int64  `json:"limit"`
	Consumed  int64  `json:"consumed"`
	Reserved  int64  `json:"reserved"` // by attempts under way and child runs
	Remaining int64  `json:"remaining"`
	Percent   int64  `json:"percent"`
	Warned    int64  `json:"warned"`
}

// BudgetGrant is what people added.
type BudgetGrant struct {
	Approval  writ.ApprovalID `json:"approval_id"`
	Dimension string          `json:"dimension"`
	Add       int64           `json:"add"`
	At        string          `json:"at"`
}

// BudgetChild is what a child run holds.
type BudgetChild struct {
	Run     writ.RunID       `json:"run_id"`
	Amounts map[string]int64 `json:"amounts"`
}

// RunBudget shows the budget of a run.
func (c *Client) RunBudget(ctx context.Context, id writ.RunID) (b BudgetReport, err error) {
	_, err = c.Invoke(ctx, "run.budget", runArg{id}, &b)
	return b, err
}

// ListRuns shows runs, oldest first, of one state if it is given; after is the
// page's Next.
func (c *Client) ListRuns(ctx context.Context, state writ.RunState, after writ.RunID) (page RunPage, err error) {
	_, err = c.Invoke(ctx, "run.list", struct {
		State writ.RunState `json:"state,omitempty"`
		After writ.RunID    `json:"after,omitempty"`
	}{state, after}, &page)
	return page, err
}

// RunPage is a page of runs.
type RunPage struct {
	Runs []Run      `json:"runs"`
	Next writ.RunID `json:"next,omitempty"`
}

// CloseRun accepts a run as it was read, resting on the tasks given, or sends it
// back for the reasons given.
func (c *Client) CloseRun(ctx context.Context, r Run, v writ.Verdict, tasks []Task, reasons []string, opts ...Option) (out Run, err error) {
	type evidence struct {
		Task    writ.TaskID    `json:"task_id"`
		Receipt writ.ReceiptID `json:"receipt_id"`
	}
	args := struct {
		Run     writ.RunID     `json:"run_id"`
		Verdict writ.Verdict   `json:"verdict"`
		Receipt writ.ReceiptID `json:"receipt_id"`
		Tasks   []evidence     `json:"tasks,omitempty"`
		Reasons []string       `json:"reasons,omitempty"`
		Signed  string         `json:"verdict_dsse,omitempty"`
	}{Run: r.ID, Verdict: v, Receipt: r.Receipt, Reasons: reasons, Signed: signedIn(opts)}
	for _, t := range tasks {
		args.Tasks = append(args.Tasks, evidence{t.ID, t.Receipt})
	}
	_, err = c.Invoke(ctx, "run.close", args, &out, opts...)
	return out, err
}
