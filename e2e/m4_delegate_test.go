package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Work goes to the agent for it, in one call that says why to that one.
func TestM4T1DelegateByWords(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("media-agent", "media", "executor", "media.plan", []string{}, obj{"routing": obj{"keywords": []string{"movie night"}}})
		w.agent("media-idler", "media", "executor", "media.idle", []string{}, obj{"routing": obj{"keywords": []string{"movie night"}, "priority": 9}})
		media := w.session("media", writ.RoleExecutor, "media-agent")
		body := func(key string, more obj) obj {
			b := obj{"run_id": c.run, "input": "Movie  NIGHT", "task": obj{"key": key, "capability": "media.plan"}}
			for k, v := range more {
				b[k] = v
			}
			return b
		}
		r := c.orc.ok(201, "POST", "/v1/agents/delegate", body("one", nil))
		if r.str("decision", "agent_id") != "media-agent" || r.str("decision", "match_type") != "keyword" || r.str("decision", "matched_value") != "movie night" ||
			r.str("decision", "candidates", "0") != "media-idler" || r.str("task", "required_agents", "0") != "media-agent" || r.str("task", "required_domain") != "media" || r.str("task", "state") != "queued" {
			t.Fatalf("got %s", r)
		}
		again := c.orc.do("POST", "/v1/agents/delegate", body("one", nil))
		if again.status != 200 || again.str("task", "task_id") != r.str("task", "task_id") {
			t.Fatalf("again: %s", again)
		}
		c.orc.refused(422, "idempotency_mismatch", "POST", "/v1/agents/delegate", body("one", obj{"task": obj{"key": "one", "capability": "media.plan", "priority": 9}}))
		media.complete(media.claim(r.str("task", "task_id")))

		c.orc.refused(404, "not_found", "POST", "/v1/agents/delegate", body("two", obj{"input": "gardening"}))
		c.orc.refused(404, "not_found", "POST", "/v1/agents/delegate", obj{"run_id": c.run, "to": "nobody", "task": obj{"key": "two", "capability": "media.plan"}})
		c.orc.refused(422, "input_invalid", "POST", "/v1/agents/delegate", body("two", obj{"to": "media-agent"}))
		c.orc.refused(422, "input_invalid", "POST", "/v1/agents/delegate", body("two", obj{"input": "  "}))
		w.session("stranger", writ.RoleOrchestrator, "").refused(404, "not_found", "POST", "/v1/agents/delegate", body("two", nil))
		w.audited()
	})
}

// Nothing is given to an agent that cannot do it, and the refusal says who can.
func TestM4T2DelegateToASuspendedAgent(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("other", "web", "executor", tool, []string{}, nil)
		w.session("other", writ.RoleExecutor, "other")
		w.agent("asleep", "web", "executor", tool, []string{}, nil) // nobody works for it
		asleep := obj{"run_id": c.run, "to": "asleep", "task": obj{"key": "one", "capability": tool}}
		if r := c.orc.refused(409, "capability_unavailable", "POST", "/v1/agents/delegate", asleep); r.str("details", "reason") != "unhealthy" || r.str("details", "alternatives") != "builder,other" {
			t.Fatalf("got %s", r)
		}
		c.op.ok(200, "POST", "/v1/agents/builder/suspend", nil)
		body := obj{"run_id": c.run, "to": "builder", "task": obj{"key": "one", "capability": tool}}
		r := c.orc.refused(409, "capability_unavailable", "POST", "/v1/agents/delegate", body)
		if r.str("details", "reason") != "agent_inactive" || r.str("details", "alternatives") != "other" {
			t.Fatalf("got %s", r)
		}
		body["to"], body["task"] = "other", obj{"key": "one", "capability": "site.unknown"}
		if r := c.orc.refused(409, "capability_unavailable", "POST", "/v1/agents/delegate", body); r.str("details", "reason") != "capability" || r.str("details", "alternatives") != "" {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}

// An executor gives away part of what it holds, and no more than that; it goes on
// with the rest.
func TestM4T3DelegationByAnExecutorNarrows(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("helper", "docs", "executor", "", []string{}, obj{"tools": []obj{{"name": tool, "safety": "mutating"}, {"name": "site.wipe", "safety": "mutating"}}})
		helper := w.session("helper", writ.RoleExecutor, "helper")
		id := c.enqueue("build", obj{"write_scopes": []string{"fs:repo/site/"}, "labels": []string{"pii.redacted"}})
		l := c.builder.claim(id)
		give := func(more obj) obj {
			b := obj{"key": "part", "capability": tool}
			for k, v := range more {
				b[k] = v
			}
			return obj{"task_id": id, "lease_id": l.id, "fence": l.fence, "to": "helper", "task": b}
		}
		for reason, more := range map[string]obj{"capability": {"capability": "site.wipe"}, "write_scopes": {"write_scopes": []string{"fs:repo/"}}} {
			if r := c.builder.refused(403, "scope_denied", "POST", "/v1/agents/delegate", give(more)); r.str("details", "reason") != reason {
				t.Errorf("got %s", r)
			}
		}
		stale := give(nil)
		stale["fence"] = l.fence + 1
		c.builder.refused(409, "lease_lost", "POST", "/v1/agents/delegate", stale)
		c.builder.refused(403, "not_holder", "POST", "/v1/agents/delegate", obj{"run_id": c.run, "to": "helper", "task": obj{"key": "part", "capability": tool}})
		r := c.builder.ok(201, "POST", "/v1/agents/delegate", give(nil))
		if !strings.Contains(string(r.body), "pii.redacted") || r.str("task", "required_agents", "0") != "helper" || r.str("task", "required_domain") != "docs" {
			t.Fatalf("got %s", r)
		}
		if s := c.state(id); s != writ.TaskRunning {
			t.Fatalf("the task at hand is %s", s)
		}
		helper.complete(helper.claim(r.str("task", "task_id")))
		c.builder.complete(l)
		w.audited()
	})
}

