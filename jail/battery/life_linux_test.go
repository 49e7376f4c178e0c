package battery

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// soon is how long something may take that happens at once, on a busy machine.
const soon = 20 * time.Second

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !so(); {
		if time.Now().After(end) {
			t.Errorf("not yet: %s", what)
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func spec(t *testing.T, p jail.Profile, out *text, words ...string) jail.Spec {
	t.Helper()
	return jail.Spec{
		Profile: jailtest.Profile(t, p), Agent: jail.Program{Path: program("probe")}, Args: words, Stdout: out, Stderr: out, Deadline: time.Minute,
	}
}

// Two jails at once know nothing of each other, and each is who its door says, whatever it says itself.
func TestTwoJails(t *testing.T) {
	jailtest.Need(t)
	for _, p := range jail.Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			mark := "writ-two-" + rand.Text()
			name := func(who string) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "you are %s\n", who) }
			}
			// The victim listens where it can, has a mark, and stays.
			var first text
			one := startWith(t, spec(t, p, &first, "be-there", mark), name("one"))
			if one == nil {
				t.FailNow()
			}
			eventually(t, "the first is there", func() bool { return strings.Contains(first.String(), "there") })
			for _, network := range []string{"tcp", "unix"} {
				var out text
				two := startWith(t, spec(t, p, &out, "get", network, "/", "X-Agent-Id=one", "X-Forwarded-For=one", "Forwarded=for=one"), name("two"))
				if two == nil {
					t.FailNow()
				}
				if e := two.Wait(); e.Code != 0 || out.String() != "you are two\n" {
					t.Errorf("over %s it ended with %+v, and was told: %s", network, e, out.String())
				}
			}
			var out text
			two := startWith(t, spec(t, p, &out, "meet", mark), name("two"))
			if two == nil {
				t.FailNow()
			}
			if e := two.Wait(); e.Code != 0 || out.String() != "met nobody\n" {
				t.Errorf("it ended with %+v, and said: %s", e, out.String())
			}
			if a, b := one.Features().HostUID, two.Features().HostUID; one.Features().Privileged && a == b {
				t.Errorf("both are user %d of the host", a)
			}
			if marked(mark) == 0 {
				t.Error("the first has gone")
			}
		})
	}
}

// Closing the listeners is the end of what an agent can reach.
func TestClosedListeners(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	var out text
	s := spec(t, jail.Strict(), &out, "hold")
	s.ID = fmt.Sprintf("c%d-%d", os.Getpid(), ids.Add(1))
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Kill("test"); j.Wait() })
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	tcp, unix := j.Listeners()
	c, err := unix.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = tcp.Close()
	_ = unix.Close()
	_ = c.Close()
	if e := j.Wait(); e.Code != 0 || out.String() != "held\nlet go\nrefused\nrefused\n" {
		t.Errorf("it ended with %+v, and said: %s", e, out.String())
	}
}

// An agent that hands its output to the gateway, where nobody takes it, does not keep the jail from ending.
func TestOutputHandedOn(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	for _, profile := range jail.Profiles() {
		var out text
		j := startNobody(t, spec(t, profile, &out, "pass-out"))
		ended := make(chan jail.Exit, 1)
		go func() { ended <- j.Wait() }()
		select {
		case e := <-ended:
			if e.Code != 0 || out.String() != "passed\n" {
				t.Errorf("it ended with %+v, and said: %s", e, out.String())
			}
		case <-time.After(soon):
			t.Fatal("the jail does not end")
		}
	}
}

// The same where the gateway has taken the connection and does not read from it.
func TestOutputHandedToSomebodyBusy(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	var out text
	j := startNobody(t, spec(t, jail.Strict(), &out, "pass-out"))
	_, unix := j.Listeners()
	for range 8 {
		c, err := unix.Accept()
		if err != nil {
			break // it has ended
		}
		defer func() { _ = c.Close() }()
	}
	ended := make(chan jail.Exit, 1)
	go func() { ended <- j.Wait() }()
	select {
	case e := <-ended:
		if e.Code != 0 || !strings.HasPrefix(out.String(), "passed\n") {
			t.Errorf("it ended with %+v, and said: %s", e, out.String())
		}
	case <-time.After(soon):
		t.Fatal("the jail does not end")
	}
}

func startNobody(t *testing.T, s jail.Spec) jail.Jail {
	t.Helper()
	s.ID = fmt.Sprintf("n%d-%d", os.Getpid(), ids.Add(1))
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	return j
}

// An agent that takes every process there may be does not take the first one's threads.
func TestFullJail(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	for range 20 {
		var out text
		s := spec(t, jail.Strict(), &out, "fill")
		s.Limits.Processes = 24
		j := start(t, s)
		if j == nil {
			t.FailNow()
		}
		if e := j.Wait(); e.Code != 0 || e.Reason != jail.Exited || out.String() != "filled\n" {
			t.Fatalf("it ended with %+v, and said: %.600s", e, out.String())
		}
	}
}

