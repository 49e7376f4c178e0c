package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Every mistake in an entry is named at once, and nothing is registered: the revision
// of the registry says so.
func TestF1T1AllMistakesAtOnce(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		revision := func() int64 { return w.op.at(w.last()).ok(200, "GET", "/v1/agents", nil).num("registry_revision") }
		w.op.ok(201, "PUT", "/v1/agents/right", obj{"archetypes": []string{"executor"}, "domain": "web"})
		before := revision()
		body := obj{
			"archetypes": []string{"executor"}, "domain": "web", "write_scope": []string{"fs:repo/../x/"},
			"tools": []obj{{"name": "task.claim", "safety": "mutating"}, {"name": "a.b", "safety": "mutating"}, {"name": "a.b", "safety": "mutating"}},
		}
		r := w.op.refused(422, "input_invalid", "PUT", "/v1/agents/wrong", body)
		if list, _ := r.at("errors").([]any); len(list) < 3 {
			t.Fatalf("want three errors: %s", r)
		}
		w.op.refused(404, "not_found", "GET", "/v1/agents/wrong", nil)
		if got := revision(); before < 1 || got != before {
			t.Errorf("revision %d after %d", got, before)
		}
	})
}

// Two active agents never share a write scope.
func TestF1T1OverlappingScopes(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.agent("first", "web", "executor", tool, []string{"fs:repo/docs/"}, nil)
		body := obj{"archetypes": []string{"executor"}, "domain": "web", "write_scope": []string{"fs:repo/"}}
		w.op.ok(201, "PUT", "/v1/agents/second", body)
		r := w.op.do("POST", "/v1/agents/second/activate", nil)
		if r.status != 409 || r.receipt() == "" {
			t.Fatalf("activated over another's scope: %s", r)
		}
		if r := w.op.ok(200, "GET", "/v1/agents/second", nil); r.str("state") != "planned" {
			t.Fatalf("the agent: %s", r)
		}
	})
}

// The registry shows exactly what an agent declared, at a revision of its own;
// a blocked tool is listed as such and cannot be asked for.
func TestF1T2(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		tools := []obj{{"name": "yard.dig", "safety": "mutating"}, {"name": "yard.look", "safety": "read-only"}, {"name": "yard.burn", "safety": "blocked"}}
		body := obj{"archetypes": []string{"executor"}, "domain": "yard", "tools": tools}
		r := w.op.ok(201, "PUT", "/v1/agents/digger", body)
		s := w.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt()), nil)
		if s.str("statement", "predicate", "transition") != "agent.register" {
			t.Fatalf("the receipt: %s", s)
		}
		if again := w.op.ok(200, "PUT", "/v1/agents/digger", body); again.version() <= r.version() {
			t.Fatalf("registered again: version %d after %d", again.version(), r.version())
		}
		list := func(w *gateway) reply { return c.op.at(w).ok(200, "GET", "/v1/capabilities", nil) }
		c.op.refused(404, "not_found", "POST", "/v1/invoke", obj{"capability": "yard.dig"}) // nobody active declares it
		before := list(w.gw[0]).num("revision")
		w.op.ok(200, "POST", "/v1/agents/digger/activate", nil)
		shown := list(w.last())
		if shown.num("revision") != before+1 || shown.version() != before+1 {
			t.Errorf("revision %d after %d, ETag %d", shown.num("revision"), before, shown.version())
		}
		safety := map[string]any{}
		capabilities, _ := shown.at("capabilities").([]any)
		for _, v := range capabilities {
			one := v.(map[string]any)
			safety[one["id"].(string)] = one["safety"]
		}
		for _, one := range tools {
			if safety[one["name"].(string)] != one["safety"] {
				t.Errorf("%s is listed as %v, declared %v", one["name"], safety[one["name"].(string)], one["safety"])
			}
		}

		want := map[string]bool{"yard.dig": true, "yard.look": true, "yard.burn": false}
		declared, _ := w.op.at(w.last()).ok(200, "GET", "/v1/agents/digger/tools", nil).at("tools").([]any)
		for _, v := range declared {
			one := v.(map[string]any)
			if one["name"] == "yard.burn" && one["safety"] != "blocked" {
				t.Errorf("blocked, and shown as %v", one)
			}
			callable, known := want[one["name"].(string)]
			if !known || one["callable"] != callable {
				t.Errorf("tool %v", one)
			}
		}
		if len(declared) != len(want) {
			t.Errorf("%d tools, want %d", len(declared), len(want))
		}

		// Neither is the gateway's to call: one needs a task, one nobody gets.
		large := strings.Repeat("x", 100<<10)
		for name, hint := range map[string]string{"yard.dig": "task.enqueue", "yard.look": "task.enqueue", "yard.burn": "nobody may use it"} {
			r := c.orc.at(w.last()).refused(409, "capability_unavailable", "POST", "/v1/invoke", obj{"capability": name, "args": obj{"text": large}})
			if !strings.Contains(r.str("hint"), hint) || r.str("receipt") == "" {
				t.Errorf("%s", r)
			}
		}
		yard := obj{"required_domain": "yard", "capability": "yard.burn"}
		c.orc.refused(422, "no_eligible_agent", "POST", "/v1/tasks", c.task("burn", yard))
		c.orc.ok(201, "POST", "/v1/tasks", c.task("dig", with(yard, "capability", "yard.dig")))
	})
}

