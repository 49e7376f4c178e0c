package queue

import (
	"github.com/writ-gateway/writ"
)

// SessionCleanupArgs name a session that has ended.
type SessionCleanupArgs struct {
	Session writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// cleanupBatch is how many tasks of a session one call looks at.
const cleanupBatch = 16

// cleanupCapability takes back the tasks an ended session held, and wakes those that
// waited for what it claimed.
func cleanupCapability() *writ.Capability {
	return writ.Define[SessionCleanupArgs, Swept](mandate("session.cleanup", "Take back the tasks an ended session held, and wake those that waited for its claims."), writ.Verb[SessionCleanupArgs]{
		Reads: cleanupReads,
		Describe: func(_ *writ.Call, a *SessionCleanupArgs, s writ.Snapshot) (writ.Subject, error) {
			run, err := cleanupRun(s, a.Session)
			return describeRun(opCleanup, s, run, err)
		},
		Plan: cleanupPlan,
	})
}

const opCleanup = "queue.Cleanup"

func heldBy(id writ.SessionID) writ.Range {
	return writ.Range{Index: writ.SessionTasks(id), Limit: cleanupBatch}
}

// cleanupRun is the run whose tasks a commit takes back.
func cleanupRun(s writ.Snapshot, id writ.SessionID) (writ.RunID, error) {
	return firstRun(opCleanup, s, s.Ranges[heldBy(id)].Members, func(t writ.Task) bool { return t.Lease != nil && t.Lease.Session == id })
}

func cleanupReads(_ *writ.Call, a *SessionCleanupArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if !a.Session.Valid() {
		return writ.ReadSet{}, notFound(opCleanup, "session")
	}
	rs := writ.ReadSet{Docs: writ.Holder(a.Session).Docs(), Ranges: []writ.Range{heldBy(a.Session), waiters(a.Session, wakeAtOnce+1)}}
	rs.Counters = wakeReads(s.Ranges[waiters(a.Session, wakeAtOnce+1)].Members)
	for _, m := range s.Ranges[heldBy(a.Session)].Members {
		more, err := leaveReads(opCleanup, s, writ.TaskID(m.Name))
		if err != nil {
			return rs, err
		}
		rs.Docs = append(rs.Docs, more.Docs...)
		rs.Counters = append(rs.Counters, more.Counters...)
		rs.Ranges = append(rs.Ranges, more.Ranges...)
	}
	return rs, nil
}

func cleanupPlan(c *writ.Call, a *SessionCleanupArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
	refuse := func(err error) (writ.Tx, writ.Reply, error) { return writ.Tx{}, writ.Reply{}, err }
	session, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(a.Session))
	if err != nil {
		return refuse(err)
	}
	if !ok {
		return refuse(notFound(opCleanup, "session"))
	}
	d, out := begin(opCleanup, c, s), Swept{}
	d.tx.Cause(session.Cause)
	if writ.SessionMoves.Terminal(session.State) {
		run, err := cleanupRun(s, a.Session)
		if err != nil {
			return refuse(err)
		}
		members := s.Ranges[heldBy(a.Session)].Members
		out.More = len(members) == cleanupBatch
		for _, m := range members {
			if d.full() {
				out.More = true
				break
			}
			t, _, err := loadTask(opCleanup, s, writ.TaskID(m.Name))
			if err != nil {
				return refuse(err)
			}
			if t.Lease == nil || t.Lease.Session != a.Session {
				d.tx.Unindex(writ.SessionTasks(a.Session), m.Name)
				continue
			}
			if t.Run != run {
				out.More = true
				continue
			}
			if session.State == writ.SessionExpired { // silent, or out of time: nobody ended it on purpose
				d.failed(t.Lease.Agent, sessionEnded.Class)
			}
			// Those that wait are woken by a follow-up: sixteen tasks may have many.
			if err := d.lapse(&t, sessionEnded, 0); err != nil {
				return refuse(err)
			}
			out.Changed++
		}
	}
	holds, err := writ.HoldsScopes(s, session)
	if err != nil {
		return refuse(err)
	}
	if !holds && writ.SessionMoves.Terminal(session.State) {
		// What it claimed is given back, and nobody begins to wait for it any more. Where its jail
		// has not ended this is called again when it has.
		for i, m := range s.Ranges[waiters(a.Session, wakeAtOnce+1)].Members {
			if i == wakeAtOnce || d.full() {
				out.More = true
				break
			}
			d.wakeOne(writ.Holder(a.Session), m.Name)
		}
	}
	if !out.More {
		d.tx.Unindex(writ.IndexTodo, todo(todoSession, string(a.Session)))
	}
	return d.swept(out, nil)
}
