package jail

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree is a /proc and a /sys/fs/cgroup of files.
func tree(t *testing.T, cgroup, mountinfo string, files map[string]string) (proc string, fs func(string) string) {
	t.Helper()
	root := t.TempDir()
	fs = func(name string) string { return filepath.Join(root, name) }
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(fs(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(fs(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("proc/cgroup", cgroup)
	put("proc/mountinfo", strings.ReplaceAll(mountinfo, "ROOT", root))
	for name, text := range files {
		put(name, text)
	}
	return fs("proc"), fs
}

func TestFindCgroups(t *testing.T) {
	const v2 = "30 23 0:26 / ROOT/cg rw,nosuid - cgroup2 cgroup2 rw\n"
	for name, tt := range map[string]struct {
		cgroup, mounts string
		files          map[string]string
		version, at    string
	}{
		"v2": {"0::/user.slice/x\n", v2, map[string]string{"cg/user.slice/x/cgroup.controllers": "cpu memory pids\n"}, "v2", "cg/user.slice/x"},
		"v2 in a container, with the host's path": {
			"0::/docker/abc\n", "30 23 0:26 /docker/abc ROOT/cg rw - cgroup2 cgroup rw\n",
			map[string]string{"cg/cgroup.controllers": "memory pids\n"},
			"v2", "cg",
		},
		"v2, where a gateway before put what started us": {
			"0::/x/writ-gateway\n", v2,
			map[string]string{"cg/x/cgroup.controllers": "cpu memory pids\n", "cg/x/writ-gateway/cgroup.controllers": "memory pids\n"},
			"v2", "cg/x",
		},
		"hybrid": {
			"4:memory:/a\n3:pids:/a\n0::/a\n",
			v2 + "1 1 0:1 / ROOT/m rw - cgroup cgroup rw,memory\n1 1 0:1 / ROOT/p rw - cgroup cgroup rw,pids\n",
			map[string]string{"cg/a/cgroup.controllers": "\n"},
			"v1", "m/a",
		},
		"v2 without memory": {"0::/x\n", v2, map[string]string{"cg/x/cgroup.controllers": "cpu pids\n"}, "", ""},
		"v1": {
			"4:memory:/a\n3:pids:/b\n2:cpu,cpuacct:/\n0::/\n",
			v2 + "1 1 0:1 / ROOT/m rw - cgroup cgroup rw,memory\n1 1 0:1 / ROOT/p rw - cgroup cgroup rw,pids\n1 1 0:1 / ROOT/c rw - cgroup cgroup rw,cpu,cpuacct\n",
			nil, "v1", "m/a",
		},
		"v1 without pids": {"4:memory:/a\n", "1 1 0:1 / ROOT/m rw - cgroup cgroup rw,memory\n", nil, "", ""},
		"none":            {"", "", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			proc, fs := tree(t, tt.cgroup, tt.mounts, tt.files)
			c, err := findCgroups(proc)
			if tt.version == "" {
				if err == nil {
					t.Errorf("found %+v", c)
				}
				return
			}
			if err != nil || c.version != tt.version || c.parents["memory"] != fs(tt.at) {
				t.Errorf("found %+v, %v", c, err)
			}
		})
	}
}

// fake is the v2 group of a process, of plain files: what would be in a new group is there before.
func fake(t *testing.T, id string, files ...string) (*cgroups, func(string) string) {
	t.Helper()
	g := &group{cgroups: &cgroups{}, name: nameOf(id)}
	content := map[string]string{"cg/x/cgroup.controllers": "cpu memory pids\n", "cg/x/cgroup.subtree_control": "memory pids\n"}
	for _, f := range files {
		content["cg/x/"+g.name+"/"+f] = ""
	}
	proc, fs := tree(t, "0::/x\n", "30 23 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n", content)
	c, err := findCgroups(proc)
	if err != nil {
		t.Fatal(err)
	}
	return c, func(name string) string {
		b, _ := os.ReadFile(fs("cg/x/" + name))
		return string(b)
	}
}

func TestDelegate(t *testing.T) {
	c, read := fake(t, "x")
	if err := c.delegate(); err != nil {
		t.Fatal(err)
	}
	if got := read("cgroup.subtree_control"); !strings.HasPrefix(got, "+cpu") {
		t.Errorf("it wrote %q", got)
	}
}

// Whoever shares our group goes with us: with anybody left in it, its groups get no controllers.
func TestVacate(t *testing.T) {
	c, _ := fake(t, "x")
	dir := c.parents["memory"]
	moved := filepath.Join(dir, leaf, "cgroup.procs")
	if err := os.MkdirAll(filepath.Dir(moved), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{moved: "", filepath.Join(dir, "cgroup.procs"): "2000000001\n2000000002\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := vacate(dir); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(moved); string(b) != "2000000002" { // a file of the kernel's takes one after the other, this keeps the last
		t.Errorf("it moved %q, %v", b, err)
	}
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	if err := vacate(dir); err == nil {
		t.Error("that they cannot be moved is no error")
	}
}

func TestLimitsOfAGroup(t *testing.T) {
	c, read := fake(t, "x")
	if _, err := c.newGroup("x", Limits{Memory: 1 << 20, Processes: 5}); err == nil {
		t.Error("a group whose limits cannot be written is no error")
	}
	if _, err := os.Stat(filepath.Join(c.parents["memory"], nameOf("x"))); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
	for file, want := range map[string]string{"memory.max": "1048576", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "21", "cpu.max": "50000 100000"} {
		dir := filepath.Join(c.parents["memory"], nameOf("y"))
		g := &group{cgroups: c, name: nameOf("y"), cpu: true}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"} {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.limit(Limits{Memory: 1 << 20, Processes: 5, CPU: 50}); err != nil {
			t.Fatal(err)
		}
		if got := read(nameOf("y") + "/" + file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

func TestUsageOfAGroup(t *testing.T) {
	c, _ := fake(t, "x", "memory.peak", "memory.current", "cpu.stat", "memory.events", "cgroup.procs")
	g := &group{cgroups: c, name: nameOf("x")}
	for file, text := range map[string]string{"memory.peak": "4096\n", "memory.current": "2048\n", "cgroup.procs": "2000000001\n2000000002\n", "cpu.stat": "usage_usec 2000\nuser_usec 1\n", "memory.events": "oom 7\noom_kill 3\n"} {
		if err := os.WriteFile(filepath.Join(g.dirs()[0], file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var u Usage
	g.usage(&u)
	g.now(&u)
	if u.Memory != 2048 || u.Processes != 2 || u.MemoryPeak != 4096 || u.CPU.Microseconds() != 2000 || u.OOMKills != 3 {
		t.Errorf("it used %+v", u)
	}
}

// Groups that nobody holds any more are taken away, and no others: whatever the number of the
// process that made them, and of the one that sweeps.
func TestSweep(t *testing.T) {
	c, _ := fake(t, "x")
	parent := c.parents["memory"]
	at := func(name string) string { return filepath.Join(parent, name) }
	there := func(name string) bool {
		_, err := os.Stat(at(name))
		return err == nil
	}
	another := "jail-0123456789abcdef-"
	held, err := hold(at(another + "held"))
	if err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{
		another + "left": false, another + "kept.7": false, nameOf("left"): false, "jail-": true, "jail-x-y": true, "other-0123456789abcdef-x": true, "jail-1-run": true, another + "in-use/process": true,
	} {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
		c.sweep()
		if there(name) != stays {
			t.Errorf("%s: it is there: %t", name, !stays)
		}
	}
	if !there(another + "held") {
		t.Fatal("one that somebody holds is taken away")
	}
	if err := held.Close(); err != nil { // as the end of its process does
		t.Fatal(err)
	}
	if n := c.sweep(); n != 1 || there(another+"held") {
		t.Fatalf("%d are taken away", n)
	}
}

// A sweep never takes away what is just being made.
func TestSweepWhileGroupsAreMade(t *testing.T) {
	c, _ := fake(t, "x")
	done := make(chan struct{})
	var sweeping sync.WaitGroup
	for range 2 {
		sweeping.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					c.sweep()
				}
			}
		})
	}
	for n := range 100 {
		dir := filepath.Join(c.parents["memory"], nameOf(strconv.Itoa(n)))
		f, err := hold(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Fatalf("the %dth is held and gone: %v", n, err)
		}
		if err := errors.Join(os.Remove(dir), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	sweeping.Wait()
}

// A process names itself, and cannot by that say what it used.
func TestTheNameOfAProcessIsNoneOfItsNumbers(t *testing.T) {
	was, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	name := func(s string) {
		if err := os.WriteFile("/proc/self/comm", []byte(s), 0); err != nil {
			t.Fatal(err)
		}
	}
	name("x) R 1 1 1 1")
	defer name(strings.TrimSpace(string(was)))
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	if all := spent(os.Getpid()); all > time.Duration(used.Utime.Nano()+used.Stime.Nano())+time.Minute {
		t.Errorf("it used %v, by its name", all)
	}
}
