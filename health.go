package writ

import "slices"

// HealthMode says what tells whether an agent is healthy.
type HealthMode string

const (
	HealthEndpoints HealthMode = "endpoints" // its endpoints answer as they should
	HealthHeartbeat HealthMode = "heartbeat" // a session of it is started and was heard in time; the default
	HealthBoth      HealthMode = "both"      // both of them
	HealthNone      HealthMode = "none"      // nobody looks
)

// HealthPolicy says what an agent must show before work is given to it.
type HealthPolicy struct {
	Mode            HealthMode `json:"mode"`
	MaxAgeSeconds   int64      `json:"max_age_s"`   // how long a probe counts
	MinHealthy      int64      `json:"min_healthy"` // endpoints that must pass; 0: all
	Failures        int64      `json:"failures"`    // tasks that fail for reasons outside, in a row, before the breaker opens; 0: no breaker
	CoolDownSeconds int64      `json:"cool_down_s"` // how long it stays open
}

// Endpoint is an address of an agent that is asked whether it works. The
// address may hold a secret: it is shown to nobody but by its host.
type Endpoint struct {
	Name            string  `json:"name"`
	URL             string  `json:"url"`
	Host            string  `json:"host"`            // of the URL, with its port if it names one
	Codes           []int64 `json:"codes,omitempty"` // statuses that pass; none: 200 to 299
	TimeoutMs       int64   `json:"timeout_ms"`
	IntervalSeconds int64   `json:"interval_s"`
}

// MaxEndpoints is how many endpoints an agent may have.
const MaxEndpoints = 8

// HealthRule is the policy an agent is judged by: without one of its own its
// sessions speak for it.
func (a Agent) HealthRule() HealthPolicy {
	switch {
	case a.Health != nil:
		return *a.Health
	default:
		return HealthPolicy{Mode: HealthHeartbeat}
	}
}

// Probes says whether endpoints tell, Beats whether sessions do.
func (m HealthMode) Probes() bool { return m == HealthEndpoints || m == HealthBoth }
func (m HealthMode) Beats() bool  { return m == HealthHeartbeat || m == HealthBoth }

// Endpoint finds an endpoint.
func (a Agent) Endpoint(name string) (Endpoint, bool) {
	i := slices.IndexFunc(a.Endpoints, func(e Endpoint) bool { return e.Name == name })
	if i < 0 {
		return Endpoint{}, false
	}
	return a.Endpoints[i], true
}

// HealthStatus is how an agent is. Only a healthy one gets work.
type HealthStatus string

const (
	Healthy   HealthStatus = "healthy"
	Degraded  HealthStatus = "degraded"  // some endpoints pass and too few, or the breaker is open
	Unhealthy HealthStatus = "unhealthy" // no endpoint passes
	Unknown   HealthStatus = "unknown"   // nobody has looked yet, or no session of it is started
	Stale     HealthStatus = "stale"     // nobody has looked for too long
)

// HealthMoves are the moves of what is recorded of an agent's health: what
// probes and its tasks show. Unknown and stale come by time and by sessions, and
// are not recorded. A status is recorded again when the agent was registered
// anew.
var HealthMoves = Table[HealthStatus]{
	"":        {Healthy, Degraded, Unhealthy},
	Healthy:   {Healthy, Degraded, Unhealthy},
	Degraded:  {Healthy, Degraded, Unhealthy},
	Unhealthy: {Healthy, Degraded, Unhealthy},
}

// Health is what was last recorded of an agent. It changes only when the status
// does: when endpoints were looked at, what each said, and what its tasks came
// to are counters.
type Health struct {
	Agent     AgentID      `json:"agent"`
	Status    HealthStatus `json:"status"`
	Since     int64        `json:"since"`      // the registration it is about, see Agent.HealthSince
	UpdatedAt int64        `json:"updated_at"` // milliseconds
	Receipt   ReceiptID    `json:"receipt"`
}

// HealthReason says why an agent, or one of its endpoints, does not pass (closed
// list; the order is stored, so new ones come last).
type HealthReason string

const (
	ReasonCode      HealthReason = "unexpected_code" // it answered with a status that does not pass
	ReasonRedirect  HealthReason = "redirect"        // it sent elsewhere, which is not followed
	ReasonTimeout   HealthReason = "timeout"         // no answer in time
	ReasonConnect   HealthReason = "connect"         // no connection
	ReasonTLS       HealthReason = "tls"             // its certificate is not good, or it speaks no TLS
	ReasonName      HealthReason = "name"            // its name has no address
	ReasonAddress   HealthReason = "address_denied"  // its address is private, and the operator did not grant it
	ReasonProtocol  HealthReason = "protocol"        // it answered something that is no HTTP
	ReasonNotProbed HealthReason = "not_probed"      // nobody has looked since it was registered
	ReasonStale     HealthReason = "stale"           // the last look is too old
	ReasonSession   HealthReason = "no_session"      // no session of the agent is started
	ReasonBreaker   HealthReason = "breaker_open"    // too many of its tasks failed for reasons outside
	ReasonProbes    HealthReason = "probes"          // too few of its endpoints pass
)

