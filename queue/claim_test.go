package queue

import (
	"fmt"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func TestPoll(t *testing.T) {
	l := newLab(t)
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[1].Safety = writ.SafetyBlocked })
	lane := func(c writ.CapabilityID, domain string) writ.Lane { return writ.LaneOf(c, domain, 3) }
	mine, other := writ.DirectedLane("agent-a", build, "web", 9), writ.DirectedLane("agent-b", build, "web", 9)
	for _, c := range []struct {
		args TaskClaimArgs
		want []writ.Lane
	}{
		{TaskClaimArgs{}, []writ.Lane{lane(build, "web"), mine}},
		{TaskClaimArgs{Capabilities: []writ.CapabilityID{build}, Domains: []string{"web"}}, []writ.Lane{lane(build, "web"), mine}},
		{TaskClaimArgs{Capabilities: []writ.CapabilityID{"site.test"}}, nil},
		{TaskClaimArgs{Capabilities: []writ.CapabilityID{"other.thing"}}, nil},
		{TaskClaimArgs{Domains: []string{"finance"}}, nil},
	} {
		c.args.WaitSeconds = 7
		r, tx, err := l.try("task.claim", l.a, &c.args)
		if err != nil || !tx.Empty() || r.Poll == nil || r.Poll.Agent != "agent-a" || r.Poll.WaitMs != 7000 || r.Outcome != writ.OutcomeEmpty {
			t.Fatalf("%+v %v", r, err)
		}
		var got []writ.Lane
		for _, x := range []writ.Lane{lane(build, "web"), lane(build, "finance"), lane("site.test", "web"), lane("other.thing", "web"), mine, other, ""} {
			if r.Poll.Lanes(x) {
				got = append(got, x)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: lanes %v, want %v", c.args, got, c.want)
		}
	}
}

func TestNotEligible(t *testing.T) {
	for reason, change := range map[string]func(*writ.Agent){
		"agent_inactive":     func(a *writ.Agent) { a.State = writ.AgentSuspended },
		"archetype":          func(a *writ.Agent) { a.Archetypes = []writ.Role{writ.RoleVerifier} },
		"capability":         func(a *writ.Agent) { a.Tools = a.Tools[1:] },
		"capability_blocked": func(a *writ.Agent) { a.Tools[0].Safety = writ.SafetyBlocked },
		"domain":             func(a *writ.Agent) { a.Domain = "finance" },
	} {
		l := newLab(t)
		id := l.enqueue("one")
		l.setAgent("agent-a", change)
		if e := l.refused(writ.CodeNotEligible, "task.claim", l.a, &TaskClaimArgs{Task: id}); e.Details["reason"] != reason {
			t.Errorf("reason %q, want %q", e.Details["reason"], reason)
		}
		if reason == "agent_inactive" || reason == "archetype" {
			l.refused(writ.CodeNotEligible, "task.claim", l.a, &TaskClaimArgs{})
		}
		l.wantState(id, writ.TaskQueued)
	}
	l := newLab(t)
	l.refused(writ.CodeNotEligible, "task.claim", l.oper, &TaskClaimArgs{Task: l.enqueue("one")})
}

// An agent that came, or changed, after the task was enqueued gets only
// arguments its own tool takes.
func TestClaimHoldsArgumentsToTheClaimantsSchema(t *testing.T) {
	l := newLab(t)
	l.caps["task.claim"] = claimCapability(Config{Validate: func(schema, args writ.RawObject) error {
		if string(schema) == `{"required":["ref"]}` && string(args) == `{}` {
			return writ.Refuse(writ.CodeInputInvalid, "test", "no", "")
		}
		return nil
	}}.withDefaults())
	id := l.enqueue("one")
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[0].InputSchema = writ.RawObject(`{"required":["ref"]}`) })
	if e := l.refused(writ.CodeNotEligible, "task.claim", l.a, &TaskClaimArgs{Task: id}); e.Details["reason"] != "schema" {
		t.Errorf("reason %q", e.Details["reason"])
	}
	l.wantState(id, writ.TaskQueued)
	if _, err := l.dispatch(l.a, l.lane(), id); writ.CodeOf(err) != writ.CodeNotEligible {
		t.Errorf("from its lane: %v", err)
	}
	l.claim(l.b, id)
	audit(l)
}

