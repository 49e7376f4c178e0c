package jail_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// readyJailer is a jailer that keeps a first process for the next jail; nil where none is kept.
func readyJailer(t *testing.T, o jail.Options) jail.Jailer {
	t.Helper()
	jailtest.Need(t)
	if os.Geteuid() != 0 || !jailtest.HasCgroup() {
		return nil
	}
	if o.FirstUID == 0 {
		o.FirstUID, o.UIDs = 63000, 64
	}
	j := jail.New(o)
	t.Cleanup(func() { closed(t, j) })
	return j
}

func closed(t *testing.T, j jail.Jailer) {
	t.Helper()
	if err := j.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}

// firsts are the first processes there are.
func firsts(t *testing.T) (out []int) {
	t.Helper()
	for _, launcher := range childrenOf(t, os.Getpid(), "jail-launcher") {
		out = append(out, childrenOf(t, launcher, "jail-init")...)
	}
	return out
}

// theOne is the first process that is kept, where no jail runs, once it waits.
func theOne(t *testing.T) (pid int) {
	t.Helper()
	soon(t, "one is kept", func() bool {
		all := firsts(t)
		if len(all) != 1 {
			return false
		}
		pid = all[0]
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		return strings.Count(string(b), "\n") == 2 && strings.Contains(string(b), " /proc ")
	})
	time.Sleep(time.Millisecond) // it is offered a moment after it is there
	return pid
}

func soon(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not yet: %s", what)
		}
	}
}

// gone says whether a process has ended, though perhaps nobody was told.
func gone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func readySpec(t *testing.T, s jail.Spec, words ...string) jail.Spec {
	s.ID, s.Profile, s.Agent, s.Args = nextID(t), jailtest.Profile(t, jail.Strict()), jail.Program{Path: agentBinary}, words
	return s
}

// ran runs a jail to its end.
func ran(t *testing.T, jailer jail.Jailer, s jail.Spec, words ...string) (jail.Exit, string) {
	t.Helper()
	var out text
	s = readySpec(t, s, words...)
	s.Stdout, s.Stderr = &out, &out
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Go(); err != nil {
		t.Fatal(err)
	}
	return j.Wait(), out.String()
}

// keptGroups are the control groups of what this process keeps.
func keptGroups(t *testing.T) (out []string) {
	t.Helper()
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), "jail-"+jail.Mark+"-kept.") {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The first process of a jail may be there before its jail is asked for. It is the next jail's in everything: input, outputs, limits, user.
func TestReady(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	last := int64(0)
	for _, cpu := range []int64{0, 50, 0} {
		for i := range int64(4) {
			kept := theOne(t)
			var out text
			s := readySpec(t, jail.Spec{Stdin: strings.NewReader("in"), Stdout: &out, Limits: jail.Limits{CPU: cpu, Files: 100 + i, Memory: (1 + i) << 28, Processes: 10 + i}},
				"stdin", "fds", "id", "cat=/proc/self/limits", "sleep=1h")
			j, err := jailer.Spawn(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Go(); err != nil {
				t.Fatal(err)
			}
			soon(t, "it says its limits", func() bool { return strings.Contains(out.String(), "Max realtime timeout") })
			if !strings.Contains(out.String(), fmt.Sprintf("Max open files            %d ", 100+i)) || !strings.HasPrefix(out.String(), "in\n0 1 2 3\n1000 1000 1000 1000\n") {
				t.Errorf("it says: %s", out.String())
			}
			if was := len(childrenOf(t, kept, "agent")); was == 0 && i == 0 && cpu != last { // what was kept cannot bound it, or would
				kept = slices.DeleteFunc(firsts(t), func(pid int) bool { return len(childrenOf(t, pid, "agent")) == 0 })[0]
			} else if was != 1 {
				t.Errorf("the agent is not below the one that was kept")
			}
			last = cpu
			f := j.Features()
			if u := j.Usage(); u.Processes < 1 || u.Memory == 0 || slices.Contains(f.Controllers, "cpu") != (cpu > 0) || f.HostUID < 63000 || f.HostUID > 63063 {
				t.Errorf("it uses %+v, and has %+v", u, f)
			}
			if most := bounds(t, kept); most != [3]int64{(1 + i) << 28, 10 + i + 16, cpu} {
				t.Errorf("its bounds are %d", most)
			}
			j.Kill("enough")
			if e := j.Wait(); e.Reason != "enough" {
				t.Errorf("it ended with %+v", e)
			}
		}
	}
}

// Whoever makes the first process of a jail is in its group meanwhile, and makes those of others too: a jail that is to have
// little processor time is held to that only once it is made, and then it is.
func TestNobodyIsMadeInLittleTime(t *testing.T) {
	jailer := readyJailer(t, jail.Options{})
	if jailer == nil {
		return
	}
	s := readySpec(t, jail.Spec{Limits: jail.Limits{CPU: 1}}, "sleep=1h")
	if whole := jail.WhileMade(s.Limits); whole.CPU != 100 || whole.Memory != s.Limits.Memory || whole.Processes != s.Limits.Processes {
		t.Errorf("it is made with %+v, and is to have %+v", whole, s.Limits)
	}
	if twice := jail.WhileMade(jail.Limits{CPU: 200}); twice.CPU != 200 {
		t.Errorf("one of two processors is made with %d", twice.CPU)
	}
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if most := bounds(t, firsts(t)[0]); most[2] != 1 {
		t.Errorf("its bounds are %d", most)
	}
	j.Kill("enough")
	j.Wait()
}

// bounds are those of the control group of a process: bytes, processes, and per cent of a processor.
func bounds(t *testing.T, pid int) (out [3]int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), "jail-")
		if name == "" {
			continue
		}
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/jail-" + name)
		more, _ := filepath.Glob("/sys/fs/cgroup/*/*/*/jail-" + name)
		for _, dir := range append(append(dirs, more...), "/sys/fs/cgroup/jail-"+name) {
			for i, files := range [][]string{{"memory.max", "memory.limit_in_bytes"}, {"pids.max"}, {"cpu.max", "cpu.cfs_quota_us"}} {
				for _, file := range files {
					b, _ := os.ReadFile(filepath.Join(dir, file))
					if f := strings.Fields(string(b)); len(f) > 0 {
						out[i], _ = strconv.ParseInt(f[0], 10, 64)
					}
				}
			}
		}
	}
	if out[2] = out[2] / 1000; out[2] < 0 {
		out[2] = 0
	}
	return out
}

