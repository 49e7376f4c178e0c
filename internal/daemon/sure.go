package daemon

import (
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// A sum over many tasks moves while they are read one by one: beside gateways that
// are busy it can be off by the same amount as often as one likes. What looks wrong is
// therefore looked at once more in a single atomic read, from lists: a repair that
// rests on that comes once they agree with the documents.

// sureMembers is how many members of a list such a read takes. Where there are more,
// nothing is sure.
const sureMembers = 1000

// sureRuns is of how many runs the tasks under way are read at once.
const sureRuns = 200

// sure is what a counter has and should have at one instant; exact is false where one
// read cannot show that.
type sure func() (has, should int64, exact bool, err error)

// inStates counts the tasks of a run that are in any of some states, in one read with
// a counter and, if they count too, with its child runs.
func (x *indexWalk) inStates(id writ.RunID, c writ.Counter, children bool, states func(writ.TaskState) bool) sure {
	return func() (has, should int64, exact bool, err error) {
		rs := writ.ReadSet{Counters: []writ.Counter{c}}
		for s := range writ.TaskMoves {
			if s != "" && states(s) {
				rs.Ranges = append(rs.Ranges, writ.Range{Index: writ.RunTasksIn(id, s), Limit: sureMembers})
			}
		}
		if children {
			rs.Ranges = append(rs.Ranges, writ.Range{Index: writ.RunChildren(id), Limit: sureMembers})
		}
		s, err := x.st.Read(x.ctx, shard, rs)
		if err != nil {
			return 0, 0, false, err
		}
		exact = true
		for _, r := range rs.Ranges {
			n := len(s.Ranges[r].Members)
			should, exact = should+int64(n), exact && n < sureMembers
		}
		return s.Counters[c], should, exact, nil
	}
}

// surelyTries is how often the tasks under way may change between two reads.
const surelyTries = 20

// held counts the leases of an agent. Which runs there are the read itself must show
// again: some are made meanwhile.
func (x *indexWalk) held(a writ.AgentID) sure {
	all := writ.Range{Index: writ.IndexRuns, Limit: sureRuns + 1}
	return x.leases(writ.AgentRunning(a), all, func(runs []writ.Member) ([]writ.Range, bool) { return underWay(runs), len(runs) <= sureRuns }, func(l *writ.Lease) int64 {
		if l.Agent == a {
			return 1
		}
		return 0
	})
}

// heldOf sums what attempts hold of the budget of a run. Child runs hold some too, so of a
// run that has any nothing is sure.
func (x *indexWalk) heldOf(id writ.RunID, dim string) sure {
	children, own := writ.Range{Index: writ.RunChildren(id), Limit: 1}, underWay([]writ.Member{{Name: string(id)}})
	return x.leases(writ.BudgetHeld(id, dim), children, func(of []writ.Member) ([]writ.Range, bool) { return own, len(of) == 0 }, func(l *writ.Lease) int64 { return l.Held[dim] })
}

// leases adds something up over leases, in one read of the documents of all tasks in some
// lists, which follow from a first one, if that has not too many. Which tasks those are
// the read itself must show again.
func (x *indexWalk) leases(c writ.Counter, first writ.Range, lists func([]writ.Member) ([]writ.Range, bool), of func(*writ.Lease) int64) sure {
	return func() (has, should int64, exact bool, err error) {
		var s writ.Snapshot
		for range surelyTries {
			from, few := lists(s.Ranges[first].Members)
			if !few {
				return 0, 0, false, nil
			}
			want := writ.ReadSet{Counters: []writ.Counter{c}, Ranges: append([]writ.Range{first}, from...)}
			for _, r := range from {
				if len(s.Ranges[r].Members) == sureMembers {
					return 0, 0, false, nil
				}
				for _, m := range s.Ranges[r].Members {
					want.Docs = append(want.Docs, writ.TaskKey(writ.TaskID(m.Name)))
				}
			}
			if s, err = x.st.Read(x.ctx, shard, want); err != nil {
				return 0, 0, false, err
			}
			if now, few := lists(s.Ranges[first].Members); !few || !slices.Equal(now, from) {
				continue
			}
			if should, exact, err = sumOf(of, from, s); err != nil || exact {
				return s.Counters[c], should, exact, err
			}
		}
		return 0, 0, false, nil
	}
}

// underWay lists the tasks of runs that can have a lease.
func underWay(runs []writ.Member) (lists []writ.Range) {
	for _, r := range runs {
		for _, s := range []writ.TaskState{writ.TaskRunning, writ.TaskParked} {
			lists = append(lists, writ.Range{Index: writ.RunTasksIn(writ.RunID(r.Name), s), Limit: sureMembers})
		}
	}
	return lists
}

// sumOf adds something up over the leases of listed tasks; exact is false if the document
// of one was not read.
func sumOf(of func(*writ.Lease) int64, lists []writ.Range, s writ.Snapshot) (n int64, exact bool, err error) {
	for _, r := range lists {
		for _, m := range s.Ranges[r].Members {
			key := writ.TaskKey(writ.TaskID(m.Name))
			if !s.Has(key) {
				return 0, false, nil
			}
			t, _, ok, err := writ.Get[writ.Task](s, key)
			if err != nil {
				return 0, false, fmt.Errorf("task %s: %w", m.Name, err)
			}
			if ok && t.Lease != nil {
				n += of(t.Lease)
			}
		}
	}
	return n, true, nil
}

// asked counts what people are asked for a principal, in one read of all that is pending.
func (x *indexWalk) asked(p writ.PrincipalID) sure {
	return func() (has, should int64, exact bool, err error) {
		c, list := writ.ApprovalsAsked(p), writ.Range{Index: writ.ApprovalsIn(writ.ApprovalPending), Limit: sureMembers}
		var s writ.Snapshot
		for range surelyTries {
			want := writ.ReadSet{Counters: []writ.Counter{c}, Ranges: []writ.Range{list}}
			for _, m := range s.Ranges[list].Members {
				want.Docs = append(want.Docs, writ.ApprovalKey(writ.ApprovalID(m.Name)))
			}
			if s, err = x.st.Read(x.ctx, shard, want); err != nil {
				return 0, 0, false, err
			}
			all := s.Ranges[list].Members
			if len(all) == sureMembers {
				return 0, 0, false, nil
			}
			should, exact = 0, true
			for _, m := range all {
				key := writ.ApprovalKey(writ.ApprovalID(m.Name))
				if exact = exact && s.Has(key); !exact {
					break
				}
				a, _, ok, err := writ.Get[writ.Approval](s, key)
				if err != nil {
					return 0, 0, false, fmt.Errorf("approval %s: %w", m.Name, err)
				}
				if ok && a.State == writ.ApprovalPending && a.Requester.Principal == p {
					should++
				}
			}
			if exact {
				return s.Counters[c], should, true, nil
			}
		}
		return 0, 0, false, nil
	}
}

// again is how to look at a counter once more; nil where no read shows it.
func (x *indexWalk) again(c writ.Counter) sure {
	kind, id, _ := strings.Cut(c.Entity, "/")
	_, dim, _ := strings.Cut(c.Field, ".")
	sum, place := x.places[c]
	switch {
	case place:
		return x.placed(c, sum)
	case c == writ.RunOpenTasks(writ.RunID(id)):
		return x.inStates(writ.RunID(id), c, true, func(s writ.TaskState) bool { return !writ.TaskMoves.Terminal(s) })
	case c == writ.RunBadTasks(writ.RunID(id)) && !x.nests[writ.RunID(id)]: // of children that were settled nothing is listed any more
		return x.inStates(writ.RunID(id), c, false, func(s writ.TaskState) bool { return s == writ.TaskFailed || s == writ.TaskDead })
	case c == writ.ApprovalsAsked(writ.PrincipalID(id)):
		return x.asked(writ.PrincipalID(id))
	case c == writ.BudgetHeld(writ.RunID(id), dim):
		return x.heldOf(writ.RunID(id), dim)
	case kind == writ.ObjectAgent:
		return x.held(writ.AgentID(id))
	}
	return nil
}

// surely keeps of the counts that look wrong those that are, as far as one read can
// tell, with what it has shown; the others are left to be read again.
func (x *indexWalk) surely(all []WrongCount) (wrong, unsure []WrongCount, err error) {
	for _, c := range all {
		look := x.again(c.counter)
		if look == nil {
			unsure = append(unsure, c)
			continue
		}
		has, should, exact, err := look()
		switch {
		case err != nil:
			return nil, nil, err
		case !exact:
			unsure = append(unsure, c)
		case has != should:
			c.Has, c.Want, c.sure = has, should, true
			wrong = append(wrong, c)
		}
	}
	return wrong, unsure, nil
}
