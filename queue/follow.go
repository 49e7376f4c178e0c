package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// What indexes and counters hold follows from documents. This file is the one place
// that says how, for those who look whether it still does; no verb uses it. It is
// about one task, or session, as one read shows it: that read is atomic, so what it shows to be
// wrong is wrong, whatever else is under way.

// Entry is a member of an index.
type Entry struct {
	Index  writ.Index `json:"index"`
	Member string     `json:"member"`
	Score  int64      `json:"score,omitempty"` // where it was met, or should be; of indexes in the order of scores only
}

// byScore says that the members of an index have scores that differ, so that only a
// range of scores finds one.
func byScore(i writ.Index) bool {
	return i == writ.IndexLeases || i == writ.IndexReady || i == writ.IndexTodo || strings.HasPrefix(string(i), string(writ.WaitingOn("")))
}

// maxMembers is how much of an index is looked at when the score does not say where a
// member is. What is not in a range so long may be past its end.
const maxMembers = 1000

// Range looks for the member, and in the order of scores for those at its score.
func (e Entry) Range() writ.Range {
	if byScore(e.Index) {
		return writ.Range{Index: e.Index, ByScore: true, Min: e.Score, Max: e.Score, Limit: maxMembers}
	}
	return writ.Range{Index: e.Index, From: e.Member, To: e.Member + "\x00", Limit: 1}
}

// anywhere looks for the member at any score.
func (e Entry) anywhere() writ.Range {
	return writ.Range{Index: e.Index, ByScore: true, Max: writ.MaxAmount, Limit: maxMembers}
}

// in says whether a snapshot shows the member.
func (e Entry) in(s writ.Snapshot) bool { return e.within(s.Ranges[e.Range()].Members) }

func (e Entry) within(list []writ.Member) bool {
	return slices.ContainsFunc(list, func(m writ.Member) bool { return m.Name == e.Member })
}

// lost says that a member is in no range that was looked at.
func (e Entry) lost(s writ.Snapshot) bool {
	if e.in(s) {
		return false
	}
	if !byScore(e.Index) {
		return true
	}
	all, read := s.Ranges[e.anywhere()]
	return read && !e.within(all.Members) && len(all.Members) < maxMembers
}

// same says whether two are the same member, wherever it is.
func (e Entry) same(o Entry) bool { return e.Index == o.Index && e.Member == o.Member }

func follows(t writ.Task, e Entry) bool { return slices.ContainsFunc(Follow(t), e.same) }

// Wrong is one thing that does not follow from the document of a task or session: a
// member that is missing, one too many, or a counter with another value.
type Wrong struct {
	Task    writ.TaskID    `json:"task_id,omitempty"`
	Session writ.SessionID `json:"session_id,omitempty"`
	Entry   Entry          `json:"entry,omitzero"`
	Missing bool           `json:"missing,omitempty"` // else it is one too many
	Counter writ.Counter   `json:"counter,omitzero"`
	Why     string         `json:"why"`
}

// Follow gives the entries that a task's document implies, in whatever room they are
// listed. What else it implies depends on other documents too: see Check.
func Follow(t writ.Task) []Entry {
	id := string(t.ID)
	out := []Entry{{Index: writ.RunTasks(t.Run), Member: id}, {Index: writ.RunTasksIn(t.Run, t.State), Member: id}}
	if t.State == writ.TaskVerifying {
		out = append(out, Entry{Index: writ.IndexVerify, Member: id})
	}
	if t.State == writ.TaskRunning {
		out = append(out, Entry{Index: writ.IndexLeases, Member: id})
	}
	if t.Lease != nil { // running, or parked with it
		out = append(out, Entry{Index: writ.SessionTasks(t.Lease.Session), Member: id})
	}
	if t.HoldsScopes() {
		for _, s := range t.WriteScopes {
			out = append(out, Entry{Index: writ.IndexScopes, Member: writ.ScopeMember(s, t.ID)})
		}
	}
	return out
}

