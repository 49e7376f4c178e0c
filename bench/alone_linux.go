package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// inNamespaces has a program start in namespaces like a jail's, and nothing else of one: what the kernel takes for them.
func inNamespaces(c *exec.Cmd) bool {
	host := os.Geteuid()
	if host == 0 {
		host = 61000
	}
	group := host
	if os.Geteuid() != 0 {
		group = os.Getegid()
	}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: host, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: group, Size: 1}},
	}
	return true
}

// idleAlone is what each of n idle processes takes of a control group of its own, in bytes.
func idleAlone(program string, n int) (all []float64, err error) {
	parent, v1, err := memoryGroup()
	if err != nil {
		return nil, err
	}
	var groups []string
	var running []*exec.Cmd
	defer func() {
		for _, c := range running {
			err = errors.Join(err, c.Process.Kill())
			_ = c.Wait()
		}
		for _, dir := range groups {
			err = errors.Join(err, removeSoon(dir))
		}
	}()
	for i := range n {
		dir := filepath.Join(parent, fmt.Sprintf("bench-alone-%d-%d", os.Getpid(), i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		groups = append(groups, dir)
		c := exec.Command(program)
		if err := startWithin(c, parent, dir, v1); err != nil {
			return nil, err
		}
		running = append(running, c)
	}
	time.Sleep(time.Second)
	usage := "memory.current"
	if v1 {
		usage = "memory.usage_in_bytes"
	}
	for _, dir := range groups {
		text, err := os.ReadFile(filepath.Join(dir, usage))
		if err != nil {
			return nil, err
		}
		b, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// memoryGroup is the directory below which groups that count memory can be made, where control groups are mounted as usual.
func memoryGroup() (dir string, v1 bool, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch f[1] {
		case "memory":
			return filepath.Join("/sys/fs/cgroup/memory", f[2]), true, nil
		case "":
			dir = filepath.Join("/sys/fs/cgroup", f[2])
		}
	}
	if filepath.Base(dir) == "writ-gateway" { // where the jails have moved us, to make theirs beside
		dir = filepath.Dir(dir)
	}
	return dir, false, nil
}

// startWithin starts a process in a group. With v1 it begins where the thread is that makes it.
func startWithin(c *exec.Cmd, parent, dir string, v1 bool) (err error) {
	if !v1 {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		return c.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.WriteFile(filepath.Join(parent, "tasks"), []byte("0"), 0)) }()
	return c.Start()
}

// removeSoon removes a group, which the kernel may keep a moment longer than its last process.
func removeSoon(dir string) (err error) {
	for range 50 {
		if err = os.Remove(dir); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
