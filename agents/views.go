package agents

import "github.com/writ-gateway/writ"

// AgentView is a registry entry as the API shows it.
type AgentView struct {
	AgentID       writ.AgentID                 `json:"agent_id" doc:"Slug that names the agent."`
	Name          string                       `json:"name,omitempty" doc:"Name for people."`
	Description   string                       `json:"description,omitempty" doc:"What the agent is for."`
	Archetypes    []writ.Role                  `json:"archetypes" doc:"Roles its sessions may have."`
	Domain        string                       `json:"domain" doc:"Domain whose work it takes."`
	State         writ.AgentState              `json:"state" doc:"Where the registration stands." enum:"planned,active,suspended,superseded,retired"`
	Tools         []writ.Tool                  `json:"tools" doc:"Task capabilities it declares."`
	WriteScope    []string                     `json:"write_scope" doc:"Resource URIs below which it may ever write, canonical."`
	SharesScope   bool                         `json:"shares_write_scope,omitempty" doc:"Whether they may overlap those of others that share too."`
	Owns          []string                     `json:"owns" doc:"Concerns of its domain that are its own."`
	Defers        []writ.Deferral              `json:"defers" doc:"Concerns whose work it leaves to others."`
	ContractRef   string                       `json:"contract_ref,omitempty" doc:"Where its contract is."`
	WorkGates     []writ.CapabilityID          `json:"work_gates,omitempty" doc:"Gates its work must pass before a verdict accepts it."`
	Gates         []string                     `json:"gates,omitempty" doc:"Policy packs or rules its work is meant to be held to."`
	SupersededBy  writ.AgentID                 `json:"superseded_by,omitempty" doc:"Agent that took its place."`
	Revocation    *AgentRevocation             `json:"revocation,omitempty" doc:"How far its revocation has come; absent when it was not revoked since it was active."`
	MaxConcurrent int64                        `json:"max_concurrent_tasks" doc:"How many tasks it may hold at a time."`
	Routing       *AgentRouting                `json:"routing,omitempty" doc:"By which words agent.route finds it, normalised."`
	Endpoints     map[string]AgentEndpointView `json:"endpoints,omitempty" doc:"Addresses that are asked whether it works, by name."`
	Health        *AgentHealthPolicy           `json:"health_policy,omitempty" doc:"What it must show before it gets work; absent: a started session."`
	Jail          *writ.JailSpec               `json:"jail,omitempty" doc:"The jail its sessions can be spawned in."`
	Keys          []writ.PublicKey             `json:"keys,omitempty" doc:"Keys its sessions may sign calls with."`
	CreatedAt     string                       `json:"created_at" doc:"When it was first registered (RFC 3339, UTC)."`
	UpdatedAt     string                       `json:"updated_at" doc:"When the entry last changed (RFC 3339, UTC)."`
	Receipt       writ.ReceiptID               `json:"receipt" doc:"Receipt of the last change."`
	Version       int64                        `json:"version" doc:"Version of the entry, for If-Match."`
}

// AgentRevocation says how far the revocation of an agent has come.
type AgentRevocation struct {
	At      string         `json:"at" doc:"When it was revoked (RFC 3339, UTC)."`
	Receipt writ.ReceiptID `json:"receipt" doc:"Receipt of that; those of the cascade name it as a parent."`
	Swept   bool           `json:"swept" doc:"Whether nothing is left of what it had set going."`
	SweptAt string         `json:"swept_at,omitempty" doc:"Since when (RFC 3339, UTC)."`
}

func viewAgent(a writ.Agent, version int64) AgentView {
	v := AgentView{
		AgentID: a.ID, Name: a.Name, Description: a.Description, Archetypes: a.Archetypes, Domain: a.Domain,
		State: a.State, Tools: a.Tools, WriteScope: a.WriteScope, MaxConcurrent: a.MaxConcurrent, Keys: a.Keys,
		CreatedAt: writ.FormatTime(a.CreatedAt), UpdatedAt: writ.FormatTime(a.UpdatedAt), Receipt: a.Receipt, Version: version,
	}
	v.Jail = a.Jail
	v.Endpoints, v.Health = viewEndpoints(a), viewHealthPolicy(a)
	if a.Routing != nil {
		v.Routing = &AgentRouting{Keywords: a.Routing.Keywords, Priority: a.Routing.Priority}
	}
	v.SharesScope, v.Owns, v.Defers, v.ContractRef, v.Gates, v.WorkGates, v.SupersededBy = a.SharesScope, a.Owns, a.Defers, a.ContractRef, a.Gates, a.WorkGates, a.SupersededBy
	if h := a.Halt; h != nil && h.Revoked {
		v.Revocation = &AgentRevocation{At: writ.FormatTime(h.At), Receipt: h.Receipt, Swept: h.SweptAt > 0}
		if h.SweptAt > 0 {
			v.Revocation.SweptAt = writ.FormatTime(h.SweptAt)
		}
	}
	if v.Owns == nil {
		v.Owns = []string{}
	}
	if v.Defers == nil {
		v.Defers = []writ.Deferral{}
	}
	if v.Tools == nil {
		v.Tools = []writ.Tool{}
	}
	if v.WriteScope == nil {
		v.WriteScope = []string{}
	}
	return v
}

