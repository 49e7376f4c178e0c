package queue

import "github.com/writ-gateway/writ"

// TaskCeiling limits what all attempts at a task together may take.
type TaskCeiling struct {
	Tokens *int64 `json:"llm_tokens,omitempty" doc:"Tokens of language models, in and out." minimum:"0" maximum:"100000000000000"`
	Money  *int64 `json:"cost_microusd,omitempty" doc:"Millionths of a US dollar." minimum:"0" maximum:"100000000000000"`
	CPU    *int64 `json:"sandbox_cpu_ms,omitempty" doc:"Milliseconds of processor time." minimum:"0" maximum:"100000000000000"`
}

// stored is the ceiling as the task keeps it.
func (a *TaskCeiling) stored(op string) (*writ.TaskBudget, error) {
	if a == nil {
		return nil, nil
	}
	b := &writ.TaskBudget{Limits: map[string]int64{}}
	for dim, n := range map[string]*int64{writ.BudgetTokens: a.Tokens, writ.BudgetMoney: a.Money, writ.BudgetCPU: a.CPU} {
		switch {
		case n == nil:
		case *n < 0 || *n > writ.MaxAmount:
			return nil, invalid(op, "/budget/"+dim, "must be 0 to 100000000000000")
		default:
			b.Limits[dim] = *n
		}
	}
	if len(b.Limits) == 0 {
		return nil, nil
	}
	return b, nil
}

// ceilingOf is the request that would give a task the same ceiling.
func ceilingOf(b *writ.TaskBudget) *TaskCeiling {
	if b == nil {
		return nil
	}
	of := func(dim string) *int64 {
		if n, limits := b.Limits[dim]; limits {
			return &n
		}
		return nil
	}
	return &TaskCeiling{Tokens: of(writ.BudgetTokens), Money: of(writ.BudgetMoney), CPU: of(writ.BudgetCPU)}
}

// TaskMeter is a limit of a task and how far it is used.
type TaskMeter struct {
	Limit     int64 `json:"limit" doc:"What all attempts together may take."`
	Used      int64 `json:"used" doc:"What the claims so far were charged."`
	Remaining int64 `json:"remaining" doc:"What is left."`
}

func shownCeiling(b *writ.TaskBudget) map[string]TaskMeter {
	if b == nil {
		return nil
	}
	out := map[string]TaskMeter{}
	for dim, limit := range b.Limits {
		out[dim] = TaskMeter{limit, b.Spent[dim], limit - b.Spent[dim]}
	}
	return out
}
