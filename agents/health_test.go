package agents

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// watched registers and activates an agent with endpoints.
func (r *room) watched(policy *AgentHealthPolicy, names ...string) writ.Agent {
	r.t.Helper()
	e := entry("tester")
	e.Health = policy
	for _, n := range names {
		if e.Endpoints == nil {
			e.Endpoints = map[string]AgentEndpoint{}
		}
		e.Endpoints[n] = AgentEndpoint{URL: "https://" + n + ".example.org/health"}
	}
	r.must("agent.register", r.ops, e)
	r.must("agent.activate", r.ops, &AgentActivateArgs{AgentID: "tester"})
	return r.agent()
}

func (r *room) agent() writ.Agent {
	r.t.Helper()
	a, _, ok := writtest.Get[writ.Agent](r.World, writ.AgentKey("tester"))
	if !ok {
		r.t.Fatal("no agent")
	}
	return a
}

// seen records what a look at an endpoint gave that began a moment ago.
func (r *room) seen(name string, reason writ.HealthReason) writ.Tx {
	r.t.Helper()
	r.Now += 2
	args := &AgentHealthRecordArgs{AgentID: "tester", Endpoint: name, Since: r.agent().HealthSince, Begun: r.Now - 1, Code: 200, LatencyMs: 7, Reason: reason}
	_, tx, err := r.call("agent.health.record", r.System(), args)
	if err != nil {
		r.t.Fatal(err)
	}
	return tx
}

// follow carries out the follow-up of the agent's health, if it is due.
func (r *room) follow() {
	r.t.Helper()
	if at, ok := r.Index(writ.IndexTodo)[writ.TodoHealth("tester")]; ok && at <= r.Now {
		r.must("agent.health.record", r.System(), &AgentHealthRecordArgs{AgentID: "tester"})
	}
}

func (r *room) fails() {
	r.SetCounter(writ.HealthFailures("tester"), r.Counter(writ.HealthFailures("tester"))+1)
	r.SetIndex(writ.IndexTodo, writ.TodoHealth("tester"), r.Now)
}

func (r *room) is(status writ.HealthStatus, reason writ.HealthReason) AgentHealthView {
	r.t.Helper()
	v := body[AgentHealthView](r.t, r.must("agent.health", r.ops, &AgentHealthArgs{AgentID: "tester"}))
	if v.Status != status || v.Reason != reason {
		r.t.Fatalf("is %s (%s), want %s (%s)", v.Status, v.Reason, status, reason)
	}
	return v
}

// moves are what receipts say of an agent's health.
func (r *room) moves() (out []string) {
	for _, f := range r.Facts {
		for _, c := range f.Changes {
			if c.Kind == writ.ObjectHealth {
				out = append(out, c.From+">"+c.To)
			}
		}
	}
	return out
}

func TestHealthRegistration(t *testing.T) {
	r := newRoom(t)
	seven := int64(101)
	a := entry("tester")
	a.Endpoints = map[string]AgentEndpoint{
		"aa": {URL: "https://x.example/"}, "Not A Slug": {URL: "https://x.example/"}, "ftp": {URL: "ftp://x.example/"},
		"user": {URL: "https://a:b@x.example/"}, "mark": {URL: "https://x.example/#a"}, "port": {URL: "https://x.example:0/"},
		"host": {URL: "https://x%20y/"}, "slow": {URL: "http://x.example/", TimeoutMs: 10_001, IntervalSeconds: 3601, Codes: []int64{200, 99, 200}},
		"nine": {URL: "https:///x"},
	}
	a.Health = &AgentHealthPolicy{Mode: "none", MaxAgeSeconds: 3601, Failures: &seven, CoolDownSeconds: 3601, MinHealthy: 9}
	e := r.refused(writ.CodeInputInvalid, "agent.register", r.ops, a)
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Pointer)
		if strings.Contains(f.Pointer+f.Msg, "Slug") {
			t.Errorf("repeats a name: %+v", f)
		}
	}
	want := []string{
		"/endpoints", "/endpoints", "/endpoints/ftp/url", "/endpoints/host/url", "/endpoints/mark/url", "/endpoints/nine/url", "/endpoints/port/url",
		"/endpoints/slow/expected_http_codes/1", "/endpoints/slow/expected_http_codes/2", "/endpoints/slow/interval_s", "/endpoints/slow/timeout_ms", "/endpoints/user/url",
		"/health_policy/cool_down_s", "/health_policy/failures", "/health_policy/max_age_s", "/health_policy/min_healthy", "/health_policy/mode",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	bare := entry("tester")
	bare.Health = &AgentHealthPolicy{Mode: writ.HealthBoth}
	if e := r.refused(writ.CodeInputInvalid, "agent.register", r.ops, bare); e.Fields[0].Pointer != "/health_policy/mode" {
		t.Errorf("got %v", e.Fields)
	}
}