func TestDispatchedEntryIsAcked(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	r, err := l.dispatch(l.a, l.lane(), id)
	if err != nil || r.Outcome != writ.OutcomeDone || l.inLane(id) {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	if got := body[TaskClaimed](l, r); string(got.Task.Args) != `{}` || got.Lease.Every != 20 || got.Lease.ExpiresAt != writ.FormatTime(l.w.Now+60_000) {
		t.Fatalf("%+v", got)
	}
	// An entry of a task that is not queued any more is dropped.
	stale := l.enqueue("two")
	l.claim(l.a, stale)
	if r, err := l.dispatch(l.b, l.lane(), stale); err != nil || r.Outcome != writ.OutcomeEmpty || l.inLane(stale) {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	audit(l)
}

func TestWaitingForAScope(t *testing.T) {
	l := newLab(t)
	holder := l.claim(l.a, l.enqueue("holder", scopes("fs:repo/")))
	id := l.enqueue("waiter", scopes("fs:repo/a/"))
	if r, err := l.dispatch(l.b, l.lane(), id); err != nil || r.Outcome != writ.OutcomeEmpty {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	if l.inLane(id) {
		t.Fatal("still in its lane")
	}
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})); !slices.Equal(v.BlockedOn, asHolders(holder.task)) {
		t.Fatalf("blocked on %v", v.BlockedOn)
	}
	audit(l)
	l.do("task.complete", l.a, holder.complete())
	if !l.inLane(id) {
		t.Fatal("not woken")
	}
	audit(l)
	l.claim(l.b, id)
}

// The holder gives up its scopes between the judgement and the parking: the
// parking must not commit, or nobody wakes the task.
func TestNoLostWakeUp(t *testing.T) {
	l := newLab(t)
	holder := l.claim(l.a, l.enqueue("holder", scopes("fs:repo/")))
	id := l.enqueue("waiter", scopes("fs:repo/a/"))
	c := l.caps["task.claim"]
	call := l.w.NewCall(c, l.b, &TaskClaimArgs{Task: id})
	call.Entry = entry(l.lane(), id)
	park, err := l.w.Plan(c, call)
	if err != nil {
		t.Fatal(err)
	}
	l.do("task.complete", l.a, holder.complete())
	if _, err := l.w.Commit(park); err == nil {
		t.Fatal("parked on a task that is done")
	}
	audit(l)
}

// Forty tasks wait: the sixteen most urgent are woken at once, a follow-up
// wakes the others.
func TestWakeInOrder(t *testing.T) {
	for _, how := range []string{"complete", "fail", "release", "expire", "session"} {
		t.Run(how, func(t *testing.T) {
			l := newLab(t)
			holder := l.claim(l.a, l.enqueue("holder", scopes("fs:repo/")))
			for i := range 40 {
				p := int64(i % 10)
				id := l.enqueue(fmt.Sprintf("waiter-%d", i), scopes("fs:repo/a/"), func(a *TaskEnqueueArgs) { a.Priority = &p })
				if _, err := l.dispatch(l.b, writ.LaneOf(build, "web", p), id); err != nil {
					t.Fatal(err)
				}
			}
			wantAtOnce := wakeAtOnce
			switch how {
			case "complete":
				l.do("task.complete", l.a, holder.complete())
			case "fail":
				l.do("task.fail", l.a, holder.fail(false))
			case "release":
				l.do("task.release", l.a, holder.release())
			case "expire":
				l.w.Advance(61)
				l.sweep("task.expire", &TaskSweepArgs{Task: holder.task})
			case "session":
				l.endSession(l.a.Session)
				l.sweep("session.cleanup", &SessionCleanupArgs{Session: l.a.Session})
				wantAtOnce = 0
			}
			woken := 0
			for _, lane := range l.w.Lanes() {
				p, _, _, _ := lane.Split()
				for _, e := range l.w.Lane(lane) {
					if e == string(holder.task) {
						continue
					}
					woken++
					if p < 6 {
						t.Fatalf("a task of priority %d is among the first %d", p, wakeAtOnce)
					}
				}
			}
			if woken != wantAtOnce {
				t.Fatalf("%d woken at once, want %d", woken, wantAtOnce)
			}
			audit(l)
			l.sweep("task.wake", &TaskSweepArgs{Task: holder.task})
			audit(l)
			l.w.DropIndex(writ.IndexTodo, writ.TodoHealth("agent-a")) // another room's
			if got := len(l.w.Members(writ.WaitingOn(holder.task))) + len(l.w.Index(writ.IndexTodo)); got != 0 {
				t.Fatalf("%d left after the follow-up", got)
			}
		})
	}
}

// Cancelling or claiming a waiting task takes it off every list.
func TestWaitingTaskLeavesByOtherWays(t *testing.T) {
	l := newLab(t)
	holder := l.claim(l.a, l.enqueue("holder", scopes("fs:repo/a/")))
	id := l.enqueue("waiter", scopes("fs:repo/"))
	if _, err := l.dispatch(l.b, l.lane(), id); err != nil {
		t.Fatal(err)
	}
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	if left := l.w.Members(writ.WaitingOn(holder.task)); len(left) > 0 {
		t.Fatalf("%v still wait", left)
	}
	audit(l)
}

