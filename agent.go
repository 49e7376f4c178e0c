package writ

import "strings"

// AgentState is where an agent's registration stands.
type AgentState string

const (
	// AgentPlanned: registered by agent.register; may be changed freely and
	// does nothing until agent.activate.
	AgentPlanned AgentState = "planned"
	// AgentActive: entered by agent.activate; only active agents open sessions
	// and get work.
	AgentActive AgentState = "active"
	// AgentSuspended: entered by agent.suspend, left by agent.activate. Its
	// sessions are revoked and its running tasks go back to the queue.
	AgentSuspended AgentState = "suspended"
	// AgentSuperseded: by agent.supersede, when another agent takes its place.
	// Terminal.
	AgentSuperseded AgentState = "superseded"
	// AgentRetired: by agent.retire. Terminal.
	AgentRetired AgentState = "retired"
)

// AgentMoves are the legal moves of an agent. Registering again while planned
// replaces the entry; suspended → suspended revokes one that was suspended
// before, and notes when nothing it set going is left; planned → suspended revokes
// one that was stopped and registered again since.
var AgentMoves = Table[AgentState]{
	"":              {AgentPlanned},
	AgentPlanned:    {AgentPlanned, AgentActive, AgentSuspended, AgentRetired},
	AgentActive:     {AgentSuspended, AgentSuperseded, AgentRetired},
	AgentSuspended:  {AgentSuspended, AgentPlanned, AgentActive, AgentSuperseded, AgentRetired},
	AgentSuperseded: {},
	AgentRetired:    {},
}

// Safety says what invoking a capability can do.
type Safety string

const (
	SafetyReadOnly    Safety = "read-only"
	SafetyMutating    Safety = "mutating"
	SafetyDestructive Safety = "destructive"
	SafetyBlocked     Safety = "blocked" // listed, never callable
)

// ToolApproval says whether a person must agree before a tool is used.
type ToolApproval string

const (
	ApprovalAuto   ToolApproval = "auto"   // as policy says; the default
	ApprovalManual ToolApproval = "manual" // always
)

// Tool is a task capability an agent declares: what tasks may name.
type Tool struct {
	Name        CapabilityID `json:"name" doc:"Capability tasks may name, for example site.build." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
	Description string       `json:"description,omitempty" doc:"One sentence for people." maxLength:"512"`
	Safety      Safety       `json:"safety" doc:"What running it can do." enum:"read-only,mutating,destructive,blocked"`
	Approval    ToolApproval `json:"approval,omitempty" doc:"Whether a person must agree before it is used: manual always, auto as policy says." enum:"auto,manual"`
	Sinks       []Sink       `json:"sinks,omitempty" doc:"Where its data can flow to." maxItems:"4" enum:"egress,memory,log,agent"`
	Gate        bool         `json:"gate,omitempty" doc:"Its result says whether what it looks at passes: completing it says so, and counts for the tasks it depends on that must pass it."`
	Concern     string       `json:"concern,omitempty" doc:"What the work is about, as owns and defers name it." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Costs       *ToolCosts   `json:"costs,omitempty" doc:"The most one attempt uses. A run that limits one of these takes only tools that state it."`
	InputSchema RawObject    `json:"input_schema,omitempty" doc:"JSON Schema 2020-12 its arguments must meet."`
}

// Deferral says to whom an agent leaves the work of a concern.
type Deferral struct {
	Concern string  `json:"concern" doc:"The concern." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	To      AgentID `json:"to" doc:"Agent that has it." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// Halt says how far the stopping of an agent has come. It stays in the entry until
// the agent is activated again.
type Halt struct {
	At      int64     `json:"at"`                 // milliseconds, store clock
	Receipt ReceiptID `json:"receipt"`            // of what stopped it: what follows from that names it
	Revoked bool      `json:"revoked,omitempty"`  // all it set going ends too
	SweptAt int64     `json:"swept_at,omitempty"` // when nothing of that was left
}

// Agent is a registry entry. It changes only when somebody registers or moves it;
// health and load are counters elsewhere.
type Agent struct {
	ID            AgentID        `json:"id"`
	Name          string         `json:"name,omitempty"`
	Description   string         `json:"description,omitempty"`
	Archetypes    []Role         `json:"archetypes"` // orchestrator, executor, verifier
	Domain        string         `json:"domain"`
	State         AgentState     `json:"state"`
	Tools         []Tool         `json:"tools"`
	WriteScope    []string       `json:"write_scope"`                  // canonical scopes it may ever write
	SharesScope   bool           `json:"shares_write_scope,omitempty"` // with others that say so too
	Owns          []string       `json:"owns,omitempty"`               // concerns of its domain, sorted
	Defers        []Deferral     `json:"defers,omitempty"`             // by concern
	ContractRef   string         `json:"contract_ref,omitempty"`
	Gates         []string       `json:"gates,omitempty"`      // ids of policy packs or rules, sorted
	WorkGates     []CapabilityID `json:"work_gates,omitempty"` // gates its work must pass before somebody accepts it, sorted
	SupersededBy  AgentID        `json:"superseded_by,omitempty"`
	Halt          *Halt          `json:"halt,omitempty"`
	StoppedAt     int64          `json:"stopped_at,omitempty"` // milliseconds: when it last was; nothing that sessions of before then ordered goes on
	MaxConcurrent int64          `json:"max_concurrent_tasks"`
	Routing       *Routing       `json:"routing,omitempty"`
	Keys          []PublicKey    `json:"keys,omitempty"`         // what its sessions may sign calls with
	Endpoints     []Endpoint     `json:"endpoints,omitempty"`    // by name
	Health        *HealthPolicy  `json:"health,omitempty"`       // nil: see HealthRule
	HealthSince   int64          `json:"health_since,omitempty"` // milliseconds: what was seen of its endpoints before does not count
	Jail          *JailSpec      `json:"jail,omitempty"`         // in which its sessions can be spawned
	CreatedAt     int64          `json:"created_at"`             // milliseconds, store clock
	UpdatedAt     int64          `json:"updated_at"`
	Receipt       ReceiptID      `json:"receipt"` // of the last change
}

// Routing is by which words work finds an agent, besides its domain.
type Routing struct {
	Keywords []string `json:"keywords,omitempty"` // normalised, sorted
	Priority int64    `json:"priority,omitempty"`
}

// Tool finds a declared tool.
func (a Agent) Tool(name CapabilityID) (Tool, bool) {
	for _, t := range a.Tools {
		if t.Name == name {
			return t, true
		}
	}
	return Tool{}, false
}

// Key finds a key it signs with.
func (a Agent) Key(id string) (PublicKey, bool) {
	for _, k := range a.Keys {
		if k.ID == id {
			return k, true
		}
	}
	return PublicKey{}, false
}

// Archetype says whether the agent may hold sessions of a role.
func (a Agent) Archetype(r Role) bool {
	for _, x := range a.Archetypes {
		if x == r {
			return true
		}
	}
	return false
}

// DefersTo is to whom the agent leaves a concern.
func (a Agent) DefersTo(concern string) (AgentID, bool) {
	for _, d := range a.Defers {
		if d.Concern == concern {
			return d.To, true
		}
	}
	return "", false
}

// RawObject is a JSON object kept byte for byte.
type RawObject []byte

func (r RawObject) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

func (r *RawObject) UnmarshalJSON(b []byte) error {
	if s := strings.TrimSpace(string(b)); s == "null" {
		*r = nil
		return nil
	}
	*r = append((*r)[:0:0], b...)
	return nil
}
