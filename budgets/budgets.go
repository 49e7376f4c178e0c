// Package budgets holds every call made inside a run to the run's budget: it
// tells policy what the call would cost and whether it fits, and adds to the
// transaction the bounded counter that charges it and the guard under which
// policy's answer still holds.
//
// It is pure planning and has no capabilities of its own. It is not a meter of
// resources: it counts steps. Its invariants: the counter of a run never
// passes its limit; no call commits on budget facts other than the ones policy
// judged; an uncharged call adds nothing.
package budgets

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// Obligor adds the conditions of budgets to calls.
type Obligor struct{}

// New makes an Obligor.
func New() Obligor { return Obligor{} }

// onExceed is what becomes of a run that wants more than its limit.
const onExceed = "hard_stop"

// Reads asks for the run of the call and what it has used.
func (Obligor) Reads(_ *writ.Call, _ *writ.Capability, sub writ.Subject) (writ.ReadSet, error) {
	if sub.Run == nil {
		return writ.ReadSet{}, nil
	}
	return writ.ReadSet{
		Docs:     []writ.Key{writ.RunKey(sub.Run.ID)},
		Counters: []writ.Counter{writ.RunSteps(sub.Run.ID)},
	}, nil
}

// Facts tells policy what the call would cost its run: nothing, if it would not
// move an object even when allowed. A run that does not
// exist has no budget to judge; the plan refuses it.
func (Obligor) Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error {
	if sub.Run == nil {
		return nil
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(sub.Run.ID))
	if err != nil || !ok {
		return err
	}
	used, limit := s.Counters[writ.RunSteps(run.ID)], run.Limit(writ.BudgetSteps)
	charge := cost(c, k)
	if charge > 0 && !moves() {
		charge = 0
	}
	f, _, _ := judge(used, charge, limit)
	sub.Budget = append(sub.Budget, f)
	return nil
}

// Oblige charges the call and guards the band policy judged it in.
//
// Only calls that move an object are charged: a metered call that found
// nothing to do, or only re-sorted a queue, used no step. A claim pays for the
// end of its attempt too; the room that ends attempts gives back what was not
// used (writ.StepsOfAttempt).
func (Obligor) Oblige(_ *writ.Call, _ *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) (map[string]int64, error) {
	if sub.Run == nil || tx.Empty() {
		return nil, nil
	}
	counter := writ.RunSteps(sub.Run.ID)
	for _, f := range sub.Budget {
		if f.Dimension != writ.BudgetSteps {
			continue
		}
		_, lo, hi := judge(s.Counters[counter], f.Cost, f.Limit)
		tx.Within(counter, lo, hi)
		if f.Cost > 0 && len(tx.Changes) > 0 {
			tx.AddUpTo(counter, f.Cost, f.Limit)
			return map[string]int64{writ.BudgetSteps: f.Cost}, nil
		}
	}
	return nil, nil
}

// Denied leaves a due entry "exhaust <run>" when a rule budgets.hard_stop.…
// refused a call that would have been charged: the run is to be failed.
func (Obligor) Denied(_ *writ.Call, s writ.Snapshot, sub writ.Subject, d writ.Decision, tx *writ.Tx) {
	if sub.Run == nil {
		return
	}
	for _, f := range sub.Budget {
		if f.Cost == 0 || f.Fits {
			continue
		}
		for _, rule := range d.Rules() {
			if dim, ok := strings.CutPrefix(rule, "budgets.hard_stop."); ok && dim == f.Dimension {
				tx.Index(writ.IndexTodo, "exhaust "+string(sub.Run.ID), s.Now)
				return
			}
		}
	}
}

// cost is what a call is charged: the steps of its capability when it is made
// by those who work in the run.
func cost(c *writ.Call, k *writ.Capability) int64 {
	if c.Caller.Role.Works() {
		return k.Steps
	}
	return 0
}
