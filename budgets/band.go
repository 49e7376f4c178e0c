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
// just before the next one. A call that adds nothing fits however much is used:
// what has begun can end.
func judge(used, cost, limit int64) (f writ.BudgetFacts, lo, hi int64) {
	total := used + cost
	f = writ.BudgetFacts{Limit: limit, Cost: cost, Fits: cost == 0 || total <= limit, OnExceed: onExceed}
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
	if cost > 0 {
		threshold(limit + 1)
	}
	return f, lo, hi
}

// judgePeak is judge for a call that needs amount at once. Nothing others use
// changes the answer.
func judgePeak(amount, limit int64) writ.BudgetFacts {
	f, _, _ := judge(0, amount, limit)
	return f
}

// judgeTime is judge for a run that has worked for some time. begins says
// whether the call begins something, and so needs time.
func judgeTime(worked, limit int64, begins bool) writ.BudgetFacts {
	f, _, _ := judge(worked, 0, limit)
	if begins {
		f.Fits = worked < limit
	}
	return f
}

// sameUntil is how long a run may have worked for judgeTime to say the same.
func sameUntil(f writ.BudgetFacts) int64 {
	for _, m := range marks {
		if f.Band < m {
			return reaches(m, f.Limit) - 1
		}
	}
	return writ.MaxAmount
}

// reaches is the smallest total that is at least m percent of limit.
func reaches(m, limit int64) int64 {
	return limit/100*m + (limit%100*m+99)/100
}

// warns says which mark a call takes a run to that it was not warned of.
func warns(f writ.BudgetFacts, warned int64) (mark int64) {
	for _, m := range writ.BudgetMarks {
		if f.Band >= m && warned < m {
			mark = m
		}
	}
	return mark
}
