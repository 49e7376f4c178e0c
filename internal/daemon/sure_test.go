package daemon

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// Leases in runs that are made while the doctor looks count like all others: what he is
// sure of is what one read shows, and not what he had seen before.
func TestSureOfLeasesInRunsMadeMeanwhile(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	p := newPatients(t, d, op)
	x := newWalk(t.Context(), d.store)
	if _, _, err := x.once(); err != nil {
		t.Fatal(err)
	}
	look := x.again(writ.AgentRunning("worker"))
	was, should, exact, err := look()
	if err != nil || !exact || was != should || was == 0 {
		t.Fatalf("%d leases are counted, %d there, sure %v: %v", was, should, exact, err)
	}
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	if err := p.boss.do("run.create", map[string]any{"budget": map[string]any{"steps": 9}}, &run); err != nil {
		t.Fatal(err)
	}
	var task struct {
		ID writ.TaskID `json:"task_id"`
	}
	if err := p.boss.do("task.enqueue", map[string]any{"run_id": run.ID, "key": "later", "capability": "site.build", "required_domain": "web"}, &task); err != nil {
		t.Fatal(err)
	}
	if err := p.worker.do("task.claim", map[string]any{"task_id": task.ID}, nil); err != nil {
		t.Fatal(err)
	}
	if has, should, exact, err := look(); err != nil || !exact || has != should || has != was+1 {
		t.Errorf("with one more in a new run %d leases are counted, %d there, sure %v: %v", has, should, exact, err)
	}
}

// What attempts hold of a budget is summed in one read; of a run with children nothing is sure.
func TestSureOfWhatIsHeld(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	p := newPatients(t, d, op)
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	var task struct {
		ID writ.TaskID `json:"task_id"`
	}
	for _, step := range []struct {
		by   *caller
		id   writ.CapabilityID
		args func() map[string]any
		out  any
	}{
		{p.boss, "run.create", func() map[string]any { return map[string]any{"budget": map[string]any{"steps": 9}} }, &run},
		{p.boss, "task.enqueue", func() map[string]any {
			return map[string]any{"run_id": run.ID, "key": "held", "capability": "site.build", "required_domain": "web"}
		}, &task},
		{p.worker, "task.claim", func() map[string]any { return map[string]any{"task_id": task.ID} }, nil},
	} {
		if err := step.by.do(step.id, step.args(), step.out); err != nil {
			t.Fatal(err)
		}
	}
	x := newWalk(t.Context(), d.store)
	if _, _, err := x.once(); err != nil {
		t.Fatal(err)
	}
	held := writ.BudgetHeld(run.ID, writ.BudgetSteps)
	look := x.again(held)
	if look == nil {
		t.Fatal("nothing shows it")
	}
	has, should, exact, err := look()
	if err != nil || !exact || has != should || has == 0 {
		t.Errorf("%d are held, attempts hold %d, sure %v: %v", has, should, exact, err)
	}
	damage{t, d}.commit(func(tx *writ.Tx) { tx.Add(held, 3) })
	if off, should, exact, err := look(); err != nil || !exact || off != has+3 || should != has {
		t.Errorf("%d are held, attempts hold %d, sure %v: %v", off, should, exact, err)
	}
	if err := p.boss.do("run.create", map[string]any{"parent_run_id": run.ID, "budget": map[string]any{"steps": 2}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, exact, err := look(); err != nil || exact {
		t.Errorf("with a child run it is sure %v: %v", exact, err)
	}
}

// What people are asked is counted in one read too, so that a busy gateway is not said to
// count wrongly.
func TestSureOfWhatPeopleAreAsked(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	p := newPatients(t, d, op)
	x := newWalk(t.Context(), d.store)
	if _, _, err := x.once(); err != nil {
		t.Fatal(err)
	}
	look := x.again(writ.ApprovalsAsked("operator"))
	if look == nil {
		t.Fatal("nothing shows it")
	}
	for _, step := range []struct {
		id   writ.CapabilityID
		args map[string]any
	}{
		{"agent.register", map[string]any{"agent_id": "press", "archetypes": []string{"executor"}, "domain": "press", "tools": []map[string]any{{"name": "press.publish", "safety": "mutating", "approval": "manual"}}}},
		{"agent.activate", map[string]any{"agent_id": "press"}},
		{"task.enqueue", map[string]any{"run_id": p.run, "key": "publish", "capability": "press.publish", "required_domain": "press"}},
	} {
		if err := p.boss.do(step.id, step.args, nil); err != nil {
			t.Fatal(err)
		}
	}
	has, should, exact, err := look()
	if err != nil || !exact || has != should || has == 0 {
		t.Errorf("%d are counted, %d there, sure %v: %v", has, should, exact, err)
	}
	damage{t, d}.commit(func(tx *writ.Tx) { tx.Add(writ.ApprovalsAsked("operator"), 3) })
	if off, should, exact, err := look(); err != nil || !exact || off != has+3 || should != has {
		t.Errorf("%d are counted, %d there, sure %v: %v", off, should, exact, err)
	}
}
