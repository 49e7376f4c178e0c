package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// TestModel runs random verbs of random sessions over a small world, half of
// them with another call between plan and commit, and audits the whole world
// after every step.
func TestModel(t *testing.T) {
	rounds, steps := 24, 150
	if os.Getenv("WRIT_SOAK") == "1" {
		rounds = 1000
	}
	reached := map[string]int{} // verb and outcome, to see that the model gets everywhere
	for seed := range rounds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			m := &model{lab: newLab(t), r: rand.New(rand.NewPCG(uint64(seed), 7)), fences: map[writ.TaskID]int64{}, reached: reached, calm: seed%4 == 1}
			small(t, []int64{128, 3, 1, 2}[seed%4])
			m.people = []writ.Caller{m.a, m.b, m.w.Open(writ.RoleExecutor, "worker-a2", "agent-a")}
			if seed%3 == 0 {
				m.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseManual })
			}
			m.quotas()
			for range steps {
				m.step()
				m.audit()
				m.levels()
			}
			m.drain()
		})
	}
	for _, want := range []string{
		"task.enqueue", "task.claim", "task.heartbeat", "task.complete", "task.fail", "task.release", "task.cancel",
		"task.expire", "task.ready", "task.wake", "task.refuse", "task.reoffer", "run.reap", "session.cleanup",
		"task.handoff", "task.unreserve", "task.outrun", "task.overdue", "task.admit", "task.revive",
		"task.refill", "task.unblock", "deps_unmet", "task.verify", "verifying>done", "verifying>queued", "verifying>failed", "sod_violation", "predicate_unsatisfied", "blocked>queued", "blocked>failed", "blocked>cancelled",
		"conflict", "parked", "parked on a session", "claims exclusive", "claims shared", "run done", "run failed", "lease_lost", "not_holder", "scope_conflict", "quota_exceeded", "already_claimed",
	} {
		if reached[want] == 0 {
			t.Errorf("the model never reached %q: %v", want, reached)
		}
	}
}

type model struct {
	*lab
	r       *rand.Rand
	people  []writ.Caller
	grips   []grip // every lease that was ever given
	fences  map[writ.TaskID]int64
	reached map[string]int
	made    int
	paid    int64 // committed claims, completions and failures
	calm    bool  // nothing fails for good, so that the run may end well
}

var treeOfScopes = []string{"fs:repo/", "fs:repo/a/", "fs:repo/a/x/", "fs:repo/b/", "mem:notes/"}

// step makes one call; now and then a second one is committed between its plan
// and its commit.
func (m *model) step() {
	m.Helper()
	switch m.r.IntN(12) {
	case 0:
		m.w.Advance(int64(m.r.IntN(40)))
	case 1:
		if m.r.IntN(6) == 0 {
			m.setRun(func(r *writ.Run) {
				r.Sealed = r.Sealed || (r.State == writ.RunActive && m.w.Counter(writ.RunOpenTasks(r.ID)) > 0)
			})
		}
		if m.r.IntN(30) == 0 {
			m.setRun(func(r *writ.Run) { r.State = writ.RunCancelled })
			m.w.SetIndex(writ.IndexTodo, todo(todoRun, string(m.run)), m.w.Now)
		}
		if i := m.r.IntN(len(m.people)); m.r.IntN(10) == 0 {
			m.endSession(m.people[i].Session)
			m.people[i] = m.join(m.people[i].Agent, m.r.IntN(3) > 0)
		}
	}
	first := m.prepare(m.pick())
	if first == nil {
		return
	}
	if m.r.IntN(2) == 0 {
		if second := m.prepare(m.pick()); second != nil {
			m.commit(second)
		}
	}
	m.commit(first)
}

