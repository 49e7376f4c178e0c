package agents

import "github.com/writ-gateway/writ"

// Health judges how agents are, from counters and sessions, at the time of a
// snapshot. Nothing about it is stored that could be out of date.
type Health struct{}

// sessionsSeen is how many of an agent's sessions are looked at, newest first.
const sessionsSeen = 8

func newestSessions(id writ.AgentID) writ.Range {
	return writ.Range{Index: writ.AgentSessions(id), Limit: sessionsSeen, Desc: true}
}

// Reads names what Judge must see of an agent, given what has been read. self
// says that a session of it makes the call.
func (Health) Reads(s writ.Snapshot, id writ.AgentID, self bool) (writ.ReadSet, error) {
	key := writ.AgentKey(id)
	rs := writ.ReadSet{Docs: []writ.Key{key}}
	if !s.Has(key) {
		return rs, nil
	}
	agent, _, ok, err := writ.Get[writ.Agent](s, key)
	if err != nil || !ok {
		return rs, err
	}
	rule := agent.HealthRule()
	if rule.Mode.Probes() {
		for _, e := range agent.Endpoints {
			rs.Counters = append(rs.Counters, writ.HealthChecked(id, e.Name), writ.HealthResult(id, e.Name))
		}
	}
	if rule.Failures > 0 {
		rs.Counters = append(rs.Counters, writ.HealthFailures(id), writ.HealthTripped(id), writ.HealthOpened(id))
	}
	if rule.Mode.Beats() && !self {
		rs.Ranges = append(rs.Ranges, newestSessions(id))
		for _, m := range s.Ranges[newestSessions(id)].Members {
			rs.Docs = append(rs.Docs, writ.SessionKey(writ.SessionID(m.Name)))
		}
	}
	return rs, nil
}

// Judge says how an agent is. For a healthy one it adds to tx, if there is one,
// what keeps the commit from happening when that is no longer so.
func (Health) Judge(s writ.Snapshot, id writ.AgentID, self bool, tx *writ.Tx) (writ.AgentHealth, error) {
	agent, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id))
	if err != nil {
		return writ.AgentHealth{}, err
	}
	h := writ.AgentHealth{Agent: id, Status: writ.Unknown, Reason: writ.ReasonSession}
	if !ok {
		return h, nil
	}
	rule, guards := agent.HealthRule(), writ.Tx{}
	h.Mode, h.Status, h.Reason = rule.Mode, writ.Healthy, ""
	if rule.Mode.Probes() {
		probes(s, agent, rule, &h, &guards)
	}
	if h.Status == writ.Healthy && rule.Failures > 0 {
		breaker(s, id, rule, &h, &guards)
	}
	if h.Status == writ.Healthy && rule.Mode.Beats() && !self {
		alive, err := started(s, id)
		if err != nil {
			return h, err
		}
		if !alive {
			h.Status, h.Reason, h.RetryMs = writ.Unknown, writ.ReasonSession, beatRetryMs
		}
	}
	if h.Status == writ.Healthy && tx != nil {
		tx.Join(guards)
	}
	return h, nil
}

// beatRetryMs is when to ask again for an agent no session of which is started.
const beatRetryMs = 2000

// probes judges by what the endpoints last said.
func probes(s writ.Snapshot, agent writ.Agent, rule writ.HealthPolicy, h *writ.AgentHealth, guards *writ.Tx) {
	var pass, open, stale int64
	soonest := int64(0)
	for i, e := range agent.Endpoints {
		at := s.Counters[writ.HealthChecked(agent.ID, e.Name)]
		p := writ.Probe{Agent: agent.ID, Name: e.Name, Host: e.Host, State: writ.ProbeFail}
		got, known := writ.UnpackProbe(s.Counters[writ.HealthResult(agent.ID, e.Name)])
		counts := known && at > agent.HealthSince
		if counts {
			p.Code, p.LatencyMs, p.Reason, p.CheckedAt = got.Code, got.LatencyMs, got.Reason, writ.FormatTime(at)
		}
		switch until := at + rule.MaxAgeSeconds*1000; {
		case !counts:
			p.State, p.Reason, at = writ.ProbeUnknown, writ.ReasonNotProbed, 0
			open++
		case s.Now > until:
			p.State, p.Reason = writ.ProbeStale, writ.ReasonStale
			open, stale = open+1, stale+1
		case got.Reason == "":
			p.State = writ.ProbePass
			pass++
			guards.NotAfter(until)
		}
		guards.Within(writ.HealthChecked(agent.ID, e.Name), s.Counters[writ.HealthChecked(agent.ID, e.Name)], s.Counters[writ.HealthChecked(agent.ID, e.Name)])
		if i == 0 || at < h.CheckedAt {
			h.CheckedAt = at
		}
		if soonest == 0 || e.IntervalSeconds < soonest {
			soonest = e.IntervalSeconds
		}
		h.Probes = append(h.Probes, p)
	}
	want := rule.MinHealthy
	if want == 0 {
		want = int64(len(agent.Endpoints))
	}
	switch {
	case pass >= want:
		return
	case pass+open >= want && stale > 0:
		h.Status, h.Reason, h.Look = writ.Stale, writ.ReasonStale, true
	case pass+open >= want:
		h.Status, h.Reason, h.Look = writ.Unknown, writ.ReasonNotProbed, true
	case pass > 0:
		h.Status, h.Reason = writ.Degraded, writ.ReasonProbes
	default:
		h.Status, h.Reason = writ.Unhealthy, writ.ReasonProbes
	}
	h.RetryMs = soonest * 1000
}

// breaker refuses an agent whose tasks failed too often in a row. It opens with
// the failure that is one too many, and stays open until its time is over; the
// next failure opens it again.
func breaker(s writ.Snapshot, id writ.AgentID, rule writ.HealthPolicy, h *writ.AgentHealth, guards *writ.Tx) {
	failures := s.Counters[writ.HealthFailures(id)]
	h.Failures = failures
	if failures < rule.Failures {
		guards.Within(writ.HealthFailures(id), 0, rule.Failures-1)
		return
	}
	tripped, until := s.Counters[writ.HealthTripped(id)], s.Counters[writ.HealthOpened(id)]+rule.CoolDownSeconds*1000
	if tripped == failures && s.Now >= until { // one may try
		guards.Within(writ.HealthFailures(id), failures, failures)
		return
	}
	h.Status, h.Reason, h.RetryMs = writ.Degraded, writ.ReasonBreaker, rule.CoolDownSeconds*1000
	if tripped == failures {
		h.RetryMs = until - s.Now
	}
}

// started says whether one of the newest sessions of an agent is started and
// was heard in time: one that was not is suspended.
func started(s writ.Snapshot, id writ.AgentID) (bool, error) {
	for _, m := range s.Ranges[newestSessions(id)].Members {
		ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(writ.SessionID(m.Name)))
		if err != nil {
			return false, err
		}
		if ok && ses.State == writ.SessionActive && s.Now < ses.ExpiresAt {
			return true, nil
		}
	}
	return false, nil
}