// Kill ends everything at once, and says why.
func TestKill(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	mark := "writ-kill-" + rand.Text()
	var out text
	j := start(t, spec(t, jail.Strict(), &out, "keep", mark))
	if j == nil {
		t.FailNow()
	}
	eventually(t, "seven processes", func() bool { return marked(mark) == 7 })
	j.Kill("revoked")
	j.Kill("another reason")
	if e := j.Wait(); e.Reason != "revoked" || e.Code != 137 {
		t.Errorf("it ended with %+v", e)
	}
	if n := marked(mark); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

// An agent that keeps the machine busy, and would put its first process behind all that, ends when it is to end; with a control group
// whatever it did, since all of it is killed.
func TestStarvedFirstProcess(t *testing.T) {
	jailtest.Need(t)
	for _, profile := range jail.Profiles() {
		var out text
		j := start(t, spec(t, profile, &out, "starve"))
		if j == nil {
			t.FailNow()
		}
		eventually(t, "it is busy", func() bool { return strings.HasSuffix(out.String(), "busy\n") })
		if out.String() != "busy\n" {
			t.Errorf("%s: it says: %s", profile.Name, out.String())
		}
		began := time.Now()
		j.Kill("enough")
		if e := j.Wait(); e.Reason != "enough" {
			t.Errorf("%s: it ended with %+v, and said: %s", profile.Name, e, out.String())
		}
		if d := time.Since(began); d > longest {
			t.Errorf("%s: it went on for %v", profile.Name, d)
		}
	}
}

// longest is how long something may be about to end. Where it can put that off it is much longer.
const longest = 4 * time.Second

// A gateway that is killed takes all its jails with it, and the next one removes what is left of them.
func TestKilledGateway(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	mark := "writ-gone-" + rand.Text()
	c := helps(t, "gateway", mark)
	// Everything below it, by number and the moment it began: the first processes have no mark.
	var below map[int]string
	eventually(t, "all processes of three jails are there", func() bool { // one that is just being made has its maker's arguments
		below = descendants(c.Process.Pid)
		return marked(mark) == 3*7 && len(below) >= 3*7+3
	})
	haveNoRights(t, below)
	groups := leftGroups(c.Process.Pid)
	if jailtest.HasCgroup() && len(groups) == 0 {
		t.Fatal("there are no control groups of it")
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	eventually(t, "all processes of the killed gateway are gone", func() bool {
		for pid, began := range below {
			if beginning(pid) == began {
				return false
			}
		}
		return marked(mark) == 0
	})
	next := exec.Command("/proc/self/exe")
	next.Env = append(os.Environ(), helper+"=preflight")
	if out, err := next.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if left := leftGroups(c.Process.Pid); len(left) > 0 {
		t.Errorf("control groups are left: %v", left)
	}
	t.Logf("battery: %d processes went with their gateway, and %d control groups were swept", len(below), len(groups))
}

// That holds for one whose agents keep the machine busy, and put their first process behind all that, too.
func TestStarvedAndTheGatewayKilled(t *testing.T) {
	jailtest.Need(t)
	c := helps(t, "starved", "")
	below := descendants(c.Process.Pid)
	if len(below) < 100 {
		t.Fatalf("only %d processes are busy", len(below))
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	began := time.Now()
	eventually(t, "all processes of the killed gateway are gone", func() bool {
		for pid, began := range below {
			if beginning(pid) == began {
				return false
			}
		}
		return true
	})
	if d := time.Since(began); d > longest {
		t.Errorf("they went on for %v", d)
	}
}

// haveNoRights looks at every thread in jails, those of their first processes too. One that is kept for a jail that is not wanted yet has
// rights to make it with, and nobody beside it.
func haveNoRights(t *testing.T, pids map[int]string) {
	t.Helper()
	threads, parents := 0, map[string]bool{}
	for pid := range pids {
		if f := stat(pid); len(f) > 2 {
			parents[f[1]] = true
		}
	}
	const ignored = "ffffffffff80feff" // but KILL and STOP, which come from outside alone, and those that end nobody
	for pid := range pids {
		all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/status", pid))
		for _, name := range all {
			b, err := os.ReadFile(name)
			if err != nil {
				continue // it has ended
			}
			is := map[string]string{}
			for line := range strings.Lines(string(b)) {
				key, value, _ := strings.Cut(line, ":")
				is[key] = strings.TrimSpace(value)
			}
			if len(strings.Fields(is["NSpid"])) < 2 {
				continue // it starts jails, and is in none
			}
			if is["Name"] != "probe" && !parents[strconv.Itoa(pid)] {
				continue // it is kept
			}
			threads++
			if is["Name"] != "probe" && is["SigIgn"] != ignored {
				t.Errorf("a first process ignores the signals %s, not %s", is["SigIgn"], ignored)
			}
			for key, want := range map[string]string{
				"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
			} {
				if is[key] != want {
					t.Errorf("thread %s of %s: %s is %s, not %s", is["Pid"], is["Name"], key, is[key], want)
				}
			}
		}
	}
	if threads < 3*7+3*2 { // what is started in each jail, and a first process of more than one thread
		t.Errorf("only %d threads were seen", threads)
	}
}

// helps starts this program as another process that has jails, until those do what is asked for.
func helps(t *testing.T, what, mark string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), helper+"="+what, "WRIT_TEST_BATTERY="+programs, "WRIT_TEST_BATTERY_MARK="+mark)
	c.Stderr = os.Stderr
	said, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the helper said %q: %v", line, err)
	}
	return c
}

