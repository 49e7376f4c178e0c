package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// moduleRoot is the directory of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := output(ctx, ".", "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	if filepath.Base(out) != "go.mod" {
		return "", errors.New("run it inside the module: it builds what it measures")
	}
	return filepath.Dir(out), nil
}

// output runs a command to its end.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", cmd, err, out, errs.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

// scratch is a new directory for one server.
func (b *bench) scratch() (string, error) {
	b.names++
	dir := filepath.Join(b.dir, strconv.Itoa(b.names))
	return dir, os.Mkdir(dir, 0o700)
}

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	log  string // path of what it wrote
	done chan struct{}
	err  error // how it ended, once done is closed
}

// spawn starts a server and waits until ready says so. Its output goes to a
// file in dir.
func spawn(ctx context.Context, dir string, stdin io.Reader, ready func() bool, env []string, name string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, "output.txt"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = stdin, log, log, append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	late := time.After(60 * time.Second)
	for !ready() {
		select {
		case <-poll.C:
			continue
		case <-p.done:
		case <-late:
			p.stop()
		}
		text, _ := os.ReadFile(p.log)
		return nil, fmt.Errorf("%s did not start: %v\n%s", cmd, p.err, text[max(0, len(text)-2000):])
	}
	return p, nil
}

// stop ends the server and waits for it. Stopping twice does nothing.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an ended one takes no signal
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// clockTick is the unit of CPU times in /proc/<pid>/stat: USER_HZ, 100 on
// every Linux Go runs on.
const clockTick = 10 * time.Millisecond

// cpu is the processor time the server has used so far, in all its threads.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields count from behind it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, errors.New("/proc/<pid>/stat is not as proc(5) says")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// memory is the resident memory of the server in bytes: its own (heap, stacks)
// and that of mapped files, which the kernel may drop at any time.
func (p *process) memory() (own, mapped int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for _, l := range strings.Split(string(b), "\n") {
		name, rest, _ := strings.Cut(l, ":")
		if name != "RssAnon" && name != "RssFile" {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "RssAnon" {
			own = kb << 10
		} else {
			mapped = kb << 10
		}
	}
	return own, mapped, nil
}

// freeAddr is a loopback address nobody listens on now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}