// People who are asked to agree to a registration see no address either.
func TestAddressesAreSecretArguments(t *testing.T) {
	if f, ok := reflect.TypeFor[AgentRegisterArgs]().FieldByName("Endpoints"); !ok || f.Tag.Get("writ") != "secret" {
		t.Error("approvals would show them")
	}
}

func TestHealthDefaults(t *testing.T) {
	r := newRoom(t)
	if a := r.watched(nil); a.Health != nil || a.HealthRule() != (writ.HealthPolicy{Mode: writ.HealthHeartbeat}) || len(r.Members(writ.IndexProbes)) != 0 {
		t.Errorf("got %+v", a)
	}
	r.is(writ.Unknown, writ.ReasonSession)
	r.Open(writ.RoleExecutor, "worker", "tester")
	r.is(writ.Healthy, "")

	r = newRoom(t)
	a := r.watched(nil, "api", "db")
	want := writ.HealthPolicy{Mode: writ.HealthEndpoints, MaxAgeSeconds: 30, Failures: 5, CoolDownSeconds: 60}
	if a.Health == nil || *a.Health != want || a.Endpoints[0].Name != "api" || a.Endpoints[1].Host != "db.example.org" || a.Endpoints[0].TimeoutMs != 3000 || a.Endpoints[0].IntervalSeconds != 10 {
		t.Errorf("got %+v", a)
	}
	if got := r.Members(writ.IndexProbes); !slices.Equal(got, []string{"tester api", "tester db"}) {
		t.Errorf("due: %v", got)
	}
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "tester"})
	if got := r.Members(writ.IndexProbes); len(got) != 0 {
		t.Errorf("due: %v", got)
	}
}

func TestHealthFollowsTheEndpoints(t *testing.T) {
	r := newRoom(t)
	r.watched(&AgentHealthPolicy{MinHealthy: 2}, "aa", "bb", "cc")
	r.is(writ.Unknown, writ.ReasonNotProbed)
	r.Advance(1)
	r.seen("aa", "")
	r.seen("bb", writ.ReasonRedirect)
	r.is(writ.Unknown, writ.ReasonNotProbed)
	r.seen("cc", "")
	if v := r.is(writ.Healthy, ""); len(v.Probes) != 3 || v.Probes[1].State != writ.ProbeFail || v.Probes[1].Reason != writ.ReasonRedirect || v.AgeS == nil || *v.AgeS != 0 {
		t.Errorf("got %+v", v)
	}
	r.seen("cc", writ.ReasonTimeout)
	r.is(writ.Degraded, writ.ReasonProbes)
	r.seen("aa", writ.ReasonTimeout)
	r.is(writ.Unhealthy, writ.ReasonProbes)
	r.seen("aa", writ.ReasonConnect) // another reason is no other status
	r.seen("aa", "")
	r.seen("bb", "")
	r.is(writ.Healthy, "")
	if got, want := r.moves(), []string{">healthy", "healthy>degraded", "degraded>unhealthy", "unhealthy>degraded", "degraded>healthy"}; !slices.Equal(got, want) {
		t.Errorf("recorded %v, want %v", got, want)
	}
	r.Advance(31)
	r.is(writ.Stale, writ.ReasonStale)
	r.seen("cc", "")
	r.is(writ.Stale, writ.ReasonStale)
	r.seen("aa", "")
	r.is(writ.Healthy, "")
}