// Its control group bounds as that of any jail.
func TestReadyIsBounded(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	if most := bounds(t, theOne(t)); most != [3]int64{64 << 20, 17, 0} {
		t.Errorf("while it waits its bounds are %d", most)
	}
	if e, _ := ran(t, jailer, jail.Spec{Limits: jail.Limits{Memory: 32 << 20, Data: 1 << 30}}, "eat=256"); e.Reason != jail.OOM {
		t.Errorf("it ended with %+v", e)
	}
}

// An agent sees nothing else in a jail of what was kept than in one that was not.
func TestReadyShowsNothingElse(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	words := []string{"fds", "id", "env", "pwd", "ls=/", "ls=/dev", "ls=/run", "ls=/etc", "ls=/tmp", "ls=/scopes", "ls=/proc", "cat=/proc/self/mountinfo", "cat=/proc/self/limits", "cat=/proc/self/cgroup", "cat=/proc/self/status"}
	number := regexp.MustCompile(`(?m)^\d+ self|[ug]id=\d+|^\d+ \d+ \d+:\d+ |^(Vm|Rss|Hugetlb|Threads|voluntary|nonvoluntary|Cpus|Mems|Pid|Tgid|Ngid|NSpid|NStgid|PPid|FDSize|NSpgid|NSsid|State|SigQ).*$`)
	said := func() string {
		_, out := ran(t, jailer, jail.Spec{Scopes: []jail.Scope{{Medium: jail.Memory}}}, words...)
		return number.ReplaceAllString(out, "")
	}
	fresh := said()
	theOne(t)
	if kept := said(); len(kept) < 1000 {
		t.Errorf("it says too little: %s", kept)
	} else {
		was := strings.Split(fresh, "\n")
		for i, line := range strings.Split(kept, "\n") {
			if i >= len(was) || line != was[i] {
				t.Errorf("it says %q, and not %q", line, append(was, make([]string, i)...)[i])
			}
		}
	}
}

// What is kept holds nothing of the host: no mount, no descriptor but of its orders, and no process lives in it.
func TestReadyHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	ran(t, jailer, jail.Spec{})
	pid := theOne(t)
	if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)); strings.Count(string(b), " - tmpfs none ") != 1 || strings.Count(string(b), " - proc none ") != 1 {
		t.Errorf("it has mounted %s", b)
	}
	got := map[string]string{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		to, _, _ = strings.Cut(to, ":[")
		got[fd.Name()] = to
	}
	want := map[string]string{"0": "/dev/null", "1": "/dev/null", "2": "/dev/null", "3": "socket", "4": "/memfd:jail-init (deleted)"}
	for fd, to := range got {
		if to != want[fd] {
			t.Errorf("it has %s as descriptor %s", to, fd)
		}
	}
	if len(got) != len(want) {
		t.Errorf("it has %v", got)
	}
}

