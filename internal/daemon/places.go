package daemon

import (
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
)

// How many tasks of a run are offered in a lane, and how many wait in its backlog, is
// counted by where each of them is. That moves without a document and so without a
// fact: that none was committed meanwhile says nothing about it. One read of all places
// and the counter does.

// runLane is the part of a lane that is one run's.
type runLane struct {
	run  writ.RunID
	lane writ.Lane
}

// placeSum is what a counter over places counts.
type placeSum struct {
	at      runLane
	backlog bool
}

// surePlaces is how many tasks of a run such a read takes.
const surePlaces = 20_000

// settle notes a task and the lane it has a place in.
func (x *indexWalk) settle(t writ.Task, s writ.Snapshot) {
	if _, known := x.oneLane[t.ID]; known {
		return
	}
	lane, _, _ := queue.Offers(t, s) // "" if it has several
	x.oneLane[t.ID] = lane
	x.ofRun[t.Run] = append(x.ofRun[t.Run], t.ID)
	if lane != "" {
		at := runLane{t.Run, lane}
		x.places[writ.RunOffered(at.run, at.lane)] = placeSum{at, false}
		x.places[writ.RunBacklog(at.run, at.lane)] = placeSum{at, true}
	}
}

// queued are ranges that show all queued tasks of a run, unless one of them is full:
// between tasks that are known few are new.
func (x *indexWalk) queued(run writ.RunID) (out []writ.Range) {
	ids := x.ofRun[run]
	slices.Sort(ids)
	from := ""
	for n := sureMembers / 2; n < len(ids); n += sureMembers / 2 {
		out = append(out, writ.Range{Index: writ.RunTasksIn(run, writ.TaskQueued), From: from, To: string(ids[n]), Limit: sureMembers})
		from = string(ids[n])
	}
	return append(out, writ.Range{Index: writ.RunTasksIn(run, writ.TaskQueued), From: from, Limit: sureMembers})
}

// placed counts the tasks whose places a counter counts, in one read with it. That no
// other task of the run is queued the read itself must show.
func (x *indexWalk) placed(c writ.Counter, sum placeSum) sure {
	return func() (has, should int64, exact bool, err error) {
		var unknown []writ.Key
		for range surelyTries {
			if len(x.ofRun[sum.at.run]) > surePlaces || len(unknown) > sureMembers {
				return 0, 0, false, nil
			}
			rs := writ.ReadSet{Docs: unknown, Counters: []writ.Counter{c}, Ranges: x.queued(sum.at.run)}
			var here []writ.Counter
			for _, id := range x.ofRun[sum.at.run] {
				if x.oneLane[id] == sum.at.lane {
					here = append(here, writ.TaskPlace(id))
				}
			}
			rs.Counters = append(rs.Counters, here...)
			s, err := x.st.Read(x.ctx, shard, rs)
			if err != nil {
				return 0, 0, false, err
			}
			for _, k := range unknown {
				t, _, ok, err := writ.Get[writ.Task](s, k)
				if err != nil || !ok {
					return 0, 0, false, err
				}
				x.settle(t, s)
			}
			unknown = nil
			for _, r := range rs.Ranges {
				if len(s.Ranges[r].Members) == sureMembers {
					return 0, 0, false, nil
				}
				for _, m := range s.Ranges[r].Members {
					if _, known := x.oneLane[writ.TaskID(m.Name)]; !known {
						unknown = append(unknown, writ.TaskKey(writ.TaskID(m.Name)))
					}
				}
			}
			if len(unknown) > 0 || len(rs.Docs) > 0 {
				continue
			}
			for _, p := range here {
				if queue.Counted(s.Counters[p], sum.backlog) {
					should++
				}
			}
			return s.Counters[c], should, true, nil
		}
		return 0, 0, false, nil
	}
}
