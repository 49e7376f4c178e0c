package writ

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// ApprovalState is where a request for approval stands.
type ApprovalState string

const (
	// ApprovalPending: by the call that policy would allow only with approval.
	ApprovalPending ApprovalState = "pending"
	// ApprovalApproved: enough people with the right role have said yes. It can
	// be used until it expires.
	ApprovalApproved ApprovalState = "approved"
	// ApprovalConsumed: used as often as it may be. Terminal.
	ApprovalConsumed ApprovalState = "consumed"
	// ApprovalDenied: one person has said no. Terminal.
	ApprovalDenied ApprovalState = "denied"
	// ApprovalExpired: its time ran out, decided or not. Terminal.
	ApprovalExpired ApprovalState = "expired"
	// ApprovalSuperseded: policy asks for more than was asked for then, or a
	// person approved it with other arguments: another request takes its place.
	// Terminal.
	ApprovalSuperseded ApprovalState = "superseded"
	// ApprovalRevoked: taken back after it was approved, or with the agent that
	// asked for it. Terminal.
	ApprovalRevoked ApprovalState = "revoked"
)

// ApprovalMoves are the legal moves of an approval. pending → pending records
// one of several votes, approved → approved one of several uses. Nothing leads
// from denied or expired to approved.
var ApprovalMoves = Table[ApprovalState]{
	"":                 {ApprovalPending},
	ApprovalPending:    {ApprovalPending, ApprovalApproved, ApprovalDenied, ApprovalExpired, ApprovalSuperseded, ApprovalRevoked},
	ApprovalApproved:   {ApprovalApproved, ApprovalConsumed, ApprovalExpired, ApprovalSuperseded, ApprovalRevoked},
	ApprovalConsumed:   {},
	ApprovalDenied:     {},
	ApprovalExpired:    {},
	ApprovalSuperseded: {},
	ApprovalRevoked:    {},
}

// ApprovalKind says what is asked for (closed list).
type ApprovalKind string

const (
	ApproveEffect          ApprovalKind = "effect"           // this very call
	ApproveBudgetExtension ApprovalKind = "budget_extension" // more of a dimension of a run's budget
	ApproveHumanAction     ApprovalKind = "human_action"     // something only a person can do, with an answer
	ApprovePolicyException ApprovalKind = "policy_exception" // a flow policy forbids in general
	ApproveHTTPHost        ApprovalKind = "http_host"        // a host that was not reached before
	ApproveSkillEnable     ApprovalKind = "skill_enable"     // a skill with effects
	ApproveSecretWrite     ApprovalKind = "secret_write"     // a secret is set
	ApproveChannel         ApprovalKind = "channel_connection"
)

// ApprovalKinds lists every kind.
func ApprovalKinds() []ApprovalKind {
	return []ApprovalKind{
		ApproveEffect, ApproveBudgetExtension, ApproveHumanAction, ApprovePolicyException,
		ApproveHTTPHost, ApproveSkillEnable, ApproveSecretWrite, ApproveChannel,
	}
}

// ApprovalScope says what an approval holds for, from narrow to wide.
type ApprovalScope string

const (
	ScopeCall    ApprovalScope = "call"    // the same caller, capability and arguments
	ScopeTask    ApprovalScope = "task"    // one capability on one task, whoever works on it
	ScopeRun     ApprovalScope = "run"     // one caller and capability in one run, whatever the arguments
	ScopeSession ApprovalScope = "session" // one capability in one session, whatever the arguments
)

// ApprovalScopes lists every scope, narrow ones first.
func ApprovalScopes() []ApprovalScope {
	return []ApprovalScope{ScopeCall, ScopeTask, ScopeRun, ScopeSession}
}

// Need is what one rule asks for before it lets a call happen.
type Need struct {
	Rule      string        `json:"rule"` // pack.rule
	Kind      ApprovalKind  `json:"kind"`
	Scope     ApprovalScope `json:"scope"`
	Approvers int64         `json:"approvers"`                 // how many different people
	Roles     []Role        `json:"roles"`                     // any of which they must have
	ExpiresS  int64         `json:"expires_s"`                 // seconds from the request
	MaxUses   int64         `json:"max_uses"`                  // how often it may be used
	Remember  int64         `json:"remember,omitempty"`        // most uses a decider may allow for a wider scope; 0: none
	Dimension string        `json:"dimension,omitempty"`       // of a budget_extension
	Add       int64         `json:"add,omitempty"`             // of a budget_extension
	Schema    RawObject     `json:"response_schema,omitempty"` // of a human_action: what the answer must look like
}

