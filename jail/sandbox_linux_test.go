package jail_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// noSandboxes fails a test where there are none to be had. Who is not root has none anyway, and is told: then
// there is nothing else to test.
func noSandboxes(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		jailtest.NeedSandbox(t)
		return false
	}
	_, err := jail.NewSandbox(jail.SandboxOptions{}).Preflight(t.Context(), jail.Strict())
	if r, ok := errors.AsType[*jail.Refusal](err); !ok || r.Feature != jail.FeatureSandbox || r.Remedy == "" {
		t.Errorf("got %v", err)
	}
	return true
}

// sandboxed makes a jail with a kernel of its own.
func sandboxed(t *testing.T, s jail.Spec, words ...string) (jail.Jail, *text) {
	t.Helper()
	s.Profile = orStrict(s.Profile)
	if s.ID == "" {
		s.ID = nextID(t)
	}
	out := new(text)
	s.Stdout, s.Stderr = out, out
	if s.Agent.Path == "" {
		s.Agent.Path, s.Args = agentBinary, words
	}
	j, err := jail.NewSandbox(jail.SandboxOptions{}).Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Kill("test"); j.Wait() })
	return j, out
}

func didSandboxed(t *testing.T, s jail.Spec, words ...string) (jail.Exit, string) {
	t.Helper()
	j, out := sandboxed(t, s, words...)
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	e := j.Wait()
	return e, out.String()
}

func TestSandboxRuns(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	t.Setenv("SECRET_OF_THE_GATEWAY", "1")
	e, out := didSandboxed(t, jail.Spec{Env: []string{"A=b c", "HOME=/x"}}, "args", "env", "pwd", "id", "fds",
		"status=CapInh", "status=CapEff", "status=CapPrm", "status=CapBnd", "kill1", "say=alive", "exit=37")
	same(t, out, `["agent" "args" "env" "pwd" "id" "fds" "status=CapInh" "status=CapEff" "status=CapPrm" "status=CapBnd" "kill1" "say=alive" "exit=37"]
A=b c HOME=/x PATH=/tools TMPDIR=/tmp
/tmp
2000000000 2000000000 2000000000 2000000000
0 1 2 3
CapInh 0000000000000000
CapEff 0000000000000000
CapPrm 0000000000000000
CapBnd 0000000000000000
alive`)
	if e.Code != 37 || e.Reason != jail.Exited || e.Truncated {
		t.Errorf("it ended with %+v", e)
	}
}

func TestSandboxShowsNothingElse(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	_, out := didSandboxed(t, jail.Spec{Scopes: []jail.Scope{{Medium: jail.Memory, Size: 1 << 20}}}, "ls=/", "ls=/agent", "ls=/etc", "ls=/dev", "ls=/run", "cat=/etc/resolv.conf", "cat=/etc/passwd",
		"write=/x", "write=/etc/x", "write=/run/x", "write=/agent/agent", "ls=/usr", "pwd", "write=here", "copy=/tmp/me", "copy=/workspace/me", "cat=/proc/version")
	same(t, ofAnyVersion(out), `agent dev etc init proc run scopes sys tmp workspace
agent
group hosts nsswitch.conf passwd resolv.conf
fd full fuse net null ptmx pts random shm stderr stdin stdout tty urandom zero
gateway.sock tcp.sock

agent:x:2000000000:2000000000::/tmp:/bin/false
write=/x: EACCES
write=/etc/x: EACCES
write=/run/x: EACCES
write=/agent/agent: EACCES
ls=/usr: ENOENT
/scopes/1
copy=/tmp/me: EACCES
copy=/workspace/me: ENOSPC
Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016`) // which is gVisor's, on every machine
}

// ofAnyVersion takes out what tells a gVisor of 2022 from one of 2026.
func ofAnyVersion(out string) string {
	return strings.NewReplacer("Linux version 4.19.0-gvisor ", "Linux version 4.4.0 ", "\nchar fd ", "\nfd ", "ENETUNREACH", "no route to host").Replace(out)
}

func TestSandboxDoor(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	j, out := sandboxed(t, jail.Spec{}, "get=http://gateway/a", "get=/run/gateway.sock,http://gateway/b", "dial=127.0.0.1:81", "dial=10.0.0.1:80",
		"unix=/run/control.sock", "get=http://gateway/close", "unix=/run/gateway.sock", "unix=/run/tcp.sock")
	serveDoor(t, j)
	same(t, ofAnyVersion(out.String()), `tcp gateway /a
unix gateway /b
dial=127.0.0.1:81: ECONNREFUSED
dial=10.0.0.1:80: no route to host
unix=/run/control.sock: ENOENT
tcp gateway /close
unix=/run/gateway.sock: ENOENT
unix=/run/tcp.sock: ENOENT`)
}

