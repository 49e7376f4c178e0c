package battery

import (
	"fmt"
	"io"
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

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// A job is something agents do, and what comes of it.
type job struct {
	name    string
	profile jail.Profile
	shell   string   // a script for bash, in the profile workspace
	probe   []string // or words for the probe
	caller  []string // or addresses for the caller
	env     []string
	spec    func(s *jail.Spec, dir string)
	needs   string // a program of the system
	want    string // in the output
	code    int
	reason  string // Exited
	also    func(t *testing.T, e jail.Exit, out, dir string)
}

var proxies = []string{"http_proxy=http://127.0.0.1:80", "https_proxy=http://127.0.0.1:80", "HTTP_PROXY=http://127.0.0.1:80", "HTTPS_PROXY=http://127.0.0.1:80"}

// big is a megabyte.
const big = 1 << 20

var jobs = []job{
	// The door, by every client.
	{name: "curl", needs: "curl", shell: "curl -sS http://gateway/x", want: "GET /x of gateway"},
	{name: "curl by address", needs: "curl", shell: "curl -sS http://127.0.0.1/x", want: "GET /x of 127.0.0.1"},
	{name: "curl by socket", needs: "curl", shell: "curl -sS --unix-socket /run/gateway.sock http://gateway/x", want: "GET /x of gateway"},
	{name: "python", needs: "python3", shell: `python3 -c 'import urllib.request as u; print(u.urlopen("http://gateway/x").read().decode())'`, want: "GET /x of gateway"},
	{name: "node", needs: "node", shell: `node -e 'require("http").get("http://gateway/x", r => r.pipe(process.stdout))'`, want: "GET /x of gateway"},
	{name: "node fetch", needs: "node", shell: `node -e 'fetch("http://gateway/x").then(r => r.text()).then(console.log)'`, want: "GET /x of gateway"},
	{name: "node by socket", needs: "node", shell: `node -e 'require("http").get({socketPath: "/run/gateway.sock", path: "/x", headers: {host: "gateway"}}, r => r.pipe(process.stdout))'`, want: "GET /x of gateway"},
	{name: "go", profile: jail.Strict(), caller: []string{"http://gateway/x", "http://127.0.0.1/x"}, want: "200 GET /x of gateway"},
	{name: "static program over tcp", profile: jail.Strict(), probe: []string{"get", "tcp", "/x"}, want: "GET /x of gateway"},
	{name: "static program by socket", profile: jail.Strict(), probe: []string{"get", "unix", "/x"}, want: "GET /x of gateway"},
	{name: "threads", profile: jail.Strict(), probe: []string{"threads"}, want: "all threads"},
	{name: "children", profile: jail.Strict(), probe: []string{"children"}, want: "all children"},
	{name: "subprocess of python", needs: "python3", shell: `python3 -c 'import subprocess as s; print(s.run(["curl", "-sS", "http://gateway/x"], capture_output=True, text=True).stdout)'`, want: "GET /x of gateway"},
	{name: "threads of python", needs: "python3", shell: `python3 -c '
import concurrent.futures as c, urllib.request as u
with c.ThreadPoolExecutor(8) as e: print(set(e.map(lambda i: u.urlopen("http://gateway/x").read().decode().strip(), range(16))))'`, want: "{'GET /x of gateway'}"},
	{name: "a megabyte there and back", needs: "curl", shell: fmt.Sprintf("head -c %d /dev/urandom >a; curl -sS --data-binary @a http://gateway/echo >b; cmp a b && stat -c %%s b", big), want: fmt.Sprint(big)},
	{name: "a megabyte by socket", needs: "curl", shell: fmt.Sprintf("head -c %d /dev/urandom >a; curl -sS --unix-socket /run/gateway.sock --data-binary @a http://gateway/echo >b; cmp a b && stat -c %%s b", big), want: fmt.Sprint(big)},

	{name: "python by socket", needs: "python3", shell: `python3 -c '
import http.client, socket
class Door(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.connect("/run/gateway.sock")
d = Door("gateway")
for i in range(3):
    d.request("POST", "/echo", b"%d of one connection" % i); print(d.getresponse().read().decode())'`, want: "0 of one connection\n1 of one connection\n2 of one connection"},
	{name: "git from the door", needs: "git", shell: "git clone -q http://gateway/git/ s && cat s/f && git -C s log --format=%s", want: "by the door\nfrom the door"},

	// Proxies are the same door.
	{name: "curl with a proxy", needs: "curl", env: proxies, shell: "curl -sS http://example.test/x", want: "GET http://example.test/x of example.test"},
	{name: "curl through a tunnel", needs: "curl", env: proxies, shell: "curl -sS https://example.test/x; true", want: "403"},
	{name: "curl with ALL_PROXY", needs: "curl", env: []string{"ALL_PROXY=http://127.0.0.1:80"}, shell: "curl -sS http://example.test/x", want: "GET http://example.test/x"},
	{name: "python with a proxy", needs: "python3", env: proxies, shell: `python3 -c 'import urllib.request as u; print(u.urlopen("http://example.test/x").read().decode())'`, want: "of example.test"},
	{name: "go with a proxy", profile: jail.Strict(), env: proxies, caller: []string{"http://example.test/x"}, want: "200 GET http://example.test/x"},
	{name: "no proxy reaches nothing", needs: "curl", shell: "curl -sS http://example.test/x", want: "resolve", code: 6},
	{name: "an address of the host reaches nothing", needs: "curl", shell: "curl -sS -m 5 http://192.0.2.2/", code: 7},

	// Work.
	{name: "git", needs: "git", shell: `git init -q r && cd r && git config user.email a@b && git config user.name a && echo x >f && git add f && git commit -qm one && git log --format=%s && git clone -q . ../s && ls ../s`, want: "one\nf"},
	{name: "pipes of the shell", shell: `seq 100 | sort -rn | head -1; x=$(echo a; (echo b)); echo $x; cat <<<here; diff <(echo 1) <(echo 1) && echo same`, want: "100\na b\nhere\nsame"},
	{name: "awk and sed", shell: `printf '1 2\n3 4\n' | awk '{s+=$2} END {print s}' | sed s/6/six/`, want: "six"},
	{name: "temporary files", shell: `f=$(mktemp) && echo x >$f && cat $f && echo y >/dev/shm/z && cat /dev/shm/z && mkfifo p && (echo z >p &) && cat p`, want: "x\ny\nz"},
	{name: "processes of python", needs: "python3", shell: `python3 -c '
import multiprocessing as m
if __name__ == "__main__":
    with m.Pool(2) as p: print(sum(p.map(abs, range(10))))'`, want: "45"},
	{name: "a server of its own", needs: "python3", shell: `python3 -c '
import socket, threading
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.send(b"own"); print(c.recv(3))
u = socket.socket(socket.AF_UNIX); u.bind("/tmp/s"); u.listen(); d = socket.socket(socket.AF_UNIX); d.connect("/tmp/s"); print("unix")'`, want: "b'own'\nunix"},
	{name: "devices", shell: `exec 2>&1; echo x >/dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x >/dev/full; echo $?; echo err >/dev/stderr; cat </dev/stdin; echo to >/dev/stdout`, want: "1\nerr\nto\n"},
	{name: "who it is", shell: `id -un; id -u; hostname; cat /etc/hosts; echo $HOME $PWD`, want: "agent\n1000\njail\n127.0.0.1 localhost gateway\n/tmp /scopes/1"},
	{name: "own processes", shell: `sleep 5 & ps -e >/dev/null 2>&1; ls /proc | grep -c '^[0-9]*$'; kill $! && echo killed`, want: "killed"},
	{
		name: "input", profile: jail.Strict(), probe: []string{"echo-in"}, want: "from outside",
		spec: func(s *jail.Spec, _ string) { s.Stdin = strings.NewReader("from outside") },
	},
	{
		name: "its environment and no more", profile: jail.Strict(), probe: []string{"environ"}, env: []string{"A=b c", "HOME=/x"},
		also: func(t *testing.T, _ jail.Exit, out, _ string) {
			if out != "PATH=/tools\nTMPDIR=/tmp\nA=b c\nHOME=/x\n" {
				t.Errorf("it is %q", out)
			}
		},
	},
	{name: "its directory", profile: jail.Strict(), probe: []string{"directory"}, want: "/scopes/1"},
	{
		name: "a tool by its name", profile: jail.Tools(), probe: []string{"exec", "env", "A=granted"}, want: "A=granted",
		spec: func(s *jail.Spec, _ string) { s.Tools = []jail.Program{{Path: "/usr/bin/env"}} },
	},
	{
		name: "curl as a tool", needs: "curl", profile: jail.Tools(), probe: []string{"exec", "curl", "-sS", "http://gateway/x"}, want: "GET /x of gateway",
		spec: func(s *jail.Spec, _ string) { s.Tools = []jail.Program{{Path: "/usr/bin/curl"}} },
	},

	// Scopes.
	{
		name: "what it writes stays", shell: "echo kept >kept; mkdir d; echo deep >d/e; ln -s kept l; chmod 600 kept", want: "",
		also: func(t *testing.T, _ jail.Exit, _, dir string) {
			if b, err := os.ReadFile(filepath.Join(dir, "d/e")); err != nil || string(b) != "deep\n" {
				t.Errorf("%q %v", b, err)
			}
			st, err := os.Stat(filepath.Join(dir, "kept"))
			if err != nil {
				t.Fatal(err)
			}
			if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() || st.Mode() != 0o600 {
				t.Errorf("it belongs to %d, and is %s", uid, st.Mode())
			}
		},
	},
	{name: "what is there it reads", shell: "cat there", want: "from before"},
	{name: "a scope to read", shell: "cat /scopes/2/there; echo x 2>&1 >/scopes/2/new", want: "from before\nbash: line 1: /scopes/2/new: Read-only file system", code: 1},
	{
		name: "a scope in memory", profile: jail.Strict(), probe: []string{"write", "/scopes/1/f", "x"},
		spec: func(s *jail.Spec, _ string) { s.Scopes = []jail.Scope{{Medium: jail.Memory}} },
	},

	// Ends.
	{name: "exit code 0", profile: jail.Strict(), probe: []string{"exit", "0"}},
	{name: "exit code 37", profile: jail.Strict(), probe: []string{"exit", "37"}, code: 37},
	{name: "exit code 255", profile: jail.Strict(), probe: []string{"exit", "255"}, code: 255},
	{name: "exit code of a shell", shell: "exit 37", code: 37},
	{name: "segmentation fault", profile: jail.Strict(), probe: []string{"crash"}, code: 139, reason: jail.Signaled},
	{name: "killed by itself", shell: "kill -9 $$", code: 137, reason: jail.Signaled},
	{
		name: "deadline", profile: jail.Strict(), probe: []string{"sleep"}, code: jail.CodeDeadline, reason: jail.Deadline,
		spec: func(s *jail.Spec, _ string) { s.Deadline = 500 * time.Millisecond },
	},
	{
		name: "deadline with processes that stay", profile: jail.Strict(), probe: []string{"keep", "x"}, code: jail.CodeDeadline, reason: jail.Deadline,
		spec: func(s *jail.Spec, _ string) { s.Deadline = 500 * time.Millisecond },
	},
	{
		name: "out of memory", profile: jail.Strict(), probe: []string{"use", "200000000"}, code: 137, reason: jail.OOM, needs: "cgroup",
		spec: func(s *jail.Spec, _ string) { s.Limits.Memory = 64 << 20 },
	},
	{
		name: "output is cut", profile: jail.Strict(), probe: []string{"shout", "100", "999"},
		spec: func(s *jail.Spec, _ string) { s.Output.Bytes = 10_000 },
		also: func(t *testing.T, e jail.Exit, out, _ string) {
			if len(out) != 10_000 || !e.Truncated || e.Usage.Stdout != 100_000 {
				t.Errorf("%d bytes, %+v", len(out), e)
			}
		},
	},
	{
		name: "lines are cut", profile: jail.Strict(), probe: []string{"shout", "3", "5000"},
		spec: func(s *jail.Spec, _ string) { s.Output.Line = 100 },
		also: func(t *testing.T, e jail.Exit, out, _ string) {
			if out != strings.Repeat(strings.Repeat("x", 100)+"\n", 3) || !e.Truncated {
				t.Errorf("%q, %+v", out, e)
			}
		},
	},
	{
		name: "daemons end with it", profile: jail.Strict(), probe: []string{"daemons", "writ-daemon-mark"}, want: "left",
		also: func(t *testing.T, _ jail.Exit, _, _ string) {
			if n := marked("writ-daemon-mark"); n != 0 {
				t.Errorf("%d processes are left", n)
			}
		},
	},
	{name: "the first process survives all signals", profile: jail.Strict(), probe: []string{"hit-init"}, want: "it lives"},
	{
		name: "orphans are buried", shell: `for i in $(seq 40); do (sleep 0.01 & exec true); done; sleep 0.3; echo "left: $(grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)"`, want: "left: 0\n",
	},
	{
		name: "an agent that cannot be executed", profile: jail.Strict(), code: jail.CodeNotExec, reason: jail.Refused,
		spec: func(s *jail.Spec, dir string) {
			name := filepath.Join(dir, "not")
			_ = os.WriteFile(name, []byte("no program"), 0o755)
			s.Agent = jail.Program{Path: name}
		},
	},
}

func TestWhatMustWork(t *testing.T) {
	jailtest.Need(t)
	done := 0
	t.Run("jobs", func(t *testing.T) {
		for _, j := range jobs {
			if j.needs == "cgroup" && !jailtest.HasCgroup() { // as for an ordinary user to whom nobody delegated one
				t.Logf("battery: no control group bounds memory here, so this is not tried: %s", j.name)
				continue
			}
			t.Run(j.name, func(t *testing.T) {
				switch j.needs {
				case "", "cgroup":
				default:
					if _, err := exec.LookPath("/usr/bin/" + j.needs); err != nil {
						t.Fatalf("%s is not installed: make deps installs it", j.needs)
					}
				}
				t.Parallel()
				j.run(t)
			})
			done++
		}
	})
	t.Logf("battery: %d things that must work", done)
	if done < 25 {
		t.Error("too few")
	}
}

func (b *job) run(t *testing.T) {
	dir := workDir(t)
	s := jail.Spec{Env: b.env, Profile: b.profile, Deadline: time.Minute, Scopes: []jail.Scope{{Path: dir}, {Path: workDir(t), ReadOnly: true}}}
	switch {
	case b.shell != "":
		s.Profile = jail.Workspace()
		s.Agent, s.Args = jail.Program{Path: "/usr/bin/bash"}, []string{"-c", b.shell}
	case b.caller != nil:
		s.Agent, s.Args = jail.Program{Path: program("caller")}, b.caller
	default:
		s.Agent, s.Args = jail.Program{Path: program("probe")}, b.probe
	}
	if !s.Profile.WriteDirs {
		s.Scopes[0] = jail.Scope{Medium: jail.Memory}
	}
	s.Profile = jailtest.Profile(t, s.Profile)
	if b.spec != nil {
		b.spec(&s, dir)
	}
	var out text
	s.Stdout, s.Stderr = &out, &out
	s.ID = fmt.Sprintf("w%d-%d", os.Getpid(), ids.Add(1))
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Kill("test"); j.Wait() })
	serve(j, answer)
	if err := j.Go(); err != nil && b.reason != jail.Refused {
		t.Fatal(err)
	}
	e := j.Wait()
	reason := b.reason
	if reason == "" {
		reason = jail.Exited
	}
	if e.Code != b.code || e.Reason != reason || !strings.Contains(out.String(), b.want) {
		t.Errorf("it ended with %+v, and said:\n%s\nwant %d %s:\n%s", e, tail(out.String()), b.code, reason, b.want)
	}
	if b.also != nil {
		b.also(t, e, out.String(), dir)
	}
}

