package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// world is one store with its gateways: one on the embedded store, two on
// Redis. Its people work at the first gateway.
type world struct {
	t     testing.TB
	redis *redistest.Server // nil on the embedded store
	gw    []*gateway
	op    caller
}

// crash kills every gateway, and the store with them, and waits until all are
// ready again.
func (w *world) crash() {
	w.t.Helper()
	for _, g := range w.gw {
		g.kill()
	}
	if w.redis != nil {
		w.redis.Restart()
	}
	for _, g := range w.gw {
		g.start()
	}
	w.ready()
}

// ready waits until every gateway is.
func (w *world) ready() {
	w.t.Helper()
	for _, g := range w.gw {
		within(w.t, 20*time.Second, "the gateway is ready", func() bool {
			r, err := caller{t: w.t, gw: g}.try("GET", "/readyz", nil)
			return err == nil && r.status == 200
		})
	}
}

// race makes the same call n times at once, at all gateways, and counts the
// answers by status.
func (w *world) race(n int, by caller, method, path string, body obj) map[int]int {
	w.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for i := range n {
		wg.Go(func() {
			r, err := by.at(w.gw[i%len(w.gw)]).try(method, path, body)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				w.t.Error(err)
			}
			got[r.status]++
		})
	}
	wg.Wait()
	return got
}

var hosts = []string{"bolt", "redis"}

// onHosts runs a test on both hosts.
func onHosts(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	onHostsOf(t, binary, nil, f)
}

// underLoad is onHosts for tests that make many calls at once: with the race
// detector in the gateways, if it is in the tests.
func underLoad(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	onHostsOf(t, raced, nil, f)
}

func onHostsOf(t *testing.T, program string, args []string, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			f(t, newWorldOf(t, program, host, args...))
		})
	}
}

func newWorld(t testing.TB, host string, args ...string) *world {
	t.Helper()
	return newWorldOf(t, binary, host, args...)
}

func newWorldOf(t testing.TB, program, host string, args ...string) *world {
	t.Helper()
	w := &world{t: t}
	data := t.TempDir()
	if host == "redis" {
		w.redis = redistest.Start(t)
		keys := filepath.Join(data, "keys")
		args = append([]string{"--store", w.redis.URL(), "--keys", keys, "--blobs", filepath.Join(data, "artifacts")}, args...)
		w.gw = append(w.gw, newGatewayOf(t, program, filepath.Join(data, "one"), args...),
			newGatewayOf(t, program, filepath.Join(data, "two"), append(args, "--ledger", "none")...))
	} else {
		w.gw = append(w.gw, newGatewayOf(t, program, filepath.Join(data, "one"), args...))
	}
	w.op = w.operator()
	return w
}

// operator is whoever may read the token file.
func (w *world) operator() caller {
	w.t.Helper()
	c := caller{t: w.t, gw: w.gw[0], token: strings.TrimSpace(w.gw[0].read("operator.token"))}
	return c
}

// last is the last gateway: the other one, where there are two.
func (w *world) last() *gateway { return w.gw[len(w.gw)-1] }

// agent registers and activates an agent.
func (w *world) agent(id writ.AgentID, domain, archetype, tool string, scopes []string, more obj) {
	w.t.Helper()
	tools := []obj{}
	if tool != "" {
		tools = append(tools, obj{"name": tool, "safety": "mutating"})
	}
	body := obj{"archetypes": []string{archetype}, "domain": domain, "tools": tools, "write_scope": scopes, "max_concurrent_tasks": 1000}
	for k, v := range more {
		body[k] = v
	}
	w.op.ok(201, "PUT", "/v1/agents/"+string(id), body)
	w.op.ok(200, "POST", "/v1/agents/"+string(id)+"/activate", nil)
}

// session opens and starts a session of an agent; without an agent it is a
// person's.
func (w *world) session(principal string, role writ.Role, agent writ.AgentID) caller {
	w.t.Helper()
	return w.opened(obj{"principal": principal, "kind": "human", "role": role}, agent)
}

