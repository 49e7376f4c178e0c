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
	if levels > MaxScopeRanges && len(scopeRanges(out)) > MaxScopeRanges {
		return nil, invalid(op, "/write_scopes", "name too many levels in all; ask for fewer or wider scopes")
	}
	return out, nil
}

// scopeRanges are the parts of the lock index that must be free of others
// before a task may hold scopes, each once.
func scopeRanges(scopes []string) [][2]string {
	var out [][2]string
	for _, s := range scopes {
		for _, r := range writ.ScopeRanges(s) {
			if !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

// lockReads shows who holds locks in the way of a task.
func lockReads(t writ.Task) []writ.Range {
	var out []writ.Range
	for _, r := range scopeRanges(t.WriteScopes) {
		out = append(out, writ.Range{Index: writ.IndexScopes, From: r[0], To: r[1], Limit: 8})
	}
	return out
}

// maxHolders bounds how many tasks in the way are looked at.
const maxHolders = 4

// lockHolders are other tasks whose locks overlap the scopes of t, as far as read.
func lockHolders(s writ.Snapshot, t writ.Task) []writ.TaskID {
	var out []writ.TaskID
	for _, r := range lockReads(t) {
		for _, m := range s.Ranges[r].Members {
			_, h := writ.SplitScopeMember(m.Name)
			if h != t.ID && h.Valid() && !slices.Contains(out, h) && len(out) < maxHolders {
				out = append(out, h)
			}
		}
	}
	return out
}

// inTheWay is a task that holds a scope t needs: one that runs, or one the scope was
// handed to; ok is false when the
// scopes look free. A lock whose holder is found not to run was given back
// between two reads: the free guards of the claim decide then.
func inTheWay(s writ.Snapshot, t writ.Task) (h writ.Task, ok bool, err error) {
	for _, id := range lockHolders(s, t) {
		h, found, err := peek[writ.Task](s, writ.TaskKey(id))
		if err != nil {
			return h, false, err
		}
		if found && holds(h) {
			return h, true, nil
		}
	}
	return h, false, nil
}

// lock takes the scope locks of a task, all or none.
func (d *draft) lock(t writ.Task) {
	for _, r := range scopeRanges(t.WriteScopes) {
		d.tx.Free(writ.IndexScopes, r[0], r[1], string(t.ID))
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

// waiters are the tasks that wait for a holder, the most urgent first: the
// score is 9 − priority.
func waiters(holder writ.TaskID, limit int) writ.Range {
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

func splitWaiter(member string) (t writ.TaskID, l writ.Lane, run writ.RunID) {
	id, rest, _ := strings.Cut(member, " ")
	lane, r, _ := strings.Cut(rest, " ")
	return writ.TaskID(id), writ.Lane(lane), writ.RunID(r)
}

// wakeReads names what must be seen to wake those that wait.
func wakeReads(members []writ.Member) (out []writ.Counter) {
	for _, m := range members {
		if id, lane, run := splitWaiter(m.Name); run != "" {
			out = append(append(out, laneReads(run, lane)...), writ.TaskPlace(id))
		}
	}
	return out
}

// park lets a task of a received lane entry wait for a running holder. The
// holder's document was read, so the commit fails if it stopped meanwhile: no
// wake-up is lost.
func (d *draft) park(t writ.Task, lane writ.Lane, holder writ.TaskID) {
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
		d.wakeOne(holder, m.Name)
	}
}

func (d *draft) wakeOne(holder writ.TaskID, member string) {
	id, lane, run := splitWaiter(member)
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
