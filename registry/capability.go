package registry

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// Kinds of capability.
const (
	kindBuiltin = "builtin" // a verb of the gateway itself
	kindTask    = "task"    // what tasks may name, carried out by agents
)

// CapabilityListArgs are empty.
type CapabilityListArgs struct{}

// CapabilityList is everything the caller's role can name.
type CapabilityList struct {
	Revision     int64              `json:"revision" doc:"Revision of the agent registry; it grows with every change of an agent."`
	Capabilities []CapabilityListed `json:"capabilities" doc:"By id."`
	Truncated    bool               `json:"truncated,omitempty" doc:"Whether agents declare more than the 1000 entries looked at."`
}

// CapabilityListed is one capability in a list.
type CapabilityListed struct {
	ID       writ.CapabilityID `json:"id" doc:"Its id."`
	Kind     string            `json:"kind" doc:"builtin: a verb of the gateway; task: what tasks may name." enum:"builtin,task"`
	Version  string            `json:"version,omitempty" doc:"Version of a builtin."`
	Summary  string            `json:"summary,omitempty" doc:"One sentence."`
	Safety   writ.Safety       `json:"safety" doc:"What it can do; of a task capability the strongest that an agent which may run it declared." enum:"read-only,mutating,destructive,blocked"`
	Callable bool              `json:"callable" doc:"Whether it can be called, or named by a task, now."`
	Agents   []writ.AgentID    `json:"agents,omitempty" doc:"Active agents that declare a task capability."`
}

// toolRange reads who declares what; an id narrows it to one capability.
func toolRange(id writ.CapabilityID) writ.Range {
	r := writ.Range{Index: writ.IndexTools, Limit: 1000}
	if id != "" {
		r.From, r.To = string(id)+" ", string(id)+"!" // '!' follows ' '
	}
	return r
}

// readTools reads the members of a tool range and the agents they name.
func readTools(s writ.Snapshot, id writ.CapabilityID) writ.ReadSet {
	r := toolRange(id)
	rs := writ.ReadSet{Ranges: []writ.Range{r}}
	seen := map[writ.AgentID]bool{}
	for _, m := range s.Ranges[r].Members {
		if _, agent := splitTool(m.Name); !seen[agent] {
			seen[agent] = true
			rs.Docs = append(rs.Docs, writ.AgentKey(agent))
		}
	}
	return rs
}

// splitTool takes a member "<capability> <agent>" of writ.IndexTools apart.
func splitTool(member string) (writ.CapabilityID, writ.AgentID) {
	c, a, _ := strings.Cut(member, " ")
	return writ.CapabilityID(c), writ.AgentID(a)
}

// provider is an active agent that declares a task capability.
type provider struct {
	agent writ.Agent
	tool  writ.Tool
}

// providers are the agents in a tool range, by capability. An entry whose
// agent no longer declares the tool, or is not active, counts for nothing.
func providers(s writ.Snapshot, id writ.CapabilityID) (map[writ.CapabilityID][]provider, error) {
	out := map[writ.CapabilityID][]provider{}
	for _, m := range s.Ranges[toolRange(id)].Members {
		c, a := splitTool(m.Name)
		agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a))
		if err != nil {
			return nil, err
		}
		if tool, has := agent.Tool(c); ok && has && agent.State == writ.AgentActive {
			out[c] = append(out[c], provider{agent, tool})
		}
	}
	return out, nil
}

var strength = []writ.Safety{writ.SafetyReadOnly, writ.SafetyMutating, writ.SafetyDestructive}

// summarise describes a task capability by those who declare it.
func summarise(id writ.CapabilityID, from []provider) CapabilityListed {
	c := CapabilityListed{ID: id, Kind: kindTask, Safety: writ.SafetyBlocked}
	rank := -1
	for _, p := range from {
		c.Agents = append(c.Agents, p.agent.ID)
		if r := slices.Index(strength, p.tool.Safety); r > rank {
			rank, c.Safety = r, p.tool.Safety
		}
		if c.Summary == "" {
			c.Summary = p.tool.Description
		}
	}
	c.Callable = rank >= 0
	return c
}

// aboutTasks are the verbs that name task capabilities, ask for them, take them, or show
// them: no role is granted one of those by itself.
var aboutTasks = []writ.CapabilityID{"task.enqueue", "agent.delegate", "task.claim", "agent.tools"}

// rights is what the caller's role may invoke, by the gate the call was let through. What
// it may not invoke is not there for it.
func (c Config) rights(op string, call *writ.Call, s writ.Snapshot) (may func(writ.CapabilityID) bool, err error) {
	gate, _, _, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		return nil, err
	}
	may, held := (func(writ.CapabilityID) bool)(nil), false
	if c.Rights != nil {
		may, held = c.Rights(gate.Bundle, call.Caller.Tenant, call.Caller.Role)
	}
	if !held {
		return nil, &writ.Error{
			Code: writ.CodePolicyDown, Op: op, RetryMs: 1000,
			Msg: "this replica does not hold the policies in force", Hint: "repeat the call; it may reach another replica",
		}
	}
	return may, nil
}

