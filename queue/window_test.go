package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// refill does what the sweeper does: every follow-up of a backlog until none is left.
func (l *lab) refill() {
	l.Helper()
	for range 1000 {
		due := slices.DeleteFunc(l.w.Members(writ.IndexTodo), func(m string) bool { return !strings.HasPrefix(m, todoRefill+" ") })
		if len(due) == 0 {
			return
		}
		for _, m := range due {
			_, rest, _ := strings.Cut(m, " ")
			run, lane, _ := strings.Cut(rest, " ")
			l.sweep("task.refill", &TaskRefillArgs{Run: writ.RunID(run), Lane: writ.Lane(lane)})
		}
	}
	l.Fatal("the follow-ups of backlogs do not end")
}

// work does the first task in a lane, as its agent does.
func (l *lab) work(lane writ.Lane) writ.TaskID {
	l.Helper()
	id := writ.TaskID(l.w.Lane(lane)[0])
	r, err := l.dispatch(l.a, lane, id)
	if err != nil {
		l.Fatal(err)
	}
	if r.Outcome == writ.OutcomeEmpty {
		return ""
	}
	c := body[TaskClaimed](l, r)
	l.do("task.complete", l.a, grip{id, c.Lease.ID, c.Lease.Fence}.complete())
	return id
}

func (l *lab) plan(id writ.CapabilityID, by writ.Caller, args any) *writtest.Planned {
	l.Helper()
	p, err := l.w.Plan(l.caps[id], l.w.NewCall(l.caps[id], by, args))
	if err != nil {
		l.Fatal(err)
	}
	return p
}

func (l *lab) commits(p *writtest.Planned) {
	l.Helper()
	if _, err := l.w.Commit(p); err != nil {
		l.Fatalf("%s: %v", p.Cap.ID, err)
	}
}

func (l *lab) conflicts(p *writtest.Planned) {
	l.Helper()
	var c *writtest.Conflict
	if _, err := l.w.Commit(p); !errors.As(err, &c) {
		l.Fatalf("%s: got %v, want a conflict", p.Cap.ID, err)
	}
}

func (l *lab) counts(offered, backlog int64) {
	l.Helper()
	if o, b := l.w.Counter(writ.RunOffered(l.run, l.lane())), l.w.Counter(writ.RunBacklog(l.run, l.lane())); o != offered || b != backlog {
		l.Fatalf("%d are offered and %d in the backlog, want %d and %d", o, b, offered, backlog)
	}
}

func (l *lab) many(n int, change ...func(*TaskEnqueueArgs)) (out []writ.TaskID) {
	l.Helper()
	for i := range n {
		l.w.Now++ // ids in their order
		out = append(out, l.enqueue(fmt.Sprintf("many-%d-%d", len(l.w.Members(writ.RunTasks(l.run))), i), change...))
	}
	return out
}

// smallLab has a window of n, and an agent that takes as much as there is.
func smallLab(t *testing.T, n int64) *lab {
	t.Helper()
	small(t, n)
	l := newLab(t)
	l.setAgent("agent-a", func(a *writ.Agent) { a.MaxConcurrent = 500 })
	return l
}

func (l *lab) planRefill() *writtest.Planned {
	l.Helper()
	return l.plan("task.refill", l.w.System(), &TaskRefillArgs{Run: l.run, Lane: l.lane()})
}

func (l *lab) planClaim(id writ.TaskID) *writtest.Planned {
	l.Helper()
	return l.plan("task.claim", l.a, &TaskClaimArgs{Task: id})
}

func (l *lab) claims(ids ...writ.TaskID) {
	l.Helper()
	for _, id := range ids {
		l.claim(l.a, id)
	}
}

func (l *lab) runIs(s writ.RunState) { l.setRun(func(r *writ.Run) { r.State = s }) }

