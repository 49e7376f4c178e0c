package runs

import "github.com/writ-gateway/writ"

// RunBudget limits what a run may use.
type RunBudget struct {
	Steps int64 `json:"steps" doc:"Committed changes that executor and verifier sessions may make inside the run: two for an attempt at a task, both charged to its claim; what a release, an expiry or a cancellation does not use is given back." minimum:"1" maximum:"1000000"`
}

// RunCreateArgs describe a run.
type RunCreateArgs struct {
	Title       string           `json:"title,omitempty" doc:"Title for people." maxLength:"200"`
	Goal        string           `json:"goal,omitempty" doc:"What the run is to reach, in words." maxLength:"4000"`
	ClosePolicy writ.ClosePolicy `json:"close_policy,omitempty" doc:"Who ends it: auto when it is sealed and every task has ended, manual only by run.cancel or a hard limit." enum:"auto,manual" default:"auto"`
	Budget      RunBudget        `json:"budget" doc:"Hard limits of the run, for example {\"steps\":40}; a task takes about two steps."`
}

func create() *writ.Capability {
	return writ.Define[RunCreateArgs, RunView](writ.Capability{
		ID: "run.create", Safety: writ.SafetyMutating, Summary: "Create a run with a budget; tasks can be added to it at once.",
	}, writ.Verb[RunCreateArgs]{
		Reads: func(call *writ.Call, _ *RunCreateArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readRun(newRun(call)), nil
		},
		Plan: func(call *writ.Call, a *RunCreateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run := writ.Run{
				ID: newRun(call), Title: a.Title, Goal: a.Goal, ClosePolicy: a.ClosePolicy,
				Budget: map[string]int64{writ.BudgetSteps: a.Budget.Steps},
				Owner:  call.Caller.Principal, OwnerRole: call.Caller.Role, CreatedBy: call.Caller.Session, CreatedAt: s.Now,
			}
			if run.ClosePolicy == "" {
				run.ClosePolicy = writ.CloseAuto
			}
			if err := move(call, "runs.Create", s, &tx, &run, writ.RunActive); err != nil {
				return tx, r, err
			}
			tx.Index(writ.IndexRuns, string(run.ID), 0)
			tx.Index(ownedBy(run.Owner), string(run.ID), 0)
			return tx, changed(writ.OutcomeCreated, run, s), nil
		},
	})
}

func newRun(call *writ.Call) writ.RunID { return writ.RunID(call.NewID(writ.PrefixRun, 0)) }

