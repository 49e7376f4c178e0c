package agents

import (
	"maps"

	"github.com/writ-gateway/writ"
)

// AgentHealthRecordArgs say what a look at an endpoint gave; without an endpoint
// they ask for what became of the agent's breaker.
type AgentHealthRecordArgs struct {
	AgentID   writ.AgentID      `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Endpoint  string            `json:"endpoint,omitempty" doc:"Name of the endpoint that was looked at." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Since     int64             `json:"since,omitempty" doc:"Registration the look was about." minimum:"0"`
	Begun     int64             `json:"begun,omitempty" doc:"When the look began, milliseconds." minimum:"0"`
	Code      int64             `json:"http_code,omitempty" doc:"Status it answered with." minimum:"0" maximum:"999"`
	LatencyMs int64             `json:"latency_ms,omitempty" doc:"How long it took, milliseconds." minimum:"0"`
	Reason    writ.HealthReason `json:"reason,omitempty" doc:"Why it did not pass; absent when it did." enum:"unexpected_code,redirect,timeout,connect,tls,name,address_denied,protocol"`
}

// AgentHealthRecorded is the status that is recorded now.
type AgentHealthRecorded struct {
	Status writ.HealthStatus `json:"status,omitempty" doc:"The recorded status." enum:"healthy,degraded,unhealthy"`
}

// healthRecord notes what probes and tasks show of an agent. Only a change of
// its status is a fact; all else moves counters.
func healthRecord() *writ.Capability {
	return writ.Define[AgentHealthRecordArgs, AgentHealthRecorded](writ.Capability{
		ID: "agent.health.record", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Record what was seen of an agent's health.",
	}, writ.Verb[AgentHealthRecordArgs]{
		Locks: func(_ *writ.Call, a *AgentHealthRecordArgs) []writ.Key { return []writ.Key{writ.HealthKey(a.AgentID)} },
		Reads: func(_ *writ.Call, a *AgentHealthRecordArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := Health{}.Reads(s, a.AgentID, true)
			rs.Docs = append(rs.Docs, writ.HealthKey(a.AgentID))
			return rs, err
		},
		Plan: func(call *writ.Call, a *AgentHealthRecordArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			p := recording{call: call, args: a, now: s}
			p.now.Counters = maps.Clone(s.Counters)
			p.tx.Mandate = true
			status, err := p.plan(s)
			return p.tx, writ.Reply{Outcome: writ.OutcomeDone, Body: AgentHealthRecorded{status}}, err
		},
	})
}

// recording plans one record. now is the snapshot as the commit leaves it.
type recording struct {
	call *writ.Call
	args *AgentHealthRecordArgs
	tx   writ.Tx
	now  writ.Snapshot
}

// set moves a counter, guarded by the value seen.
func (p *recording) set(c writ.Counter, v int64) {
	seen := p.now.Counters[c]
	p.tx.Within(c, seen, seen)
	if v != seen {
		p.tx.Add(c, v-seen)
		p.now.Counters[c] = v
	}
}

func (p *recording) plan(s writ.Snapshot) (writ.HealthStatus, error) {
	id := p.args.AgentID
	agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
	if err != nil {
		return "", err
	}
	if p.args.Endpoint != "" {
		if end, has := agent.Endpoint(p.args.Endpoint); !ok || !has || agent.State != writ.AgentActive {
			p.tx.Unindex(writ.IndexProbes, writ.ProbeMember(id, p.args.Endpoint))
			return "", nil
		} else if !p.probed(agent, end) {
			return "", nil
		}
	}
	rule := agent.HealthRule()
	if rule.Failures == 0 {
		p.tx.Unindex(writ.IndexTodo, writ.TodoHealth(id))
	} else {
		p.breaker(agent, rule)
	}
	return p.status(agent)
}

