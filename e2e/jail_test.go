package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// inmate builds the agent of these tests, once: a static program.
var inmate = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "inmate")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/inmate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

// cells is a world whose gateways run agents in jails.
type cells struct {
	cast
	site string // directory of the scope fs:site/
}

func onCells(t *testing.T, f func(t *testing.T, c cells)) {
	t.Helper()
	onCellsWith(t, "", f)
}

// onCellsWith has more in the file of the machine, and more flags.
func onCellsWith(t *testing.T, more string, f func(t *testing.T, c cells), flags ...string) {
	t.Helper()
	jailtest.Need(t)
	t.Parallel()
	program, err := inmate()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			site := filepath.Join(dir, "site")
			if err := os.Mkdir(site, 0o755); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "jails.yaml")
			text := fmt.Sprintf("programs:\n  inmate: {path: %q}\nscopes:\n  fs:site/: %q\nmost: {memory_mb: 1024}\n%s", program, site, more)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f(t, cells{newCast(t, newWorld(t, host, append(flags, "--jails", file)...)), site})
		})
	}
}

// caged registers an agent that does one thing. Its mark finds its process on the host.
func (c cells) caged(name, does string, jail obj) (mark string) {
	c.t.Helper()
	mark = fmt.Sprintf("mark-%s-%d", name, time.Now().UnixNano())
	spec := obj{"program": "inmate", "args": []string{mark, does}}
	for k, v := range jail {
		spec[k] = v
	}
	c.agent(writ.AgentID(name), "cage", "executor", "cage."+name, []string{"fs:site/" + name + "/"}, obj{"jail": spec})
	return mark
}

func (c cells) spawn(name string, more obj) string {
	c.t.Helper()
	body := obj{"role": "executor"}
	for k, v := range more {
		body[k] = v
	}
	return c.op.ok(201, "POST", "/v1/agents/"+name+"/spawn", body).str("session_id")
}

// ends waits until nothing of a jail is left, and gives the session.
func (c cells) ends(id string) (session reply) {
	c.t.Helper()
	within(c.t, 60*time.Second, "the jail ends", func() bool {
		session = c.seen(id)
		return session.str("jail", "state") == "ended"
	})
	return session
}

func (c cells) seen(id string) reply {
	c.t.Helper()
	return c.op.ok(200, "GET", "/v1/sessions/"+id, nil)
}

// why is how a jail ended, in a word.
func why(session reply) string {
	return fmt.Sprintf("%s %s: %s, code %d, signal %d%s", session.str("state"), session.str("reason"), session.str("jail", "exit", "why"),
		session.num("jail", "exit", "code"), session.num("jail", "exit", "signal"), session.str("jail", "exit", "missing"))
}

func (c cells) ended(id, want string) reply {
	c.t.Helper()
	s := c.ends(id)
	if got := why(s); got != want {
		c.t.Errorf("got  %s\nwant %s\n%.2000s", got, want, c.printed(id))
	}
	return s
}

// printed is what the agent of a session has printed, with whichever gateway had it.
func (c cells) printed(id string) (out string) {
	for _, g := range c.gw {
		if b, err := os.ReadFile(filepath.Join(g.data, "jails", id+".log")); err == nil {
			out += string(b)
		}
	}
	return out
}

// running waits until the agent runs.
func (c cells) running(id string) {
	c.t.Helper()
	within(c.t, 30*time.Second, "the agent runs", func() bool {
		return c.seen(id).str("state") == "active"
	})
}

// marked are the processes of this machine with a mark among their arguments.
func marked(mark string) (out []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(mark)) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			out = append(out, pid)
		}
	}
	return out
}

// An agent does its task in a jail, as the session whose token nobody saw, and what
// held it is in a receipt before it ran.
func TestJailedWork(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		c.caged("worker", "work", nil)
		task := c.enqueue("caged", obj{"capability": "cage.worker", "required_domain": "cage"})
		id := c.spawn("worker", nil)
		session := c.ended(id, "closed exited: exited, code 0, signal 0")
		has := func(feature string) string { return session.str("jail", "features", feature) }
		if has("seccomp") == "" || has("profile") != "strict" || has("host_uid") == "0" || has("landlock") == "0" {
			t.Fatalf("features %v", session.at("jail", "features"))
		}
		done := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil)
		if done.str("state") != "done" || done.str("result", "me") != "worker" || done.num("result", "uid") != 1000 || done.at("result", "token") != false || done.str("result", "wrote") != "wrote" {
			t.Fatalf("the task: %s", done)
		}
		// The order: what holds the agent is signed, the session starts, the agent acts.
		want := []string{"session.spawn", "session.jail", "session.jail", "session.start", "task.claim", "task.complete", "session.jail"}
		if got := c.receiptsOf(id); !slices.Equal(got, want) {
			t.Fatalf("receipts %v, want %v", got, want)
		}
		if left, _ := os.ReadDir(c.site); len(left) != 0 {
			t.Fatalf("a strict jail left %v on the host", left)
		}
	})
}

// receiptsOf are the capabilities of the receipts that a session is in, in order.
func (c cells) receiptsOf(id string) (out []string) {
	c.t.Helper()
	_, all := c.export()
	for _, s := range all {
		p := s.Predicate
		mine := string(p.Actor.Session) == id && p.Transition != "session.heartbeat"
		for _, m := range p.Changes {
			mine = mine || m.ID == id && m.Kind != writ.ObjectSession || m.ID == id && m.From == ""
		}
		if mine {
			out = append(out, string(p.Transition))
		}
	}
	return out
}

