package agents

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// AgentEndpoint is an address of the agent that is asked whether it works.
type AgentEndpoint struct {
	URL             string  `json:"url" doc:"Address that is asked with GET, https or http. It is kept, and shown to nobody but by its host. Redirects are not followed, and a private address wants a grant by the operator." minLength:"8" maxLength:"1024"`
	Codes           []int64 `json:"expected_http_codes,omitempty" doc:"Statuses that pass. Default: 200 to 299." minItems:"1" maxItems:"16" minimum:"100" maximum:"599"`
	TimeoutMs       int64   `json:"timeout_ms,omitempty" doc:"How long an answer may take, in milliseconds." default:"3000" minimum:"10" maximum:"10000"`
	IntervalSeconds int64   `json:"interval_s,omitempty" doc:"How often it is asked, in seconds." default:"10" minimum:"1" maximum:"3600"`
}

// AgentHealthPolicy says what an agent must show before it gets work.
type AgentHealthPolicy struct {
	Mode            writ.HealthMode `json:"mode,omitempty" doc:"What tells that it is healthy: its endpoints, a started session that is heard in time (heartbeat), both, or nothing (none). Default: endpoints when it has some, else heartbeat." enum:"endpoints,heartbeat,both,none"`
	MaxAgeSeconds   int64           `json:"max_age_s,omitempty" doc:"How long an answer of an endpoint counts, in seconds. An older one is asked for again before work is given." default:"30" minimum:"1" maximum:"3600"`
	MinHealthy      int64           `json:"min_healthy,omitempty" doc:"How many endpoints must pass. Default: all." minimum:"1" maximum:"8"`
	Failures        *int64          `json:"failures,omitempty" doc:"Tasks in a row that fail for reasons outside (class external, or a lease that ran out) before it gets no more for a while; 0: never. Default 5." minimum:"0" maximum:"100"`
	CoolDownSeconds int64           `json:"cool_down_s,omitempty" doc:"How long that is, in seconds, unless its endpoints pass before." default:"60" minimum:"1" maximum:"3600"`
}

// Defaults of what an agent says of its health.
const (
	defaultTimeoutMs = 3000
	defaultInterval  = 10
	defaultMaxAge    = 30
	defaultFailures  = 5
	defaultCoolDown  = 60
)

// health brings what a registration says of the agent's health into its stored
// form, and finds what is wrong with it.
func (a *AgentRegisterArgs) health() (ends []writ.Endpoint, policy *writ.HealthPolicy, wrong []writ.FieldError) {
	bad := func(pointer, msg string) { wrong = append(wrong, writ.FieldError{Pointer: pointer, Msg: msg}) }
	if len(a.Endpoints) > writ.MaxEndpoints {
		bad("/endpoints", "are more than "+strconv.Itoa(writ.MaxEndpoints))
	}
	for name, in := range a.Endpoints {
		if !writ.ValidSlug(name) {
			bad("/endpoints", "must have slugs as names") // which are not repeated here
			continue
		}
		at := "/endpoints/" + name
		e := writ.Endpoint{
			Name: name, URL: in.URL, Codes: slices.Clone(in.Codes),
			TimeoutMs: cmp.Or(in.TimeoutMs, defaultTimeoutMs), IntervalSeconds: cmp.Or(in.IntervalSeconds, defaultInterval),
		}
		var why string
		if e.Host, why = probeHost(in.URL); why != "" {
			bad(at+"/url", why)
		}
		if e.TimeoutMs < 10 || e.TimeoutMs > 10_000 {
			bad(at+"/timeout_ms", "must be 10 to 10000")
		}
		if e.IntervalSeconds < 1 || e.IntervalSeconds > 3600 {
			bad(at+"/interval_s", "must be 1 to 3600")
		}
		for i, c := range e.Codes {
			if c < 100 || c > 599 || slices.Contains(e.Codes[:i], c) {
				bad(at+"/expected_http_codes/"+strconv.Itoa(i), "must be a status from 100 to 599, named once")
			}
		}
		slices.Sort(e.Codes)
		ends = append(ends, e)
	}
	slices.SortFunc(ends, func(x, y writ.Endpoint) int { return strings.Compare(x.Name, y.Name) })
	if a.Health != nil || len(ends) > 0 {
		policy = a.Health.stored(len(ends), bad)
	}
	slices.SortFunc(wrong, func(x, y writ.FieldError) int { return strings.Compare(x.Pointer, y.Pointer) })
	return ends, policy, wrong
}

