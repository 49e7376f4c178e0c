package agents

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// AgentActivateArgs name the agent to activate.
type AgentActivateArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// anySession reads one live session of an agent: its absence is what counts,
// and the version of the index guards it.
func anySession(id writ.AgentID) writ.Range {
	return writ.Range{Index: writ.AgentSessions(id), Limit: 1}
}

func activate() *writ.Capability {
	const op = "agents.Activate"
	return writ.Define[AgentActivateArgs, AgentView](writ.Capability{
		ID: "agent.activate", Safety: writ.SafetyMutating,
		Example: `{"agent_id":"site-builder"}`,
		Summary: "Let a registered agent open sessions and take work.",
	}, writ.Verb[AgentActivateArgs]{
		Locks: func(_ *writ.Call, a *AgentActivateArgs) []writ.Key { return []writ.Key{writ.AgentKey(a.AgentID)} },
		Reads: func(_ *writ.Call, a *AgentActivateArgs, s writ.Snapshot) (writ.ReadSet, error) {
			key := writ.AgentKey(a.AgentID)
			rs := writ.ReadSet{Docs: []writ.Key{key}, Ranges: []writ.Range{anySession(a.AgentID)}}
			if !s.Has(key) {
				return rs, nil
			}
			agent, _, _, err := writ.Get[writ.Agent](s, key)
			if err != nil {
				return rs, err
			}
			for _, r := range rangesOf(agent.WriteScope) {
				rs.Ranges = append(rs.Ranges, scopeRange(r))
			}
			for _, c := range agent.Owns {
				rs.Ranges = append(rs.Ranges, writ.OwnerRange(agent.Domain, c))
			}
			return rs, nil
		},
		Describe: func(_ *writ.Call, a *AgentActivateArgs, s writ.Snapshot) (writ.Subject, error) {
			agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil || !ok {
				return writ.Subject{}, err // the plan says there is none
			}
			return writ.Subject{Entry: entryFacts(agent)}, nil
		},
		Plan: func(call *writ.Call, a *AgentActivateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, err := move(call, op, s, a.AgentID, writ.AgentActive, &tx, func(agent *writ.Agent) error {
				// What was set going before it was stopped must be gone first, so that
				// the cascade can never meet what began after it.
				if len(s.Ranges[anySession(agent.ID)].Members) > 0 || agent.Halt != nil && agent.Halt.Revoked && agent.Halt.SweptAt == 0 {
					return &writ.Error{
						Code: writ.CodeUnavailable, Op: op, RetryMs: 1000,
						Msg: "what the agent left is still being ended", Hint: "try again in a moment",
					}
				}
				agent.Halt = nil
				return nil
			})
			if err != nil {
				return tx, r, err
			}
			if agent.Archetype(writ.RoleExecutor) && len(agent.Tools) == 0 {
				return tx, r, writ.Refuse(writ.CodeIllegal, op, "an executor without tools cannot be activated",
					"register it again with at least one tool")
			}
			if wrong, holder := claims(agent, s, &tx); len(wrong) > 0 {
				return tx, r, taken(op, wrong, holder)
			}
			for _, t := range agent.Tools {
				tx.Index(writ.IndexTools, string(t.Name)+" "+string(agent.ID), 0)
			}
			for _, m := range routesTo(agent) {
				tx.Index(writ.IndexRoutes, m, 0)
			}
			probeStart(&tx, agent, s.Now)
			return tx, agentReply(writ.OutcomeDone, agent), nil
		},
	})
}

// entryFacts is what policy sees of an agent that would become active.
func entryFacts(a writ.Agent) *writ.EntryFacts {
	f := &writ.EntryFacts{Domain: a.Domain, Contract: a.ContractRef != ""}
	for _, t := range a.Tools {
		switch {
		case t.Safety == writ.SafetyDestructive:
			f.Safety = t.Safety
		case t.Safety == writ.SafetyMutating && f.Safety != writ.SafetyDestructive, t.Safety == writ.SafetyReadOnly && f.Safety == "":
			f.Safety = t.Safety
		}
	}
	return f
}

// scopeRange reads who holds a scope in a range. An agent that is not active holds
// none itself. Those who share are told from the others only once they are read;
// the guard of the commit looks at all.
func scopeRange(r [2]string) writ.Range {
	return writ.Range{Index: ScopeIndex, From: r[0], To: r[1], Limit: 16}
}

// taken refuses an agent that would have what another active agent has. A write
// scope alone is a conflict of scopes.
func taken(op string, wrong []writ.FieldError, holder writ.AgentID) error {
	e := writ.Refuse(writ.CodeInputInvalid, op, "active agents have what this entry names",
		"correct every field named in errors, or suspend the other agent").With("holder_agent", string(holder))
	if !slices.ContainsFunc(wrong, func(f writ.FieldError) bool { return !strings.HasPrefix(f.Pointer, "/write_scope/") }) {
		e = writ.Refuse(writ.CodeScopeConflict, op, "an active agent holds an overlapping write scope",
			"narrow one of the two agents' write scopes, let both share, or suspend the other").With("holder_agent", string(holder))
	}
	e.Fields = wrong
	return e
}

// move loads an agent, checks the move to a state, lets change have its say and
// writes it into tx.
func move(call *writ.Call, op string, s writ.Snapshot, id writ.AgentID, to writ.AgentState, tx *writ.Tx, change func(*writ.Agent) error) (writ.Agent, error) {
	agent, version, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
	if err != nil {
		return agent, err
	}
	if !ok {
		return agent, noAgent(op)
	}
	if err := call.Match(op, version); err != nil {
		return agent, err
	}
	from := agent.State
	if !writ.AgentMoves.May(from, to) {
		return agent, writ.IllegalMove(op, writ.ObjectAgent, string(from), string(to))
	}
	if err := change(&agent); err != nil {
		return agent, err
	}
	agent.State, agent.UpdatedAt, agent.Receipt = to, s.Now, receipt(call)
	tx.Move(writ.ObjectAgent, string(id), string(from), string(to))
	tx.Add(writ.RegistryRevision(), 1)
	return agent, tx.PutDoc(s, writ.AgentKey(id), writ.ObjectAgent, agent)
}

func noAgent(op string) error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such agent", "agent.list shows the agents there are")
}
