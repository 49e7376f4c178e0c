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

// possible says whether a parent could ever give what a child would take. Whether
// it has that much left is judged like any other charge.
func possible(parent writ.Run, take map[string]int64) bool {
	for dim, n := range take {
		if n > parent.Limit(dim) {
			return false
		}
	}
	return true
}

// nest makes run a child, for which the parent does not end before it. That what
// it may spend the parent cannot any more, the obligor of budgets sees to, by what
// the call describes as its charge; here that much is noted as held.
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
			tx.Add(writ.BudgetHeld(parent.ID, dim), n)
		}
	}
	tx.Add(writ.RunOpenTasks(parent.ID), 1)
	tx.Index(writ.RunChildren(parent.ID), string(run.ID), 0)
	tx.Index(writ.RunChildrenOpen(parent.ID), string(run.ID), 0)
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
