package probes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// WorldEnv carries the World of a probe, as JSON.
const WorldEnv = "PROBE_WORLD"

// code is how a program says that it ran.
const code = 42

// Main is the probe program: run NAME… tries each in a process of its own, try NAME one in this.
func Main(args []string) int {
	if len(args) == 0 {
		return 2
	}
	switch args[0] {
	case "run-own": // with every right in new namespaces, where /proc is still another's
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return 2
		}
		_ = unix.Mount("proc", "/proc", "proc", 0, "")
		return runAll(syscall.CLONE_NEWNS, args[1:])
	case "run-root": // each in namespaces that go with it
		return runAll(syscall.CLONE_NEWNS|syscall.CLONE_NEWNET, args[1:])
	case "run":
		return runAll(0, args[1:])
	case "try":
		return tryOne(args[1])
	case "ran": // something executed us
		return code
	case "caps": // a program that would raise whoever executes it
		return raised()
	}
	task, ok := tasks[args[0]]
	if !ok {
		return 2
	}
	if err := task(args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, args[0]+":", err)
		return 1
	}
	return 0
}

func tryOne(name string) int {
	p, ok := Named(name)
	var w World
	if err := json.Unmarshal([]byte(os.Getenv(WorldEnv)), &w); err != nil || !ok {
		return 2
	}
	err := p.Try(&w)
	for again := 0; err == nil && p.Other && again < 3; again++ {
		if own(&w, w.Victim) || own(&w, w.Gateway) {
			err = held("somebody of the jail has that number")
			break
		}
		err = p.Try(&w) // whoever had it may be gone
	}
	fmt.Println(Line(name, err))
	return 0
}

// own says whether a process is known here, and not the one meant.
func own(w *World, pid int) bool {
	b, err := os.ReadFile(proc(pid, "cmdline"))
	return err == nil && !slices.ContainsFunc(w.Marks, func(m string) bool { return strings.Contains(string(b), m) })
}

// patience is how long one probe may take on a busy machine.
const patience = 20 * time.Second

func runAll(anew uintptr, names []string) int {
	self, err := os.Executable()
	if err != nil {
		return 2
	}
	if w := (World{}); json.Unmarshal([]byte(os.Getenv(WorldEnv)), &w) == nil && w.Agent != "" {
		self = w.Agent
	}
	for _, name := range names {
		c := exec.Command(self, "try", name)
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: anew}
		var out strings.Builder
		c.Stdout = &out
		late := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
		err := c.Run()
		late.Stop()
		line := strings.TrimSpace(out.String())
		if _, _, _, ok := Parse(line); !ok {
			line = Line(name, unsaid(err))
		}
		fmt.Println(line)
	}
	return 0
}

// unsaid is what became of a probe that said nothing: a filter that kills is a refusal.
func unsaid(err error) error {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if st := e.Sys().(syscall.WaitStatus); st.Signaled() && st.Signal() == syscall.SIGSYS {
			return held("SIGSYS")
		}
	}
	if err == nil {
		err = errors.New("it said nothing")
	}
	return cannot{err}
}

// runs executes a program and wants it to be ours.
func runs(path string, args ...string) error {
	c := exec.Command(path, args...)
	err := c.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == code {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return syscall.ENOENT
	}
	if err == nil {
		return held("something else ran")
	}
	return err
}

// planted copies this program somewhere and makes it executable.
func planted(w *World, dir string) (string, error) {
	b, err := os.ReadFile(w.Agent)
	if err != nil {
		return "", cannot{err}
	}
	at := dir + "/planted"
	if err := os.WriteFile(at, b, 0o755); err != nil {
		return "", cannot{err}
	}
	return at, nil
}

func fields(name string) map[string]string {
	out := map[string]string{}
	b, _ := os.ReadFile(name)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	return out
}

// raised says by its exit whether this process has more than whoever started it.
func raised() int {
	f := fields("/proc/self/status")
	if os.Geteuid() != os.Getuid() || os.Getegid() != os.Getgid() || strings.Trim(f["CapEff"], "0") != "" {
		return code
	}
	return 0
}

// reads one byte of a file.
func reads(path string) error {
	f, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(f) }()
	var b [1]byte
	n, err := unix.Read(f, b[:])
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EAGAIN) {
		return nil // it was opened, which is what counts
	}
	if err == nil && n == 0 {
		return held("empty")
	}
	return err
}

// holds says whether a file has a text in it.
func holds(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), text) {
		return held("it is not in there")
	}
	return nil
}

// opens a file for something else than reading.
func opens(path string, flags int) error {
	f, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if err == nil {
		_ = unix.Close(f)
	}
	return err
}

// any is nil where one attempt is.
func anyOf(errs ...error) error {
	if slices.Contains(errs, nil) {
		return nil
	}
	return errs[0]
}
