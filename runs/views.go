package runs

import "github.com/writ-gateway/writ"

// RunView is a run as the API shows it. The counters are from the moment it
// was read.
type RunView struct {
	RunID       writ.RunID          `json:"run_id" doc:"The run."`
	Title       string              `json:"title,omitempty" doc:"Title for people."`
	Goal        string              `json:"goal,omitempty" doc:"What it is to reach."`
	State       writ.RunState       `json:"state" doc:"Where it stands." enum:"active,paused_approval,verifying,done,failed,cancelled"`
	WaitsFor    writ.ApprovalID     `json:"waits_for,omitempty" doc:"Approval it is paused for."`
	StalledAt   string              `json:"stalled_at,omitempty" doc:"Since when nothing in it can go on: cancel it, or bring an agent back that may take one of its tasks."`
	StallAfter  int64               `json:"stall_after_s,omitempty" doc:"Seconds in which nothing can go on before it is stalled."`
	OnStall     writ.StallPolicy    `json:"on_stall,omitempty" doc:"What becomes of it then; absent: it is noted." enum:"notify,fail"`
	Reason      string              `json:"reason,omitempty" doc:"Why it ended."`
	ClosePolicy writ.ClosePolicy    `json:"close_policy" doc:"Who ends it." enum:"auto,manual,verifier"`
	CloseQuorum int64               `json:"close_quorum,omitempty" doc:"How many verifiers must accept it; absent: one."`
	Votes       *writ.Votes         `json:"votes,omitempty" doc:"While it waits for several verdicts: how far they have come. Shown by run.get and run.close."`
	Sealed      bool                `json:"sealed" doc:"Whether no task may be added any more."`
	Rework      int64               `json:"rework,omitempty" doc:"How often who judged it sent it back."`
	Budget      map[string]RunMeter `json:"budget" doc:"What it limits, by dimension, and what is used of that; run.budget says more."`
	Parent      writ.RunID          `json:"parent_run_id,omitempty" doc:"Run inside which it was created."`
	Workflow    *RunWorkflow        `json:"workflow,omitempty" doc:"The workflow it was created with."`
	OpenTasks   int64               `json:"open_tasks" doc:"Tasks and child runs that have not ended."`
	BadTasks    int64               `json:"bad_tasks" doc:"Tasks that ended failed or dead, and child runs that did not end well."`
	Owner       writ.PrincipalID    `json:"owner" doc:"Principal that created it."`
	OwnerRole   writ.Role           `json:"owner_role" doc:"Role in which it was created."`
	CreatedAt   string              `json:"created_at" doc:"When it was created (RFC 3339, UTC)."`
	UpdatedAt   string              `json:"updated_at" doc:"When its state last changed (RFC 3339, UTC)."`
	Receipt     writ.ReceiptID      `json:"receipt" doc:"Receipt of the last change."`
	Version     int64               `json:"version" doc:"Version of the run, for If-Match."`
}

// RunWorkflow is the workflow of a run.
type RunWorkflow struct {
	Digest   string `json:"digest" doc:"SHA-256 of it as it was sent." pattern:"^sha256:[0-9a-f]{64}$"`
	Steps    int64  `json:"steps" doc:"How many steps it has."`
	Made     int64  `json:"made" doc:"How many of them are tasks of the run, at least."`
	Unfolded bool   `json:"unfolded" doc:"Whether all are. Nothing begins before."`

	Outputs []writ.RunOutput `json:"outputs,omitempty" doc:"Artifacts of steps that are its results."`

	Step string    `json:"step,omitempty" doc:"The step that waits to be made a task, or could not be."`
	Code writ.Code `json:"code,omitempty" doc:"Why: approval_required while people are asked, quota_exceeded while there is no room, or what it was refused with."`

	Denial writ.ReceiptID    `json:"denial,omitempty" doc:"Receipt of its denial."`
	Wrong  []writ.FieldError `json:"wrong,omitempty" doc:"What is wrong with it, by pointers into the step."`
}

// RunMeter is one dimension of a budget.
type RunMeter struct {
	Limit     int64 `json:"limit" doc:"What may be used: the limit it was created with, and what was granted since."`
	Used      int64 `json:"used" doc:"Used so far, what running attempts have paid in advance included."`
	Remaining int64 `json:"remaining" doc:"What is left."`
}

func view(r writ.Run, s writ.Snapshot, version int64) RunView {
	v := RunView{
		RunID: r.ID, Title: r.Title, Goal: r.Goal, State: r.State, WaitsFor: r.WaitsFor, Reason: r.Reason, ClosePolicy: r.ClosePolicy, CloseQuorum: r.CloseQuorum, Sealed: r.Sealed, Rework: r.Rework,
		Budget: map[string]RunMeter{}, Parent: r.Parent,
		OpenTasks: s.Counters[writ.RunOpenTasks(r.ID)], BadTasks: s.Counters[writ.RunBadTasks(r.ID)],
		Owner: r.Owner, OwnerRole: r.OwnerRole, CreatedAt: writ.FormatTime(r.CreatedAt), UpdatedAt: writ.FormatTime(r.UpdatedAt),
		StallAfter: r.StallAfter, OnStall: r.OnStall, Receipt: r.Receipt, Version: version,
	}
	if w := r.Workflow; w != nil {
		v.Workflow = &RunWorkflow{Digest: w.Digest, Steps: w.Steps, Made: min(s.Counters[writ.RunUnfolded(r.ID)], w.Steps), Unfolded: w.Unfolded, Outputs: w.Outputs, Step: w.Step, Code: w.Code, Denial: w.Denial, Wrong: w.Wrong}
	}
	if r.StalledAt != 0 {
		v.StalledAt = writ.FormatTime(r.StalledAt)
	}
	for dim := range r.Budget {
		limit, used := r.Limit(dim), usedOf(r, s, dim)
		v.Budget[dim] = RunMeter{Limit: limit, Used: used, Remaining: max(0, limit-used)}
	}
	return v
}

