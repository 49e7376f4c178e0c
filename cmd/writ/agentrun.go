package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/jail"
)

// runPause is how long 'agent run' waits between looks.
const runPause = 500 * time.Millisecond

// runAgent spawns an agent in its jail and says what becomes of it.
func runAgent() *cobra.Command {
	var connect connection
	var format, role, controller string
	var claims []string
	var lifetime int64
	var detach bool
	cmd := &cobra.Command{
		Use: "run AGENT-ID", Short: "Run an agent in the jail its registration asks for, and wait until it ends",
		Long: `Run an agent in the jail its registration asks for, and wait until it ends.

A session is opened for it whose token nobody sees; a gateway of this store that runs agents (setting
jails) makes the jail, notes what holds the agent in a receipt, starts the session and lets the agent
run. Inside, the gateway is at http://gateway (127.0.0.1:80) and at /run/gateway.sock, and whoever
speaks there is that session. Nothing else can be reached.

It prints a line whenever the jail or the session moves, and with -o json an object a line. What is
interrupted here goes on there: 'writ session revoke' ends it.

Exits as the agent did: with its exit code, with 128 and the number of a signal, 124 when its time was
up, 137 when it was killed, or its gateway is gone, after it may have done some of its work. It exits
with 125 when the agent was not started; then it says what to do, and the log of the gateway that tried
says more.`,
		Example: "  writ agent run site-builder --role executor\n  writ agent run site-builder --role executor --write-claim fs:site/dist/ --detach",
		Args:    oneArg,
		RunE: func(c *cobra.Command, rest []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			cl, err := connect.open()
			if err != nil {
				return err
			}
			body := map[string]any{"agent_id": rest[0], "role": role}
			if controller != "" {
				body["controller"] = controller
			}
			if lifetime > 0 {
				body["lifetime_s"] = lifetime
			}
			if len(claims) > 0 {
				all := []map[string]any{}
				for _, r := range claims {
					all = append(all, map[string]any{"resource": r})
				}
				body["write_claims"] = all
			}
			var now runningAgent
			if _, err := cl.Invoke(c.Context(), "session.spawn", body, &now); err != nil {
				return err
			}
			return followAgent(c, cl, now, format == "json", detach)
		},
	}
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "the one role its session has: orchestrator, executor or verifier (required)")
	f.StringVar(&controller, "controller", "", "the person answerable for what it does; default: who answers for you")
	f.StringArrayVar(&claims, "write-claim", nil, "where it alone writes until it ends, for example fs:site/dist/; may be repeated")
	f.Int64Var(&lifetime, "lifetime-s", 0, "seconds its session can live; default: 12 hours")
	f.BoolVar(&detach, "detach", false, "return as soon as the agent runs")
	_ = cmd.MarkFlagRequired("role")
	outputFlag(cmd, &format)
	connect.flags(cmd)
	return cmd
}

// runningAgent is what is shown of a session and its jail.
type runningAgent struct {
	Session writ.SessionID    `json:"session_id"`
	State   writ.SessionState `json:"state"`
	Reason  string            `json:"reason,omitempty"`
	Receipt writ.ReceiptID    `json:"receipt"`
	Jail    struct {
		State    writ.JailState    `json:"state"`
		Restarts int64             `json:"restarts,omitempty"`
		Exit     *writ.JailExit    `json:"exit,omitempty"`
		Features map[string]string `json:"features,omitempty"`
	} `json:"jail"`
}

func followAgent(c *cobra.Command, cl *client.Client, now runningAgent, asJSON, detach bool) error {
	var said string
	for {
		if mark := fmt.Sprint(now.State, now.Jail.State, now.Jail.Restarts); mark != said {
			said = mark
			if err := sayAgent(c, now, asJSON); err != nil {
				return err
			}
		}
		switch {
		case now.Jail.State == writ.JailEnded:
			if code := exitLike(now.Jail.Exit, now.Jail.Restarts); code != 0 {
				return exitStatus(code)
			}
			return nil
		case detach && now.Jail.State == writ.JailRunning && now.State == writ.SessionActive:
			return nil
		}
		select {
		case <-c.Context().Done():
			return nil
		case <-time.After(runPause):
		}
		var next runningAgent
		if _, err := cl.Invoke(c.Context(), "session.get", map[string]any{"session_id": now.Session}, &next); err != nil {
			if c.Context().Err() != nil {
				return nil
			}
			return err
		}
		now = next
	}
}