// RunSealArgs name the run to seal.
type RunSealArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func seal() *writ.Capability {
	const op = "runs.Seal"
	return writ.Define[RunSealArgs, RunView](writ.Capability{
		ID: "run.seal", Safety: writ.SafetyMutating,
		Summary: "Declare that no task will be added any more; an automatic run then ends with its last task.",
	}, writ.Verb[RunSealArgs]{
		Locks: func(_ *writ.Call, a *RunSealArgs) []writ.Key { return []writ.Key{writ.RunKey(a.RunID)} },
		Reads: func(_ *writ.Call, a *RunSealArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readRun(a.RunID), nil
		},
		Describe: func(_ *writ.Call, a *RunSealArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunSealArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, err := load(call, op, s, a.RunID)
			if err != nil {
				return tx, r, err
			}
			if run.Sealed && run.State == writ.RunActive {
				e := writ.IllegalMove(op, writ.ObjectRun, string(run.State), string(run.State))
				e.Msg, e.Hint = "the run is sealed already", "nothing is left to do"
				return tx, r, e
			}
			run.Sealed = true
			to := run.State // a paused run is not made active by sealing it
			if run.State == writ.RunActive && run.ClosePolicy == writ.CloseAuto {
				to = closing(s, &tx, &run)
			}
			if err := move(call, op, s, &tx, &run, to); err != nil {
				return tx, r, err
			}
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
}

// closing is the state an automatic run goes to when it is sealed now. The
// counters are guarded at what was judged: whoever ends the last task expects
// the run's document, so of the two one sees the other.
func closing(s writ.Snapshot, tx *writ.Tx, run *writ.Run) writ.RunState {
	open, bad := writ.RunOpenTasks(run.ID), writ.RunBadTasks(run.ID)
	if s.Counters[open] > 0 {
		tx.Within(open, 1, writ.MaxAmount)
		return writ.RunActive
	}
	tx.Within(open, 0, 0)
	if s.Counters[bad] > 0 {
		tx.Within(bad, 1, writ.MaxAmount)
		run.Reason = reasonTaskFailed
		return writ.RunFailed
	}
	tx.Within(bad, 0, 0)
	return writ.RunDone
}

// RunCancelArgs name the run to cancel and why.
type RunCancelArgs struct {
	RunID  writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Reason string     `json:"reason,omitempty" doc:"Why it is cancelled." enum:"requested,superseded,mistake,misbehaviour" default:"requested"`
}

func cancel() *writ.Capability {
	const op = "runs.Cancel"
	return writ.Define[RunCancelArgs, RunView](writ.Capability{
		ID: "run.cancel", Safety: writ.SafetyMutating,
		Summary: "End a run now; its queued tasks are cancelled and the running ones are told to stop.",
	}, writ.Verb[RunCancelArgs]{
		Locks: func(_ *writ.Call, a *RunCancelArgs) []writ.Key { return []writ.Key{writ.RunKey(a.RunID)} },
		Reads: func(_ *writ.Call, a *RunCancelArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readRun(a.RunID), nil
		},
		Describe: func(_ *writ.Call, a *RunCancelArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunCancelArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			run, err := load(call, op, s, a.RunID)
			if err != nil {
				return tx, r, err
			}
			run.Reason = a.Reason
			if run.Reason == "" {
				run.Reason = reasonRequested
			}
			if err := move(call, op, s, &tx, &run, writ.RunCancelled); err != nil {
				return tx, r, err
			}
			tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
}

// RunExhaustArgs name a run and the limit it met.
type RunExhaustArgs struct {
	RunID     writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Dimension string     `json:"dimension,omitempty" doc:"Dimension of its budget that is used up." enum:"steps" default:"steps"`
}

// RunExhausted says what became of the run.
type RunExhausted struct {
	Failed bool `json:"failed" doc:"Whether the run failed now. False: it had ended already, has budget left, or attempts are under way."`
}

// exhaustAgainMs is how long an exhausted run with attempts under way is left
// alone before it is looked at again.
const exhaustAgainMs = 1000

// underWay shows whether attempts at tasks of a run are under way.
func underWay(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunTasksIn(id, writ.TaskRunning), Limit: 1}
}

// exhaust fails a run that was refused a claim it had no budget for. It looks
// again before it believes so: what triggered it was an index entry. Attempts
// under way are paid for and may end first; steps they give back may be enough
// for a claim again, and then the tasks that were refused are offered again.
func exhaust() *writ.Capability {
	return writ.Define[RunExhaustArgs, RunExhausted](writ.Capability{
		ID: "run.exhaust", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Fail a run that has met a hard limit of its budget.",
	}, writ.Verb[RunExhaustArgs]{
		Reads: func(_ *writ.Call, a *RunExhaustArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(a.RunID)
			rs.Ranges = []writ.Range{underWay(a.RunID)}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunExhaustArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunExhaustArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			limit, used := run.Limit(writ.BudgetSteps), s.Counters[writ.RunSteps(a.RunID)]
			out := RunExhausted{}
			switch {
			case !ok || run.State != writ.RunActive:
			case used+writ.StepsOfAttempt <= limit:
				tx.Index(writ.IndexTodo, todoOffer(a.RunID), s.Now)
			case len(s.Ranges[underWay(a.RunID)].Members) > 0:
				tx.Index(writ.IndexTodo, todoExhaust(a.RunID), s.Now+exhaustAgainMs)
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
			default:
				out.Failed = true
				// Under this guard no claim fits, so no attempt has begun either.
				tx.Within(writ.RunSteps(run.ID), limit-writ.StepsOfAttempt+1, writ.MaxAmount)
				run.Reason = reasonBudget
				if err := move(call, "runs.Exhaust", s, &tx, &run, writ.RunFailed); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
			}
			tx.Unindex(writ.IndexTodo, todoExhaust(a.RunID))
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
