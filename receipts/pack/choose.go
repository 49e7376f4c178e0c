package pack

import (
	"fmt"
	"iter"
	"slices"

	"github.com/writ-gateway/writ"
)

// choose says which receipts are of the scope. Of a run it is those filed under it, what was done
// to its tasks elsewhere, the parents they name, how the tasks were made that its
// own come from, how every session and agent came to be that acted in it, and all that was decided
// about approvals: that is looked for from the end, since a session was opened by an earlier one.
// And what says that evidence of one of these was shredded. What is said of receipt keys is in
// every pack.
func (w *writer) choose() error {
	switch w.o.Scope.Kind {
	case ScopeLog:
		w.chosen = func(int64) bool { return true }
		return nil
	case ScopeRange:
		w.chosen = func(seq int64) bool { return w.o.Scope.First <= seq && seq <= w.o.Scope.Last || w.ofKeys[seq] }
		return nil
	}
	run := w.o.Scope.Run
	sessions, agents, approvals, parents, take := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[writ.ReceiptID]bool{}, map[int64]bool{}
	from, runs, shredded := newOrigins(), map[writ.RunID]bool{}, map[int64]writ.RunID{}
	for seq := w.sp.n - 1; seq >= 0; seq-- {
		r, rec, err := w.sp.get(seq)
		if err != nil {
			return err
		}
		st := rec.Statement
		inRun := st.Run == run || slices.ContainsFunc(st.Changes, func(c writ.Change) bool { return c.Kind == writ.ObjectRun && c.ID == string(run) })
		about := from.has(st, inRun) || parents[r.ID] || slices.ContainsFunc(st.Changes, func(c writ.Change) bool {
			switch c.Kind {
			case writ.ObjectTask:
				return w.tasks[c.ID]
			case writ.ObjectSession:
				return c.From == "" && sessions[c.ID]
			case writ.ObjectAgent:
				return agents[c.ID]
			}
			return c.Kind == writ.ObjectApproval && approvals[c.ID]
		})
		if inRun {
			for _, p := range st.Parents {
				parents[p] = true
			}
		}
		if of, ok := shreds(st); ok {
			shredded[seq] = of
		}
		if inRun || about {
			take[seq], runs[st.Run] = true, true
			sessions[string(st.Actor.Session)], agents[string(st.Actor.Agent)] = true, true
			for _, c := range st.Changes {
				if c.Kind == writ.ObjectApproval {
					approvals[c.ID] = true
				}
			}
		}
		w.told(w.sp.n-seq, w.sp.n, "looked through")
	}
	for seq, of := range shredded {
		if runs[of] {
			take[seq] = true
		}
	}
	if len(take) > maxReceipts {
		return fmt.Errorf("a pack has at most %d receipts, and this run has more: export its log in ranges", maxReceipts)
	}
	w.chosen = func(seq int64) bool { return take[seq] || w.ofKeys[seq] }
	return nil
}

// seqs are the sequences of the scope.
func (w *writer) seqs() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for seq := range w.sp.n {
			if w.chosen(seq) && !yield(seq) {
				return
			}
		}
	}
}