// A run that enqueues much does not keep another waiting behind all of it.
func TestRunsTakeTurnsInALane(t *testing.T) {
	l := newLab(t)
	const first, second = 400, 10
	want := map[writ.TaskID]bool{}
	for _, id := range l.many(first) {
		want[id] = true
	}
	big := l.run
	l.run = l.w.Run("boss", 1000).ID
	late := l.many(second)
	for _, id := range late {
		want[id] = true
	}
	var order []writ.TaskID
	for len(l.w.Lane(l.lane())) > 0 {
		order = append(order, l.work(l.lane()))
		l.refill()
		if n := len(order); n%50 == 0 {
			audit(l)
		}
	}
	for i, id := range order {
		if !want[id] {
			t.Fatalf("%s was handed out twice", id)
		}
		delete(want, id)
		if slices.Contains(late, id) && int64(i) >= 2*window {
			t.Errorf("%s of the second run came as number %d", id, i)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d tasks were never handed out", len(want))
	}
	own := slices.DeleteFunc(order, func(id writ.TaskID) bool { return slices.Contains(late, id) })
	if !slices.IsSorted(own) {
		t.Error("tasks of one run did not come in their order")
	}
	for _, run := range []writ.RunID{big, l.run} {
		l.run = run
		l.counts(0, 0)
		audit(l)
	}
}

// Each priority is a lane, and none of them waits for another.
func TestAPriorityHasAWindowOfItsOwn(t *testing.T) {
	l := smallLab(t, 2)
	l.many(5)
	urgent := int64(9)
	l.many(3, func(a *TaskEnqueueArgs) { a.Priority = &urgent })
	l.counts(2, 3)
	if n := len(l.w.Lane(writ.LaneOf(build, "web", urgent))); n != 2 {
		t.Errorf("%d urgent tasks are offered", n)
	}
	l.refill()
	audit(l)
}

// Work for several agents is behind nothing; work for one is as in any lane.
func TestWorkForSeveralAgentsIsAlwaysOffered(t *testing.T) {
	l := smallLab(t, 2)
	both := func(a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-a", "agent-b"} }
	one := func(a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-a"} }
	l.many(5, both)
	lane := writ.DirectedLane("agent-a", build, "web", 5)
	if n := len(l.w.Lane(lane)); n != 5 {
		t.Errorf("%d of 5 for two agents are offered", n)
	}
	l.many(5, one)
	if n := len(l.w.Lane(lane)); n != 7 {
		t.Errorf("%d entries, want two more", n)
	}
	audit(l)
}

// However many claims read the same counts: at the low mark one of them leaves the
// follow-up, or none commits past it.
func TestClaimsAtOnceLeaveAFollowUp(t *testing.T) {
	l := smallLab(t, 8)
	l.w.Seed(writ.GivenKey(l.a.Session), "given", writ.Given{Labels: []writ.Label{writ.LabelInternalSystem}}) // it has had such work
	ids := l.many(12)
	l.counts(8, 4)
	var at []*writtest.Planned
	for _, id := range ids[:8] {
		at = append(at, l.planClaim(id))
	}
	for _, p := range at[:3] {
		l.commits(p)
		audit(l)
	}
	l.counts(5, 4)
	for i, p := range at[3:] { // these bring it down to the mark
		l.conflicts(p)
		l.claim(l.a, ids[3+i])
		audit(l)
	}
	l.counts(0, 4)
	l.refill()
	l.counts(4, 0)
	audit(l)
}

// What comes into a backlog while the last that are offered go has a follow-up.
func TestEnqueueMeetsClaims(t *testing.T) {
	l := smallLab(t, 4)
	ids := l.many(4)
	more := &TaskEnqueueArgs{Run: l.run, Key: "more", Capability: build, Domain: "web"}
	p := l.plan("task.enqueue", l.owner, more)
	l.claim(l.a, ids[0])
	l.commits(p) // not in the way as long as enough is offered
	l.counts(3, 1)
	audit(l)

	more.Key = "still-more"
	p = l.plan("task.enqueue", l.owner, more)
	last := l.planClaim(ids[1])
	l.commits(last)
	l.conflicts(p)
	l.do("task.enqueue", l.owner, more)
	audit(l)

	l = smallLab(t, 1)
	one := l.enqueue("one")
	claim := l.planClaim(one) // nothing is in the backlog
	more.Run, more.Key = l.run, "more"
	l.do("task.enqueue", l.owner, more)
	l.counts(1, 1)
	l.conflicts(claim)
	l.claim(l.a, one)
	audit(l)
}

// Two sweepers fetch a task once, and a follow-up goes only while nothing waits for it.
func TestRefillsAtOnce(t *testing.T) {
	l := smallLab(t, 4)
	ids := l.many(9)
	l.claims(ids[:2]...)
	l.counts(2, 5)
	one, two := l.planRefill(), l.planRefill()
	l.commits(one)
	l.conflicts(two)
	l.counts(4, 3)
	if got := l.w.Lane(l.lane()); len(got) != 6 { // those claimed by id left their entries
		t.Fatalf("lane %v", got)
	}
	audit(l)

	// A refill that finds no room, and claims that make some.
	l.w.SetIndex(writ.IndexTodo, todoRefillOf(l.run, l.lane()), l.w.Now)
	full := l.planRefill()
	l.claims(ids[2:4]...)
	l.conflicts(full)
	audit(l)

	// One that takes the last, and somebody who comes behind.
	l.refill()
	l.counts(4, 1)
	l.claims(ids[4:6]...)
	last := l.planRefill()
	l.enqueue("behind")
	l.conflicts(last)
	l.refill()
	l.counts(4, 0)
	audit(l)
}

// A task in the backlog is queued like any other: it can be claimed, cancelled and taken
// back by its id, and nobody fetches it afterwards.
func TestATaskLeavesTheBacklog(t *testing.T) {
	l := smallLab(t, 2)
	ids := l.many(6)
	l.counts(2, 4)
	fetched := l.planRefill()
	g := l.claim(l.a, ids[3])
	l.counts(2, 3)
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: ids[4]})
	l.counts(2, 2)
	audit(l)
	l.commits(fetched) // there was no room
	l.do("task.release", l.a, g.release())
	l.counts(2, 3) // behind the others again
	audit(l)

	l.claim(l.b, ids[0])
	fetched = l.planRefill()
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: ids[2]}) // the oldest
	l.conflicts(fetched)
	taken := l.planClaim(l.oldestInBacklog())
	l.refill()
	l.counts(2, 1)
	l.conflicts(taken)
	audit(l)
}

