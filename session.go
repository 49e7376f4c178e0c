package writ

// SessionState is where a session stands.
type SessionState string

const (
	// SessionOpened: by session.open; its token is valid for session.start,
	// get and close only.
	SessionOpened SessionState = "opened"
	// SessionActive: by session.start, or by a heartbeat within the grace time.
	SessionActive SessionState = "active"
	// SessionSuspended: a heartbeat was missed; heartbeat or close leave it, or
	// the end of the grace time.
	SessionSuspended SessionState = "suspended"
	// SessionClosed: by its own session.close. Terminal.
	SessionClosed SessionState = "closed"
	// SessionExpired: grace or lifetime ran out. Terminal.
	SessionExpired SessionState = "expired"
	// SessionRevoked: by session.revoke or by suspending its agent. Terminal.
	SessionRevoked SessionState = "revoked"
)

// SessionMoves are the legal moves of a session. A terminal state's token is
// refused everywhere at once; cleanup of what it held follows as its own
// receipt and does not move it.
var SessionMoves = Table[SessionState]{
	"":               {SessionOpened},
	SessionOpened:    {SessionActive, SessionClosed, SessionExpired, SessionRevoked},
	SessionActive:    {SessionSuspended, SessionClosed, SessionExpired, SessionRevoked},
	SessionSuspended: {SessionActive, SessionClosed, SessionExpired, SessionRevoked},
	SessionClosed:    {},
	SessionExpired:   {},
	SessionRevoked:   {},
}

// Session binds one principal to one role. Heartbeats move an index score, not
// this document.
type Session struct {
	ID         SessionID     `json:"id"`
	Principal  PrincipalID   `json:"principal"`
	Kind       PrincipalKind `json:"kind"`
	Role       Role          `json:"role"`
	Agent      AgentID       `json:"agent,omitempty"`
	State      SessionState  `json:"state"`
	TokenHash  string        `json:"token_hash"` // hex SHA-256 of the secret
	TTLSeconds int64         `json:"heartbeat_ttl_s"`
	ExpiresAt  int64         `json:"expires_at"` // milliseconds; the end of its life, not of its heartbeat
	OpenedBy   SessionID     `json:"opened_by,omitempty"`
	Controller PrincipalID   `json:"controller,omitempty"` // the person answerable for what it does; empty: the principal
	Openers    []PrincipalID `json:"openers,omitempty"`    // who opened it, who answered for that session, and who opened that one, nearest first
	Behind     []AgentID     `json:"behind,omitempty"`     // agents of the session that opened it, and who are behind that one: it stands as long as they do
	Cause      ReceiptID     `json:"cause,omitempty"`      // receipt of what its end follows from
	CreatedAt  int64         `json:"created_at"`
	UpdatedAt  int64         `json:"updated_at"`
	Reason     string        `json:"reason,omitempty"` // closed enum: why it ended
	Receipt    ReceiptID     `json:"receipt"`

	WriteClaims []WriteClaim `json:"write_claims,omitempty"` // from its start to its end; what it had stays to be seen
	Spawned     bool         `json:"spawned,omitempty"`      // it has a Jail, under its id
}

// HoldsScopes says whether a session holds what it claims: from its start until it has
// ended, also while it is suspended. What runs in a jail may write for a moment longer,
// so such a session holds it until the end of the jail is noted.
func HoldsScopes(s Snapshot, ses Session) (bool, error) {
	if len(ses.WriteClaims) == 0 || !SessionMoves.Terminal(ses.State) {
		return len(ses.WriteClaims) > 0, nil
	}
	if !ses.Spawned {
		return false, nil
	}
	j, _, ok, err := Get[Jail](s, JailKey(ses.ID))
	return ok && j.State != JailEnded, err
}

// AnsweredBy is the person answerable for the session.
func (s Session) AnsweredBy() PrincipalID {
	if s.Controller == "" {
		return s.Principal
	}
	return s.Controller
}

// Limits of sessions, in seconds.
const (
	SessionGraceSeconds      = 60
	SessionDefaultTTLSeconds = 30
	SessionMaxTTLSeconds     = 300
	SessionMaxLifeSeconds    = 12 * 3600
)
