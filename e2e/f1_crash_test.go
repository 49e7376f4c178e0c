package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Every gateway is killed while an agent is revoked, at the moment of the answer or
// anywhere around it: the agent is stopped with all it set going or not at all, nobody
// has to ask again, and everything ends once.
func TestKilledWhileAnAgentIsRevoked(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		rng := random(t)
		c := newCast(t, w)
		cancelled, halved := map[string]int{}, 0
		for round := range shortRounds() + 2 {
			name := fmt.Sprintf("rogue-%d", round)
			w.op.ok(201, "PUT", "/v1/agents/"+name, obj{
				"archetypes": []string{"orchestrator", "executor"}, "domain": "web", "max_concurrent_tasks": 100,
				"tools": []obj{{"name": "site.raid", "safety": "mutating"}, {"name": "site.burn", "safety": "destructive"}},
			})
			w.op.ok(200, "POST", "/v1/agents/"+name+"/activate", nil)
			plans, works := w.session(name, writ.RoleOrchestrator, writ.AgentID(name)), w.session(name, writ.RoleExecutor, writ.AgentID(name))
			run := plans.ok(201, "POST", "/v1/runs", obj{"title": "a raid", "budget": obj{"steps": 1000}}).str("run_id")
			var tasks []string
			for i := range 20 { // more than one step of the cascade takes back
				id := plans.ok(201, "POST", "/v1/tasks", obj{"run_id": run, "key": fmt.Sprintf("raid-%d", i), "capability": "site.raid", "required_domain": "web", "required_agents": []string{name}}).str("task_id")
				if tasks = append(tasks, id); i < 5 {
					works.claim(id)
				}
			}
			asked := plans.waits("POST", "/v1/tasks", obj{"run_id": run, "key": "burn", "capability": "site.burn", "required_domain": "web", "required_agents": []string{name}})
			mine := c.enqueue("mine-"+name, obj{"capability": "site.raid", "required_agents": []string{name}, "backoff_ms": 0})
			works.claim(mine)

			answered := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				defer close(answered)
				_, _ = w.op.try("POST", "/v1/agents/"+name+"/revoke", nil)
			})
			moment := time.After(time.Duration(rng.Int64N(int64(30 * time.Millisecond))))
			if round%2 == 0 {
				moment = nil
			}
			select {
			case <-moment:
			case <-answered:
			}
			for _, g := range w.gw {
				g.kill()
			}
			wg.Wait()
			before := time.Now()
			for _, g := range w.gw {
				g.start()
			}
			w.ready()

			agent := w.op.ok(200, "GET", "/v1/agents/"+name, nil)
			stopped := agent.str("state") == "suspended"
			switch {
			case stopped:
				plans.refused(401, writ.CodeUnauthenticated, "GET", "/v1/runs/"+run, nil)
			case round%2 == 0:
				t.Fatalf("it was answered, and the agent is %s", agent)
			default:
				if s := c.state(tasks[0]); s != writ.TaskRunning {
					t.Errorf("the agent was not stopped, and its task is %s", s)
				}
				w.op.ok(200, "POST", "/v1/agents/"+name+"/revoke", nil)
			}
			within(t, 30*time.Second, "all it set going is gone", func() bool {
				return w.op.ok(200, "GET", "/v1/agents/"+name, nil).at("revocation", "swept") == true
			})
			at, err := time.Parse(time.RFC3339, w.op.ok(200, "GET", "/v1/agents/"+name, nil).at("revocation", "swept_at").(string))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("round %d: after the kill the agent was %s, and swept %v after it", round, agent.str("state"), at.Sub(before))
			if stopped && at.After(before) {
				halved++
			}
			for _, id := range tasks {
				cancelled[id] = 0
				if s := c.state(id); s != writ.TaskCancelled {
					t.Errorf("a task it had enqueued is %s", s)
				}
			}
			if s := c.state(mine); s != writ.TaskQueued {
				t.Errorf("the task it worked on is %s", s)
			}
			if r := w.approval(asked); r.str("state") != "revoked" {
				t.Errorf("%s", r)
			}
			for _, by := range []caller{plans, works} {
				by.refused(401, writ.CodeUnauthenticated, "GET", "/v1/runs/"+run, nil)
				if r := w.op.ok(200, "GET", "/v1/sessions/"+string(by.id), nil); r.str("state") != "revoked" {
					t.Errorf("%s", r)
				}
			}
		}
		if halved == 0 {
			t.Error("this tested nothing: no kill came before the end of a sweep")
		}
		_, all := w.export()
		for _, s := range all {
			for _, m := range s.Predicate.Changes {
				if n, counts := cancelled[m.ID]; counts && m.To == "cancelled" {
					cancelled[m.ID] = n + 1
				}
			}
		}
		for id, n := range cancelled {
			if n != 1 {
				t.Errorf("%s was cancelled %d times", id, n)
			}
		}
		w.audited()
	})
}
