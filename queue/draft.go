package queue

import (
	"errors"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
)

// draft is one transaction in the making. Its methods are the only places
// where tasks change state, so each keeps its part of the room's invariants:
// enter and leave for the queue, take and drop for the lease, end for the run.
// Every draft is finished by done, which settles the runs.
type draft struct {
	op      string
	s       writ.Snapshot
	receipt writ.ReceiptID
	tx      writ.Tx
	tallies []*tally
	windows []*laneWindow
	unread  bool // of what these look at

	// Of the attempt that drop ends:
	usedSteps bool  // by the present call, which is what was paid for in advance
	stored    int64 // bytes of its result
	uncounted bool  // it does not count as an attempt
	rest      int64 // milliseconds it rests at least before it is tried again

	releasing bool          // a task that waited for another is being told
	released  []writ.TaskID // that became queued so
	told      writ.TaskID   // that waits for the task that ends and knows already
}

func begin(op string, c *writ.Call, s writ.Snapshot) *draft {
	return &draft{op: op, s: s, receipt: writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))}
}

// errMovesTwice is a defect: the second move would be planned from what the first has
// changed already, and be counted once more.
var errMovesTwice = errors.New("a task moves twice in one transaction")

// put writes a task that was in state from, notes the move and keeps the lists
// of its run.
func (d *draft) put(t *writ.Task, from writ.TaskState) error {
	if !writ.TaskMoves.May(from, t.State) {
		return writ.IllegalMove(d.op, writ.ObjectTask, string(from), string(t.State))
	}
	if slices.ContainsFunc(d.tx.Changes, func(c writ.Change) bool { return c.Kind == writ.ObjectTask && c.ID == string(t.ID) }) {
		return writ.Fault(writ.CodeInternal, d.op, errMovesTwice)
	}
	t.UpdatedAt, t.Receipt = d.s.Now, d.receipt
	d.tx.Move(writ.ObjectTask, string(t.ID), string(from), string(t.State))
	d.alarm(t, from)
	d.count(*t, from)
	if from == writ.TaskVerifying && t.State != writ.TaskDone { // whoever judges the run is not asked about it
		for _, hex := range hexes(t.Artifacts) {
			d.tx.Unindex(writ.RunArtifacts(t.Run), hex+" "+string(t.ID))
		}
		for _, g := range t.Owes { // nor has it to pass anything
			d.tx.Unindex(writ.RunOwed(t.Run), owed(g, t.ID))
		}
	}
	if from != t.State {
		if from != "" {
			d.tx.Unindex(writ.RunTasksIn(t.Run, from), string(t.ID))
		}
		d.tx.Index(writ.RunTasksIn(t.Run, t.State), string(t.ID), 0)
	}
	for _, a := range t.Behind { // until it has ended it can be taken back
		switch {
		case from == "":
			d.tx.Index(writ.SetGoing(writ.ObjectTask, a), string(t.ID), 0)
		case writ.TaskMoves.Terminal(t.State):
			d.tx.Unindex(writ.SetGoing(writ.ObjectTask, a), string(t.ID))
		}
	}
	return d.tx.PutDoc(d.s, writ.TaskKey(t.ID), writ.ObjectTask, t)
}

// count keeps the quotas on tasks that wait: a task counts from when it is blocked
// or queued until it is neither, however often.
func (d *draft) count(t writ.Task, from writ.TaskState) {
	waits := func(s writ.TaskState) bool { return s == writ.TaskBlocked || s == writ.TaskQueued }
	switch {
	case waits(t.State) && !waits(from):
		d.tx.Count(t.Counted, 1)
	case !waits(t.State) && waits(from):
		d.tx.Count(t.Counted, -1)
	}
}

// enter makes a task queued: at once in its lanes, or behind others of its run, or
// waiting for notBefore when that is in the future. It wants placeReads, but for the
// place: what is not queued has none.
func (d *draft) enter(t *writ.Task, notBefore int64) {
	t.State, t.NotBefore = writ.TaskQueued, 0
	if notBefore > d.s.Now {
		t.NotBefore = notBefore
		d.tx.Index(writ.IndexReady, string(t.ID), notBefore)
		return
	}
	if lane, one := onlyLane(*t); one {
		d.place(t.ID, t.Run, lane, t.KeptUntil != 0) // scopes are kept for it a short time only
		return
	}
	d.push(*t)
}

