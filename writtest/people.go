package writtest

import (
	"encoding/binary"

	"github.com/writ-gateway/writ"
)

// System is the gateway itself, as mandates are called.
func (w *World) System() writ.Caller {
	return writ.Caller{Tenant: w.Tenant, Kind: writ.KindSystem, Role: writ.RoleSystem}
}

// NewID makes an id that no call derives.
func (w *World) NewID(prefix string) string {
	w.calls++
	var e [10]byte
	e[0] = 0xff
	binary.BigEndian.PutUint64(e[2:], uint64(w.calls))
	return writ.MakeID(prefix, w.Now, e)
}

// Open stores an active session for a principal and returns its caller.
// agent may be empty; the agent's document is not made.
func (w *World) Open(role writ.Role, principal writ.PrincipalID, agent writ.AgentID) writ.Caller {
	kind, ttl := writ.KindHuman, int64(0)
	if agent != "" {
		kind, ttl = writ.KindAgent, writ.SessionDefaultTTLSeconds
	}
	s := writ.Session{
		ID: writ.SessionID(w.NewID(writ.PrefixSession)), Principal: principal, Kind: kind, Role: role, Agent: agent,
		State: writ.SessionActive, TTLSeconds: ttl, ExpiresAt: w.Now + writ.SessionMaxLifeSeconds*1000,
		CreatedAt: w.Now, UpdatedAt: w.Now, Receipt: writ.ReceiptID(w.NewID(writ.PrefixReceipt)),
	}
	w.Seed(writ.SessionKey(s.ID), writ.ObjectSession, s)
	w.SetIndex(writ.IndexSessions, string(s.ID), 0)
	w.SetIndex(writ.IndexLives, string(s.ID), s.ExpiresAt)
	if agent != "" {
		w.SetIndex(writ.AgentSessions(agent), string(s.ID), 0)
	}
	return writ.Caller{Tenant: w.Tenant, Principal: principal, Kind: kind, Role: role, Session: s.ID, Agent: agent}
}

// Agent stores an active agent of all three archetypes with tools of safety
// mutating, indexes the tools and returns the document.
func (w *World) Agent(id writ.AgentID, domain string, tools ...writ.CapabilityID) writ.Agent {
	a := writ.Agent{
		ID: id, Archetypes: []writ.Role{writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier}, Domain: domain,
		State: writ.AgentActive, MaxConcurrent: 4, CreatedAt: w.Now, UpdatedAt: w.Now,
		Receipt: writ.ReceiptID(w.NewID(writ.PrefixReceipt)),
	}
	for _, t := range tools {
		a.Tools = append(a.Tools, writ.Tool{Name: t, Safety: writ.SafetyMutating})
		w.SetIndex(writ.IndexTools, string(t)+" "+string(id), 0)
	}
	w.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
	w.SetIndex(writ.IndexAgents, string(id), 0)
	return a
}

// Run stores an active run with a budget of steps and returns the document.
func (w *World) Run(owner writ.PrincipalID, steps int64) writ.Run {
	r := writ.Run{
		ID: writ.RunID(w.NewID(writ.PrefixRun)), State: writ.RunActive, ClosePolicy: writ.CloseAuto,
		Budget: map[string]int64{writ.BudgetSteps: steps}, Owner: owner, OwnerRole: writ.RoleOrchestrator,
		CreatedAt: w.Now, UpdatedAt: w.Now, Receipt: writ.ReceiptID(w.NewID(writ.PrefixReceipt)),
	}
	w.Seed(writ.RunKey(r.ID), writ.ObjectRun, r)
	w.SetIndex(writ.IndexRuns, string(r.ID), 0)
	return r
}