// probed notes the result of a look. It says whether it counts: it is about the
// registration there is, and none that began later was noted before.
func (p *recording) probed(agent writ.Agent, end writ.Endpoint) bool {
	at := writ.HealthChecked(agent.ID, end.Name)
	if p.args.Since != agent.HealthSince || p.args.Begun < p.now.Counters[at] {
		return false
	}
	result := writ.ProbeResult{Code: p.args.Code, LatencyMs: p.args.LatencyMs, Reason: p.args.Reason}
	p.set(at, max(p.now.Now, agent.HealthSince+1, p.now.Counters[at]+1))
	p.set(writ.HealthResult(agent.ID, end.Name), result.Packed())
	return true
}

// breaker opens or closes the breaker, and asks to be called again when its time
// is over.
func (p *recording) breaker(agent writ.Agent, rule writ.HealthPolicy) {
	failures, tripped, opened := writ.HealthFailures(agent.ID), writ.HealthTripped(agent.ID), writ.HealthOpened(agent.ID)
	n := p.now.Counters[failures]
	p.tx.Within(failures, n, n)
	switch {
	case n < rule.Failures:
		p.set(tripped, 0)
	case n != p.now.Counters[tripped]:
		p.set(tripped, n)
		p.set(opened, p.now.Now)
	case p.args.Endpoint != "" && p.args.Begun > p.now.Counters[opened] && p.passes(agent, rule):
		p.set(failures, 0)
		p.set(tripped, 0)
	}
	until := p.now.Counters[opened] + rule.CoolDownSeconds*1000
	if p.now.Counters[tripped] > 0 && p.now.Now < until {
		p.tx.Index(writ.IndexTodo, writ.TodoHealth(agent.ID), until)
	} else {
		p.tx.Unindex(writ.IndexTodo, writ.TodoHealth(agent.ID))
	}
}

// breakerOf is what a breaker is judged by.
func breakerOf(id writ.AgentID) []writ.Counter {
	return []writ.Counter{writ.HealthFailures(id), writ.HealthTripped(id)}
}

// breakerAnew forgets the failures before a registration. Else a policy that allows
// fewer of them would find a breaker open that nothing closes: what opened it was no
// failure, so nothing was noted from which its time runs.
func breakerAnew(tx *writ.Tx, s writ.Snapshot, id writ.AgentID) {
	for _, c := range breakerOf(id) {
		if n := s.Counters[c]; n != 0 {
			tx.Within(c, n, n)
			tx.Add(c, -n)
			tx.Index(writ.IndexTodo, writ.TodoHealth(id), s.Now)
		}
	}
}

// passes says whether the endpoints alone would have the agent be healthy.
func (p *recording) passes(agent writ.Agent, rule writ.HealthPolicy) bool {
	h := writ.AgentHealth{Status: writ.Healthy}
	probes(p.now, agent, rule, &h, &writ.Tx{})
	return h.Status == writ.Healthy
}

// status records what the agent is now, if that is another than is recorded.
func (p *recording) status(agent writ.Agent) (writ.HealthStatus, error) {
	h, err := Health{}.Judge(p.now, agent.ID, true, nil)
	if err != nil {
		return "", err
	}
	key := writ.HealthKey(agent.ID)
	old, _, was, err := writ.Get[writ.Health](p.now, key)
	if err != nil {
		return "", err
	}
	switch {
	case h.Status == writ.Unknown || h.Status == writ.Stale: // others are yet to be looked at
		return old.Status, nil
	case was && old.Status == h.Status && old.Since == agent.HealthSince:
		return old.Status, nil
	case !was && h.Status == writ.Healthy && !h.Mode.Probes(): // nothing was ever amiss
		return "", nil
	}
	p.tx.Move(writ.ObjectHealth, string(agent.ID), string(old.Status), string(h.Status))
	return h.Status, p.tx.PutDoc(p.now, key, writ.ObjectHealth, writ.Health{
		Agent: agent.ID, Status: h.Status, Since: agent.HealthSince, UpdatedAt: p.now.Now, Receipt: receipt(p.call),
	})
}
