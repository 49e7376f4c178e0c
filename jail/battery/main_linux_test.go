package battery

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/jailtest"
)

// programs is a directory everybody may read: the probe, copies that would raise whoever runs them, a
// caller, and which probes have a control.
var programs = os.Getenv("WRIT_TEST_BATTERY")

const (
	ordinary = 64000 // a user nobody is
	helper   = "WRIT_TEST_BATTERY_HELPER"
)

func program(name string) string { return filepath.Join(programs, name) }

func TestMain(m *testing.M) {
	if os.Getenv(helper) != "" {
		os.Exit(help(os.Getenv(helper)))
	}
	os.Exit(func() int {
		if programs == "" && os.Getenv("WRIT_TEST_JAIL") != "off" {
			dir, err := os.MkdirTemp("/tmp", "writ-battery-")
			if err == nil {
				programs = dir
				defer func() { _ = os.RemoveAll(dir) }()
				err = build(dir)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"probe", "caller"} {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, name), "./"+name)
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	// As root these raise whoever runs them; else they are copies.
	for _, name := range []string{"suid", "filecap", "loose"} {
		if err := jailtest.Copy(filepath.Join(dir, "probe"), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "loose"), 0o777); err != nil || os.Geteuid() != 0 {
		return err
	}
	capability := []byte{1, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // SYS_ADMIN, effective
	if err := unix.Setxattr(filepath.Join(dir, "filecap"), "security.capability", capability, 0); err != nil {
		return err
	}
	return os.Chmod(filepath.Join(dir, "suid"), 0o755|os.ModeSetuid)
}

// TestAsAnOrdinaryUser runs all of this again as one.
func TestAsAnOrdinaryUser(t *testing.T) {
	jailtest.Need(t)
	if os.Geteuid() != 0 {
		return // as which everything is being run
	}
	t.Parallel()
	controls(t) // once for both
	dir, err := os.MkdirTemp(programs, "u")
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "h")
	binary := filepath.Join(dir, "test")
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.Mkdir(home, 0o700), os.Chmod(home, 0o700), os.Chown(home, ordinary, ordinary), jailtest.Copy("/proc/self/exe", binary),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(binary, "-test.v", "-test.timeout=4m", "-test.skip=^TestAsAnOrdinaryUser$")
	c.Dir = home
	c.Env = []string{"WRIT_TEST_BATTERY=" + programs, "TMPDIR=" + home, "PATH=/usr/local/bin:/usr/bin:/bin", "HOME="}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := c.CombinedOutput()
	if passed := strings.Count(string(out), "--- PASS: "); err != nil || passed < 30 {
		t.Errorf("%v, and %d tests passed:\n%s", err, passed, out)
		return
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "battery:") {
			t.Log("as an ordinary user: ", strings.TrimSpace(line))
		}
	}
}
