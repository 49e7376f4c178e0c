package queue

import (
	"github.com/writ-gateway/writ"
)

// Parking is what becomes of tasks whose calls need approval. It is the queue's
// part of approvals: a queued task leaves the queue, a running one keeps its
// lease, its fence and its scopes, but no time runs on it.
type Parking struct{}

const (
	opPark   = "queue.Park"
	opUnpark = "queue.Unpark"
)

// approvalDenied is why a task failed that people did not agree to.
var approvalDenied = writ.Failure{Class: writ.FailurePolicy, Code: "approval_denied"}

// Reads names the task an approval is about, and all that a lease or a place in
// the queue consists of.
func (Parking) Reads(a writ.Approval, s writ.Snapshot) (writ.ReadSet, error) {
	if a.Task == "" {
		return writ.ReadSet{}, nil
	}
	rs, err := leaveReads(opPark, s, a.Task)
	if err != nil {
		return rs, err
	}
	rs.Counters = append(rs.Counters, leaseEnd(a.Task))
	rs.Ranges = append(rs.Ranges, queueReads(a.Task)...)
	return rs, nil
}

// Wait parks the task of a call that needs approval: a task about to be claimed,
// or one its holder makes a call about. Somebody else's call stops nothing. A
// task parked already waits on for an approval with other arguments.
func (Parking) Wait(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	if a.Task == "" {
		return nil
	}
	t, version, err := loadTask(opPark, s, a.Task)
	if err != nil {
		return err
	}
	d := begin(opPark, c, s)
	from := t.State
	switch {
	case a.Modified != "": // whatever the decider's call is, it stops nothing
		if !waits(t, a) {
			return nil
		}
	case t.State == writ.TaskQueued && c.Capability == "task.claim":
		d.leave(&t)
		if c.Entry != nil {
			d.tx.Ack(*c.Entry)
		}
	case t.State == writ.TaskRunning && t.Lease != nil && t.Lease.Session == c.Caller.Session && s.Now <= s.Counters[leaseEnd(t.ID)]:
		t.Lease.Fence = t.FenceOf(version) // the version changes, the holder's fence does not
		t.Lease.Awaits = nil               // it waits for people now; its next heartbeat says for what else
		d.tx.Unindex(writ.IndexLeases, string(t.ID))
		d.exactly(leaseEnd(t.ID))
		d.set(leaseEnd(t.ID), 0)
	default:
		return nil
	}
	if from != writ.TaskParked { // since when no time runs
		t.ParkedAt = s.Now
	}
	t.State, t.WaitsFor = writ.TaskParked, a.ID
	if err := d.put(&t, from); err != nil {
		return err
	}
	more, err := d.done()
	tx.Join(more)
	return err
}

// waits says whether a task waits for an approval, or for the one whose place it
// has just taken.
func waits(t writ.Task, a writ.Approval) bool {
	return t.State == writ.TaskParked && (t.WaitsFor == a.ID || a.Modified != "" && t.WaitsFor == a.Modified)
}

// Wake lets a parked task go on once people have agreed, and fails it when they
// have not. When other people are asked instead, it may try again. A task that
// waits for another approval by now stays as it is.
func (Parking) Wake(c *writ.Call, s writ.Snapshot, a writ.Approval, tx *writ.Tx) error {
	if a.Task == "" {
		return nil
	}
	if a.Capability == "task.claim" && a.Run != "" { // other tasks it covers were set aside meanwhile
		tx.Index(writ.IndexTodo, todo(todoOffer, string(a.Run)), s.Now)
	}
	t, _, err := loadTask(opUnpark, s, a.Task)
	if err != nil {
		return err
	}
	if !waits(t, a) {
		return nil
	}
	r, err := loadRun(opUnpark, s, t.Run)
	if err != nil {
		return err
	}
	d := begin(opUnpark, c, s)
	switch {
	case stopping(t, r):
		d.unpark(&t)
		err = d.end(&t, writ.TaskParked, writ.TaskCancelled)
	case a.State != writ.ApprovalApproved && a.State != writ.ApprovalSuperseded:
		d.unpark(&t)
		t.Failure = &approvalDenied
		err = d.end(&t, writ.TaskParked, writ.TaskFailed)
	case t.Lease != nil:
		d.resume(&t)
		err = d.put(&t, writ.TaskParked)
	default:
		t.WaitsFor, t.ParkedAt = "", 0
		d.enter(&t, 0)
		err = d.put(&t, writ.TaskParked)
	}
	if err != nil {
		return err
	}
	more, err := d.done()
	tx.Join(more)
	return err
}

// resume starts the time of a parked lease again. The time it was parked does
// not count against the longest time a lease may last.
func (d *draft) resume(t *writ.Task) {
	t.Lease.MaxUntil = before(*t, t.Lease.MaxUntil+d.s.Now-t.ParkedAt)
	t.State, t.WaitsFor, t.ParkedAt = writ.TaskRunning, "", 0
	end := min(d.s.Now+t.LeaseSeconds*1000, t.Lease.MaxUntil)
	d.tx.Index(writ.IndexLeases, string(t.ID), end)
	d.exactly(leaseEnd(t.ID))
	d.set(leaseEnd(t.ID), end)
}

// unpark takes a parked task off what it holds, before it ends. It wants
// leaveReads.
func (d *draft) unpark(t *writ.Task) {
	if t.Lease != nil {
		d.drop(t, 0)
	}
	t.WaitsFor, t.ParkedAt = "", 0
}

// giveUpParked is unpark for a task that ends while people decide: they need not any
// more, which the sweep of approvals tells them.
func (d *draft) giveUpParked(t *writ.Task) {
	d.tx.Index(writ.IndexExpiries, string(t.WaitsFor), d.s.Now)
	d.unpark(t)
}

// parkedReply answers the heartbeat of a holder whose task is parked: no time
// runs on its lease.
func parkedReply(t writ.Task, s writ.Snapshot) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: TaskHeartbeat{
		Control: "wait", ExpiresAt: timeOf(before(t, t.Lease.MaxUntil+s.Now-t.ParkedAt)), Every: max(1, t.LeaseSeconds/3),
	}}
}