// How an agent ends is what its session and its receipts say, and its output is kept, capped and
// without what looks like a secret.
func TestJailedEnds(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		var sessions []reply
		for _, tc := range []struct {
			name, does string
			jail       obj
			want       string
			restarts   int64
		}{
			{"fails", "exit=7", obj{"restarts": 1}, "revoked jail_ended: exited, code 7, signal 0", 1},
			{"hungry", "hog", obj{"memory_mb": 32}, "revoked jail_ended: memory, code 0, signal 0", 0},
			{"late", "stay", obj{"deadline_s": 1}, "revoked jail_ended: deadline, code 0, signal 0", 0},
			{"talks", "print=hunter22", nil, "closed exited: exited, code 0, signal 0", 0},
		} {
			c.caged(tc.name, tc.does, tc.jail)
			id := c.spawn(tc.name, nil)
			s := c.ended(id, tc.want)
			if s.num("jail", "restarts") != tc.restarts {
				t.Errorf("%s was started again %d times", tc.name, s.num("jail", "restarts"))
			}
			sessions = append(sessions, s)
			if tc.name == "talks" {
				log := c.printed(id)
				if !strings.Contains(log, "password=[removed] and all is well") || len(log) > 20_000 {
					t.Errorf("the log has %d bytes: %.200s", len(log), log)
				}
			}
		}
		_, all := c.export()
		for _, s := range sessions {
			c.toldOf(all, s)
		}
	})
}

// When a session ends its agent does, at once; when its agent is killed, so does the
// session, and its task goes back to the queue.
func TestJailedStops(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		mark := c.caged("stays", "stay", nil)
		id := c.spawn("stays", nil)
		c.running(id)
		within(t, 10*time.Second, "its process is there", func() bool { return len(marked(mark)) == 1 })
		// What it uses is shown by every gateway while it runs, and not after.
		for _, g := range c.gw {
			within(t, 20*time.Second, "what it uses is shown", func() bool {
				use := func(what string) int64 {
					return c.op.at(g).ok(200, "GET", "/v1/sessions/"+id, nil).num("jail", "use", what)
				}
				return use("memory_kb") > 0 && use("processes") == 1
			})
		}
		c.op.ok(200, "POST", "/v1/sessions/"+id+"/revoke", obj{"reason": "misbehaviour"})
		within(t, 5*time.Second, "its process is gone", func() bool { return len(marked(mark)) == 0 })
		if s := c.ended(id, "revoked misbehaviour: killed, code 0, signal 0"); s.at("jail", "use") != nil {
			t.Errorf("it has ended, and uses %v", s.at("jail", "use"))
		}

		id = c.spawn("stays", nil)
		c.running(id)
		within(t, 10*time.Second, "its process is there", func() bool { return len(marked(mark)) == 1 })
		if err := syscall.Kill(marked(mark)[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.ended(id, "revoked jail_ended: signalled, code 0, signal 9")
	})
}

// A gateway that is killed takes its jails with it, and the next one says so.
func TestJailsDieWithTheGateway(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		mark := c.caged("stays", "stay", nil)
		id := c.spawn("stays", nil)
		c.running(id)
		within(t, 10*time.Second, "its process is there", func() bool { return len(marked(mark)) == 1 })
		for _, g := range c.gw {
			g.kill()
		}
		within(t, 5*time.Second, "its process is gone", func() bool { return len(marked(mark)) == 0 })
		if c.redis != nil {
			return // another replica could have it: its session's heartbeats tell
		}
		for _, g := range c.gw {
			g.start()
		}
		c.ready()
		c.ended(id, "revoked jail_ended: lost, code 0, signal 0")
	})
}

// What the machine does not have is not run, and says what is missing.
func TestJailRefused(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		for name, tc := range map[string]struct {
			jail, spawn obj
			missing     string
		}{
			"no-program": {jail: obj{"program": "another"}, missing: "program"},
			"no-scope":   {jail: obj{"profile": "tools"}, spawn: obj{"write_claims": []obj{{"resource": "fs:site/no-scope/"}}}, missing: "source"},
		} {
			mark := c.caged(name, "stay", tc.jail)
			id := c.spawn(name, tc.spawn)
			if s := c.ended(id, "revoked jail_ended: unavailable, code 0, signal 0"+tc.missing); s.at("jail", "features") != nil {
				t.Errorf("%s: %v", name, s.at("jail", "features"))
			}
			if len(marked(mark)) != 0 {
				t.Errorf("%s runs", name)
			}
		}
		c.op.refused(409, writ.CodeIllegal, "POST", "/v1/agents/planner/spawn", obj{"role": "orchestrator"})
		c.orc.refused(403, writ.CodeRBAC, "POST", "/v1/agents/builder/spawn", obj{"role": "executor"})
	})
}

// A write claim is the directory the machine has for it, and nothing beside it.
func TestJailedScope(t *testing.T) {
	onCells(t, func(t *testing.T, c cells) {
		for _, name := range []string{"writer", "other"} {
			if err := os.Mkdir(filepath.Join(c.site, name), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		c.caged("writer", "work", obj{"profile": "tools"})
		task := c.enqueue("write", obj{"capability": "cage.writer", "required_domain": "cage", "write_scopes": []string{"fs:site/writer/"}})
		claims := obj{"write_claims": []obj{{"resource": "fs:site/writer/"}}}
		id := c.spawn("writer", claims)
		c.ended(id, "closed exited: exited, code 0, signal 0")
		if s := c.orc.ok(200, "GET", "/v1/tasks/"+task, nil); s.str("state") != "done" {
			t.Fatalf("the task is %s", s)
		}
		if b, err := os.ReadFile(filepath.Join(c.site, "writer", "made.txt")); err != nil || string(b) != "made" {
			t.Fatalf("what it made is not there: %v", err)
		}
	})
}
