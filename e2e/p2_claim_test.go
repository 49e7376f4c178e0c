package e2e

import (
	"testing"

	"github.com/writ-gateway/writ"
)

// Of 64 claims on one task at once, exactly one wins.
func TestP2T1OneOfManyClaimsWins(t *testing.T) {
	underLoad(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("builder-2", "web", "executor", tool, []string{"fs:other/"}, nil)
		sessions := []caller{
			c.builder, c.another(), w.session("builder-2", "executor", "builder-2"), w.session("builder-2", "executor", "builder-2"),
		}
		for round := range 3 {
			task := c.enqueue(key(round), nil)
			got := make([]reply, 64)
			each(len(got), func(i int) {
				s := sessions[i%len(sessions)].at(w.gw[i/8%len(w.gw)])
				r, err := s.insist("POST", "/v1/tasks/"+task+"/claim", nil)
				if err != nil {
					t.Errorf("claim: %v", err)
				}
				got[i] = r
			})
			winner := -1
			for i, r := range got {
				switch {
				case r.status == 200 && winner >= 0:
					t.Fatalf("both %d and %d won", winner, i)
				case r.status == 200:
					winner = i
				case r.status != 409 || r.code() != "already_claimed":
					t.Fatalf("claim %d: %s", i, r)
				}
			}
			if winner < 0 {
				t.Fatal("nobody won")
			}
			for i, r := range got {
				if want := string(sessions[winner%len(sessions)].agent); i != winner && r.str("details", "holder_agent") != want {
					t.Fatalf("claim %d names %q as the holder, not %q: %s", i, r.str("details", "holder_agent"), want, r)
				}
			}
		}
	})
}

// A task is for agents of its domain, its capability and its list only.
func TestA2T3P2T2WrongAgentOrDomain(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("press", "press", "executor", tool, []string{"fs:press/"}, nil)
		w.agent("painter", "web", "executor", "site.paint", []string{"fs:paint/"}, nil)
		w.agent("builder-2", "web", "executor", tool, []string{"fs:other/"}, nil)
		press, painter := w.session("press", "executor", "press"), w.session("painter", "executor", "painter")
		other := w.session("builder-2", "executor", "builder-2")

		task := c.enqueue("for-web", nil)
		for _, s := range []caller{press, painter} {
			r := s.refused(403, "not_eligible", "POST", "/v1/tasks/"+task+"/claim", nil)
			if r.receipt() == "" {
				t.Fatalf("no receipt: %s", r)
			}
			if r := s.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
				t.Fatalf("offered to %s: %s", s.agent, r)
			}
		}
		c.orc.refused(403, "rbac_denied", "POST", "/v1/tasks/"+task+"/claim", nil)
		c.builder.complete(c.builder.claim(task))

		task = c.enqueue("for-one", obj{"required_agents": []string{"builder"}})
		other.refused(403, "not_eligible", "POST", "/v1/tasks/"+task+"/claim", nil)
		if r := other.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("offered to another agent: %s", r)
		}
		if l := c.builder.claimNext(); l.task != task {
			t.Fatalf("not offered to the agent it names: %+v", l)
		}
	})
}

// A claim on a scope that is held fails and the task stays queued; waiting for
// the next task parks it, and the holder's end offers it again.
func TestP2T3ScopeHeldElsewhere(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		second := c.another().at(w.last())
		scope := obj{"write_scopes": []string{"fs:repo/docs/"}}
		held := c.builder.claim(c.enqueue("one", scope))
		waits := c.enqueue("two", obj{"write_scopes": []string{"fs:repo/docs/a/"}})

		r := second.refused(409, "scope_conflict", "POST", "/v1/tasks/"+waits+"/claim", nil)
		if r.str("details", "holder_agent") != "builder" || r.str("details", "holder") != held.task || r.receipt() == "" {
			t.Fatalf("the refusal: %s", r)
		}
		if s := c.state(waits); s != "queued" {
			t.Fatalf("the task is %s", s)
		}
		if r := second.do("POST", "/v1/tasks/claim", nil); r.status != 204 {
			t.Fatalf("handed out although its scope is held: %s", r)
		}
		if r := c.orc.ok(200, "GET", "/v1/tasks/"+waits, nil); r.str("state") != "queued" || len(r.at("blocked_on").([]any)) != 1 {
			t.Fatalf("the parked task: %s", r)
		}

		offered := second.poll()
		c.builder.complete(held)
		if r := <-offered; r.status != 200 || leaseOf(r).task != waits {
			t.Fatalf("after the scope was released: %s", r)
		}
	})
}

// A run that waits for people hands out no work, by id or by poll, until they agree.
func TestP2T4ClaimWhileTheRunIsPaused(t *testing.T) {
	onAskingHosts(t, func(t *testing.T, w *world) {
		c := w.riskyCast(t)
		body := obj{"title": "short", "budget": obj{"steps": 1}}
		w.alice().approve(c.orc.waits("POST", "/v1/runs", body))
		c.run = c.orc.ok(201, "POST", "/v1/runs", body).str("run_id")
		first, second := c.enqueue("first", nil), c.enqueue("second", nil)
		id := c.builder.waits("POST", "/v1/tasks/"+first+"/claim", nil)
		if s := w.runState(c.run); s != "paused_approval" {
			t.Fatalf("the run is %s", s)
		}
		other := c.another().at(w.last())
		for _, task := range []string{first, second} {
			r := other.refused(423, writ.CodePaused, "POST", "/v1/tasks/"+task+"/claim", nil)
			if r.receipt() == "" || r.str("rule_ids", "0") != "lifecycle.paused" {
				t.Errorf("got %s", r)
			}
		}
		other.ok(204, "POST", "/v1/tasks/claim", nil)
		if s := c.state(second); s != writ.TaskQueued {
			t.Fatalf("the task is %s", s)
		}
		w.alice().at(w.last()).approve(id)
		other.complete(other.claim(second))
		w.audited()
	})
}
