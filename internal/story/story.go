// Package story is the demonstration: an operator, an orchestrator and two
// executors do a small piece of work through a running gateway, and what lies
// outside policy is refused. It is a client like any other; nothing in it can
// do what an agent could not.
package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// Story is one telling.
type Story struct {
	Jail *Jail // nil: the story has no agent in a jail

	url  string
	out  io.Writer
	who  map[string]*client.Client
	err  error // the first surprise; later steps are not played
	step int
}

// New makes a story told to out, by an operator with the given token file.
func New(url, tokenFile string, out io.Writer) (*Story, error) {
	op, err := client.New(client.Config{URL: url, TokenFile: tokenFile})
	if err != nil {
		return nil, err
	}
	return &Story{url: url, out: out, who: map[string]*client.Client{"operator": op}}, nil
}

// Tell plays the story. An error means that something went another way than
// the story says: a call that should have been refused was not, or the other
// way round.
func (s *Story) Tell(ctx context.Context) error {
	s.header()
	s.agents(ctx)
	s.sessions(ctx)
	run := s.run(ctx, "website", 40)
	s.work(ctx, run)
	s.refusals(ctx, run)
	s.risky(ctx, run)
	s.staleWorker(ctx, run)
	s.exhausted(ctx)
	s.finish(ctx, run)
	if s.Jail != nil {
		s.jailed(ctx, *s.Jail)
	}
	return s.err
}

// args is the body of a call.
type args = map[string]any

func (s *Story) agents(ctx context.Context) {
	s.say("An operator registers four agents: what they can do, and where they may write.")
	tool := func(name, safety string, sinks ...writ.Sink) args {
		t := args{"name": name, "safety": safety}
		if len(sinks) > 0 {
			t["sinks"] = sinks
		}
		return t
	}
	for _, a := range []args{
		{"agent_id": "planner", "archetypes": []string{"orchestrator"}, "domain": "web", "tools": []args{}, "write_scope": []string{}},
		{
			"agent_id": "site-builder", "archetypes": []string{"executor"}, "domain": "web",
			"tools": []args{tool("site.build", "mutating"), tool("site.publish", "mutating", writ.SinkEgress)}, "write_scope": []string{"fs:site/"},
		},
		{
			"agent_id": "press-writer", "archetypes": []string{"executor"}, "domain": "press",
			"tools": []args{tool("press.release", "mutating")}, "write_scope": []string{"fs:press/"},
		},
		{
			"agent_id": "mailer", "archetypes": []string{"executor"}, "domain": "press",
			"tools": []args{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}, "write_scope": []string{},
		},
	} {
		id := a["agent_id"].(string)
		var now struct {
			State writ.AgentState `json:"state"`
		}
		if _, err := s.who["operator"].Invoke(ctx, "agent.info", args{"agent_id": id}, &now); err == nil && now.State == writ.AgentActive {
			s.line("operator", "agent.info "+id, "active since an earlier telling", "", "")
			continue
		}
		s.allowed(ctx, "operator", "agent.register", id, a, nil)
		s.allowed(ctx, "operator", "agent.activate", id, args{"agent_id": id}, nil)
	}
}

func (s *Story) sessions(ctx context.Context) {
	s.say("Each gets a session: one principal, one role, one token that dies with it.")
	for _, p := range []struct{ name, agent, role string }{
		{"planner", "planner", "orchestrator"},
		{"builder", "site-builder", "executor"},
		{"builder-2", "site-builder", "executor"},
		{"press", "press-writer", "executor"},
		{"mailer", "mailer", "executor"},
		{"alice", "", "approver"},
		{"planner-2", "", "approver"},
	} {
		var opened struct {
			SessionID string `json:"session_id"`
			Token     string `json:"token"`
		}
		body := args{"principal": p.agent, "kind": "agent", "role": p.role, "agent_id": p.agent, "heartbeat_ttl_s": 300}
		if p.agent == "" {
			// planner-2 is the planner once more, as one who may decide.
			body = args{"principal": strings.TrimSuffix(p.name, "-2"), "kind": "human", "role": p.role}
		}
		s.allowed(ctx, "operator", "session.open", p.name, body, &opened)
		if s.err != nil {
			return
		}
		c, err := client.New(client.Config{URL: s.url, Token: opened.Token})
		if err != nil {
			s.err = err
			return
		}
		s.who[p.name] = c
		s.allowed(ctx, p.name, "session.start", "", args{"session_id": opened.SessionID}, nil)
	}
}

