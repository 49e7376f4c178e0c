package queue

import (
	"github.com/writ-gateway/writ"
)

// TaskHeartbeatArgs tell that the holder still works on a task.
type TaskHeartbeatArgs struct {
	TaskHold
	Progress *TaskProgress `json:"progress,omitempty" doc:"How far the work is."`
	Awaits   []string      `json:"awaits,omitempty" doc:"Tasks and runs of the same tree of runs that the work cannot go on without: what was delegated, a child run. Say it with every heartbeat as long as it is so. If they in turn wait for a write scope this task holds, one of the tasks in the circle is taken back within half a minute and tried again later, instead of all waiting until their leases end." maxItems:"8" pattern:"^(tsk|run)_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// TaskProgress is a report of progress.
type TaskProgress struct {
	Pct int64 `json:"pct" doc:"Done so far, in percent." minimum:"0" maximum:"100"`
	Seq int64 `json:"seq" doc:"Number of the report; it must grow." minimum:"1" maximum:"1000000000"`
}

// TaskHeartbeat tells the holder what to do next.
type TaskHeartbeat struct {
	Control   string `json:"control" doc:"continue; wait: a call about the task needs approval, go on with heartbeats; pause: its run waits for people, so no call about it is allowed but heartbeats and the end of the task; checkpoint: the lease cannot be extended for much longer, so give the result, hand it on, or release the task with what there is saved; cancel: stop and call task.release." enum:"continue,wait,pause,checkpoint,cancel"`
	ExpiresAt string `json:"expires_at" doc:"End of the lease unless another heartbeat extends it."`
	Every     int64  `json:"heartbeat_every_s" doc:"Seconds between heartbeats that keep the lease safe."`
}

func heartbeatCapability(cfg Config) *writ.Capability {
	return writ.Define[TaskHeartbeatArgs, TaskHeartbeat](writ.Capability{
		ID: "task.heartbeat", Summary: "Keep the lease on a task, and the session, and learn whether to go on.", Safety: writ.SafetyMutating,
		Example: `{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC","lease_id":"lse_01M89R87A1XW9VX2J6QY4SBD3M","fence":9,"progress":{"pct":40,"seq":1}}`,
	}, writ.Verb[TaskHeartbeatArgs]{
		Locks: func(_ *writ.Call, a *TaskHeartbeatArgs) []writ.Key { return []writ.Key{writ.TaskKey(a.Task)} },
		Reads: func(c *writ.Call, a *TaskHeartbeatArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := taskReads(opHeartbeat, s, a.Task)
			rs.Docs = append(rs.Docs, callerAgent(c)...)
			rs.Counters = claimReads(a.Task)
			aliveReads(cfg.Alive, c, &rs)
			rs.Docs = append(rs.Docs, awaitedReads(s, a.Awaits)...)
			return rs, err
		},
		Describe: func(c *writ.Call, a *TaskHeartbeatArgs, s writ.Snapshot) (writ.Subject, error) {
			return describeTask(opHeartbeat, c, s, a.Task)
		},
		Plan: func(c *writ.Call, a *TaskHeartbeatArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
			tx, reply, err := heartbeatPlan(c, a, s, d)
			if err == nil {
				_, err = cfg.Alive.Renew(c.Caller.Session, s, &tx)
			}
			tx.Mandate = true // a full store must not end healthy leases and sessions
			return tx, reply, err
		},
	})
}

const opHeartbeat = "queue.Heartbeat"

// heartbeatPlan writes no document, unless what the holder waits for has changed: a
// heartbeat moves the end of the lease and counters, so it never conflicts with calls
// about the task's state. It may
// come after that end (the gateway was away, the holder was not), as long as
// the lease was not taken back; it never goes past Lease.MaxUntil.
func heartbeatPlan(c *writ.Call, a *TaskHeartbeatArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	t, version, r, err := loadBoth(opHeartbeat, s, a.Task)
	if err != nil {
		return refuse(err)
	}
	if err := holder(opHeartbeat, c, t, version, a.TaskHold); err != nil {
		if t.State == writ.TaskParked && writ.CodeOf(err) == writ.CodeApprovalRequired {
			return writ.Tx{}, parkedReply(t, s), nil
		}
		return refuse(err)
	}
	if s.Now > t.Lease.MaxUntil {
		return refuse(leaseLost(opHeartbeat))
	}
	if err := c.Match(opHeartbeat, version); err != nil {
		return refuse(err)
	}
	d := begin(opHeartbeat, c, s)
	end := d.seen(leaseEnd(t.ID))
	reply := TaskHeartbeat{Control: "continue", ExpiresAt: timeOf(end), Every: max(1, t.LeaseSeconds/3)}
	if stopping(t, r) {
		reply.Control = "cancel"
		return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: reply}, nil
	}
	if r.State == writ.RunPausedApproval {
		reply.Control = "pause"
	}
	if err := d.awaits(&t, version, r, a.Awaits); err != nil {
		return refuse(err)
	}
	if p := a.Progress; p != nil {
		if p.Seq <= d.seen(progressSeq(t.ID)) {
			return refuse(writ.Refuse(writ.CodeVersion, opHeartbeat, "a later report of progress is known", "number reports upwards").
				With("reason", "stale"))
		}
		d.exactly(progressSeq(t.ID))
		d.set(progressSeq(t.ID), p.Seq)
		d.set(progressPct(t.ID), p.Pct)
	}
	next := max(end, min(s.Now+t.LeaseSeconds*1000, t.Lease.MaxUntil))
	d.tx.NotAfter(t.Lease.MaxUntil)
	d.exactly(leaseEnd(t.ID))
	d.set(leaseEnd(t.ID), next)
	d.tx.Index(writ.IndexLeases, string(t.ID), next)
	reply.ExpiresAt = timeOf(next)
	if reply.Control == "continue" && t.Lease.MaxUntil-s.Now < t.LeaseSeconds*1000 {
		reply.Control = "checkpoint" // the next heartbeats extend nothing
	}
	tx, err := d.done()
	return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: reply}, err
}
