package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// audit checks the invariants of the room over the whole world, from the
// documents alone. It knows nothing of how the verbs work.
func audit(l *lab) {
	l.Helper()
	w := l.w
	var tasks []writ.Task
	open, bad := int64(0), int64(0)
	byState := map[writ.TaskState][]string{}
	for _, id := range w.Members(writ.RunTasks(l.run)) {
		t := l.task(writ.TaskID(id))
		tasks = append(tasks, t)
		byState[t.State] = append(byState[t.State], id)
		if !writ.TaskMoves.Terminal(t.State) {
			open++
		}
		if t.State == writ.TaskFailed || t.State == writ.TaskDead {
			bad++
		}
	}

	// What a run holds is what its leases name.
	reserved := map[string]int64{}
	for _, t := range tasks {
		if t.Lease != nil {
			for dim, n := range t.Lease.Held {
				reserved[dim] += n
			}
		}
	}
	for _, dim := range writ.BudgetDimensions() {
		if got := w.Counter(writ.BudgetHeld(l.run, dim)); got != reserved[dim] {
			l.Fatalf("the run holds %d %s, its leases name %d", got, dim, reserved[dim])
		}
	}

	// Runs count their tasks and end with the last one.
	if got := w.Counter(writ.RunOpenTasks(l.run)); got != open {
		l.Fatalf("the run counts %d open tasks, there are %d", got, open)
	}
	if got := w.Counter(writ.RunBadTasks(l.run)); got != bad {
		l.Fatalf("the run counts %d bad tasks, there are %d", got, bad)
	}
	run := l.runDoc()
	if run.Sealed && run.State == writ.RunActive && run.ClosePolicy == writ.CloseAuto && open == 0 && len(tasks) > 0 {
		l.Fatal("a sealed run without open tasks is still active")
	}
	if run.State == writ.RunDone && (bad > 0 || open > 0) {
		l.Fatalf("the run is done with %d open and %d bad tasks", open, bad)
	}
	for s := range writ.TaskMoves {
		if s == "" {
			continue
		}
		if got := w.Members(writ.RunTasksIn(l.run, s)); !slices.Equal(got, byState[s]) && len(got)+len(byState[s]) > 0 {
			l.Fatalf("tasks listed as %s: %v, are: %v", s, got, byState[s])
		}
	}
	for _, id := range w.Members(writ.IndexDead) {
		if l.task(writ.TaskID(id)).State != writ.TaskDead {
			l.Fatalf("task %s is on the dead-letter list", id)
		}
	}

	if got := w.Members(writ.IndexVerify); !slices.Equal(got, byState[writ.TaskVerifying]) && len(got)+len(byState[writ.TaskVerifying]) > 0 {
		l.Fatalf("listed for a verdict: %v, wait for one: %v", got, byState[writ.TaskVerifying])
	}
	for _, t := range tasks {
		if t.State == writ.TaskDone && t.Verified != (t.Verify != nil) {
			l.Fatalf("task %s is done, verified %v, and must be: %v", t.ID, t.Verified, t.Verify != nil)
		}
	}

	// Running, leased, held and counted are one thing.
	leases, locks := w.Index(writ.IndexLeases), w.Members(writ.IndexScopes)
	counted, held := map[writ.AgentID]int64{}, map[writ.SessionID][]string{}
	var wantLocks []string
	for _, t := range tasks {
		id := string(t.ID)
		end, leased := leases[id]
		running := t.State == writ.TaskRunning
		keeps := running || t.State == writ.TaskParked && t.Lease != nil // no time runs on a parked lease
		if running != leased || keeps != (t.Lease != nil) || end != w.Counter(leaseEnd(t.ID)) {
			l.Fatalf("task %s is %s, lease %v, alarm %d, end %d", id, t.State, t.Lease, end, w.Counter(leaseEnd(t.ID)))
		}
		if t.KeptUntil != 0 {
			if at, promised := w.Index(writ.IndexTodo)[todo(todoUnreserve, id)]; t.State != writ.TaskQueued || !promised || at != t.KeptUntil {
				l.Fatalf("task %s is %s and keeps its scopes until %d, alarm %d", id, t.State, t.KeptUntil, at)
			}
			for _, s := range t.WriteScopes {
				wantLocks = append(wantLocks, writ.ScopeMember(s, t.ID))
			}
		}
		if at, alarmed := w.Index(writ.IndexTodo)[todo(todoDeadline, id)]; alarmed != (t.DeadlineAt != 0 && races(t.State)) || alarmed && at != t.DeadlineAt {
			l.Fatalf("task %s is %s, deadline %d, alarm %d", id, t.State, t.DeadlineAt, at)
		}
		if t.Lease == nil {
			continue
		}
		if t.DeadlineAt != 0 && end > t.DeadlineAt {
			l.Fatalf("the lease of %s ends at %d, after its deadline %d", id, end, t.DeadlineAt)
		}
		if end > t.Lease.MaxUntil {
			l.Fatalf("the lease of %s ends at %d, past %d", id, end, t.Lease.MaxUntil)
		}
		counted[t.Lease.Agent]++
		held[t.Lease.Session] = append(held[t.Lease.Session], id)
		for _, s := range t.WriteScopes {
			wantLocks = append(wantLocks, writ.ScopeMember(s, t.ID))
		}
	}
	if len(leases) != len(byState[writ.TaskRunning]) {
		l.Fatalf("%d leases for %d running tasks", len(leases), len(byState[writ.TaskRunning]))
	}
	for _, id := range w.Members(writ.IndexAgents) {
		agent, _, _ := writtest.Get[writ.Agent](w, writ.AgentKey(writ.AgentID(id)))
		got := w.Counter(writ.AgentRunning(agent.ID))
		if got != counted[agent.ID] || got > agent.MaxConcurrent {
			l.Fatalf("agent %s counts %d running tasks of at most %d, has %d", id, got, agent.MaxConcurrent, counted[agent.ID])
		}
	}
	for _, id := range w.Members(writ.IndexSessions) {
		got, want := w.Members(writ.SessionTasks(writ.SessionID(id))), held[writ.SessionID(id)]
		slices.Sort(want)
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			l.Fatalf("session %s is listed with %v, holds %v", id, got, want)
		}
	}

	// Locks are those of running tasks and claims those of sessions that live. None
	// overlap between two, but claims that are shared, and a session's own with its tasks.
	shares, kept, by := map[string]bool{}, map[string]bool{}, map[string]writ.SessionID{}
	for _, t := range tasks {
		kept[string(t.ID)] = t.KeptUntil != 0
		if t.Lease != nil {
			by[string(t.ID)] = t.Lease.Session
		}
	}
	for _, id := range w.Members(writ.IndexSessions) {
		ses, _, _ := writtest.Get[writ.Session](w, writ.SessionKey(writ.SessionID(id)))
		if by[id] = ses.ID; writ.SessionMoves.Terminal(ses.State) {
			continue
		}
		for _, c := range ses.WriteClaims {
			m := c.Resource + " " + id
			if c.Mode == writ.ScopeShared {
				m += " shared"
				shares[m] = true
			}
			wantLocks = append(wantLocks, m)
		}
	}
	slices.Sort(wantLocks)
	if !slices.Equal(locks, wantLocks) && len(locks)+len(wantLocks) > 0 {
		l.Fatalf("locks %v, want %v", locks, wantLocks)
	}
	for i, x := range locks {
		for _, y := range locks[i+1:] {
			px, py := strings.Fields(x), strings.Fields(y)
			hx, hy := px[1], py[1]
			claims := strings.HasPrefix(hx, "ses_") || strings.HasPrefix(hy, "ses_")
			switch {
			case hx == hy, !strings.HasPrefix(x, py[0]) && !strings.HasPrefix(y, px[0]):
			case shares[x] && shares[y]:
			case claims && by[hx] == by[hy]: // a task of the session's own
			case shares[x] && sharing(w, by[hy], px[0]), shares[y] && sharing(w, by[hx], py[0]): // of a session that shares
			case claims && (kept[hx] || kept[hy]): // for whoever takes the next task, by a session that claims it
			default:
				l.Fatalf("%s and %s hold overlapping scopes %s and %s", hx, hy, px[0], py[0])
			}
		}
	}

	auditPlaces(l, tasks, run)
	for _, t := range tasks {
		auditQueued(l, t, run)
		auditBlocked(l, t, run)
		auditFollows(l, t)
	}
}

