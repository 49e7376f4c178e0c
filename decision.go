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
	InputDigest      string // sha256 of the canonical policy input
	Needs            []Need // what must be approved first; only with require_approval
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

	Approval *ApprovalFacts // the approval the call decides, reads or takes back
}

// ApprovalFacts is what policy sees of an approval somebody acts on.
type ApprovalFacts struct {
	ID       ApprovalID
	Kind     ApprovalKind // of its first need
	Scope    ApprovalScope
	State    ApprovalState
	Excluded bool // the caller, or a person who answers for it, stands behind the request
	Voted    bool // the person who answers for the caller has decided already
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
}

// BudgetFacts is one dimension of a run's budget as policy sees it. Used is
// shown only as the band it lies in, and the commit re-checks that band.
type BudgetFacts struct {
	Dimension string
	Limit     int64
	Cost      int64 // what this call would add
	Fits      bool  // used + cost <= limit
	Band      int64 // 0, 50, 80 or 100: the highest mark used + cost has reached, in percent
	OnExceed  string
}

// PolicyInput is everything packs may see of a call.
type PolicyInput struct {
	Call       *Call
	Capability *Capability
	Session    *Session // nil for the system
	Subject    Subject
	Now        int64 // milliseconds, store clock
}
