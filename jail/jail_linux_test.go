package jail_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// agentBinary is testdata/agent, linked statically.
var agentBinary = os.Getenv("WRIT_TEST_JAIL_AGENT")

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worse" {
		os.Exit(worse(os.Args[2]))
	}
	os.Exit(func() int {
		if agentBinary != "" {
			return m.Run()
		}
		dir, err := os.MkdirTemp("", "writ-jail-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if dir, err = filepath.EvalSymlinks(dir); err == nil {
			err = os.Chmod(dir, 0o755)
		}
		agentBinary = filepath.Join(dir, "agent")
		build := exec.Command("go", "build", "-o", agentBinary, "./testdata/agent")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, built := build.CombinedOutput(); err != nil || built != nil {
			fmt.Fprintln(os.Stderr, err, built, string(out))
			return 1
		}
		if code := m.Run(); code != 0 {
			return code
		}
		// The process that starts jails is heard for as long as this one lives.
		if err := goleak.Find(goleak.IgnoreAnyFunction("github.com/writ-gateway/writ/jail.(*launcher).run")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}())
}

var (
	jailer  = jail.New(jail.Options{})
	numbers sync.Map
)

func nextID(t testing.TB) string {
	n, _ := numbers.LoadOrStore("n", new(counter))
	return fmt.Sprintf("t%d-%d", os.Getpid(), n.(*counter).next())
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

type text = jailtest.Text

// made makes a jail for the agent with something to do.
func made(t *testing.T, s jail.Spec, words ...string) (jail.Jail, *text) {
	t.Helper()
	s.Profile = jailtest.Profile(t, orStrict(s.Profile))
	out := new(text)
	if s.ID == "" {
		s.ID = nextID(t)
	}
	if s.Agent.Path == "" {
		s.Agent.Path = agentBinary
	}
	if s.Stdout == nil {
		s.Stdout, s.Stderr = out, out
	}
	if s.Args == nil {
		s.Args = words
	}
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Kill("test"); j.Wait() })
	return j, out
}

func orStrict(p jail.Profile) jail.Profile {
	if p.Name == "" {
		return jail.Strict()
	}
	return p
}

