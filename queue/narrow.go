package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// Limits of a chain of tasks that are each made by the holder of the one before.
const (
	maxChain = 8 // tasks after the first
	maxTurns = 2 // of one agent in a chain: a task goes back to whom it came from once
)

// draft is what is asked for as a request to enqueue, filled up with what the task
// it comes from says.
func (e enqueuer) draft(t writ.Task, a *HandoffTask, now int64) (writ.Task, error) {
	args := TaskEnqueueArgs{
		Run: t.Run, Key: a.Key, Summary: a.Summary, Capability: a.Capability, Args: a.Args, Labels: t.Labels, Concern: t.Concern,
		Domain: a.Domain, Agents: a.Agents, WriteScopes: a.WriteScopes,
		Priority: orOwn(a.Priority, t.Priority), MaxAttempts: orOwn(a.MaxAttempts, t.MaxAttempts),
		LeaseSeconds: &t.LeaseSeconds, BackoffMs: &t.BackoffMs, DeadlineS: a.DeadlineS,
	}
	if args.Domain == "" {
		args.Domain = t.Domain
	}
	next, err := e.request(&args)
	if err != nil {
		return next, err
	}
	switch {
	case t.DeadlineAt == 0:
	case next.DeadlineS == 0: // it has what is left of the other's time
		next.DeadlineAt = t.DeadlineAt
	case now+next.DeadlineS*1000 > t.DeadlineAt:
		return next, tooMuch("deadline_s")
	}
	if t.Verify != nil { // who checks the one checks what becomes of it
		v := *t.Verify
		next.Verify = &v
	}
	next.Handoff = nil
	return next, nil
}

func orOwn(asked *int64, own int64) *int64 {
	if asked == nil {
		return &own
	}
	return asked
}

// make makes a task out of what somebody was given to do. It may be less than
// that, never more: the same tool or another one of the same agent, no more
// dangerous and with no other sinks, within its write scopes, its priority, its
// attempts and its time.
func (e enqueuer) make(c *writ.Call, a *HandoffTask, s writ.Snapshot, t writ.Task) (writ.Task, error) {
	next, err := e.draft(t, a, s.Now)
	if err != nil {
		return next, err
	}
	if t.CancelAt != 0 {
		return next, writ.Refuse(writ.CodeIllegal, opHandoff, "the task was told to stop, so nothing comes out of it any more", "release it")
	}
	for _, id := range t.Behind {
		from, ok, err := loadAgent(s, id)
		if err != nil {
			return next, err
		}
		if ok && from.Halt != nil && from.Halt.Revoked {
			return next, writ.Refuse(writ.CodeIllegal, opHandoff, "the agent this work comes from was revoked, and what it set going is taken back", "release the task")
		}
	}
	agent, ok, err := loadAgent(s, c.Caller.Agent)
	if err != nil {
		return next, err
	}
	if !ok {
		return next, notEligible("no_agent")
	}
	tool, declared := agent.Tool(next.Capability)
	outside := func(scope string) bool {
		return !slices.ContainsFunc(t.WriteScopes, func(own string) bool { return writ.ScopeCovers(own, scope) })
	}
	switch {
	case t.Budget != nil: // nothing would count what others take of it
		return next, tooMuch("budget")
	case !declared || tool.Safety == writ.SafetyBlocked:
		return next, tooMuch("capability")
	case slices.ContainsFunc(next.WriteScopes, outside):
		return next, tooMuch("write_scopes")
	case next.Priority > t.Priority:
		return next, tooMuch("priority")
	case next.MaxAttempts > t.MaxAttempts:
		return next, tooMuch("max_attempts")
	}
	next.Chain = append(slices.Clip(t.Chain), agent.ID)
	turns := 0
	for _, a := range next.Chain {
		if a == agent.ID {
			turns++
		}
	}
	if len(next.Chain) > maxChain || turns > maxTurns {
		return next, writ.Refuse(writ.CodeHandoffLoop, opHandoff, "the work has been handed on too often", "complete the task, or fail it and say why").
			With("agent", string(agent.ID))
	}
	if next, err = canonical(next); err != nil {
		return next, err
	}
	if next, err = e.fit(c, next, s, nil, a.Agents); err != nil {
		return next, err
	}
	for _, id := range t.Behind { // with them it is taken back, as what it comes from
		if !slices.Contains(next.Behind, id) {
			next.Behind = append(next.Behind, id)
		}
	}
	if rank(next.Safety) > rank(tool.Safety) {
		return next, tooMuch("safety")
	}
	if slices.ContainsFunc(next.Sinks, func(k writ.Sink) bool { return !slices.Contains(tool.Sinks, k) }) {
		return next, tooMuch("sinks")
	}
	return next, nil
}

// tooMuch refuses to hand on more than there is. The reasons are a closed list.
func tooMuch(reason string) error {
	return writ.Refuse(writ.CodeScope, opHandoff, "nobody hands on more than they may themselves", "see reason: ask for no more than the agent's own tools and the task at hand have").
		With("reason", reason)
}

// behindReads names who a task comes from, so that nothing comes out of it once
// they were revoked.
func behindReads(t writ.Task) (out []writ.Key) {
	for _, id := range t.Behind {
		out = append(out, writ.AgentKey(id))
	}
	return out
}
