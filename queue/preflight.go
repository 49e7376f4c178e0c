package queue

import (
	"slices"
	"strconv"

	"github.com/writ-gateway/writ"
)

// Health judges agents. It must be pure. Every agent a task names must pass by
// itself, and so must the one that claims it: a healthy agent makes up for no
// other.
type Health interface {
	// Reads names what Judge must see of an agent, given what has been read; self
	// says that a session of it makes the call.
	Reads(s writ.Snapshot, id writ.AgentID, self bool) (writ.ReadSet, error)
	// Judge says how an agent is. For a healthy one it adds to tx, if there is
	// one, what keeps the commit from happening when that is no longer so.
	Judge(s writ.Snapshot, id writ.AgentID, self bool, tx *writ.Tx) (writ.AgentHealth, error)
}

// anyHealth finds every agent healthy.
type anyHealth struct{}

func (anyHealth) Reads(writ.Snapshot, writ.AgentID, bool) (writ.ReadSet, error) {
	return writ.ReadSet{}, nil
}

func (anyHealth) Judge(_ writ.Snapshot, id writ.AgentID, _ bool, _ *writ.Tx) (writ.AgentHealth, error) {
	return writ.AgentHealth{Agent: id, Status: writ.Healthy}, nil
}

// needed are the agents that must be healthy for a claim: the caller's own, and
// those the task names.
func needed(self writ.AgentID, named []writ.AgentID) []writ.AgentID {
	out := []writ.AgentID{self}
	for _, id := range named {
		if id != self {
			out = append(out, id)
		}
	}
	return out
}

// healthReads names what must be seen of agents.
func healthReads(h Health, s writ.Snapshot, self writ.AgentID, ids []writ.AgentID) (writ.ReadSet, error) {
	var rs writ.ReadSet
	for _, id := range ids {
		more, err := h.Reads(s, id, id == self)
		if err != nil {
			return rs, err
		}
		rs = rs.Join(more)
	}
	return rs, nil
}

// claimHealth names what a claim must see of the agents it needs.
func claimHealth(h Health, c *writ.Call, a *TaskClaimArgs, s writ.Snapshot) (writ.ReadSet, error) {
	if c.Caller.Agent == "" {
		return writ.ReadSet{}, nil
	}
	var named []writ.AgentID
	if a.Task != "" {
		t, ok, err := peek[writ.Task](s, writ.TaskKey(a.Task))
		if err != nil || !ok || t.State != writ.TaskQueued {
			return writ.ReadSet{}, err
		}
		named = t.Agents
	}
	return healthReads(h, s, c.Caller.Agent, needed(c.Caller.Agent, named))
}

// preflight refuses a claim unless every agent it needs is healthy. ask are
// those a look could find healthy now: nobody is refused for what nobody has
// looked at, until somebody has.
func preflight(h Health, c *writ.Call, s writ.Snapshot, self writ.AgentID, named []writ.AgentID, tx *writ.Tx) (ask []writ.AgentID, err error) {
	var bad []writ.AgentHealth
	for _, id := range needed(self, named) {
		one, err := h.Judge(s, id, id == self, tx)
		if err != nil {
			return nil, err
		}
		if one.Status == writ.Healthy {
			continue
		}
		if one.Look {
			ask = append(ask, id)
		}
		bad = append(bad, one)
	}
	switch {
	case len(bad) == 0:
		return nil, nil
	case !c.Probed && len(ask) == len(bad):
		return ask, nil
	}
	return nil, unwell(bad)
}

// unwell is the refusal for agents that are not healthy. It names the first.
func unwell(bad []writ.AgentHealth) error {
	e := writ.Refuse(writ.CodePreflight, opClaim, "an agent the task needs is not healthy", "try again once it is; agent.health shows what is wrong").
		With("agent", string(bad[0].Agent)).With("status", string(bad[0].Status)).With("reason", string(bad[0].Reason))
	for _, one := range bad {
		e.RetryMs = max(e.RetryMs, one.RetryMs)
		e.Probes = append(e.Probes, one.Probes...)
	}
	return e
}

// TaskUnassignable is an agent that keeps a task from being given to anybody.
type TaskUnassignable struct {
	Agent  writ.AgentID      `json:"agent_id" doc:"The agent."`
	Status writ.HealthStatus `json:"status" doc:"How it is." enum:"degraded,unhealthy,unknown,stale"`
	Reason writ.HealthReason `json:"reason" doc:"Why." enum:"not_probed,stale,no_session,breaker_open,probes"`
}

// assignable tells in a view whether a waiting task that names agents could be given
// to one of them now: all of them are healthy, and one of them may run it. It is
// worked out when asked and never stored.
func assignable(h Health, s writ.Snapshot, t writ.Task, v *TaskView) error {
	if len(t.Agents) == 0 || t.State != writ.TaskQueued && t.State != writ.TaskBlocked {
		return nil
	}
	for _, id := range t.Agents {
		one, err := h.Judge(s, id, false, nil)
		if err != nil {
			return err
		}
		if one.Status != writ.Healthy {
			v.Unassignable = append(v.Unassignable, TaskUnassignable{id, one.Status, one.Reason})
		}
	}
	fit, err := fitting(s, t)
	yes := len(v.Unassignable) == 0 && len(fit) > 0
	v.Assignable = &yes
	return err
}

// assignableReads names what assignable must see.
func assignableReads(h Health, s writ.Snapshot, t writ.Task) (writ.ReadSet, error) {
	if t.State != "" && t.State != writ.TaskQueued && t.State != writ.TaskBlocked {
		return writ.ReadSet{}, nil
	}
	rs, err := healthReads(h, s, "", t.Agents)
	for _, id := range t.Agents {
		rs.Docs = append(rs.Docs, writ.AgentKey(id))
	}
	return rs, err
}

// registered refuses a task that names an agent nobody has registered: it would
// wait for ever. It wants the documents of the agents.
func registered(s writ.Snapshot, named []writ.AgentID) error {
	var wrong []writ.FieldError
	for i, id := range named {
		_, ok, err := loadAgent(s, id)
		if err != nil {
			return err
		}
		if !ok && !slices.Contains(named[:i], id) {
			wrong = append(wrong, writ.FieldError{Pointer: "/required_agents/" + strconv.Itoa(i), Msg: "is no registered agent"})
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	e := writ.Refuse(writ.CodeInputInvalid, opEnqueue, "the task names agents that are not registered", "correct the ids named in errors; agent.list shows the agents there are")
	e.Fields = wrong
	return e
}

// failed counts an attempt that ended for reasons outside against its agent.
// Whether that opens the agent's breaker is judged from the count at once, and
// recorded by a follow-up.
func (d *draft) failed(agent writ.AgentID, why writ.FailureClass) {
	if why != writ.FailureExternal {
		return
	}
	d.tx.Add(writ.HealthFailures(agent), 1)
	d.tx.Index(writ.IndexTodo, writ.TodoHealth(agent), d.s.Now)
}

// succeeded forgets what failed before. It wants the count of the agent.
func (d *draft) succeeded(agent writ.AgentID) {
	count := writ.HealthFailures(agent)
	if d.seen(count) == 0 {
		return
	}
	d.exactly(count)
	d.set(count, 0)
	d.tx.Index(writ.IndexTodo, writ.TodoHealth(agent), d.s.Now)
}