// did runs it to its end.
func did(t *testing.T, s jail.Spec, words ...string) (jail.Exit, string) {
	t.Helper()
	j, out := made(t, s, words...)
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	e := j.Wait()
	return e, out.String()
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestRuns(t *testing.T) {
	t.Setenv("SECRET_OF_THE_GATEWAY", "1")
	e, out := did(t, jail.Spec{Env: []string{"A=b c", "HOME=/x"}}, "args", "env", "pwd", "id", "fds", "exit=37")
	same(t, out, `["agent" "args" "env" "pwd" "id" "fds" "exit=37"]
A=b c HOME=/x PATH=/tools TMPDIR=/tmp
/tmp
1000 1000 1000 1000
0 1 2 3`) // 3 is the directory itself
	if e.Code != 37 || e.Reason != jail.Exited || e.Truncated {
		t.Errorf("it ended with %+v", e)
	}
	if e.Usage.Wall <= 0 || e.Usage.CPU <= 0 || e.Usage.Stdout != int64(len(out)) {
		t.Errorf("it used %+v", e.Usage)
	}
}

// Rights are gone, and cannot come back.
func TestNoRights(t *testing.T) {
	_, out := did(t, jail.Spec{}, "status=Cap", "status=NoNewPrivs", "status=Seccomp", "status=Umask", "status=SigBlk", "status=SigIgn", "userns")
	same(t, out, `CapInh 0000000000000000
CapPrm 0000000000000000
CapEff 0000000000000000
CapBnd 0000000000000000
CapAmb 0000000000000000
NoNewPrivs 1
Seccomp 2
Seccomp_filters 1
Umask 0022
SigBlk 0000000000000000
SigIgn 0000000280000000
userns: EPERM`)
}

// A strict jail shows what it is made of and nothing else.
func TestStrictShowsNothingElse(t *testing.T) {
	_, out := did(t, jail.Spec{}, "ls=/", "ls=/agent", "ls=/etc", "ls=/dev", "ls=/run", "cat=/etc/resolv.conf", "cat=/etc/passwd",
		"write=/x", "write=/etc/x", "write=/run/x", "write=/dev/x", "write=/agent/agent", "ls=/proc/1", "ls=/sys", "ls=/usr")
	same(t, out, `agent dev etc proc run tmp
agent
group hosts nsswitch.conf passwd resolv.conf
fd full null random shm stderr stdin stdout urandom zero
gateway.sock

agent:x:1000:1000::/tmp:/bin/false
write=/x: EROFS
write=/etc/x: EROFS
write=/run/x: EROFS
write=/dev/x: EROFS
write=/agent/agent: EROFS
ls=/proc/1: ENOENT
ls=/sys: ENOENT
ls=/usr: ENOENT`)
}

// The door is all that can be reached, over TCP and by its socket, and whoever serves it ends it.
func TestTheDoor(t *testing.T) {
	j, out := made(t, jail.Spec{}, "get=http://gateway/a", "get=/run/gateway.sock,http://gateway/b", "dial=127.0.0.1:81", "dial=10.0.0.1:80", "listen=127.0.0.1:8080",
		"get=http://gateway/close", "dial=127.0.0.1:80", "unix=/run/gateway.sock")
	serveDoor(t, j)
	same(t, out.String(), `tcp gateway /a
unix gateway /b
dial=127.0.0.1:81: EACCES
dial=10.0.0.1:80: ENETUNREACH
listen=127.0.0.1:8080: EACCES
tcp gateway /close
dial=127.0.0.1:80: ECONNREFUSED
unix=/run/gateway.sock: ECONNREFUSED`)
}

// serveDoor serves a jail's door while its agent runs: it says who was asked for what, and /close closes it.
func serveDoor(t *testing.T, j jail.Jail) {
	t.Helper()
	tcp, unix := j.Listeners()
	for name, l := range map[string]net.Listener{"tcp": tcp, "unix": unix} {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, name, r.Host, r.URL.Path)
			if r.URL.Path == "/close" {
				_, _ = tcp.Close(), unix.Close()
			}
		})}
		go func() { _ = server.Serve(l) }()
	}
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	j.Wait()
}

// Two agents that say they are each other are told apart by whose door they came through.
func TestIdentityIsTheListener(t *testing.T) {
	var jails []jail.Jail
	var outs []*text
	for i := range 2 {
		j, out := made(t, jail.Spec{}, fmt.Sprintf("get=http://gateway/i-am-%d", 1-i))
		tcp, _ := j.Listeners()
		go func() {
			_ = http.Serve(tcp, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "you are ", i) }))
		}()
		jails, outs = append(jails, j), append(outs, out)
	}
	for i, j := range jails {
		if err := j.Go(); err != nil {
			t.Fatal(err)
		}
		j.Wait()
		same(t, outs[i].String(), fmt.Sprint("you are ", i))
	}
}

func TestNothingRunsBeforeGo(t *testing.T) {
	j, out := made(t, jail.Spec{}, "say=here")
	tcp, _ := j.Listeners()
	if err := tcp.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := tcp.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("somebody called: %v", err)
	}
	if out.String() != "" {
		t.Fatalf("it said %q", out.String())
	}
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	j.Wait()
	same(t, out.String(), "here")
	if err := j.Go(); err == nil {
		t.Error("it was started again")
	}
}