// What was kept, or what started it, may have ended: the jail is made of another, and nothing that it is to be given is lost.
func TestReadyMayHaveEnded(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	signal := func(s syscall.Signal, pids ...int) {
		for _, pid := range pids {
			if err := syscall.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
	}
	ran(t, jailer, jail.Spec{})
	for i := range 9 {
		kept := theOne(t)
		switch i % 3 {
		case 0:
			signal(syscall.SIGKILL, kept)
		case 1:
			signal(syscall.SIGKILL, childrenOf(t, os.Getpid(), "jail-launcher")...)
			soon(t, "it has ended", func() bool { return gone(kept) })
		case 2: // while its jail is being made of it
			signal(syscall.SIGSTOP, kept)
			time.AfterFunc(20*time.Millisecond, func() { signal(syscall.SIGKILL, kept) })
		}
		if e, out := ran(t, jailer, jail.Spec{Stdin: strings.NewReader("all of it")}, "stdin", "say=again"); e.Code != 0 || out != "all of it\nagain\n" {
			t.Errorf("it ended with %+v, and said: %s", e, out)
		}
	}
}

// One that is there and does not answer is not tried for again: making a jail takes as long as it may, once.
func TestReadyIsTriedOnce(t *testing.T) {
	const start = time.Second
	jailer := readyJailer(t, jail.Options{Ready: time.Minute, Start: start})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	kept := theOne(t)
	if err := syscall.Kill(kept, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_, err := jailer.Spawn(t.Context(), readySpec(t, jail.Spec{}))
	refusedAs(t, err, jail.FeatureInit, 0)
	if took := time.Since(began); took < start {
		t.Errorf("it took %v: nothing was tried", took)
	}
	if theOne(t) == kept {
		t.Error("it is kept still")
	}
}

// What nobody wants goes, with its control group; and what is closed keeps none, whatever it was at.
func TestReadyIsNotKeptForever(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: 100 * time.Millisecond})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	soon(t, "it is gone", func() bool { return len(firsts(t)) == 0 && len(keptGroups(t)) == 0 })
	for i := range 8 {
		other := readyJailer(t, jail.Options{Ready: time.Minute})
		ran(t, other, jail.Spec{})
		if i%2 == 1 {
			theOne(t)
		}
		ran(t, other, jail.Spec{Limits: jail.Limits{CPU: 50}}) // of which no kept one could be made
		closed(t, other)
		if len(firsts(t)) != 0 || len(keptGroups(t)) != 0 {
			t.Errorf("%d are left, and the groups %v", len(firsts(t)), keptGroups(t))
		}
		if e, out := ran(t, other, jail.Spec{}, "say=on"); e.Code != 0 || out != "on\n" {
			t.Errorf("it ended with %+v, and said: %s", e, out)
		}
		if time.Sleep(20 * time.Millisecond); len(firsts(t)) != 0 {
			t.Error("one is kept after the end")
		}
	}
}

// Who closes waits no longer than making a jail may take.
func TestReadyIsNotWaitedForForever(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	const start = 200 * time.Millisecond
	short := readyJailer(t, jail.Options{Ready: time.Minute, Start: start, FirstUID: 63100})
	ran(t, jailer, jail.Spec{})
	theOne(t)
	launchers := childrenOf(t, os.Getpid(), "jail-launcher")
	signal := func(s syscall.Signal) {
		for _, pid := range launchers {
			if err := syscall.Kill(pid, s); err != nil {
				t.Error(err)
			}
		}
	}
	ran(t, short, jail.Spec{})
	soon(t, "both have one", func() bool { return len(firsts(t)) == 2 })
	signal(syscall.SIGSTOP) // who would tell of its end
	soon(t, "it has stopped", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", launchers[0]))
		return strings.Contains(string(b), ") T ")
	})
	defer signal(syscall.SIGCONT)
	began := time.Now()
	err := short.(io.Closer).Close()
	if took := time.Since(began); err == nil || took < start || took > 10*start {
		t.Errorf("after %v: %v", took, err)
	}
}

