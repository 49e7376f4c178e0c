package agents

import "github.com/writ-gateway/writ"

// SessionView is a session as the API shows it: never its token nor the
// token's hash.
type SessionView struct {
	SessionID          writ.SessionID     `json:"session_id" doc:"The session."`
	Principal          writ.PrincipalID   `json:"principal" doc:"Who it acts for."`
	Kind               writ.PrincipalKind `json:"kind" doc:"What the principal is."`
	Role               writ.Role          `json:"role" doc:"The one role it has."`
	AgentID            writ.AgentID       `json:"agent_id,omitempty" doc:"Agent it is bound to."`
	State              writ.SessionState  `json:"state" doc:"Where it stands." enum:"opened,active,suspended,closed,expired,revoked"`
	Reason             string             `json:"reason,omitempty" doc:"Why it ended."`
	TTLSeconds         int64              `json:"heartbeat_ttl_s" doc:"Seconds between heartbeats; 0: none are due."`
	HeartbeatExpiresAt string             `json:"heartbeat_expires_at,omitempty" doc:"When its next heartbeat, or the end of its grace time, is due (RFC 3339, UTC)."`
	ExpiresAt          string             `json:"expires_at" doc:"End of its life (RFC 3339, UTC)."`
	WriteClaims        []writ.WriteClaim  `json:"write_claims,omitempty" doc:"Where it claims to write, until it ends; of one that has ended, where it did."`
	Jail               *SessionJailView   `json:"jail,omitempty" doc:"The jail it was spawned in."`
	OpenedBy           writ.SessionID     `json:"opened_by,omitempty" doc:"Session that opened it."`
	CreatedAt          string             `json:"created_at" doc:"When it was opened (RFC 3339, UTC)."`
	UpdatedAt          string             `json:"updated_at" doc:"When its state last changed (RFC 3339, UTC)."`
	Receipt            writ.ReceiptID     `json:"receipt" doc:"Receipt of the last change."`
	Version            int64              `json:"version" doc:"Version of the session, for If-Match."`
}

func viewSession(s writ.Session, beat, version int64) SessionView {
	v := SessionView{
		SessionID: s.ID, Principal: s.Principal, Kind: s.Kind, Role: s.Role, AgentID: s.Agent, State: s.State,
		Reason: s.Reason, TTLSeconds: s.TTLSeconds, ExpiresAt: writ.FormatTime(s.ExpiresAt), OpenedBy: s.OpenedBy, WriteClaims: s.WriteClaims,
		CreatedAt: writ.FormatTime(s.CreatedAt), UpdatedAt: writ.FormatTime(s.UpdatedAt), Receipt: s.Receipt, Version: version,
	}
	if beat > 0 && (s.State == writ.SessionActive || s.State == writ.SessionSuspended) {
		v.HeartbeatExpiresAt = writ.FormatTime(beat)
	}
	return v
}

// sessionReply shows a session as the commit will have written it.
func sessionReply(s writ.Session, beat int64) writ.Reply {
	return writ.Reply{Outcome: writ.OutcomeDone, Body: viewSession(s, beat, 0), Versioned: []string{"version"}, ETag: -1}
}

// SessionGetArgs name the session to show.
type SessionGetArgs struct {
	SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func getSession() *writ.Capability {
	const op = "agents.GetSession"
	return writ.Define[SessionGetArgs, SessionView](writ.Capability{
		ID: "session.get", Safety: writ.SafetyReadOnly,
		Example: `{"session_id":"ses_01M89R87380BN93ZHPZ445DCJ8"}`,
		Summary: "Show a session: the caller's own, or any to operators and auditors.",
	}, writ.Verb[SessionGetArgs]{
		Reads: func(_ *writ.Call, a *SessionGetArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return readJail(a.SessionID).Join(readUse(a.SessionID)), nil
		},
		Plan: func(call *writ.Call, a *SessionGetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if call.Caller.Session != a.SessionID && !seesAll(call.Caller.Role) {
				return tx, r, noSession(op)
			}
			ses, version, err := load(op, s, a.SessionID)
			if err != nil {
				return tx, r, err
			}
			body := viewSession(ses, s.Counters[beatOf(ses.ID)], version)
			jail, _, spawned, err := writ.Get[writ.Jail](s, writ.JailKey(ses.ID))
			if spawned {
				body.Jail = viewJail(jail)
				if jail.State == writ.JailRunning {
					body.Jail.Use = usedIn(s, ses.ID)
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: body, ETag: version}, err
		},
	})
}

// seesAll says whether a role may see everybody's sessions.
func seesAll(r writ.Role) bool {
	return r == writ.RoleOperator || r == writ.RoleAuditor || r == writ.RoleSystem
}

// SessionListArgs page through the sessions.
type SessionListArgs struct {
	After writ.SessionID `json:"after,omitempty" doc:"Session the last page ended with." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64          `json:"limit,omitempty" doc:"Sessions per page." default:"50" minimum:"1" maximum:"200"`
}

// SessionList is a page of sessions.
type SessionList struct {
	Sessions []SessionView `json:"sessions" doc:"Sessions, oldest first."`
	Next     string        `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`
}

func listSessions() *writ.Capability {
	return writ.Define[SessionListArgs, SessionList](writ.Capability{
		ID: "session.list", Safety: writ.SafetyReadOnly, Summary: "List all sessions, oldest first.",
		Example: `{"limit":20}`,
	}, writ.Verb[SessionListArgs]{
		Reads: func(_ *writ.Call, a *SessionListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			page := writ.Page{Index: writ.IndexSessions, After: string(a.After), Limit: a.Limit}
			rs := writ.ReadSet{Ranges: []writ.Range{page.Range()}}
			names, _ := page.Of(s)
			for _, n := range names {
				one := readSession(writ.SessionID(n))
				rs.Docs = append(rs.Docs, one.Docs...)
				rs.Counters = append(rs.Counters, one.Counters...)
			}
			return rs, nil
		},
		Plan: func(call *writ.Call, a *SessionListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			names, next := writ.Page{Index: writ.IndexSessions, After: string(a.After), Limit: a.Limit}.Of(s)
			out := SessionList{Sessions: []SessionView{}, Next: next}
			for _, n := range names {
				ses, version, ok, err := writ.Get[writ.Session](s, writ.SessionKey(writ.SessionID(n)))
				if err != nil {
					return tx, r, err
				}
				if ok && (seesAll(call.Caller.Role) || ses.ID == call.Caller.Session) {
					out.Sessions = append(out.Sessions, viewSession(ses, s.Counters[beatOf(ses.ID)], version))
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