// artifactEntries are those by which the bytes of a task's artifacts are kept, and
// found by who judges its run. Once the run has ended they may go.
func artifactEntries(t writ.Task, r writ.Run) (out []Entry) {
	for _, hex := range hexes(t.Artifacts) {
		out = append(out, Entry{Index: writ.BlobHolders(hex), Member: string(t.ID)})
		if r.ClosePolicy == writ.CloseVerifier && (t.State == writ.TaskDone || t.State == writ.TaskVerifying) {
			out = append(out, Entry{Index: writ.RunArtifacts(r.ID), Member: hex + " " + string(t.ID)})
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
			out = append(out, Entry{Index: writ.RunTasksIn(t.Run, s), Member: id})
		}
	}
	out = append(out, Entry{Index: writ.IndexVerify, Member: id})
	return slices.DeleteFunc(out, func(e Entry) bool { return follows(t, e) })
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
	see := func(e Entry) { rs.Ranges = append(rs.Ranges, e.Range()) }
	rs.Docs = []writ.Key{writ.TaskKey(id)}
	for _, e := range also {
		see(e)
	}
	t, ok, err := peek[writ.Task](s, writ.TaskKey(id))
	if err != nil || !ok {
		return rs
	}
	rs.Docs = append(rs.Docs, writ.RunKey(t.Run))
	if r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run)); err == nil && ok {
		for _, e := range artifactEntries(t, r) {
			see(e)
		}
	}
	rs = rs.Join(placeCheckReads(t, s))
	for _, e := range append(Follow(t), never(t)...) {
		if !byScore(e.Index) {
			see(e)
		}
	}
	see(Entry{Index: writ.IndexDead, Member: string(id)})
	see(Entry{Index: writ.Refused(t.Capability, t.Domain), Member: string(id)})
	rs.Ranges = append(rs.Ranges, refusers(id), blockers(id))
	rs.Counters = append(rs.Counters, readiedUpTo(id), writ.TaskUnmet(id), leaseEnd(id))
	if _, read := s.Counters[leaseEnd(id)]; read {
		for _, e := range timers(t, s) { // most are where they should be, and only else all are looked at
			see(e)
			if list, read := s.Ranges[e.Range()]; read && !e.within(list.Members) {
				rs.Ranges = append(rs.Ranges, e.anywhere())
			}
		}
	}
	if t.Lease != nil && len(t.Lease.Awaits) > 0 {
		rs.Ranges = append(rs.Ranges, Entry{Index: writ.IndexTodo}.anywhere())
	}
	for _, h := range s.Ranges[blockers(id)].Members {
		if k, ok := writ.Holder(h.Name).Key(); ok {
			rs.Docs = append(rs.Docs, k)
		}
		rs.Ranges = append(rs.Ranges, waitsThere(writ.Holder(h.Name), t).Range(), Entry{Index: writ.IndexTodo}.anywhere())
	}
	for _, d := range t.DependsOn {
		rs.Docs = append(rs.Docs, writ.TaskKey(d.Task))
		see(Entry{Index: writ.Dependents(d.Task), Member: string(id)})
		on, ok, err := peek[writ.Task](s, writ.TaskKey(d.Task))
		if t.State == writ.TaskBlocked && err == nil && ok && writ.TaskMoves.Terminal(on.State) {
			rs.Ranges = append(rs.Ranges, Entry{Index: writ.IndexTodo}.anywhere())
		}
	}
	return rs
}

// timers are the entries by which a task is found when its time comes.
func timers(t writ.Task, s writ.Snapshot) (out []Entry) {
	if t.State == writ.TaskRunning {
		out = append(out, Entry{Index: writ.IndexLeases, Member: string(t.ID), Score: s.Counters[leaseEnd(t.ID)]})
	}
	if t.KeptUntil != 0 {
		out = append(out, Entry{Index: writ.IndexTodo, Member: todo(todoUnreserve, string(t.ID)), Score: t.KeptUntil})
	}
	if t.DeadlineAt != 0 && races(t.State) {
		out = append(out, Entry{Index: writ.IndexTodo, Member: todo(todoDeadline, string(t.ID)), Score: t.DeadlineAt})
	}
	if timed(t, s) {
		out = append(out, Entry{Index: writ.IndexReady, Member: string(t.ID), Score: t.NotBefore})
	}
	return out
}

