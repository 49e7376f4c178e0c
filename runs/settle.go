package runs

import "github.com/writ-gateway/writ"

// RunSettleArgs name a child run that has ended.
type RunSettleArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The child run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// RunSettled says what went back.
type RunSettled struct {
	Returned map[string]int64 `json:"returned" doc:"What the child did not use, by dimension; empty when it is not settled yet."`
}

// settleAgainMs is how often a child is looked at that has ended with attempts
// still under way. The last of them to end does not wait for it.
const settleAgainMs = 5000

// settle gives a parent back what an ended child has not used. Grants the child
// got from people are spent last, so what goes back is never more than what the
// parent gave.
func settle() *writ.Capability {
	const op = "runs.Settle"
	return writ.Define[RunSettleArgs, RunSettled](writ.Capability{
		ID: "run.settle", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Give a run back what a child run that has ended did not use of its budget.",
	}, writ.Verb[RunSettleArgs]{
		Reads: func(_ *writ.Call, a *RunSettleArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readRun(a.RunID)
			rs.Docs = append(rs.Docs, writ.EscrowKey(a.RunID))
			if s.Has(writ.RunKey(a.RunID)) {
				child, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
				if err != nil {
					return rs, err
				}
				if ok && child.Parent != "" {
					rs = rs.Join(readRun(child.Parent))
				}
			}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunSettleArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunSettleArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			out := RunSettled{Returned: map[string]int64{}}
			child, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			e, _, held, err := writ.Get[writ.Escrow](s, writ.EscrowKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			r = writ.Reply{Outcome: writ.OutcomeDone, Body: out}
			switch {
			case !ok || !held || e.State != writ.EscrowHeld || !writ.RunMoves.Terminal(child.State):
				tx.Unindex(writ.IndexTodo, writ.TodoSettle(a.RunID))
				return tx, r, nil
			case s.Counters[writ.RunOpenTasks(child.ID)] > 0, s.Counters[writ.RunEffects(child.ID)] > 0:
				tx.Index(writ.IndexTodo, writ.TodoSettle(a.RunID), s.Now+settleAgainMs)
				return tx, r, nil
			}
			// Nothing is charged to a run that has ended and has nothing open.
			tx.Within(writ.RunOpenTasks(child.ID), 0, 0)
			tx.Within(writ.RunEffects(child.ID), 0, 0)
			for _, dim := range writ.Dimensions(e.Amounts) {
				used := s.Counters[writ.BudgetUsed(child.ID, dim)]
				tx.Within(writ.BudgetUsed(child.ID, dim), used, used)
				if back := e.Amounts[dim] - used; back > 0 {
					out.Returned[dim] = back
					tx.Add(writ.BudgetUsed(e.Parent, dim), -back)
				}
				if n := e.Amounts[dim]; n > 0 {
					tx.Add(writ.BudgetHeld(e.Parent, dim), -n)
				}
			}
			e.Returned = out.Returned
			if err := putEscrow(call, s, &tx, &e, writ.EscrowSettled); err != nil {
				return tx, r, err
			}
			tx.Unindex(writ.RunChildren(e.Parent), string(child.ID))
			tx.Unindex(writ.IndexTodo, writ.TodoSettle(a.RunID))
			return tx, r, leave(call, op, s, &tx, e.Parent, child)
		},
	})
}

// leave counts a settled child out of its parent, which may end with it.
func leave(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, id writ.RunID, child writ.Run) error {
	parent, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(id))
	if err != nil || !ok {
		return err
	}
	bad := int64(0)
	if child.State != writ.RunDone {
		bad = 1
		tx.Add(writ.RunBadTasks(id), 1)
	}
	tx.Add(writ.RunOpenTasks(id), -1)
	switch {
	case writ.RunMoves.Terminal(parent.State):
		if parent.Parent != "" {
			tx.Index(writ.IndexTodo, writ.TodoSettle(id), s.Now)
		}
	case parent.State == writ.RunActive:
		if parent.Sealed && parent.Concludes() {
			if to := parent.Closing(s, tx, 1, bad); to != writ.RunActive {
				return move(call, op, s, tx, &parent, to)
			}
		}
		tx.Index(writ.IndexTodo, todoOffer(id), s.Now) // there may be enough for a claim again
	}
	return nil
}
