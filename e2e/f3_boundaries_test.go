package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// A concern has one owner among the active agents of a domain, also when two become
// active at once at two replicas.
func TestF3T1OneOwner(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		owns := obj{"archetypes": []string{"orchestrator"}, "domain": "finance", "owns": []string{"invoices", "ledgers"}}
		for _, id := range []string{"first", "second", "third"} {
			w.op.ok(201, "PUT", "/v1/agents/"+id, owns)
		}
		w.op.ok(200, "POST", "/v1/agents/first/activate", nil)
		r := w.op.refused(422, writ.CodeInputInvalid, "POST", "/v1/agents/second/activate", nil)
		list, _ := r.at("errors").([]any)
		if len(list) != 2 || !strings.Contains(r.String(), "/owns/0") || !strings.Contains(r.String(), "/owns/1") || r.str("details", "holder_agent") != "first" {
			t.Errorf("%s", r)
		}
		w.op.ok(200, "POST", "/v1/agents/first/retire", nil)
		for range 5 {
			done := make(chan int, 2)
			for i, id := range []string{"second", "third"} {
				go func() {
					r, err := w.op.at(w.gw[i%len(w.gw)]).try("POST", "/v1/agents/"+id+"/activate", nil)
					if err != nil {
						t.Error(err)
					}
					done <- r.status
				}()
			}
			if a, b := <-done, <-done; a == b || a != 200 && b != 200 {
				t.Fatalf("two at once: %d and %d", a, b)
			}
			for _, id := range []string{"second", "third"} {
				if w.op.ok(200, "GET", "/v1/agents/"+id, nil).str("state") == "active" {
					w.op.ok(200, "POST", "/v1/agents/"+id+"/suspend", nil)
				}
			}
		}
		// Another domain may own a concern of the same name.
		w.op.ok(200, "POST", "/v1/agents/second/activate", nil)
		w.op.ok(201, "PUT", "/v1/agents/elsewhere", with(owns, "domain", "books"))
		w.op.ok(200, "POST", "/v1/agents/elsewhere/activate", nil)
	})
}

// Nobody executes what it leaves to another, and is told to whom; nobody enqueues
// what another owns but for that one.
func TestF3T2Boundaries(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		deploys := []obj{{"name": "stack.deploy", "safety": "mutating", "concern": "stack-deployment"}}
		entry := obj{"archetypes": []string{"executor"}, "domain": "finance", "tools": deploys}
		w.op.ok(201, "PUT", "/v1/agents/finance-agent", with(entry, "defers", []obj{{"concern": "stack-deployment", "to": "spine"}}))
		w.op.ok(200, "POST", "/v1/agents/finance-agent/activate", nil)
		finance := w.session("finance-agent", writ.RoleExecutor, "finance-agent").at(w.last())
		stack := obj{"capability": "stack.deploy", "required_domain": "finance"}
		task := c.enqueue("deploy", stack)
		r := finance.refused(403, writ.CodePolicy, "POST", "/v1/tasks/"+task+"/claim", nil)
		if !strings.Contains(r.String(), "lifecycle.defers") || r.str("details", "to") != "spine" || r.receipt() == "" {
			t.Errorf("%s", r)
		}

		w.op.ok(201, "PUT", "/v1/agents/spine", with(entry, "owns", []string{"stack-deployment"}))
		w.op.ok(200, "POST", "/v1/agents/spine/activate", nil)
		// The tool says what it is about, whatever the enqueuer says or leaves out.
		for key, concern := range map[string]string{"silent": "", "honest": "stack-deployment", "lying": "gardening"} {
			body := c.task(key, stack)
			if concern != "" {
				body["concern"] = concern
			}
			r := c.orc.at(w.last()).refused(403, writ.CodePolicy, "POST", "/v1/tasks", body)
			if !strings.Contains(r.String(), "lifecycle.boundary") || r.str("details", "to") != "spine" {
				t.Errorf("%s: %s", key, r)
			}
		}
		directed := c.enqueue("directed", with(stack, "required_agents", []string{"spine"}))
		w.session("spine", writ.RoleExecutor, "spine").claim(directed)
		// A concern only the enqueuer states counts too.
		w.agent("gardener", "web", "orchestrator", "", []string{}, obj{"owns": []string{"gardening"}})
		c.orc.refused(403, writ.CodePolicy, "POST", "/v1/tasks", c.task("garden", obj{"concern": "gardening"}))
	})
}

