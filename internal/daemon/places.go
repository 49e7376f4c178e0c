package daemon

import (
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
)

// runLane is the part of a lane that is one run's.
type runLane struct {
	run  writ.RunID
	lane writ.Lane
}

// placed is how many tasks of a run are offered in a lane, and how many wait in its
// backlog.
type placed struct{ offered, backlog int64 }

// place counts a task in where it is. Where none is any more the counts are to be 0.
func (s *sums) place(t writ.Task, at writ.Snapshot) {
	lane, offered, backlog := queue.Offers(t, at)
	if lane == "" {
		return
	}
	p := s.places[runLane{t.Run, lane}]
	if offered {
		p.offered++
	}
	if backlog {
		p.backlog++
	}
	s.places[runLane{t.Run, lane}] = p
}

// places compares how many are offered and in backlogs with what is counted.
func (x *indexWalk) places(want *sums, off func(what string, has, should int64)) error {
	for at, p := range want.places {
		offered, backlog := writ.RunOffered(at.run, at.lane), writ.RunBacklog(at.run, at.lane)
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Counters: []writ.Counter{offered, backlog}})
		if err != nil {
			return err
		}
		name := string(at.run) + " in lane " + string(at.lane)
		x.sure["offered tasks of "+name] = x.offered(at)
		x.sure["backlog of "+name] = x.backlog(at)
		off("offered tasks of "+name, s.Counters[offered], p.offered)
		off("backlog of "+name, s.Counters[backlog], p.backlog)
	}
	return nil
}

// backlog counts one in a single read.
func (x *indexWalk) backlog(at runLane) sure {
	return func() (has, should int64, exact bool, err error) {
		list, c := writ.BacklogOf(at.run, at.lane, sureMembers), writ.RunBacklog(at.run, at.lane)
		s, err := x.st.Read(x.ctx, shard, writ.ReadSet{Counters: []writ.Counter{c}, Ranges: []writ.Range{list}})
		n := len(s.Ranges[list].Members)
		return s.Counters[c], int64(n), n < sureMembers, err
	}
}

// offered counts the places of all queued tasks of a run in one read. Which those are the
// read itself must show again.
func (x *indexWalk) offered(at runLane) sure {
	return func() (has, should int64, exact bool, err error) {
		list, c := writ.Range{Index: writ.RunTasksIn(at.run, writ.TaskQueued), Limit: sureMembers}, writ.RunOffered(at.run, at.lane)
		var s writ.Snapshot
		for range surelyTries {
			rs := writ.ReadSet{Counters: []writ.Counter{c}, Ranges: []writ.Range{list}}
			members := s.Ranges[list].Members
			if len(members) == sureMembers {
				return 0, 0, false, nil
			}
			for _, m := range members {
				rs.Docs = append(rs.Docs, writ.TaskKey(writ.TaskID(m.Name)))
				rs.Counters = append(rs.Counters, writ.TaskPlace(writ.TaskID(m.Name)))
			}
			if s, err = x.st.Read(x.ctx, shard, rs); err != nil {
				return 0, 0, false, err
			}
			if should, exact, err = offeredIn(at.lane, s.Ranges[list].Members, s); err != nil || exact {
				return s.Counters[c], should, exact, err
			}
		}
		return 0, 0, false, nil
	}
}

// offeredIn counts the listed tasks that are offered in a lane; exact is false if one was
// not read.
func offeredIn(lane writ.Lane, members []writ.Member, s writ.Snapshot) (n int64, exact bool, err error) {
	for _, m := range members {
		key := writ.TaskKey(writ.TaskID(m.Name))
		if !s.Has(key) {
			return 0, false, nil
		}
		t, _, ok, err := writ.Get[writ.Task](s, key)
		if err != nil {
			return 0, false, err
		}
		if l, offered, _ := queue.Offers(t, s); ok && offered && l == lane {
			n++
		}
	}
	return n, true, nil
}