func TestSandboxEnds(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	eachEnd(t, didSandboxed)
	if e, out := didSandboxed(t, jail.Spec{Limits: jail.Limits{Memory: 128 << 20}}, "eat=300", "say=ate"); e.Code != 137 || e.Reason != jail.OOM || out != "" {
		t.Errorf("what takes too much memory ended with %+v, and said %q", e, out)
	}
}

func TestSandboxWorkspace(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	e, out := didSandboxed(t, jail.Spec{Profile: jail.Workspace(), Scopes: []jail.Scope{{Medium: jail.Memory}}, Agent: jail.Program{Path: sh}, Args: []string{
		"-c", `echo hello | cat > f; cat f; ls; for i in 1 2 3; do (echo $i) ; done; exit 5`,
	}})
	same(t, out, "hello\nf\n1\n2\n3")
	if e.Code != 5 {
		t.Errorf("it ended with %+v", e)
	}
}

func TestSandboxRefusals(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	for _, tt := range []struct {
		name    string
		o       jail.SandboxOptions
		s       jail.Spec
		feature string
	}{
		{"absent", jail.SandboxOptions{Runsc: "/nowhere/runsc"}, jail.Spec{}, jail.FeatureSandbox},
		{"another program", jail.SandboxOptions{Runsc: "/bin/true"}, jail.Spec{}, jail.FeatureSandbox},
		{"a platform there is none of", jail.SandboxOptions{Platform: "none"}, jail.Spec{}, jail.FeatureSandbox},
		{"a directory of the host", jail.SandboxOptions{}, jail.Spec{Profile: jail.Tools(), Scopes: []jail.Scope{{Path: t.TempDir()}}}, jail.FeatureScope},
		{"a user of the host", jail.SandboxOptions{}, jail.Spec{HostUID: 61000}, jail.FeatureHostUID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.ID, tt.s.Profile, tt.s.Agent.Path = nextID(t), orStrict(tt.s.Profile), agentBinary
			_, err := jail.NewSandbox(tt.o).Spawn(t.Context(), tt.s)
			r, ok := errors.AsType[*jail.Refusal](err)
			if !ok || r.Feature != tt.feature || r.Remedy == "" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Many at once are each their own.
func TestSandboxesAtOnce(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	var all sync.WaitGroup
	for i := range 6 {
		j, out := sandboxed(t, jail.Spec{}, "get=http://gateway/", fmt.Sprintf("exit=%d", i))
		tcp, _ := j.Listeners()
		go func() {
			_ = http.Serve(tcp, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "you are ", i) }))
		}()
		all.Go(func() {
			if err := j.Go(); err != nil {
				t.Error(err)
			}
			if e := j.Wait(); e.Code != i || out.String() != fmt.Sprintf("you are %d\n", i) {
				t.Errorf("%d ended with %+v and was told %q", i, e, out)
			}
		})
	}
	all.Wait()
}

// What runsc made is gone with the gateway, whatever ended that.
func TestSandboxDiesWithItsMaker(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	killed(t, "die sandboxed")
}

