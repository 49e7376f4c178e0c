package agents

import (
	"github.com/writ-gateway/writ"
)

// Stopping an agent is one commit: it changes the entry, and every call of a session
// that stands on the agent expects the entry as it was read. So nothing of theirs is
// committed afterwards. What they hold is given back behind it, by mandates that name
// the receipt of that commit as their parent.

// AgentSuspendArgs name the agent to suspend and why.
type AgentSuspendArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Reason  string       `json:"reason,omitempty" doc:"Why it is suspended." default:"operator_request" enum:"operator_request,maintenance,misbehaviour,compromised"`
}

// AgentRevokeArgs name the agent to revoke and why.
type AgentRevokeArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Reason  string       `json:"reason,omitempty" doc:"Why it is revoked." default:"operator_request" enum:"operator_request,misbehaviour,compromised"`
}

// AgentRetireArgs name the agent to retire.
type AgentRetireArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// AgentSupersedeArgs name an agent and who takes its place.
type AgentSupersedeArgs struct {
	AgentID   writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Successor writ.AgentID `json:"successor" doc:"Agent that takes its place; it is registered, and not superseded or retired itself." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

func suspend() *writ.Capability {
	const op = "agents.Suspend"
	return stopping("agent.suspend", "Stop an agent: its sessions are refused at once and its tasks go back to the queue.", `{"agent_id":"site-builder","reason":"maintenance"}`,
		func(a *AgentSuspendArgs) []writ.AgentID { return []writ.AgentID{a.AgentID} },
		func(call *writ.Call, a *AgentSuspendArgs, s writ.Snapshot, tx *writ.Tx) (writ.Agent, error) {
			return halt(call, op, s, a.AgentID, writ.AgentSuspended, tx, func(agent *writ.Agent) error {
				if agent.State != writ.AgentActive {
					return writ.IllegalMove(op, writ.ObjectAgent, string(agent.State), string(writ.AgentSuspended))
				}
				return nil
			})
		})
}

// revokeAgent is the kill switch. An agent that was stopped already can be revoked
// too, also when it was registered again since: then what it had set going goes.
func revokeAgent() *writ.Capability {
	const op = "agents.RevokeAgent"
	return stopping("agent.revoke", "Stop an agent and all it set going: sessions, those they opened, leases, tasks it enqueued, and approvals it asked for.", `{"agent_id":"site-builder","reason":"compromised"}`,
		func(a *AgentRevokeArgs) []writ.AgentID { return []writ.AgentID{a.AgentID} },
		func(call *writ.Call, a *AgentRevokeArgs, s writ.Snapshot, tx *writ.Tx) (writ.Agent, error) {
			return halt(call, op, s, a.AgentID, writ.AgentSuspended, tx, func(agent *writ.Agent) error {
				agent.Halt.Revoked = true
				return nil
			})
		})
}

func retire() *writ.Capability {
	return stopping("agent.retire", "End an agent for good; its sessions are refused at once and its tasks go back to the queue.", `{"agent_id":"site-builder"}`,
		func(a *AgentRetireArgs) []writ.AgentID { return []writ.AgentID{a.AgentID} },
		func(call *writ.Call, a *AgentRetireArgs, s writ.Snapshot, tx *writ.Tx) (writ.Agent, error) {
			return halt(call, "agents.Retire", s, a.AgentID, writ.AgentRetired, tx, func(*writ.Agent) error { return nil })
		})
}

func supersede() *writ.Capability {
	const op = "agents.Supersede"
	return stopping("agent.supersede", "End an agent for good and name the one that takes its place.", `{"agent_id":"site-builder","successor":"site-builder-2"}`,
		func(a *AgentSupersedeArgs) []writ.AgentID { return []writ.AgentID{a.AgentID, a.Successor} },
		func(call *writ.Call, a *AgentSupersedeArgs, s writ.Snapshot, tx *writ.Tx) (writ.Agent, error) {
			next, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.Successor))
			if err != nil {
				return next, err
			}
			if !ok || next.ID == a.AgentID || writ.AgentMoves.Terminal(next.State) {
				return next, &writ.Error{
					Code: writ.CodeInputInvalid, Op: op, Msg: "the agent cannot take the other's place", Hint: "name another agent that is registered and has not ended",
					Fields: []writ.FieldError{{Pointer: "/successor", Msg: "must be another agent that is registered and neither superseded nor retired"}},
				}
			}
			return halt(call, op, s, a.AgentID, writ.AgentSuperseded, tx, func(agent *writ.Agent) error {
				agent.SupersededBy = next.ID
				return nil
			})
		})
}

// stopping is a verb that stops the first of the agents it names.
func stopping[A any](id writ.CapabilityID, summary, example string, names func(*A) []writ.AgentID,
	plan func(*writ.Call, *A, writ.Snapshot, *writ.Tx) (writ.Agent, error),
) *writ.Capability {
	return writ.Define[A, AgentView](writ.Capability{ID: id, Safety: writ.SafetyMutating, Summary: summary, Example: example}, writ.Verb[A]{
		Locks: func(_ *writ.Call, a *A) []writ.Key { return []writ.Key{writ.AgentKey(names(a)[0])} },
		Reads: func(_ *writ.Call, a *A, _ writ.Snapshot) (rs writ.ReadSet, err error) {
			for _, n := range names(a) {
				rs.Docs = append(rs.Docs, writ.AgentKey(n))
			}
			return rs, nil
		},
		Plan: func(call *writ.Call, a *A, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, err := plan(call, a, s, &tx)
			return tx, agentReply(writ.OutcomeDone, agent), err
		},
	})
}

// halt moves an agent out of active life, takes it off every index of active agents
// and leaves what it held to agent.cleanup.
func halt(call *writ.Call, op string, s writ.Snapshot, id writ.AgentID, to writ.AgentState, tx *writ.Tx, change func(*writ.Agent) error) (writ.Agent, error) {
	agent, err := move(call, op, s, id, to, tx, func(agent *writ.Agent) error {
		// A revocation that is under way goes on, whatever else ends the agent.
		unfinished := agent.Halt != nil && agent.Halt.Revoked && agent.Halt.SweptAt == 0
		agent.Halt, agent.StoppedAt = &writ.Halt{At: s.Now, Receipt: receipt(call), Revoked: unfinished}, s.Now
		return change(agent)
	})
	if err != nil {
		return agent, err
	}
	tx.Mandate = true // stopping must work in a full store
	for _, scope := range agent.WriteScope {
		tx.Unindex(ScopeIndex, scopeMember(agent, scope))
	}
	for _, c := range agent.Owns {
		tx.Unindex(writ.IndexOwners, ownerMember(agent, c))
	}
	for _, t := range agent.Tools {
		tx.Unindex(writ.IndexTools, string(t.Name)+" "+string(agent.ID))
	}
	for _, m := range routesTo(agent) {
		tx.Unindex(writ.IndexRoutes, m)
	}
	probeEnd(tx, agent)
	tx.Index(writ.IndexTodo, todoAgent(agent.ID), s.Now)
	return agent, nil
}

// AgentSettleArgs name an agent that was revoked.
type AgentSettleArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// settleAgain is when to look again while leases are still being given back, in
// milliseconds.
const settleAgain = 50

// settle notes that nothing is left of what a revoked agent had set going. It comes
// after the sessions, tasks and approvals, and waits for the leases.
func settle() *writ.Capability {
	return writ.Define[AgentSettleArgs, SweepResult](writ.Capability{
		ID: "agent.settle", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note that nothing is left of what a revoked agent had set going.",
	}, writ.Verb[AgentSettleArgs]{
		Reads: func(_ *writ.Call, a *AgentSettleArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.AgentID)}, Counters: []writ.Counter{writ.AgentRunning(a.AgentID)}}, nil
		},
		Plan: func(call *writ.Call, a *AgentSettleArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			if s.Counters[writ.AgentRunning(a.AgentID)] > 0 {
				tx.Index(writ.IndexTodo, todoSettle(a.AgentID), s.Now+settleAgain)
				return tx, swept(nil, true), nil
			}
			tx.Unindex(writ.IndexTodo, todoSettle(a.AgentID))
			h := agent.Halt
			if !ok || h == nil || !h.Revoked || h.SweptAt != 0 || !writ.AgentMoves.May(agent.State, agent.State) {
				return tx, swept(nil, false), nil
			}
			done := *h
			done.SweptAt = s.Now
			tx.Cause(h.Receipt)
			agent.Halt, agent.UpdatedAt, agent.Receipt = &done, s.Now, receipt(call)
			tx.Move(writ.ObjectAgent, string(agent.ID), string(agent.State), string(agent.State))
			tx.Add(writ.RegistryRevision(), 1)
			return tx, swept(nil, false), tx.PutDoc(s, writ.AgentKey(agent.ID), writ.ObjectAgent, agent)
		},
	})
}
