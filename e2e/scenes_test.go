package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// A scene makes a call of a capability possible and says who makes it, with what beyond the smallest its schema takes.
type scene func() (by caller, args obj)

// lenient are policies under which a call of every capability is accepted: agents outside a
// jail act outside too, and people are asked for an answer.
func lenient(t testing.TB) sources {
	s := shipped(t)
	s["packs/egress/data.yaml"] = strings.Replace(s["packs/egress/data.yaml"], "allow_unjailed: false", "allow_unjailed: true", 1)
	s["packs/answers/pack.yaml"] = `manifest:
  id: answers
  version: 1.0.0
  title: What only a person knows
  owner: team
  kind: guard
  match: {capabilities: [task.enqueue]}
  effects: [deny, require_approval]
`
	s["packs/answers/answers.rego"] = `package packs.answers

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: answers.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "answers.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Survey
# description: Somebody is to be asked.
# custom: {id: answers.survey, severity: low, control: a person answers}
findings contains {
	"rule": "answers.survey", "effect": "require_approval", "code": "approval_required", "message": "a person answers first",
	"obligations": [{"type": "approval", "args": {"kind": "human_action", "scope": "call", "roles": ["approver"], "expires_s": 600}}],
} if {
	input.task.capability == "mail.survey"
}
`
	return s
}

// onLenientHosts runs a test on both hosts under those policies, by gateways that let grants name loopback.
func onLenientHosts(t *testing.T, f func(t *testing.T, host string, args []string)) {
	t.Helper()
	t.Parallel()
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			f(t, host, []string{"--egress-grants", "127.0.0.0/8", "--policies", lenient(t).dir(t)})
		})
	}
}