// Limits of what a need may ask for.
const (
	MaxApprovers        = 8
	MaxApprovalSeconds  = 7 * 24 * 3600
	MaxApprovalUses     = 1000
	DefaultApprovalLife = 24 * 3600
)

// Vote is one person's decision.
type Vote struct {
	Session    SessionID     `json:"session"`
	Principal  PrincipalID   `json:"principal"`
	Controller PrincipalID   `json:"controller"`        // the person answerable; counts once
	Openers    []PrincipalID `json:"openers,omitempty"` // of the session
	Role       Role          `json:"role"`
	Approve    bool          `json:"approve"`
	Modify     bool          `json:"modify,omitempty"` // agreed to the call with other arguments, which is no yes to this one
	Reason     string        `json:"reason,omitempty"`
	At         int64         `json:"at"`
	Receipt    ReceiptID     `json:"receipt"`
}

// Approval is one request to people, and what became of it.
type Approval struct {
	ID         ApprovalID    `json:"id"`
	State      ApprovalState `json:"state"`
	Needs      []Need        `json:"needs"` // all of them must be met
	Scope      ApprovalScope `json:"scope"`
	Capability CapabilityID  `json:"capability"`
	Version    string        `json:"capability_version"`
	Subject    CapabilityID  `json:"subject,omitempty"` // capability of the task it is about
	Request    string        `json:"request_digest"`    // what it is bound to, see Ask
	Args       RawObject     `json:"args,omitempty"`    // of the call, for the people who decide
	Labels     []Label       `json:"labels,omitempty"`
	Run        RunID         `json:"run_id,omitempty"`
	Task       TaskID        `json:"task_id,omitempty"`
	Requester  Requester     `json:"requester"`
	Behind     []AgentID     `json:"behind,omitempty"` // agents the requester stands or falls with
	Excluded   []PrincipalID `json:"excluded"`         // whoever stands behind the request may not decide it
	Votes      []Vote        `json:"votes,omitempty"`
	MaxUses    int64         `json:"max_uses"`
	Uses       int64         `json:"uses"`
	Remembered ApprovalScope `json:"remembered,omitempty"` // wider scope a decider allowed
	Response   RawObject     `json:"response,omitempty"`
	Successor  ApprovalID    `json:"superseded_by,omitempty"`
	Modified   ApprovalID    `json:"modified_from,omitempty"` // whose place it takes, with arguments that a person chose
	Authors    []Vote        `json:"authors,omitempty"`       // who chose the arguments, the first of them first
	Policy     string        `json:"policy_revision"`
	ExpiresAt  int64         `json:"expires_at"` // milliseconds
	CreatedAt  int64         `json:"created_at"`
	UpdatedAt  int64         `json:"updated_at"`
	Receipt    ReceiptID     `json:"receipt"`

	Counted     []string `json:"counted,omitempty"`      // quotas it counts in while it is pending
	RequestedAt int64    `json:"requested_at,omitempty"` // when the caller asked, if it took another's place; 0: when it was created
}

// Requester is who asked.
type Requester struct {
	Session   SessionID   `json:"session"`
	Principal PrincipalID `json:"principal"`
	Role      Role        `json:"role"`
	Agent     AgentID     `json:"agent,omitempty"`
}

// Asked is when the caller asked. Other arguments that a person chose since do not
// make the request younger.
func (a Approval) Asked() int64 {
	if a.RequestedAt == 0 {
		return a.CreatedAt
	}
	return a.RequestedAt
}

// Need finds what a rule asked for.
func (a Approval) Need(rule string) (Need, bool) {
	for _, n := range a.Needs {
		if n.Rule == rule {
			return n, true
		}
	}
	return Need{}, false
}

// Meets says whether the votes meet a need: enough different people in one of
// its roles, and nobody against.
func (a Approval) Meets(n Need) bool {
	var people []PrincipalID
	count := int64(0)
	for _, v := range a.Votes {
		if !v.Approve || !slices.Contains(n.Roles, v.Role) || slices.Contains(people, v.Controller) || slices.Contains(people, v.Principal) {
			continue
		}
		people = append(people, v.Controller, v.Principal)
		count++
	}
	return count >= n.Approvers
}