// The receipts lead from the task at hand to the work that was given away, and from
// that to who took it; the evidence says by which words it came to that agent.
func TestM4T4ReceiptsLinkWhatWasDelegated(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("helper", "docs", "executor", tool, []string{}, obj{"routing": obj{"keywords": []string{"spelling"}}})
		helper := w.session("helper", writ.RoleExecutor, "helper").at(w.last())
		id := c.enqueue("build", nil)
		claimed := c.builder.ok(200, "POST", "/v1/tasks/"+id+"/claim", nil)
		l := leaseOf(claimed)
		given := c.builder.ok(201, "POST", "/v1/agents/delegate", l.hold(obj{"task_id": id, "input": "check the spelling", "task": obj{"key": "part", "capability": tool}}))
		part := given.str("task", "task_id")
		taken := helper.ok(200, "POST", "/v1/tasks/"+part+"/claim", nil)
		done := helper.complete(leaseOf(taken))
		if given.str("decision", "agent_id") != "helper" || given.str("task", "receipt") != string(given.receipt()) {
			t.Fatalf("got %s", given)
		}
		known := map[writ.ReceiptID]statement{}
		_, all := w.export()
		for _, s := range all {
			known[s.Predicate.ReceiptID] = s
		}
		for child, parent := range map[writ.ReceiptID]writ.ReceiptID{given.receipt(): claimed.receipt(), taken.receipt(): given.receipt(), done.receipt(): taken.receipt()} {
			if s := known[child].Predicate; !slices.Contains(s.Parents, parent) || s.Run != c.run {
				t.Errorf("%s of %s names %v, not %s", s.Transition, s.Run, s.Parents, parent)
			}
		}
		if s := known[given.receipt()].Predicate; s.Transition != "agent.delegate" || len(s.Changes) != 1 || s.Changes[0] != (writ.Change{Kind: writ.ObjectTask, ID: part, To: "queued"}) {
			t.Errorf("got %+v", s)
		}
		ev := w.op.ok(200, "GET", "/v1/receipts/"+string(given.receipt())+"/evidence", nil)
		if ev.str("evidence", "object", "args", "input") != "check the spelling" || ev.str("evidence", "object", "args", "task_id") != id {
			t.Errorf("got %s", ev)
		}
		c.builder.complete(l)
		w.audited()
	})
}

