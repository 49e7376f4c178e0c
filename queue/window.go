package queue

import (
	"errors"
	"strings"

	"github.com/writ-gateway/writ"
)

// Of the tasks of one run at most window lie offered in one lane, so that those of other
// runs come between them however many there are. The rest waits in the backlog of the
// run, and as soon as no more than lowWater are offered the sweeper fetches from there.
// Fairness is no matter of safety: how many are offered is read and not guarded, so who
// enqueues does not stand in the way of others, and a few more than window may lie
// offered. What must hold is that nobody waits for nothing:
//
//	while a run that is active has a backlog in a lane, more than lowWater of its tasks
//	are offered there, or a follow-up is due.
//
// The commits that could end that guard it; see settleWindows.
var (
	window   int64 = 128 // tests of the room make it small, nobody else changes it
	lowWater       = window / 2
)

// Where a queued task with one lane is: the values of writ.TaskPlace. It changes under a
// guard on what it was, so counts stay exact and of two that fetch a task one does.
const (
	placeNone    = 0 // it waits for a time, for scopes, or for an agent that may have it
	placeOffered = 1
	placeBacklog = 2
)

// errPlace is a defect: a task enters or leaves a lane and nobody looked how many are there.
var errPlace = errors.New("the place of a task that enters or leaves its lane was not read")

// onlyLane is the lane of a task that has one. Work for several agents has several and is
// always offered: in none of them it is to stay behind work for somebody else.
func onlyLane(t writ.Task) (writ.Lane, bool) {
	if len(t.Agents) > 1 {
		return "", false
	}
	return t.Lanes()[0], true
}

// placeReads names what must be seen before a task enters its lane or leaves it. Of one
// that is being made there is no place to look at.
func placeReads(t writ.Task) []writ.Counter {
	lane, one := onlyLane(t)
	switch {
	case !one:
		return nil
	case t.ID == "":
		return laneReads(t.Run, lane)
	}
	return append(laneReads(t.Run, lane), writ.TaskPlace(t.ID))
}

func laneReads(run writ.RunID, lane writ.Lane) []writ.Counter {
	return []writ.Counter{writ.RunOffered(run, lane), writ.RunBacklog(run, lane)}
}

// laneWindow is what a transaction does to the tasks of one run in one lane.
type laneWindow struct {
	run              writ.RunID
	lane             writ.Lane
	offered, backlog int64 // more, or less
	refill           bool
}

func (d *draft) window(run writ.RunID, lane writ.Lane) *laneWindow {
	for _, w := range d.windows {
		if w.run == run && w.lane == lane {
			return w
		}
	}
	d.windows = append(d.windows, &laneWindow{run: run, lane: lane})
	return d.windows[len(d.windows)-1]
}

// read is the value of a counter that must have been read.
func (d *draft) read(c writ.Counter) int64 {
	v, read := d.s.Counters[c]
	if !read {
		d.unread = true
	}
	return v
}

// offer puts a queued task that waits for nothing any more where it can be taken. It
// wants placeReads.
func (d *draft) offer(t writ.Task) {
	lane, one := onlyLane(t)
	if !one {
		d.push(t)
		return
	}
	d.moveUp(t.ID, t.Run, lane)
}

// moveUp is offer for a task of which no more is known.
func (d *draft) moveUp(id writ.TaskID, run writ.RunID, lane writ.Lane) {
	place := writ.TaskPlace(id)
	was := d.read(place)
	d.exactly(place)
	switch was {
	case placeNone:
		d.place(id, run, lane, false)
	case placeOffered:
		d.tx.Push(lane, string(id)) // where it was may be gone, and once more is harmless
	default:
		d.window(run, lane).refill = true
	}
}

// place gives a task that has none a place: in its lane, or behind those of its run that
// wait already. first does not wait. While steps of the run's workflow are to become tasks
// all wait: whoever notes that they are there has them fetched.
func (d *draft) place(id writ.TaskID, run writ.RunID, lane writ.Lane, first bool) {
	w := d.window(run, lane)
	waiting, offered := d.read(writ.RunBacklog(run, lane))+w.backlog, d.read(writ.RunOffered(run, lane))+w.offered
	if !d.held(run) && (first || waiting <= 0 && offered < window) {
		w.offered++
		d.tx.Push(lane, string(id))
		d.tx.Add(writ.TaskPlace(id), placeOffered)
		return
	}
	w.backlog++
	d.tx.Index(writ.Backlog(run), writ.BacklogMember(lane, id), 0)
	d.tx.Add(writ.TaskPlace(id), placeBacklog)
}

// held says that nothing of a run is offered yet. It guards no more than its document,
// which says so.
func (d *draft) held(id writ.RunID) bool {
	r, ok, err := peek[writ.Run](d.s, writ.RunKey(id))
	return err == nil && ok && r.Unfolding() // what cannot be read is told of by settleWindows
}

// withdraw takes a queued task off its place. Its entries are dropped when they are met.
// It wants placeReads.
func (d *draft) withdraw(t writ.Task) {
	lane, one := onlyLane(t)
	if !one {
		return
	}
	place := writ.TaskPlace(t.ID)
	switch d.read(place) {
	case placeOffered:
		d.window(t.Run, lane).offered--
	case placeBacklog:
		d.window(t.Run, lane).backlog--
		d.tx.Unindex(writ.Backlog(t.Run), writ.BacklogMember(lane, t.ID))
	}
	d.exactly(place)
	d.set(place, placeNone)
}

// settleWindows counts what has moved and keeps a backlog from waiting for nothing: after
// the commit more than lowWater are offered, or nothing is in the backlog, or a follow-up
// is due. Of a run that has ended the tasks are cancelled where they are, and of one whose
// workflow unfolds they wait.
func (d *draft) settleWindows() error {
	for _, w := range d.windows {
		offered, backlog := writ.RunOffered(w.run, w.lane), writ.RunBacklog(w.run, w.lane)
		seenOffered, seenBacklog := d.read(offered), d.read(backlog)
		if w.offered != 0 {
			d.tx.Add(offered, w.offered)
		}
		if w.backlog != 0 {
			d.tx.Add(backlog, w.backlog)
		}
		if r, ok, err := peek[writ.Run](d.s, writ.RunKey(w.run)); err != nil {
			return err
		} else if ok && (writ.RunMoves.Terminal(r.State) || r.Unfolding()) {
			continue
		}
		switch {
		case w.refill:
			d.tx.Index(writ.IndexTodo, todoRefillOf(w.run, w.lane), d.s.Now)
		case w.offered >= 0 && w.backlog <= 0: // it held, so it holds
		case seenOffered+w.offered > lowWater:
			d.tx.Within(offered, lowWater+1-w.offered, writ.MaxAmount)
		case seenBacklog+w.backlog <= 0:
			d.tx.Within(backlog, -writ.MaxAmount, seenBacklog)
		default:
			d.tx.Index(writ.IndexTodo, todoRefillOf(w.run, w.lane), d.s.Now)
		}
	}
	if d.unread {
		return writ.Fault(writ.CodeInternal, d.op, errPlace)
	}
	return nil
}

// todoRefill is the follow-up of a backlog: "refill <run> <lane>".
const todoRefill = "refill"

func todoRefillOf(run writ.RunID, lane writ.Lane) string {
	return todo(todoRefill, string(run)+" "+string(lane))
}

// RefillArgs reads the rest of a follow-up member for the sweeper.
func RefillArgs(rest string) map[string]any {
	run, lane, _ := strings.Cut(rest, " ")
	return map[string]any{"run_id": run, "lane": lane}
}