// stored fills in the defaults of a policy, nil for none, of an agent with so
// many endpoints.
func (p *AgentHealthPolicy) stored(ends int, bad func(pointer, msg string)) *writ.HealthPolicy {
	if p == nil {
		p = &AgentHealthPolicy{}
	}
	out := &writ.HealthPolicy{
		Mode: p.Mode, MaxAgeSeconds: cmp.Or(p.MaxAgeSeconds, defaultMaxAge), MinHealthy: p.MinHealthy,
		Failures: defaultFailures, CoolDownSeconds: cmp.Or(p.CoolDownSeconds, defaultCoolDown),
	}
	if p.Failures != nil {
		out.Failures = *p.Failures
	}
	if out.Mode == "" {
		out.Mode = writ.HealthHeartbeat
		if ends > 0 {
			out.Mode = writ.HealthEndpoints
		}
	}
	within := func(field string, v, lo, hi int64) {
		if v < lo || v > hi {
			bad("/health_policy/"+field, "must be "+strconv.FormatInt(lo, 10)+" to "+strconv.FormatInt(hi, 10))
		}
	}
	within("max_age_s", out.MaxAgeSeconds, 1, 3600)
	within("failures", out.Failures, 0, 100)
	within("cool_down_s", out.CoolDownSeconds, 1, 3600)
	switch out.Mode {
	case writ.HealthEndpoints, writ.HealthBoth:
		if ends == 0 {
			bad("/health_policy/mode", "wants at least one endpoint")
		}
	case writ.HealthHeartbeat, writ.HealthNone:
		if ends > 0 {
			bad("/health_policy/mode", "leaves the endpoints unused; choose endpoints or both, or name none")
		}
	default:
		bad("/health_policy/mode", "must be endpoints, heartbeat, both or none")
	}
	if out.MinHealthy < 0 || out.MinHealthy > int64(ends) {
		bad("/health_policy/min_healthy", "is more than there are endpoints")
	}
	return out
}

// probeHost is the host of an address that can be asked, or why it cannot be.
func probeHost(raw string) (host, why string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > 1024 || u.Opaque != "" || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", "must be a URL such as https://agent.example.org/health"
	case u.User != nil:
		return "", "must not hold a user or a password"
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return "", "must not hold a fragment"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "must name a port from 1 to 65535, or none"
		}
	}
	if strings.Trim(strings.ToLower(u.Host), "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") != "" || len(u.Host) > 260 {
		return "", "must name its host in letters, digits, hyphens and dots"
	}
	return strings.ToLower(u.Host), ""
}

// probeStart has the endpoints of an agent that becomes active looked at, and
// probeEnd those of one that stops being so no more.
func probeStart(tx *writ.Tx, a writ.Agent, now int64) {
	for _, e := range a.Endpoints {
		tx.Index(writ.IndexProbes, writ.ProbeMember(a.ID, e.Name), now)
	}
}

func probeEnd(tx *writ.Tx, a writ.Agent) {
	for _, e := range a.Endpoints {
		tx.Unindex(writ.IndexProbes, writ.ProbeMember(a.ID, e.Name))
	}
}

// AgentEndpointView is an endpoint as the API shows it: not its whole address,
// which may hold a secret.
type AgentEndpointView struct {
	Host            string  `json:"url_host" doc:"Host of its address; the rest is not shown."`
	Codes           []int64 `json:"expected_http_codes,omitempty" doc:"Statuses that pass; absent: 200 to 299."`
	TimeoutMs       int64   `json:"timeout_ms" doc:"How long an answer may take, in milliseconds."`
	IntervalSeconds int64   `json:"interval_s" doc:"How often it is asked, in seconds."`
}

func viewEndpoints(a writ.Agent) map[string]AgentEndpointView {
	if len(a.Endpoints) == 0 {
		return nil
	}
	out := map[string]AgentEndpointView{}
	for _, e := range a.Endpoints {
		out[e.Name] = AgentEndpointView{e.Host, e.Codes, e.TimeoutMs, e.IntervalSeconds}
	}
	return out
}

func viewHealthPolicy(a writ.Agent) *AgentHealthPolicy {
	p := a.Health
	if p == nil {
		return nil
	}
	return &AgentHealthPolicy{Mode: p.Mode, MaxAgeSeconds: p.MaxAgeSeconds, MinHealthy: p.MinHealthy, Failures: &p.Failures, CoolDownSeconds: p.CoolDownSeconds}
}