func (s *Story) run(ctx context.Context, title string, steps int) string {
	s.say(fmt.Sprintf("The planner opens a run with a budget of %d steps.", steps))
	var run struct {
		RunID string `json:"run_id"`
	}
	s.allowed(ctx, "planner", "run.create", title, args{"title": title, "budget": args{"steps": steps}}, &run)
	return run.RunID
}

// claim is what task.claim hands out.
type claim struct {
	Task struct {
		TaskID string `json:"task_id"`
	} `json:"task"`
	Lease struct {
		ID    string `json:"id"`
		Fence int64  `json:"fence"`
	} `json:"lease"`
}

func (c claim) hold(more args) args {
	out := args{"task_id": c.Task.TaskID, "lease_id": c.Lease.ID, "fence": c.Lease.Fence}
	for k, v := range more {
		out[k] = v
	}
	return out
}

func task(run, key, capability, domain string, more args) args {
	a := args{"run_id": run, "key": key, "capability": capability, "required_domain": domain, "args": args{"ref": "main"}}
	for k, v := range more {
		a[k] = v
	}
	return a
}

func (s *Story) work(ctx context.Context, run string) {
	s.say("Work goes through the queue: enqueue, claim, heartbeat, complete.")
	s.allowed(ctx, "planner", "task.enqueue", "build", task(run, "build", "site.build", "web", args{"write_scopes": []string{"fs:site/dist/"}}), nil)
	var c claim
	s.allowed(ctx, "builder", "task.claim", "next", args{"wait_s": 5}, &c)
	s.allowed(ctx, "builder", "task.heartbeat", "", c.hold(args{"progress": args{"pct": 40, "seq": 1}}), nil)
	s.allowed(ctx, "builder", "task.complete", "", c.hold(args{"result": args{"ok": true}}), nil)
}

func (s *Story) refusals(ctx context.Context, run string) {
	s.say("What lies outside policy is refused, and the refusal is receipted.")
	var t struct {
		TaskID string `json:"task_id"`
	}
	s.allowed(ctx, "planner", "task.enqueue", "press", task(run, "press", "press.release", "press", nil), &t)
	s.refused(ctx, "a claim by the wrong agent", "builder", "task.claim", args{"task_id": t.TaskID}, writ.CodeNotEligible)

	s.allowed(ctx, "planner", "task.enqueue", "outside", task(run, "outside", "site.build", "web", args{"write_scopes": []string{"fs:payroll/"}}), &t)
	s.refused(ctx, "a task outside the agent's write scope", "builder", "task.claim", args{"task_id": t.TaskID}, writ.CodeScope)

	s.refused(ctx, "personal data towards an egress sink", "planner", "task.enqueue",
		task(run, "leak", "site.publish", "web", args{"labels": []string{string(writ.LabelPIIChatMessage)}}), writ.CodeClassification)
	s.refused(ctx, "an executor that wants to plan", "builder", "run.create", args{"budget": args{"steps": 5}}, writ.CodeRBAC)
	s.allowed(ctx, "planner", "task.cancel", "outside", args{"task_id": t.TaskID}, nil)
}