// opened opens and starts a session as body says, of an agent if there is one.
func (w *world) opened(body obj, agent writ.AgentID) caller {
	w.t.Helper()
	if agent != "" {
		body["kind"], body["agent_id"], body["heartbeat_ttl_s"] = "agent", agent, 300
	}
	r := w.op.ok(201, "POST", "/v1/sessions", body)
	c := caller{t: w.t, gw: w.gw[0], token: r.str("token"), id: writ.SessionID(r.str("session_id")), agent: agent}
	c.ok(200, "POST", "/v1/sessions/"+string(c.id)+"/start", nil)
	return c
}

// Everything most tests need: a planner, and an agent that builds.
type cast struct {
	*world
	orc     caller
	builder caller
	run     string
}

const tool = "site.build"

func newCast(t testing.TB, w *world) cast {
	t.Helper()
	w.t, w.op.t = t, t
	w.agent("planner", "web", "orchestrator", "", []string{}, nil)
	w.agent("builder", "web", "executor", tool, []string{"fs:repo/"}, obj{"jail": obj{"program": "builder"}})
	c := cast{world: w, orc: w.session("planner", writ.RoleOrchestrator, "planner"), builder: w.session("builder", writ.RoleExecutor, "builder")}
	c.run = c.newRun(100_000)
	return c
}

// another is one more session of the builder.
func (c cast) another() caller { return c.session("builder", writ.RoleExecutor, "builder") }

func (c cast) newRun(steps int) string {
	c.t.Helper()
	return c.orc.ok(201, "POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": steps}}).str("run_id")
}

// task is the body of an enqueue.
func (c cast) task(key string, more obj) obj {
	b := obj{"run_id": c.run, "key": key, "capability": tool, "required_domain": "web", "args": obj{"ref": "main"}}
	for k, v := range more {
		b[k] = v
	}
	return b
}

func (c cast) enqueue(key string, more obj) string {
	c.t.Helper()
	return c.orc.ok(201, "POST", "/v1/tasks", c.task(key, more)).str("task_id")
}

// state is where a task stands.
func (c cast) state(task string) writ.TaskState {
	c.t.Helper()
	return writ.TaskState(c.op.ok(200, "GET", "/v1/tasks/"+task, nil).str("state"))
}

// lease is the right to work on a task.
type lease struct {
	task, id string
	fence    int64
}

func leaseOf(r reply) lease {
	return lease{task: r.str("task", "task_id"), id: r.str("lease", "id"), fence: r.num("lease", "fence")}
}

// hold is the body of a holder's call.
func (l lease) hold(more obj) obj {
	b := obj{"lease_id": l.id, "fence": l.fence}
	for k, v := range more {
		b[k] = v
	}
	return b
}

func (c caller) claim(task string) lease {
	c.t.Helper()
	return leaseOf(c.ok(200, "POST", "/v1/tasks/"+task+"/claim", nil))
}

// claimNext waits up to ten seconds for the next task that fits; the zero
// lease means there was none.
func (c caller) claimNext() lease {
	c.t.Helper()
	r := c.do("POST", "/v1/tasks/claim", obj{"wait_s": 10})
	if r.status == 204 {
		return lease{}
	}
	if r.status != 200 {
		c.t.Fatalf("claim: %s", r)
	}
	return leaseOf(r)
}

// poll waits for work beside the test: at most ten seconds, then the reply
// comes. No answer at all is a reply of status 0.
func (c caller) poll() <-chan reply {
	out := make(chan reply, 1)
	go func() {
		r, err := c.try("POST", "/v1/tasks/claim", obj{"wait_s": 10})
		for err == nil && r.code() == "backpressure" { // another poll of this session was faster
			r, err = c.try("POST", "/v1/tasks/claim", obj{"wait_s": 10})
		}
		if err != nil {
			r.body = []byte(err.Error())
		}
		out <- r
	}()
	return out
}

func (c caller) complete(l lease) reply {
	c.t.Helper()
	return c.ok(200, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"ok": true}}))
}

func key(i int) string { return fmt.Sprintf("task-%d", i) }
