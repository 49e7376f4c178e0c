package agents

import "github.com/writ-gateway/writ"

// AgentHealthArgs name the agent.
type AgentHealthArgs struct {
	AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
}

// AgentHealthView is how an agent is now.
type AgentHealthView struct {
	AgentID   writ.AgentID      `json:"agent_id" doc:"The agent."`
	Mode      writ.HealthMode   `json:"mode" doc:"What tells." enum:"endpoints,heartbeat,both,none"`
	Status    writ.HealthStatus `json:"status" doc:"How it is. Only a healthy agent gets work, and no task that names another." enum:"healthy,degraded,unhealthy,unknown,stale"`
	Reason    writ.HealthReason `json:"reason,omitempty" doc:"Why it is not healthy." enum:"not_probed,stale,no_session,breaker_open,probes"`
	CheckedAt string            `json:"checked_at,omitempty" doc:"The oldest look this rests on (RFC 3339, UTC)."`
	AgeMs     *int64            `json:"age_ms,omitempty" doc:"How long ago that was, in milliseconds."`
	AgeS      *int64            `json:"age_s,omitempty" doc:"The same in whole seconds."`
	MaxAge    int64             `json:"max_age_s,omitempty" doc:"How old it may be."`
	Probes    []writ.Probe      `json:"probes" doc:"Its endpoints."`
	Failures  int64             `json:"failures" doc:"Tasks in a row that failed for reasons outside."`
	Receipt   writ.ReceiptID    `json:"receipt,omitempty" doc:"Receipt of the last change of the status by probes or tasks."`
}

func health() *writ.Capability {
	return writ.Define[AgentHealthArgs, AgentHealthView](writ.Capability{
		ID: "agent.health", Safety: writ.SafetyReadOnly, Summary: "Show whether an agent is healthy, and what that rests on.",
		Example: `{"agent_id":"site-builder"}`,
	}, writ.Verb[AgentHealthArgs]{
		Reads: func(_ *writ.Call, a *AgentHealthArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := Health{}.Reads(s, a.AgentID, false)
			rs.Docs = append(rs.Docs, writ.HealthKey(a.AgentID))
			return rs, err
		},
		Plan: func(_ *writ.Call, a *AgentHealthArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			if !ok {
				return tx, r, noAgent("agents.Health")
			}
			h, err := Health{}.Judge(s, a.AgentID, false, nil)
			if err != nil {
				return tx, r, err
			}
			recorded, _, _, err := writ.Get[writ.Health](s, writ.HealthKey(a.AgentID))
			if err != nil {
				return tx, r, err
			}
			v := AgentHealthView{
				AgentID: a.AgentID, Mode: h.Mode, Status: h.Status, Reason: h.Reason, Probes: h.Probes,
				Failures: s.Counters[writ.HealthFailures(a.AgentID)], Receipt: recorded.Receipt,
			}
			if v.Probes == nil {
				v.Probes = []writ.Probe{}
			} else {
				v.MaxAge = agent.HealthRule().MaxAgeSeconds
			}
			if h.CheckedAt > 0 {
				age := max(0, s.Now-h.CheckedAt)
				seconds := age / 1000
				v.CheckedAt, v.AgeMs, v.AgeS = writ.FormatTime(h.CheckedAt), &age, &seconds
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: v}, nil
		},
	})
}