// A snapshot torn by a release: the lock was seen, then its holder was seen
// done. The commit decides, by its free guards.
func TestLockOfATaskThatJustEnded(t *testing.T) {
	l := newLab(t)
	done := l.claim(l.a, l.enqueue("done"))
	l.do("task.complete", l.a, done.complete())
	id := l.enqueue("one", scopes("fs:repo/"))
	l.w.SetIndex(writ.IndexScopes, writ.ScopeMember("fs:repo/a/", done.task), 0)
	c := l.caps["task.claim"]
	p, err := l.w.Plan(c, l.w.NewCall(c, l.b, &TaskClaimArgs{Task: id}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("claimed over a lock")
	}
	l.w.DropIndex(writ.IndexScopes, writ.ScopeMember("fs:repo/a/", done.task))
	if _, err := l.w.Commit(p); err != nil {
		t.Fatal(err)
	}
	audit(l)
}

// The largest task there may be still fits into one transaction.
func TestLargestClaimFits(t *testing.T) {
	l := newLab(t)
	var agents []writ.AgentID
	for i := range 8 {
		agents = append(agents, l.w.Agent(writ.AgentID(fmt.Sprintf("wide-%d", i)), "web", "wide.work").ID)
	}
	by := l.w.Open(writ.RoleExecutor, "wide", "wide-0")
	var wide []string
	for i := range 16 {
		wide = append(wide, fmt.Sprintf("fs:r%d/a/b/c/d/e", i))
	}
	id := l.enqueue("one", scopes(wide...), func(a *TaskEnqueueArgs) { a.Capability, a.Agents = "wide.work", agents })
	for i := range 8 {
		l.w.SetIndex(writ.BlockedOn(id), string(l.enqueue(fmt.Sprintf("blocker-%d", i))), 0)
	}
	for i := range 64 {
		l.w.SetIndex(writ.Refusers(id), fmt.Sprintf("agent-%d", i), 0)
	}
	l.w.SetIndex(writ.Refused("wide.work", "web"), string(id), 0)
	g := l.claim(by, id)
	audit(l)
	l.do("task.complete", by, g.complete())
	audit(l)
}

func TestRefuseAndReoffer(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	refuse := func(agent writ.AgentID, lane writ.Lane) error {
		c := l.caps["task.refuse"]
		call := l.w.NewCall(c, l.w.System(), &TaskRefuseArgs{Task: id, Agent: agent, Lane: lane})
		call.Entry = entry(lane, id)
		_, _, err := l.w.Do(c, call)
		return err
	}
	l.wantCode(writ.CodeInputInvalid, refuse("agent-a", writ.LaneOf(build, "web", 9)))
	if err := refuse("agent-a", l.lane()); err != nil || l.inLane(id) {
		t.Fatalf("err %v, in lane %v", err, l.inLane(id))
	}
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})); len(v.RefusedTo) != 1 || v.RefusedTo[0] != "agent-a" {
		t.Fatalf("a task that was set aside shows refused_to %v", v.RefusedTo)
	}
	audit(l)
	for i, want := range []int{1, 0} {
		if got := l.sweep("task.reoffer", &TaskSweepArgs{Task: id}); got.Changed != want || len(l.w.Lane(l.lane())) != 1 {
			t.Fatalf("reoffer %d: %+v, lane %v", i, got, l.w.Lane(l.lane()))
		}
		audit(l)
	}
	if err := refuse("agent-a", l.lane()); err != nil {
		t.Fatal(err)
	}
	l.claim(l.b, id) // another agent takes it by id
	audit(l)
	if err := refuse("agent-b", l.lane()); err != nil { // too late: it runs
		t.Fatal(err)
	}
	audit(l)
	if _, _, err := l.try("task.refuse", l.w.System(), &TaskRefuseArgs{Task: writ.TaskID(l.w.NewID(writ.PrefixTask)), Agent: "agent-a", Lane: l.lane()}); err != nil {
		t.Fatalf("an entry of no task: %v", err)
	}
}

