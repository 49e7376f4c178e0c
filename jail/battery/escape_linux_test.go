package battery

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// leftOver is what a jail does not keep an agent from, whatever the profile.
func leftOver(f jail.Features) []string {
	out := []string{
		"leak_mount_paths", // of what it was given, as /proc/self/mountinfo has them
	}
	if f.Landlock < 9 {
		out = append(out, "net_unix_in_scope") // a socket of the host that lies in a scope
	}
	if f.Cgroup == "none" {
		out = append(out, "res_memory_in_all", "res_shared_memory")
	}
	return out
}

// granted is what a profile allows beyond, and what must therefore work.
var granted = map[string][]string{
	"strict": nil,
	"tools": {
		"exec_loader_alone", // of a tool that is linked with libraries
	},
	"workspace": {
		"exec_shell", "exec_python", "exec_loader_alone", "exec_memory_file", "exec_memory_file_asked", "exec_memory_file_high_bits",
		"exec_descriptor", "exec_splice", "exec_tee", "exec_vmsplice",
		"net_unix_datagram", "net_unix_seqpacket", "net_listen", "net_listen_any", "net_listen_ipv6",
	},
}

// TestNothingEscapes runs every probe in every profile.
func TestNothingEscapes(t *testing.T) {
	jailtest.Need(t)
	if canGroup() && !jailtest.HasCgroup() {
		t.Error("a control group can be made here, and no jail has one")
	}
	t.Setenv(gatewaySecret, "1")
	// A descriptor that is passed on to whatever is executed.
	leak, err := leaky()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leak.Close() }()
	works := controls(t)
	var all sync.WaitGroup // not t.Parallel, for the environment
	for _, p := range jail.Profiles() {
		w := newWorld(t)
		all.Go(func() {
			results := everyProbe(t, jailer, attack(t, p, w), probes.All)
			judge(t, p, works, results)
			w.untouched(t)
		})
	}
	all.Wait()
}

// everyProbe runs probes in jails of a kind.
func everyProbe(t *testing.T, by jail.Jailer, spec jail.Spec, tried []probes.Probe) map[string]result {
	p := spec.Profile
	results := map[string]result{}
	var together []string
	for _, probe := range tried {
		if !probe.Alone {
			together = append(together, probe.Name)
		}
	}
	run := func(names ...string) {
		s := spec
		var out text
		s.Stdout, s.Stderr = &out, &out
		s.Args = append([]string{"run"}, names...)
		j := startBy(t, by, s, hello)
		if j == nil {
			return
		}
		if f := j.Features(); f.Backend != "runsc" && (f.Landlock == 0 || f.Seccomp == "") {
			t.Errorf("%s: it says it holds nothing", p.Name)
		}
		e := j.Wait()
		got := parse(out.String())
		for _, name := range names {
			r, ok := got[name]
			if len(names) == 1 && r.verdict != probes.Escaped && e.Usage.OOMKills > 0 { // it was ended, or its jail
				r, ok = result{probes.Blocked, jail.OOM}, true
			}
			if !ok {
				t.Errorf("%s: %s: nothing was said; the jail: %+v\n%s", p.Name, name, e, tail(out.String()))
			}
			results[name] = r
		}
	}
	run(together...)
	for _, probe := range tried {
		if probe.Alone {
			run(probe.Name)
		}
	}
	return results
}