// join opens another session of an agent, which claims a scope if it is to and that is free.
func (m *model) join(agent writ.AgentID, claims bool) writ.Caller {
	m.Helper()
	claim := writ.WriteClaim{Resource: treeOfScopes[m.r.IntN(len(treeOfScopes))], Mode: writ.ScopeExclusive}
	if m.r.IntN(2) == 0 {
		claim.Mode = writ.ScopeShared
	}
	for _, l := range m.w.Members(writ.IndexScopes) {
		scope, _, mode := writ.SplitScopeMember(l)
		if writ.ScopesOverlap(scope, claim.Resource) && (mode != writ.ScopeShared || claim.Mode != writ.ScopeShared) {
			claims = false
		}
	}
	if !claims {
		return m.started(agent)
	}
	m.reached["claims "+string(claim.Mode)]++
	return m.started(agent, claim)
}

type attempt struct {
	id    writ.CapabilityID
	by    writ.Caller
	args  any
	entry *writ.Delivery
}

func (m *model) prepare(a attempt) *writtest.Planned {
	m.Helper()
	call := m.w.NewCall(m.caps[a.id], a.by, a.args)
	call.Entry = a.entry
	p, err := m.w.Plan(m.caps[a.id], call)
	var e *writ.Error
	if errors.As(err, &e) {
		if e.Code == writ.CodeInternal {
			m.Fatalf("%s: %v", a.id, err)
		}
		m.reached[string(e.Code)]++
		return nil
	}
	if err != nil {
		m.Fatalf("%s: %v", a.id, err)
	}
	// The door charges what moves an object.
	if steps := m.caps[a.id].Steps; steps > 0 && a.by.Role.Works() && len(p.Tx.Changes) > 0 {
		p.Tx.Add(writ.BudgetUsed(m.run, writ.BudgetSteps), steps)
	}
	return p
}

// audit adds what only the model knows: every metered call is one step, and
// every attempt under way has one more for the call that will end it.
func (m *model) audit() {
	m.Helper()
	audit(m.lab)
	running := int64(len(m.w.Members(writ.RunTasksIn(m.run, writ.TaskRunning))))
	if used := m.w.Counter(writ.BudgetUsed(m.run, writ.BudgetSteps)); used != m.paid+running {
		m.Fatalf("%d steps used, after %d metered calls and with %d attempts under way", used, m.paid, running)
	}
}

func (m *model) commit(p *writtest.Planned) {
	m.Helper()
	wrong := m.wrong(p)
	reply, err := m.w.Commit(p)
	var c *writtest.Conflict
	if errors.As(err, &c) {
		m.reached["conflict"]++
		return
	}
	if err != nil {
		m.Fatalf("%s: %v", p.Cap.ID, err)
	}
	if wrong != "" && len(p.Tx.Ops) > 0 {
		m.Fatalf("%s was committed: %s", p.Cap.ID, wrong)
	}
	if p.Tx.Fact != nil || p.Cap.ID == "task.heartbeat" || p.Cap.Internal {
		m.reached[string(p.Cap.ID)]++
	}
	m.count(p)
	for _, c := range p.Tx.Changes {
		if c.Kind == writ.ObjectRun {
			m.reached["run "+c.To]++
		}
		switch c.From {
		case string(writ.TaskBlocked), string(writ.TaskVerifying):
			m.reached[c.From+">"+c.To]++
		}
	}
	if p.Cap.ID != "task.claim" {
		return
	}
	if reply.Outcome == writ.OutcomeEmpty {
		if p.Call.Entry != nil && len(p.Tx.Ops) > 1 {
			m.reached["parked"]++
			for _, h := range m.w.Members(writ.BlockedOn(p.Call.Args.(*TaskClaimArgs).Task)) {
				if writ.SessionID(h).Valid() {
					m.reached["parked on a session"]++
				}
			}
		}
		return
	}
	got := body[TaskClaimed](m.lab, reply)
	if got.Lease.Fence <= m.fences[got.Task.ID] {
		m.Fatalf("the fence of %s went from %d to %d", got.Task.ID, m.fences[got.Task.ID], got.Lease.Fence)
	}
	m.fences[got.Task.ID] = got.Lease.Fence
	m.grips = append(m.grips, grip{got.Task.ID, got.Lease.ID, got.Lease.Fence})
}