func TestVisibility(t *testing.T) {
	l := newLab(t)
	l.w.Agent("agent-c", "finance", build)
	c := l.w.Open(writ.RoleExecutor, "worker-c", "agent-c")
	stranger := l.w.Open(writ.RoleOrchestrator, "stranger", "")
	g := l.claim(l.a, l.enqueue("one", func(a *TaskEnqueueArgs) { a.Args = writ.RawObject(`{"x":1}`) }))
	get := func(by writ.Caller) TaskView {
		return body[TaskView](l, l.do("task.get", by, &TaskGetArgs{Task: g.task}))
	}
	for _, by := range []writ.Caller{l.oper, l.owner, l.w.Open(writ.RoleAuditor, "ada", "")} {
		if v := get(by); string(v.Args) != `{"x":1}` || v.Lease == nil || v.Lease.ID != "" || v.Lease.Fence != g.fence {
			t.Fatalf("%s sees %+v", by.Role, v)
		}
	}
	if v := get(l.a); string(v.Args) != `{"x":1}` || v.Lease.ID != g.lease {
		t.Fatalf("the holder sees %+v", v)
	}
	if v := get(l.b); v.Args != nil || v.Lease.ID != "" {
		t.Fatalf("another executor sees %+v", v)
	}
	for _, by := range []writ.Caller{c, stranger, l.w.Open(writ.RoleConnector, "conn", "")} {
		l.refused(writ.CodeNotFound, "task.get", by, &TaskGetArgs{Task: g.task})
		l.refused(writ.CodeNotFound, "task.list", by, &TaskListArgs{Run: l.run})
		l.refused(writ.CodeNotFound, "task.cancel", by, &TaskCancelArgs{Task: g.task})
	}
	l.do("task.complete", l.a, g.complete())
	if v := get(l.owner); string(v.Result) != `{"ok":true}` || v.Lease != nil || v.Pct != nil {
		t.Fatalf("the owner sees %+v", v)
	}
	if v := get(l.b); v.Result != nil {
		t.Fatalf("another executor sees the result")
	}
}

func TestList(t *testing.T) {
	l := newLab(t)
	var all []writ.TaskID
	for i := range 7 {
		all = append(all, l.enqueue(fmt.Sprintf("task-%d", i)))
	}
	slices.Sort(all)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: all[2]})
	read := func(a TaskListArgs) (got []writ.TaskID) {
		for {
			p := body[TaskPage](l, l.do("task.list", l.owner, &a))
			for _, v := range p.Tasks {
				got = append(got, v.ID)
			}
			if p.Next == "" {
				return got
			}
			a.After = p.Next
		}
	}
	if got := read(TaskListArgs{Run: l.run, Limit: 3}); !slices.Equal(got, all) {
		t.Fatalf("got %v, want %v", got, all)
	}
	if got := read(TaskListArgs{Run: l.run, State: writ.TaskCancelled}); !slices.Equal(got, all[2:3]) {
		t.Fatalf("cancelled: %v", got)
	}
	if got := read(TaskListArgs{Run: l.run, State: writ.TaskQueued, Limit: 2}); len(got) != 6 {
		t.Fatalf("queued: %v", got)
	}
	l.refused(writ.CodeNotFound, "task.list", l.owner, &TaskListArgs{Run: l.run, State: "odd/../x"})
	if _, _, ok := writtest.Get[writ.Task](l.w, "task/none"); ok {
		t.Fatal("made a task up")
	}
}

// What died is on one list over all runs, oldest first, in pages, for those who
// look after the whole; a month later it makes room.
func TestDeadLetterList(t *testing.T) {
	l := newLab(t)
	one := int64(1)
	var all []writ.TaskID
	die := func(i int) {
		t.Helper()
		id := l.enqueue(fmt.Sprintf("task-%d", i), func(a *TaskEnqueueArgs) { a.MaxAttempts = &one })
		l.do("task.fail", l.a, l.claim(l.a, id).fail(true))
		l.wantState(id, writ.TaskDead)
		all = append(all, id)
		l.w.Advance(1)
	}
	read := func() (got []writ.TaskID) {
		for a := (TaskListArgs{State: writ.TaskDead, Limit: 2}); ; {
			p := body[TaskPage](l, l.do("task.list", l.oper, &a))
			for _, v := range p.Tasks {
				if v.State != writ.TaskDead || v.Args != nil {
					t.Errorf("listed %+v", v)
				}
				got = append(got, v.ID)
			}
			if p.Next == "" {
				return got
			}
			a.After = p.Next
		}
	}
	for i := range 5 {
		die(i)
	}
	l.enqueue("alive")
	if got := read(); !slices.Equal(got, all) {
		t.Fatalf("got %v, want %v", got, all)
	}
	for _, r := range []writ.Role{writ.RoleAuditor, writ.RoleVerifier} {
		l.do("task.list", l.w.Open(r, "someone", ""), &TaskListArgs{State: writ.TaskDead})
	}
	l.refused(writ.CodeRBAC, "task.list", l.owner, &TaskListArgs{State: writ.TaskDead})
	l.refused(writ.CodeRBAC, "task.list", l.a, &TaskListArgs{State: writ.TaskDead})
	l.refused(writ.CodeInputInvalid, "task.list", l.oper, &TaskListArgs{})
	l.refused(writ.CodeInputInvalid, "task.list", l.oper, &TaskListArgs{State: writ.TaskQueued})

	l.w.Now += deadKept.Milliseconds()
	die(5)
	die(6)
	if got := read(); !slices.Equal(got, all[4:]) {
		t.Errorf("after a month: %v, want %v", got, all[4:])
	}
	audit(l)
}
