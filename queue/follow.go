package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// What indexes and counters hold about tasks follows from documents. This file is the
// one place that says how, for those who look whether they still do; no verb uses it.
// It is about one task, as one read shows it.

// Follower says what follows from the documents of tasks.
func Follower() writ.Follower {
	return writ.Follower{Kind: writ.ObjectTask, Reads: followReads, Sound: coherent, Implies: implies, Counts: counts}
}

// counted says whether a task counts in the quotas on tasks that wait.
func counted(t writ.Task) bool { return t.State == writ.TaskBlocked || t.State == writ.TaskQueued }

// followReads names what implies must see of a task, as far as s shows where to look.
func followReads(id string, s writ.Snapshot) (rs writ.ReadSet, err error) {
	t, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(id)))
	if err != nil {
		return rs, err
	}
	see := func(i writ.Index, member string) {
		rs.Ranges = append(rs.Ranges, writ.Entry{Index: i, Member: member}.Range())
	}
	rs.Docs = []writ.Key{writ.RunKey(t.Run)}
	rs.Counters = []writ.Counter{readiedUpTo(t.ID), writ.TaskUnmet(t.ID), leaseEnd(t.ID)}
	rs.Ranges = []writ.Range{refusers(t.ID), blockers(t.ID)}
	if t.HoldsScopes() {
		rs.Ranges = append(rs.Ranges, waiters(t.ID, someWaiters))
		for _, w := range waitingFor(t, s) {
			rs.Docs = append(rs.Docs, writ.TaskKey(w))
		}
	}
	for _, h := range s.Ranges[blockers(t.ID)].Members {
		if docs := writ.Holder(h.Name).Docs(); len(docs) > 0 {
			rs.Docs = append(rs.Docs, docs...)
			for _, l := range t.Lanes() {
				see(writ.WaitingOn(h.Name), waiterMember(t, l))
			}
		}
	}
	for _, d := range t.DependsOn {
		rs.Docs = append(rs.Docs, writ.TaskKey(d.Task))
		see(writ.Dependents(d.Task), dependent(t, d.Task))
	}
	if len(t.Owes) > 0 {
		rs.Docs = append(rs.Docs, writ.GatesKey(t.ID))
		for _, g := range t.Owes {
			see(writ.RunOwed(t.Run), owed(g, t.ID))
		}
	}
	return rs.Join(placeFollowReads(t, s)).Join(artifactFollowReads(t)), nil
}

// coherent says what contradicts itself in a task: nobody can decide what was meant.
func coherent(id string, s writ.Snapshot) (string, error) {
	t, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(id)))
	if err != nil {
		return "", err
	}
	_, _, run, err := writ.Get[writ.Run](s, writ.RunKey(t.Run))
	_, known := writ.TaskMoves[t.State]
	switch {
	case err != nil:
		return "", err
	case string(t.ID) != id:
		return "the document says that it is another task", nil
	case !known || t.State == "":
		return "the task is in a state there is not", nil
	case !run:
		return "there is no run of the task", nil
	case t.State == writ.TaskRunning && t.Lease == nil:
		return "the task is running without a lease", nil
	case t.State != writ.TaskRunning && t.State != writ.TaskParked && t.Lease != nil:
		return "the task has a lease and is " + string(t.State), nil
	case t.KeptUntil != 0 && t.State != writ.TaskQueued:
		return "scopes are kept for the task, and it is " + string(t.State), nil
	}
	return "", nil
}