// What people must agree to when it is enqueued they must agree to when it is
// delegated.
func TestDelegationIsJudgedAsEnqueueing(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("mailer", "mail", "executor", "", []string{}, obj{"tools": []obj{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}})
		w.session("mailer", writ.RoleExecutor, "mailer")
		leaks := obj{"run_id": c.run, "input": "leaky", "task": obj{"key": "leak", "capability": "site.leak", "labels": []string{"no.such.label"}}}
		w.agent("leaky", "leaky", "executor", "", []string{}, obj{"tools": []obj{{"name": "site.leak", "safety": "mutating", "sinks": []string{"egress"}}}})
		w.session("leaky", writ.RoleExecutor, "leaky")
		denied := c.orc.refused(403, "classification_denied", "POST", "/v1/agents/delegate", leaks)
		if why := w.op.ok(200, "GET", "/v1/policy/explain/"+denied.str("receipt"), nil); !strings.Contains(string(why.body), `"effect":"deny"`) || !strings.Contains(string(why.body), denied.str("rule_ids", "0")) {
			t.Errorf("explained as %s", why) // by the rules of what it was judged as
		}
		body := obj{"run_id": c.run, "to": "mailer", "task": obj{"key": "letter", "capability": "mail.send"}}
		w.alice().approve(c.orc.waits("POST", "/v1/agents/delegate", body))
		c.orc.ok(201, "POST", "/v1/agents/delegate", body)
		w.audited()
	})
}

// Work that another agent owns is nobody else's to be given, whichever way.
func TestDelegationKeepsToOwners(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		docs := obj{"tools": []obj{{"name": "site.docs", "safety": "mutating", "concern": "docs"}}}
		owner := obj{"tools": docs["tools"], "owns": []string{"docs"}}
		w.agent("writer", "web", "executor", "", []string{}, owner)
		w.agent("scribe", "web", "executor", "", []string{}, docs)
		w.session("writer", writ.RoleExecutor, "writer")
		scribe := w.session("scribe", writ.RoleExecutor, "scribe")
		give := func(to string) obj {
			return obj{"run_id": c.run, "to": to, "task": obj{"key": "page", "capability": "site.docs"}}
		}
		if r := c.orc.refused(403, "policy_denied", "POST", "/v1/agents/delegate", give("scribe")); r.str("details", "to") != "writer" || r.str("rule_ids", "0") != "lifecycle.boundary" {
			t.Fatalf("got %s", r)
		}
		c.orc.ok(201, "POST", "/v1/agents/delegate", give("writer"))
		c.op.ok(200, "POST", "/v1/agents/writer/suspend", nil) // then nobody owns it
		l := scribe.claim(c.enqueue("mine", obj{"capability": "site.docs"}))
		within(t, 10*time.Second, "the writer is active again", func() bool { // what it left is ended first
			r := c.op.do("POST", "/v1/agents/writer/activate", nil)
			return r.status == 200 || r.str("code") != "capability_unavailable"
		})
		next := l.hands(obj{"task": obj{"key": "rest", "capability": "site.docs"}}, nil)
		if r := scribe.refused(403, "policy_denied", "POST", "/v1/tasks/"+l.task+"/handoff", next); r.str("details", "to") != "writer" {
			t.Fatalf("got %s", r)
		}
		w.audited()
	})
}

// Who agrees to delegated work agrees to the agent that was chosen: when it is another
// by then, people are asked about that one.
func TestConsentIsToTheAgentChosen(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		mail := []obj{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}
		for agent, priority := range map[writ.AgentID]int{"mailer": 9, "courier": 1} {
			w.agent(agent, string(agent), "executor", "", []string{}, obj{"tools": mail, "routing": obj{"keywords": []string{"letters"}, "priority": priority}})
			w.session(string(agent), writ.RoleExecutor, agent)
		}
		body := obj{"run_id": c.run, "input": "letters", "task": obj{"key": "letter", "capability": "mail.send"}}
		first := c.orc.waits("POST", "/v1/agents/delegate", body)
		w.alice().approve(first)
		w.op.ok(200, "POST", "/v1/agents/mailer/suspend", nil)
		second := c.orc.waits("POST", "/v1/agents/delegate", body)
		if second == first {
			t.Fatal("consent to one agent was used for another")
		}
		w.alice().approve(second)
		r := c.orc.ok(201, "POST", "/v1/agents/delegate", body)
		if r.str("decision", "agent_id") != "courier" {
			t.Fatalf("got %s", r)
		}
		// What was asked for once is there, whoever it would go to now.
		w.op.ok(200, "POST", "/v1/agents/courier/suspend", nil)
		if again := c.orc.do("POST", "/v1/agents/delegate", body); again.status != 200 || again.str("task", "task_id") != r.str("task", "task_id") || again.str("decision", "match_type") != "earlier" {
			t.Fatalf("again: %s", again)
		}
		w.audited()
	})
}
