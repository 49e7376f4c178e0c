package writ

import (
	"encoding/json"
	"slices"
)

// Role is what a session may act as. One session has one role.
type Role string

const (
	RoleOperator     Role = "operator"
	RoleOrchestrator Role = "orchestrator"
	RoleExecutor     Role = "executor"
	RoleVerifier     Role = "verifier"
	RoleApprover     Role = "approver"
	RoleAuditor      Role = "auditor"
	RoleConnector    Role = "connector"
	RoleSystem       Role = "system" // the gateway itself: sweeper, start-up
)

// Works says whether sessions of the role do the work of a run, so that it pays
// for their calls.
func (r Role) Works() bool { return r == RoleExecutor || r == RoleVerifier }

// PrincipalKind says what stands behind a session.
type PrincipalKind string

const (
	KindHuman     PrincipalKind = "human"
	KindAgent     PrincipalKind = "agent"
	KindService   PrincipalKind = "service"
	KindConnector PrincipalKind = "connector"
	KindSystem    PrincipalKind = "system"
)

// Credential is what a caller presented: the session a bearer token names and
// the SHA-256 of its secret. The secret itself goes no further than the edge.
type Credential struct {
	Tenant     Tenant
	Session    SessionID
	SecretHash [32]byte
}

// Caller is who acts, as the door established it from the credential.
type Caller struct {
	Tenant    Tenant
	Principal PrincipalID
	Kind      PrincipalKind
	Role      Role
	Session   SessionID // empty for the system
	Agent     AgentID   // empty unless the session is bound to an agent

	Controller PrincipalID   // the person answerable for the session
	Openers    []PrincipalID // who opened the session, who answered for theirs, and who opened that
	Behind     []AgentID     // agents of the session that opened it, and who are behind that one
	Claims     []WriteClaim  // where the session claims to write; none: it writes where its agent may
}

// Agents are the agents the caller stands or falls with: its own and those behind it.
func (c Caller) Agents() []AgentID {
	out := make([]AgentID, 0, 1+len(c.Behind))
	if c.Agent != "" {
		out = append(out, c.Agent)
	}
	for _, a := range c.Behind {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// Call is one request for one capability. The edge fills ID, Capability, Raw,
// Credential, IdempotencyKey and ReceivedAt; the door fills Caller, Args and
// Salt. A Call is used by one goroutine.
type Call struct {
	ID             CallID
	Capability     CapabilityID
	Credential     *Credential     // nil only for calls the gateway makes itself
	Raw            json.RawMessage // arguments as sent, path parameters merged in
	IdempotencyKey string
	IfVersion      int64        // If-Match: 0 means none
	Cosignature    *Cosignature // the caller's own signature, not yet checked; nil when there is none
	ReceivedAt     int64        // milliseconds; used for ids only, never for a decision

	// Behalf is the session for which the gateway makes the call itself, to carry out
	// what it has ordered: it is judged as that session's own. Only the door sets it.
	Behalf SessionID

	// Via names the wrapper the call came through (capability.invoke): the
	// role must be allowed both, and everything else is judged on Capability.
	Via CapabilityID

	Caller Caller
	Args   any      // decoded arguments, a pointer to the capability's Args type
	Digest string   // sha256 over capability and arguments as first decoded; binds the idempotency key
	Salt   [16]byte // blinds the digest of the evidence; from the edge's randomness

	// PolicyRevision names the rules the call was judged by, once it was.
	PolicyRevision string

	// Sent are the arguments as the caller sent, and signed, them, where Raw is
	// not: a claim that waits is made again for each candidate.
	Sent json.RawMessage

	// Memo belongs to the capability's functions: what they worked out from
	// the arguments alone and need again, in this try or the next.
	Memo any

	// Probed says that the dispatcher has had agents looked at for this call, so
	// that it is judged by what is known now.
	Probed bool

	// Body comes with the call besides its arguments; nil for most calls.
	// Received says what it was, once the door has taken it in.
	Body     Body
	Received *Received

	// Streams are what the edge hands to who carries out an effect: where bytes come
	// from and go to meanwhile. Nobody else looks at it; nil for most calls.
	Streams any

	// Refused is why the edge lets the call go no further, which it knows before it knows
	// who calls: the door refuses it with that, so that it leaves what a denial leaves.
	Refused *Error

	// Jailed says that the call came over a listener of its session inside a jail, where
	// that is the only way out. No caller can say so.
	Jailed bool

	// Used is what the agent in the jail of the session uses, with its sign of life. Only
	// the gateway that has the jail says so.
	Used *JailUse

	// Entry is the lane delivery a dispatched claim answers, so that the
	// committed claim acknowledges it.
	Entry *Delivery
}

// Match refuses with CodeVersion, as a precondition that failed, when the call's If-Match names another version
// than the object's.
func (c *Call) Match(op string, version int64) error {
	if c.IfVersion == 0 || c.IfVersion == version {
		return nil
	}
	e := Refuse(CodeVersion, op, "the object has changed since the version named in If-Match", "read it again")
	e.Precondition = true
	return e
}

// Outcome is what became of an accepted call, independent of any transport.
type Outcome string

const (
	OutcomeDone    Outcome = "done"    // 200
	OutcomeCreated Outcome = "created" // 201
	OutcomeEmpty   Outcome = "empty"   // 204: nothing to hand out
	OutcomePending Outcome = "pending" // 202: a person must agree first; repeat the call then
)

// Reply is the answer to an accepted call. Body is marshalled as JSON; the
// paths in Versioned (dot separated) are set to the version the commit gave.
type Reply struct {
	Outcome    Outcome
	Body       any
	Versioned  []string
	ETag       int64 // version of the document shown; 0: none, -1: the commit's
	Replayed   bool
	Durability Durability      // what the answer must mean, set by the door
	JSON       json.RawMessage // the finished body, set by the door
	Redacted   []string        // pointers to what the body does not show, set by the door
	Limited    []Limit         // arguments the door made smaller

	Budget []BudgetWarning // marks of its budget the run reached with this call, set by the door

	// Poll asks the dispatcher to wait for work and call again with each
	// candidate. Only task.claim without a task id sets it.
	Poll *Poll

	// Probe asks the dispatcher to have these agents looked at and to make the
	// call once more. Nothing has happened yet.
	Probe []AgentID

	// Errand is what an effect is to do once its intent is committed. Body is what the
	// effect then makes of it.
	Errand *Errand
	// Effect and Intent name the effect that was carried out and the receipt of its
	// intent, set by the door.
	Effect EffectID
	Intent ReceiptID

	// Accept is how much of the call's body, which has not come yet, the plan
	// would take.
	Accept int64
}

// Poll says which lanes a caller may draw from, which lists of tasks that were
// refused to others it may look through first, and how long it will wait.
type Poll struct {
	Agent   AgentID
	Lanes   func(Lane) bool
	Refused []Index
	Claims  SessionID // the caller's session, if it has write claims: what waits for it comes first, and what it is refused its agent is not
	WaitMs  int64
	AgainMs int64 // how often the call is made again while it waits, so that its session is seen to live; 0: only at the end
}