// sharing says whether a session shares what overlaps a scope.
func sharing(w *writtest.World, id writ.SessionID, scope string) bool {
	ses, _, _ := writtest.Get[writ.Session](w, writ.SessionKey(id))
	return slices.ContainsFunc(ses.WriteClaims, func(c writ.WriteClaim) bool {
		return c.Mode == writ.ScopeShared && writ.ScopesOverlap(c.Resource, scope)
	})
}

// auditFollows: what is said to follow from documents agrees with what was found here
// by other means, so each keeps an eye on the other.
func auditFollows(l *lab, t writ.Task) {
	l.Helper()
	if wrong := l.wrong(t.ID); len(wrong) > 0 {
		l.Fatalf("task %s is %s: %+v", t.ID, t.State, wrong)
	}
}

// wrong is what does not follow from a sound task, met at some entries.
func (l *lab) wrong(id writ.TaskID, met ...writ.Entry) []writ.Implied {
	l.Helper()
	check, s := NewChecker(nil), l.w.Snapshot(writ.ReadSet{})
	before := -1
	for range 5 {
		rs, err := check.Reads(writ.TaskKey(id), s, met)
		if err != nil {
			l.Fatal(err)
		}
		wanted := len(rs.Docs) + len(rs.Counters) + len(rs.Ranges)
		if wanted == before {
			break // what was read made it want no more
		}
		s, before = l.w.Snapshot(rs), wanted
	}
	if why, err := check.Sound(writ.TaskKey(id), s); why != "" || err != nil {
		l.Fatalf("task %s: %s, %v", id, why, err)
	}
	wrong, err := check.Check(writ.TaskKey(id), s, met)
	if err != nil {
		l.Fatal(err)
	}
	return wrong
}