func (d *draft) push(t writ.Task) {
	for _, lane := range t.Lanes() {
		d.tx.Push(lane, string(t.ID))
	}
}

// queueReads names the lists a queued task may be on besides its lanes.
func queueReads(id writ.TaskID) []writ.Range {
	return []writ.Range{blockers(id), refusers(id)}
}

// The limits keep a claim within the cap of a transaction. A task has at most
// one blocker per lane, and what a limit leaves behind is dropped when met.
func blockers(id writ.TaskID) writ.Range { return writ.Range{Index: writ.BlockedOn(id), Limit: 8} }
func refusers(id writ.TaskID) writ.Range { return writ.Range{Index: writ.Refusers(id), Limit: 64} }

// leave takes a task that stops being queued off every list but its lanes:
// entries there are dropped when met. It wants queueReads and placeReads.
func (d *draft) leave(t *writ.Task) {
	d.unreserve(t)
	d.withdraw(*t)
	if t.NotBefore != 0 {
		d.tx.Unindex(writ.IndexReady, string(t.ID))
		t.NotBefore = 0
	}
	for _, h := range d.s.Ranges[blockers(t.ID)].Members {
		d.tx.Unindex(writ.BlockedOn(t.ID), h.Name)
		for _, lane := range t.Lanes() {
			d.tx.Unindex(writ.WaitingOn(h.Name), waiterMember(*t, lane))
		}
	}
	d.accept(*t)
}

// accept forgets that agents were refused a task.
func (d *draft) accept(t writ.Task) {
	members := d.s.Ranges[refusers(t.ID)].Members
	if len(members) == 0 {
		return
	}
	d.tx.Unindex(writ.Refused(t.Capability, t.Domain), string(t.ID))
	for _, a := range members {
		d.tx.Unindex(writ.Refusers(t.ID), a.Name)
	}
}

// end moves a task, already out of the queue or without its lease, to a
// terminal state, counts it out of its run and tells those that wait for it. It
// wants dependents.
func (d *draft) end(t *writ.Task, from, to writ.TaskState) error {
	t.State = to
	if to == writ.TaskDead {
		d.tx.Index(writ.IndexDead, string(t.ID), 0)
		d.bury()
	}
	count := d.tally(t.Run)
	count.ended++
	if to == writ.TaskFailed || to == writ.TaskDead {
		count.bad++
	}
	if err := d.put(t, from); err != nil {
		return err
	}
	_, err := d.release(*t)
	return err
}

// deadKept is how long a task that died stays on the dead-letter list, from when
// it was enqueued. It stays on the lists of its run.
const deadKept = 30 * 24 * time.Hour

// oldestDead is read before a task may die: each that joins the list takes up
// to two away that have been there for too long, so the list does not grow
// beyond what dies in that time.
func oldestDead() writ.Range { return writ.Range{Index: writ.IndexDead, Limit: 2} }

func (d *draft) bury() {
	first := writ.MakeID(writ.PrefixTask, max(0, d.s.Now-deadKept.Milliseconds()), [10]byte{})
	for _, m := range d.s.Ranges[oldestDead()].Members {
		if m.Name < first {
			d.tx.Unindex(writ.IndexDead, m.Name)
		}
	}
}

// full says that another task may not fit into the transaction any more. It
// counts the guards of everything that was read and the result that is yet to
// come, which the evidence holds once more, and leaves room for one task of the
// largest size, with all who refused it, all it is counted for and who is behind it,
// and the guards of the door.
func (d *draft) full() bool {
	size, guards := 2*int(d.stored), len(d.tx.Guards)+len(d.s.Docs)
	for r := range d.s.Ranges {
		if r.Index.Versioned() {
			guards++
		}
	}
	for _, o := range d.tx.Ops {
		size += len(o.Body) + len(o.Member) + len(o.Index) + len(o.Lane) + len(o.Entry)
	}
	return len(d.tx.Ops)+guards+3*len(d.windows) > writ.MaxOps-200 || size > writ.MaxTxBytes/2
}
