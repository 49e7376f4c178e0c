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

	"github.com/writ-gateway/writ/jail/battery/probes"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// controls are the probes that work outside a jail; only of these can be said that one blocks
// them. An ordinary user started by root uses what root found.
func controls(t *testing.T) map[string]bool {
	t.Helper()
	found := findControls()
	if found.failed != "" {
		t.Fatal(found.failed)
	}
	return found.names
}

type found struct {
	names  map[string]bool
	why    map[string]string // of those that did not work
	failed string
}

// The controls are of the package, so that whichever test comes first finds them.
var (
	findControls = sync.OnceValue(func() found {
		if b, err := os.ReadFile(program("controls.json")); err == nil {
			var names map[string]bool
			if json.Unmarshal(b, &names) == nil {
				return found{names: names}
			}
		}
		return <-searched
	})
	searched = make(chan found, 1)
)

func TestControls(t *testing.T) {
	jailtest.Need(t)
	if os.Getenv("WRIT_TEST_BATTERY") != "" {
		names := controls(t)
		t.Logf("battery: %d of %d probes have a control", len(names), len(probes.All))
		return
	}
	out := found{names: map[string]bool{}, why: map[string]string{}}
	defer func() { searched <- out }()
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, kind := range []probes.Control{probes.Plain, probes.Own, probes.Root} {
		if kind == probes.Root && os.Geteuid() != 0 {
			for _, p := range probes.All {
				if p.Control == kind {
					out.why[p.Name] = "needs root"
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
	if out.failed != "" {
		t.Fatal(out.failed)
	}
	if b, err := json.Marshal(out.names); err == nil {
		_ = os.WriteFile(program("controls.json"), b, 0o644)
	}
	// What has none is what this kernel lacks, or what only root can do where nobody is.
	var without []string
	for _, p := range probes.All {
		why, lacks := out.why[p.Name]
		switch {
		case out.names[p.Name]:
			continue
		case !lacks:
			t.Errorf("%s: its control said nothing", p.Name)
		case !p.Lacks && why != "needs root":
			t.Errorf("%s: does not work outside a jail either: %s", p.Name, why)
		}
		without = append(without, p.Name+" ("+why+")")
	}
	slices.Sort(without)
	t.Logf("battery: %d of %d probes have a control; %d have none: %s", len(out.names), len(probes.All), len(without), strings.Join(without, ", "))
	if len(out.names) < 120 {
		t.Errorf("only %d probes have a control", len(out.names))
	}
	if root := os.Geteuid() == 0; root && len(without) > maxWithout {
		t.Errorf("%d probes have no control, and %d may be without", len(without), maxWithout)
	}
}

// maxWithout is how much of what is attacked a kernel may be built without.
const maxWithout = 45

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
