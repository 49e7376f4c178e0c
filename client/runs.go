package client

import (
	"context"

	"github.com/writ-gateway/writ"
)

// RunOptions describe a run to create. Budget maps dimensions to hard limits;
// writ.BudgetSteps is required.
type RunOptions struct {
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	ClosePolicy writ.ClosePolicy `json:"close_policy,omitempty"`
	Budget      map[string]int64 `json:"budget"`
}

// Run is a run as the gateway shows it.
type Run struct {
	ID          writ.RunID       `json:"run_id"`
	Title       string           `json:"title,omitempty"`
	Goal        string           `json:"goal,omitempty"`
	State       writ.RunState    `json:"state"`
	Reason      string           `json:"reason,omitempty"`
	ClosePolicy writ.ClosePolicy `json:"close_policy"`
	Sealed      bool             `json:"sealed"`
	Budget      map[string]Meter `json:"budget"`
	OpenTasks   int64            `json:"open_tasks"`
	BadTasks    int64            `json:"bad_tasks"`
	Receipt     writ.ReceiptID   `json:"receipt"`
	Version     int64            `json:"version"`
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
