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
				to = closing(s, &tx, &run, 0, 0)
			}
			if err := move(call, op, s, &tx, &run, to); err != nil {
				return tx, r, err
			}
			return tx, changed(writ.OutcomeDone, run, s), nil
		},
	})
}

// closing is the state an automatic run goes to that is sealed, when ended of
// its tasks and child runs end in this transaction, bad of them not well. The
// counters are guarded at what was judged: whoever ends the last task expects
// the run's document, so of the two one sees the other.
func closing(s writ.Snapshot, tx *writ.Tx, run *writ.Run, ended, bad int64) writ.RunState {
	open, failed := writ.RunOpenTasks(run.ID), writ.RunBadTasks(run.ID)
	if s.Counters[open] > ended {
		tx.Within(open, ended+1, writ.MaxAmount)
		return writ.RunActive
	}
	tx.Within(open, 0, ended)
	switch {
	case bad > 0:
	case s.Counters[failed] > 0:
		tx.Within(failed, 1, writ.MaxAmount)
	default:
		tx.Within(failed, 0, 0)
		return writ.RunDone
	}
	run.Reason = reasonTaskFailed
	return writ.RunFailed
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
