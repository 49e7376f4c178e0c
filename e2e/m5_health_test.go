package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// probed is an endpoint of an agent: it counts who asks it, and answers as it is
// told.
type probed struct {
	*httptest.Server
	hits   atomic.Int64
	status atomic.Int64 // 0: it answers when the test is over
	over   chan struct{}
}

func newProbed(t *testing.T) *probed {
	t.Helper()
	p := &probed{over: make(chan struct{})}
	p.status.Store(200)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.hits.Add(1)
		switch s := int(p.status.Load()); s {
		case 0:
			select {
			case <-p.over:
			case <-r.Context().Done():
			}
		case 302:
			http.Redirect(w, r, "/elsewhere", s)
		default:
			w.WriteHeader(s)
		}
	}))
	t.Cleanup(func() { close(p.over); p.Close() })
	return p
}

// endpoints is what an agent says of it.
func (p *probed) endpoints(interval, timeoutMs int) obj {
	return obj{"api": obj{"url": p.URL + "/health?key=hush", "interval_s": interval, "timeout_ms": timeoutMs}}
}

// granted is a world whose gateways may ask this machine.
func granted(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			f(t, newWorld(t, host, "--egress-grants", "127.0.0.0/8"))
		})
	}
}

func (w *world) health(agent string) reply {
	w.t.Helper()
	return w.op.ok(200, "GET", "/v1/agents/"+agent+"/health", nil)
}

func (w *world) until(agent, status string) {
	w.t.Helper()
	within(w.t, 20*time.Second, agent+" is "+status, func() bool { return w.health(agent).str("status") == status })
}

// N5. An agent that is not registered cannot be named; one that is healthy makes up
// for no other; and what blocks is seen where it matters.
func TestN5M5T1T2EveryRequiredAgentPasses(t *testing.T) {
	granted(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.agent("helper", "web", "executor", tool, []string{}, obj{"health_policy": obj{"mode": "heartbeat"}})
		e := c.orc.refused(422, writ.CodeInputInvalid, "POST", "/v1/tasks", c.task("ghost", obj{"required_agents": []string{"builder", "nobody"}}))
		if !strings.Contains(string(e.body), "/required_agents/1") || strings.Contains(string(e.body), `"nobody"`) {
			t.Errorf("got %s", e)
		}
		r := c.orc.ok(201, "POST", "/v1/tasks", c.task("two", obj{"required_agents": []string{"builder", "helper"}}))
		if r.at("assignable") != false || r.str("state") != "queued" || !strings.Contains(string(r.body), `"agent_id":"helper"`) {
			t.Errorf("got %s", r)
		}
		two := r.str("task_id")
		e = c.builder.refused(409, writ.CodePreflight, "POST", "/v1/tasks/"+two+"/claim", nil)
		if e.str("details", "agent") != "helper" || e.str("details", "reason") != "no_session" || e.str("receipt") == "" {
			t.Errorf("got %s", e)
		}
		for _, more := range []obj{{"allow_unhealthy": true}, {"probed": true}} { // nobody can say that it does not matter
			if e := c.builder.do("POST", "/v1/tasks/"+two+"/claim", more); e.status != 400 && e.status != 422 {
				t.Errorf("got %s", e)
			}
		}
		waiting := c.builder.poll()
		c.session("helper", writ.RoleExecutor, "helper")
		if got := <-waiting; got.status != 200 || got.str("task", "task_id") != two {
			t.Errorf("got %s", got)
		}
	})
}

// Whatever an endpoint does but answer as it should blocks, by id and in a poll,
// and what was enqueued meanwhile can be claimed once it does: by the first look that
// finds it so, which is never more than an interval away (guard has a test of that).
func TestA1T2P2T2M5T3EndpointsBlockAndRecover(t *testing.T) {
	granted(t, func(t *testing.T, w *world) {
		p := newProbed(t)
		c := newCast(t, w)
		c.agent("tester", "web", "executor", tool, []string{}, obj{"endpoints": p.endpoints(1, 200)})
		tester := c.session("tester", writ.RoleExecutor, "tester")
		c.until("tester", "healthy")
		for status, want := range map[int64]string{302: "redirect", 500: "unexpected_code", 0: "timeout"} {
			p.status.Store(status)
			c.until("tester", "unhealthy")
			key := strings.ReplaceAll(want, "_", "-")
			r := c.orc.ok(201, "POST", "/v1/tasks", c.task(key, obj{"required_agents": []string{"tester"}}))
			id := r.str("task_id")
			if r.at("assignable") != false || r.str("state") != "queued" {
				t.Errorf("%s: got %s", want, r)
			}
			within(t, 10*time.Second, "the reason is "+want, func() bool {
				e := tester.refused(409, writ.CodePreflight, "POST", "/v1/tasks/"+id+"/claim", nil)
				list, _ := e.at("probes").([]any)
				if len(list) != 1 || strings.Contains(string(e.body), "hush") {
					t.Fatalf("%s: got %s", want, e)
				}
				probe, _ := list[0].(map[string]any)
				return probe["reason"] == want && probe["state"] == "fail" && probe["url_host"] == strings.TrimPrefix(p.URL, "http://")
			})
			tester.refused(409, writ.CodePreflight, "POST", "/v1/tasks/claim", obj{"wait_s": 5})
			p.status.Store(200)
			within(t, 10*time.Second, "the task can be assigned", func() bool {
				return c.orc.ok(200, "GET", "/v1/tasks/"+id, nil).at("assignable") == true
			})
			c.until("tester", "healthy")
			tester.complete(tester.claim(id))
		}
		seen := string(c.op.ok(200, "GET", "/v1/agents/tester", nil).body)
		if strings.Contains(seen, "hush") || !strings.Contains(seen, "url_host") {
			t.Errorf("got %s", seen)
		}
	})
}

