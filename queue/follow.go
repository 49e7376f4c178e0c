package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// What indexes and counters hold follows from documents. This file is the one place
// that says how, for those who look whether it still does; no verb uses it. It is
// about one task, as one read shows it: that read is atomic, so what it shows to be
// wrong is wrong, whatever else is under way.

// Entry is a member of an index.
type Entry struct {
	Index  writ.Index
	Member string
}

// at looks for exactly one member.
func (e Entry) at() writ.Range {
	return writ.Range{Index: e.Index, From: e.Member, To: e.Member + "\x00", Limit: 1}
}

// in says whether a snapshot shows the member.
func (e Entry) in(s writ.Snapshot) bool { return len(s.Ranges[e.at()].Members) > 0 }

// Wrong is one thing that does not follow from a task's document: a member that is
// missing, one too many, or a counter with another value.
type Wrong struct {
	Task    writ.TaskID  `json:"task_id"`
	Entry   Entry        `json:"entry,omitzero"`
	Missing bool         `json:"missing,omitempty"` // else it is one too many
	Counter writ.Counter `json:"counter,omitzero"`
	Why     string       `json:"why"`
}

// Follow gives the entries that a task's document implies, in whatever room they are
// listed. What else it implies depends on other documents too: see Check.
func Follow(t writ.Task) []Entry {
	id := string(t.ID)
	out := []Entry{{writ.RunTasks(t.Run), id}, {writ.RunTasksIn(t.Run, t.State), id}}
	if t.State == writ.TaskVerifying {
		out = append(out, Entry{writ.IndexVerify, id})
	}
	if t.State == writ.TaskRunning {
		out = append(out, Entry{writ.IndexLeases, id})
	}
	if t.Lease != nil { // running, or parked with it
		out = append(out, Entry{writ.SessionTasks(t.Lease.Session), id})
		for _, s := range t.WriteScopes {
			out = append(out, Entry{writ.IndexScopes, writ.ScopeMember(s, t.ID)})
		}
	}
	return out
}

// never are entries about a task that a document may not imply, so that those one
// too many are seen.
func never(t writ.Task) (out []Entry) {
	id := string(t.ID)
	for s := range writ.TaskMoves {
		if s != "" {
			out = append(out, Entry{writ.RunTasksIn(t.Run, s), id})
		}
	}
	out = append(out, Entry{writ.IndexVerify, id}, Entry{writ.IndexLeases, id})
	return slices.DeleteFunc(out, func(e Entry) bool { return slices.Contains(Follow(t), e) })
}

// Opens says what a task counts as open and as ended badly in its run, and against
// the quota of which agent.
func Opens(t writ.Task) (open, bad int64, agent writ.AgentID) {
	if !writ.TaskMoves.Terminal(t.State) {
		open = 1
	}
	if t.State == writ.TaskFailed || t.State == writ.TaskDead {
		bad = 1
	}
	if t.Lease != nil {
		agent = t.Lease.Agent
	}
	return open, bad, agent
}

// CheckReads names what Check must see of a task, as far as s shows where to look.
// also are entries somebody has met that name the task.
func CheckReads(id writ.TaskID, s writ.Snapshot, also []Entry) (rs writ.ReadSet) {
	rs.Docs = []writ.Key{writ.TaskKey(id)}
	for _, e := range also {
		rs.Ranges = append(rs.Ranges, e.at())
	}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
	if err != nil || !ok {
		return rs
	}
	rs.Docs = append(rs.Docs, writ.RunKey(t.Run))
	for _, e := range append(Follow(t), never(t)...) {
		rs.Ranges = append(rs.Ranges, e.at())
	}
	for _, e := range []Entry{{writ.IndexReady, string(id)}, {writ.IndexDead, string(id)}, {writ.Refused(t.Capability, t.Domain), string(id)}} {
		rs.Ranges = append(rs.Ranges, e.at())
	}
	rs.Ranges = append(rs.Ranges, refusers(id), blockers(id))
	rs.Counters = append(rs.Counters, readiedUpTo(id), writ.TaskUnmet(id))
	for _, h := range s.Ranges[blockers(id)].Members {
		rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(h.Name)))
		rs.Ranges = append(rs.Ranges, waitsThere(writ.TaskID(h.Name), id), Entry{writ.IndexTodo, todo(todoWake, h.Name)}.at())
	}
	for _, d := range t.DependsOn {
		rs.Docs = append(rs.Docs, writ.TaskKey(d.Task))
		rs.Ranges = append(rs.Ranges, Entry{writ.Dependents(d.Task), string(id)}.at(), Entry{writ.IndexTodo, todo(todoUnblock, string(d.Task))}.at())
	}
	return rs
}

// waitsThere looks for a task among those that wait for a holder, in whatever lane.
func waitsThere(holder, id writ.TaskID) writ.Range {
	return writ.Range{Index: writ.WaitingOn(holder), From: string(id) + " ", To: string(id) + "!", Limit: 1}
}