func (l *lab) oldestInBacklog() writ.TaskID {
	_, id, _ := strings.Cut(l.w.Members(writ.Backlog(l.run))[0], " ")
	return writ.TaskID(id)
}

// Two that offer a task again at once count it once.
func TestATaskIsOfferedAgainOnce(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("refused")
	l.sweep("task.refuse", &TaskRefuseArgs{Task: id, Agent: "agent-a", Lane: l.lane()})
	l.counts(0, 0)
	one, two := l.plan("run.offer", l.w.System(), &RunOfferArgs{Run: l.run}), l.plan("run.offer", l.w.System(), &RunOfferArgs{Run: l.run})
	l.commits(one)
	l.conflicts(two)
	l.counts(1, 0)
	audit(l)
}

// A run that is offered again, as with every child run that ends, leaves what lies in its
// lanes alone: pushed again each time, it would keep other runs waiting behind it.
func TestWhatIsOfferedIsNotPushedAgain(t *testing.T) {
	l := newLab(t)
	l.claim(l.b, l.enqueue("holder", scopes("fs:repo/")))
	waits := l.enqueue("waits", scopes("fs:repo/a/"))
	if _, err := l.dispatch(l.a, l.lane(), waits); err != nil {
		t.Fatal(err)
	}
	l.enqueue("here")
	l.enqueue("both", func(a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-a", "agent-b"} })
	before := map[writ.Lane][]string{}
	for _, lane := range l.w.Lanes() {
		before[lane] = l.w.Lane(lane)
	}
	if got := l.sweep("run.offer", &RunOfferArgs{Run: l.run}); got.Changed != 0 {
		t.Errorf("%d are offered again", got.Changed)
	}
	for lane, had := range before {
		if now := l.w.Lane(lane); !slices.Equal(now, had) {
			t.Errorf("lane %s has %q, had %q", lane, now, had)
		}
	}
	audit(l)
}

// Where nothing is offered any more when a run goes on, its backlog is fetched from.
func TestABacklogThatIsLeftAloneInAPause(t *testing.T) {
	l := smallLab(t, 2)
	ids := l.many(5)
	l.runIs(writ.RunPausedApproval)
	for _, id := range ids[:2] {
		l.do("task.cancel", l.owner, &TaskCancelArgs{Task: id})
	}
	l.refill()
	l.counts(0, 3)
	l.runIs(writ.RunActive)
	l.sweep("run.offer", &RunOfferArgs{Run: l.run})
	audit(l)
	l.refill()
	l.counts(2, 1)
	audit(l)
}

// A run that waits for people leaves its backlog alone, and fetches from it when it goes on.
func TestTheBacklogOfAPausedRun(t *testing.T) {
	l := smallLab(t, 2)
	ids := l.many(5)
	l.runIs(writ.RunPausedApproval)
	for _, id := range ids[:2] {
		c := l.caps["task.refuse"]
		call := l.w.NewCall(c, l.w.System(), &TaskRefuseArgs{Task: id, Agent: "agent-a", Lane: l.lane()})
		call.Entry = entry(l.lane(), id)
		if _, _, err := l.w.Do(c, call); err != nil {
			t.Fatal(err)
		}
	}
	l.counts(0, 3)
	l.refill()
	l.counts(0, 3)
	l.runIs(writ.RunActive)
	l.w.SetIndex(writ.IndexTodo, todo(todoOffer, string(l.run)), l.w.Now)
	audit(l)
	l.sweep("run.offer", &RunOfferArgs{Run: l.run})
	audit(l)
	l.refill()
	audit(l)
	for len(l.w.Lane(l.lane())) > 0 {
		l.work(l.lane())
		l.refill()
		audit(l)
	}
	for _, id := range ids {
		l.wantState(id, writ.TaskDone)
	}
}

// Tasks that wait for a scope are not counted as offered, so that they keep no others
// back, and not all of them come at once when it is free.
func TestTheBacklogOfAScope(t *testing.T) {
	l := smallLab(t, 4)
	holder := l.claim(l.b, l.enqueue("holder", scopes("fs:repo/")))
	waits := l.many(20, scopes("fs:repo/a/"))
	free := l.many(2)
	for l.task(free[0]).State != writ.TaskDone || l.task(free[1]).State != writ.TaskDone {
		l.work(l.lane())
		l.refill()
	}
	l.counts(0, 0)
	audit(l)
	l.do("task.complete", l.b, holder.complete())
	audit(l)
	if n := len(l.w.Lane(l.lane())); int64(n) > window {
		t.Errorf("%d are offered at once", n)
	}
	for l.w.Counter(writ.RunOpenTasks(l.run)) > 0 {
		for _, m := range l.w.Members(writ.IndexTodo) {
			if id, ok := strings.CutPrefix(m, todoWake+" "); ok {
				l.sweep("task.wake", &TaskSweepArgs{Task: writ.TaskID(id)})
			}
		}
		l.refill()
		l.work(l.lane())
		audit(l)
	}
	for _, id := range waits {
		l.wantState(id, writ.TaskDone)
	}
}

// What waited before tasks said their run is woken as it was.
func TestAWaiterOfBefore(t *testing.T) {
	l := newLab(t)
	holder := l.claim(l.b, l.enqueue("holder", scopes("fs:repo/")))
	id := l.enqueue("waits", scopes("fs:repo/a/"))
	if _, err := l.dispatch(l.a, l.lane(), id); err != nil {
		t.Fatal(err)
	}
	for _, m := range l.w.Members(writ.WaitingOn(holder.task)) {
		l.w.DropIndex(writ.WaitingOn(holder.task), m)
	}
	l.w.SetIndex(writ.WaitingOn(holder.task), string(id)+" "+string(l.lane()), 4)
	l.do("task.complete", l.b, holder.complete())
	for len(l.w.Lane(l.lane())) > 0 {
		l.work(l.lane())
	}
	l.wantState(id, writ.TaskDone)
	audit(l)
}

// fits says that what the door adds has room beside a plan.
func (l *lab) fits(p *writtest.Planned) {
	l.Helper()
	if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-16 {
		l.Fatalf("%s: %d guards and %d operations", p.Cap.ID, len(p.Tx.Guards), len(p.Tx.Ops))
	}
	l.commits(p)
}

// The largest refill and the largest wake fit into their transactions.
func TestRefillsAndWakesFit(t *testing.T) {
	l := newLab(t)
	ids := l.many(int(window) + refillBatch + 10)
	l.setAgent("agent-a", func(a *writ.Agent) { a.MaxConcurrent = 500 })
	l.claims(ids[:window]...)
	l.counts(0, refillBatch+10)
	l.fits(l.planRefill())
	l.counts(refillBatch, 10)
	audit(l)

	l = newLab(t)
	own := l.run
	holder := l.claim(l.b, l.enqueue("holder", scopes("fs:repo/")))
	for range wakeAtOnce + wakeBatch + 1 { // each of another run
		l.run = l.w.Run("boss", 1000).ID
		id := l.enqueue("waits", scopes("fs:repo/a/"))
		if _, err := l.dispatch(l.a, l.lane(), id); err != nil {
			t.Fatal(err)
		}
	}
	l.run = own
	l.fits(l.plan("task.complete", l.b, holder.complete()))
	l.fits(l.plan("task.wake", l.w.System(), &TaskSweepArgs{Task: holder.task}))
	if n := len(l.w.Lane(l.lane())) - 1; n != wakeAtOnce+wakeBatch { // the holder's is there yet
		t.Errorf("%d are awake", n)
	}
}

// The end of a run clears its backlog, in as many steps as it takes.
func TestTheEndOfARunClearsItsBacklog(t *testing.T) {
	l := newLab(t)
	l.many(int(window) + 10*reapBatch)
	l.runIs(writ.RunCancelled)
	for more := true; more; {
		p := l.plan("run.reap", l.w.System(), &RunReapArgs{Run: l.run})
		l.fits(p)
		r := p.Reply.Body.(Swept)
		if more = r.More; more && r.Changed == 0 {
			t.Fatal("it does not get further")
		}
	}
	l.counts(0, 0)
	if left := l.w.Members(writ.IndexTodo); len(left) > 0 {
		t.Errorf("left to do: %v", left)
	}
	audit(l)
}

// What was counted wrong keeps nobody from working.
func TestWrongCountsHoldNothingUp(t *testing.T) {
	small(t, 2)
	for name, spoil := range map[string]func(l *lab){
		"a member that is offered": func(l *lab) {
			l.w.SetIndex(writ.Backlog(l.run), writ.BacklogMember(l.lane(), l.task(l.enqueue("spoilt")).ID), 0)
		},
		"a backlog that is none":   func(l *lab) { l.w.SetCounter(writ.RunBacklog(l.run, l.lane()), 7) },
		"fewer offered than there": func(l *lab) { l.w.SetCounter(writ.RunOffered(l.run, l.lane()), -7) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			spoil(l)
			ids := l.many(9)
			for range 3 * len(ids) {
				l.refill()
				if len(l.w.Lane(l.lane())) > 0 {
					l.work(l.lane())
				}
			}
			for _, id := range ids {
				l.wantState(id, writ.TaskDone)
			}
		})
	}
}

// The doctor sees what is wrong with places.
func TestWrongPlacesAreSeen(t *testing.T) {
	small(t, 2)
	for name, spoil := range map[string]func(l *lab, ids []writ.TaskID){
		"not in the backlog": func(l *lab, ids []writ.TaskID) {
			l.w.DropIndex(writ.Backlog(l.run), writ.BacklogMember(l.lane(), ids[3]))
		},
		"in the backlog": func(l *lab, ids []writ.TaskID) {
			l.w.SetIndex(writ.Backlog(l.run), writ.BacklogMember(l.lane(), ids[3]), 0)
			l.w.SetCounter(writ.TaskPlace(ids[3]), 1)
		},
		"a place while it runs": func(l *lab, ids []writ.TaskID) { l.claim(l.a, ids[3]); l.w.SetCounter(writ.TaskPlace(ids[3]), 1) },
		"a place there is not":  func(l *lab, ids []writ.TaskID) { l.w.SetCounter(writ.TaskPlace(ids[3]), 5) },
		"nobody fetches it":     func(l *lab, ids []writ.TaskID) { l.w.SetCounter(writ.RunOffered(l.run, l.lane()), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ids := l.many(5)
			if wrong := l.wrong(ids[3]); len(wrong) > 0 {
				t.Fatalf("%+v", wrong)
			}
			spoil(l, ids)
			if wrong := l.wrong(ids[3]); len(wrong) != 1 {
				t.Errorf("%+v", wrong)
			}
		})
	}
}
