// Package budgets holds every call made inside a run to the run's budget: it
// tells policy what the call would take and whether that fits, and adds to the
// transaction the counters that charge it and the guards under which policy's
// answer still holds.
//
// It is pure planning and has no capabilities of its own, and it meters nothing:
// rooms say what their calls take (writ.Charge, writ.Capability.Steps), and give
// back what was not used. Its invariants: the counter of a run passes its limit
// only where policy allows that; no call commits on budget facts other than the
// ones policy judged; an uncharged call adds nothing; of one mark a run is
// warned once.
package budgets

import (
	"maps"
	"strings"

	"github.com/writ-gateway/writ"
)

// Obligor adds the conditions of budgets to calls.
type Obligor struct{}

// New makes an Obligor.
func New() Obligor { return Obligor{} }

// onExceed is what becomes of a run that wants more than its limit, where its
// policy does not say.
const onExceed = "hard_stop"

// Reads asks for the run of the call and, once it is known what the run limits,
// for what it has used of that.
func (Obligor) Reads(_ *writ.Call, _ *writ.Capability, s writ.Snapshot, sub writ.Subject) (rs writ.ReadSet, err error) {
	if sub.Run == nil {
		return rs, nil
	}
	rs.Docs = []writ.Key{writ.RunKey(sub.Run.ID)}
	if !s.Has(rs.Docs[0]) {
		return rs, nil
	}
	run, _, ok, err := writ.Get[writ.Run](s, rs.Docs[0])
	if err != nil || !ok {
		return rs, err
	}
	for dim := range run.Budget {
		rs.Counters = append(rs.Counters, writ.BudgetWarned(run.ID, dim))
		if writ.MeasureOf(dim) != writ.MeasureTime {
			rs.Counters = append(rs.Counters, writ.BudgetUsed(run.ID, dim))
		}
	}
	return rs, nil
}

// entry is one dimension of a run's budget on its way through a call.
type entry struct {
	facts  writ.BudgetFacts
	used   int64
	lo, hi int64 // between which used may lie; for sums
}

// ledger is the budget of a run as it was read, with what a call takes of it.
// begins says whether the call needs time.
func ledger(run writ.Run, s writ.Snapshot, takes writ.Charge, begins bool) []entry {
	out := make([]entry, 0, len(run.Budget))
	for _, dim := range writ.Dimensions(run.Budget) {
		e := entry{used: s.Counters[writ.BudgetUsed(run.ID, dim)]}
		limit := run.Limit(dim)
		switch writ.MeasureOf(dim) {
		case writ.MeasurePeak:
			e.facts = judgePeak(takes[dim], limit)
		case writ.MeasureTime:
			e.facts = judgeTime(run.Worked(s.Now), limit, begins)
		default:
			e.facts, e.lo, e.hi = judge(e.used, takes[dim], limit)
		}
		e.facts.Dimension = dim
		out = append(out, e)
	}
	return out
}

// takes is what a call is charged if it moves an object.
func takes(c *writ.Call, k *writ.Capability, sub writ.Subject) (charge writ.Charge, begins bool) {
	_, begins = sub.Charge[writ.BudgetWall]
	if steps := cost(c, k); steps > 0 {
		charge = maps.Clone(sub.Charge)
		if charge == nil {
			charge = writ.Charge{}
		}
		charge[writ.BudgetSteps] = steps
		return charge, begins
	}
	return sub.Charge, begins
}

// Facts tells policy what the call would cost its run: nothing, if it would not
// move an object even when allowed. A run that does not exist has no budget to
// judge; the plan refuses it.
func (Obligor) Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error {
	if sub.Run == nil {
		return nil
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(sub.Run.ID))
	if err != nil || !ok {
		return err
	}
	charge, begins := takes(c, k, *sub)
	if len(charge) > 0 && k.Class != writ.Mandate && !moves() {
		charge, begins = nil, false
	}
	for _, e := range ledger(run, s, charge, begins) {
		sub.Budget = append(sub.Budget, e.facts)
	}
	return nil
}

// Oblige charges the call and guards the bands policy judged it in, and says
// which marks it takes the run to for the first time.
//
// Only calls that move an object are charged: a metered call that found
// nothing to do, or only re-sorted a queue, used nothing. A claim pays for the
// end of its attempt too; the room that ends attempts gives back what was not
// used.
func (Obligor) Oblige(_ *writ.Call, _ *writ.Capability, s writ.Snapshot, sub writ.Subject, tx *writ.Tx) (map[string]int64, []writ.BudgetWarning, error) {
	if sub.Run == nil || len(sub.Budget) == 0 || tx.Empty() {
		return nil, nil, nil
	}
	run, _, _, err := writ.Get[writ.Run](s, writ.RunKey(sub.Run.ID))
	if err != nil {
		return nil, nil, err
	}
	var charged map[string]int64
	var warnings []writ.BudgetWarning
	moves := len(tx.Changes) > 0
	for _, f := range sub.Budget {
		counter := writ.BudgetUsed(run.ID, f.Dimension)
		used := s.Counters[counter]
		switch writ.MeasureOf(f.Dimension) {
		case writ.MeasureTime:
			if run.State == writ.RunActive { // else no time passes, or none that counts
				tx.NotAfter(run.WorkedUp(sameUntil(f)))
			}
		case writ.MeasurePeak:
			if moves && f.Cost > used {
				tx.Within(counter, used, used)
				tx.Add(counter, f.Cost-used)
			}
		default:
			_, lo, hi := judge(used, f.Cost, f.Limit)
			tx.Within(counter, lo, hi)
			switch {
			case f.Cost == 0 || !moves:
			case f.Fits:
				tx.AddUpTo(counter, f.Cost, f.Limit)
			default: // policy only warns of this limit
				tx.Add(counter, f.Cost)
			}
		}
		if !moves {
			continue
		}
		if f.Cost > 0 {
			if charged == nil {
				charged = map[string]int64{}
			}
			charged[f.Dimension] = f.Cost
		}
		seen := writ.BudgetWarned(run.ID, f.Dimension)
		if mark := warns(f, s.Counters[seen]); mark > 0 {
			tx.Within(seen, s.Counters[seen], s.Counters[seen])
			tx.Add(seen, mark-s.Counters[seen])
			warnings = append(warnings, writ.BudgetWarning{Run: run.ID, Dimension: f.Dimension, Percent: mark})
		}
	}
	return charged, warnings, nil
}

// Denied leaves a due entry "exhaust <run> <dimension> <amount>" when a rule
// budgets.hard_stop.… refused those who work in a run what it has not left: the
// run is to be failed. Others are only refused.
func (Obligor) Denied(c *writ.Call, s writ.Snapshot, sub writ.Subject, d writ.Decision, tx *writ.Tx) {
	if sub.Run == nil || !c.Caller.Role.Works() {
		return
	}
	for _, f := range sub.Budget {
		if f.Cost == 0 || f.Fits {
			continue
		}
		for _, rule := range d.Rules() {
			if dim, ok := strings.CutPrefix(rule, "budgets.hard_stop."); ok && dim == f.Dimension {
				tx.Index(writ.IndexTodo, writ.TodoExhaust(sub.Run.ID, dim, f.Cost), s.Now)
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
