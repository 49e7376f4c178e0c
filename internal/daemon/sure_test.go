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
