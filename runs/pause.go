package runs

import "github.com/writ-gateway/writ"

// Pausing is what becomes of runs whose calls need more budget than there is.
// It is the runs' part of approvals: the run pauses while people decide, and
// goes on with a grant for each need, or fails.
type Pausing struct{}

const (
	reasonDenied  = "approval_denied"
	reasonExpired = "approval_expired"
)

// grantsOf are the needs of an approval that ask for more budget.
func grantsOf(a writ.Approval) (out []writ.Need) {
	for _, n := range a.Needs {
		if n.Kind == writ.ApproveBudgetExtension && n.Add > 0 {
			out = append(out, n)
		}
	}
	return out
}

// Reads names the run that waits for budget.
func (Pausing) Reads(a writ.Approval, _ writ.Snapshot) (writ.ReadSet, error) {
	if a.Run == "" || len(grantsOf(a)) == 0 {
		return writ.ReadSet{}, nil
	}
	rs := readRun(a.Run)
	for _, n := range grantsOf(a) {
		rs.Counters = append(rs.Counters, writ.BudgetWarned(a.Run, n.Dimension))
	}
	return rs, nil
}

// Wait pauses the run.
func (Pausing) Wait(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	run, ok, err := waitingRun(s, a)
	if err != nil || !ok || run.State != writ.RunActive {
		return err
	}
	run.WaitsFor, run.PausedAt = a.ID, s.Now
	return move(c, "runs.Pause", s, tx, &run, writ.RunPausedApproval)
}

// Wake grants what was approved, and lets a run that waits for it go on. Denied
// or expired, such a run fails; when other people are asked instead, it waits
// for them. A run that has ended stays as it is.
func (Pausing) Wake(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	const op = "runs.Resume"
	run, ok, err := waitingRun(s, a)
	if err != nil || !ok || writ.RunMoves.Terminal(run.State) {
		return err
	}
	waits := run.State == writ.RunPausedApproval && run.WaitsFor == a.ID
	to := run.State
	switch {
	case a.State == writ.ApprovalApproved:
		if len(run.Grants)+len(grantsOf(a)) > writ.MaxGrants {
			return writ.Refuse(writ.CodeQuota, op, "the run has had as many extensions as it may", "deny it, and create another run")
		}
		for _, n := range grantsOf(a) {
			run.Grants = append(run.Grants, writ.Grant{Approval: a.ID, Dimension: n.Dimension, Add: n.Add, At: s.Now})
			// The marks of the new limit are others.
			if told := writ.BudgetWarned(run.ID, n.Dimension); s.Counters[told] > 0 {
				tx.Within(told, s.Counters[told], s.Counters[told])
				tx.Add(told, -s.Counters[told])
			}
		}
	case !waits:
		return nil
	}
	if waits {
		run.WaitsFor = ""
		switch a.State {
		case writ.ApprovalApproved:
			to = writ.RunActive
			if run.Sealed && run.Concludes() {
				to = run.Closing(s, tx, 0, 0) // its last task may have ended meanwhile
			}
			if to == writ.RunActive {
				tx.Index(writ.IndexTodo, todoOffer(run.ID), s.Now)
				if run.Unfolding() {
					tx.Index(writ.IndexUnfold, string(run.ID), s.Now)
				}
			}
		case writ.ApprovalSuperseded:
			run.WaitsFor = a.Successor
			return move(c, op, s, tx, &run, to)
		default:
			to, run.Reason = writ.RunFailed, reasonDenied
			if a.State == writ.ApprovalExpired {
				run.Reason = reasonExpired
			}
			tx.Index(writ.IndexTodo, todoReap(run.ID), s.Now)
		}
		run.Resume(s.Now)
		if to == writ.RunActive {
			tx.Index(writ.IndexTodo, writ.TodoOverrun(run.ID), run.TimeUp())
		}
	}
	return move(c, op, s, tx, &run, to)
}

func waitingRun(s writ.Snapshot, a writ.Approval) (writ.Run, bool, error) {
	if a.Run == "" || len(grantsOf(a)) == 0 {
		return writ.Run{}, false, nil
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.Run))
	return run, ok, err
}
