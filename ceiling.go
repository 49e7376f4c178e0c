package writ

// TaskBudget is what all attempts at a task together may take of what only its tools can
// say. It is counted where it is charged, by the claims, in the task itself. As with what
// the run is charged, none of it comes back: an attempt that is given up has cost what
// its tool states. A task without one is not limited: all methods take nil.
type TaskBudget struct {
	Limits map[string]int64 `json:"limits"`
	Spent  map[string]int64 `json:"spent,omitempty"`
	Last   map[string]int64 `json:"last,omitempty"` // what the present or last attempt took of it
}

// TaskBudgetDimensions lists what a task's own budget may limit. What the gateway itself
// measures is limited in the run alone.
func TaskBudgetDimensions() []string { return []string{BudgetTokens, BudgetMoney, BudgetCPU} }

// Affords says whether an attempt with a tool of these costs fits into what is left. What
// a tool does not state fits no limit.
func (b *TaskBudget) Affords(costs *ToolCosts) bool {
	fits := true
	if b != nil {
		costs.Each(func(dim string, n *int64) {
			limit, limits := b.Limits[dim]
			fits = fits && (!limits || n != nil && *n <= limit-b.Spent[dim])
		})
	}
	return fits
}

// Again says whether an attempt like the last one would fit once more.
func (b *TaskBudget) Again() bool {
	if b != nil {
		for dim, n := range b.Last {
			if n > b.Limits[dim]-b.Spent[dim] {
				return false
			}
		}
	}
	return true
}

// After is the budget once an attempt with a tool is charged.
func (b *TaskBudget) After(costs *ToolCosts) *TaskBudget {
	if b == nil {
		return nil
	}
	out := &TaskBudget{Limits: b.Limits, Spent: map[string]int64{}, Last: map[string]int64{}}
	costs.Each(func(dim string, n *int64) {
		if _, limits := b.Limits[dim]; limits && n != nil {
			out.Spent[dim], out.Last[dim] = b.Spent[dim]+*n, *n
		}
	})
	return out
}
