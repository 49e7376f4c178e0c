package queue

import (
	"github.com/writ-gateway/writ"
)

// Counters of a task beside its document. The end of the lease is the truth;
// the score in writ.IndexLeases is only the alarm, so that renewal and expiry
// are serialised by one exact guard.
func leaseEnd(id writ.TaskID) writ.Counter    { return writ.TaskLease(id) }                // ms; 0: no lease
func progressSeq(id writ.TaskID) writ.Counter { return writ.TaskProgress(id, "progress") } // of the last report
func progressPct(id writ.TaskID) writ.Counter { return writ.TaskProgress(id, "pct") }      // 0–100
func readiedUpTo(id writ.TaskID) writ.Counter { return writ.TaskProgress(id, "ready") }    // NotBefore already served
func (d *draft) seen(c writ.Counter) int64    { return d.s.Counters[c] }
func (d *draft) exactly(c writ.Counter)       { d.tx.Within(c, d.seen(c), d.seen(c)) }
func (d *draft) set(c writ.Counter, v int64) {
	if seen := d.seen(c); seen != v {
		d.tx.Add(c, v-seen)
	}
}

// claimReads names the counters take resets.
func claimReads(id writ.TaskID) []writ.Counter {
	return []writ.Counter{leaseEnd(id), progressSeq(id), progressPct(id)}
}

// TaskHold is what every call of the holder of a task shows: the first members of its
// arguments.
type TaskHold struct {
	Task  writ.TaskID  `json:"task_id" doc:"The task." pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Lease writ.LeaseID `json:"lease_id" doc:"Lease the claim gave." pattern:"^lse_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Fence int64        `json:"fence" doc:"Fence the claim gave." minimum:"1" maximum:"9007199254740991"`
}

// FenceCarried is what the receipt states: the fence the call showed. Its
// maximum is 2^53 − 1, the largest integer canonical JSON states (RFC 8785).
func (h *TaskHold) FenceCarried() int64 { return h.Fence }

// holder checks that a call comes from the session that holds a task, under
// its present lease and fence. The lease may have run out: until task.expire
// takes the task back it is nobody else's, and the guard on its end lets only
// one of the two through. What wants a lease that has not run out adds inTime.
//
// A session other than the holder is refused with not_holder, unless what it
// shows is the remains of a lease it once had: then the lease is lost.
func holder(op string, c *writ.Call, t writ.Task, version int64, held TaskHold) error {
	parked := t.State == writ.TaskParked
	if t.State != writ.TaskRunning && !parked || t.Lease == nil {
		return leaseLost(op)
	}
	current := t.FenceOf(version)
	if t.Lease.Session != c.Caller.Session {
		if held.Lease != t.Lease.ID && held.Fence < current {
			return leaseLost(op)
		}
		return writ.Refuse(writ.CodeNotHolder, op, "another session holds the task", "only the holder may do this")
	}
	if held.Lease != t.Lease.ID || held.Fence != current {
		return leaseLost(op)
	}
	if parked {
		e := writ.Refuse(writ.CodeApprovalRequired, op, "the task waits for people to agree", "send heartbeats; control says continue when it goes on").
			With("approval", string(t.WaitsFor))
		e.RetryMs = 5000
		return e
	}
	return nil
}

func leaseLost(op string) error {
	return writ.Refuse(writ.CodeLeaseLost, op, "the lease is no longer yours", "stop working on the task and claim again")
}

// inTime refuses once the lease of a task has run out, and keeps the commit
// from coming later than that.
func (d *draft) inTime(id writ.TaskID) error {
	end := d.seen(leaseEnd(id))
	if d.s.Now > end {
		return leaseLost(d.op)
	}
	d.tx.NotAfter(end)
	return nil
}

