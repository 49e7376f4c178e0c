package agents

import "github.com/writ-gateway/writ"

// AgentView is a registry entry as the API shows it.
type AgentView struct {
	AgentID       writ.AgentID     `json:"agent_id" doc:"Slug that names the agent."`
	Name          string           `json:"name,omitempty" doc:"Name for people."`
	Description   string           `json:"description,omitempty" doc:"What the agent is for."`
	Archetypes    []writ.Role      `json:"archetypes" doc:"Roles its sessions may have."`
	Domain        string           `json:"domain" doc:"Domain whose work it takes."`
	State         writ.AgentState  `json:"state" doc:"Where the registration stands." enum:"planned,active,suspended"`
	Tools         []writ.Tool      `json:"tools" doc:"Task capabilities it declares."`
	WriteScope    []string         `json:"write_scope" doc:"Resource URIs below which it may ever write, canonical."`
	MaxConcurrent int64            `json:"max_concurrent_tasks" doc:"How many tasks it may hold at a time."`
	Routing       *AgentRouting    `json:"routing,omitempty" doc:"By which words agent.route finds it, normalised."`
	Keys          []writ.PublicKey `json:"keys,omitempty" doc:"Keys its sessions may sign calls with."`
	CreatedAt     string           `json:"created_at" doc:"When it was first registered (RFC 3339, UTC)."`
	UpdatedAt     string           `json:"updated_at" doc:"When the entry last changed (RFC 3339, UTC)."`
	Receipt       writ.ReceiptID   `json:"receipt" doc:"Receipt of the last change."`
	Version       int64            `json:"version" doc:"Version of the entry, for If-Match."`
}

func viewAgent(a writ.Agent, version int64) AgentView {
	v := AgentView{
		AgentID: a.ID, Name: a.Name, Description: a.Description, Archetypes: a.Archetypes, Domain: a.Domain,
		State: a.State, Tools: a.Tools, WriteScope: a.WriteScope, MaxConcurrent: a.MaxConcurrent, Keys: a.Keys,
		CreatedAt: writ.FormatTime(a.CreatedAt), UpdatedAt: writ.FormatTime(a.UpdatedAt), Receipt: a.Receipt, Version: version,
	}
	if a.Routing != nil {
		v.Routing = &AgentRouting{Keywords: a.Routing.Keywords, Priority: a.Routing.Priority}
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
}

func list() *writ.Capability {
	return writ.Define[AgentListArgs, AgentList](writ.Capability{
		ID: "agent.list", Safety: writ.SafetyReadOnly, Summary: "List the registered agents.",
	}, writ.Verb[AgentListArgs]{
		Reads: func(_ *writ.Call, a *AgentListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			page := writ.Page{Index: writ.IndexAgents, After: string(a.After), Limit: a.Limit}
			rs := writ.ReadSet{Ranges: []writ.Range{page.Range()}}
			names, _ := page.Of(s)
			for _, n := range names {
				rs.Docs = append(rs.Docs, writ.AgentKey(writ.AgentID(n)))
			}
			return rs, nil
		},
		Plan: func(_ *writ.Call, a *AgentListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			names, next := writ.Page{Index: writ.IndexAgents, After: string(a.After), Limit: a.Limit}.Of(s)
			out := AgentList{Agents: []AgentView{}, Next: next}
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
	State   writ.AgentState `json:"state" doc:"Where its registration stands." enum:"planned,active,suspended"`
	Tools   []AgentTool     `json:"tools" doc:"Everything it declares, callable or not."`
}

// AgentTool is one tool of an agent.
type AgentTool struct {
	Name        writ.CapabilityID `json:"name" doc:"Capability tasks may name."`
	Description string            `json:"description,omitempty" doc:"One sentence for people."`
	Safety      writ.Safety       `json:"safety" doc:"What running it can do." enum:"read-only,mutating,destructive,blocked"`
	Sinks       []writ.Sink       `json:"sinks,omitempty" doc:"Where its data can flow to."`
	InputSchema writ.RawObject    `json:"input_schema,omitempty" doc:"JSON Schema 2020-12 its arguments must meet."`
	Callable    bool              `json:"callable" doc:"Whether this agent takes tasks for it now: it is active and the tool is not blocked."`
}

func tools() *writ.Capability {
	return writ.Define[AgentToolsArgs, AgentTools](writ.Capability{
		ID: "agent.tools", Safety: writ.SafetyReadOnly, Summary: "Show what an agent can carry out, and what of it is callable now.",
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
					Name: t.Name, Description: t.Description, Safety: t.Safety, Sinks: t.Sinks, InputSchema: t.InputSchema,
					Callable: agent.State == writ.AgentActive && t.Safety != writ.SafetyBlocked,
				})
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out, ETag: version}, nil
		},
	})
}