// auditBlocked: a blocked task counts exactly those it waits for and is listed
// with each; one that is not blocked is listed with none.
func auditBlocked(l *lab, t writ.Task, run writ.Run) {
	l.Helper()
	todos, unmet := l.w.Index(writ.IndexTodo), int64(0)
	for _, dep := range t.DependsOn {
		on := l.task(dep.Task)
		listed := slices.Contains(l.w.Members(writ.Dependents(dep.Task)), dependent(t, dep.Task))
		ended := writ.TaskMoves.Terminal(on.State) || dep.When == writ.EndGiven && (on.Gave() || on.Rework > 0)
		if _, promised := todos[todo(todoUnblock, string(dep.Task))]; listed && ended && !promised && !writ.RunMoves.Terminal(run.State) {
			l.Fatalf("task %s waits for %s, which is %s, and nobody will tell it", t.ID, dep.Task, on.State)
		}
		if listed != (t.State == writ.TaskBlocked) && (listed || !ended) {
			l.Fatalf("task %s is %s, listed with %s: %v, which is %s", t.ID, t.State, dep.Task, listed, on.State)
		}
		if listed {
			unmet++
		}
	}
	if t.Join == writ.JoinManual && !t.Admitted {
		unmet++
	}
	if t.State != writ.TaskBlocked {
		begun := t.State != writ.TaskFailed && t.State != writ.TaskCancelled // else it may have ended blocked
		if got := l.w.Counter(writ.TaskUnmet(t.ID)); got != 0 && begun {
			l.Fatalf("task %s is %s and counts %d it waits for", t.ID, t.State, got)
		}
		return
	}
	if got := l.w.Counter(writ.TaskUnmet(t.ID)); got != unmet || unmet == 0 {
		l.Fatalf("task %s waits for %d, counts %d", t.ID, unmet, got)
	}
}