// MeetsAll says whether the votes meet every need.
func (a Approval) MeetsAll(needs []Need) bool {
	return len(needs) > 0 && !slices.ContainsFunc(needs, func(n Need) bool { return !a.Meets(n) })
}

// Dead says whether an approval can be neither decided nor used any more at a
// time, whether or not a sweep has said so yet.
func (a Approval) Dead(now int64) bool {
	return ApprovalMoves.Terminal(a.State) || now >= a.ExpiresAt
}

// Refuses says whether an approval stands against its call at a time: a person
// has denied it, or agreed to it only with other arguments. People can be asked
// again after its end.
func (a Approval) Refuses(now int64) bool {
	return now < a.ExpiresAt && (a.State == ApprovalDenied || a.Replaced())
}

// Replaced says whether a person agreed to the call only with other arguments:
// the successor is the approval of that call.
func (a Approval) Replaced() bool {
	return a.State == ApprovalSuperseded && slices.ContainsFunc(a.Votes, func(v Vote) bool { return v.Modify })
}

// Pending is the answer to a call that people must agree to first.
type Pending struct {
	Status    string        `json:"status" doc:"Always approval_required: the call has not happened." enum:"approval_required"`
	Approval  ApprovalID    `json:"approval_id" doc:"The request for approval."`
	Kind      ApprovalKind  `json:"kind" doc:"What is asked for."`
	Scope     ApprovalScope `json:"scope" doc:"What the approval will hold for."`
	Rules     []string      `json:"rule_ids" doc:"Rules that ask for it."`
	Roles     []Role        `json:"roles" doc:"Who may decide: any of these roles."`
	Approvers int64         `json:"approvers" doc:"How many different people must agree."`
	ExpiresAt string        `json:"expires_at" doc:"When it lapses."`
	Hint      string        `json:"hint" doc:"What to do next."`
	Receipt   ReceiptID     `json:"receipt" doc:"Receipt of the last change of the approval."`
}

// Ask is what an approval is bound to. Two calls with the same Ask are covered
// by the same approval. It leaves out lease, fence and idempotency key, which
// change when the same thing is tried again.
type Ask struct {
	Scope      ApprovalScope
	Capability CapabilityID
	Version    string
	Subject    CapabilityID // capability of the task, if it is about one
	Digest     string       // of the arguments, for scope call
	Caller     Caller
	Run        RunID
	Task       TaskID
}

// Request is the digest that names an Ask: hex SHA-256 over its parts, each
// with its length in front.
func (a Ask) Request() string {
	h := sha256.New()
	part := func(s string) {
		var n [4]byte
		n[0], n[1], n[2], n[3] = byte(len(s)>>24), byte(len(s)>>16), byte(len(s)>>8), byte(len(s))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{"writ ask v1", string(a.Scope), string(a.Capability), a.Version, string(a.Subject)} {
		part(s)
	}
	switch a.Scope {
	case ScopeTask:
		part(string(a.Task))
	case ScopeRun:
		part(string(a.Run))
		part(string(a.Caller.Principal))
		part(string(a.Caller.Role))
	case ScopeSession:
		part(string(a.Caller.Session))
	default:
		part(string(a.Caller.Principal))
		part(string(a.Caller.Role))
		part(string(a.Caller.Agent))
		part(string(a.Run))
		part(string(a.Task))
		part(a.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ApprovalKey is the document of an approval, AskKey the one that says which
// approval a request led to last.
func ApprovalKey(id ApprovalID) Key { return Key("approval/" + string(id)) }
func AskKey(request string) Key     { return Key("ask/" + request) }

// ApprovalsAsked counts the pending requests of a principal.
func ApprovalsAsked(p PrincipalID) Counter { return Counter{"approvals/" + string(p), "pending"} }

// MaxApprovalsAsked bounds the pending requests of one principal: people who
// are asked for everything look at nothing.
const MaxApprovalsAsked = 64

// Indexes of approvals.
const (
	IndexApprovals Index = "list/approvals" // ids
	IndexExpiries  Index = "due/approval"   // id, score: when it expires
)

// ApprovalsIn lists the approvals in one state.
func ApprovalsIn(s ApprovalState) Index { return Index("list/approvals/" + string(s)) }
