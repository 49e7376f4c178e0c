package queue

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// What a task is about, and whose that is. A concern is what the enqueuer says and
// what the tools say that could run it: nobody gets round an owner by leaving it out
// or by naming another one. Rules see two facts, owned_elsewhere and deferred; the
// refusal names the agent.

// concernsOf are the concerns of a task for these agents, each once.
func concernsOf(t writ.Task, agents ...writ.Agent) (out []string) {
	if t.Concern != "" {
		out = append(out, t.Concern)
	}
	for _, a := range agents {
		if tool, ok := a.Tool(t.Capability); ok && tool.Concern != "" && !slices.Contains(out, tool.Concern) {
			out = append(out, tool.Concern)
		}
	}
	return out
}

// describeDeferral says whether the caller's agent leaves the task to another.
func describeDeferral(c *writ.Call, s writ.Snapshot, t writ.Task, f *writ.TaskFacts) error {
	if c.Caller.Agent == "" || !s.Has(writ.AgentKey(c.Caller.Agent)) {
		return nil
	}
	a, ok, err := loadAgent(s, c.Caller.Agent)
	if err != nil || !ok {
		return err
	}
	for _, concern := range concernsOf(t, a) {
		if to, ok := a.DefersTo(concern); ok {
			f.Deferred, f.BelongsTo = true, to
			return nil
		}
	}
	return nil
}

// ownerRanges are where the owners of a new task's concerns are looked up.
func ownerRanges(s writ.Snapshot, t writ.Task) (out []writ.Range, err error) {
	fit, err := fitting(s, t)
	for _, concern := range concernsOf(t, fit...) {
		out = append(out, writ.OwnerRange(t.Domain, concern))
	}
	return out, err
}

// owner is the one active agent in such a range, as far as read.
func owner(s writ.Snapshot, r writ.Range) writ.AgentID {
	for _, m := range s.Ranges[r].Members {
		return writ.AgentID(m.Name[len(r.From):])
	}
	return ""
}

// ownerReads names the owners of a new task's concerns. Their documents are what a
// refusal is held to: the index has no version.
func ownerReads(s writ.Snapshot, t writ.Task) (rs writ.ReadSet, err error) {
	rs.Ranges, err = ownerRanges(s, t)
	for _, r := range rs.Ranges {
		if id := owner(s, r); id != "" {
			rs.Docs = append(rs.Docs, writ.AgentKey(id))
		}
	}
	return rs, err
}

// describeOwner says whether a new task is another agent's business: one owns what
// it is about, did not enqueue it, and is not the only one who may take it.
func describeOwner(c *writ.Call, s writ.Snapshot, t writ.Task, f *writ.TaskFacts) error {
	ranges, err := ownerRanges(s, t)
	for _, r := range ranges {
		id := owner(s, r)
		if id == "" || id == c.Caller.Agent || len(t.Agents) == 1 && t.Agents[0] == id {
			continue
		}
		f.OwnedElsewhere, f.BelongsTo = true, id
		return err
	}
	return err
}

// guardOwners keeps the commit from coming after another agent became an owner.
func (d *draft) guardOwners(s writ.Snapshot, t writ.Task) error {
	ranges, err := ownerRanges(s, t)
	for _, r := range ranges {
		d.tx.Free(r.Index, r.From, r.To, string(owner(s, r)))
	}
	return err
}