// Check says what does not follow from a task's document. It wants CheckReads.
func Check(id writ.TaskID, s writ.Snapshot, also []Entry) (out []Wrong, err error) {
	wrong := func(e Entry, missing bool, why string) {
		out = append(out, Wrong{Task: id, Entry: e, Missing: missing, Why: why})
	}
	t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(id))
	if err != nil {
		return nil, err
	}
	if !ok {
		for _, e := range also {
			if e.in(s) {
				wrong(e, false, "there is no such task")
			}
		}
		return out, nil
	}
	r, _, _, err := writ.Get[writ.Run](s, writ.RunKey(t.Run))
	if err != nil {
		return nil, err
	}
	is := "the task is " + string(t.State)
	for _, e := range Follow(t) {
		if !e.in(s) {
			wrong(e, true, is)
		}
	}
	for _, e := range never(t) {
		if e.in(s) {
			wrong(e, false, is)
		}
	}
	for _, e := range also {
		holds := (e.Index == writ.IndexScopes || strings.HasPrefix(string(e.Index), string(writ.SessionTasks("")))) && e.in(s)
		if holds && !slices.Contains(Follow(t), e) {
			wrong(e, false, is+", and does not hold that")
		}
	}
	first := writ.MakeID(writ.PrefixTask, max(0, s.Now-deadKept.Milliseconds()), [10]byte{})
	dead := Entry{writ.IndexDead, string(id)}
	if died := t.State == writ.TaskDead; dead.in(s) && !died || !dead.in(s) && died && string(id) >= first {
		wrong(dead, died, is)
	}
	checkQueued(t, s, wrong)
	checkBlocked(t, r, s, wrong)
	if unmet := listedWith(t, s); t.State == writ.TaskBlocked && s.Counters[writ.TaskUnmet(id)] != unmet {
		out = append(out, Wrong{
			Task: id, Counter: writ.TaskUnmet(id),
			Why: "it is listed with " + strconv.FormatInt(unmet, 10) + " tasks it waits for, and counts " + strconv.FormatInt(s.Counters[writ.TaskUnmet(id)], 10),
		})
	}
	return out, nil
}

// checkQueued: what waits for a time, for scopes, or for another agent is on the
// lists of that, and nobody else is.
func checkQueued(t writ.Task, s writ.Snapshot, wrong func(Entry, bool, string)) {
	id, queued, is := string(t.ID), t.State == writ.TaskQueued, "the task is "+string(t.State)
	ready := Entry{writ.IndexReady, id}
	timed := queued && t.NotBefore != 0 && s.Counters[readiedUpTo(t.ID)] != t.NotBefore
	if timed != ready.in(s) && (timed || !queued) { // one too many of a queued task goes at its time
		wrong(ready, timed, is)
	}
	aside := Entry{writ.Refused(t.Capability, t.Domain), id}
	refused := s.Ranges[refusers(t.ID)].Members
	if set := len(refused) > 0; set != aside.in(s) {
		wrong(aside, set, "it was refused to "+strconv.Itoa(len(refused))+" agents")
	}
	for _, m := range refused {
		if !queued {
			wrong(Entry{writ.Refusers(t.ID), m.Name}, false, is)
		}
	}
	for _, h := range s.Ranges[blockers(t.ID)].Members {
		e := Entry{writ.BlockedOn(t.ID), h.Name}
		holder, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(h.Name)))
		promised := Entry{writ.IndexTodo, todo(todoWake, h.Name)}
		switch {
		case !queued:
			wrong(e, false, is)
		case len(s.Ranges[waitsThere(writ.TaskID(h.Name), t.ID)].Members) == 0:
			wrong(Entry{writ.WaitingOn(writ.TaskID(h.Name)), id}, true, "the task says that it waits there")
		case err == nil && holder.Lease == nil && !promised.in(s):
			wrong(promised, true, "the task waits for one that holds nothing")
		}
	}
}

// checkBlocked: a blocked task is listed with every task it waits for that has not
// ended, and with those that have as long as somebody will tell it.
func checkBlocked(t writ.Task, r writ.Run, s writ.Snapshot, wrong func(Entry, bool, string)) {
	blocked, is := t.State == writ.TaskBlocked, "the task is "+string(t.State)
	for _, d := range t.DependsOn {
		on, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(d.Task))
		e, promised := Entry{writ.Dependents(d.Task), string(t.ID)}, Entry{writ.IndexTodo, todo(todoUnblock, string(d.Task))}
		ended := err == nil && writ.TaskMoves.Terminal(on.State)
		switch {
		case e.in(s) && !blocked:
			wrong(e, false, is)
		case !e.in(s) && blocked && !ended:
			wrong(e, true, is)
		case e.in(s) && ended && !promised.in(s) && !writ.RunMoves.Terminal(r.State):
			wrong(promised, true, "the task waits for one that has ended")
		}
	}
}

func listedWith(t writ.Task, s writ.Snapshot) (n int64) {
	for _, d := range t.DependsOn {
		if (Entry{writ.Dependents(d.Task), string(t.ID)}).in(s) {
			n++
		}
	}
	return n
}