// timed says that a queued task waits for its time, or for the sweeper to see that it
// has come.
func timed(t writ.Task, s writ.Snapshot) bool {
	return t.State == writ.TaskQueued && t.NotBefore != 0 && s.Counters[readiedUpTo(t.ID)] != t.NotBefore
}

// waitsThere is where a task that waits for a holder is found among the others that
// do: by its priority, in whatever lane.
func waitsThere(holder writ.Holder, t writ.Task) Entry {
	return Entry{Index: writ.WaitingOn(holder), Member: string(t.ID), Score: 9 - t.Priority}
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
	for _, e := range append(Follow(t), timers(t, s)...) {
		if (!byScore(e.Index) || e.Score != 0) && e.lost(s) {
			wrong(e, true, is)
		}
	}
	for _, e := range artifactEntries(t, r) {
		if e.lost(s) && !writ.RunMoves.Terminal(r.State) {
			wrong(e, true, "the task has the artifact")
		}
	}
	for _, e := range never(t) {
		if e.in(s) {
			wrong(e, false, is)
		}
	}
	for _, e := range also {
		if e.in(s) && idle(t, s, e) {
			wrong(e, false, is+", and has nothing to do there")
		}
	}
	first := writ.MakeID(writ.PrefixTask, max(0, s.Now-deadKept.Milliseconds()), [10]byte{})
	dead := Entry{Index: writ.IndexDead, Member: string(id)}
	if died := t.State == writ.TaskDead; dead.in(s) && !died || !dead.in(s) && died && string(id) >= first {
		wrong(dead, died, is)
	}
	if looked := (Entry{Index: writ.IndexTodo, Member: todo(todoUntangle, string(id))}); t.State == writ.TaskRunning && len(t.Lease.Awaits) > 0 && looked.lost(s) {
		wrong(looked, true, "its holder waits for others")
	}
	checkQueued(t, s, wrong)
	checkBlocked(t, r, s, wrong)
	out = append(out, checkPlace(t, r, s, wrong)...)
	if unmet := listedWith(t, s) + unadmitted(t); t.State == writ.TaskBlocked && s.Counters[writ.TaskUnmet(id)] != unmet {
		out = append(out, Wrong{
			Task: id, Counter: writ.TaskUnmet(id),
			Why: "it waits for " + strconv.FormatInt(unmet, 10) + " things, and counts " + strconv.FormatInt(s.Counters[writ.TaskUnmet(id)], 10),
		})
	}
	return out, nil
}

// idle says that an entry somebody has met is of no use to the task it names. What may
// be left behind, and is dropped when it is met, is not.
func idle(t writ.Task, s writ.Snapshot, e Entry) bool {
	kind := func(i writ.Index) bool { return strings.HasPrefix(string(e.Index), string(i)) }
	switch {
	case e.Index == writ.IndexReady:
		return t.State != writ.TaskQueued
	case e.Index == writ.IndexLeases, e.Index == writ.IndexScopes, kind(writ.SessionTasks("")):
		return !follows(t, e)
	case kind(writ.Backlog("")):
		own, _ := inBacklog(t)
		return !own.same(e) // its own is looked at with its place
	case kind(writ.Dependents("")):
		return !slices.ContainsFunc(t.DependsOn, func(d writ.Dependency) bool { return writ.Dependents(d.Task) == e.Index })
	}
	return false
}