// What is too old to count is looked at again before anybody is refused for it,
// and only then.
func TestM5T4StaleIsLookedAtAgain(t *testing.T) {
	granted(t, func(t *testing.T, w *world) {
		p := newProbed(t)
		c := newCast(t, w)
		c.agent("tester", "web", "executor", tool, []string{}, obj{
			"endpoints": p.endpoints(3600, 5000), "health_policy": obj{"mode": "endpoints", "max_age_s": 1},
		})
		tester := c.session("tester", writ.RoleExecutor, "tester").at(w.last())
		only := obj{"required_agents": []string{"tester"}}
		first, second, third := c.enqueue("first", only), c.enqueue("second", only), c.enqueue("third", only)
		c.until("tester", "stale")
		if n := p.hits.Load(); n != 1 {
			t.Fatalf("asked %d times, want once, however many replicas there are", n)
		}
		tester.claim(first)
		if n := p.hits.Load(); n != 2 {
			t.Fatalf("asked %d times, want twice", n)
		}
		c.until("tester", "stale")
		p.status.Store(503)
		tester.refused(409, writ.CodePreflight, "POST", "/v1/tasks/"+second+"/claim", nil)
		if n := p.hits.Load(); n != 3 {
			t.Fatalf("asked %d times, want three times", n)
		}
		c.until("tester", "stale")
		p.status.Store(200)
		got := <-tester.poll()
		if id := got.str("task", "task_id"); got.status != 200 || id != second && id != third {
			t.Fatalf("got %s", got)
		}
		if n := p.hits.Load(); n != 4 {
			t.Fatalf("asked %d times, want four times", n)
		}
	})
}

// Without a grant nothing private is asked, by whatever name.
func TestM5NothingPrivateIsAskedWithoutAGrant(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		p := newProbed(t)
		c := newCast(t, w)
		c.agent("tester", "web", "executor", tool, []string{}, obj{"endpoints": obj{
			"plain": obj{"url": p.URL}, "named": obj{"url": strings.Replace(p.URL, "127.0.0.1", "localhost", 1)},
			"mapped": obj{"url": strings.Replace(p.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1)}, "meta": obj{"url": "http://169.254.169.254/latest/"},
		}, "health_policy": obj{"min_healthy": 1}})
		c.until("tester", "unhealthy")
		list, _ := c.health("tester").at("probes").([]any)
		for _, one := range list {
			if probe, _ := one.(map[string]any); probe["reason"] != "address_denied" {
				t.Errorf("got %v", probe)
			}
		}
		if len(list) != 4 || p.hits.Load() != 0 {
			t.Errorf("%d probes, %d requests", len(list), p.hits.Load())
		}
	})
}

// Tasks that fail for reasons outside take their agent out of work for a while;
// one that ends well lets it back at once.
func TestM5Breaker(t *testing.T) {
	granted(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.agent("tester", "web", "executor", tool, []string{}, obj{"health_policy": obj{"mode": "none", "failures": 2, "cool_down_s": 3600}})
		tester := c.session("tester", writ.RoleExecutor, "tester")
		only := obj{"required_agents": []string{"tester"}}
		held := tester.claim(c.enqueue("held", only))
		fail := func(key, class string) {
			t.Helper()
			l := tester.claim(c.enqueue(key, only))
			tester.ok(200, "POST", "/v1/tasks/"+l.task+"/fail", l.hold(obj{"failure": obj{"class": class, "code": "broken", "retryable": false}}))
		}
		fail("one", "external")
		fail("two", "deterministic")
		next := c.enqueue("next", only)
		fail("three", "external")
		e := tester.refused(409, writ.CodePreflight, "POST", "/v1/tasks/"+next+"/claim", nil)
		if e.str("details", "status") != "degraded" || e.str("details", "reason") != "breaker_open" {
			t.Errorf("got %s", e)
		}
		// The receipt of the change is there, and only one is.
		within(t, 10*time.Second, "the change has a receipt", func() bool { return c.health("tester").str("receipt") != "" })
		tester.complete(held)
		tester.claim(next)
		c.until("tester", "healthy")
	})
}

func TestM5RegistrationsAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	body := obj{"archetypes": []string{"executor"}, "domain": "web", "endpoints": obj{
		"api": obj{"url": "ftp://example.org/x"}, "user": obj{"url": "https://a:b@example.org/"},
	}, "health_policy": obj{"mode": "none", "min_healthy": 7}}
	e := w.op.refused(422, writ.CodeInputInvalid, "PUT", "/v1/agents/bad", body)
	for _, want := range []string{"/endpoints/api/url", "/endpoints/user/url", "/health_policy/mode", "/health_policy/min_healthy"} {
		if !strings.Contains(string(e.body), `"`+want+`"`) {
			t.Errorf("no %s in %s", want, e)
		}
	}
}