// implies gives what the document of a task implies, and the lists it is on.
func implies(id string, s writ.Snapshot) (out []writ.Implied, err error) {
	t, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(id)))
	if err != nil {
		return nil, err
	}
	is := "the task is " + string(t.State)
	say := func(in bool, i writ.Index, member string) { out = append(out, writ.InIf(in, i, member, is)) }
	at := func(in bool, i writ.Index, member string, score int64) {
		out = append(out, writ.Implied{Entry: writ.Entry{Index: i, Member: member, Score: score}, Out: !in, Why: is})
	}
	say(true, writ.RunTasks(t.Run), id)
	for state := range writ.TaskMoves {
		if state != "" {
			say(state == t.State, writ.RunTasksIn(t.Run, state), id)
		}
	}
	say(t.State == writ.TaskVerifying, writ.IndexVerify, id)
	for _, a := range t.Behind {
		say(!writ.TaskMoves.Terminal(t.State), writ.SetGoing(writ.ObjectTask, a), id)
	}
	if t.Lease != nil { // running, or parked with it
		say(true, writ.SessionTasks(t.Lease.Session), id)
	}
	for _, scope := range t.WriteScopes {
		say(t.HoldsScopes(), writ.IndexScopes, writ.ScopeMember(scope, t.ID))
	}
	if end := s.Counters[leaseEnd(t.ID)]; t.State != writ.TaskRunning || end != 0 {
		at(t.State == writ.TaskRunning, writ.IndexLeases, id, end)
	}
	if t.KeptUntil != 0 {
		at(true, writ.IndexTodo, todo(todoUnreserve, id), t.KeptUntil)
	}
	if t.DeadlineAt != 0 && races(t.State) {
		at(true, writ.IndexTodo, todo(todoDeadline, id), t.DeadlineAt)
	}
	switch {
	case timed(t, s):
		at(true, writ.IndexReady, id, t.NotBefore)
	case t.State != writ.TaskQueued:
		at(false, writ.IndexReady, id, 0)
	}
	first := writ.MakeID(writ.PrefixTask, max(0, s.Now-deadKept.Milliseconds()), [10]byte{})
	died := t.State == writ.TaskDead
	out = append(out, writ.Implied{Entry: writ.Entry{Index: writ.IndexDead, Member: id}, Out: !died, May: died && id < first, Why: is})
	for _, w := range waitingFor(t, s) {
		if waits, ok, err := peek[writ.Task](s, writ.TaskKey(w)); err == nil && ok && waits.State == writ.TaskQueued {
			out = append(out, writ.InIf(true, writ.BlockedOn(w), id, "it is among those that wait for the task"))
		}
	}
	if t.Lease != nil && t.State == writ.TaskRunning && len(t.Lease.Awaits) > 0 {
		out = append(out, promised(todo(todoUntangle, id), s.Now+deadlockEvery, "its holder waits for others"))
	}
	out = append(out, impliedWaits(t, s)...)
	blocked, err := impliedBlocks(t, s)
	if err != nil {
		return nil, err
	}
	place, err := impliedPlace(t, s)
	if err != nil {
		return nil, err
	}
	gates, err := impliedGates(t, s)
	if err != nil {
		return nil, err
	}
	made, err := impliedArtifacts(t, s)
	return slices.Concat(out, blocked, place, gates, made), err
}

// someWaiters is how many of those that wait for a task are looked at.
const someWaiters = 32

