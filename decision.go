package writ

// Effect of a decision, from weakest to strongest; the strongest finding wins.
type Effect string

const (
	EffectAllow           Effect = "allow"
	EffectRedact          Effect = "redact"
	EffectRequireApproval Effect = "require_approval"
	EffectDeny            Effect = "deny"
)

// Rank orders effects; an unknown effect ranks above deny, so it denies.
func (e Effect) Rank() int {
	switch e {
	case EffectAllow:
		return 0
	case EffectRedact:
		return 1
	case EffectRequireApproval:
		return 2
	case EffectDeny:
		return 3
	}
	return 4
}

// Finding is one rule that held. Message comes from the pack's constant text
// and is safe to show.
type Finding struct {
	Pack        string       `json:"pack"`
	Rule        string       `json:"rule"` // pack.rule
	Effect      Effect       `json:"effect"`
	Code        string       `json:"code"`
	Message     string       `json:"message"`
	Obligations []Obligation `json:"obligations,omitempty"`
	Needs       []Need       `json:"-"` // its approval obligations, read
	Duties      Duties       `json:"-"` // its other obligations, read
}

// Obligation is something the host must do for the decision to hold. A type
// the host does not know denies.
type Obligation struct {
	Type string         `json:"type"`
	Args map[string]any `json:"args,omitempty"`
}

// PackRef names the exact bytes of a pack that took part in a decision.
type PackRef struct {
	ID     string `json:"id"`
	Digest string `json:"digest"` // sha256:…
}

// Decision is what policy said about one call.
type Decision struct {
	Effect           Effect
	Findings         []Finding // sorted by effect (strongest first), pack, rule
	Packs            []PackRef // every pack evaluated, sorted by id
	PolicyRevision   string
	BindingsRevision string
	InputDigest      string // of Record, blinded: the door's to say, who has the call's salt
	Needs            []Need // what must be approved first; only with require_approval
	Duties           Duties // what the host must do; nothing with deny
	Record           []byte // the canonical policy input itself: no arguments, no text of callers
}

// Rules lists the ids of the rules that held, in the order of the findings.
func (d Decision) Rules() []string {
	out := make([]string, 0, len(d.Findings))
	for _, f := range d.Findings {
		out = append(out, f.Rule)
	}
	return out
}

// Subject is what a capability tells policy about the call. Every value in it
// comes from the snapshot and is re-checked by the commit: documents by
// version, budgets by band.
type Subject struct {
	Agent  *AgentFacts
	Run    *RunFacts
	Task   *TaskFacts
	Scopes []string // canonical resource URIs the call wants to write
	Labels []Label  // join of everything the call carries
	Sinks  []Sink   // where the data would go
	Budget []BudgetFacts
	Charge Charge // what the call takes of its run's budget; policy sees it as Budget
	Gives  int64  // bytes that come free, since the call replaces them

	Approval *ApprovalFacts // the approval the call decides, reads or takes back

	Chosen string // what the gateway chose for the call from what it knows now: consent to the call is consent to that

	Claimed []string      // canonical scopes the caller's session holds; nil when the call writes under no claims
	Content *ContentFacts // what the call says of the data it passes on
	Duty    *DutyFacts    // what the caller had to do with what the call judges
	Egress  *EgressFacts  // where the call would go outside
	Entry   *EntryFacts   // the registry entry the call activates
	Grant   *GrantFacts   // budget the call gives away
	Price   *PriceFacts   // what the call costs; nil when it does nothing that has a price
	Quotas  []QuotaFacts  // every quota the call counts against
	Skill   *SkillFacts   // the skill the call loads or executes
}

// ApprovalFacts is what policy sees of an approval somebody acts on.
type ApprovalFacts struct {
	ID       ApprovalID
	Kind     ApprovalKind // of its first need
	Scope    ApprovalScope
	State    ApprovalState
	Excluded bool // the caller, or a person who answers for it, stands behind the request
	Voted    bool // the person who answers for the caller has decided already, and need not do so again
	Stale    bool // it is named for use by a call other than the one it was asked for
}

// ContentFacts is what a call says of data beside the labels the gateway
// computed for it.
type ContentFacts struct {
	Declared []Label // labels the caller put on it; nil when it put none
	Released bool    // it would count as public although its sources do not
	Verified bool    // a verifier accepted these very bytes (by digest) as public
}

// DutyFacts is what the caller, its agent, or a person who answers for either
// had to do with what the call judges.
type DutyFacts struct {
	Executed  bool // worked on a task of it, or said how a call in it is made
	Planned   bool // enqueued a task of it, or owns the run
	Requested bool // asked for an approval in it
}

