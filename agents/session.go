package agents

import (
	"github.com/writ-gateway/writ"
)

// Beats. The deadline of a session's next heartbeat is the counter beatOf, in
// milliseconds. The score of the session in writ.IndexBeats is only the alarm
// that makes the sweeper look: a counter can be guarded by value, an index
// score cannot. Whoever ends a session for silence guards the counter at the
// value it judged, so a heartbeat committed in between wins; and a heartbeat
// writes no document, so it never conflicts with the session's other calls.

// beatOf is the counter that holds the deadline of the next heartbeat.
func beatOf(id writ.SessionID) writ.Counter {
	return writ.Counter{Entity: "session/" + string(id), Field: "beat"}
}

// setBeat moves the deadline and its alarm, guarded by the deadline seen.
func setBeat(tx *writ.Tx, s writ.Snapshot, id writ.SessionID, deadline int64) {
	seen := s.Counters[beatOf(id)]
	tx.Within(beatOf(id), seen, seen)
	tx.Add(beatOf(id), deadline-seen)
	tx.Index(writ.IndexBeats, string(id), deadline)
}

// readSession reads a session and its deadline.
func readSession(id writ.SessionID) writ.ReadSet {
	return writ.ReadSet{Docs: []writ.Key{writ.SessionKey(id)}, Counters: []writ.Counter{beatOf(id)}}
}

// own loads the caller's own session. Every other id is unknown to the caller.
func own(call *writ.Call, op string, s writ.Snapshot, id writ.SessionID) (writ.Session, int64, error) {
	if call.Caller.Session != id {
		return writ.Session{}, 0, noSession(op)
	}
	return load(op, s, id)
}

func load(op string, s writ.Snapshot, id writ.SessionID) (writ.Session, int64, error) {
	ses, version, ok, err := writ.Get[writ.Session](s, writ.SessionKey(id))
	if err == nil && !ok {
		err = noSession(op)
	}
	return ses, version, err
}

func noSession(op string) error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such session, or it is not yours", "use the id session.open returned with your token")
}

// moveSession checks a move and writes the session in its new state.
func moveSession(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, ses *writ.Session, to writ.SessionState) error {
	from := ses.State
	if !writ.SessionMoves.May(from, to) {
		return writ.IllegalMove(op, writ.ObjectSession, string(from), string(to))
	}
	ses.State, ses.UpdatedAt, ses.Receipt = to, s.Now, receipt(call)
	tx.Move(writ.ObjectSession, string(ses.ID), string(from), string(to))
	return tx.PutDoc(s, writ.SessionKey(ses.ID), writ.ObjectSession, *ses)
}

// end moves a session into a terminal state, takes it off every deadline and
// list of live sessions, gives back what it claims, and leaves the tasks it held
// to the cleanup. What a session in a jail claims is given back with the jail's end:
// until then processes of it may still write there.
func end(call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx, ses *writ.Session, to writ.SessionState, reason string) error {
	ses.Reason = reason
	if ses.Spawned { // who has it ends it; if nobody has, that is noted then
		tx.Index(writ.IndexTodo, writ.TodoJail(ses.ID), writ.JailGoneAt(s.Now, ses.TTLSeconds))
	} else {
		giveBack(tx, *ses)
	}
	if err := moveSession(call, op, s, tx, ses, to); err != nil {
		return err
	}
	tx.Unindex(writ.IndexBeats, string(ses.ID))
	tx.Unindex(writ.IndexLives, string(ses.ID))
	for _, a := range standsOn(*ses) {
		tx.Unindex(writ.AgentSessions(a), string(ses.ID))
	}
	tx.Index(writ.IndexTodo, todoSession(ses.ID), s.Now)
	return nil
}

// standsOn are the agents a session stands or falls with: its own and those
// behind it.
func standsOn(s writ.Session) []writ.AgentID {
	return writ.Caller{Agent: s.Agent, Behind: s.Behind}.Agents()
}

// Why a session ended, beside the reasons a caller may give.
const (
	reasonClosed     = "closed"
	reasonSuspended  = "agent_suspended"
	reasonRevoked    = "agent_revoked"
	reasonSuperseded = "agent_superseded"
	reasonRetired    = "agent_retired"
	reasonSilent     = "heartbeat_missed"
	reasonLifetime   = "lifetime"
	reasonOperator   = "operator_request"
)