func listed(k *writ.Capability) CapabilityListed {
	return CapabilityListed{ID: k.ID, Kind: kindBuiltin, Version: k.Version, Summary: k.Summary, Safety: k.Safety, Callable: true}
}

func list(cfg Config) *writ.Capability {
	return writ.Define[CapabilityListArgs, CapabilityList](writ.Capability{
		ID: "capability.list", Safety: writ.SafetyReadOnly,
		Example: `{}`,
		Summary: "List what your role may invoke of the gateway's own capabilities, and what tasks may name: what active agents declare.",
	}, writ.Verb[CapabilityListArgs]{
		Reads: func(_ *writ.Call, _ *CapabilityListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readTools(s, "")
			rs.Docs = append(rs.Docs, writ.GateKey)
			rs.Counters = []writ.Counter{writ.RegistryRevision()}
			return rs, nil
		},
		Plan: func(c *writ.Call, _ *CapabilityListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			out := CapabilityList{Revision: s.Counters[writ.RegistryRevision()], Capabilities: []CapabilityListed{}}
			may, err := cfg.rights("registry.List", c, s)
			if err != nil {
				return tx, r, err
			}
			for _, k := range cfg.builtins() {
				if may(k.ID) {
					out.Capabilities = append(out.Capabilities, listed(k))
				}
			}
			if slices.ContainsFunc(aboutTasks, may) {
				out.Truncated = len(s.Ranges[toolRange("")].Members) == toolRange("").Limit
				tasks, err := providers(s, "")
				if err != nil {
					return tx, r, err
				}
				for id, from := range tasks {
					out.Capabilities = append(out.Capabilities, summarise(id, from))
				}
			}
			slices.SortFunc(out.Capabilities, func(a, b CapabilityListed) int { return strings.Compare(string(a.ID), string(b.ID)) })
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out, ETag: out.Revision}, nil
		},
	})
}