// scenes of every capability that needs more than names of what is there.
func (c cast) scenes(t testing.TB, idle, alice, judge caller) map[writ.CapabilityID]scene {
	c.agent("mailer", "web", "executor", "", []string{}, obj{"tools": []obj{
		{"name": "mail.send", "safety": "mutating", "approval": "manual"}, {"name": "mail.survey", "safety": "mutating"},
	}})
	n := 0
	fresh := func(what string) string { n++; return what + "-" + strconv.Itoa(n) }
	as := func(by caller, args obj) scene { return func() (caller, obj) { return by, args } }
	agent := func() string {
		id := fresh("agent")
		c.agent(writ.AgentID(id), "spare", "executor", "spare.work", []string{}, nil)
		return id
	}
	ofAgent := func() (caller, obj) { return c.op, obj{"agent_id": agent()} }
	held := func() obj {
		l := c.builder.claim(c.enqueue(fresh("held"), nil))
		return l.hold(obj{"task_id": l.task})
	}
	ofHolder := func(more obj) scene { return func() (caller, obj) { return c.builder, over(held(), more) } }
	run := func() string { return c.newRun(5) }
	asked := func() string {
		return c.orc.waits("POST", "/v1/tasks", c.task(fresh("mail"), obj{"capability": "mail.send"}))
	}
	approved := func() string {
		id := asked()
		alice.approve(id)
		return id
	}
	session := func() string {
		return c.op.ok(201, "POST", "/v1/sessions", obj{"principal": "guest", "kind": "human", "role": "auditor"}).str("session_id")
	}
	ended := func() string {
		id := run()
		c.orc.ok(200, "POST", "/v1/runs/"+id+"/cancel", nil)
		return id
	}
	verdict := func(path, id string) obj {
		_, body := judge.verdict(path+id, "accept", nil)
		return body
	}
	made := c.builder.claim(c.enqueue("made", obj{"lease_ttl_s": 600, "produces": []obj{made("site", "text/plain", nil)}}))
	digest := c.builder.put(made, "site", "the site")
	artifact := as(c.op, obj{"task_id": made.task, "digest": digest})

	// The others of the shop: a host outside that is granted, keys, quotas, secrets, policies.
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" { // nobody knows whether it was done
			panic(http.ErrAbortHandler)
		}
		w.Header()["Date"] = nil
	}))
	t.Cleanup(outside.Close)
	_, port, err := net.SplitHostPort(outside.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	grant := obj{"host": "127.0.0.1", "port": number, "scheme": "http", "agents": []string{"builder"}, "private": []string{"127.0.0.0/8"}, "methods": []string{"GET", "POST"}, "rps": 1000}
	c.op.ok(201, "PUT", "/v1/egress/grants/outside", grant)
	unknown := func() string {
		c.builder.refused(409, writ.CodeEffectUnknown, "POST", "/v1/egress/fetch", obj{"grant": "outside", "path": "/gone", "method": "POST", "task_id": made.task})
		return c.op.ok(200, "GET", "/v1/effects?state=unknown", nil).str("effects", "0", "effect_id")
	}
	quota := func() string {
		return c.op.ok(201, "POST", "/v1/quotas", obj{"metric": "open_approvals", "subject": "capability", "value": fresh("x.y"), "limit": 1000}).str("quota_id")
	}
	same := func() sources {
		s := lenient(t)
		s["packs/budgets/budgets.rego"] += "\n# " + fresh("mark") + "\n"
		return s
	}
	key := func() { c.op.ok(201, "POST", "/v1/keys", obj{"public_key": c.newKey(c.keysDir()).text}) }
	newest := func() (id string) {
		within(t, 20*time.Second, "every gateway holds the key", func() bool {
			rows, _ := c.receiptKeys()
			last := rows[len(rows)-1]
			id = last.KeyID
			return len(last.Waiting) == 0 && len(last.Ready) == len(c.gw)
		})
		return id
	}
	once := func(f func() (caller, obj)) scene { // for what takes long: it is as it was left the second time
		var by caller
		var args obj
		return func() (caller, obj) {
			if args == nil {
				by, args = f()
			}
			return by, args
		}
	}
	return map[writ.CapabilityID]scene{
		"agent.activate": func() (caller, obj) {
			id := fresh("planned")
			c.op.ok(201, "PUT", "/v1/agents/"+id, obj{"archetypes": []string{"executor"}, "domain": "spare", "tools": []obj{{"name": "spare.work", "safety": "mutating"}}})
			return c.op, obj{"agent_id": id}
		},
		"agent.delegate": func() (caller, obj) {
			return c.orc, obj{"run_id": c.run, "to": "builder", "task": obj{"key": fresh("given"), "capability": tool}}
		},
		"agent.register": func() (caller, obj) {
			return c.op, obj{"agent_id": fresh("new"), "archetypes": []string{"executor"}, "domain": "web"}
		},
		"agent.retire":  ofAgent,
		"agent.revoke":  ofAgent,
		"agent.suspend": ofAgent,
		"agent.supersede": func() (caller, obj) {
			return c.op, obj{"agent_id": agent(), "successor": agent()}
		},
		"agent.route":     as(c.op, obj{"input": "web"}),
		"approval.decide": func() (caller, obj) { return alice, obj{"approval_id": asked(), "decision": "approve"} },
		"approval.get":    func() (caller, obj) { return c.op, obj{"approval_id": asked()} },
		"approval.respond": func() (caller, obj) {
			id := c.orc.waits("POST", "/v1/tasks", c.task(fresh("survey"), obj{"capability": "mail.survey"}))
			return alice, obj{"approval_id": id, "response": obj{"ok": true}}
		},
		"approval.revoke":  func() (caller, obj) { return c.op, obj{"approval_id": approved()} },
		"artifact.content": artifact,
		"artifact.get":     artifact,
		"effect.get":       func() (caller, obj) { return c.op, obj{"effect_id": unknown()} },
		"effect.resolve":   func() (caller, obj) { return c.op, obj{"effect_id": unknown(), "as": "ok"} },
		"egress.fetch": func() (caller, obj) {
			return c.builder, obj{"grant": "outside", "path": "/", "task_id": made.task}
		},
		"egress.grant": func() (caller, obj) { return c.op, over(grant, obj{"grant_id": fresh("grant")}) },
		"egress.revoke": func() (caller, obj) {
			id := fresh("grant")
			c.op.ok(201, "PUT", "/v1/egress/grants/"+id, grant)
			return c.op, obj{"grant_id": id}
		},
		"evidence.shred": func() (caller, obj) { return c.op, obj{"run_id": ended(), "reason": "legal_order"} },
		"key.introduce": once(func() (caller, obj) {
			return c.op, obj{"public_key": c.newKey(c.keysDir()).text}
		}),
		"key.activate": once(func() (caller, obj) {
			key()
			return c.op, obj{"key_id": newest()}
		}),
		"key.retire": once(func() (caller, obj) { return c.op, obj{"key_id": newest()} }),
		"key.revoke": once(func() (caller, obj) {
			rows, _ := c.receiptKeys()
			return c.op, obj{"key_id": rows[0].KeyID}
		}),
		"policy.activate": once(func() (caller, obj) {
			id := c.op.stage(same())
			c.settled(id)
			return c.op, obj{"digest": id}
		}),
		"policy.explain": func() (caller, obj) {
			return c.op, obj{"receipt_id": c.op.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")}
		},
		"policy.rollback": once(func() (caller, obj) { return c.op, obj{} }),
		"policy.stage":    once(func() (caller, obj) { return c.op, obj{"bundle": same().upload(t)["bundle"]} }),
		"policy.withdraw": once(func() (caller, obj) { return c.op, obj{"digest": c.op.stage(same())} }),
		"quota.delete":    func() (caller, obj) { return c.op, obj{"quota_id": quota()} },
		"quota.get":       func() (caller, obj) { return c.op, obj{"quota_id": quota()} },
		"quota.set":       as(c.op, obj{"metric": "queued_tasks", "subject": "tenant", "limit": 100_000}),
		"role.bind":       func() (caller, obj) { return c.op, obj{"principal": fresh("guest"), "role": "auditor"} },
		"run.budget":      as(c.op, obj{"run_id": c.run}),
		"run.cancel":      func() (caller, obj) { return c.orc, obj{"run_id": run()} },
		"run.close": func() (caller, obj) {
			j := c
			j.judgedRun()
			c.orc.ok(200, "POST", "/v1/runs/"+j.run+"/seal", nil)
			return judge, over(verdict("/v1/runs/", j.run), obj{"run_id": j.run})
		},
		"run.create": as(c.orc, obj{"budget": obj{"steps": 5}}),
		"run.seal":   func() (caller, obj) { return c.orc, obj{"run_id": run()} },
		"secret.delete": func() (caller, obj) {
			id := fresh("kept")
			c.op.ok(201, "PUT", "/v1/secrets/"+id, obj{"host": "api.example.com", "value": "s3cret"})
			return c.op, obj{"name": id}
		},
		"secret.put": func() (caller, obj) {
			return c.op, obj{"name": fresh("secret"), "host": "api.example.com", "value": "s3cret"}
		},
		"session.close":     func() (caller, obj) { s := c.another(); return s, obj{"session_id": s.id} },
		"session.heartbeat": as(idle, obj{"session_id": idle.id}),
		"session.open":      as(c.op, obj{"principal": "guest", "kind": "human", "role": "auditor"}),
		"session.revoke":    func() (caller, obj) { return c.op, obj{"session_id": session()} },
		"session.spawn":     as(c.op, obj{"agent_id": "builder", "role": "executor"}),
		"session.start": func() (caller, obj) {
			s := c.openedOnly("builder", nil)
			return s, obj{"session_id": s.id}
		},
		"task.admit":    func() (caller, obj) { return c.orc, obj{"task_id": c.enqueue(fresh("manual"), obj{"join": "manual"})} },
		"task.cancel":   func() (caller, obj) { return c.orc, obj{"task_id": c.enqueue(fresh("gone"), nil)} },
		"task.claim":    func() (caller, obj) { return idle, obj{"task_id": c.enqueue(fresh("free"), nil)} },
		"task.complete": ofHolder(nil),
		"task.enqueue": func() (caller, obj) {
			return c.orc, obj{"run_id": c.run, "key": fresh("task"), "capability": tool, "required_domain": "web"}
		},
		"task.fail": ofHolder(obj{"failure": obj{"class": "external", "code": "x", "retryable": false}}),
		"task.handoff": func() (caller, obj) {
			return c.builder, over(held(), obj{"to": obj{"task": obj{"key": fresh("next"), "capability": tool, "required_domain": "web"}}})
		},
		"task.heartbeat": ofHolder(nil),
		"task.list":      as(c.op, obj{"run_id": c.run}),
		"task.release":   ofHolder(nil),
		"task.revive": func() (caller, obj) {
			id := c.enqueue(fresh("died"), obj{"max_attempts": 1})
			l := c.builder.claim(id)
			c.builder.ok(200, "POST", "/v1/tasks/"+id+"/fail", l.hold(obj{"failure": obj{"class": "external", "code": "x", "retryable": true}}))
			return c.orc, obj{"task_id": id, "key": fresh("again")}
		},
		"task.verify": func() (caller, obj) {
			id := c.enqueue(fresh("judged"), obj{"verify": obj{"required": true}})
			c.builder.complete(c.builder.claim(id))
			return judge, over(verdict("/v1/tasks/", id), obj{"task_id": id})
		},
	}
}
