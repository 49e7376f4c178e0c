package runs

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// What lists and counters hold about runs follows from their documents. This file
// says how, for who looks whether it still does; no verb uses it.

// Follower says what follows from the documents of runs.
func Follower() writ.Follower {
	return writ.Follower{Kind: writ.ObjectRun, Reads: followReads, Sound: coherent, Implies: implies, Counts: counts}
}

// idle are lists of what is cancelled when a run has ended.
func idle(id writ.RunID) (out []writ.Range) {
	for _, s := range []writ.TaskState{writ.TaskQueued, writ.TaskParked, writ.TaskBlocked, writ.TaskVerifying} {
		out = append(out, writ.Range{Index: writ.RunTasksIn(id, s), Limit: 1})
	}
	return append(out, openChildren(id))
}

func openChildren(id writ.RunID) writ.Range {
	return writ.Range{Index: writ.RunChildrenOpen(id), Limit: 1}
}

func followReads(id string, s writ.Snapshot) (rs writ.ReadSet, err error) {
	run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(id)))
	if run.Parent != "" {
		rs.Docs = append(rs.Docs, writ.EscrowKey(run.ID))
	}
	if writ.RunMoves.Terminal(run.State) {
		rs.Ranges = idle(run.ID)
	}
	return rs, err
}

// escrowOf is what a child run was given; not held where there is none.
func escrowOf(s writ.Snapshot, run writ.Run) (e writ.Escrow, err error) {
	if run.Parent != "" {
		e, _, _, err = writ.Get[writ.Escrow](s, writ.EscrowKey(run.ID))
	}
	return e, err
}

// coherent says what contradicts itself in a run.
func coherent(id string, s writ.Snapshot) (string, error) {
	run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(id)))
	if err != nil {
		return "", err
	}
	wrong := writ.Incoherent(writ.ObjectRun, id, string(run.ID), writ.RunMoves, run.State)
	if wrong == "" && run.Parent != "" && s.Docs[writ.EscrowKey(run.ID)].Version == 0 {
		wrong = "nothing says what the parent of the run gave it"
	}
	return wrong, nil
}

func implies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(id)))
	if err != nil {
		return nil, err
	}
	e, err := escrowOf(s, run)
	if err != nil {
		return nil, err
	}
	is, ended := "the run is "+string(run.State), writ.RunMoves.Terminal(run.State)
	out := []writ.Implied{
		writ.InIf(true, writ.IndexRuns, id, "there is such a run"),
		writ.InIf(true, OwnedBy(run.Owner), id, "there is such a run"),
		writ.InIf(run.State == writ.RunVerifying, writ.IndexClose, id, is),
	}
	if run.Parent != "" {
		out = append(out,
			writ.InIf(!ended, writ.RunChildrenOpen(run.Parent), id, is),
			writ.InIf(e.State == writ.EscrowHeld, writ.RunChildren(run.Parent), id, "what its parent gave it is "+string(e.State)))
	}
	if w := run.Workflow; w != nil {
		unfolding := run.Unfolding()
		out = append(out,
			writ.Implied{Entry: writ.Entry{Index: writ.IndexUnfold, Member: id, Score: s.Now}, Out: !unfolding, Any: true, Why: "steps of its workflow are not its tasks yet"},
			writ.InIf(unfolding, writ.BlobHolders(strings.TrimPrefix(w.Digest, "sha256:")), id, is))
	}
	later := func(is bool, member string) { // whoever comes to it for nothing drops it
		if is {
			out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: member}, Any: true, Why: "something is left to be done after it"})
		}
	}
	later(ended && e.State == writ.EscrowHeld, writ.TodoSettle(run.ID))
	if ended {
		later(run.Nests && len(s.Ranges[openChildren(run.ID)].Members) > 0, writ.TodoCascade(run.ID))
		left := false
		for _, r := range idle(run.ID) {
			left = left || r != openChildren(run.ID) && len(s.Ranges[r].Members) > 0
		}
		later(left, todoReap(run.ID))
	}
	if !ended && run.StallAfter > 0 {
		out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: writ.TodoStall(run.ID), Score: s.Now + run.StallAfter*1000}, Any: true, Why: is})
	}
	if _, limits := run.Limited(writ.BudgetWall); limits && !ended {
		at := run.LastsTo()
		if run.State == writ.RunActive { // whose time is up and who goes on is looked at now and then
			at = min(at, max(run.TimeUp(), s.Now+overrunAgainMs))
		}
		out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: writ.TodoOverrun(run.ID), Score: at}, Soon: true, Why: is})
	}
	return out, nil
}

// counts: a child run is open in its parent until what it was given is settled, and
// holds that much of the parent's budget.
func counts(id string, s writ.Snapshot) ([]writ.Count, error) {
	run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(writ.RunID(id)))
	if err != nil {
		return nil, err
	}
	out := []writ.Count{{Counter: writ.RunOpenTasks(run.ID)}, {Counter: writ.RunBadTasks(run.ID)}, {Counter: writ.RunEffects(run.ID)}}
	for _, dim := range writ.Dimensions(run.Budget) {
		out = append(out, writ.Count{Counter: writ.BudgetHeld(run.ID, dim)})
	}
	if w := run.Workflow; w != nil {
		n := int64(0)
		if run.Unfolding() {
			n = w.Bytes
		}
		for _, tag := range w.Counted {
			out = append(out, writ.Count{Counter: writ.QuotaUsed(tag), N: n})
		}
	}
	e, err := escrowOf(s, run)
	if err != nil {
		return nil, err
	}
	switch {
	case e.State == writ.EscrowHeld:
		out = append(out, writ.Count{Counter: writ.RunOpenTasks(e.Parent), N: 1})
		for _, dim := range writ.Dimensions(e.Amounts) {
			out = append(out, writ.Count{Counter: writ.BudgetHeld(e.Parent, dim), N: e.Amounts[dim]})
		}
	case e.State == writ.EscrowSettled && run.State != writ.RunDone:
		out = append(out, writ.Count{Counter: writ.RunBadTasks(e.Parent), N: 1})
	}
	return out, nil
}