// help is what this program does as another process.
func help(what string) int {
	profile := func(p jail.Profile) jail.Profile {
		_, err := jailer.Preflight(context.Background(), p)
		p.WithoutCgroup = err != nil
		return p
	}
	if what == "preflight" {
		if _, err := jailer.Preflight(context.Background(), profile(jail.Strict())); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	mark, out := os.Getenv("WRIT_TEST_BATTERY_MARK"), new(text)
	words, profiles := []string{"keep", mark}, jail.Profiles()
	if what == "starved" {
		words, profiles = []string{"starve"}, profiles[:1]
	}
	for i, p := range profiles {
		j, err := jailer.Spawn(context.Background(), jail.Spec{
			ID: fmt.Sprintf("h%d-%d", os.Getpid(), i), Profile: profile(p), Agent: jail.Program{Path: program("probe")}, Args: words, Stdout: out,
		})
		if err == nil {
			err = j.Go()
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
	}
	for what == "starved" && !strings.HasSuffix(out.String(), "busy\n") || what == "gateway" && marked(mark) < 3*7 {
		time.Sleep(2 * time.Millisecond)
	}
	if what == "starved" && out.String() != "busy\n" {
		fmt.Println(out.String())
	}
	fmt.Println("ready")
	select {}
}

// descendants are processes below one, with the moment each began.
func descendants(root int) map[int]string {
	parents := map[int]int{}
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if f := stat(pid); len(f) > 2 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	out := map[int]string{}
	for pid := range parents {
		for at, depth := pid, 0; at > 1 && depth < 64; at, depth = parents[at], depth+1 {
			if parents[at] == root {
				out[pid] = beginning(pid)
				break
			}
		}
	}
	return out
}

// stat are the fields after the name of a process.
func stat(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.Fields(rest)
}

// beginning is when a process began; of none, and of one that only waits to be buried, nothing.
func beginning(pid int) string {
	f := stat(pid)
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "gone"
	}
	return f[19]
}

// leftGroups are the control groups that a process made for jails.
func leftGroups(pid int) []string {
	var out []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), "jail-") && strings.Contains(d.Name(), fmt.Sprintf("-h%d-", pid)) {
			out = append(out, path)
		}
		return nil
	})
	return out
}

// Many agents attack at once, and the gateway still serves each as who it is.
func TestManyAtOnce(t *testing.T) {
	jailtest.Need(t)
	t.Parallel()
	var all sync.WaitGroup
	for i := range 12 {
		who := fmt.Sprintf("agent %d", i)
		var out text
		s := spec(t, jail.Profiles()[i%3], &out, "threads")
		seen := map[string]int{}
		var mu sync.Mutex
		j := startWith(t, s, func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[who]++
		})
		if j == nil {
			continue
		}
		all.Go(func() {
			e := j.Wait()
			mu.Lock()
			defer mu.Unlock()
			if e.Code != 0 || seen[who] != 16 {
				t.Errorf("%s ended with %+v after %d calls: %s", who, e, seen[who], out.String())
			}
		})
	}
	all.Wait()
}

// What is told about a probe is read as it was meant.
func TestParse(t *testing.T) {
	for _, err := range []error{nil, os.ErrNotExist, context.Canceled} {
		line := probes.Line("name", err)
		name, verdict, _, ok := probes.Parse(line)
		if !ok || name != "name" || (verdict == probes.Escaped) != (err == nil) {
			t.Errorf("%q is read as %s %s %v", line, name, verdict, ok)
		}
	}
	if _, _, _, ok := probes.Parse("name nonsense"); ok {
		t.Error("nonsense is read")
	}
	seen := map[string]bool{}
	for _, p := range probes.All {
		if seen[p.Name] || p.Try == nil || strings.ContainsAny(p.Name, " \t") {
			t.Errorf("%s is there twice, or no name", p.Name)
		}
		seen[p.Name] = true
	}
	if len(seen) < 120 {
		t.Errorf("there are only %d probes", len(seen))
	}
	if _, err := json.Marshal(probes.World{}); err != nil {
		t.Error(err)
	}
}
