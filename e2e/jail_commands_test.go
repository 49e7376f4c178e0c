package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// run is 'writ agent run' of an agent by the operator.
func (c cells) run(name string, args ...string) result {
	c.t.Helper()
	g := c.last()
	return command(c.t, append([]string{
		"agent", "run", name, "--role", "executor", "--url", g.url, "--token-file", filepath.Join(c.gw[0].data, "operator.token"),
	}, args...)...)
}

// meanwhile does something to the one session of an agent once its process is there.
func (c cells) meanwhile(name, mark string, do func(id string, pid int)) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			all, err := c.op.try("GET", "/v1/sessions?limit=200", nil)
			if pids := marked(mark); err == nil && len(pids) == 1 {
				sessions, _ := all.at("sessions").([]any)
				for _, one := range sessions {
					if s, _ := one.(map[string]any); s["agent_id"] == name && s["state"] == "active" {
						do(s["session_id"].(string), pids[0])
						return
					}
				}
			}
		}
		c.t.Errorf("the agent %s does not run", name)
	}()
	return done
}

// How an agent ended is the exit code of whoever ran it, and said in words.
func TestAgentRunExitsAsTheAgent(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		for _, tc := range []struct {
			name, does string
			jail       obj
			do         func(id string, pid int)
			code       int
			says       string
		}{
			{name: "well", does: "exit=0", says: "session closed  jail ended  exited with code 0"},
			{name: "seven", does: "exit=7", code: 7, says: "session revoked  jail ended  exited with code 7"},
			{name: "starved", does: "hog", jail: obj{"memory_mb": 32}, code: 137, says: "jail ended  memory"},
			{name: "slow", does: "stay", jail: obj{"deadline_s": 1}, code: 124, says: "jail ended  deadline"},
			{name: "revoked", does: "stay", code: 137, says: "jail ended  killed", do: func(id string, _ int) {
				_, _ = c.op.try("POST", "/v1/sessions/"+id+"/revoke", obj{"reason": "misbehaviour"})
			}},
			{name: "shot", does: "stay", code: 137, says: "jail ended  signalled by signal 9", do: func(_ string, pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }},
			{name: "unknown", does: "stay", jail: obj{"program": "another"}, code: 125, says: "jail ended  unavailable: the host lacks program"},
			{name: "greedy", does: "stay", jail: obj{"memory_mb": 4096}, code: 125, says: "it is registered with more memory_mb than the host lets a jail have"},
		} {
			mark := c.caged(tc.name, tc.does, tc.jail)
			if tc.do != nil {
				done := c.meanwhile(tc.name, mark, tc.do)
				defer func() { <-done }()
			}
			r := c.run(tc.name)
			if last := r.stdout[strings.LastIndex(strings.TrimSpace(r.stdout), "\n")+1:]; r.code != tc.code || !strings.Contains(last, tc.says) || r.stderr != "" {
				t.Errorf("%s: want exit code %d and %q\n%s", tc.name, tc.code, tc.says, r)
			}
			if left := marked(mark); len(left) != 0 {
				t.Errorf("%s: processes are left: %v", tc.name, left)
			}
		}
	})
}

// With -o json each line is what became of it, and --detach returns once it runs.
func TestAgentRunForPrograms(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		c.caged("talker", "exit=7", nil)
		r := c.run("talker", "-o", "json")
		var last struct {
			Session string `json:"session_id"`
			State   string `json:"state"`
			Reason  string `json:"reason"`
			Jail    struct {
				State writ.JailState `json:"state"`
				Exit  writ.JailExit  `json:"exit"`
			} `json:"jail"`
		}
		for line := range strings.Lines(r.stdout) {
			if err := json.Unmarshal([]byte(line), &last); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
		}
		if r.code != 7 || last.State != "revoked" || last.Reason != "jail_ended" || last.Jail.State != writ.JailEnded || last.Jail.Exit.Code != 7 {
			t.Errorf("it ends with %+v\n%s", last, r)
		}
		mark := c.caged("stayer", "stay", nil)
		r = c.run("stayer", "-o", "json", "--detach")
		if err := json.Unmarshal([]byte(r.stdout[strings.LastIndex(strings.TrimSpace(r.stdout), "\n")+1:]), &last); err != nil || r.code != 0 || last.State != "active" || last.Jail.State != writ.JailRunning {
			t.Fatalf("%v: it ends with %+v\n%s", err, last, r)
		}
		if len(marked(mark)) != 1 {
			t.Error("it does not run on")
		}
		c.op.ok(200, "POST", "/v1/sessions/"+last.Session+"/revoke", obj{"reason": "misbehaviour"})
		c.ended(last.Session, "revoked misbehaviour: killed, code 0, signal 0")
	})
}

// The demonstration with a jail plays to its end: the agent in it tries to get out, and does its work.
func TestDemoWithAJail(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	dir := withBinary(t)
	out := doIn(t, dir, "bin/writ", "demo", "--once", "--jail", "--data", "./.writ", "--listen", "127.0.0.1:0")
	for _, want := range []string{"An agent runs in a strict jail", "writ receipt verify .writ/receipts.jsonl", "verdict    ok"} {
		if !strings.Contains(squeezed(out), squeezed(want)) {
			t.Errorf("no %q in what it said:\n%s", want, out)
		}
	}
	const ways = 11 // out of it, each refused
	if n := strings.Count(out, " NO "); n < ways {
		t.Errorf("%d of %d ways out are refused:\n%s", n, ways, out)
	}
}