// checkQueued: what waits for a time, for scopes, or for another agent is on the
// lists of that, and nobody else is.
func checkQueued(t writ.Task, s writ.Snapshot, wrong func(Entry, bool, string)) {
	id, queued, is := string(t.ID), t.State == writ.TaskQueued, "the task is "+string(t.State)
	aside := Entry{Index: writ.Refused(t.Capability, t.Domain), Member: id}
	refused := s.Ranges[refusers(t.ID)].Members
	if set := len(refused) > 0; set != aside.in(s) {
		wrong(aside, set, "it was refused to "+strconv.Itoa(len(refused))+" agents")
	}
	for _, m := range refused {
		if !queued {
			wrong(Entry{Index: writ.Refusers(t.ID), Member: m.Name}, false, is)
		}
	}
	for _, h := range s.Ranges[blockers(t.ID)].Members {
		e := Entry{Index: writ.BlockedOn(t.ID), Member: h.Name}
		holds, wakes := holding(s, writ.Holder(h.Name))
		promised := Entry{Index: writ.IndexTodo, Member: wakes}
		there := waitsThere(writ.Holder(h.Name), t)
		others := s.Ranges[there.Range()].Members
		switch {
		case !queued:
			wrong(e, false, is)
		case len(others) < maxMembers && !slices.ContainsFunc(others, func(m writ.Member) bool { return strings.HasPrefix(m.Name, id+" ") }):
			wrong(there, true, "the task says that it waits there")
		case !holds && promised.lost(s):
			wrong(promised, true, "the task waits for one that holds nothing")
		}
	}
}

// holding says whether somebody still has scopes, and what follow-up wakes those who
// wait for them when not.
func holding(s writ.Snapshot, h writ.Holder) (holds bool, wakes string) {
	if id := writ.SessionID(h); id.Valid() {
		ses, _, _, err := writ.Get[writ.Session](s, writ.SessionKey(id))
		return err != nil || ses.HoldsScopes(), todo(todoSession, string(h))
	}
	t, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(writ.TaskID(h)))
	return err != nil || t.HoldsScopes(), todo(todoWake, string(h))
}

// checkBlocked: a blocked task is listed with every task it waits for that has not
// ended, and with those that have as long as somebody will tell it.
func checkBlocked(t writ.Task, r writ.Run, s writ.Snapshot, wrong func(Entry, bool, string)) {
	blocked, is := t.State == writ.TaskBlocked, "the task is "+string(t.State)
	for _, d := range t.DependsOn {
		on, _, _, err := writ.Get[writ.Task](s, writ.TaskKey(d.Task))
		e, promised := Entry{Index: writ.Dependents(d.Task), Member: string(t.ID)}, Entry{Index: writ.IndexTodo, Member: todo(todoUnblock, string(d.Task))}
		ended := err == nil && writ.TaskMoves.Terminal(on.State)
		switch {
		case e.in(s) && !blocked:
			wrong(e, false, is)
		case !e.in(s) && blocked && !ended:
			wrong(e, true, is)
		case e.in(s) && ended && promised.lost(s) && !writ.RunMoves.Terminal(r.State):
			wrong(promised, true, "the task waits for one that has ended")
		}
	}
}

// unadmitted counts the word that a task of join manual waits for.
func unadmitted(t writ.Task) int64 {
	if t.Join == writ.JoinManual && !t.Admitted {
		return 1
	}
	return 0
}

func listedWith(t writ.Task, s writ.Snapshot) (n int64) {
	for _, d := range t.DependsOn {
		if (Entry{Index: writ.Dependents(d.Task), Member: string(t.ID)}).in(s) {
			n++
		}
	}
	return n
}

// InLanes says that a queued task waits for nothing, so that it must lie in its lanes:
// not for a time, for scopes, for another agent, or behind others of its run. It wants
// CheckReads.
func InLanes(t writ.Task, s writ.Snapshot) bool {
	late := t.DeadlineAt != 0 && s.Now >= t.DeadlineAt // who meets it drops it, and its deadline ends it
	_, _, backlog := Offers(t, s)
	return t.State == writ.TaskQueued && !late && !backlog && !timed(t, s) && len(s.Ranges[refusers(t.ID)].Members) == 0 && len(s.Ranges[blockers(t.ID)].Members) == 0
}
