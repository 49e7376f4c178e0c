package story

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
)

// Jail is the program that the story's agent runs in a jail, as the machine's file of
// jails has it, and what lies outside for it to try.
type Jail struct {
	Program   string
	TokenFile string
}

// jailed plays an agent that runs where it can reach nothing but the gateway.
func (s *Story) jailed(ctx context.Context, j Jail) {
	if s.err != nil {
		return
	}
	s.say("An agent runs in a strict jail: the same work, and no way out. First it tries.")
	gateway, err := url.Parse(s.url)
	if err != nil {
		s.err = err
		return
	}
	type session struct {
		SessionID string `json:"session_id"`
		AgentID   string `json:"agent_id"`
	}
	var other struct {
		Sessions []session `json:"sessions"`
	}
	if _, err := s.who["operator"].Invoke(ctx, "session.list", args{"limit": 200}, &other); err != nil {
		s.surprise("operator", "session.list", err)
		return
	}
	of := slices.IndexFunc(other.Sessions, func(o session) bool { return o.AgentID != "" })
	if of < 0 {
		s.surprise("operator", "session.list", errors.New("want the session of another agent"))
		return
	}
	id := fmt.Sprintf("caged-%d", time.Now().Unix())
	s.allowed(ctx, "operator", "agent.register", id, args{
		"agent_id": id, "archetypes": []string{"executor"}, "domain": "cage", "write_scope": []string{},
		"tools": []args{{"name": "cage.build", "safety": "mutating"}},
		"jail": args{"program": j.Program, "profile": "strict", "memory_mb": 256, "deadline_s": 120, "args": []string{
			outsideToken + "=" + j.TokenFile, outsideGateway + "=" + gateway.Host, outsideSession + "=" + other.Sessions[of].SessionID,
		}},
	}, nil)
	s.allowed(ctx, "operator", "agent.activate", id, args{"agent_id": id}, nil)
	run := s.run(ctx, "caged", 20)
	var t struct {
		TaskID string `json:"task_id"`
	}
	s.allowed(ctx, "planner", "task.enqueue", "caged", task(run, "caged", "cage.build", "cage", nil), &t)
	s.allowed(ctx, "planner", "run.seal", "", args{"run_id": run}, nil)
	var spawned struct {
		SessionID string `json:"session_id"`
	}
	s.allowed(ctx, "operator", "session.spawn", "", args{"agent_id": id, "role": "executor"}, &spawned)
	if s.err != nil {
		return
	}
	exit, features, err := s.untilEnded(ctx, spawned.SessionID)
	if err != nil {
		s.surprise("caged", "session.get", err)
		return
	}
	var done struct {
		State  writ.TaskState `json:"state"`
		Result struct {
			Built   bool      `json:"built"`
			Reached bool      `json:"reached"`
			Tried   []attempt `json:"tried"`
		} `json:"result"`
	}
	if _, err := s.who["planner"].Invoke(ctx, "task.get", args{"task_id": t.TaskID}, &done); err != nil || done.State != writ.TaskDone || !done.Result.Built {
		s.surprise("caged", "task.get", fmt.Errorf("want a task that is done, got %q: %w", done.State, err))
		return
	}
	if len(done.Result.Tried) != escapesTried {
		s.surprise("caged", "task.get", fmt.Errorf("want %d attempts to get out, got %d", escapesTried, len(done.Result.Tried)))
		return
	}
	for _, a := range done.Result.Tried {
		decision := "NO"
		if a.Reached {
			decision = "YES"
			s.err = errors.New("an agent in a jail could " + a.What)
		}
		s.line("caged", a.What, decision, a.Came, "")
	}
	s.line("caged", "task.complete caged", "allow", "", "")
	s.line("caged", fmt.Sprintf("the agent ended with code %d, in %d ms of CPU", exit.Code, exit.CPUMs), "", "landlock ABI "+features["landlock"]+", cgroup "+features["cgroup"], "")
	if exit.Why != writ.JailExited || exit.Code != 0 {
		s.surprise("caged", "session.get", fmt.Errorf("it ended badly: %+v", exit))
	}
}

// untilEnded waits until nothing of a jail is left.
func (s *Story) untilEnded(ctx context.Context, id string) (writ.JailExit, map[string]string, error) {
	var got struct {
		Jail struct {
			State    writ.JailState    `json:"state"`
			Features map[string]string `json:"features"`
			Exit     writ.JailExit     `json:"exit"`
		} `json:"jail"`
	}
	for range 600 {
		if _, err := s.who["operator"].Invoke(ctx, "session.get", args{"session_id": id}, &got); err != nil {
			return got.Jail.Exit, nil, err
		}
		if got.Jail.State == writ.JailEnded {
			if got.Jail.Exit.Why == writ.JailUnavailable {
				return got.Jail.Exit, nil, fmt.Errorf("no jail can be made here, %s is missing: 'writ jail doctor' or the gateway's log says what to do", got.Jail.Exit.Missing)
			}
			return got.Jail.Exit, got.Jail.Features, nil
		}
		select {
		case <-ctx.Done():
			return got.Jail.Exit, nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
	return got.Jail.Exit, nil, errors.New("it does not end")
}