// probeReasons are those a probe can have; the first is none.
var probeReasons = []HealthReason{"", ReasonCode, ReasonRedirect, ReasonTimeout, ReasonConnect, ReasonTLS, ReasonName, ReasonAddress, ReasonProtocol}

// ProbeReasons lists why a probe can fail.
func ProbeReasons() []HealthReason { return slices.Clone(probeReasons[1:]) }

// HealthReasons lists every reason.
func HealthReasons() []HealthReason {
	return append(ProbeReasons(), ReasonNotProbed, ReasonStale, ReasonSession, ReasonBreaker, ReasonProbes)
}

// ProbeResult is what one look at an endpoint gave. It passes without a reason.
type ProbeResult struct {
	Code      int64
	LatencyMs int64
	Reason    HealthReason
}

// Packed is the result as one number, for a counter; 0 is no result.
func (r ProbeResult) Packed() int64 {
	i := slices.Index(probeReasons, r.Reason)
	if i < 0 {
		i = slices.Index(probeReasons, ReasonProtocol)
	}
	return int64(i+1)*1_000_000_000 + min(max(r.Code, 0), 999)*1_000_000 + min(max(r.LatencyMs, 0), 999_999)
}

// UnpackProbe reads a counter; ok is false where there is no result.
func UnpackProbe(n int64) (r ProbeResult, ok bool) {
	i := n/1_000_000_000 - 1
	if i < 0 || i >= int64(len(probeReasons)) {
		return ProbeResult{}, false
	}
	return ProbeResult{Code: n / 1_000_000 % 1000, LatencyMs: n % 1_000_000, Reason: probeReasons[i]}, true
}

// ProbeState is how an endpoint is.
type ProbeState string

const (
	ProbePass    ProbeState = "pass"
	ProbeFail    ProbeState = "fail"
	ProbeUnknown ProbeState = "unknown" // not looked at since it was registered
	ProbeStale   ProbeState = "stale"   // looked at too long ago
)

// Probe is an endpoint as callers see it.
type Probe struct {
	Agent     AgentID      `json:"agent_id" doc:"The agent."`
	Name      string       `json:"name" doc:"Name of the endpoint."`
	Host      string       `json:"url_host" doc:"Host of its address; the rest is not shown."`
	State     ProbeState   `json:"state" doc:"Whether it passes." enum:"pass,fail,unknown,stale"`
	Code      int64        `json:"http_code,omitempty" doc:"Status it last answered with."`
	LatencyMs int64        `json:"latency_ms" doc:"How long the last answer took, in milliseconds."`
	Reason    HealthReason `json:"reason,omitempty" doc:"Why it does not pass." enum:"unexpected_code,redirect,timeout,connect,tls,name,address_denied,protocol,not_probed,stale"`
	CheckedAt string       `json:"checked_at,omitempty" doc:"When it was last looked at (RFC 3339, UTC)."`
}

// AgentHealth is how an agent is at the time of a snapshot.
type AgentHealth struct {
	Agent     AgentID
	Mode      HealthMode
	Status    HealthStatus
	Reason    HealthReason // "" when it is healthy
	CheckedAt int64        // the oldest look it rests on, milliseconds; 0: none
	Probes    []Probe
	Failures  int64 // tasks in a row that failed for reasons outside
	Look      bool  // a look at its endpoints now may say something else
	RetryMs   int64 // when asking again may give another answer
}

// ProbeJob is an endpoint somebody is to look at.
type ProbeJob struct {
	Agent    AgentID
	Endpoint Endpoint
	Known    bool  // the agent is active and has such an endpoint
	Since    int64 // of its registration
	Due      int64 // the counter HealthDue, as read
	Seen     int64 // the counter HealthChecked, as read
	Now      int64 // of the store, when it was read
}

// Where health is kept. HealthFailures counts failed tasks in a row,
// HealthTripped is that count when the breaker was opened, HealthOpened when it was.
func HealthKey(id AgentID) Key { return Key("health/" + string(id)) }

func HealthFailures(id AgentID) Counter { return Counter{"health/" + string(id), "failures"} }

func HealthTripped(id AgentID) Counter { return Counter{"health/" + string(id), "tripped"} }

func HealthOpened(id AgentID) Counter { return Counter{"health/" + string(id), "opened"} }

func HealthChecked(id AgentID, end string) Counter {
	return Counter{"health/" + string(id), "at." + end}
}

func HealthResult(id AgentID, end string) Counter {
	return Counter{"health/" + string(id), "got." + end}
}

func HealthDue(id AgentID, end string) Counter { return Counter{"health/" + string(id), "due." + end} }

// IndexProbes holds "<agent> <endpoint>" of active agents, score: when somebody
// is to look at it next.
const IndexProbes Index = "due/probe"

// ProbeMember is an endpoint as a member of IndexProbes.
func ProbeMember(id AgentID, end string) string { return string(id) + " " + end }

// TodoHealth is the follow-up that records what became of an agent's breaker.
func TodoHealth(id AgentID) string { return "health " + string(id) }