// SessionStartArgs name the caller's own session, and where it claims to write.
type SessionStartArgs struct {
	SessionID   writ.SessionID `json:"session_id" doc:"The caller's own session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	WriteClaims []SessionClaim `json:"write_claims,omitempty" doc:"Where the session claims to write until it ends, all of it or none: nobody else takes work there meanwhile, and the session takes none elsewhere. No two may overlap. Left out, it keeps nobody out, and takes work wherever its agent may write." maxItems:"16"`
}

func start() *writ.Capability {
	const op = "agents.Start"
	return writ.Define[SessionStartArgs, SessionView](writ.Capability{
		ID: "session.start", Safety: writ.SafetyMutating, Summary: "Start the caller's own session, so that it may act.",
		Example: `{"session_id":"ses_01M89R87380BN93ZHPZ445DCJ8","write_claims":[{"resource":"fs:site/dist/"},{"resource":"mem:notes/","mode":"shared"}]}`,
	}, writ.Verb[SessionStartArgs]{
		Locks: func(_ *writ.Call, a *SessionStartArgs) []writ.Key { return []writ.Key{writ.SessionKey(a.SessionID)} },
		Reads: func(call *writ.Call, a *SessionStartArgs, s writ.Snapshot) (writ.ReadSet, error) {
			more, err := a.claimReads(op, call, s)
			return readSession(a.SessionID).Join(more), err
		},
		Describe: func(call *writ.Call, a *SessionStartArgs, s writ.Snapshot) (writ.Subject, error) {
			return a.describeClaims(op, call, s)
		},
		Plan: func(call *writ.Call, a *SessionStartArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ses, version, err := own(call, op, s, a.SessionID)
			if err == nil {
				err = call.Match(op, version)
			}
			if err != nil {
				return tx, r, err
			}
			if ses.State != writ.SessionOpened { // suspended → active is a heartbeat's move
				return tx, r, writ.IllegalMove(op, writ.ObjectSession, string(ses.State), string(writ.SessionActive))
			}
			if err := a.grant(op, s, &ses, &tx); err != nil {
				return tx, r, err
			}
			if err := moveSession(call, op, s, &tx, &ses, writ.SessionActive); err != nil {
				return tx, r, err
			}
			if ses.Spawned { // from now on its heartbeats say whether somebody has its jail
				tx.Unindex(writ.IndexTodo, writ.TodoJail(ses.ID))
			}
			var beat int64
			if ses.TTLSeconds > 0 {
				beat = s.Now + ses.TTLSeconds*1000
				setBeat(&tx, s, ses.ID, beat)
			}
			return tx, sessionReply(ses, beat), nil
		},
	})
}

// SessionHeartbeatArgs name the caller's own session.
type SessionHeartbeatArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The caller's own session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// SessionBeat is the answer to a heartbeat.
type SessionBeat struct {
	SessionID          writ.SessionID    `json:"session_id" doc:"The session."`
	State              writ.SessionState `json:"state" doc:"Where the session stands now." enum:"active"`
	ExpiresAt          string            `json:"expires_at" doc:"End of its life, whatever its heartbeats (RFC 3339, UTC)."`
	HeartbeatExpiresAt string            `json:"heartbeat_expires_at,omitempty" doc:"When the next heartbeat is due (RFC 3339, UTC); absent when none is."`
}

func heartbeat() *writ.Capability {
	const op = "agents.Heartbeat"
	return writ.Define[SessionHeartbeatArgs, SessionBeat](writ.Capability{
		ID: "session.heartbeat", Safety: writ.SafetyMutating, Summary: "Say that the caller's own session is alive; task.claim and task.heartbeat say it too.",
		Example: `{"session_id":"ses_01M89R87380BN93ZHPZ445DCJ8"}`,
	}, writ.Verb[SessionHeartbeatArgs]{
		Reads: func(call *writ.Call, a *SessionHeartbeatArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			rs := readSession(a.SessionID)
			if call.Used != nil {
				rs = rs.Join(readUse(a.SessionID))
			}
			return rs, nil
		},
		Plan: func(call *writ.Call, a *SessionHeartbeatArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ses, _, err := own(call, op, s, a.SessionID)
			if err != nil {
				return tx, r, err
			}
			switch ses.State {
			case writ.SessionActive:
			case writ.SessionSuspended:
				grace := s.Counters[beatOf(ses.ID)]
				if s.Now > grace {
					e := writ.IllegalMove(op, writ.ObjectSession, string(ses.State), string(writ.SessionActive))
					e.Msg, e.Hint = "the time to come back has passed", "have another session opened"
					return tx, r, e
				}
				tx.NotAfter(grace)
				if err := moveSession(call, op, s, &tx, &ses, writ.SessionActive); err != nil {
					return tx, r, err
				}
			default:
				e := writ.IllegalMove(op, writ.ObjectSession, string(ses.State), string(writ.SessionActive))
				e.Hint = "start it with session.start"
				return tx, r, e
			}
			out := SessionBeat{SessionID: ses.ID, State: ses.State, ExpiresAt: writ.FormatTime(ses.ExpiresAt)}
			if ses.TTLSeconds > 0 { // else there is nothing to renew and nothing is committed
				beat := s.Now + ses.TTLSeconds*1000
				setBeat(&tx, s, ses.ID, beat)
				if call.Used != nil {
					setUse(&tx, s, ses.ID, *call.Used)
				}
				out.HeartbeatExpiresAt = writ.FormatTime(beat)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// SessionCloseArgs name the caller's own session.
type SessionCloseArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The caller's own session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func closeOwn() *writ.Capability {
	const op = "agents.Close"
	return writ.Define[SessionCloseArgs, SessionView](writ.Capability{
		ID: "session.close", Safety: writ.SafetyMutating,
		Example: `{"session_id":"ses_01M89R87380BN93ZHPZ445DCJ8"}`,
		Summary: "End the caller's own session; its token is refused from then on and what it holds is given back.",
	}, writ.Verb[SessionCloseArgs]{
		Locks: func(_ *writ.Call, a *SessionCloseArgs) []writ.Key { return []writ.Key{writ.SessionKey(a.SessionID)} },
		Reads: func(_ *writ.Call, a *SessionCloseArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readSession(a.SessionID), nil
		},
		Plan: func(call *writ.Call, a *SessionCloseArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ses, version, err := own(call, op, s, a.SessionID)
			if err == nil {
				err = call.Match(op, version)
			}
			if err == nil {
				err = end(call, op, s, &tx, &ses, writ.SessionClosed, reasonClosed)
			}
			return tx, sessionReply(ses, 0), err
		},
	})
}

// SessionRevokeArgs name the session to revoke and why.
type SessionRevokeArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Reason    string         `json:"reason,omitempty" doc:"Why it is revoked." default:"operator_request" enum:"operator_request,misbehaviour,compromised,token_lost"`
}

func revoke() *writ.Capability {
	const op = "agents.Revoke"
	return writ.Define[SessionRevokeArgs, SessionView](writ.Capability{
		ID: "session.revoke", Safety: writ.SafetyMutating,
		Example: `{"session_id":"ses_01M89R87380BN93ZHPZ445DCJ8","reason":"token_lost"}`,
		Summary: "End any session at once; its token is refused from then on and what it holds is given back.",
	}, writ.Verb[SessionRevokeArgs]{
		Locks: func(_ *writ.Call, a *SessionRevokeArgs) []writ.Key { return []writ.Key{writ.SessionKey(a.SessionID)} },
		Reads: func(_ *writ.Call, a *SessionRevokeArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readSession(a.SessionID), nil
		},
		Plan: func(call *writ.Call, a *SessionRevokeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if call.Caller.Role != writ.RoleOperator && call.Caller.Role != writ.RoleSystem {
				return tx, r, noSession(op)
			}
			ses, version, err := load(op, s, a.SessionID)
			if err == nil {
				err = call.Match(op, version)
			}
			reason := a.Reason
			if reason == "" {
				reason = reasonOperator
			}
			if err == nil && writ.SessionMoves.Terminal(ses.State) {
				e := writ.IllegalMove(op, writ.ObjectSession, string(ses.State), string(writ.SessionRevoked))
				e.Hint = "it has ended, and does nothing any more; what it ordered is stopped by run.cancel of its runs, by agent.suspend or agent.revoke of its agent, or by role.unbind of its principal"
				err = e
			}
			if err == nil {
				err = end(call, op, s, &tx, &ses, writ.SessionRevoked, reason)
			}
			return tx, sessionReply(ses, 0), err
		},
	})
}
