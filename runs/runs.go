package runs

import "github.com/writ-gateway/writ"

func newRun(call *writ.Call) writ.RunID { return writ.RunID(call.NewID(writ.PrefixRun, 0)) }

// RunSealArgs name the run to seal.
type RunSealArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func seal() *writ.Capability {
	const op = "runs.Seal"
	return writ.Define[RunSealArgs, RunView](writ.Capability{
		ID: "run.seal", Safety: writ.SafetyMutating,
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N"}`,
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
			if run.Unfolding() {
				e := writ.IllegalMove(op, writ.ObjectRun, string(run.State), string(run.State))
				e.Msg, e.Hint = "steps of the run's workflow are not its tasks yet", "it is sealed by itself when they are, unless it was created open"
				return tx, r, e
			}
			if run.Sealed && run.State == writ.RunActive {
				e := writ.IllegalMove(op, writ.ObjectRun, string(run.State), string(run.State))
				e.Msg, e.Hint = "the run is sealed already", "nothing is left to do"
				return tx, r, e
			}
			run.Sealed = true
			to := run.State // a paused run is not made active by sealing it
			if run.State == writ.RunActive && run.Concludes() {
				to = run.Closing(s, &tx, 0, 0)
			}
			if err := move(call, op, s, &tx, &run, to); err != nil {
				return tx, r, err
			}
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
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
		Example: `{"run_id":"run_01M89R8763R5PGQGSMXGFWBA4N","reason":"mistake"}`,
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