// What one replica wrote the other reads at once, with the same version.
func TestF1T3ReadYourWriteOnEveryReplica(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		body := func(n int) obj {
			return obj{"archetypes": []string{"executor"}, "domain": "web", "max_concurrent_tasks": n}
		}
		w.op.ok(201, "PUT", "/v1/agents/roamer", body(1))
		for n := 2; n < 22; n++ {
			writer, reader := w.gw[n%len(w.gw)], w.gw[(n+1)%len(w.gw)]
			wrote := w.op.at(writer).ok(200, "PUT", "/v1/agents/roamer", body(n))
			read := w.op.at(reader).ok(200, "GET", "/v1/agents/roamer", nil)
			if read.version() != wrote.version() || read.num("max_concurrent_tasks") != int64(n) || read.num("version") != wrote.version() {
				t.Fatalf("wrote %s\nread %s", wrote, read)
			}
			old := read.version()
			match := read.header.Get("ETag")
			changed := w.op.at(reader).ok(200, "PUT", "/v1/agents/roamer", body(n), "If-Match", match)
			if changed.version() <= old {
				t.Fatalf("version %d after %d", changed.version(), old)
			}
			w.op.at(writer).refused(412, "version_conflict", "PUT", "/v1/agents/roamer", body(n), "If-Match", match)
		}
	})
}

// An agent that is stopped while it works, in whichever way: its sessions end, its work
// and what it claims are free for others, and nobody is sent to it any more.
func TestF1T4StoppedWhileItWorks(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		for verb, more := range map[string]obj{"suspend": {}, "retire": {}, "supersede": {"successor": "builder"}} {
			id := writ.AgentID("old-" + verb)
			scope := "fs:" + verb + "/"
			w.agent(id, "web", "executor", tool, []string{scope}, obj{"routing": obj{"keywords": []string{verb}}})
			idle := w.openedOnly(id, nil).at(w.last())
			idle.ok(200, "POST", idle.startPath(), obj{"write_claims": claiming("exclusive", scope+"a/")})
			works := w.session(string(id), writ.RoleExecutor, id)
			l := works.claim(c.enqueue(verb, obj{"backoff_ms": 0}))
			if r := w.op.ok(200, "GET", "/v1/agents/route?input="+verb, nil); r.str("data", "agent", "id") != string(id) {
				t.Fatalf("before: %s", r)
			}

			w.op.ok(200, "POST", "/v1/agents/"+string(id)+"/"+verb, more)
			for _, s := range []caller{works, idle} { // at once, at every replica
				for _, g := range w.gw {
					s.at(g).refused(401, writ.CodeUnauthenticated, "GET", "/v1/sessions/"+string(s.id), nil)
				}
			}
			works.refused(401, writ.CodeUnauthenticated, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(nil))
			r := <-second.poll()
			if r.status != 200 || r.str("task", "task_id") != l.task || leaseOf(r).fence <= l.fence {
				t.Fatalf("%s: the task was not given back: %s", verb, r)
			}
			second.complete(leaseOf(r))
			within(t, 10*time.Second, "nothing is claimed any more, and its sessions have ended", func() bool {
				claims, _ := w.op.ok(200, "GET", "/v1/scopes?under="+scope, nil).at("scopes").([]any)
				return len(claims) == 0 && !slices.ContainsFunc([]caller{works, idle}, func(s caller) bool {
					return w.op.ok(200, "GET", "/v1/sessions/"+string(s.id), nil).str("state") != "revoked"
				})
			})
			if r := w.op.ok(200, "GET", "/v1/agents/route?input="+verb, nil); r.str("status") != "not_found" {
				t.Errorf("%s: %s", verb, r)
			}
			w.op.refused(409, writ.CodeUnavailable, "POST", "/v1/sessions", obj{"principal": id, "kind": "agent", "role": "executor", "agent_id": id})
		}
		w.audited()
	})
}