// judge compares what escaped with what should, exactly.
func judge(t *testing.T, p jail.Profile, works map[string]bool, results map[string]result) {
	features, err := jailer.Preflight(t.Context(), jailtest.Profile(t, p))
	if err != nil {
		t.Error(err)
		return
	}
	open := slices.Concat(leftOver(features), granted[p.Name])
	var blocked, escaped, without []string
	for _, probe := range probes.All {
		r, name := results[probe.Name], probe.Name
		expected := slices.Contains(open, name)
		switch {
		case r.verdict == probes.Escaped && !expected:
			t.Errorf("%s: %s ESCAPED", p.Name, name)
		case r.verdict == probes.Escaped:
			escaped = append(escaped, name)
		case expected && (works[name] || !probe.Lacks):
			t.Errorf("%s: %s is expected to work, and is %s: %s", p.Name, name, r.verdict, r.why)
		case !works[name]:
			without = append(without, name)
		case r.verdict == probes.Cannot:
			t.Errorf("%s: %s could not be tried: %s", p.Name, name, r.why)
		case r.verdict == probes.Blocked:
			blocked = append(blocked, name)
		}
	}
	t.Logf("battery: %s, user of the host %d, groups %s: %d blocked, %d open (%s), %d without a control",
		p.Name, features.HostUID, features.Cgroup, len(blocked), len(escaped), strings.Join(escaped, ", "), len(without))
	if path := os.Getenv("WRIT_TEST_BATTERY_TABLE"); path != "" { // for reading
		table(path, p, results, works)
	}
}

func table(path string, p jail.Profile, results map[string]result, works map[string]bool) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for _, probe := range probes.All {
		r := results[probe.Name]
		fmt.Fprintf(f, "%s\t%d\t%s\t%s\t%s\t%v\n", p.Name, os.Geteuid(), probe.Name, r.verdict, r.why, works[probe.Name])
	}
}

// attack is a jail with all a profile can give, full of probes.
func attack(t *testing.T, p jail.Profile, w *world) jail.Spec {
	t.Helper()
	inside := w.World
	inside.Scope, inside.ReadScope, inside.Run, inside.Etc = "/scopes/1", "/scopes/2", "/run", "/etc"
	inside.Agent, inside.Suid, inside.FileCap, inside.Loose = "/agent/probe", "/tools/suid", "/tools/filecap", "/tools/loose"
	seen := *w
	seen.World = inside
	s := jail.Spec{
		Profile: jailtest.Profile(t, p), Agent: jail.Program{Path: program("probe")}, Env: []string{seen.env()},
		Scopes:   []jail.Scope{{Medium: jail.Memory, Size: 32 << 20}, {Path: w.ReadScope, ReadOnly: true}},
		Deadline: 2 * time.Minute,
		Limits: jail.Limits{
			Memory: probes.MaxMemory, Processes: probes.MaxProcesses, Files: probes.MaxFiles, FileSize: probes.MaxFileSize,
			Data: probes.MaxData, Tmp: probes.MaxTmp, Shm: probes.MaxShm,
		},
	}
	if p.WriteDirs {
		s.Scopes[0] = jail.Scope{Path: w.Scope}
	}
	if p.Tools {
		s.Tools = []jail.Program{{Path: program("suid")}, {Path: program("filecap")}, {Path: program("loose")}, {Path: "/usr/bin/env"}}
	}
	return s
}

// start makes a jail and starts it, with a gateway behind its door.
func start(t *testing.T, s jail.Spec) jail.Jail {
	return startWith(t, s, hello)
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "hello") }

func startWith(t *testing.T, s jail.Spec, h http.HandlerFunc) jail.Jail {
	t.Helper()
	return startBy(t, jailer, s, h)
}

func startBy(t *testing.T, by jail.Jailer, s jail.Spec, h http.HandlerFunc) jail.Jail {
	t.Helper()
	if s.ID == "" {
		s.ID = fmt.Sprintf("b%d-%d", os.Getpid(), ids.Add(1))
	}
	j, err := by.Spawn(t.Context(), s)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { j.Kill("test"); j.Wait() })
	serve(j, h)
	if err := j.Go(); err != nil {
		t.Error(err)
		return nil
	}
	return j
}

var (
	jailer = jail.New(jail.Options{FirstUID: 62000, Ready: time.Minute}) // whose jails are made from the beginning, and of what was kept
	ids    atomic.Int64
)

// leaky is a file that is open in whatever this process executes, unless somebody sees to it.
func leaky() (*os.File, error) {
	name := filepath.Join(os.TempDir(), "leaky-"+rand.Text())
	if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(name) }()
	return openedWithoutCloexec(name)
}

type text = jailtest.Text

func tail(s string) string { return s[max(0, len(s)-600):] }
