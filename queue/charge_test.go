package queue

import (
	"maps"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/budgets"
	"github.com/writ-gateway/writ/writtest"
)

func amount(v int64) *int64 { return &v }

// limited makes the lab's run limit more than steps, and agent-a's tool state
// what it uses.
func limited(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	run, _, _ := writtest.Get[writ.Run](l.w, writ.RunKey(l.run))
	run.Budget = map[string]int64{
		writ.BudgetSteps: 1000, writ.BudgetMoney: 10_000, writ.BudgetStorage: 1 << 20, writ.BudgetRetries: 5,
		writ.BudgetMemory: 1 << 30, writ.BudgetWall: 1_000_000,
	}
	l.w.Seed(writ.RunKey(l.run), writ.ObjectRun, run)
	agent, _, _ := writtest.Get[writ.Agent](l.w, writ.AgentKey("agent-a"))
	agent.Tools[0].Costs = &writ.ToolCosts{Money: amount(700), Memory: amount(1 << 20)}
	l.w.Seed(writ.AgentKey("agent-a"), writ.ObjectAgent, agent)
	return l
}

// charged makes a call with the part of budgets the door adds.
func (l *lab) charged(id writ.CapabilityID, by writ.Caller, args any) (writ.Reply, map[string]int64) {
	l.Helper()
	reply, took, err := l.w.Charge(l.caps[id], by, args, budgets.New())
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return reply, took
}

func (l *lab) meters() (used, held map[string]int64) {
	used, held = map[string]int64{}, map[string]int64{}
	for _, dim := range writ.BudgetDimensions() {
		if v := l.w.Counter(writ.BudgetUsed(l.run, dim)); v != 0 {
			used[dim] = v
		}
		if v := l.w.Counter(writ.BudgetHeld(l.run, dim)); v != 0 {
			held[dim] = v
		}
	}
	return used, held
}

// What a claim takes is held until the attempt ends; then what the gateway knows
// was not used goes back, and what only the agent could know does not.
func TestAnAttemptIsChargedAndSettled(t *testing.T) {
	const result = `{"ok":true}`
	for name, c := range map[string]struct {
		end  func(l *lab, g grip)
		used map[string]int64
	}{
		"completed": {
			func(l *lab, g grip) { l.charged("task.complete", l.a, g.complete()) },
			map[string]int64{writ.BudgetSteps: 2, writ.BudgetMoney: 700, writ.BudgetStorage: 2 + int64(len(result)), writ.BudgetMemory: 1 << 20},
		},
		"failed": {
			func(l *lab, g grip) {
				l.charged("task.fail", l.a, &TaskFailArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}, Failure: TaskFailure{Class: writ.FailureExternal, Code: "x"}})
			},
			map[string]int64{writ.BudgetSteps: 2, writ.BudgetMoney: 700, writ.BudgetStorage: 2, writ.BudgetMemory: 1 << 20},
		},
		"released": {
			func(l *lab, g grip) {
				l.charged("task.release", l.a, &TaskReleaseArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}})
			},
			map[string]int64{writ.BudgetSteps: 1, writ.BudgetMoney: 700, writ.BudgetStorage: 2, writ.BudgetMemory: 1 << 20},
		},
		"expired": {
			func(l *lab, g grip) {
				l.w.Advance(3600)
				l.charged("task.expire", l.w.System(), &TaskSweepArgs{Task: g.task})
			},
			map[string]int64{writ.BudgetSteps: 1, writ.BudgetMoney: 700, writ.BudgetStorage: 2, writ.BudgetMemory: 1 << 20},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := limited(t)
			reply, took := l.charged("task.enqueue", l.owner, &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", Agents: []writ.AgentID{"agent-a"}})
			if want := map[string]int64{writ.BudgetStorage: 2}; !maps.Equal(took, want) { // "{}"
				t.Fatalf("enqueueing took %v", took)
			}
			id := body[TaskView](l, reply).ID
			reply, took = l.charged("task.claim", l.a, &TaskClaimArgs{Task: id})
			want := map[string]int64{writ.BudgetSteps: 2, writ.BudgetMoney: 700, writ.BudgetStorage: MaxArgsBytes, writ.BudgetMemory: 1 << 20}
			if !maps.Equal(took, want) {
				t.Fatalf("the claim took %v", took)
			}
			_, held := l.meters()
			if want := map[string]int64{writ.BudgetSteps: 1, writ.BudgetMoney: 700, writ.BudgetStorage: MaxArgsBytes}; !maps.Equal(held, want) {
				t.Fatalf("the run holds %v", held)
			}
			claimed := body[TaskClaimed](l, reply)
			c.end(l, grip{id, claimed.Lease.ID, claimed.Lease.Fence})
			used, held := l.meters()
			if len(held) != 0 || !maps.Equal(used, c.used) {
				t.Fatalf("used %v, want %v; still held %v", used, c.used, held)
			}
		})
	}
}