// wrong is why a call may not change what there is now: the task is not held, or not by
// the caller under the lease and the fence it shows, or no longer, where that is asked
// for; or the lease it would take back has not run out.
func (m *model) wrong(p *writtest.Planned) string {
	m.Helper()
	var held TaskHold
	inTime := true
	switch a := p.Call.Args.(type) {
	case *TaskHeartbeatArgs:
		held, inTime = a.TaskHold, false
	case *TaskReleaseArgs:
		held, inTime = a.TaskHold, false
	case *TaskCompleteArgs:
		held = a.TaskHold
	case *TaskFailArgs:
		held = a.TaskHold
	case *TaskHandoffArgs:
		held = a.TaskHold
	case *TaskSweepArgs:
		if p.Cap.ID == "task.expire" && len(p.Tx.Changes) > 0 && m.w.Now <= m.w.Counter(leaseEnd(a.Task)) {
			return "the lease has not run out"
		}
		return ""
	default:
		return ""
	}
	t, version, _ := writtest.Get[writ.Task](m.w, writ.TaskKey(held.Task))
	switch {
	case t.Lease == nil || t.Lease.Session != p.Call.Caller.Session:
		return "the caller does not hold the task"
	case t.Lease.ID != held.Lease || t.FenceOf(version) != held.Fence:
		return "it holds it under another lease, or fence"
	case inTime && m.w.Now > m.w.Counter(leaseEnd(held.Task)):
		return "the lease has run out"
	}
	return ""
}

func (m *model) count(p *writtest.Planned) {
	switch p.Cap.ID {
	case "task.claim", "task.complete", "task.handoff", "task.fail":
		if len(p.Tx.Changes) > 0 {
			m.paid++
		}
	}
}

// drain stops all mischief and lets the sweeper and one patient worker run:
// every task must end.
func (m *model) drain() {
	m.Helper()
	for i, p := range m.people { // whoever claims scopes lives long, and takes no part in what follows
		if len(p.Claims) > 0 {
			m.endSession(p.Session)
			m.people[i] = m.join(p.Agent, false)
		}
	}
	worker := m.people[0]
	call := func(a attempt) writ.Reply {
		m.Helper()
		p := m.prepare(a)
		if p == nil {
			return writ.Reply{}
		}
		r, err := m.w.Commit(p)
		if err != nil {
			m.Fatalf("%s: %v", a.id, err)
		}
		m.count(p)
		for _, c := range p.Tx.Changes {
			if c.Kind == writ.ObjectRun {
				m.reached["run "+c.To]++
			}
		}
		return r
	}
	m.setRun(func(r *writ.Run) {
		r.Sealed = r.Sealed || r.State == writ.RunActive && m.w.Counter(writ.RunOpenTasks(r.ID)) > 0
	})
	for range 60 {
		m.w.Advance(700)
		for _, t := range m.w.Members(writ.IndexLeases) {
			call(attempt{id: "task.expire", by: m.w.System(), args: &TaskSweepArgs{Task: writ.TaskID(t)}})
		}
		for _, t := range m.w.Members(writ.IndexReady) {
			call(attempt{id: "task.ready", by: m.w.System(), args: &TaskSweepArgs{Task: writ.TaskID(t)}})
		}
		for _, t := range m.w.Members(writ.Refused(build, "web")) {
			call(attempt{id: "task.reoffer", by: m.w.System(), args: &TaskSweepArgs{Task: writ.TaskID(t)}})
		}
		for range m.w.Members(writ.IndexTodo) {
			if a, ok := m.followUp(); ok {
				call(a)
			}
		}
		for _, t := range m.w.Members(writ.RunTasksIn(m.run, writ.TaskBlocked)) {
			call(attempt{id: "task.admit", by: m.owner, args: &TaskAdmitArgs{Task: writ.TaskID(t)}})
		}
		for _, t := range m.w.Members(writ.IndexVerify) {
			id := writ.TaskID(t)
			call(attempt{id: "task.verify", by: m.judge, args: &TaskVerifyArgs{Task: id, Verdict: writ.VerdictAccept, Receipt: m.task(id).Receipt}})
		}
		for _, lane := range m.w.Lanes() {
			for _, e := range m.w.Lane(lane) {
				_, _, _, only := lane.Split()
				by := worker
				if only != "" && only != by.Agent {
					by = m.people[1]
				}
				id := writ.TaskID(e)
				r := call(attempt{id: "task.claim", by: by, args: &TaskClaimArgs{Task: id}, entry: entry(lane, id)})
				if len(r.JSON) == 0 {
					continue
				}
				c := body[TaskClaimed](m.lab, r)
				call(attempt{id: "task.complete", by: by, args: grip{id, c.Lease.ID, c.Lease.Fence}.complete()})
			}
		}
		m.audit()
	}
	if used := m.w.Counter(writ.BudgetUsed(m.run, writ.BudgetSteps)); used != m.paid {
		m.Fatalf("%d steps used when all is over, %d metered calls were committed", used, m.paid)
	}
	if open := m.w.Counter(writ.RunOpenTasks(m.run)); open != 0 {
		m.Fatalf("%d tasks never end", open)
	}
	for _, i := range []writ.Index{writ.IndexLeases, writ.IndexReady, writ.IndexScopes, writ.IndexTodo, writ.Refused(build, "web")} {
		if left := m.w.Members(i); len(left) > 0 {
			m.Fatalf("%s still holds %v", i, left)
		}
	}
	for _, id := range m.w.Members(writ.RunTasks(m.run)) {
		if left := m.w.Members(writ.WaitingOn(writ.TaskID(id))); len(left) > 0 {
			m.Fatalf("%v still wait for %s", left, id)
		}
		if left := m.w.Members(writ.Dependents(writ.TaskID(id))); len(left) > 0 {
			m.Fatalf("%v still depend on %s", left, id)
		}
	}
	if left := m.w.Lanes(); len(left) > 0 {
		m.Fatalf("lanes %v still hold entries", left)
	}
}

