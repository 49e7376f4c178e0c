package jail

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups is where control groups of jails can be made: below the one this process is in.
type cgroups struct {
	version string            // v1 or v2
	parents map[string]string // directory by controller; of v2 all are one
}

// group is the control group of one jail.
type group struct {
	*cgroups
	name string
	cpu  bool       // whether processor time is bounded too
	held []*os.File // its directories, locked: whoever sweeps lets them be
}

// needed are the controllers without which a jail has no bound on memory and processes in all.
var needed = []string{"memory", "pids"}

// findCgroups reads where this process is, as its own mounts show it: in a container the path of
// /proc/self/cgroup may be the host's.
func findCgroups(proc string) (*cgroups, error) {
	mounts, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return nil, err
	}
	paths := map[string]string{} // by controller, "" is v2
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			paths[name] = parts[2]
		}
	}
	v1 := &cgroups{version: "v1", parents: map[string]string{}}
	v2 := &cgroups{version: "v2", parents: map[string]string{}}
	for line := range strings.Lines(string(mounts)) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(kind) < 3 {
			continue
		}
		dirOf := func(controller string) (string, bool) {
			path, ok := paths[controller]
			if !ok {
				return "", false
			}
			if rest, ok := strings.CutPrefix(path, f[3]); ok {
				path = rest
			}
			return filepath.Join(f[4], path), true
		}
		switch kind[0] {
		case "cgroup2":
			dir, ok := dirOf("")
			if !ok {
				continue
			}
			if dir != f[4] && filepath.Base(dir) == leaf { // a gateway before us put us there
				dir = filepath.Dir(dir)
			}
			for _, c := range words(filepath.Join(dir, "cgroup.controllers")) {
				v2.parents[c] = dir
			}
		case "cgroup":
			for c := range strings.SplitSeq(kind[2], ",") {
				if dir, ok := dirOf(c); ok && slices.Contains([]string{"memory", "pids", "cpu"}, c) {
					v1.parents[c] = dir
				}
			}
		}
	}
	for _, c := range []*cgroups{v2, v1} {
		if c.parents["memory"] != "" && c.parents["pids"] != "" {
			return c, nil
		}
	}
	return nil, errors.New("the controllers memory and pids are not mounted")
}

func noCgroup(err error) *Refusal {
	return refuse(FeatureCgroup, err, "no control group with memory and pids can be made below this process's own",
		"run the gateway as root, or as a service with Delegate=yes, or with `systemd-run --user --scope -p Delegate=yes`; in a container mount /sys/fs/cgroup writable; "+
			"or let the policy allow it without (without_cgroup), and the memory of a jail in all is unbounded")
}

// leaf is where the processes go that were in the group in which jails are made.
const leaf = "writ-gateway"

// delegate lets groups below ours have controllers. With v2 that wants no process beside them, so we move ours, and whatever else
// is there: the shell that started us, or make. They stay below the group, and so within its limits.
func (c *cgroups) delegate() error {
	if c.version != "v2" {
		return nil
	}
	dir := c.parents["memory"]
	on := words(filepath.Join(dir, "cgroup.subtree_control"))
	var want []string
	for _, name := range []string{"memory", "pids", "cpu"} {
		if c.parents[name] != "" && !slices.Contains(on, name) {
			want = append(want, "+"+name)
		}
	}
	if len(want) == 0 {
		return nil
	}
	var err error
	for range 10 { // what is moved may make processes meanwhile
		err = write(filepath.Join(dir, "cgroup.subtree_control"), strings.Join(want, " "))
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := vacate(dir); err != nil {
			return err
		}
	}
	return err
}