// EgressFacts is where a call would go outside. The host itself is not shown:
// what a rule could ask of it is.
type EgressFacts struct {
	Scheme     string // lower case: https, http, …
	Private    bool   // the host is, or resolves to, a loopback, private, link-local or metadata address
	NewHost    bool   // no skill, connector or approval names the host yet
	Pinned     bool   // the skill or connector that acts declares the host
	Redirected bool   // an answer of another host sent the call here
	Secret     bool   // a secret would be put into the request
	Jailed     bool   // the caller runs where the gateway is the only way out

	Grant *EgressGrantFacts // what a grant says of it; nil where none is needed
}

// EgressGrantFacts is how a call outside stands to the grant it would use.
type EgressGrantFacts struct {
	ID      EgressID   // "" when there is none
	Found   bool       // there is one for this agent, host, way and run
	Live    bool       // its time is not over
	Method  bool       // it lets the method through
	Path    bool       // it lets the path through
	Private bool       // it names the private networks the host may lie in
	Mode    EgressMode // in which way the call goes out
	Admits  []Label    // what labels it lets leave
}

// GrantFacts is budget a call gives: to a run, or to a child run out of what
// its parent has left.
type GrantFacts struct {
	Child bool // a child run gets it out of its parent's budget
	Fits  bool // the parent has at least as much left, in every dimension; true when nobody's budget shrinks
}

// PriceFacts is what a call with an effect outside costs.
type PriceFacts struct {
	Known    bool  // the capability states a price
	MicroUSD int64 // millionths of a US dollar
}

// QuotaFacts is one quota a call counts against. The commit counts again.
type QuotaFacts struct {
	Metric   string // closed list, see QuotaMetrics
	Subject  string // what is counted for: tenant, agent, session, role or capability
	Limit    int64  // in the metric's unit
	Fits     bool   // used + what the call adds <= limit
	OnExceed string // deny, queue (try again later) or approval
}

// SkillFacts is the skill a call loads or executes.
type SkillFacts struct {
	Source     string // where it is loaded from: inline, artifact, url or file
	State      string // of the version that is executed: active, superseded, …; "" while it is loaded
	Effects    bool   // an operation acts outside, takes a secret or names a host that is not known
	Changed    bool   // against the active version it can do more, or its callers would notice
	Reserved   bool   // its id lies in the gateway's namespace, or somebody else's skill has it
	Undeclared bool   // an operation uses a host or a secret it does not declare
	Private    bool   // it names a loopback, private, link-local or metadata host
	Intact     bool   // its bytes have the digest that was expected, if one was
	Ready      bool   // the setup and secrets the operation needs are there
}

// EntryFacts is the registry entry of an agent that would become active.
type EntryFacts struct {
	Domain   string
	Contract bool   // it names a contract
	Safety   Safety // strongest of its tools that is not blocked; "" when there is none
}

type AgentFacts struct {
	ID         AgentID
	Status     AgentState
	Domain     string
	WriteScope []string
}

type RunFacts struct {
	ID    RunID
	State RunState
}

type TaskFacts struct {
	ID         TaskID
	State      TaskState
	Capability CapabilityID
	Domain     string
	Safety     Safety
	Approval   ToolApproval // strongest any tool for the capability asks for

	// The agent's tool is more dangerous than what the task was enqueued as: its
	// safety, approval or sinks. Or it is handed on, and new or with other data.
	Raised         bool
	OwnedElsewhere bool    // another agent owns its concern, and the task is not directed to that one
	Deferred       bool    // the caller's agent leaves its concern to another
	BelongsTo      AgentID // whose concern it is, if one of the two holds; rules do not see it, the refusal names it
}

// BudgetFacts is one dimension of a run's budget as policy sees it. Used is
// shown only as the band it lies in, and the commit re-checks that band.
type BudgetFacts struct {
	Dimension string
	Limit     int64
	Cost      int64  // what this call would add
	Fits      bool   // used + cost <= limit, or the call adds nothing
	Waits     bool   // it does not fit now, and will if what attempts and child runs hold comes back
	Band      int64  // 0, 50, 80 or 100: the highest mark used + cost has reached, in percent
	OnExceed  string // hard_stop, approval_required or soft_warn
}

// PolicyInput is everything packs may see of a call.
type PolicyInput struct {
	Call       *Call
	Capability *Capability
	Session    *Session // nil for the system
	Subject    Subject
	Now        int64 // milliseconds, store clock
}