func (m *model) pick() attempt {
	who := m.people[m.r.IntN(len(m.people))]
	tasks := m.w.Members(writ.RunTasks(m.run))
	kind := m.r.IntN(20)
	if len(tasks) == 0 || (kind < 3 && m.w.Counter(writ.RunOpenTasks(m.run)) < 12) {
		return m.enqueueSome()
	}
	id := writ.TaskID(tasks[m.r.IntN(len(tasks))])
	g := grip{task: id, lease: writ.LeaseID(writ.PrefixLease + strings.Repeat("0", 26)), fence: 1}
	if len(m.grips) > 0 {
		old := func() grip { return m.grips[len(m.grips)-1-m.r.IntN(min(len(m.grips), 5))] }
		g = old()
		switch m.r.IntN(16) {
		case 0:
			g.lease = old().lease
		case 1:
			g.fence = old().fence
		}
		if t := m.task(g.task); t.Lease != nil && m.r.IntN(3) > 0 {
			for _, p := range m.people {
				if p.Session == t.Lease.Session {
					who = p
				}
			}
		}
	}
	system := m.w.System()
	switch kind {
	case 3:
		return attempt{id: "task.claim", by: who, args: &TaskClaimArgs{Task: id}}
	case 4, 5, 6, 7:
		if lanes := m.w.Lanes(); len(lanes) > 0 {
			lane := lanes[m.r.IntN(len(lanes))]
			e := m.w.Lane(lane)
			d := entry(lane, writ.TaskID(e[m.r.IntN(len(e))]))
			if m.r.IntN(8) == 0 {
				return attempt{id: "task.refuse", by: system, args: &TaskRefuseArgs{Task: writ.TaskID(d.Entry), Agent: who.Agent, Lane: lane}, entry: d}
			}
			return attempt{id: "task.claim", by: who, args: &TaskClaimArgs{Task: writ.TaskID(d.Entry)}, entry: d}
		}
	case 8:
		a := g.beat()
		a.Progress = &TaskProgress{Pct: int64(m.r.IntN(101)), Seq: 1 + int64(m.r.IntN(9))}
		return attempt{id: "task.heartbeat", by: who, args: a}
	case 9:
		return attempt{id: "task.handoff", by: who, args: m.handoff(g)}
	case 10, 11:
		return attempt{id: "task.complete", by: who, args: g.complete()}
	case 12:
		return attempt{id: "task.fail", by: who, args: g.fail(m.calm || m.r.IntN(4) > 0)}
	case 13:
		return attempt{id: "task.release", by: who, args: g.release()}
	case 14:
		if dead := m.w.Members(writ.IndexDead); len(dead) > 0 && m.r.IntN(3) == 0 {
			m.made++
			return attempt{id: "task.revive", by: m.owner, args: &TaskReviveArgs{Task: writ.TaskID(dead[m.r.IntN(len(dead))]), Key: fmt.Sprintf("task-%d", m.made)}}
		}
		if m.r.IntN(3) == 0 {
			return attempt{id: "task.admit", by: m.owner, args: &TaskAdmitArgs{Task: id}}
		}
		if m.r.IntN(3) == 0 {
			return attempt{id: "task.cancel", by: m.owner, args: &TaskCancelArgs{Task: id}}
		}
	case 15:
		if len(m.w.Members(writ.RunTasksIn(m.run, writ.TaskRunning))) > 0 && m.r.IntN(2) == 0 {
			running := m.w.Members(writ.RunTasksIn(m.run, writ.TaskRunning))
			id = writ.TaskID(running[m.r.IntN(len(running))])
		}
		if m.r.IntN(3) == 0 {
			m.w.Advance(60)
		}
		return attempt{id: "task.expire", by: system, args: &TaskSweepArgs{Task: id}}
	case 18:
		if waits := m.w.Members(writ.IndexVerify); len(waits) > 0 {
			return m.verdict(writ.TaskID(waits[m.r.IntN(len(waits))]), who)
		}
	case 16:
		return attempt{id: "task.ready", by: system, args: &TaskSweepArgs{Task: id}}
	case 17:
		return attempt{id: "task.reoffer", by: system, args: &TaskSweepArgs{Task: id}}
	}
	if a, ok := m.followUp(); ok {
		return a
	}
	return m.enqueueSome()
}