// take gives a queued task to the caller: lease, quota, scope locks and
// deadline in one transaction, and what its run holds ready for the attempt; and notes
// what kinds of data the session has by it. It wants queueReads, claimReads and
// writ.GivenKey.
func (d *draft) take(c *writ.Call, t *writ.Task, a writ.Agent, r writ.Run, tool writ.Tool) (end int64, err error) {
	if t.KeptUntil != 0 { // what was kept for it stays with it
		t.KeptUntil = 0
		d.tx.Unindex(writ.IndexTodo, todo(todoUnreserve, string(t.ID)))
	}
	d.leave(t)
	id := string(t.ID)
	end = before(*t, d.s.Now+t.LeaseSeconds*1000)
	t.State, t.CancelAt = writ.TaskRunning, 0
	t.Attempt++
	t.Lease = &writ.Lease{
		ID: writ.LeaseID(c.NewID(writ.PrefixLease, 0)), Session: c.Caller.Session, Agent: a.ID,
		MaxUntil: before(*t, d.s.Now+maxLeaseMs),
	}
	if t.DeadlineAt != 0 {
		d.tx.NotAfter(t.DeadlineAt)
	}
	if c.Caller.Role.Works() {
		t.Lease.Prepaid = writ.StepsOfAttempt - 1
	}
	if t.Lease.Counted, err = writ.QuotaTags(d.s, writ.QuotaRunning, writ.QuotaCaller(c.Caller, t.Capability)); err != nil {
		return 0, err
	}
	d.tx.Count(t.Lease.Counted, 1)
	d.hold(t, r, tool)
	t.Budget = t.Budget.After(tool.Costs)
	d.tx.AddUpTo(writ.AgentRunning(a.ID), 1, a.MaxConcurrent)
	d.lock(c.Caller, *t)
	d.tx.Index(writ.IndexLeases, id, end)
	d.tx.Index(writ.SessionTasks(c.Caller.Session), id, 0)
	if err := d.tx.Give(d.s, c.Caller.Session, t.Labels); err != nil {
		return 0, err
	}
	d.set(leaseEnd(t.ID), end)
	d.set(progressSeq(t.ID), 0)
	d.set(progressPct(t.ID), 0)
	return end, d.put(t, writ.TaskQueued)
}

// drop ends the lease of a running task: everything take took is given back,
// what its run need not hold any more included, and up to wake of those that
// wait for its scopes return to their lanes. The caller puts the task into its
// next state. It wants leaveReads.
func (d *draft) drop(t *writ.Task, wake int) {
	id := string(t.ID)
	d.tx.Mandate = true // giving back must work in a full store
	d.tx.Add(writ.AgentRunning(t.Lease.Agent), -1)
	d.tx.Count(t.Lease.Counted, -1)
	d.tx.Unindex(writ.IndexLeases, id)
	d.tx.Unindex(writ.SessionTasks(t.Lease.Session), id)
	d.exactly(leaseEnd(t.ID))
	d.set(leaseEnd(t.ID), 0)
	d.giveBack(t)
	d.unlock(*t)
	d.wake(t.ID, wake)
	t.Lease = nil
}

// stopping says that a task shall not be tried again.
func stopping(t writ.Task, r writ.Run) bool {
	return t.CancelAt != 0 || writ.RunMoves.Terminal(r.State)
}

// triedOut says that a task may not be tried again: by its attempts, by the budget of
// its run, which ends the task and not the run, or by its own.
func triedOut(t writ.Task, r writ.Run) bool {
	most, limits := r.Limited(writ.BudgetTaskRetries)
	return tries(t) >= t.MaxAttempts || limits && tries(t) > most || !t.Budget.Again()
}

// retry decides where a task goes whose attempt ended without a result:
// cancelled when nobody wants it any more, queued with a growing pause while
// attempts are left, else dead.
func (d *draft) retry(t *writ.Task, r writ.Run) error {
	from := t.State
	switch {
	case stopping(*t, r):
		return d.end(t, from, writ.TaskCancelled)
	case triedOut(*t, r):
		return d.end(t, from, writ.TaskDead)
	}
	d.enter(t, d.s.Now+max(d.rest, pause(t.BackoffMs, t.Attempt)))
	return d.put(t, from)
}

// pause is base × 2^(attempt−1), at most ten minutes.
func pause(base, attempt int64) int64 {
	for ; attempt > 1 && base < maxBackoffMs; attempt-- {
		base *= 2
	}
	return min(base, maxBackoffMs)
}