// auditPlaces: what is counted as offered lies in its lane, what is counted in a backlog
// is there, and nothing waits in one for ever.
func auditPlaces(l *lab, tasks []writ.Task, run writ.Run) {
	l.Helper()
	w := l.w
	offered, backlog := map[writ.Lane]int64{}, map[writ.Lane]int64{}
	var members []string
	for _, t := range tasks {
		lane := t.Lanes()[0]
		place := w.Counter(writ.TaskPlace(t.ID))
		switch {
		case place == 0:
			continue
		case t.State != writ.TaskQueued || len(t.Agents) > 1:
			l.Fatalf("task %s is %s and has place %d", t.ID, t.State, place)
		case place == 2:
			backlog[lane]++
			members = append(members, writ.BacklogMember(lane, t.ID))
		default:
			offered[lane]++
			late := t.DeadlineAt != 0 && w.Now >= t.DeadlineAt // whoever meets it drops it
			if !slices.Contains(w.Lane(lane), string(t.ID)) && !late && !writ.RunMoves.Terminal(run.State) {
				l.Fatalf("task %s is counted as offered and does not lie in its lane", t.ID)
			}
		}
	}
	slices.Sort(members)
	if got := w.Members(writ.Backlog(run.ID)); !slices.Equal(got, members) && len(got)+len(members) > 0 {
		l.Fatalf("in the backlog: %v, should be: %v", got, members)
	}
	for _, t := range tasks {
		lane := t.Lanes()[0]
		if got, want := w.Counter(writ.RunOffered(run.ID, lane)), offered[lane]; got != want && len(t.Agents) < 2 {
			l.Fatalf("%d are counted as offered in %s, are: %d", got, lane, want)
		}
		if got, want := w.Counter(writ.RunBacklog(run.ID, lane)), backlog[lane]; got != want {
			l.Fatalf("%d are counted in the backlog of %s, are: %d", got, lane, want)
		}
	}
	todos := w.Index(writ.IndexTodo)
	for lane := range backlog {
		_, due := todos[todo(todoRefill, string(run.ID)+" "+string(lane))]
		for m := range todos { // what goes on after a pause finds them
			due = due || strings.HasPrefix(m, todo(todoOffer, string(run.ID)))
		}
		if !due && offered[lane] <= lowWater && run.Begins() {
			l.Fatalf("%d wait in the backlog of %s, %d are offered, and nobody fetches them", backlog[lane], lane, offered[lane])
		}
	}
}

// auditQueued: a queued task can be found by somebody, one that is not queued
// is on no list of the queue.
func auditQueued(l *lab, t writ.Task, run writ.Run) {
	l.Helper()
	w, id := l.w, string(t.ID)
	_, timed := w.Index(writ.IndexReady)[id]
	blockers, refusers := w.Members(writ.BlockedOn(t.ID)), w.Members(writ.Refusers(t.ID))
	_, aside := w.Index(writ.Refused(t.Capability, t.Domain))[id]
	if t.State != writ.TaskQueued {
		if timed || len(blockers) > 0 || len(refusers) > 0 || aside {
			l.Fatalf("task %s is %s but timed %v, blocked on %v, refused to %v, set aside %v", id, t.State, timed, blockers, refusers, aside)
		}
		return
	}
	if aside != (len(refusers) > 0) {
		l.Fatalf("task %s: set aside %v, refused to %v", id, aside, refusers)
	}
	late := t.DeadlineAt != 0 && w.Now >= t.DeadlineAt                   // who meets it drops it, and its deadline ends it
	found := timed || aside || late || writ.RunMoves.Terminal(run.State) // the end of its run takes it out
	for _, lane := range t.Lanes() {
		found = found || slices.Contains(w.Lane(lane), id) || slices.Contains(w.Members(writ.Backlog(t.Run)), writ.BacklogMember(lane, t.ID))
	}
	todos := w.Index(writ.IndexTodo)
	for _, h := range blockers {
		waits := slices.ContainsFunc(w.Members(writ.WaitingOn(h)), func(m string) bool { return strings.HasPrefix(m, id+" ") })
		wake := todo(todoWake, h)
		var running bool
		if strings.HasPrefix(h, "ses_") {
			ses, _, _ := writtest.Get[writ.Session](w, writ.SessionKey(writ.SessionID(h)))
			running, wake = !writ.SessionMoves.Terminal(ses.State), todo(todoSession, h)
		} else {
			running = l.task(writ.TaskID(h)).State == writ.TaskRunning || l.task(writ.TaskID(h)).KeptUntil != 0
		}
		_, promised := todos[wake]
		if !waits || (!running && !promised) {
			l.Fatalf("task %s is blocked on %s: listed there %v, that runs %v, wake promised %v", id, h, waits, running, promised)
		}
		found = true
	}
	if !found {
		l.Fatalf("nobody can find the queued task %s (attempt %d)", id, t.Attempt)
	}
}