// verdict is mostly that of the verifier, about what there is.
func (m *model) verdict(id writ.TaskID, who writ.Caller) attempt {
	a := &TaskVerifyArgs{Task: id, Verdict: writ.VerdictAccept, Receipt: m.task(id).Receipt}
	if m.r.IntN(8) > 0 {
		who = m.judge
	}
	switch m.r.IntN(8) {
	case 0, 1, 2:
		a.Verdict, a.Reasons = writ.VerdictReject, []string{"incomplete"}
	case 3:
		a.Receipt = writ.ReceiptID(m.w.NewID(writ.PrefixReceipt))
	}
	return attempt{id: "task.verify", by: who, args: a}
}

// handoff is to a task that waits for the one at hand, if there is one, or to a new
// one.
func (m *model) handoff(g grip) *TaskHandoffArgs {
	a := &TaskHandoffArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}}
	if waits := m.w.Members(writ.Dependents(g.task)); len(waits) > 0 && m.r.IntN(3) > 0 {
		a.To.Key = m.task(writ.TaskID(waits[m.r.IntN(len(waits))])).Key
		return a
	}
	m.made++
	a.To.Task = &HandoffTask{Key: fmt.Sprintf("task-%d", m.made), Capability: build}
	if own := m.task(g.task).WriteScopes; len(own) > 0 && m.r.IntN(3) > 0 {
		a.To.Task.WriteScopes = own[:1]
	}
	return a
}