// What is written in a scope is its owner's on the host, and nobody can run it or be it.
func TestScopes(t *testing.T) {
	w, r := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(r, "given"), []byte("read me"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{w, r} { // its owner's alone, as a home is
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_, out := did(t, jail.Spec{Profile: jail.Tools(), Scopes: []jail.Scope{{Path: w}, {Path: r, ReadOnly: true}, {Medium: jail.Memory, Size: 1 << 20}}},
		"pwd", "ls=/scopes", "write=here", "cat=/workspace/here", "write=/scopes/3/m", "cat=/scopes/2/given", "write=/scopes/2/x",
		"chmod=here:755", "chmod=here:4755", "chmod=here:2755", "create=suid:4755", "create=fine:755", "copy=/workspace/me", "copy=/tmp/me", "copy=/scopes/3/me")
	same(t, out, `/scopes/1
1 2 3
written
read me
write=/scopes/2/x: EROFS
chmod=here:4755: EPERM
chmod=here:2755: EPERM
create=suid:4755: EPERM
copy=/workspace/me: EACCES
copy=/tmp/me: EACCES
copy=/scopes/3/me: ENOSPC`)
	for _, name := range []string{"here", "fine", "me"} {
		st, err := os.Stat(filepath.Join(w, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := int(st.Sys().(*syscall.Stat_t).Uid); owner != os.Geteuid() {
			t.Errorf("%s is of user %d", name, owner)
		}
		if st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%s has the mode %v", name, st.Mode())
		}
	}
	if _, err := os.Stat(filepath.Join(w, "suid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file was made: %v", err)
	}
}

// What is in a scope is executed where the profile says so, and nowhere else; what an agent may
// write beside scopes never is.
func TestExecInScope(t *testing.T) {
	given := t.TempDir()
	if err := jailtest.Copy(agentBinary, filepath.Join(given, "given")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(given, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range jail.Profiles() {
		scopes := []jail.Scope{{Medium: jail.Memory, Size: 16 << 20}, {Path: given, ReadOnly: true}}
		if p.WriteDirs {
			scopes[0] = jail.Scope{Path: t.TempDir()}
		}
		for exec, want := range map[bool]string{
			false: "copy=/workspace/me: EACCES\nrun=/scopes/2/given say=hello: EACCES\ncopy=/tmp/me: EACCES\ncopy=/dev/shm/me: EACCES",
			true:  "hello\ncopy=/tmp/me: EACCES\ncopy=/dev/shm/me: EACCES",
		} {
			t.Run(fmt.Sprintf("%s %t", p.Name, exec), func(t *testing.T) {
				p.ExecInScope = exec
				_, out := did(t, jail.Spec{Profile: p, Scopes: scopes}, "copy=/workspace/me", "run=/scopes/2/given say=hello", "copy=/tmp/me", "copy=/dev/shm/me")
				same(t, out, want)
			})
		}
	}
}

// Exactly the granted tools can be executed.
func TestTools(t *testing.T) {
	if _, err := os.Stat("/usr/bin/env"); err != nil {
		t.Fatal(err)
	}
	_, out := did(t, jail.Spec{Profile: jail.Tools(), Tools: []jail.Program{{Path: "/usr/bin/env"}, {Path: agentBinary, Name: "again"}}, Env: []string{"X=y"}},
		"ls=/tools", "run=/tools/env", "run=again say=hello", "run=/usr/bin/env", "run=/bin/sh -c true")
	same(t, out, `again env
PATH=/tools
HOME=/tmp
TMPDIR=/tmp
X=y
hello
run=/usr/bin/env: ENOENT
run=/bin/sh -c true: ENOENT`)
}

func TestWorkspace(t *testing.T) {
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	e, out := did(t, jail.Spec{Profile: jail.Workspace(), Scopes: []jail.Scope{{Path: t.TempDir()}}, Agent: jail.Program{Path: sh}, Args: []string{
		"-c", `echo hello | cat > f; cat f; ls; for i in 1 2 3; do (echo $i) ; done; exit 5`,
	}})
	same(t, out, "hello\nf\n1\n2\n3")
	if e.Code != 5 {
		t.Errorf("it ended with %+v", e)
	}
}

func TestEnds(t *testing.T) { eachEnd(t, did) }

// eachEnd has an agent end in each way there is.
func eachEnd(t *testing.T, did func(t *testing.T, s jail.Spec, words ...string) (jail.Exit, string)) {
	t.Helper()
	for _, tt := range []struct {
		name   string
		spec   jail.Spec
		words  []string
		code   int
		reason string
		out    string
	}{
		{"well", jail.Spec{}, []string{"say=x"}, 0, jail.Exited, "x"},
		{"signal", jail.Spec{}, []string{"segv"}, 137, jail.Signaled, ""},
		{"deadline", jail.Spec{Deadline: 300 * time.Millisecond}, []string{"orphan", "sleep=1h"}, jail.CodeDeadline, jail.Deadline, ""},
		{"orphans", jail.Spec{}, []string{"orphan", "orphan", "say=gone"}, 0, jail.Exited, "gone"},
		{"signals to the first process", jail.Spec{}, []string{"kill1", "say=alive"}, 0, jail.Exited, "alive"},
		{"input", jail.Spec{Stdin: strings.NewReader("to it")}, []string{"stdin"}, 0, jail.Exited, "to it"},
		{"no input", jail.Spec{}, []string{"stdin"}, 0, jail.Exited, ""},
		{"processes", jail.Spec{Limits: jail.Limits{Processes: 40}}, []string{"forks=40"}, 0, jail.Exited, "forked true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, out := did(t, tt.spec, tt.words...)
			if e.Code != tt.code || e.Reason != tt.reason {
				t.Errorf("it ended with %+v", e)
			}
			same(t, out, tt.out)
		})
	}
}

func TestMemory(t *testing.T) {
	jailtest.Need(t)
	spec := jail.Spec{Limits: jail.Limits{Memory: 64 << 20}}
	want := jail.OOM
	if !jailtest.HasCgroup() {
		spec, want = jail.Spec{Limits: jail.Limits{Data: 64 << 20}}, jail.Exited // where an allocation fails
	}
	e, _ := did(t, spec, "eat=200", "say=ate")
	if e.Code == 0 || e.Reason != want {
		t.Errorf("it ended with %+v", e)
	}
}

// What a jail uses can be seen while it runs.
func TestUsageNow(t *testing.T) {
	jailtest.Need(t)
	if !jailtest.HasCgroup() {
		return // nobody counts
	}
	j, _ := made(t, jail.Spec{}, "orphan", "eat=8", "busy")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	var u jail.Usage
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		u = j.Usage()
		if u.Processes == 2 && u.Memory > 8<<20 && u.MemoryPeak >= u.Memory && u.CPU > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it uses %+v", u)
		}
	}
	j.Kill("test")
	if all := j.Wait().Usage; all.Processes != 0 || all.Memory != 0 || all.CPU < u.CPU {
		t.Errorf("once it has ended it uses %+v, and before %+v", all, u)
	}
}

func TestKill(t *testing.T) {
	j, _ := made(t, jail.Spec{}, "orphan", "sleep=1h")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	j.Kill("revoked")
	j.Kill("again")
	if e := j.Wait(); e.Reason != "revoked" || e.Code != 137 {
		t.Errorf("it ended with %+v", e)
	}
	tcp, _ := j.Listeners()
	if _, err := tcp.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is not closed: %v", err)
	}
}

func TestKillBeforeGo(t *testing.T) {
	j, _ := made(t, jail.Spec{}, "say=x")
	j.Kill("changed my mind")
	j.Wait()
	if r, ok := errors.AsType[*jail.Refusal](j.Go()); !ok || r.Feature != jail.FeatureInit {
		t.Errorf("it was started: %v", r)
	}
}

func TestOutputIsBounded(t *testing.T) {
	e, out := did(t, jail.Spec{Output: jail.Output{Bytes: 1000, Line: 50}}, "spam=100000", "say=end")
	if len(out) != 1000-1000%51 || !e.Truncated || e.Usage.Stdout != 100*100000+4 {
		t.Errorf("%d bytes were passed on of %d, truncated %v", len(out), e.Usage.Stdout, e.Truncated)
	}
	e, out = did(t, jail.Spec{Output: jail.Output{Line: 10}}, "long=100000", "say=short")
	if same(t, out, "yyyyyyyyyy\nshort"); !e.Truncated {
		t.Errorf("it ended with %+v", e)
	}
}

// A context bounds the making; nothing is left of what it ended.
func TestSpawnIsCancelled(t *testing.T) {
	p := jailtest.Profile(t, jail.Strict())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := jailer.Spawn(ctx, jail.Spec{ID: nextID(t), Profile: p, Agent: jail.Program{Path: agentBinary}})
	if r, ok := errors.AsType[*jail.Refusal](err); !ok || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", r)
	}
}

