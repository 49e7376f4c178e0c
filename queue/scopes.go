package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// canonicalScopes brings the scopes of a task into their stored form: sorted,
// without those another one covers.
func canonicalScopes(op string, in []string) ([]string, error) {
	all := make([]string, 0, len(in))
	for i, s := range in {
		c, err := writ.CanonicalScope(s)
		if err != nil {
			e := invalid(op, "/write_scopes/"+strconv.Itoa(i), "is not a canonical resource URI")
			e.Hint = writ.ScopeForm
			return nil, e
		}
		all = append(all, c)
	}
	slices.Sort(all) // a scope is followed by all it covers
	var out []string
	levels := 0 // no fewer than the ranges: a scope has one per slash, and some may be shared
	for _, s := range all {
		if len(out) == 0 || !writ.ScopeCovers(out[len(out)-1], s) {
			out = append(out, s)
			levels += strings.Count(s, "/")
		}
	}
	if levels > writ.MaxScopeRanges && len(writ.Gaps(wanted(writ.Caller{}, writ.Task{WriteScopes: out}))) > writ.MaxScopeRanges {
		return nil, invalid(op, "/write_scopes", "name too many levels in all; ask for fewer or wider scopes")
	}
	return out, nil
}

// wanted are the scopes of a task as its claimer needs them: where it writes under a
// claim that others share, those may be there. Its scopes are its own all the same
// while it runs, so that who shares takes turns.
func wanted(by writ.Caller, t writ.Task) []writ.WriteClaim {
	out := make([]writ.WriteClaim, 0, len(t.WriteScopes))
	for _, s := range t.WriteScopes {
		w := writ.WriteClaim{Resource: s, Mode: writ.ScopeExclusive}
		if slices.ContainsFunc(by.Claims, func(c writ.WriteClaim) bool {
			return c.Mode == writ.ScopeShared && writ.ScopeCovers(c.Resource, s)
		}) {
			w.Mode = writ.ScopeShared
		}
		out = append(out, w)
	}
	return out
}

// own are those who are not in the way of a task: itself, and the claimer's session.
func own(by writ.Caller, t writ.Task) []writ.Holder {
	return []writ.Holder{writ.Holder(t.ID), writ.Holder(by.Session)}
}

// lockReads shows who holds locks in the way of a task.
func lockReads(by writ.Caller, t writ.Task) []writ.Range {
	var out []writ.Range
	for _, g := range writ.Gaps(wanted(by, t)) {
		out = append(out, g.Range())
	}
	return out
}

// inTheWay is who holds a scope t needs: a task that runs, or that the scope was
// handed to, or a session that claims it; ok is false when the scopes look free.
func inTheWay(s writ.Snapshot, by writ.Caller, t writ.Task) (h writ.Held, ok bool, err error) {
	return writ.InTheWay(s, writ.Gaps(wanted(by, t)), own(by, t)...)
}

// lock takes the scope locks of a task, all or none. What its claimer's session
// claims is read with the session, so its place in the index is known.
func (d *draft) lock(by writ.Caller, t writ.Task) {
	var mine []string
	for _, c := range by.Claims {
		mine = append(mine, writ.ScopeMember(c.Resource, by.Session))
	}
	if len(mine) > 0 { // else what is kept for it is all it needs to pass
		for _, s := range t.WriteScopes {
			mine = append(mine, writ.ScopeMember(s, t.ID))
		}
		slices.Sort(mine)
	}
	for _, g := range writ.Gaps(wanted(by, t)) {
		d.tx.FreeBut(g, writ.Holder(t.ID), mine)
	}
	for _, s := range t.WriteScopes {
		d.tx.Index(writ.IndexScopes, writ.ScopeMember(s, t.ID), 0)
	}
}

func (d *draft) unlock(t writ.Task) {
	for _, s := range t.WriteScopes {
		d.tx.Unindex(writ.IndexScopes, writ.ScopeMember(s, t.ID))
	}
}

// wakeAtOnce is how many waiting tasks one release wakes itself; a follow-up
// wakes the rest.
const wakeAtOnce = 16

// waiters are the tasks that wait for a holder, a task or a session, the most urgent
// first: the score is 9 − priority.
func waiters[ID ~string](holder ID, limit int) writ.Range {
	return writ.Range{Index: writ.WaitingOn(holder), ByScore: true, Min: 0, Max: 9, Limit: limit}
}

// waiterMember is a task that waits, and the lane it goes back to. With one lane it says
// its run too, so that whoever wakes it need not read it.
func waiterMember(t writ.Task, l writ.Lane) string {
	if _, one := onlyLane(t); one {
		return string(t.ID) + " " + string(l) + " " + string(t.Run)
	}
	return string(t.ID) + " " + string(l)
}

// wakeReads names what must be seen to wake those that wait.
func wakeReads(members []writ.Member) (out []writ.Counter) {
	for _, m := range members {
		if id, lane, run := writ.SplitWaiter(m.Name); run != "" {
			out = append(append(out, laneReads(run, lane)...), writ.TaskPlace(id))
		}
	}
	return out
}

// park lets a task of a received lane entry wait for a holder. The holder's document
// was read, so the commit fails if it gave up what it holds meanwhile: no wake-up is
// lost. A session that claims the scope is offered the task first.
func (d *draft) park(t writ.Task, lane writ.Lane, holder writ.Holder) {
	d.withdraw(t)
	d.tx.Index(writ.WaitingOn(holder), waiterMember(t, lane), 9-t.Priority)
	d.tx.Index(writ.BlockedOn(t.ID), string(holder), 0)
}

// wake sends up to n waiting tasks back to their lanes and leaves a follow-up
// for more. It must have read waiters(holder, limit) with a limit over n, and wakeReads.
func (d *draft) wake(holder writ.TaskID, n int) {
	for i, m := range d.s.Ranges[waiters(holder, wakeAtOnce+1)].Members {
		if i == n {
			d.tx.Index(writ.IndexTodo, todo(todoWake, string(holder)), d.s.Now)
			return
		}
		d.wakeOne(writ.Holder(holder), m.Name)
	}
}

func (d *draft) wakeOne(holder writ.Holder, member string) {
	id, lane, run := writ.SplitWaiter(member)
	if run != "" {
		d.moveUp(id, run, lane)
	} else {
		d.tx.Push(lane, string(id))
	}
	d.tx.Unindex(writ.WaitingOn(holder), member)
	d.tx.Unindex(writ.BlockedOn(id), string(holder))
}

// Kinds of follow-up work in writ.IndexTodo.
const (
	todoWake    = "wake"
	todoRun     = "run"
	todoSession = "session"
)

func todo(kind, id string) string { return kind + " " + id }
