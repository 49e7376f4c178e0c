package queue

import "github.com/writ-gateway/writ"

// attemptCharge is what a claim takes of the budget of its run, beside steps:
// time to work in; the attempt, if it is not the first, nor asked for by who sent
// the result of another one back, which is counted by itself; the most its tool says
// an attempt uses; and room for the largest result there can be, of which what
// is not used is given back.
func attemptCharge(t writ.Task, tool writ.Tool) writ.Charge {
	c := writ.Charge{
		writ.BudgetWall: 0, writ.BudgetStorage: MaxArgsBytes,
		writ.BudgetTaskRetries: tries(t), writ.BudgetRetries: min(tries(t), 1),
	}
	tool.Costs.Each(func(dim string, n *int64) {
		if n != nil {
			c[dim] = *n
		}
	})
	return c
}

// tries are the attempts so far that count against the limits of those: not the
// ones whose result was sent back, of which there is a limit of its own.
func tries(t writ.Task) int64 { return max(0, t.Attempt-t.Rework) }

// priceOf says whether a tool states what its run limits: what nobody states
// cannot be held to a limit.
func priceOf(r writ.Run, tool writ.Tool) *writ.PriceFacts {
	var price *writ.PriceFacts
	tool.Costs.Each(func(dim string, n *int64) {
		if _, limits := r.Limited(dim); !limits {
			return
		}
		if price == nil {
			price = &writ.PriceFacts{Known: true}
		}
		price.Known = price.Known && n != nil
		if dim == writ.BudgetMoney && n != nil {
			price.MicroUSD = *n
		}
	})
	return price
}

// hold notes in the lease what the claim takes of the run's budget for the
// attempt. The charge itself is added by the obligor of budgets, in the same
// transaction.
func (d *draft) hold(t *writ.Task, r writ.Run, tool writ.Tool) {
	before := *t
	before.Attempt-- // the claim has counted it already
	held := r.Metered(attemptCharge(before, tool))
	if t.Lease.Prepaid > 0 {
		if held == nil {
			held = map[string]int64{}
		}
		held[writ.BudgetSteps] = t.Lease.Prepaid
	}
	for _, dim := range writ.Dimensions(held) {
		d.tx.Add(writ.BudgetHeld(t.Run, dim), held[dim])
	}
	if len(held) > 0 {
		t.Lease.Held = held
	}
}

// giveBack ends what the run holds for an attempt: steps that were paid in
// advance and not used, room for a result that was not needed, and the retry when
// the attempt does not count. What the tool
// may have used outside stays charged at the most it said: nobody the gateway
// could rely on measured less.
func (d *draft) giveBack(t *writ.Task) {
	back := func(dim string, held, unused int64) {
		if held > 0 {
			d.tx.Add(writ.BudgetHeld(t.Run, dim), -held)
		}
		if unused > 0 {
			d.tx.Add(writ.BudgetUsed(t.Run, dim), -unused)
		}
	}
	unused := t.Lease.Prepaid
	if d.usedSteps {
		unused = 0
	}
	back(writ.BudgetSteps, t.Lease.Held[writ.BudgetSteps], unused) // leases of before this was counted hold none
	for _, dim := range writ.Dimensions(t.Lease.Held) {
		held := t.Lease.Held[dim]
		switch {
		case dim == writ.BudgetSteps:
		case dim == writ.BudgetStorage:
			back(dim, held, held-min(held, d.stored))
		case dim == writ.BudgetRetries && d.uncounted:
			back(dim, held, held)
		default:
			back(dim, held, 0)
		}
	}
}