// vacate moves the processes of a group into its leaf.
func vacate(dir string) error {
	to := filepath.Join(dir, leaf)
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, pid := range words(filepath.Join(dir, "cgroup.procs")) {
		if err := write(filepath.Join(to, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return err
		}
	}
	return nil
}

// words are those of a file, none where it cannot be read.
func words(name string) []string {
	b, _ := os.ReadFile(name)
	return strings.Fields(string(b))
}

// controllers are those that do something here: each of v1 is one more directory to enter.
func (g *group) controllers() []string {
	if g.cpu {
		return append(slices.Clone(needed), "cpu")
	}
	return needed
}

// dirs are all directories of a group, each once.
func (g *group) dirs() []string {
	var out []string
	for _, c := range g.controllers() {
		if parent, ok := g.parents[c]; ok {
			out = append(out, filepath.Join(parent, g.name))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// newGroup makes a group with limits. Nobody is in it yet.
func (c *cgroups) newGroup(id string, l Limits) (*group, error) {
	g := &group{cgroups: c, name: nameOf(id), cpu: l.CPU > 0}
	for _, dir := range g.dirs() {
		f, err := hold(dir)
		if err != nil {
			g.remove()
			return nil, err
		}
		g.held = append(g.held, f)
	}
	if err := g.limit(l); err != nil {
		g.remove()
		return nil, err
	}
	return g, nil
}

// limit bounds the group. It may have been bounded otherwise.
func (g *group) limit(l Limits) error {
	type setting struct {
		controller, file, value string
		optional                bool
	}
	const period = 100000 // µs
	pids := strconv.FormatInt(l.Processes+initThreads, 10)
	memory := strconv.FormatInt(l.Memory, 10)
	quota := strconv.FormatInt(l.CPU*period/100, 10)
	settings := []setting{
		{"memory", "memory.max", memory, false},
		{"memory", "memory.swap.max", "0", true},
		{"memory", "memory.oom.group", "1", true}, // all of the jail, and not whichever process is largest
		{"pids", "pids.max", pids, false},
	}
	if l.CPU > 0 {
		settings = append(settings, setting{"cpu", "cpu.max", quota + " " + strconv.Itoa(period), false})
	}
	if g.version == "v1" {
		settings = []setting{
			{"memory", "memory.memsw.limit_in_bytes", "-1", true}, // which is never below the other one, whatever that was
			{"memory", "memory.limit_in_bytes", memory, false},
			{"memory", "memory.memsw.limit_in_bytes", memory, true},
			{"pids", "pids.max", pids, false},
		}
		if l.CPU > 0 {
			settings = append(settings, setting{"cpu", "cpu.cfs_period_us", strconv.Itoa(period), false}, setting{"cpu", "cpu.cfs_quota_us", quota, false})
		}
	}
	for _, s := range settings {
		parent, ok := g.parents[s.controller]
		if !ok {
			return fmt.Errorf("there is no controller %s", s.controller)
		}
		if err := write(filepath.Join(parent, g.name, s.file), s.value); err != nil && !(s.optional && errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// initThreads are the first process's own, which count.
const initThreads = 16

// open is the group as a descriptor that a process can be started in; nil where there is none.
func (g *group) open() (*os.File, error) {
	if g == nil || g.version != "v2" {
		return nil, nil
	}
	fd, err := unix.Open(g.dirs()[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "group"), nil
}

// tasks are the files by which a thread enters the group before it makes a process, and those by which it goes back. With v2 a process
// begins in a group by a descriptor.
func (g *group) tasks() (enter, leave []string) {
	if g == nil || g.version == "v2" {
		return nil, nil
	}
	for _, c := range g.controllers() {
		enter = append(enter, filepath.Join(g.parents[c], g.name, "tasks"))
		leave = append(leave, filepath.Join(g.parents[c], "tasks"))
	}
	return enter, leave
}

// kill ends all processes of the group. With v1 one that is just being made may be missed; with its first process the jail ends in any case.
func (g *group) kill() {
	switch {
	case g == nil:
	case g.version == "v2":
		_ = write(filepath.Join(g.dirs()[0], "cgroup.kill"), "1")
	default:
		for _, pid := range g.processes() {
			g.killOne(pid)
		}
	}
}

// empty ends what is left in the group, until nothing is, and says whether that is so.
func (g *group) empty() bool {
	for wait := time.Millisecond; wait < 8*time.Second; wait *= 2 {
		if len(g.processes()) == 0 {
			return true
		}
		g.kill()
		time.Sleep(wait)
	}
	return false
}

// killOne ends a process of the group, and no other that has its number by now.
func (g *group) killOne(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	if slices.Contains(g.processes(), pid) {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	_ = unix.Close(fd)
}

// processes are those of the group. With v1 a thread of ours may be in it for a moment.
func (g *group) processes() (out []int) {
	for _, dir := range g.dirs() {
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 0 && pid != os.Getpid() && pid != int(launcherPid.Load()) && !slices.Contains(out, pid) {
				out = append(out, pid)
			}
		}
	}
	return out
}

// remove takes the group away. The kernel may need a moment after the last process.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, f := range g.held {
		_ = removeGroup(f.Name(), time.Second)
		_ = f.Close()
	}
	g.held = nil
}

func removeGroup(dir string, patience time.Duration) error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) || wait > patience {
			return err
		}
		time.Sleep(wait)
	}
}

// usage is what was used in all.
func (g *group) usage(u *Usage) {
	if g == nil {
		return
	}
	if g.version == "v2" {
		u.MemoryPeak = number(g.read("memory", "memory.peak"))
		u.CPU = max(u.CPU, time.Duration(number(field(g.read("memory", "cpu.stat"), "usage_usec")))*time.Microsecond)
		u.OOMKills = number(field(g.read("memory", "memory.events"), "oom_kill"))
		return
	}
	u.MemoryPeak = number(g.read("memory", "memory.max_usage_in_bytes"))
	u.OOMKills = number(field(g.read("memory", "memory.oom_control"), "oom_kill"))
	u.CPU = max(u.CPU, time.Duration(number(g.read("cpu", "cpuacct.usage")))) // where it is mounted with cpu, as usual
}

// now is what is used at the moment, of the first process too.
func (g *group) now(u *Usage) {
	if g == nil {
		return
	}
	file := "memory.usage_in_bytes"
	if g.version == "v2" {
		file = "memory.current"
	}
	u.Memory, u.Processes = number(g.read("memory", file)), int64(len(g.processes()))
	if u.CPU == 0 { // nobody counts for the group
		u.CPU = g.spent()
	}
}

// spent is the CPU time of the processes there are.
func (g *group) spent() (all time.Duration) {
	if g == nil {
		return 0
	}
	for _, pid := range g.processes() {
		all += spent(pid)
	}
	return all
}

// spent is the CPU time of a process, and of those it has waited for.
func spent(pid int) (all time.Duration) {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	name := strings.LastIndex(string(b), ") ") // where its name ends, which is the agent's to choose
	if f := strings.Fields(string(b[name+1:])); name > 0 && len(f) > 14 {
		for _, ticks := range f[11:15] {
			all += time.Duration(number(ticks)) * (time.Second / 100)
		}
	}
	return all
}

func (g *group) read(controller, file string) string {
	parent, ok := g.parents[controller]
	if !ok {
		return ""
	}
	b, _ := os.ReadFile(filepath.Join(parent, g.name, file))
	return strings.TrimSpace(string(b))
}

func number(s string) int64 { n, _ := strconv.ParseInt(s, 10, 64); return n }

// field is the value after a name, of lines of both.
func field(text, name string) string {
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), " "); ok && k == name {
			return v
		}
	}
	return ""
}

func write(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// found finds the groups of this process, once: but where there was no room to look, again the next time.
var found = func() func() (*cgroups, error) {
	var mu sync.Mutex
	var c *cgroups
	var err error
	known := false
	return func() (*cgroups, error) {
		mu.Lock()
		defer mu.Unlock()
		if !known {
			c, err = find()
			known = !full(err)
		}
		return c, err
	}
}()

func find() (*cgroups, error) {
	c, err := findCgroups("/proc/self")
	if err != nil {
		return nil, err
	}
	c.sweep()
	return c, c.delegate()
}