// What is kept dies with this process, however that ends.
func TestReadyDiesWithItsMaker(t *testing.T) {
	if readyJailer(t, jail.Options{}) == nil {
		return
	}
	c := exec.Command("/proc/self/exe", "worse", "die ready")
	c.Env = append(os.Environ(), "WRIT_TEST_JAIL_AGENT="+agentBinary)
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(stdout, &pid); err != nil || syscall.Kill(pid, 0) != nil {
		t.Fatalf("nothing is kept: %d, %v", pid, err)
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	soon(t, "it is gone", func() bool { return gone(pid) })
}

// The user that what is kept has is not kept from a jail that wants it, or the last there is.
func TestReadyKeepsNoUser(t *testing.T) {
	first := 70000 + os.Getpid()%400*2 // users are the machine's, and these tests may be run twice at a time
	jailer := readyJailer(t, jail.Options{Ready: time.Minute, FirstUID: first, UIDs: 2})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	for range 4 {
		theOne(t) // which has the second user, as the jail had the first, or the other way round
		for _, s := range []jail.Spec{{HostUID: first}, {HostUID: first + 1}} {
			if e, out := ran(t, jailer, s, "say=mine"); e.Code != 0 || out != "mine\n" {
				t.Errorf("it ended with %+v, and said: %s", e, out)
			}
		}
	}
	theOne(t)
	other, err := jailer.Spawn(t.Context(), readySpec(t, jail.Spec{Limits: jail.Limits{CPU: 50}}))
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "the last user is that of what is kept", func() bool { return len(firsts(t)) == 2 && len(keptGroups(t)) > 0 })
	if e, out := ran(t, jailer, jail.Spec{}, "say=mine"); e.Code != 0 || out != "mine\n" {
		t.Errorf("it ended with %+v, and said: %s", e, out)
	}
	other.Kill("enough")
	other.Wait()
}

// A jail that is refused leaves the next one no slower, and one that nobody waits for uses nothing up.
func TestReadyAfterARefusal(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	kept := theOne(t)
	nobody, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := jailer.Spawn(nobody, readySpec(t, jail.Spec{})); !errors.Is(err, context.Canceled) {
		t.Errorf("a jail for somebody who has gone: %v", err)
	}
	if _, err := jailer.Preflight(t.Context(), jail.Strict()); err != nil {
		t.Error(err)
	}
	if theOne(t) != kept {
		t.Error("it was used up")
	}
	missing := readySpec(t, jail.Spec{})
	missing.Runtime = []string{"/nowhere"}
	_, err := jailer.Spawn(t.Context(), missing)
	refusedAs(t, err, jail.FeatureSource, 0)
	theOne(t)
}

// Many at once, of which one has what is kept: each is its own, and an id is one jail's.
func TestReadyForOneOfMany(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	ran(t, jailer, jail.Spec{})
	theOne(t)
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			for k := range 4 {
				word := fmt.Sprintf("%d-%d", i, k)
				if e, out := ran(t, jailer, jail.Spec{Limits: jail.Limits{CPU: int64(50 * (i % 2))}}, "say="+word); e.Code != 0 || out != word+"\n" {
					t.Errorf("%s ended with %+v, and said: %s", word, e, out)
				}
			}
		})
	}
	all.Wait()
	ran(t, jailer, jail.Spec{})
	theOne(t)
	s := readySpec(t, jail.Spec{}, "sleep=1h")
	j, err := jailer.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	theOther := readyJailer(t, jail.Options{Ready: time.Minute, FirstUID: 63100})
	for _, jailer := range []jail.Jailer{jailer, theOther, jail.NewSandbox(jail.SandboxOptions{})} {
		if _, err := jailer.Spawn(t.Context(), s); err == nil || !strings.Contains(err.Error(), "another jail has this id") {
			t.Errorf("a second of the same id: %v", err)
		}
	}
	j.Kill("enough")
	j.Wait()
}

// Where mounts of the host would be as old as what is kept, or nothing would bound it, none is.
func TestReadyForNobodyElse(t *testing.T) {
	jailtest.Need(t)
	cases := map[string]*syscall.SysProcAttr{"ready": nil}
	if os.Geteuid() == 0 {
		cases = map[string]*syscall.SysProcAttr{"root of a container, ready": nil, "no cgroup, ready": {Cloneflags: unix.CLONE_NEWNS}}
	}
	for how, attr := range cases {
		c := exec.Command("/proc/self/exe", "worse", how)
		c.Env = append(os.Environ(), "WRIT_TEST_JAIL_AGENT="+agentBinary)
		c.SysProcAttr = attr
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatal(err, string(out))
		}
		same(t, string(out), "0")
	}
}

// Jails that are bounded in turns are each of another kind than what is kept: what was made for the one before makes way, one is kept
// in the end, and nobody waits long for it to go.
func TestReadyInTurns(t *testing.T) {
	jailer := readyJailer(t, jail.Options{Ready: time.Minute})
	if jailer == nil {
		return
	}
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for turn := range 6 {
				ran(t, jailer, jail.Spec{Limits: jail.Limits{CPU: int64((i + turn) % 2 * 50)}})
			}
		})
	}
	all.Wait()
	soon(t, "one is kept, and what makes it", func() bool { return len(firsts(t)) == 1 && runtime.NumGoroutine() <= before+6 })
	began := time.Now()
	if err := jailer.(io.Closer).Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("%v, after %v", err, time.Since(began))
	}
}
