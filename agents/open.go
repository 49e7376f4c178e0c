package agents

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"

	"github.com/writ-gateway/writ"
)

// maxAgentSessions bounds the live sessions that stand on one agent: the index that
// holds them is read whole.
const maxAgentSessions = 64

// SecretsFrom derives session secrets from a key of the server (32 random
// bytes that never leave it): base64url of HMAC-SHA256 (RFC 2104) over tenant
// and call id, 43 characters. Who knows a call id but not the key learns
// nothing.
func SecretsFrom(key []byte) func(*writ.Call) string {
	key = append([]byte(nil), key...)
	return func(call *writ.Call) string {
		m := hmac.New(sha256.New, key)
		m.Write([]byte("writ session secret v1\x00"))
		m.Write([]byte(call.Caller.Tenant))
		m.Write([]byte{0})
		m.Write([]byte(call.ID))
		return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
}

// SessionOpenArgs say for whom and as what a session is opened.
type SessionOpenArgs struct {
	Principal  writ.PrincipalID   `json:"principal" doc:"Slug of who the session acts for." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Kind       writ.PrincipalKind `json:"kind" doc:"What the principal is." enum:"human,agent,service"`
	Role       writ.Role          `json:"role" doc:"The one role the session has." enum:"operator,orchestrator,executor,verifier,approver,auditor"`
	AgentID    writ.AgentID       `json:"agent_id,omitempty" doc:"Agent the session is bound to; required for kind agent, refused for others." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Controller writ.PrincipalID   `json:"controller,omitempty" doc:"The person answerable for what the session does: they cannot approve its calls, and their votes count once whatever they are called. Default: the principal of a human, else who answers for the caller." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	TTLSeconds int64              `json:"heartbeat_ttl_s,omitempty" doc:"Seconds without a heartbeat (session.heartbeat, task.heartbeat, or a claim, also while it waits) after which the session is suspended; a minute later it ends. Left out: 30 for agents, no heartbeats for others." minimum:"10" maximum:"300"`
	LifeSecond int64              `json:"lifetime_s,omitempty" doc:"Seconds the session can live." default:"43200" minimum:"1" maximum:"43200"`
}

// GivesRole says whom the session would act for, and as what: the door refuses a
// principal that is not bound to the role.
func (a *SessionOpenArgs) GivesRole() (writ.PrincipalID, writ.Role) { return a.Principal, a.Role }

// SessionOpened shows a new session and, once, its token.
type SessionOpened struct {
	SessionID  writ.SessionID     `json:"session_id" doc:"The session."`
	Token      string             `json:"token" writ:"secret" doc:"Bearer token of the session. It is shown once and kept nowhere."`
	Principal  writ.PrincipalID   `json:"principal" doc:"Who the session acts for."`
	Kind       writ.PrincipalKind `json:"kind" doc:"What the principal is."`
	Role       writ.Role          `json:"role" doc:"The one role the session has."`
	AgentID    writ.AgentID       `json:"agent_id,omitempty" doc:"Agent the session is bound to."`
	State      writ.SessionState  `json:"state" doc:"Opened: the token is good for session.start, get and close." enum:"opened"`
	TTLSeconds int64              `json:"heartbeat_ttl_s" doc:"Seconds between heartbeats; 0: none are due."`
	ExpiresAt  string             `json:"expires_at" doc:"End of its life (RFC 3339, UTC)."`
	Receipt    writ.ReceiptID     `json:"receipt" doc:"Receipt of the opening."`
	Version    int64              `json:"version" doc:"Version of the session, for If-Match."`
}

func open(cfg Config) *writ.Capability {
	const op = "agents.Open"
	return writ.Define[SessionOpenArgs, SessionOpened](writ.Capability{
		ID: "session.open", Safety: writ.SafetyMutating,
		Example: `{"principal":"site-builder","kind":"agent","role":"executor","agent_id":"site-builder","heartbeat_ttl_s":60}`,
		Summary: "Open a session that binds a principal to one role, and show its token once.",
	}, writ.Verb[SessionOpenArgs]{
		Reads: func(call *writ.Call, a *SessionOpenArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return a.reads(call), nil
		},
		Plan: func(call *writ.Call, a *SessionOpenArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			ses, secret, err := a.begin(cfg, call, op, s, &tx)
			if err != nil {
				return tx, r, err
			}
			if err := tx.PutDoc(s, writ.SessionKey(ses.ID), writ.ObjectSession, ses); err != nil {
				return tx, r, err
			}
			return tx, writ.Reply{Outcome: writ.OutcomeCreated, Versioned: []string{"version"}, ETag: -1, Body: SessionOpened{
				SessionID: ses.ID, Token: string(call.Caller.Tenant) + "." + string(ses.ID) + "." + secret,
				Principal: ses.Principal, Kind: ses.Kind, Role: ses.Role, AgentID: ses.Agent, State: ses.State,
				TTLSeconds: ses.TTLSeconds, ExpiresAt: writ.FormatTime(ses.ExpiresAt), Receipt: ses.Receipt,
			}}, nil
		},
	})
}

// reads names what opening the session looks at.
func (a *SessionOpenArgs) reads(call *writ.Call) writ.ReadSet {
	rs := readSession(newSession(call))
	if a.AgentID != "" {
		rs.Docs = append(rs.Docs, writ.AgentKey(a.AgentID))
	}
	for _, id := range a.standsOn(call) {
		rs.Ranges = append(rs.Ranges, sessionsOf(id, maxAgentSessions))
	}
	if by := call.Caller.Session; by != "" {
		rs.Docs = append(rs.Docs, writ.GivenKey(by), writ.GivenKey(newSession(call)))
	}
	return rs
}

// begin plans the session but for its document, which the caller puts.
func (a *SessionOpenArgs) begin(cfg Config, call *writ.Call, op string, s writ.Snapshot, tx *writ.Tx) (ses writ.Session, secret string, err error) {
	if wrong := a.check(); len(wrong) > 0 {
		return ses, "", &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Fields: wrong,
			Msg: "the session cannot be opened like this", Hint: "correct every field named in errors",
		}
	}
	if a.AgentID != "" {
		if err := a.checkAgent(op, s); err != nil {
			return ses, "", err
		}
	}
	for _, id := range a.standsOn(call) {
		if len(s.Ranges[sessionsOf(id, maxAgentSessions)].Members) >= maxAgentSessions {
			return ses, "", writ.Refuse(writ.CodeQuota, op, "the agent has as many live sessions as it may", "close one of them first")
		}
	}
	secret = cfg.Secret(call)
	hash := sha256.Sum256([]byte(secret))
	ses = writ.Session{
		ID: newSession(call), Principal: a.Principal, Kind: a.Kind, Role: a.Role, Agent: a.AgentID,
		State: writ.SessionOpened, TokenHash: hex.EncodeToString(hash[:]), TTLSeconds: a.TTLSeconds,
		ExpiresAt: s.Now + 1000*writ.SessionMaxLifeSeconds, OpenedBy: call.Caller.Session,
		CreatedAt: s.Now, UpdatedAt: s.Now, Receipt: receipt(call),
	}
	ses.Controller, ses.Openers = answerable(call.Caller, a)
	ses.Behind = call.Caller.Agents()
	if max(len(ses.Openers), len(ses.Behind)) > maxOpeners {
		return ses, "", writ.Refuse(writ.CodeSoD, op, "as many stand behind your session as may",
			"let somebody open it whose own session was opened through fewer others")
	}
	if ses.TTLSeconds == 0 && ses.Kind == writ.KindAgent {
		ses.TTLSeconds = writ.SessionDefaultTTLSeconds
	}
	if a.LifeSecond > 0 {
		ses.ExpiresAt = s.Now + 1000*min(a.LifeSecond, writ.SessionMaxLifeSeconds)
	}
	if by := call.Caller.Session; by != "" { // what its opener knows it may be told
		given, err := writ.GivenTo(s, by)
		if err != nil {
			return ses, "", err
		}
		if err := tx.Give(s, ses.ID, given); err != nil {
			return ses, "", err
		}
	}
	tx.Move(writ.ObjectSession, string(ses.ID), "", string(ses.State))
	tx.Index(writ.IndexSessions, string(ses.ID), 0)
	tx.Index(writ.IndexLives, string(ses.ID), ses.ExpiresAt)
	for _, id := range standsOn(ses) {
		tx.Index(writ.AgentSessions(id), string(ses.ID), 0)
	}
	return ses, secret, nil
}

// maxOpeners bounds how many stand behind a session by having opened it, or by
// answering for a session that did. None may be forgotten, since nobody approves or
// gives a role through a session of his own.
const maxOpeners = 8

// answerable says who answers for a new session, and who opened it, nearest
// first: the opener, who answers for the opener, and who is behind them.
func answerable(c writ.Caller, a *SessionOpenArgs) (controller writ.PrincipalID, openers []writ.PrincipalID) {
	controller = a.Controller
	switch {
	case controller != "":
	case a.Kind == writ.KindHuman || c.Kind == writ.KindSystem:
		controller = a.Principal
	default:
		controller = c.Controller
	}
	if c.Kind == writ.KindSystem {
		return controller, nil // the gateway opened it for the operator of the machine
	}
	for _, p := range append([]writ.PrincipalID{c.Principal, c.Controller}, c.Openers...) {
		if p != "" && !slices.Contains(openers, p) {
			openers = append(openers, p)
		}
	}
	return controller, openers
}

func newSession(call *writ.Call) writ.SessionID {
	return writ.SessionID(call.NewID(writ.PrefixSession, 0))
}

// standsOn are the agents the new session would stand or fall with.
func (a *SessionOpenArgs) standsOn(call *writ.Call) []writ.AgentID {
	return writ.Caller{Agent: a.AgentID, Behind: call.Caller.Agents()}.Agents()
}

// sessionsOf reads the live sessions of an agent.
func sessionsOf(id writ.AgentID, limit int) writ.Range {
	return writ.Range{Index: writ.AgentSessions(id), Limit: limit}
}

// check finds what is wrong with the arguments by themselves.
func (a *SessionOpenArgs) check() (wrong []writ.FieldError) {
	bad := func(pointer, msg string) { wrong = append(wrong, writ.FieldError{Pointer: pointer, Msg: msg}) }
	switch isAgent := a.Kind == writ.KindAgent; {
	case isAgent && a.AgentID == "":
		bad("/agent_id", "is required for kind agent")
	case !isAgent && a.AgentID != "":
		bad("/agent_id", "only a session of kind agent can be bound to an agent")
	}
	switch a.Role {
	case writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier:
	case writ.RoleOperator, writ.RoleApprover, writ.RoleAuditor:
		if a.Kind == writ.KindAgent {
			bad("/role", "an agent may be orchestrator, executor or verifier only")
		}
	default:
		bad("/role", "no session can be opened with this role")
	}
	return wrong
}

// checkAgent says whether the agent may have a session like this now.
func (a *SessionOpenArgs) checkAgent(op string, s writ.Snapshot) error {
	agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
	switch {
	case err != nil:
		return err
	case !ok:
		return noAgent(op)
	case agent.State != writ.AgentActive:
		return writ.Refuse(writ.CodeUnavailable, op, "the agent is not active", "activate it with agent.activate").
			With("state", string(agent.State))
	case !agent.Archetype(a.Role):
		return writ.Refuse(writ.CodeNotEligible, op, "the agent is not registered for this role", "choose one of its archetypes").
			With("role", string(a.Role))
	}
	return nil
}