// Jails leave nothing: no descriptor, no process, no control group, no user taken.
func TestNothingIsLeft(t *testing.T) {
	p := jailtest.Profile(t, jail.Strict())
	small := jail.New(jail.Options{FirstUID: 64000, UIDs: 1}) // which the battery, beside it, does not use
	one := func(id string) {
		j, err := small.Spawn(t.Context(), jail.Spec{ID: id, Profile: p, Agent: jail.Program{Path: agentBinary}, Args: []string{"orphan"}, Stdout: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Go(); err != nil {
			t.Fatal(err)
		}
		if e := j.Wait(); e.Code != 0 {
			t.Fatalf("it ended with %+v", e)
		}
		missing := jail.Spec{ID: id, Profile: p, Agent: jail.Program{Path: agentBinary}, Dir: "/nowhere"}
		if j, err = small.Spawn(t.Context(), missing); err != nil {
			t.Fatal(err)
		}
		if r, ok := errors.AsType[*jail.Refusal](j.Go()); !ok || r.Code != jail.CodeNotFound {
			t.Fatalf("got %v", r)
		}
		if e := j.Wait(); e.Reason != jail.Refused || e.Code != jail.CodeNotFound {
			t.Fatalf("it ended with %+v", e)
		}
	}
	id := nextID(t)
	one(id)
	before := descriptors(t)
	for range 5 {
		one(id)
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors became %d", before, after)
	}
	if left := groupsOf(t, id); len(left) > 0 {
		t.Errorf("groups are left: %v", left)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The jails of a process that is killed are gone with it, also those whose agent would rather not.
func TestDiesWithItsMaker(t *testing.T) {
	jailtest.Need(t)
	died := fmt.Sprintf("died-%d", killed(t, "die"))
	if !jailtest.HasCgroup() {
		return
	}
	if left := groupsOf(t, died); len(left) == 0 {
		t.Error("it left no group for the next to sweep: nothing was tried")
	}
	if out, err := exec.Command("/proc/self/exe", "worse", "not at all").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if left := groupsOf(t, died); len(left) > 0 {
		t.Errorf("the next left %v", left)
	}
}

// killed has another process make a jail, kills it, and returns when nothing of the jail is left.
func killed(t *testing.T, how string) (pid int) {
	t.Helper()
	c := exec.Command("/proc/self/exe", "worse", how)
	c.Env = append(os.Environ(), "WRIT_TEST_JAIL_AGENT="+agentBinary)
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 8)
	if _, err := io.ReadFull(stdout, line[:2]); err != nil {
		t.Fatal(err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The agent holds the other end of our pipe: it is closed when the last of the jail is gone.
	if rest, err := io.ReadAll(stdout); err != nil || len(rest) > 0 {
		t.Errorf("it said %q, %v", rest, err)
	}
	_ = c.Wait()
	return c.Process.Pid
}

// groupsOf are the control groups of the jail of an id.
func groupsOf(t *testing.T, id string) (out []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "jail-") && strings.HasSuffix(d.Name(), "-"+id) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Many at once are each their own.
func TestManyAtOnce(t *testing.T) {
	p := jailtest.Profile(t, jail.Strict())
	var all sync.WaitGroup
	for i := range 16 {
		id := nextID(t)
		all.Go(func() {
			out := new(text)
			j, err := jailer.Spawn(t.Context(), jail.Spec{ID: id, Profile: p, Agent: jail.Program{Path: agentBinary}, Args: []string{"get=http://gateway/", fmt.Sprintf("exit=%d", i)}, Stdout: out})
			if err != nil {
				t.Error(err)
				return
			}
			tcp, _ := j.Listeners()
			go func() {
				_ = http.Serve(tcp, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "you are ", id) }))
			}()
			if err := j.Go(); err != nil {
				t.Error(err)
			}
			if e := j.Wait(); e.Code != i || out.String() != "you are "+id+"\n" {
				t.Errorf("%d ended with %+v and was told %q", i, e, out)
			}
		})
	}
	all.Wait()
}

// The process that starts jails takes them with it, and the next jail has another.
func TestWhatStartsJailsMayDie(t *testing.T) {
	j, _ := made(t, jail.Spec{}, "orphan", "sleep=1h")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	launchers := childrenOf(t, os.Getpid(), "jail-launcher")
	for _, pid := range launchers {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if e := j.Wait(); len(launchers) != 1 || e.Reason != jail.Lost || e.First != "signal 9" {
		t.Errorf("%d were killed, and it ended with %+v", len(launchers), e)
	}
	if e, out := did(t, jail.Spec{}, "say=again"); e.Code != 0 || out != "again\n" {
		t.Errorf("the next ended with %+v and says %q", e, out)
	}
}

// Whenever it dies, a jail is whole or ends: none is made of the parts of two.
func TestWhatStartsJailsMayDieMeanwhile(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := 0
	for i := range 40 {
		wait := time.Duration(rng.Int64N(int64(8 * time.Millisecond)))
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			time.Sleep(wait)
			for _, pid := range childrenOf(t, os.Getpid(), "jail-launcher") {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}()
		s := jail.Spec{ID: fmt.Sprintf("meanwhile-%d", i), Profile: jailtest.Profile(t, jail.Strict()), Agent: jail.Program{Path: agentBinary}, Args: []string{"say=here"}}
		j, err := jailer.Spawn(t.Context(), s)
		if err != nil {
			if r, ok := errors.AsType[*jail.Refusal](err); !ok || r.Feature != jail.FeatureInit {
				t.Fatalf("after %v: %v", wait, err)
			}
		} else if err := j.Go(); err != nil {
			if e := j.Wait(); e.Reason != jail.Lost {
				t.Fatalf("after %v: %v, and it ended with %+v", wait, err, e)
			}
		} else if e := j.Wait(); e.Reason != jail.Lost && e.Code != 0 {
			t.Fatalf("after %v it ended with %+v", wait, e)
		} else if e.Code == 0 {
			whole++
		}
		<-killed
	}
	if whole < 4 {
		t.Errorf("only %d of 40 were whole", whole)
	}
}

// What it was to be given is the next one's, from the beginning.
func TestInputOutlastsWhatStartsJails(t *testing.T) {
	if e, _ := did(t, jail.Spec{}, "say=here"); e.Code != 0 { // there is a launcher
		t.Fatalf("it ended with %+v", e)
	}
	launchers := childrenOf(t, os.Getpid(), "jail-launcher")
	signal := func(s syscall.Signal) {
		for _, pid := range launchers {
			if err := syscall.Kill(pid, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	time.AfterFunc(100*time.Millisecond, func() { signal(syscall.SIGKILL) })
	if e, out := did(t, jail.Spec{Stdin: strings.NewReader("to it")}, "stdin"); e.Code != 0 || out != "to it\n" {
		t.Errorf("it ended with %+v, and says %q", e, out)
	}
	if next := childrenOf(t, os.Getpid(), "jail-launcher"); len(launchers) != 1 || len(next) != 1 || next[0] == launchers[0] {
		t.Errorf("there were %v, and are %v", launchers, next)
	}
}

// How a first process ended that did not say why is told.
func TestLost(t *testing.T) {
	if e, _ := did(t, jail.Spec{}, "say=here"); e.First != "" { // and there is a launcher
		t.Errorf("the first process is not lost: %+v", e)
	}
	launchers := childrenOf(t, os.Getpid(), "jail-launcher")
	if len(launchers) != 1 {
		t.Fatalf("there are %d launchers", len(launchers))
	}
	j, _ := made(t, jail.Spec{}, "sleep=1h")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range childrenOf(t, launchers[0], "jail-init") {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if e := j.Wait(); e.Reason != jail.Lost || e.First != "signal 9" {
		t.Errorf("it ended with %+v", e)
	}
}

// childrenOf are the processes of a parent that were started under a name.
func childrenOf(t *testing.T, parent int, name string) (out []int) {
	t.Helper()
	return children(parent, name)
}

func children(parent int, name string) (out []int) {
	processes, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range processes {
		var pid, of int
		var comm, state string
		text, _ := os.ReadFile(stat)
		if n, _ := fmt.Sscan(string(text), &pid, &comm, &state, &of); n != 4 || of != parent {
			continue
		}
		if words, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline")); strings.HasPrefix(string(words), name+"\x00") {
			out = append(out, pid)
		}
	}
	return out
}