// CapabilityGetArgs name the capability to show.
type CapabilityGetArgs struct {
	Capability writ.CapabilityID `json:"capability" doc:"Its id, for example task.enqueue." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
}

// CapabilityView is one capability in full.
type CapabilityView struct {
	ID        writ.CapabilityID    `json:"id" doc:"Its id."`
	Kind      string               `json:"kind" doc:"builtin: a verb of the gateway; task: what tasks may name." enum:"builtin,task"`
	Version   string               `json:"version,omitempty" doc:"Version of a builtin."`
	Summary   string               `json:"summary,omitempty" doc:"One sentence."`
	Safety    writ.Safety          `json:"safety" doc:"What it can do." enum:"read-only,mutating,destructive,blocked"`
	Callable  bool                 `json:"callable" doc:"Whether it can be called, or named by a task, now."`
	Input     writ.RawObject       `json:"input_schema,omitempty" doc:"JSON Schema of a builtin's arguments."`
	Example   writ.RawObject       `json:"example,omitempty" doc:"Arguments a builtin could be called with."`
	Output    writ.RawObject       `json:"output_schema,omitempty" doc:"JSON Schema of a builtin's result."`
	Providers []CapabilityProvider `json:"providers,omitempty" doc:"Active agents that declare a task capability."`
}

// CapabilityProvider is an agent that declares a task capability.
type CapabilityProvider struct {
	AgentID     writ.AgentID   `json:"agent_id" doc:"The agent."`
	Domain      string         `json:"domain" doc:"Its domain."`
	Safety      writ.Safety    `json:"safety" doc:"What running it can do." enum:"read-only,mutating,destructive,blocked"`
	Sinks       []writ.Sink    `json:"sinks,omitempty" doc:"Where its data can flow to."`
	InputSchema writ.RawObject `json:"input_schema,omitempty" doc:"JSON Schema 2020-12 its arguments must meet."`
	Callable    bool           `json:"callable" doc:"Whether this agent takes tasks for it."`
}

func get(cfg Config) *writ.Capability {
	return writ.Define[CapabilityGetArgs, CapabilityView](writ.Capability{
		ID: "capability.get", Safety: writ.SafetyReadOnly,
		Example: `{"capability":"task.enqueue"}`,
		Summary: "Show a capability of those capability.list shows you, with its schemas and who carries it out.",
	}, writ.Verb[CapabilityGetArgs]{
		Reads: func(_ *writ.Call, a *CapabilityGetArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readTools(s, a.Capability)
			rs.Docs = append(rs.Docs, writ.GateKey)
			return rs, nil
		},
		Plan: func(c *writ.Call, a *CapabilityGetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			const op = "registry.Get"
			may, err := cfg.rights(op, c, s)
			if err != nil {
				return tx, r, err
			}
			view := func(c CapabilityListed) CapabilityView {
				return CapabilityView{ID: c.ID, Kind: c.Kind, Version: c.Version, Summary: c.Summary, Safety: c.Safety, Callable: c.Callable}
			}
			for _, k := range cfg.builtins() {
				if k.ID != a.Capability || !may(k.ID) {
					continue
				}
				out := view(listed(k))
				out.Example = writ.RawObject(k.Example)
				if cfg.Schemas != nil {
					out.Input, out.Output = cfg.Schemas(k)
				}
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
			}
			tasks, err := providers(s, a.Capability)
			if err != nil {
				return tx, r, err
			}
			from := tasks[a.Capability]
			if len(from) == 0 || !slices.ContainsFunc(aboutTasks, may) {
				return tx, r, writ.Refuse(writ.CodeNotFound, op, "there is no such capability, or your role may not invoke it", "capability.list shows what it may")
			}
			out := view(summarise(a.Capability, from))
			for _, p := range from {
				out.Providers = append(out.Providers, CapabilityProvider{
					AgentID: p.agent.ID, Domain: p.agent.Domain, Safety: p.tool.Safety, Sinks: p.tool.Sinks,
					InputSchema: p.tool.InputSchema, Callable: p.tool.Safety != writ.SafetyBlocked,
				})
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// CapabilityInvokeArgs name a capability of the gateway and its arguments.
type CapabilityInvokeArgs struct {
	Capability writ.CapabilityID `json:"capability" doc:"Capability of the gateway to call." pattern:"^[a-z][a-z0-9_-]{0,62}(\\.[a-z0-9_-]{1,63}){1,5}$" maxLength:"128"`
	Args       writ.RawObject    `json:"args,omitempty" doc:"Its arguments, path parameters among them."`
}

// CapabilityInvoked wraps the reply of the capability that was called.
type CapabilityInvoked struct {
	Capability    writ.CapabilityID `json:"capability" doc:"Capability that was called."`
	SchemaVersion string            `json:"schema_version" doc:"Its version."`
	Status        string            `json:"status" doc:"What became of the call." enum:"done,created,empty"`
	GeneratedAt   string            `json:"generated_at" doc:"When the reply was made (RFC 3339, UTC)."`
	Data          writ.RawObject    `json:"data" doc:"The reply of the capability."`
	Receipt       writ.ReceiptID    `json:"receipt,omitempty" doc:"Receipt of the call, when it changed something."`
}

// invoke exists to be listed, permitted and routed. The edge turns a call of it
// into a call of the capability it names; that one goes through the door. What
// comes here names nothing the gateway does itself: a capability of agents,
// which is asked for with a task, or nothing at all.
func invoke(cfg Config) *writ.Capability {
	const op = "registry.Invoke"
	return writ.Define[CapabilityInvokeArgs, CapabilityInvoked](writ.Capability{
		ID: "capability.invoke", Safety: writ.SafetyMutating, Summary: "Call any capability of the gateway by name.",
		Example: `{"capability":"task.get","args":{"task_id":"tsk_01M89R8776FSMT3FKAH3617HBC"}}`,
	}, writ.Verb[CapabilityInvokeArgs]{
		Reads: func(_ *writ.Call, a *CapabilityInvokeArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := readTools(s, a.Capability)
			rs.Docs = append(rs.Docs, writ.GateKey)
			return rs, nil
		},
		Plan: func(c *writ.Call, a *CapabilityInvokeArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if c.Via != "" || a.Capability == "capability.invoke" {
				return tx, r, writ.Refuse(writ.CodeMalformed, op, "capability.invoke cannot call itself", "name another capability")
			}
			may, err := cfg.rights(op, c, s)
			if err != nil {
				return tx, r, err
			}
			tasks, err := providers(s, a.Capability)
			if err != nil {
				return tx, r, err
			}
			from := tasks[a.Capability]
			switch {
			case len(from) == 0 || !slices.ContainsFunc(aboutTasks, may): // as capability.get says it
				err = writ.Refuse(writ.CodeNotFound, op, "there is no such capability, or your role may not invoke it", "role.permissions shows what it may")
			case !summarise(a.Capability, from).Callable:
				err = writ.Refuse(writ.CodeUnavailable, op, "the capability is blocked", "its agents declare that nobody may use it; capability.get shows them")
			default:
				err = writ.Refuse(writ.CodeUnavailable, op, "the capability is carried out by agents, not by the gateway", "enqueue a task for it with task.enqueue")
			}
			return tx, r, err
		},
	})
}
