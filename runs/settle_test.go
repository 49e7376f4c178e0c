package runs

import (
	"errors"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// What a child used, and that nothing of it is open, holds when it is settled,
// not only when that is planned.
func TestSettlingIsGuarded(t *testing.T) {
	for name, moves := range map[string]func(writ.RunID) writ.Counter{
		"used": func(id writ.RunID) writ.Counter { return writ.BudgetUsed(id, writ.BudgetSteps) },
		"open": writ.RunOpenTasks,
		"acts": writ.RunEffects,
	} {
		r := newRoom(t)
		child := r.create(r.orc, r.create(r.orc, "", RunBudget{Steps: 20}), RunBudget{Steps: 8})
		r.end(child, writ.RunFailed)
		settle := r.caps["run.settle"]
		p, err := r.Plan(settle, r.NewCall(settle, r.System(), &RunSettleArgs{RunID: child}))
		if err != nil {
			t.Fatal(err)
		}
		r.SetCounter(moves(child), 1)
		_, err = r.Commit(p)
		if _, conflict := errors.AsType[*writtest.Conflict](err); !conflict {
			t.Errorf("%s: settled on what was so no longer: %v", name, err)
		}
	}
}
