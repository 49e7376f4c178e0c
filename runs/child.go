package runs

import (
	"strconv"

	"github.com/writ-gateway/writ"
)

// parentOf is the run a new one is created in: one the caller may act on.
func parentOf(call *writ.Call, op string, s writ.Snapshot, a *RunCreateArgs) (writ.Run, error) {
	parent, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.Parent))
	switch {
	case err != nil:
		return parent, err
	case !ok || !mayAct(call.Caller, parent):
		return parent, noRun(op)
	}
	return parent, nil
}

// escrow is what a child with these limits takes out of its parent's budget:
// all of what the parent limits and what adds up. unsaid are the dimensions it
// would have to state.
func escrow(parent writ.Run, limits map[string]int64) (take map[string]int64, unsaid []string) {
	take = map[string]int64{}
	for _, dim := range writ.Dimensions(parent.Budget) {
		if writ.MeasureOf(dim) != writ.MeasureSum {
			continue
		}
		n, stated := limits[dim]
		if !stated {
			unsaid = append(unsaid, dim)
			continue
		}
		take[dim] = n
	}
	return take, unsaid
}

// fits says whether the parent has left what a child would take, itself
// included. The commit counts again.
func fits(s writ.Snapshot, parent writ.Run, take map[string]int64) bool {
	for dim, n := range take {
		if dim == writ.BudgetChildren {
			n++
		}
		if s.Counters[writ.BudgetUsed(parent.ID, dim)]+n > parent.Limit(dim) {
			return false
		}
	}
	return true
}

// nest makes run a child: what it may spend its parent cannot any more, and the
// parent does not end before it.
func nest(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, parent writ.Run, run *writ.Run) error {
	switch {
	case parent.State != writ.RunActive || parent.Sealed:
		state := string(parent.State)
		if parent.State == writ.RunActive {
			state = "sealed"
		}
		return writ.Refuse(writ.CodeIllegal, op, "the parent run takes no more work", "create the run without a parent, or in another one").
			With("kind", writ.ObjectRun).With("from", state)
	case parent.Depth+1 > writ.MaxRunDepth:
		return invalid(op, "/parent_run_id", "is "+strconv.Itoa(writ.MaxRunDepth)+" levels deep already, which is the most")
	}
	take, unsaid := escrow(parent, run.Budget)
	if len(unsaid) > 0 {
		e := invalid(op, "", "")
		e.Fields = nil
		for _, dim := range unsaid {
			e.Fields = append(e.Fields, writ.FieldError{Pointer: "/budget/" + dim, Msg: "is required: the parent run limits it, so say how much of it this run gets"})
		}
		return e
	}
	for _, dim := range []string{writ.BudgetMemory, writ.BudgetTaskRetries} {
		if most, limits := parent.Limited(dim); limits {
			if own, stated := run.Budget[dim]; !stated || own > most {
				run.Budget[dim] = most
			}
		}
	}
	run.Parent, run.Root, run.Depth = parent.ID, parent.Root, parent.Depth+1
	if run.Root == "" {
		run.Root = parent.ID
	}
	for _, dim := range writ.Dimensions(take) {
		if n := take[dim]; n > 0 {
			tx.AddUpTo(writ.BudgetUsed(parent.ID, dim), n, parent.Limit(dim))
			tx.Add(writ.BudgetHeld(parent.ID, dim), n)
		}
	}
	tx.Add(writ.RunOpenTasks(parent.ID), 1)
	tx.Index(writ.RunChildren(parent.ID), string(run.ID), 0)
	if !parent.Nests {
		parent.Nests = true
		if err := move(call, op, s, tx, &parent, parent.State); err != nil {
			return err
		}
	}
	return putEscrow(call, s, tx, &writ.Escrow{Child: run.ID, Parent: parent.ID, Amounts: take, CreatedAt: s.Now}, writ.EscrowHeld)
}

// putEscrow moves an escrow and writes it.
func putEscrow(call *writ.Call, s writ.Snapshot, tx *writ.Tx, e *writ.Escrow, to writ.EscrowState) error {
	from := e.State
	e.State, e.UpdatedAt, e.Receipt = to, s.Now, writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0))
	tx.Move(writ.ObjectEscrow, string(e.Child), string(from), string(to))
	return tx.PutDoc(s, writ.EscrowKey(e.Child), writ.ObjectEscrow, *e)
}

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
			case s.Counters[writ.RunOpenTasks(child.ID)] > 0:
				tx.Index(writ.IndexTodo, writ.TodoSettle(a.RunID), s.Now+settleAgainMs)
				return tx, r, nil
			}
			// Nothing is charged to a run that has ended and has nothing open.
			tx.Within(writ.RunOpenTasks(child.ID), 0, 0)
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
		if parent.Sealed && parent.ClosePolicy == writ.CloseAuto {
			if to := closing(s, tx, &parent, 1, bad); to != writ.RunActive {
				return move(call, op, s, tx, &parent, to)
			}
		}
		tx.Index(writ.IndexTodo, todoOffer(id), s.Now) // there may be enough for a claim again
	}
	return nil
}

// RunCascadeArgs name a run that has ended.
type RunCascadeArgs struct {
	RunID writ.RunID `json:"run_id" doc:"The run." pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// RunCascaded says how far it is.
type RunCascaded struct {
	Cancelled int64 `json:"cancelled" doc:"Child runs cancelled by this call."`
}

// cascadeBatch is how many children one call looks at.
const cascadeBatch = 32

func children(id writ.RunID, n int) writ.Range {
	return writ.Range{Index: writ.RunChildren(id), Limit: n}
}

// cascade ends the children of a run that has ended: nobody waits for them.
func cascade() *writ.Capability {
	const op = "runs.Cascade"
	return writ.Define[RunCascadeArgs, RunCascaded](writ.Capability{
		ID: "run.cascade", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Cancel the child runs of a run that has ended.",
	}, writ.Verb[RunCascadeArgs]{
		Reads: func(_ *writ.Call, a *RunCascadeArgs, s writ.Snapshot) (writ.ReadSet, error) {
			page := children(a.RunID, cascadeBatch)
			rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.RunID)}, Ranges: []writ.Range{page}}
			for _, m := range s.Ranges[page].Members {
				rs.Docs = append(rs.Docs, writ.RunKey(writ.RunID(m.Name)))
			}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *RunCascadeArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(s, a.RunID)
		},
		Plan: func(call *writ.Call, a *RunCascadeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			out := RunCascaded{}
			run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(a.RunID))
			if err != nil {
				return tx, r, err
			}
			members := s.Ranges[children(a.RunID, cascadeBatch)].Members
			if !ok || !writ.RunMoves.Terminal(run.State) {
				members = nil
			}
			for _, m := range members {
				child, _, found, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(m.Name)))
				if err != nil {
					return tx, r, err
				}
				if !found || writ.RunMoves.Terminal(child.State) {
					continue
				}
				child.Reason, child.WaitsFor = reasonParent, ""
				if err := move(call, op, s, &tx, &child, writ.RunCancelled); err != nil {
					return tx, r, err
				}
				tx.Index(writ.IndexTodo, todoReap(child.ID), s.Now)
				out.Cancelled++
			}
			if len(members) < cascadeBatch {
				tx.Unindex(writ.IndexTodo, writ.TodoCascade(a.RunID))
			} else { // these leave the list as they are settled
				tx.Index(writ.IndexTodo, writ.TodoCascade(a.RunID), s.Now+lookAgainMs)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
