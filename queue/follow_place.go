package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// Where a queued task is, is no part of its document: it is offered, or in the backlog
// of its run, as its place says, a counter that commits move under a guard. The backlog
// follows from that.

// inBacklog is where a task with one lane is found that waits behind others of its run.
func inBacklog(t writ.Task) (writ.Entry, bool) {
	lane, one := onlyLane(t)
	return writ.Entry{Index: writ.Backlog(t.Run), Member: writ.BacklogMember(lane, t.ID)}, one
}

// Offers says in which lane a task is offered, and whether it waits in its run's backlog
// instead. It wants what its follower reads.
func Offers(t writ.Task, s writ.Snapshot) (lane writ.Lane, offered, backlog bool) {
	lane, one := onlyLane(t)
	place := s.Counters[writ.TaskPlace(t.ID)]
	return lane, one && Counted(place, false), one && Counted(place, true)
}

// Counted says whether a place counts as one in the backlog, or else as one that is
// offered.
func Counted(place int64, backlog bool) bool {
	if backlog {
		return place == placeBacklog
	}
	return place == placeOffered
}

// refills is the follow-up that fetches a task from the backlog.
func refills(t writ.Task) writ.Entry {
	lane, _ := onlyLane(t)
	return writ.Entry{Index: writ.IndexTodo, Member: todoRefillOf(t.Run, lane)}
}

// someTodos is as many follow-ups as are looked at for one that is known by its
// beginning only.
var someTodos = writ.Range{Index: writ.IndexTodo, ByScore: true, Max: writ.MaxAmount, Limit: 1000}

// fewOffered says that a task waits in the backlog of its run though few others are
// offered: then a follow-up must be due.
func fewOffered(t writ.Task, s writ.Snapshot) bool {
	lane, _, backlog := Offers(t, s)
	return backlog && t.State == writ.TaskQueued && s.Counters[writ.RunOffered(t.Run, lane)] <= lowWater
}

// placeFollowReads names what impliedPlace must see.
func placeFollowReads(t writ.Task, s writ.Snapshot) (rs writ.ReadSet) {
	rs.Counters = []writ.Counter{writ.TaskPlace(t.ID)}
	e, one := inBacklog(t)
	if !one {
		return rs
	}
	lane, _ := onlyLane(t)
	rs.Counters = append(rs.Counters, writ.RunOffered(t.Run, lane))
	rs.Ranges = append(rs.Ranges, e.Range())
	if fewOffered(t, s) {
		r := refills(t).Range()
		rs.Ranges = append(rs.Ranges, r)
		if list, read := s.Ranges[r]; read && len(list.Members) == 0 {
			rs.Ranges = append(rs.Ranges, someTodos)
		}
	}
	return rs
}

// impliedPlace: a task has a place only while it is queued, it is in the backlog exactly
// when its place says so, and then somebody fetches it from there. A place there is not
// is put to what the lists show.
func impliedPlace(t writ.Task, s writ.Snapshot) (out []writ.Implied, err error) {
	place := s.Counters[writ.TaskPlace(t.ID)]
	why := "the task is " + string(t.State) + ", and its place is " + strconv.FormatInt(place, 10)
	e, one := inBacklog(t)
	_, listed := e.In(s)
	should := place
	switch {
	case t.State != writ.TaskQueued || !one:
		should = placeNone
	case place >= placeNone && place <= placeBacklog:
	case listed:
		should = placeBacklog
	case keptBack(t, s):
		should = placeNone
	default:
		should = placeOffered
	}
	out = append(out, writ.Implied{Counter: writ.TaskPlace(t.ID), Entry: writ.Entry{Score: should}, Why: why})
	if !one {
		return out, nil
	}
	out = append(out, writ.InIf(should == placeBacklog, e.Index, e.Member, why))
	r, ok, err := peek[writ.Run](s, writ.RunKey(t.Run))
	if err != nil || !ok || !r.Begins() || !fewOffered(t, s) {
		return out, err
	}
	again := func(m writ.Member) bool { // the run goes on after a pause, and they are all looked at
		return m.Name == todo(todoOffer, string(t.Run)) || strings.HasPrefix(m.Name, todo(todoOffer, string(t.Run)+" "))
	}
	if all := s.Ranges[someTodos].Members; len(all) < someTodos.Limit && !slices.ContainsFunc(all, again) {
		out = append(out, promised(refills(t).Member, s.Now, "the task waits behind others of its run, and they are few"))
	}
	return out, nil
}