// followUp is a piece of follow-up work, if there is any. It may come too early.
func (m *model) followUp() (attempt, bool) {
	system := m.w.System()
	todos := m.w.Members(writ.IndexTodo)
	m.r.Shuffle(len(todos), func(i, j int) { todos[i], todos[j] = todos[j], todos[i] })
	sweep := map[string]writ.CapabilityID{todoOutrun: "task.outrun", todoDeadline: "task.overdue", todoUnreserve: "task.unreserve"}
	for _, t := range todos {
		if kind, what, _ := strings.Cut(t, " "); sweep[kind] != "" {
			return attempt{id: sweep[kind], by: system, args: &TaskSweepArgs{Task: writ.TaskID(what)}}, true
		}
		switch kind, what, _ := strings.Cut(t, " "); kind {
		case todoWake:
			return attempt{id: "task.wake", by: system, args: &TaskSweepArgs{Task: writ.TaskID(what)}}, true
		case todoRefill:
			run, lane, _ := strings.Cut(what, " ")
			return attempt{id: "task.refill", by: system, args: &TaskRefillArgs{Run: writ.RunID(run), Lane: writ.Lane(lane)}}, true
		case todoRun:
			return attempt{id: "run.reap", by: system, args: &RunReapArgs{Run: writ.RunID(what)}}, true
		case todoUnblock:
			return attempt{id: "task.unblock", by: system, args: &TaskSweepArgs{Task: writ.TaskID(what)}}, true
		case "health": // another room's
			m.w.DropIndex(writ.IndexTodo, t)
		case todoSession:
			return attempt{id: "session.cleanup", by: system, args: &SessionCleanupArgs{Session: writ.SessionID(what)}}, true
		}
	}
	return attempt{}, false
}

func (m *model) enqueueSome() attempt {
	m.made++
	a := &TaskEnqueueArgs{Run: m.run, Key: fmt.Sprintf("task-%d", m.made), Capability: build, Domain: "web"}
	lease, tries, pause, priority := int64(1+m.r.IntN(60)), int64(1+m.r.IntN(3)), int64(m.r.IntN(3))*5000, int64(m.r.IntN(3))
	if m.calm {
		tries = 20
	}
	a.LeaseSeconds, a.MaxAttempts, a.BackoffMs, a.Priority = &lease, &tries, &pause, &priority
	for range m.r.IntN(3) {
		a.WriteScopes = append(a.WriteScopes, treeOfScopes[m.r.IntN(len(treeOfScopes))])
	}
	for i := m.r.IntN(6) - 3; i > 0 && m.made > 1; i-- { // mostly on the latest, so that it is there
		key := fmt.Sprintf("task-%d", max(1, m.made-1-m.r.IntN(4)))
		_, _, known := writtest.Get[taskName](m.w, writ.TaskNameKey(m.run, key))
		if known && !slices.ContainsFunc(a.DependsOn, func(d TaskDependency) bool { return d.Key == key }) {
			d := TaskDependency{Key: key, OnFailure: []writ.DependencyPolicy{"", "fail", "skip", "continue"}[m.r.IntN(4)]}
			if m.r.IntN(5) == 0 {
				d = TaskDependency{Key: key, When: writ.EndFailed}
			}
			a.DependsOn = append(a.DependsOn, d)
		}
	}
	switch join := []writ.Join{writ.JoinAny, writ.JoinFirst, writ.JoinManual, "", "", ""}[m.r.IntN(6)]; {
	case join.Any() && len(a.DependsOn) == 0:
	default:
		a.Join = join
	}
	if m.r.IntN(5) == 0 && !m.calm {
		most := int64(1 + m.r.IntN(60))
		a.DeadlineS = &most
	}
	if m.r.IntN(5) == 0 {
		most := int64(m.r.IntN(2))
		if m.calm {
			most = 20
		}
		a.Verify = &TaskVerification{Required: true, MaxRework: &most}
	}
	switch m.r.IntN(6) {
	case 0:
		a.Agents = []writ.AgentID{"agent-a", "agent-b"}
	case 1:
		a.NotBefore = writ.FormatTime(m.w.Now + int64(m.r.IntN(20_000)))
	}
	return attempt{id: "task.enqueue", by: m.owner, args: a}
}
