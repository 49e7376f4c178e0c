package queue

import (
	"github.com/writ-gateway/writ"
)

// tally counts the tasks of one run that begin and end in a transaction.
type tally struct {
	run               writ.RunID
	began, ended, bad int64
}

func (d *draft) tally(run writ.RunID) *tally {
	for _, t := range d.tallies {
		if t.run == run {
			return t
		}
	}
	d.tallies = append(d.tallies, &tally{run: run})
	return d.tallies[len(d.tallies)-1]
}

// done settles the runs whose tasks ended, and the lanes some came to or left, and gives
// the transaction. A sealed
// run that closes by itself ends with its last task: the count of open tasks
// is guarded, so of two tasks that end at once exactly one ends the run.
func (d *draft) done() (writ.Tx, error) {
	for _, t := range d.tallies {
		if err := d.settle(t); err != nil {
			return writ.Tx{}, err
		}
	}
	return d.tx, d.settleWindows()
}

func (d *draft) settle(t *tally) error {
	r, err := loadRun(d.op, d.s, t.run)
	if err != nil {
		return err
	}
	open, bad := writ.RunOpenTasks(t.run), writ.RunBadTasks(t.run)
	if t.began != t.ended {
		d.tx.Add(open, t.began-t.ended)
	}
	if t.bad > 0 {
		d.tx.Add(bad, t.bad)
	}
	if r.Parent != "" && writ.RunMoves.Terminal(r.State) && d.s.Counters[open] <= t.ended && t.began == 0 { // what its parent gave it can go back
		d.tx.Index(writ.IndexTodo, writ.TodoSettle(r.ID), d.s.Now)
	}
	if r.State != writ.RunActive || !r.Sealed || !r.Concludes() || t.began > 0 {
		return nil // the run's version is guarded, so this still holds at the commit
	}
	to := r.Closing(d.s, &d.tx, t.ended, t.bad)
	if to == writ.RunActive {
		return nil
	}
	from := r.State
	d.tx.Move(writ.ObjectRun, string(r.ID), string(from), string(to))
	r.State, r.UpdatedAt, r.Receipt = to, d.s.Now, d.receipt
	r.Arrive(&d.tx, from, d.s.Now)
	return d.tx.PutDoc(d.s, writ.RunKey(r.ID), writ.ObjectRun, r)
}
