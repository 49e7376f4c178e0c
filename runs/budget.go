package runs

import "github.com/writ-gateway/writ"

// RunBudgetArgs name a run.
type RunBudgetArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// RunBudgetReport is the budget of a run, with where it came from and where it
// is. The numbers are from the moment they were read.
type RunBudgetReport struct {
	RunID    writ.RunID      `json:"run_id" doc:"The run."`
	State    writ.RunState   `json:"state" doc:"Where it stands." enum:"active,paused_approval,done,failed,cancelled"`
	Reason   string          `json:"reason,omitempty" doc:"Why it ended."`
	WaitsFor writ.ApprovalID `json:"waits_for,omitempty" doc:"Approval it is paused for."`
	Parent   writ.RunID      `json:"parent_run_id,omitempty" doc:"Run out of whose budget it got its own."`
	Root     writ.RunID      `json:"root_run_id,omitempty" doc:"First run of the tree."`
	Lines    []RunBudgetLine `json:"dimensions" doc:"What it limits, one entry per dimension. Of anything else it may use any amount."`
	Grants   []RunGrant      `json:"grants" doc:"What people gave it since, oldest first."`
	Children []RunChild      `json:"children" doc:"Child runs that hold part of it, at most 50."`
}

// RunBudgetLine is one dimension of a budget.
type RunBudgetLine struct {
	Dimension string `json:"dimension" doc:"What is limited; the unit is in the name."`
	Measure   string `json:"measure" doc:"How use comes together: sum adds up, peak is the largest at a time, time is the clock." enum:"sum,peak,time"`
	Base      int64  `json:"base" doc:"Limit it was created with."`
	Granted   int64  `json:"granted" doc:"What people added."`
	Limit     int64  `json:"limit" doc:"Both together."`
	Consumed  int64  `json:"consumed" doc:"Used for good."`
	Reserved  int64  `json:"reserved" doc:"Held by attempts under way and child runs, which may give some of it back."`
	Remaining int64  `json:"remaining" doc:"What is left."`
	Percent   int64  `json:"percent" doc:"Consumed and reserved, in percent of the limit, rounded down."`
	Warned    int64  `json:"warned" doc:"Highest mark it was warned of, in percent: 0, 50 or 80."`
}

// RunGrant is more of a dimension than a run was created with.
type RunGrant struct {
	Approval  writ.ApprovalID `json:"approval_id" doc:"Approval by which people gave it."`
	Dimension string          `json:"dimension" doc:"What it is of."`
	Add       int64           `json:"add" doc:"How much."`
	At        string          `json:"at" doc:"When (RFC 3339, UTC)."`
}

// RunChild is a child run and what it was given.
type RunChild struct {
	RunID   writ.RunID       `json:"run_id" doc:"The child run."`
	Amounts map[string]int64 `json:"amounts" doc:"What it took out of this budget, by dimension."`
}

// maxChildren bounds the children a report names.
const maxChildren = 50

func children(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunChildren(id), Limit: maxChildren}
}

var measureNames = map[writ.Measure]string{writ.MeasureSum: "sum", writ.MeasurePeak: "peak", writ.MeasureTime: "time"}

func budget() *writ.Capability {
	const op = "runs.Budget"
	return writ.Define[RunBudgetArgs, RunBudgetReport](writ.Capability{
		ID: "run.budget", Safety: writ.SafetyReadOnly, Summary: "Show the budget of a run: limits, what is used and reserved, grants, and what child runs hold.",
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N"}`,
	}, writ.Verb[RunBudgetArgs]{
		Reads: func(_ *writ.Call, a *RunBudgetArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, page := readRun(a.RunID), children(a.RunID)
			for _, dim := range writ.BudgetDimensions() {
				rs.Counters = append(rs.Counters, writ.BudgetHeld(a.RunID, dim), writ.BudgetWarned(a.RunID, dim))
			}
			rs.Ranges = []writ.Range{page}
			for _, m := range s.Ranges[page].Members {
				rs.Docs = append(rs.Docs, writ.EscrowKey(writ.RunID(m.Name)))
			}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunBudgetArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunBudgetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			if !ok || !maySee(call.Caller, run) {
				return tx, r, noRun(op)
			}
			out := report(run, s)
			for _, m := range s.Ranges[children(a.RunID)].Members {
				e, _, found, err := writ.Get[writ.Escrow](s, writ.EscrowKey(writ.RunID(m.Name)))
				if err != nil {
					return tx, r, err
				}
				if found {
					out.Children = append(out.Children, RunChild{e.Child, e.Amounts})
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out, ETag: version}, nil
		},
	})
}

func report(run writ.Run, s writ.Snapshot) RunBudgetReport {
	out := RunBudgetReport{
		RunID: run.ID, State: run.State, Reason: run.Reason, WaitsFor: run.WaitsFor, Parent: run.Parent, Root: run.Root,
		Lines: []RunBudgetLine{}, Grants: []RunGrant{}, Children: []RunChild{},
	}
	for _, dim := range writ.BudgetDimensions() { // in the order of the documentation
		limit, limits := run.Limited(dim)
		if !limits {
			continue
		}
		used, held := usedOf(run, s, dim), max(0, s.Counters[writ.BudgetHeld(run.ID, dim)])
		line := RunBudgetLine{
			Dimension: dim, Measure: measureNames[writ.MeasureOf(dim)], Base: run.Budget[dim], Granted: limit - run.Budget[dim], Limit: limit,
			Consumed: used - held, Reserved: held, Remaining: max(0, limit-used), Warned: s.Counters[writ.BudgetWarned(run.ID, dim)],
		}
		switch {
		case used == 0:
		case limit == 0:
			line.Percent = 100
		default:
			line.Percent = used / limit * 100
			line.Percent += used % limit * 100 / limit
		}
		out.Lines = append(out.Lines, line)
	}
	for _, g := range run.Grants {
		out.Grants = append(out.Grants, RunGrant{g.Approval, g.Dimension, g.Add, writ.FormatTime(g.At)})
	}
	return out
}