// Sandboxes leave nothing: no descriptor, no process, no control group, no file.
func TestSandboxLeavesNothing(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	abandoned := filepath.Join(dir, "writ-sandbox-1")
	long := time.Now().Add(-time.Hour)
	if err := errors.Join(os.MkdirAll(filepath.Join(abandoned, "bundle"), 0o700), os.Chtimes(abandoned, long, long)); err != nil {
		t.Fatal(err)
	}
	var used []string
	id := func() string {
		used = append(used, nextID(t))
		return used[len(used)-1]
	}
	one := func() {
		if e, out := didSandboxed(t, jail.Spec{ID: id()}, "orphan", "say=x"); e.Code != 0 || out != "x\n" {
			t.Fatalf("it ended with %+v and said %q", e, out)
		}
		j, _ := sandboxed(t, jail.Spec{ID: id(), Dir: "/nowhere"}, "say=x")
		if r, ok := errors.AsType[*jail.Refusal](j.Go()); !ok || r.Code != jail.CodeNotFound {
			t.Fatalf("got %v", r)
		}
		if e := j.Wait(); e.Reason != jail.Refused || e.Code != jail.CodeNotFound {
			t.Fatalf("it ended with %+v", e)
		}
		j, _ = sandboxed(t, jail.Spec{ID: id()}, "orphan", "sleep=1h")
		if err := j.Go(); err != nil {
			t.Fatal(err)
		}
		j.Kill("revoked")
		if e := j.Wait(); e.Reason != "revoked" || e.Code != 137 {
			t.Fatalf("it ended with %+v", e)
		}
	}
	one()
	before := descriptors(t)
	one()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors became %d", before, after)
	}
	for _, id := range used {
		if groups := groupsOf(t, id); len(groups) > 0 {
			t.Errorf("groups are left: %v", groups)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

// What the host unmounts while one runs is gone, where the host's mounts are shared as they usually are.
func TestSandboxKeepsNoMount(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "disk")
	t.Cleanup(func() {
		_ = unix.Unmount(below, unix.MNT_DETACH)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	for _, err := range []error{
		unix.Mount("none", dir, "tmpfs", 0, ""), unix.Mount("", dir, "", unix.MS_SHARED, ""),
		os.Mkdir(below, 0o700), unix.Mount("none", below, "tmpfs", 0, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	j, _ := sandboxed(t, jail.Spec{}, "sleep=1h")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	if seenElsewhere(t, below) == 0 {
		t.Fatal("runsc has no mounts of its own, or not this one")
	}
	if err := unix.Unmount(below, 0); err != nil {
		t.Fatal(err)
	}
	if seen := seenElsewhere(t, below); seen > 0 {
		t.Errorf("%d processes have it mounted still", seen)
	}
}

// seenElsewhere is in how many processes with other mounts than ours something is mounted at a path.
func seenElsewhere(t *testing.T, path string) (n int) {
	t.Helper()
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range all {
		theirs, err := os.Readlink(process + "/ns/mnt")
		if b, _ := os.ReadFile(process + "/mountinfo"); err == nil && theirs != ours && strings.Contains(string(b), " "+path+" ") {
			n++
		}
	}
	return n
}

// Its features say what holds the agent, for a receipt.
func TestSandboxFeatures(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	f, err := jail.NewSandbox(jail.SandboxOptions{}).Preflight(t.Context(), jail.Strict())
	if err != nil || f.Backend != "runsc" || !strings.HasPrefix(f.Runtime, "runsc version ") || f.Cgroup == "none" || f.Seccomp != "" || f.Landlock != 0 {
		t.Errorf("got %+v, %v", f, err)
	}
}

// Nobody of the host reaches a sandbox but by its door: not by what runsc listens on for who controls it, and no
// descriptor of the gateway's reaches what runs it.
func TestSandboxIsReachedByNobody(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	secret := filepath.Join(dir, "open")
	fd, err := unix.Open(secret, unix.O_CREAT|unix.O_RDWR, 0o600) // as a shell may leave one
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	j, _ := sandboxed(t, jail.Spec{}, "say=here", "sleep=1h")
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadFile("/proc/net/unix")
	if err != nil || strings.Contains(string(names), "@runsc") {
		t.Errorf("there is a name that anybody can connect to (%v):\n%s", err, names)
	}
	looked := 0
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		words, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		if !strings.Contains(string(words), dir) || filepath.Base(p) == strconv.Itoa(os.Getpid()) {
			continue
		}
		looked++
		fds, _ := filepath.Glob(filepath.Join(p, "fd", "*"))
		for _, f := range fds {
			if to, _ := os.Readlink(f); to == secret {
				t.Errorf("%q has it as %s", words, f)
			}
		}
	}
	if looked < 2 {
		t.Errorf("%d processes were looked at", looked)
	}
}

// What is shown is read as nobody of the host would read it: not as its user 1000, who is a person on most machines.
func TestSandboxReadsAsNobody(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	dir, err := os.MkdirTemp("/var/tmp", "writ-jail-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var words []string
	want := "" // of each
	for name, owner := range map[string]int{"root": 0, "person": 1000, "init": 999} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, []byte("secret\n"), 0o600), os.Chown(path, owner, owner)); err != nil {
			t.Fatal(err)
		}
		words, want = append(words, "cat="+path), want+"cat="+path+": EACCES\n"
	}
	_, out := didSandboxed(t, jail.Spec{Profile: jail.Tools(), Runtime: []string{dir}}, words...)
	same(t, out, want)
}

// As many processes as the limit says, and connections that are left open, end no sandbox.
func TestSandboxHoldsWhatItMay(t *testing.T) {
	if noSandboxes(t) {
		return
	}
	bash, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	j, out := sandboxed(t, jail.Spec{
		Profile: jail.Workspace(), Limits: jail.Limits{Processes: 64}, Agent: jail.Program{Path: bash},
		Args: []string{"-c", `for i in $(seq 40); do sleep 60 & done
for i in $(seq 100); do exec {fd}<>/dev/tcp/127.0.0.1/80 || echo refused; done
exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /last HTTP/1.0\r\n\r\n' >&3; tail -1 <&3`},
	})
	tcp, _ := j.Listeners()
	go func() {
		_ = http.Serve(tcp, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "answered", r.URL.Path) }))
	}()
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	e := j.Wait()
	if e.Reason != jail.Exited || !strings.Contains(out.String(), "answered /last") || strings.Contains(out.String(), "refused") {
		t.Errorf("it ended with %+v and said:\n%s", e, out)
	}
}