// usedOf is what a run has used of a dimension.
func usedOf(r writ.Run, s writ.Snapshot, dim string) int64 {
	if writ.MeasureOf(dim) != writ.MeasureTime {
		return s.Counters[writ.BudgetUsed(r.ID, dim)]
	}
	now := s.Now
	if writ.RunMoves.Terminal(r.State) {
		now = r.UpdatedAt
	}
	return r.Worked(now)
}

// changed shows a run as the commit will have written it.
func changed(o writ.Outcome, r writ.Run, s writ.Snapshot) writ.Reply {
	return writ.Reply{Outcome: o, Body: view(r, s, 0), Versioned: []string{"version"}, ETag: -1}
}

// RunGetArgs name the run to show.
type RunGetArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func get() *writ.Capability {
	const op = "runs.Get"
	return writ.Define[RunGetArgs, RunView](writ.Capability{
		ID: "run.get", Safety: writ.SafetyReadOnly, Summary: "Show a run with what it has used of its budget.",
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N"}`,
	}, writ.Verb[RunGetArgs]{
		Reads: func(_ *writ.Call, a *RunGetArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(a.RunID)
			if !s.Has(writ.RunKey(a.RunID)) {
				return rs, nil
			}
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if ok && votes(run) {
				rs.Docs = append(rs.Docs, writ.BallotKey(a.RunID))
			}
			return rs, err
		},
		Describe: func(_ *writ.Call, a *RunGetArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunGetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			if !ok || !maySee(call.Caller, run) {
				return tx, r, noRun(op)
			}
			v := view(run, s, version)
			if votes(run) {
				v.Votes, err = writ.VotesOn(s, string(run.ID), run.Receipt, run.CloseQuorum)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: v, ETag: version}, err
		},
	})
}

// RunListArgs page through the runs.
type RunListArgs struct {
	After writ.RunID    `json:"after,omitempty" doc:"Run the last page ended with." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64         `json:"limit,omitempty" doc:"Runs looked at per page." default:"50" minimum:"1" maximum:"200"`
	State writ.RunState `json:"state,omitempty" doc:"Only runs in this state; those that wait for a verdict have a list of their own." enum:"active,paused_approval,verifying,done,failed,cancelled"`
}

// RunList is a page of runs.
type RunList struct {
	Runs []RunView `json:"runs" doc:"Runs, oldest first. With a state given a page can be short or empty though more follow."`
	Next string    `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`
}

// OwnedBy lists the runs of one owner: orchestrators see no others, and so get
// full pages.
func OwnedBy(p writ.PrincipalID) writ.Index { return writ.Index("list/runs/" + string(p)) }

// pageOf is the page a caller asks for.
func pageOf(call *writ.Call, a *RunListArgs) writ.Page {
	p := writ.Page{Index: writ.IndexRuns, After: string(a.After), Limit: a.Limit}
	switch {
	case call.Caller.Role == writ.RoleOrchestrator:
		p.Index = OwnedBy(call.Caller.Principal)
	case a.State == writ.RunVerifying:
		p.Index = writ.IndexClose
	}
	return p
}

func list() *writ.Capability {
	return writ.Define[RunListArgs, RunList](writ.Capability{
		ID: "run.list", Safety: writ.SafetyReadOnly, Summary: "List runs, oldest first: an orchestrator's own, all to others.",
		Example: `{"state":"active"}`,
	}, writ.Verb[RunListArgs]{
		Reads: func(call *writ.Call, a *RunListArgs, s writ.Snapshot) (rs writ.ReadSet, err error) {
			if call.Caller.Role == "" {
				return rs, nil // not known yet whose runs to read
			}
			page := pageOf(call, a)
			rs.Ranges = append(rs.Ranges, page.Range())
			ids, _ := page.Of(s)
			for _, id := range ids {
				key := writ.RunKey(writ.RunID(id))
				rs.Docs = append(rs.Docs, key)
				if !s.Has(key) {
					continue
				}
				run, _, ok, err := writ.Get[writ.Run](s, key)
				if err != nil {
					return rs, err
				}
				if ok {
					rs.Counters = append(rs.Counters, append(counters(run.ID, writ.Dimensions(run.Budget)), writ.RunUnfolded(run.ID))...)
				}
			}
			return rs, nil
		},
		Plan: func(call *writ.Call, a *RunListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ids, next := pageOf(call, a).Of(s)
			out := RunList{Runs: []RunView{}, Next: next}
			for _, id := range ids {
				run, version, ok, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(id)))
				if err != nil {
					return tx, r, err
				}
				if ok && maySee(call.Caller, run) && (a.State == "" || a.State == run.State) {
					out.Runs = append(out.Runs, view(run, s, version))
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