// The second attempt is a retry; the first is none.
func TestRetriesAreCharged(t *testing.T) {
	l := limited(t)
	reply, _ := l.charged("task.enqueue", l.owner, &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", Agents: []writ.AgentID{"agent-a"}})
	id := body[TaskView](l, reply).ID
	for attempt := range int64(3) {
		reply, took := l.charged("task.claim", l.a, &TaskClaimArgs{Task: id})
		if took[writ.BudgetRetries] != min(attempt, 1) {
			t.Fatalf("attempt %d took %v", attempt+1, took)
		}
		c := body[TaskClaimed](l, reply)
		if attempt < 2 {
			l.charged("task.fail", l.a, &TaskFailArgs{
				TaskHold: TaskHold{Task: id, Lease: c.Lease.ID, Fence: c.Lease.Fence}, Failure: TaskFailure{Class: writ.FailureExternal, Code: "x", Retryable: true},
			})
			l.w.Advance(1000)
			if _, _, err := l.try("task.ready", l.w.System(), &TaskSweepArgs{Task: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if used, held := l.meters(); used[writ.BudgetRetries] != 2 || held[writ.BudgetRetries] != 1 {
		t.Fatalf("used %v, held %v", used, held)
	}
	// What is given back was no attempt, and so no retry.
	c, version, _ := writtest.Get[writ.Task](l.w, writ.TaskKey(id))
	l.charged("task.release", l.a, &TaskReleaseArgs{TaskHold: TaskHold{Task: id, Lease: c.Lease.ID, Fence: c.FenceOf(version)}})
	if used, held := l.meters(); used[writ.BudgetRetries] != 1 || len(held) != 0 {
		t.Fatalf("used %v, held %v", used, held)
	}
}

// A task that used up its own retries is dead, and its run goes on.
func TestATaskHasItsOwnRetries(t *testing.T) {
	l := limited(t)
	run, _, _ := writtest.Get[writ.Run](l.w, writ.RunKey(l.run))
	run.Budget[writ.BudgetTaskRetries] = 1
	l.w.Seed(writ.RunKey(l.run), writ.ObjectRun, run)
	id := l.enqueue("one", attempts(5), backoff(1000))
	for attempt := range 2 {
		g := l.claim(l.a, id)
		l.do("task.fail", l.a, &TaskFailArgs{TaskHold: TaskHold{Task: id, Lease: g.lease, Fence: g.fence}, Failure: TaskFailure{Class: writ.FailureExternal, Code: "x", Retryable: true}})
		if attempt == 0 {
			l.wantState(id, writ.TaskQueued)
			l.w.Advance(10)
			l.sweep("task.ready", &TaskSweepArgs{Task: id})
		}
	}
	l.wantState(id, writ.TaskDead)
	if got := l.runDoc(); got.State != writ.RunActive {
		t.Fatalf("the run is %s", got.State)
	}
	audit(l)
}

// A lease of before it was counted what runs hold gives back what it paid, and
// makes nothing held that never was.
func TestAnOldLeaseHoldsNothing(t *testing.T) {
	l := newLab(t)
	g := l.claim(l.a, l.enqueue("one"))
	old, _, _ := writtest.Get[writ.Task](l.w, writ.TaskKey(g.task))
	old.Lease.Held, old.Lease.Fence = nil, g.fence
	l.w.Seed(writ.TaskKey(g.task), writ.ObjectTask, old)
	l.w.SetCounter(writ.BudgetHeld(l.run, writ.BudgetSteps), 0)
	l.w.SetCounter(writ.BudgetUsed(l.run, writ.BudgetSteps), 2)
	l.do("task.release", l.a, &TaskReleaseArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}})
	if used, held := l.meters(); len(held) != 0 || used[writ.BudgetSteps] != 1 {
		t.Fatalf("used %v, held %v", used, held)
	}
}

// A run that limits what tools cost takes no tool that does not say.
func TestUnpricedToolsAreTold(t *testing.T) {
	l := limited(t)
	one := l.enqueue("one")
	price := func(by writ.Caller, agent writ.AgentID) *writ.PriceFacts {
		t.Helper()
		k := l.caps["task.claim"]
		p, err := l.w.Plan(k, l.w.NewCall(k, by, &TaskClaimArgs{Task: one}))
		if err != nil {
			t.Fatal(err)
		}
		return p.Subject.Price
	}
	if got := price(l.a, "agent-a"); got == nil || !got.Known || got.MicroUSD != 700 {
		t.Fatalf("got %+v", got)
	}
	if got := price(l.b, "agent-b"); got == nil || got.Known {
		t.Fatalf("got %+v", got)
	}
	agent, _, _ := writtest.Get[writ.Agent](l.w, writ.AgentKey("agent-a"))
	agent.Tools[0].Costs.Memory = nil // money alone is not all the run limits
	l.w.Seed(writ.AgentKey("agent-a"), writ.ObjectAgent, agent)
	if got := price(l.a, "agent-a"); got == nil || got.Known {
		t.Fatalf("got %+v", got)
	}
}