// agentReply shows an agent as the commit will have written it.
func agentReply(o writ.Outcome, a writ.Agent) writ.Reply {
	return writ.Reply{Outcome: o, Body: viewAgent(a, 0), Versioned: []string{"version"}, ETag: -1}
}

// AgentListArgs page through the agents.
type AgentListArgs struct {
	After writ.AgentID `json:"after,omitempty" doc:"Agent the last page ended with." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Limit int64        `json:"limit,omitempty" doc:"Entries per page." default:"50" minimum:"1" maximum:"200"`
}

// AgentList is a page of agents.
type AgentList struct {
	Agents []AgentView `json:"agents" doc:"Entries by id."`
	Next   string      `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`

	Revision int64 `json:"registry_revision" doc:"Revision of the registry; it rises with every change of an agent."`
}

func list() *writ.Capability {
	return writ.Define[AgentListArgs, AgentList](writ.Capability{
		ID: "agent.list", Safety: writ.SafetyReadOnly, Summary: "List the registered agents.",
		Example: `{"limit":20}`,
	}, writ.Verb[AgentListArgs]{
		Reads: func(_ *writ.Call, a *AgentListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			page := writ.Page{Index: writ.IndexAgents, After: string(a.After), Limit: a.Limit}
			rs := writ.ReadSet{Ranges: []writ.Range{page.Range()}, Counters: []writ.Counter{writ.RegistryRevision()}}
			names, _ := page.Of(s)
			for _, n := range names {
				rs.Docs = append(rs.Docs, writ.AgentKey(writ.AgentID(n)))
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *AgentListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			names, next := writ.Page{Index: writ.IndexAgents, After: string(a.After), Limit: a.Limit}.Of(s)
			out := AgentList{Agents: []AgentView{}, Next: next, Revision: s.Counters[writ.RegistryRevision()]}
			for _, n := range names {
				agent, version, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(writ.AgentID(n)))
				if err != nil {
					return tx, r, err
				}
				if ok {
					out.Agents = append(out.Agents, viewAgent(agent, version))
				}
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}

// AgentInfoArgs name the agent to show.
type AgentInfoArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

func info() *writ.Capability {
	return writ.Define[AgentInfoArgs, AgentView](writ.Capability{
		ID: "agent.info", Safety: writ.SafetyReadOnly, Summary: "Show the registry entry of an agent.",
		Example: `{"agent_id":"site-builder"}`,
	}, writ.Verb[AgentInfoArgs]{
		Reads: func(_ *writ.Call, a *AgentInfoArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}}, nil
		},
		Plan: func(_ *writ.Call, a *AgentInfoArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, version, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, noAgent("agents.Info")
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: viewAgent(agent, version), ETag: version}, nil
		},
	})
}

// AgentToolsArgs name the agent whose tools to show.
type AgentToolsArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// AgentTools are the tools of an agent.
type AgentTools struct {
	AgentID writ.AgentID    `json:"agent_id" doc:"The agent."`
	State   writ.AgentState `json:"state" doc:"Where its registration stands." enum:"planned,active,suspended,superseded,retired"`
	Tools   []AgentTool     `json:"tools" doc:"Everything it declares, callable or not."`
}

// AgentTool is one tool of an agent.
type AgentTool struct {
	Name        writ.CapabilityID `json:"name" doc:"Capability tasks may name."`
	Description string            `json:"description,omitempty" doc:"One sentence for people."`
	Safety      writ.Safety       `json:"safety" doc:"What running it can do." enum:"read-only,mutating,destructive,blocked"`
	Concern     string            `json:"concern,omitempty" doc:"What the work is about, as owns and defers name it."`
	Sinks       []writ.Sink       `json:"sinks,omitempty" doc:"Where its data can flow to."`
	InputSchema writ.RawObject    `json:"input_schema,omitempty" doc:"JSON Schema 2020-12 its arguments must meet."`
	Callable    bool              `json:"callable" doc:"Whether this agent takes tasks for it now: it is active and the tool is not blocked."`
}

func tools() *writ.Capability {
	return writ.Define[AgentToolsArgs, AgentTools](writ.Capability{
		ID: "agent.tools", Safety: writ.SafetyReadOnly, Summary: "Show what an agent can carry out, and what of it is callable now.",
		Example: `{"agent_id":"site-builder"}`,
	}, writ.Verb[AgentToolsArgs]{
		Reads: func(_ *writ.Call, a *AgentToolsArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}}, nil
		},
		Plan: func(_ *writ.Call, a *AgentToolsArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, version, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, noAgent("agents.Tools")
			}
			out := AgentTools{AgentID: agent.ID, State: agent.State, Tools: []AgentTool{}}
			for _, t := range agent.Tools {
				out.Tools = append(out.Tools, AgentTool{
					Name: t.Name, Description: t.Description, Safety: t.Safety, Concern: t.Concern, Sinks: t.Sinks, InputSchema: t.InputSchema,
					Callable: agent.State == writ.AgentActive && t.Safety != writ.SafetyBlocked,
				})
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out, ETag: version}, nil
		},
	})
}