func TestF3T3InfoShowsTheBoundary(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		digest := "sha256:" + strings.Repeat("ab", 32)
		w.op.ok(201, "PUT", "/v1/agents/bounded", obj{
			"archetypes": []string{"executor"}, "domain": "web", "owns": []string{"styles", "pages"}, "contract_ref": digest,
			"defers": []obj{{"concern": "deployment", "to": "spine"}}, "gates": []string{"lifecycle", "write_scopes.outside"},
		})
		r := w.op.at(w.last()).ok(200, "GET", "/v1/agents/bounded", nil)
		defers, _ := r.at("defers").([]any)
		if len(defers) != 1 || !strings.Contains(r.String(), `"owns":["pages","styles"]`) || r.str("contract_ref") != digest || !strings.Contains(r.String(), `"to":"spine"`) {
			t.Errorf("%s", r)
		}
		bad := w.op.refused(422, writ.CodeInputInvalid, "PUT", "/v1/agents/wrong", obj{
			"archetypes": []string{"executor"}, "domain": "web", "owns": []string{"pages", "pages", "styles"}, "contract_ref": "https://user@example.com/x",
			"defers": []obj{{"concern": "styles", "to": "wrong"}}, "gates": []string{"lifecycle", "no_such_pack"},
		})
		for _, pointer := range []string{"/owns/1", "/contract_ref", "/defers/0/concern", "/defers/0/to", "/gates/1"} {
			if !strings.Contains(bad.String(), `"`+pointer+`"`) {
				t.Errorf("%s is not named: %s", pointer, bad)
			}
		}
		if strings.Contains(bad.String(), "no_such_pack") {
			t.Errorf("repeats what was sent: %s", bad)
		}
	})
}

// An entry ends for good: its work goes back, its token is refused, it is found no
// more, and it never comes back.
func TestF1T4RetireAndSupersede(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("old", "web", "executor", tool, []string{}, obj{"routing": obj{"keywords": []string{"press"}}})
		old := w.session("old", writ.RoleExecutor, "old").at(w.last())
		only := c.enqueue("only", obj{"required_agents": []string{"old"}, "backoff_ms": 0})
		held := old.claim(only)
		before := w.op.ok(200, "GET", "/v1/agents", nil).num("registry_revision")
		w.op.refused(422, writ.CodeInputInvalid, "POST", "/v1/agents/old/supersede", obj{"successor": "old"})
		r := w.op.ok(200, "POST", "/v1/agents/old/supersede", obj{"successor": "builder"})
		if r.str("state") != "superseded" || r.str("superseded_by") != "builder" {
			t.Errorf("%s", r)
		}
		old.refused(401, writ.CodeUnauthenticated, "POST", "/v1/tasks/"+only+"/complete", held.hold(nil)) // at once, at the other replica
		if got := w.op.at(w.last()).ok(200, "GET", "/v1/agents", nil).num("registry_revision"); got != before+1 {
			t.Errorf("revision %d after %d", got, before)
		}
		if r := w.op.ok(200, "GET", "/v1/agents/route?input=press", nil); r.str("status") != "not_found" {
			t.Errorf("%s", r)
		}
		within(t, 10*time.Second, "the task is back and nobody may take it", func() bool {
			r := c.orc.ok(200, "GET", "/v1/tasks/"+only, nil)
			return r.str("state") == "queued" && r.at("assignable") == false
		})
		for _, verb := range []string{"activate", "suspend", "revoke", "retire"} {
			w.op.refused(409, writ.CodeIllegal, "POST", "/v1/agents/old/"+verb, nil)
		}
		w.op.refused(409, writ.CodeIllegal, "PUT", "/v1/agents/old", obj{"archetypes": []string{"executor"}, "domain": "web"})

		w.op.ok(200, "POST", "/v1/agents/builder/retire", nil)
		c.builder.at(w.last()).refused(401, writ.CodeUnauthenticated, "POST", "/v1/tasks/claim", nil)
	})
}

// Agents that all say so share a write scope; their tasks still lock what they write.
func TestF2SharedScopes(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		shares := obj{"shares_write_scope": true}
		w.agent("one", "web", "executor", tool, []string{"fs:repo/docs/"}, shares)
		w.agent("two", "web", "executor", tool, []string{"fs:repo/"}, shares)
		w.op.ok(201, "PUT", "/v1/agents/alone", obj{"archetypes": []string{"orchestrator"}, "domain": "web", "write_scope": []string{"fs:repo/docs/a/"}})
		r := w.op.refused(409, writ.CodeScopeConflict, "POST", "/v1/agents/alone/activate", nil)
		if h := r.str("details", "holder_agent"); h != "one" && h != "two" {
			t.Errorf("%s", r)
		}
		w.op.ok(200, "POST", "/v1/agents/one/suspend", nil)
		w.op.ok(200, "POST", "/v1/agents/two/suspend", nil)
		w.op.ok(200, "POST", "/v1/agents/alone/activate", nil)
		within(t, 10*time.Second, "the scope is somebody's alone", func() bool {
			return w.op.do("POST", "/v1/agents/one/activate", nil).code() == writ.CodeScopeConflict
		})
	})
}
