// Command loop shows three agents, each a process of its own, that bring a piece of
// work to its end with nobody between them: one plans, one works, one judges. It
// stands for the operator: it registers the agents, opens their sessions, and
// makes no call after that until the run has ended.
//
//	go run ./examples/loop                          # with a gateway of its own
//	go run ./examples/loop --data ~/.local/state/writ   # with one that serves
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

func main() {
	data := flag.String("data", "", "data directory of a gateway that serves; without it one is started in a directory that goes away")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := loop(ctx, *data)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func loop(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "writ-loop-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	packages := []string{"./examples/loop/planner", "./examples/loop/builder", "./examples/loop/judge"}
	if data == "" {
		packages = append(packages, "./cmd/writ")
	}
	build := exec.CommandContext(ctx, "go", append([]string{"build", "-o", dir}, packages...)...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("building the agents (run this in the repository): %w", err)
	}

	var procs sync.WaitGroup // all of them have ended before the directory goes
	defer procs.Wait()
	ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	if data == "" {
		data = filepath.Join(dir, "data")
		if _, err := start(ctx, &procs, "gateway", nil, filepath.Join(dir, "writ"), "serve", "--data", data, "--listen", "127.0.0.1:0", "--log", "warn"); err != nil {
			return err
		}
	}
	operator, url, err := connect(ctx, data)
	if err != nil {
		return err
	}
	defer operator.Close()

	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	planned, gone := make(<-chan error), make(chan error, len(agents))
	tokens := map[writ.AgentID]string{}
	for _, a := range agents { // all of them, before anybody plans for them
		if tokens[a.id], err = admit(ctx, operator, a, dir); err != nil {
			return fmt.Errorf("%s: %w", a.id, err)
		}
	}
	for _, a := range agents {
		ended, err := start(work, &procs, string(a.id), []string{"WRIT_URL=" + url, "WRIT_TOKEN_FILE=" + tokens[a.id]}, filepath.Join(dir, a.program))
		if err != nil {
			return err
		}
		if a.role == writ.RoleOrchestrator {
			planned = ended
			continue
		}
		go func() { gone <- fmt.Errorf("%s ended before the run: %w", a.program, errors.Join(<-ended, work.Err())) }()
	}
	select {
	case err := <-planned:
		if err != nil {
			return fmt.Errorf("the planner: %w", err)
		}
	case err := <-gone:
		return err
	}
	stopWork()
	return show(ctx, operator)
}

// member is one of those who take part.
type member struct {
	id         writ.AgentID
	program    string
	role       writ.Role
	controller writ.PrincipalID // the person answerable for it
	tools      []writ.Tool
	scope      []string
}

// agents are who takes part. Who judges answers to another person than who works:
// two sessions of one person are one.
var agents = []member{
	{"loop-planner", "planner", writ.RoleOrchestrator, "paula", nil, nil},
	{"loop-builder", "builder", writ.RoleExecutor, "ben", []writ.Tool{
		{Name: "loop.build", Safety: writ.SafetyMutating},
		{Name: "loop.test", Safety: writ.SafetyReadOnly},
		{Name: "loop.docs", Safety: writ.SafetyMutating},
		{Name: "loop.publish", Safety: writ.SafetyMutating},
	}, []string{"fs:loop/"}},
	{"loop-judge", "judge", writ.RoleVerifier, "vera", nil, nil},
}

// connect waits until the gateway answers and gives the operator's client.
func connect(ctx context.Context, data string) (*client.Client, string, error) {
	for {
		url, err := os.ReadFile(filepath.Join(data, "gateway.url"))
		if err == nil {
			c, err := client.New(client.Config{URL: strings.TrimSpace(string(url)), TokenFile: filepath.Join(data, "operator.token")})
			if err != nil {
				return nil, "", err
			}
			if _, err := c.ListRuns(ctx, "", ""); err == nil {
				return c, strings.TrimSpace(string(url)), nil
			}
			c.Close()
		}
		select {
		case <-ctx.Done():
			return nil, "", fmt.Errorf("no gateway answers for %s", data)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// admit registers an agent, if it is not known, and opens a session for it. It
// returns the file with the token.
func admit(ctx context.Context, operator *client.Client, a member, dir string) (string, error) {
	if _, err := operator.GetAgent(ctx, a.id); writ.CodeOf(err) == writ.CodeNotFound {
		if _, err := operator.RegisterAgent(ctx, client.AgentOptions{
			ID: a.id, Archetypes: []writ.Role{a.role}, Domain: "loop", Tools: a.tools, WriteScope: a.scope,
		}); err != nil {
			return "", err
		}
		if _, err := operator.ActivateAgent(ctx, a.id); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	s, err := operator.OpenSession(ctx, client.SessionOptions{
		Principal: writ.PrincipalID(a.id), Kind: writ.KindAgent, Role: a.role, Agent: a.id, Controller: a.controller, TTLSeconds: 30,
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, a.program+".token")
	return file, os.WriteFile(file, []byte(s.Token), 0o600)
}

// start runs a program and prints what it says; its end comes through the
// channel. When ctx ends it is asked to stop.
func start(ctx context.Context, procs *sync.WaitGroup, name string, env []string, program string, args ...string) (<-chan error, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+filepath.Dir(program))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	ended := make(chan error, 1)
	procs.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Printf("%-13s %s\n", name, lines.Text())
		}
		_ = out.Close()
		ended <- cmd.Wait()
	})
	return ended, nil
}

// show prints the receipts of the planner's last run, as the gateway signed them, and fails
// if a person made a call in it.
func show(ctx context.Context, operator *client.Client) error {
	run, err := lastRun(ctx, operator)
	if err != nil {
		return err
	}
	fmt.Printf("\nreceipts of %s, which is %s\n", run.ID, run.State)
	n, closed := 0, false
	for r, err := range operator.Receipts(ctx, -1, run.ID) {
		if err != nil {
			return err
		}
		var s struct {
			Predicate struct {
				Transition string
				Outcome    string
				Actor      struct{ Kind, Role, Agent string }
				Changes    []writ.Change
			}
		}
		if err := json.Unmarshal(r.Statement, &s); err != nil {
			return err
		}
		p := s.Predicate
		var moves []string
		for _, c := range p.Changes {
			moves = append(moves, fmt.Sprintf("%s %s→%s", c.Kind, c.From, c.To))
			closed = closed || c.Kind == writ.ObjectRun && c.To == string(writ.RunDone) && p.Transition == "run.close"
		}
		fmt.Printf("%5d  %-14s %-12s %s\n", r.Seq, p.Transition, p.Actor.Role, strings.Join(moves, ", "))
		if n++; p.Actor.Kind == string(writ.KindHuman) || p.Actor.Role == string(writ.RoleOperator) {
			return errors.New("a person made a call in the run")
		}
	}
	if !closed {
		return errors.New("nobody closed the run")
	}
	fmt.Printf("%d receipts, and no call of a person among them\n", n)
	return nil
}

func lastRun(ctx context.Context, operator *client.Client) (run client.Run, err error) {
	for after := writ.RunID(""); ; {
		page, err := operator.ListRuns(ctx, "", after)
		if err != nil {
			return run, err
		}
		for _, r := range page.Runs {
			if r.Owner == "loop-planner" {
				run = r
			}
		}
		if after = page.Next; after == "" {
			return run, nil
		}
	}
}