func sayAgent(c *cobra.Command, now runningAgent, asJSON bool) error {
	if asJSON {
		b, err := json.Marshal(now)
		if err == nil {
			_, err = fmt.Fprintln(c.OutOrStdout(), string(escaped(b)))
		}
		return err
	}
	line := fmt.Sprintf("%s  session %s  jail %s", now.Session, now.State, now.Jail.State)
	if e := now.Jail.Exit; e != nil && now.Jail.State != writ.JailRunning {
		line += "  " + string(e.Why)
		switch {
		case e.Missing != "":
			line += ": " + lacking(e.Missing)
		case e.Signal > 0:
			line += fmt.Sprintf(" by signal %d", e.Signal)
		case e.Why == writ.JailExited:
			line += fmt.Sprintf(" with code %d", e.Code)
		}
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), shown(line+"  "+string(now.Receipt)))
	return err
}

// unmade says why there is no jail, and what to do, for want of what 'writ jail doctor'
// does not try: what the file of --jails and the registration say of this one agent.
var unmade = map[string]string{
	"gateway":           "no gateway of this store runs agents; start one with --jails FILE",
	"program":           "the host lacks program; add it to programs in the file of --jails there, or register the agent with one that is in it",
	"profile":           "its program may not be run in its profile there; add that to the program's profiles in the file of --jails, or register the agent with another",
	"tier":              "the gateway there knows no such tier; update it, or register the agent with another",
	"log":               "the gateway there cannot write below jails in its data directory; see to its owner and the room on the disk",
	"door":              "the gateway there could not serve it any more and killed it; it may have done some of its work, so see to that and to what the gateway's log says before you run the agent again",
	"jail":              "something of the host failed; see what the gateway's log says, and run the agent again",
	jail.FeatureScope:   "a scope it claims cannot be its own there; give it a directory under scopes in the file of --jails, on a file system and of an owner as the gateway's log says, or spawn it without the claim",
	jail.FeatureSource:  "a path in the file of --jails there is not there, of another kind, or below another; name what is there",
	jail.FeatureSymlink: "a path in the file of --jails there is a symbolic link, or leads through one; name it as realpath(1) prints it",
	jail.FeatureAgent:   "its program cannot be executed there; link it statically, give it runtime in the file of --jails, or register the agent with the profile tools",
	jail.FeatureSpec:    "what it is registered with, with what the file of --jails has for it, makes no jail; change what the gateway's log names",
	jail.FeatureHostUID: "no user of the host is free for it, or the gateway may give it none; let fewer run at a time (most.jails in the file of --jails there), and see what the gateway's log says",
}

// lacking says what a jail that could not be made was in want of, and what to do.
func lacking(missing string) string {
	if most, ok := strings.CutPrefix(missing, "most."); ok {
		return "it is registered with more " + most + " than the host lets a jail have; the file of --jails there says how much"
	}
	if why, ok := unmade[missing]; ok {
		return why
	}
	return "the host lacks " + missing + "; 'writ jail doctor' there says what to do"
}

// exitLike is the exit code that says how an agent ended. 125 says that none was started, so
// that nothing is done twice by who runs it again.
func exitLike(e *writ.JailExit, restarts int64) int {
	const neverRan, killed = 125, 137
	if e == nil {
		return killed
	}
	switch e.Why {
	case writ.JailExited:
		return int(e.Code)
	case writ.JailSignalled:
		return 128 + int(e.Signal)
	case writ.JailDeadline:
		return 124
	case writ.JailUnavailable, writ.JailRefused:
		if restarts == 0 {
			return neverRan
		}
	}
	return killed
}
