package agents

import (
	"github.com/writ-gateway/writ"
)

// AgentActivateArgs name the agent to activate.
type AgentActivateArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// AgentSuspendArgs name the agent to suspend and why.
type AgentSuspendArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Reason  string       `json:"reason,omitempty" doc:"Why it is suspended." default:"operator_request" enum:"operator_request,maintenance,misbehaviour,compromised"`
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
			return rs, nil
		},
		Plan: func(call *writ.Call, a *AgentActivateArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, err := move(call, op, s, a.AgentID, writ.AgentActive, &tx)
			if err != nil {
				return tx, r, err
			}
			// Sessions from before a suspension must be gone first, so that the
			// cascade can never meet one that was opened after it.
			if len(s.Ranges[anySession(agent.ID)].Members) > 0 {
				return tx, r, &writ.Error{
					Code: writ.CodeUnavailable, Op: op, RetryMs: 1000,
					Msg: "sessions from before the suspension are still being ended", Hint: "try again in a moment",
				}
			}
			if agent.Archetype(writ.RoleExecutor) && len(agent.Tools) == 0 {
				return tx, r, writ.Refuse(writ.CodeIllegal, op, "an executor without tools cannot be activated",
					"register it again with at least one tool")
			}
			for _, rg := range rangesOf(agent.WriteScope) {
				for _, m := range s.Ranges[scopeRange(rg)].Members {
					return tx, r, scopeConflict(op, m.Name)
				}
				tx.Free(ScopeIndex, rg[0], rg[1], string(agent.ID))
			}
			for _, scope := range agent.WriteScope {
				tx.Index(ScopeIndex, scope+" "+string(agent.ID), 0)
			}
			for _, t := range agent.Tools {
				tx.Index(writ.IndexTools, string(t.Name)+" "+string(agent.ID), 0)
			}
			for _, m := range routesTo(agent) {
				tx.Index(writ.IndexRoutes, m, 0)
			}
			return tx, agentReply(writ.OutcomeDone, agent), nil
		},
	})
}

// scopeRange reads whether anybody holds a scope in a range. An agent that is
// not active holds none itself.
func scopeRange(r [2]string) writ.Range {
	return writ.Range{Index: ScopeIndex, From: r[0], To: r[1], Limit: 1}
}

func scopeConflict(op, member string) error {
	_, holder := writ.SplitScopeMember(member)
	return writ.Refuse(writ.CodeScopeConflict, op, "an active agent holds an overlapping write scope",
		"narrow one of the two agents' write scopes, or suspend the other").With("holder_agent", string(holder))
}

func suspend() *writ.Capability {
	const op = "agents.Suspend"
	return writ.Define[AgentSuspendArgs, AgentView](writ.Capability{
		ID: "agent.suspend", Safety: writ.SafetyMutating,
		Summary: "Stop an agent: its sessions are revoked and its tasks go back to the queue.",
	}, writ.Verb[AgentSuspendArgs]{
		Locks: func(_ *writ.Call, a *AgentSuspendArgs) []writ.Key { return []writ.Key{writ.AgentKey(a.AgentID)} },
		Reads: func(_ *writ.Call, a *AgentSuspendArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}}, nil
		},
		Plan: func(call *writ.Call, a *AgentSuspendArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, err := move(call, op, s, a.AgentID, writ.AgentSuspended, &tx)
			if err != nil {
				return tx, r, err
			}
			for _, scope := range agent.WriteScope {
				tx.Unindex(ScopeIndex, scope+" "+string(agent.ID))
			}
			for _, t := range agent.Tools {
				tx.Unindex(writ.IndexTools, string(t.Name)+" "+string(agent.ID))
			}
			for _, m := range routesTo(agent) {
				tx.Unindex(writ.IndexRoutes, m)
			}
			tx.Index(writ.IndexTodo, todoAgent(agent.ID), s.Now)
			return tx, agentReply(writ.OutcomeDone, agent), nil
		},
	})
}

// move loads an agent, checks the move to a state and writes it into tx.
func move(call *writ.Call, op string, s writ.Snapshot, id writ.AgentID, to writ.AgentState, tx *writ.Tx) (writ.Agent, error) {
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
	agent.State, agent.UpdatedAt, agent.Receipt = to, s.Now, receipt(call)
	tx.Move(writ.ObjectAgent, string(id), string(from), string(to))
	tx.Add(writ.RegistryRevision(), 1)
	return agent, tx.PutDoc(s, writ.AgentKey(id), writ.ObjectAgent, agent)
}

func noAgent(op string) error {
	return writ.Refuse(writ.CodeNotFound, op, "there is no such agent", "agent.list shows the agents there are")
}
