package queue

import (
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// unfit says why an agent may not run a task; "" when it may. The reasons are
// a closed list.
func unfit(a writ.Agent, t writ.Task) string {
	tool, declared := a.Tool(t.Capability)
	switch {
	case a.State != writ.AgentActive:
		return "agent_inactive"
	case !a.Archetype(writ.RoleExecutor):
		return "archetype"
	case !declared:
		return "capability"
	case tool.Safety == writ.SafetyBlocked:
		return "capability_blocked"
	case a.Domain != t.Domain:
		return "domain"
	case len(t.Agents) > 0 && !slices.Contains(t.Agents, a.ID):
		return "required_agents"
	case !t.Budget.Affords(tool.Costs):
		return "budget"
	}
	return ""
}

// Agents that might run a new task are looked at in two steps: most
// capabilities are declared by a few agents.
const (
	fewCandidates  = 16
	manyCandidates = 64
)

// toolRange lists the active agents that declare a capability.
func toolRange(c writ.CapabilityID) writ.Range {
	return writ.Range{Index: writ.IndexTools, From: string(c) + " ", To: string(c) + "!", Limit: manyCandidates}
}

// candidates are the agents that might run a task: those it names, else those
// that declare its capability.
func candidates(s writ.Snapshot, t writ.Task) []writ.AgentID {
	if len(t.Agents) > 0 {
		return t.Agents
	}
	var out []writ.AgentID
	for _, m := range s.Ranges[toolRange(t.Capability)].Members {
		_, id, _ := strings.Cut(m.Name, " ")
		out = append(out, writ.AgentID(id))
	}
	return out
}

// candidateReads names the documents of the first few candidates, and of all
// when none of those fits.
func candidateReads(s writ.Snapshot, t writ.Task) ([]writ.Key, error) {
	ids := candidates(s, t)
	few := ids[:min(len(ids), fewCandidates)]
	var out []writ.Key
	for _, id := range few {
		out = append(out, writ.AgentKey(id))
	}
	if len(ids) == len(few) || !s.Has(out[0]) {
		return out, nil
	}
	fit, err := fitting(s, t)
	if err != nil || len(fit) > 0 {
		return out, err
	}
	for _, id := range ids[len(few):] {
		out = append(out, writ.AgentKey(id))
	}
	return out, nil
}

// fitting are the candidates, as far as read, that may run a task.
func fitting(s writ.Snapshot, t writ.Task) ([]writ.Agent, error) {
	var out []writ.Agent
	for _, id := range candidates(s, t) {
		a, ok, err := peek[writ.Agent](s, writ.AgentKey(id))
		if err != nil {
			return nil, err
		}
		if ok && unfit(a, t) == "" {
			out = append(out, a)
		}
	}
	return out, nil
}

// expose raises what a task is treated as by what an agent's tool can do.
func expose(t *writ.Task, tool writ.Tool) {
	if rank(tool.Safety) > rank(t.Safety) {
		t.Safety = tool.Safety
	}
	if tool.Approval == writ.ApprovalManual {
		t.Approval = writ.ApprovalManual
	}
	for _, sink := range tool.Sinks {
		if !slices.Contains(t.Sinks, sink) {
			t.Sinks = append(slices.Clip(t.Sinks), sink)
		}
	}
	slices.Sort(t.Sinks)
}

// rank orders safety; what is unknown counts as destructive.
func rank(s writ.Safety) int {
	switch s {
	case "":
		return 0
	case writ.SafetyReadOnly:
		return 1
	case writ.SafetyMutating:
		return 2
	}
	return 3
}