// risky plays a call that a person must agree to.
func (s *Story) risky(ctx context.Context, run string) {
	s.say("A tool declared approval: manual is used only after a second person agreed, and then once.")
	body, key := task(run, "mail", "mail.send", "press", nil), client.WithIdempotencyKey(run+"-mail")
	id := s.waits(ctx, "planner", "task.enqueue", "mail", body, key)
	if s.err != nil {
		return
	}
	s.refused(ctx, "an orchestrator wants to decide", "planner", "approval.decide", args{"approval_id": id, "decision": "approve"}, writ.CodeRBAC)
	s.refused(ctx, "the one who asked, as approver", "planner-2", "approval.decide", args{"approval_id": id, "decision": "approve"}, writ.CodeSoD)
	s.allowed(ctx, "alice", "approval.decide", "approve", args{"approval_id": id, "decision": "approve", "reason": "the list is right"}, nil)
	var t, again struct {
		TaskID string `json:"task_id"`
	}
	s.allowed(ctx, "planner", "task.enqueue", "mail, the same call", body, &t, key)
	s.allowed(ctx, "planner", "task.enqueue", "mail, sent once more", body, &again, key)
	if s.err == nil && (t.TaskID == "" || t.TaskID != again.TaskID) {
		s.surprise("planner", "task.enqueue", errors.New("the call happened twice"))
		return
	}
	var c claim
	s.allowed(ctx, "mailer", "task.claim", "mail", args{"task_id": t.TaskID}, &c)
	s.allowed(ctx, "mailer", "task.complete", "", c.hold(args{"result": args{"sent": 1}}), nil)
}

// waits makes a call that people must agree to first, and returns the approval.
func (s *Story) waits(ctx context.Context, who string, id writ.CapabilityID, what string, body args, opts ...client.Option) string {
	if s.err != nil {
		return ""
	}
	_, err := s.who[who].Invoke(ctx, id, body, nil, opts...)
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != writ.CodeApprovalRequired || e.Details["approval"] == "" {
		s.surprise(who, string(id), fmt.Errorf("should wait for approval, got: %w", err))
		return ""
	}
	rule := ""
	if len(e.Rules) > 0 {
		rule = e.Rules[0]
	}
	s.line(who, string(id)+" "+what, "WAIT", rule, string(e.Receipt))
	return e.Details["approval"]
}

func (s *Story) staleWorker(ctx context.Context, run string) {
	s.say("A worker goes silent; its lease ends, another takes over, and its late result is refused.")
	var t struct {
		TaskID string `json:"task_id"`
	}
	s.allowed(ctx, "planner", "task.enqueue", "slow", task(run, "slow", "site.build", "web",
		args{"write_scopes": []string{"fs:site/slow/"}, "lease_ttl_s": 1, "backoff_ms": 0}), &t)
	var first, second claim
	s.allowed(ctx, "builder", "task.claim", "slow", args{"task_id": t.TaskID}, &first)
	s.untilClaimed(ctx, "builder-2", t.TaskID, &second)
	s.refused(ctx, "a stale worker's late completion", "builder", "task.complete", first.hold(args{"result": args{"ok": true}}), writ.CodeLeaseLost)
	s.allowed(ctx, "builder-2", "task.complete", "slow", second.hold(args{"result": args{"ok": true}}), nil)
}

// untilClaimed asks for work until the task is free again.
func (s *Story) untilClaimed(ctx context.Context, who, id string, out *claim) {
	if s.err != nil {
		return
	}
	for range 20 {
		m, err := s.who[who].Invoke(ctx, "task.claim", args{"wait_s": 2}, out)
		if err != nil {
			s.surprise(who, "task.claim", err)
			return
		}
		if out.Task.TaskID == id {
			s.line(who, "task.claim next", "allow", "", string(m.Receipt))
			return
		}
	}
	s.err = errors.New("the lease of the silent worker did not end")
}

