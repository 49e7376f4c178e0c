package jail

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
		g := &group{c, nameOf("y"), true}
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
	c, _ := fake(t, "x", "memory.peak", "cpu.stat", "memory.events")
	g := &group{c, nameOf("x"), false}
	for file, text := range map[string]string{"memory.peak": "4096\n", "cpu.stat": "usage_usec 2000\nuser_usec 1\n", "memory.events": "oom 7\noom_kill 3\n"} {
		if err := os.WriteFile(filepath.Join(g.dirs()[0], file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var u Usage
	g.usage(&u)
	if u.MemoryPeak != 4096 || u.CPU.Microseconds() != 2000 || u.OOMKills != 3 {
		t.Errorf("it used %+v", u)
	}
}

// Groups of processes that are gone are taken away, and no others.
func TestSweep(t *testing.T) {
	c, _ := fake(t, "x")
	parent := c.parents["memory"]
	const gone = "4194305" // more than any process can have
	for name, stays := range map[string]bool{
		"jail-" + gone + "-run-1": false, nameOf("mine"): true, "jail-": true, "jail-x-y": true, "other-" + gone: true, "jail-1-run": true,
	} {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c.sweep()
		if _, err := os.Stat(dir); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