// A look counts for the registration it was about, the latest look is the one
// that counts, and who is not active is not looked at.
func TestWhichLooksCount(t *testing.T) {
	r := newRoom(t)
	old := r.watched(nil, "api")
	r.Advance(1)
	r.seen("api", "")
	r.is(writ.Healthy, "")
	late := &AgentHealthRecordArgs{AgentID: "tester", Endpoint: "api", Since: old.HealthSince, Begun: r.Now - 500, Reason: writ.ReasonTimeout}
	r.must("agent.health.record", r.System(), late)
	r.is(writ.Healthy, "")
	r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "tester"})
	r.SetIndex(writ.IndexProbes, writ.ProbeMember("tester", "api"), r.Now) // taken when it was suspended
	r.seen("api", writ.ReasonTimeout)
	r.is(writ.Healthy, "")
	if got := r.Members(writ.IndexProbes); len(got) != 0 {
		t.Errorf("due: %v", got)
	}
	r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "tester"})
	r.watched(nil, "api")
	r.is(writ.Unknown, writ.ReasonNotProbed)
	r.must("agent.health.record", r.System(), &AgentHealthRecordArgs{AgentID: "tester", Endpoint: "api", Since: old.HealthSince, Begun: r.Now})
	r.is(writ.Unknown, writ.ReasonNotProbed)
	r.seen("api", "")
	r.is(writ.Healthy, "")
	if got, want := r.moves(), []string{">healthy", "healthy>healthy"}; !slices.Equal(got, want) {
		t.Errorf("recorded %v", got)
	}
}

// The breaker opens with one failure too many, closes by time, by a look that
// began later, or by success, and opens again with the next failure.
func TestBreaker(t *testing.T) {
	two := int64(2)
	r := newRoom(t)
	r.watched(&AgentHealthPolicy{Mode: writ.HealthNone, Failures: &two, CoolDownSeconds: 60})
	r.fails()
	r.follow()
	r.is(writ.Healthy, "")
	r.fails()
	r.is(writ.Degraded, writ.ReasonBreaker) // at once
	r.follow()
	r.is(writ.Degraded, writ.ReasonBreaker)
	r.Advance(59)
	r.follow()
	r.is(writ.Degraded, writ.ReasonBreaker)
	r.Advance(1)
	r.follow()
	r.is(writ.Healthy, "") // one may try
	r.fails()
	r.is(writ.Degraded, writ.ReasonBreaker)
	r.follow()
	r.SetCounter(writ.HealthFailures("tester"), 0) // a task ended well
	r.SetIndex(writ.IndexTodo, writ.TodoHealth("tester"), r.Now)
	r.is(writ.Healthy, "")
	r.follow()
	if got := r.Members(writ.IndexTodo); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	for range 2 { // as often in a row as when it was open before
		r.fails()
	}
	r.is(writ.Degraded, writ.ReasonBreaker)
	r.follow()
	if got, want := r.moves(), []string{">degraded", "degraded>healthy", "healthy>degraded", "degraded>healthy", "healthy>degraded"}; !slices.Equal(got, want) {
		t.Errorf("recorded %v", got)
	}

	r = newRoom(t)
	r.watched(&AgentHealthPolicy{Failures: &two}, "api")
	r.Advance(1)
	r.seen("api", "")
	r.fails()
	r.fails()
	r.follow()
	r.must("agent.health.record", r.System(), &AgentHealthRecordArgs{ // it began no later than the breaker opened
		AgentID: "tester", Endpoint: "api", Since: r.agent().HealthSince, Begun: r.Now,
	})
	r.is(writ.Degraded, writ.ReasonBreaker)
	r.Advance(1)
	r.seen("api", writ.ReasonTimeout)
	r.is(writ.Unhealthy, writ.ReasonProbes)
	r.Advance(1)
	r.seen("api", "")
	if v := r.is(writ.Healthy, ""); v.Failures != 0 {
		t.Errorf("%d failures", v.Failures)
	}
}

// A registration begins without failures: what its policy allows is not counted from
// those before it, which no breaker was opened for.
func TestARegistrationForgetsFailures(t *testing.T) {
	one, five := int64(1), int64(5)
	for _, before := range []*AgentHealthPolicy{nil, {Mode: writ.HealthNone, Failures: &five}, {Mode: writ.HealthNone, Failures: &one}} {
		r := newRoom(t)
		r.watched(before)
		for range 3 {
			r.fails()
			r.follow()
		}
		r.must("agent.suspend", r.ops, &AgentSuspendArgs{AgentID: "tester"})
		r.must("agent.cleanup", r.System(), &AgentCleanupArgs{AgentID: "tester"})
		two := int64(2)
		r.watched(&AgentHealthPolicy{Mode: writ.HealthNone, Failures: &two})
		if v := r.is(writ.Healthy, ""); v.Failures != 0 {
			t.Errorf("%d failures", v.Failures)
		}
		r.follow()
		r.is(writ.Healthy, "")
		for range 2 {
			r.fails()
		}
		r.is(writ.Degraded, writ.ReasonBreaker)
		r.follow()
		r.Advance(60)
		r.is(writ.Healthy, "")
	}
}