func (s *Story) exhausted(ctx context.Context) {
	run := s.run(ctx, "small", 2)
	for _, key := range []string{"one", "two"} {
		s.allowed(ctx, "planner", "task.enqueue", key, task(run, key, "press.release", "press", args{"priority": 9}), nil)
	}
	var c claim
	s.allowed(ctx, "press", "task.claim", "next", args{"wait_s": 5}, &c)
	s.allowed(ctx, "press", "task.complete", "", c.hold(nil), nil)
	var list struct {
		Tasks []struct {
			TaskID string `json:"task_id"`
			State  string `json:"state"`
		} `json:"tasks"`
	}
	if s.err == nil {
		if _, err := s.who["planner"].Invoke(ctx, "task.list", args{"run_id": run, "state": "queued"}, &list); err != nil || len(list.Tasks) != 1 {
			s.surprise("planner", "task.list", fmt.Errorf("want one queued task, got %d: %w", len(list.Tasks), err))
			return
		}
		s.refused(ctx, "a claim beyond the run's budget", "press", "task.claim", args{"task_id": list.Tasks[0].TaskID}, writ.CodeBudget)
	}
}

func (s *Story) finish(ctx context.Context, run string) {
	s.say("The rest is done, the planner seals the run, and the last task ends it.")
	var c claim
	s.allowed(ctx, "planner", "run.seal", "", args{"run_id": run}, nil)
	for range 3 { // what is left of the exhausted run may be offered first
		if s.err != nil {
			return
		}
		m, err := s.who["press"].Invoke(ctx, "task.claim", args{"wait_s": 3}, &c)
		if err != nil {
			s.surprise("press", "task.claim", err)
			return
		}
		if c.Task.TaskID != "" {
			s.line("press", "task.claim next", "allow", "", string(m.Receipt))
			break
		}
	}
	s.allowed(ctx, "press", "task.complete", "press", c.hold(args{"result": args{"ok": true}}), nil)
	var got struct {
		State writ.RunState `json:"state"`
	}
	if s.err != nil {
		return
	}
	if _, err := s.who["planner"].Invoke(ctx, "run.get", args{"run_id": run}, &got); err != nil || got.State != writ.RunDone {
		s.surprise("planner", "run.get", fmt.Errorf("want a run that is done, got %q: %w", got.State, err))
		return
	}
	s.line("planner", "run.get", "run is "+string(got.State), "", "")
}

// allowed makes a call that must be allowed.
func (s *Story) allowed(ctx context.Context, who string, id writ.CapabilityID, what string, body args, out any, opts ...client.Option) {
	if s.err != nil {
		return
	}
	m, err := s.who[who].Invoke(ctx, id, body, out, opts...)
	if err != nil {
		s.surprise(who, string(id), err)
		return
	}
	s.line(who, strings.TrimSpace(string(id)+" "+what), "allow", "", string(m.Receipt))
}

// refused makes a call that must be refused with a code.
func (s *Story) refused(ctx context.Context, what, who string, id writ.CapabilityID, body args, want writ.Code) {
	if s.err != nil {
		return
	}
	_, err := s.who[who].Invoke(ctx, id, body, nil)
	if writ.CodeOf(err) != want {
		s.surprise(who, string(id), fmt.Errorf("%s should be refused with %s, got: %w", what, want, err))
		return
	}
	e, _ := errors.AsType[*writ.Error](err)
	rule := string(e.Code)
	if len(e.Rules) > 0 {
		rule = e.Rules[0]
	}
	s.line(who, string(id)+": "+what, "DENY", rule, string(e.Receipt))
}

func (s *Story) surprise(who, call string, err error) {
	s.err = fmt.Errorf("%s, %s: %w", who, call, err)
}

func (s *Story) say(text string) {
	if s.err == nil {
		fmt.Fprintf(s.out, "\n%s\n", text)
	}
}

const row = "  %-10s %-52s %-6s %-28s %s\n"

func (s *Story) header() {
	fmt.Fprintf(s.out, row, "WHO", "CALL", "", "RULE OR CODE", "RECEIPT")
}

func (s *Story) line(who, call, decision, rule, receipt string) {
	s.step++
	fmt.Fprintf(s.out, row, who, call, decision, rule, receipt)
}