// waitingFor are tasks found among those that wait for one that holds scopes.
func waitingFor(t writ.Task, s writ.Snapshot) (out []writ.TaskID) {
	for _, m := range s.Ranges[waiters(t.ID, someWaiters)].Members {
		if w, _, _ := writ.SplitWaiter(m.Name); w.Valid() && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// timed says that a queued task waits for its time, or for the sweeper to see that it
// has come.
func timed(t writ.Task, s writ.Snapshot) bool {
	return t.State == writ.TaskQueued && t.NotBefore != 0 && s.Counters[readiedUpTo(t.ID)] != t.NotBefore
}

// impliedWaits: what waits for scopes or for another agent is on the lists of that,
// and nobody else is.
func impliedWaits(t writ.Task, s writ.Snapshot) (out []writ.Implied) {
	id, queued, is := string(t.ID), t.State == writ.TaskQueued, "the task is "+string(t.State)
	refused := s.Ranges[refusers(t.ID)].Members
	set := queued && len(refused) > 0
	out = append(out, writ.InIf(set, writ.Refused(t.Capability, t.Domain), id, is+", and was refused to "+strconv.Itoa(len(refused))+" agents"))
	for _, m := range refused {
		out = append(out, writ.InIf(queued, writ.Refusers(t.ID), m.Name, is))
	}
	for _, h := range s.Ranges[blockers(t.ID)].Members {
		holder := writ.Holder(h.Name)
		key, known := holder.Key()
		exists := known && s.Docs[key].Version != 0
		on := writ.InIf(queued && exists, writ.BlockedOn(t.ID), h.Name, is)
		if !exists {
			on.Why = "there is nobody like that to wait for"
		}
		if out = append(out, on); on.Out {
			continue
		}
		for _, l := range t.Lanes() {
			there := writ.Implied{Entry: writ.Entry{Index: writ.WaitingOn(holder), Member: waiterMember(t, l), Score: 9 - t.Priority}, Why: "the task says that it waits there"}
			if _, in := there.In(s); in || !waitsIn(t, holder, s) { // of several lanes it waits from some
				out = append(out, there)
			}
		}
		if holds, wakes := holding(s, holder); !holds {
			// Whoever let it go first has promised this; who comes for nothing drops it.
			out = append(out, promised(wakes, s.Now, "the task waits for one that holds nothing"))
		}
	}
	return out
}

// waitsIn says whether a task is found among those that wait for a holder.
func waitsIn(t writ.Task, holder writ.Holder, s writ.Snapshot) bool {
	return slices.ContainsFunc(t.Lanes(), func(l writ.Lane) bool {
		_, in := writ.Entry{Index: writ.WaitingOn(holder), Member: waiterMember(t, l)}.In(s)
		return in
	})
}

// holding says whether somebody still has scopes, and what follow-up wakes those who
// wait for them when not. Of one that cannot be read nothing is said.
func holding(s writ.Snapshot, h writ.Holder) (holds bool, wakes string) {
	if id := writ.SessionID(h); id.Valid() {
		ses, ok, err := peek[writ.Session](s, writ.SessionKey(id))
		if err == nil && ok {
			holds, err = writ.HoldsScopes(s, ses)
		}
		return err != nil || !ok || holds, todo(todoSession, string(h))
	}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(writ.TaskID(h)))
	return err != nil || !ok || t.HoldsScopes(), todo(todoWake, string(h))
}

// promised is a follow-up that somebody has left, whenever it is due. One that is
// missing is left for a time.
func promised(member string, at int64, why string) writ.Implied {
	return writ.Implied{Entry: writ.Entry{Index: writ.IndexTodo, Member: member, Score: at}, Any: true, Why: why}
}

// impliedBlocks: a blocked task is listed with every task it waits for that has not
// ended, and with those that have as long as somebody will tell it. It counts them.
func impliedBlocks(t writ.Task, s writ.Snapshot) (out []writ.Implied, err error) {
	blocked, is, unmet, last := t.State == writ.TaskBlocked, "the task is "+string(t.State), unadmitted(t), writ.TaskID("")
	r, over, err := peek[writ.Run](s, writ.RunKey(t.Run))
	if err != nil {
		return nil, err
	}
	over = over && writ.RunMoves.Terminal(r.State) // its end cancels the task
	tell := func(on writ.TaskID) {
		if !over {
			out = append(out, promised(todo(todoUnblock, string(on)), s.Now, "the task waits for one that has ended"))
		}
	}
	for _, d := range t.DependsOn {
		on, found, err := peek[writ.Task](s, writ.TaskKey(d.Task))
		if err != nil {
			return nil, err
		}
		e := writ.InIf(blocked, writ.Dependents(d.Task), dependent(t, d.Task), is)
		ended := found && (writ.TaskMoves.Terminal(on.State) || d.When == writ.EndGiven && (on.Gave() || on.Rework > 0)) // perhaps sent back since
		if _, in := e.In(s); blocked && ended && !in {
			last = d.Task
			continue // it was told
		}
		if out = append(out, e); blocked {
			if unmet++; ended {
				tell(d.Task)
			}
		}
	}
	switch {
	case !blocked:
		return out, nil
	case unmet == 0 && last != "":
		// Nothing keeps it and nobody will say so: it is told once more.
		unmet = 1
		out = append(out, writ.InIf(true, writ.Dependents(last), dependent(t, last), "nothing keeps the task that is blocked"))
		tell(last)
	}
	why := "it waits for " + strconv.FormatInt(unmet, 10) + " things, and counts " + strconv.FormatInt(s.Counters[writ.TaskUnmet(t.ID)], 10)
	return append(out, writ.Implied{Counter: writ.TaskUnmet(t.ID), Entry: writ.Entry{Score: unmet}, Why: why}), nil
}

// unadmitted counts the word that a task of join manual waits for.
func unadmitted(t writ.Task) int64 {
	if t.Join == writ.JoinManual && !t.Admitted {
		return 1
	}
	return 0
}

// stray says of an entry that somebody has met and that names a task, where the task
// implies nothing about it, that it should not be there. What may be left behind,
// and is dropped when it is met, may.
func stray(e writ.Entry) bool {
	return e.Index != writ.IndexTodo && e.Index != writ.IndexReady &&
		!strings.HasPrefix(string(e.Index), string(writ.WaitingOn(""))) &&
		!strings.HasPrefix(string(e.Index), string(writ.Refused("", ""))[:len("refused/")])
}

// InLanes says that a queued task waits for nothing, so that it must lie in its lanes:
// not for a time, for scopes, for another agent, or behind others of its run. It wants
// what its follower reads.
func InLanes(t writ.Task, s writ.Snapshot) bool {
	late := t.DeadlineAt != 0 && s.Now >= t.DeadlineAt // who meets it drops it, and its deadline ends it
	r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run))
	over := err != nil || !ok || writ.RunMoves.Terminal(r.State) // who meets it drops it, and the end of its run cancels it
	_, _, backlog := Offers(t, s)
	return t.State == writ.TaskQueued && !late && !over && !backlog && !keptBack(t, s)
}