// What Judge makes a commit rest on holds exactly as long as the agent is
// healthy: whatever happens in between, a commit that goes through finds it so.
func TestHealthyWhenCommitted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoom(t)
		n := func(label string, lo, hi int64) int64 { return rapid.Int64Range(lo, hi).Draw(rt, label) }
		names := []string{"aa", "bb", "cc"}[:n("endpoints", 0, 3)]
		policy := &AgentHealthPolicy{MaxAgeSeconds: 8, CoolDownSeconds: 5, Mode: writ.HealthNone}
		if len(names) > 0 {
			policy.Mode = rapid.SampledFrom([]writ.HealthMode{writ.HealthEndpoints, writ.HealthBoth}).Draw(rt, "mode")
			policy.MinHealthy = n("min", 1, int64(len(names)))
		} else if n("beats", 0, 1) == 1 {
			policy.Mode = writ.HealthHeartbeat
		}
		failures := n("failures", 0, 2)
		policy.Failures = &failures
		r.watched(policy, names...)
		r.Advance(1)
		var worker writ.Caller
		if n("session", 0, 3) > 0 {
			worker = r.Open(writ.RoleExecutor, "worker", "tester")
		}
		step := func(i int) {
			switch n(fmt.Sprint("step ", i), 0, 5) {
			case 0:
				r.Advance(n("seconds", 0, 9))
			case 1:
				r.fails()
			case 2:
				r.follow()
			case 3:
				r.SetCounter(writ.HealthFailures("tester"), 0)
				r.SetIndex(writ.IndexTodo, writ.TodoHealth("tester"), r.Now)
			case 4:
				if worker.Session != "" {
					s, _, _ := writtest.Get[writ.Session](r.World, writ.SessionKey(worker.Session))
					s.State = rapid.SampledFrom([]writ.SessionState{writ.SessionActive, writ.SessionSuspended}).Draw(rt, "state")
					r.Seed(writ.SessionKey(worker.Session), writ.ObjectSession, s)
				}
			default:
				if len(names) > 0 {
					r.seen(rapid.SampledFrom(names).Draw(rt, "endpoint"), rapid.SampledFrom([]writ.HealthReason{"", "", writ.ReasonTimeout}).Draw(rt, "reason"))
				}
			}
		}
		look := func() writ.Snapshot {
			var rs writ.ReadSet
			for range 4 {
				more, err := Health{}.Reads(r.Snapshot(rs), "tester", false)
				if err != nil {
					rt.Fatal(err)
				}
				rs = rs.Join(more)
			}
			return r.Snapshot(rs)
		}
		// Most of the time it begins healthy, and perhaps with a breaker that was open.
		for _, name := range names {
			r.seen(name, "")
		}
		if n("tripped", 0, 1) == 1 {
			for range failures {
				r.fails()
			}
			r.follow()
			r.Advance(5)
			r.follow()
		}
		for i := range int(n("steps", 0, 3)) {
			step(i)
		}
		var tx writ.Tx
		before := look()
		h, err := Health{}.Judge(before, "tester", false, &tx)
		if err != nil {
			rt.Fatal(err)
		}
		if h.Status != writ.Healthy {
			if len(tx.Guards) > 0 || h.Reason == "" || h.RetryMs == 0 {
				rt.Fatalf("%+v with %d guards", h, len(tx.Guards))
			}
			return
		}
		tx.GuardSnapshot(before)
		for i := range 2 {
			step(6 + i)
		}
		if r.Apply(tx) != nil {
			return
		}
		if h, err := (Health{}).Judge(look(), "tester", false, nil); err != nil || h.Status != writ.Healthy {
			rt.Fatalf("committed, and the agent is %s (%s) %v", h.Status, h.Reason, err)
		}
	})
}
