package queue

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// inBacklog is where a task with one lane is found that waits behind others of its run.
func inBacklog(t writ.Task) (Entry, bool) {
	lane, one := onlyLane(t)
	return Entry{Index: writ.Backlog(t.Run), Member: writ.BacklogMember(lane, t.ID)}, one
}

// Offers says in which lane a task is offered, and whether it waits in its run's backlog
// instead. It wants CheckReads.
func Offers(t writ.Task, s writ.Snapshot) (lane writ.Lane, offered, backlog bool) {
	lane, one := onlyLane(t)
	place := s.Counters[writ.TaskPlace(t.ID)]
	return lane, one && place == placeOffered, one && place == placeBacklog
}

// placeCheckReads names what checkPlace must see.
func placeCheckReads(t writ.Task, s writ.Snapshot) (rs writ.ReadSet) {
	rs.Counters = append(placeReads(t), writ.TaskPlace(t.ID))
	if e, one := inBacklog(t); one {
		rs.Ranges = append(rs.Ranges, e.Range())
	}
	if s.Counters[writ.TaskPlace(t.ID)] == placeBacklog {
		rs.Ranges = append(rs.Ranges, Entry{Index: writ.IndexTodo}.anywhere())
	}
	return rs
}

// checkPlace: a task has a place only while it is queued, it is in the backlog exactly
// when its place says so, and then somebody fetches it from there.
func checkPlace(t writ.Task, r writ.Run, s writ.Snapshot, wrong func(Entry, bool, string)) (out []Wrong) {
	place, is := s.Counters[writ.TaskPlace(t.ID)], "the task is "+string(t.State)
	e, one := inBacklog(t)
	if place != placeNone && (t.State != writ.TaskQueued || !one) || place < placeNone || place > placeBacklog {
		out = append(out, Wrong{Task: t.ID, Counter: writ.TaskPlace(t.ID), Why: is + ", and its place is " + strconv.FormatInt(place, 10)})
	}
	if !one {
		return out
	}
	if there, should := e.in(s), place == placeBacklog && t.State == writ.TaskQueued; there != should {
		wrong(e, should, is+", and its place is "+strconv.FormatInt(place, 10))
	}
	if place != placeBacklog || r.State != writ.RunActive {
		return out
	}
	lane, _ := onlyLane(t)
	if s.Counters[writ.RunOffered(t.Run, lane)] <= lowWater {
		promised := Entry{Index: writ.IndexTodo, Member: todoRefillOf(t.Run, lane)}
		todos := s.Ranges[promised.anywhere()].Members
		again := slices.ContainsFunc(todos, func(m writ.Member) bool {
			return strings.HasPrefix(m.Name, todo(todoOffer, string(t.Run)))
		})
		if promised.lost(s) && !again {
			wrong(promised, true, "the task waits behind others of its run, and they are few")
		}
	}
	return out
}