// keptBack says that a queued task waits for a time, for scopes, or for another agent.
func keptBack(t writ.Task, s writ.Snapshot) bool {
	return timed(t, s) || len(s.Ranges[refusers(t.ID)].Members) > 0 || len(s.Ranges[blockers(t.ID)].Members) > 0
}

// counts is a task's part in the counters of its run, of its lane, of the agent that has
// it, and of the quotas it counts in.
func counts(id string, s writ.Snapshot) ([]writ.Count, error) {
	t, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(id)))
	if err != nil {
		return nil, err
	}
	part := func(is bool) int64 {
		if is {
			return 1
		}
		return 0
	}
	out := []writ.Count{
		{Counter: writ.RunOpenTasks(t.Run), N: part(!writ.TaskMoves.Terminal(t.State))},
		{Counter: writ.RunBadTasks(t.Run), N: part(t.State == writ.TaskFailed || t.State == writ.TaskDead)},
	}
	for _, tag := range t.Counted {
		out = append(out, writ.Count{Counter: writ.QuotaUsed(tag), N: part(counted(t))})
	}
	for _, tag := range t.BytesCounted {
		n := int64(0)
		if s.Counters[purged(t.ID)] == 0 {
			n = bytesOf(t.Artifacts)
		}
		out = append(out, writ.Count{Counter: writ.QuotaUsed(tag), N: n})
	}
	if lane, one := onlyLane(t); one {
		_, offered, backlog := Offers(t, s)
		out = append(out, writ.Count{Counter: writ.RunOffered(t.Run, lane), N: part(offered)}, writ.Count{Counter: writ.RunBacklog(t.Run, lane), N: part(backlog)})
	}
	if t.Lease == nil {
		return out, nil
	}
	out = append(out, writ.Count{Counter: writ.AgentRunning(t.Lease.Agent), N: 1})
	for _, tag := range t.Lease.Counted {
		out = append(out, writ.Count{Counter: writ.QuotaUsed(tag), N: 1})
	}
	for _, dim := range writ.Dimensions(t.Lease.Held) {
		out = append(out, writ.Count{Counter: writ.BudgetHeld(t.Run, dim), N: t.Lease.Held[dim]})
	}
	return out, nil
}
