package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// gateway is one running `writ serve`.
type gateway struct {
	t       testing.TB
	program string
	data    string
	args    []string // of serve

	url   string
	cmd   *exec.Cmd
	guard io.Closer // kills the process should the tests die first
	ended chan struct{}
	log   *tail
}

// newGateway starts a gateway on a data directory. It is killed at the end of
// the test if it still runs.
func newGateway(t testing.TB, data string, args ...string) *gateway {
	t.Helper()
	return newGatewayOf(t, binary, data, args...)
}

// newGatewayOf starts the gateway of a program.
func newGatewayOf(t testing.TB, program, data string, args ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, program: program, data: data, log: &tail{}}
	g.args = slices.Concat([]string{
		"serve", "--listen", "127.0.0.1:0", "--data", data,
		"--outage-grace", "100ms", "--min-lease-seconds", "1", "--log", "warn", "--checkpoint-every", "100ms", // whoever waits for the log waits less
	}, args)
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("the last words of the gateway on %s:\n%s", data, g.log)
		}
	})
	g.start()
	return g
}

// start runs the program until it says that it serves.
func (g *gateway) start() {
	g.t.Helper()
	cmd := exec.Command(g.program, g.args...)
	cmd.Env = append(os.Environ(), "WRIT_TOKEN_FILE=", "WRIT_URL=")
	out, err := cmd.StderrPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.cmd, g.ended = cmd, make(chan struct{})
	g.guard = redistest.Watch(g.t, cmd.Process.Pid)
	ready, ended := make(chan struct{}), g.ended
	go func() {
		lines, up := bufio.NewScanner(out), false
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			g.log.add(lines.Text())
			if strings.Contains(lines.Text(), "WARNING: DATA RACE") {
				g.t.Errorf("a data race in the gateway on %s", g.data)
			}
			if !up && strings.HasPrefix(lines.Text(), "writ: operator token in ") {
				up = true
				close(ready)
			}
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-ready:
	case <-g.ended:
		g.t.Fatalf("the gateway did not start: %v\n%s", cmd.ProcessState, g.log)
	case <-time.After(60 * time.Second):
		g.t.Fatalf("the gateway did not serve after 60 s\n%s", g.log)
	}
	g.url = strings.TrimSpace(g.read("gateway.url"))
}

// read is a file of the data directory.
func (g *gateway) read(name string) string {
	g.t.Helper()
	b, err := os.ReadFile(filepath.Join(g.data, name))
	if err != nil {
		g.t.Fatal(err)
	}
	return string(b)
}

// stop asks the program to end (SIGTERM) and returns its exit code.
func (g *gateway) stop() int {
	g.t.Helper()
	return g.end(syscall.SIGTERM)
}

// kill ends the program at once (SIGKILL).
func (g *gateway) kill() { g.end(syscall.SIGKILL) }

func (g *gateway) end(sig syscall.Signal) int {
	g.t.Helper()
	if g.cmd == nil {
		return 0
	}
	_ = g.cmd.Process.Signal(sig)
	select {
	case <-g.ended:
	case <-time.After(50 * time.Second):
		_ = g.cmd.Process.Kill()
		<-g.ended
		g.t.Errorf("the gateway did not end within 50 s of %v", sig)
	}
	_ = g.guard.Close()
	code := g.cmd.ProcessState.ExitCode()
	g.cmd = nil
	return code
}

// restart kills the program if it runs and starts it again; it then answers at
// another address.
func (g *gateway) restart() {
	g.t.Helper()
	g.kill()
	g.start()
}

// tail keeps the last lines of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
	whole bool
}

func (l *tail) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = l.whole || strings.Contains(line, "WARNING: DATA RACE") || line == "SIGQUIT: quit" // then all of it is wanted
	if l.lines = append(l.lines, line); len(l.lines) > 60 && !l.whole {
		l.lines = slices.Delete(l.lines, 0, 20)
	}
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// result is what a command left behind.
type result struct {
	code   int
	stdout string
	stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
}

// command runs the program to its end, at most 60 s.
func command(t testing.TB, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = environ(t)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited || ctx.Err() != nil {
		t.Fatalf("writ %s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// environ is that of the user of a test, who has seen the gateways of no other.
func environ(t testing.TB) []string {
	return append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(states, url.PathEscape(t.Name())))
}
