package agents

import "github.com/writ-gateway/writ"

// What the sweeper calls when time is up or an agent was stopped. Every
// mandate looks at the present state first and does what is left to do; with
// nothing left it only removes the entry that triggered it, so calling one
// again is harmless.

// cleanupBatch is how many sessions one agent.cleanup revokes.
const cleanupBatch = 32

// AgentCleanupArgs name the agent that was stopped.
type AgentCleanupArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// SessionLapseArgs name a session whose heartbeat is overdue.
type SessionLapseArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// SessionExpireArgs name a session whose life is over.
type SessionExpireArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// SweepResult says what a mandate of this room did.
type SweepResult struct {
	Sessions []writ.SessionID `json:"sessions" doc:"Sessions it moved."`
	More     bool             `json:"more" doc:"Whether work is left and it will be called again."`
}

func swept(sessions []writ.SessionID, more bool) writ.Reply {
	if sessions == nil {
		sessions = []writ.SessionID{}
	}
	return writ.Reply{Outcome: writ.OutcomeDone, Body: SweepResult{Sessions: sessions, More: more}}
}

func cleanup() *writ.Capability {
	const op = "agents.Cleanup"
	return writ.Define[AgentCleanupArgs, SweepResult](writ.Capability{
		ID: "agent.cleanup", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Revoke the sessions of an agent that was stopped, and those they opened.",
	}, writ.Verb[AgentCleanupArgs]{
		Reads: func(_ *writ.Call, a *AgentCleanupArgs, s writ.Snapshot) (writ.ReadSet, error) {
			r := sessionsOf(a.AgentID, cleanupBatch)
			rs := writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}, Ranges: []writ.Range{r}}
			for _, m := range s.Ranges[r].Members {
				rs.Docs = append(rs.Docs, writ.SessionKey(writ.SessionID(m.Name)))
			}
			return rs, nil
		},
		Plan: func(call *writ.Call, a *AgentCleanupArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			agent, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			members := s.Ranges[sessionsOf(a.AgentID, cleanupBatch)].Members
			if agent.State == writ.AgentActive {
				// agent.activate waited until the last old session was gone:
				// what is here now belongs to the new activation.
				members = nil
			}
			var done []writ.SessionID
			more := len(members) == cleanupBatch
			for _, m := range members {
				if len(tx.Ops) > writ.MaxOps/2 { // each may have claims to give back; what was read is guarded too
					more = true
					break
				}
				id := writ.SessionID(m.Name)
				ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(id))
				if err != nil {
					return tx, r, err
				}
				if !ok || writ.SessionMoves.Terminal(ses.State) {
					tx.Unindex(writ.AgentSessions(a.AgentID), m.Name)
					continue
				}
				if agent.Halt != nil {
					ses.Cause = agent.Halt.Receipt
				}
				if err := end(call, op, s, &tx, &ses, writ.SessionRevoked, whyStopped(agent)); err != nil {
					return tx, r, err
				}
				done = append(done, id)
			}
			if !more {
				tx.Unindex(writ.IndexTodo, todoAgent(a.AgentID))
				if h := agent.Halt; h != nil && h.Revoked && h.SweptAt == 0 {
					tx.Index(writ.IndexTodo, todoRecall(a.AgentID), s.Now)
				}
			}
			if agent.Halt != nil {
				tx.Cause(agent.Halt.Receipt)
			}
			return tx, swept(done, more), nil
		},
	})
}

// whyStopped is the reason the sessions of an agent ended.
func whyStopped(a writ.Agent) string {
	switch {
	case a.Halt != nil && a.Halt.Revoked:
		return reasonRevoked
	case a.State == writ.AgentSuperseded:
		return reasonSuperseded
	case a.State == writ.AgentRetired:
		return reasonRetired
	}
	return reasonSuspended
}

func lapse() *writ.Capability {
	const op = "agents.Lapse"
	return writ.Define[SessionLapseArgs, SweepResult](writ.Capability{
		ID: "session.lapse", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Suspend a session that missed its heartbeat, and expire it when the grace time is over too.",
	}, writ.Verb[SessionLapseArgs]{
		Reads: func(_ *writ.Call, a *SessionLapseArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readSession(a.SessionID), nil
		},
		Plan: func(call *writ.Call, a *SessionLapseArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(a.SessionID))
			if err != nil {
				return tx, r, err
			}
			beat := s.Counters[beatOf(a.SessionID)]
			waits := ok && ses.TTLSeconds > 0 && (ses.State == writ.SessionActive || ses.State == writ.SessionSuspended)
			switch {
			case !waits:
				tx.Unindex(writ.IndexBeats, string(a.SessionID))
				return tx, swept(nil, false), nil
			case s.Now <= beat: // the alarm was early: set it right
				tx.Within(beatOf(ses.ID), beat, beat)
				tx.Index(writ.IndexBeats, string(ses.ID), beat)
				return tx, swept(nil, true), nil
			case ses.State == writ.SessionActive:
				if err := moveSession(call, op, s, &tx, &ses, writ.SessionSuspended); err != nil {
					return tx, r, err
				}
				setBeat(&tx, s, ses.ID, s.Now+writ.SessionGraceSeconds*1000)
				return tx, swept([]writ.SessionID{ses.ID}, true), nil
			default:
				tx.Within(beatOf(ses.ID), beat, beat)
				if err := end(call, op, s, &tx, &ses, writ.SessionExpired, reasonSilent); err != nil {
					return tx, r, err
				}
				return tx, swept([]writ.SessionID{ses.ID}, false), nil
			}
		},
	})
}

func expire() *writ.Capability {
	const op = "agents.Expire"
	return writ.Define[SessionExpireArgs, SweepResult](writ.Capability{
		ID: "session.expire", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Expire a session whose life is over.",
	}, writ.Verb[SessionExpireArgs]{
		Reads: func(_ *writ.Call, a *SessionExpireArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.SessionKey(a.SessionID)}}, nil
		},
		Plan: func(call *writ.Call, a *SessionExpireArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(a.SessionID))
			switch {
			case err != nil:
				return tx, r, err
			case !ok || writ.SessionMoves.Terminal(ses.State):
				tx.Unindex(writ.IndexLives, string(a.SessionID))
				return tx, swept(nil, false), nil
			case s.Now < ses.ExpiresAt:
				tx.Index(writ.IndexLives, string(ses.ID), ses.ExpiresAt)
				return tx, swept(nil, true), nil
			}
			if err := end(call, op, s, &tx, &ses, writ.SessionExpired, reasonLifetime); err != nil {
				return tx, r, err
			}
			return tx, swept([]writ.SessionID{ses.ID}, false), nil
		},
	})
}
