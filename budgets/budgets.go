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
	"slices"
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
// for what is used and held of that; for what it was warned of only if the call
// may take it further.
func (Obligor) Reads(c *writ.Call, k *writ.Capability, s writ.Snapshot, sub writ.Subject) (rs writ.ReadSet, err error) {
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
	charge, _ := takes(c, k, sub)
	for dim := range run.Budget {
		if writ.MeasureOf(dim) != writ.MeasureTime {
			rs.Counters = append(rs.Counters, writ.BudgetUsed(run.ID, dim))
		}
		if charge == nil {
			continue
		}
		rs.Counters = append(rs.Counters, writ.BudgetWarned(run.ID, dim))
		if charge[dim] > 0 && writ.MeasureOf(dim) == writ.MeasureSum {
			rs.Counters = append(rs.Counters, writ.BudgetHeld(run.ID, dim))
		}
	}
	return rs, nil
}

// ledger is the budget of a run as policy sees it, with what a call takes of it.
// begins says whether the call needs time.
func ledger(run writ.Run, s writ.Snapshot, takes writ.Charge, begins bool) []writ.BudgetFacts {
	out := make([]writ.BudgetFacts, 0, len(run.Budget))
	for _, dim := range writ.Dimensions(run.Budget) {
		limit := run.Limit(dim)
		var f writ.BudgetFacts
		switch writ.MeasureOf(dim) {
		case writ.MeasurePeak:
			f = judgePeak(takes[dim], limit)
		case writ.MeasureTime:
			f = judgeTime(run.Worked(s.Now), limit, begins)
		default:
			used, held := s.Counters[writ.BudgetUsed(run.ID, dim)], s.Counters[writ.BudgetHeld(run.ID, dim)]
			f, _, _ = judge(used, takes[dim], limit)
			f.Waits = !f.Fits && held > 0 && used-held+takes[dim] <= limit
		}
		f.Dimension = dim
		out = append(out, f)
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
// move an object even when allowed. That takes a plan to find out, and is asked
// only where it matters: where the cost decides, or tells a mark. A run that does
// not exist has no budget to judge; the plan refuses it.
func (Obligor) Facts(c *writ.Call, k *writ.Capability, s writ.Snapshot, moves func() bool, sub *writ.Subject) error {
	if sub.Run == nil {
		return nil
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(sub.Run.ID))
	if err != nil || !ok {
		return err
	}
	charge, begins := takes(c, k, *sub)
	facts := ledger(run, s, charge, begins)
	if charge != nil && k.Class != writ.Mandate {
		free := ledger(run, s, nil, false)
		same := func(a, b writ.BudgetFacts) bool { return a.Fits == b.Fits && a.Band == b.Band }
		if !slices.EqualFunc(facts, free, same) && !moves() {
			facts = free
		}
	}
	sub.Budget = append(sub.Budget, facts...)
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
		told, read := s.Counters[seen]
		if mark := warns(f, told); read && mark > 0 {
			tx.Within(seen, told, told)
			tx.Add(seen, mark-told)
			warnings = append(warnings, writ.BudgetWarning{Run: run.ID, Dimension: f.Dimension, Percent: mark})
		}
	}
	return charged, warnings, nil
}

// Denied leaves a due entry writ.TodoExhaust when nothing but the hard limits of
// the run refused those who work in it what it has not left: the run is to be
// looked at, and perhaps failed. What another rule refuses too, what could never
// fit because the tool takes more than all there is, and peaks are the caller's
// trouble and not the run's: another agent may do the work.
func (Obligor) Denied(c *writ.Call, s writ.Snapshot, sub writ.Subject, d writ.Decision, tx *writ.Tx) {
	if sub.Run == nil || !c.Caller.Role.Works() {
		return
	}
	var stopped []string
	for _, f := range d.Findings {
		dim, hard := strings.CutPrefix(f.Rule, "budgets.hard_stop.")
		switch {
		case hard:
			stopped = append(stopped, dim)
		case f.Effect == writ.EffectDeny:
			return
		}
	}
	for _, f := range sub.Budget {
		sums := writ.MeasureOf(f.Dimension) == writ.MeasureSum
		possible := f.Cost <= f.Limit || f.Dimension == writ.BudgetSteps // which every agent takes as many of
		if sums && possible && f.Cost > 0 && !f.Fits && slices.Contains(stopped, f.Dimension) {
			tx.Index(writ.IndexTodo, writ.TodoExhaust(sub.Run.ID, f.Dimension, f.Cost), s.Now)
			return
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
