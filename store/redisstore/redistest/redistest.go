// Package redistest runs a private redis-server for tests: on a unix socket,
// with its data in a directory of its own, so that tests can kill it, restart
// it and look at its files. It is not a fake, and it skips nothing: a test
// that needs it fails when no server is found.
package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a running redis-server.
type Server struct {
	t       testing.TB
	dir     string
	binary  string
	conf    []string
	cluster bool

	cmd   *exec.Cmd
	guard io.Closer // kills the server should the test binary die first
	ended chan struct{}
}

// Start runs a server with an append-only file until the test ends. Each conf
// is one line of redis.conf and overrides the lines before it.
func Start(t testing.TB, conf ...string) *Server {
	t.Helper()
	// The path of a socket must be short: t.TempDir may be too deep.
	dir, err := os.MkdirTemp("", "writ-redis-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir, binary: Binary(t), conf: append([]string{
		"port 0", "unixsocket " + filepath.Join(dir, "s"), "unixsocketperm 700", "dir " + dir,
		"daemonize no", `save ""`, "appendonly yes", "appendfsync always", "logfile \"\"",
	}, conf...)}
	t.Cleanup(func() {
		s.Kill()
		_ = os.RemoveAll(dir)
	})
	s.Restart()
	return s
}

// StartCluster runs a server with cluster mode enabled that owns every slot.
func StartCluster(t testing.TB, conf ...string) *Server {
	t.Helper()
	s := Start(t, append([]string{"port " + strconv.Itoa(freePort(t)), "bind 127.0.0.1", "cluster-enabled yes"}, conf...)...)
	s.Command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	s.cluster = true
	s.awaitCluster()
	return s
}

// awaitCluster waits until the server serves: it takes two seconds to trust
// its own view of the cluster.
func (s *Server) awaitCluster() {
	s.t.Helper()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(s.Command("CLUSTER", "INFO"), "cluster_state:ok"); {
		if time.Now().After(end) {
			s.t.Fatal("redistest: the cluster did not become ready in 10 s")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// freePort is one whose cluster bus port, 10000 higher, exists too.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port < 55000 {
			return port
		}
	}
}

// Binary is the path of redis-server: $WRIT_REDIS_SERVER, or the one in PATH,
// or the one `make deps` has put into .tools.
func Binary(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("WRIT_REDIS_SERVER"); p != "" {
		return p
	}
	if p, err := exec.LookPath("redis-server"); err == nil {
		return p
	}
	dir, err := os.Getwd()
	for err == nil {
		if _, no := os.Stat(filepath.Join(dir, "go.mod")); no == nil {
			p := filepath.Join(dir, ".tools", "redis-server")
			if _, no := os.Stat(p); no == nil {
				return p
			}
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("redistest: no redis-server found: run `make deps`, or set WRIT_REDIS_SERVER to its path")
	return ""
}

// Socket is the path of the server's unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, "s") }

// URL names the server.
func (s *Server) URL() string { return "unix://" + s.Socket() }

// Dir is where its data is.
func (s *Server) Dir() string { return s.dir }

// Pid is the server's process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Kill ends the server at once (SIGKILL) and waits until it is gone. Killing
// it twice does nothing.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	_ = s.cmd.Process.Kill()
	<-s.ended
	_ = s.guard.Close()
	s.cmd = nil
}

// Restart starts the server, after killing it if it runs, and returns when it
// has loaded its data and accepts connections.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	cmd := exec.Command(s.binary, "-")
	cmd.Stdin = strings.NewReader(strings.Join(s.conf, "\n") + "\n")
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	s.cmd, s.ended = cmd, make(chan struct{})
	s.guard = Watch(s.t, cmd.Process.Pid)
	ready, log := make(chan struct{}), &strings.Builder{}
	go func() {
		lines, up := bufio.NewScanner(out), false
		for lines.Scan() {
			if !up {
				fmt.Fprintln(log, lines.Text())
			}
			if !up && strings.Contains(lines.Text(), "The server is now ready to accept connections at") {
				up = true
				close(ready)
			}
		}
		_ = cmd.Wait()
		close(s.ended)
	}()
	select {
	case <-ready:
	case <-s.ended:
		s.t.Fatalf("redistest: redis-server did not start:\n%s", log)
	case <-time.After(60 * time.Second):
		s.t.Fatal("redistest: redis-server was not ready after 60 s")
	}
	if s.cluster {
		s.awaitCluster()
	}
}

// Watch starts a shell that kills a process when this one dies and the pipe
// breaks; closing it first ends the shell alone.
func Watch(t testing.TB, pid int) io.Closer {
	t.Helper()
	sh := exec.Command("sh", "-c", "read -r bye || kill -9 "+strconv.Itoa(pid)+" 2>/dev/null")
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	return closer(func() error {
		_, _ = io.WriteString(in, "bye\n")
		return sh.Wait()
	})
}

type closer func() error

func (c closer) Close() error { return c() }

// Command sends one command and returns the answer's text: a bulk or simple
// string, an integer, or an error, which fails the test.
func (s *Server) Command(args ...string) string {
	s.t.Helper()
	c, err := net.Dial("unix", s.Socket())
	if err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	line = strings.TrimRight(line, "\r\n")
	switch line[0] {
	case '-':
		s.t.Fatalf("redistest: %s: %s", args[0], line)
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return ""
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			s.t.Fatalf("redistest: %v", err)
		}
		return string(body)
	}
	return line[1:]
}
