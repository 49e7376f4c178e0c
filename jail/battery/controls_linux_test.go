package battery

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// controls are the probes that work outside a jail; only of these can be said that one blocks
// them. An ordinary user started by root uses what root found.
func controls(t *testing.T) map[string]bool {
	t.Helper()
	search.Do(func() { known = searched(t) })
	if known.failed != "" || len(known.names) == 0 {
		t.Fatal("the controls could not be run: ", known.failed)
	}
	return known.names
}

var (
	search sync.Once
	known  found
)

type found struct {
	names  map[string]bool
	why    map[string]string // of those that did not work; nil where another process looked
	failed string
}

func searched(t *testing.T) found {
	t.Helper()
	if b, err := os.ReadFile(program("controls.json")); err == nil {
		var names map[string]bool
		if json.Unmarshal(b, &names) == nil {
			return found{names: names}
		}
	}
	out := found{names: map[string]bool{}, why: map[string]string{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, kind := range []probes.Control{probes.Plain, probes.Own, probes.Root} {
		if kind == probes.Root && os.Geteuid() != 0 {
			for _, p := range probes.All {
				if p.Control == kind {
					out.why[p.Name] = needsRoot
				}
			}
			continue
		}
		w := newWorld(t)
		all.Go(func() {
			results, err := outside(w, kind)
			mu.Lock()
			defer mu.Unlock()
			if err != "" {
				out.failed += err
			}
			for name, r := range results {
				if r.verdict == probes.Escaped {
					out.names[name] = true
				} else {
					out.why[name] = r.verdict + " " + r.why
				}
			}
		})
	}
	all.Wait()
	if b, err := json.Marshal(out.names); err == nil && out.failed == "" {
		_ = os.WriteFile(program("controls.json"), b, 0o644)
	}
	return out
}

const needsRoot = "needs root"

// TestControls wants every probe to work outside, but for what this kernel lacks, or only root can do where nobody is.
func TestControls(t *testing.T) {
	jailtest.Need(t)
	names := controls(t)
	if known.why == nil {
		t.Logf("battery: %d of %d probes have a control", len(names), len(probes.All))
		return
	}
	var without []string
	root := wholeRoot()
	lacks := 0
	for _, p := range probes.All {
		why, told := known.why[p.Name]
		switch {
		case names[p.Name]:
			continue
		case !told:
			t.Errorf("%s: its control said nothing", p.Name)
		case why == needsRoot && !root:
		case !root && slices.Contains(raisedByRoot, p.Name): // nobody but root makes such a program
		case !root && p.Control != probes.Plain && os.Geteuid() == 0: // a container keeps this root from it
		case !p.Lacks || !absent(p, why):
			t.Errorf("%s: does not work outside a jail either: %s", p.Name, why)
		default:
			lacks++
		}
		without = append(without, p.Name+" ("+why+")")
	}
	slices.Sort(without)
	t.Logf("battery: %d of %d probes have a control; %d have none: %s", len(names), len(probes.All), len(without), strings.Join(without, ", "))
	if len(names) < 120 || lacks > maxLacks {
		t.Errorf("%d probes have a control, and this kernel lacks what %d attack", len(names), lacks)
	}
}

// absent says whether a kernel answers so that was built without what is attacked, or before it was.
func absent(p probes.Probe, why string) bool {
	if strings.HasPrefix(p.Name, "res_raise_") && why == "blocked EPERM" {
		return !has(unix.CAP_SYS_RESOURCE)
	}
	_, errno, _ := strings.Cut(why, " ")
	return slices.Contains([]string{
		"ENOSYS", "ENOENT", "ENODEV", "ENXIO", "EINVAL", "EOPNOTSUPP", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EADDRNOTAVAIL",
	}, errno)
}

// wholeRoot says whether this is root who may do everything, as in no container.
func wholeRoot() bool {
	for c := range uint(unix.CAP_AUDIT_READ) {
		if c != unix.CAP_SYS_RESOURCE && !has(c) {
			return false
		}
	}
	return os.Geteuid() == 0
}

func has(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[c/32].Effective&(1<<(c%32)) != 0
}

var raisedByRoot = []string{"id_set_uid_program", "id_capability_program", "id_set_uid_in_scope"}

// maxLacks is how much of what is attacked a kernel may be built without.
const maxLacks = 45

// outside runs the probes of one kind where no jail is.
func outside(w *world, kind probes.Control) (map[string]result, string) {
	args := []string{"run"}
	for _, p := range probes.All {
		if p.Control == kind {
			args = append(args, p.Name)
		}
	}
	if kind == probes.Own {
		args[0] = "run-own"
	}
	if kind == probes.Root {
		args[0] = "run-root"
	}
	c := exec.Command(program("probe"), args...)
	c.Dir = w.Scope
	c.Env = []string{w.env(), gatewaySecret + "=1", "PATH=/usr/bin:/bin", "HOME=" + w.Scope}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = ordinary, ordinary
	}
	switch kind {
	case probes.Plain:
		if os.Geteuid() == 0 {
			c.SysProcAttr.Credential = &syscall.Credential{Uid: ordinary, Gid: ordinary}
		}
	case probes.Own:
		c.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		c.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	case probes.Root:
		c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	}
	if dir, err := os.Open(w.dir); err == nil { // what is passed on must be found
		defer func() { _ = dir.Close() }()
		c.ExtraFiles = []*os.File{dir}
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	text, err := c.Output()
	if err != nil {
		return nil, "the controls did not run: " + err.Error() + ": " + stderr.String()
	}
	return parse(string(text)), ""
}

type result struct{ verdict, why string }

func parse(text string) map[string]result {
	out := map[string]result{}
	for line := range strings.Lines(text) {
		if name, verdict, why, ok := probes.Parse(line); ok {
			out[name] = result{verdict, why}
		}
	}
	return out
}
