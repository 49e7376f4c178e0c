package budgets

import "github.com/writ-gateway/writ"

// marks are the shares of a limit policy can tell apart, in percent.
var marks = [...]int64{50, 80, 100}

// judge says what policy sees of a dimension in which used is used, a call
// would add cost, and limit is the limit; and between which values, lo and hi,
// used may lie for policy to see the same.
//
// The facts change only where used + cost reaches a mark or passes the limit,
// so the interval runs from the last such threshold at or below used + cost to
// just before the next one.
func judge(used, cost, limit int64) (f writ.BudgetFacts, lo, hi int64) {
	total := used + cost
	f = writ.BudgetFacts{
		Dimension: writ.BudgetSteps, Limit: limit, Cost: cost, Fits: total <= limit, OnExceed: onExceed,
	}
	lo, hi = 0, writ.MaxAmount
	threshold := func(at int64) bool {
		if total < at {
			hi = min(hi, at-1-cost)
			return false
		}
		lo = max(lo, at-cost)
		return true
	}
	for _, m := range marks {
		if threshold(reaches(m, limit)) {
			f.Band = m
		}
	}
	threshold(limit + 1)
	return f, lo, hi
}

// reaches is the smallest total that is at least m percent of limit.
func reaches(m, limit int64) int64 { return (limit*m + 99) / 100 }