// workDir is one of the gateway's own.
func workDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.TempDir(), "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "there"), []byte("from before\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// repository is one of git's, as files behind the door. It has one file in one commit.
var repository = sync.OnceValue(func() http.Handler {
	dir, err := os.MkdirTemp(programs, "git")
	if err != nil { // root's; what this user makes lies in there too, and goes with it
		dir, err = os.MkdirTemp(os.TempDir(), "git")
	}
	if err == nil {
		c := exec.Command("/bin/sh", "-c", `set -e; git init -q work; cd work; echo by the door >f; git add f
git -c user.email=a@b -c user.name=a commit -qm "from the door"; git clone -q --bare . ../bare; git -C ../bare update-server-info`)
		c.Dir = dir
		err = c.Run()
	}
	if err != nil {
		return http.NotFoundHandler()
	}
	return http.StripPrefix("/git/", http.FileServerFS(os.DirFS(filepath.Join(dir, "bare"))))
})

// answer says what it was asked, echoes, and has a repository.
func answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		http.Error(w, "no tunnels", http.StatusForbidden)
	case strings.HasPrefix(r.URL.Path, "/git/"):
		repository().ServeHTTP(w, r)
	case r.URL.Path == "/echo":
		_, _ = io.Copy(w, r.Body)
	default:
		fmt.Fprintf(w, "%s %s of %s\n", r.Method, r.URL, r.Host)
	}
}

func serve(j jail.Jail, h http.HandlerFunc) {
	tcp, unix := j.Listeners()
	for _, l := range []net.Listener{tcp, unix} {
		server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
		go func() { _ = server.Serve(l) }()
	}
}

// marked counts processes of the machine with a mark among their arguments.
func marked(mark string) int {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	n := 0
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), mark) && !strings.HasPrefix(string(b), os.Args[0]) {
			n++
		}
	}
	return n
}
