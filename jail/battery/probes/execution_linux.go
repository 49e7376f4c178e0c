package probes

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execution is running code that was not granted as a program.
var execution = []Probe{
	{Name: "exec_scope", Try: func(w *World) error { return runsFrom(w, w.Scope) }},
	{Name: "exec_tmp", Try: func(w *World) error { return runsFrom(w, "/tmp") }},
	{Name: "exec_shm", Try: func(w *World) error { return runsFrom(w, "/dev/shm") }},
	{Name: "exec_read_only_scope", Try: func(w *World) error { return runs(w.ReadScope+"/program", "ran") }},
	{Name: "exec_shell", Try: func(*World) error {
		return anyOf(runs("/bin/sh", "-c", "exit "+strconv.Itoa(code)), runs("/bin/bash", "-c", "exit "+strconv.Itoa(code)))
	}},
	{Name: "exec_script_in_scope", Try: func(w *World) error {
		at := w.Scope + "/script"
		if err := os.WriteFile(at, []byte("#!/bin/sh\nexit "+strconv.Itoa(code)+"\n"), 0o755); err != nil {
			return cannot{err}
		}
		return runs(at)
	}},
	{Name: "exec_python", Try: func(*World) error { return runs("/usr/bin/python3", "-c", "raise SystemExit("+strconv.Itoa(code)+")") }},
	{Name: "exec_loader_alone", Try: func(*World) error {
		loader := loaderPath()
		if err := opens(loader, unix.O_RDONLY); err != nil {
			return err
		}
		out, err := exec.Command(loader, "--version").Output()
		if err == nil && len(out) == 0 {
			return held("it says nothing")
		}
		return err
	}},
	{Name: "exec_loader_scope", Try: loaded},
	{Name: "exec_map_file", Try: func(w *World) error { return mapsFile(w.Scope) }},
	{Name: "exec_map_tmp", Try: func(*World) error { return mapsFile("/tmp") }},
	{Name: "exec_map_then_protect", Try: protects},
	{Name: "exec_memory_file", Try: func(w *World) error { return memory(w, 0) }},
	{Name: "exec_memory_file_asked", Lacks: true, Try: func(w *World) error { return memory(w, unix.MFD_EXEC) }},
	{Name: "exec_memory_file_high_bits", Lacks: true, Try: func(w *World) error { return memory(w, 8<<32) }},
	{Name: "exec_descriptor", Try: func(w *World) error {
		f, err := unix.Open(w.Agent, unix.O_RDONLY, 0)
		if err != nil {
			return cannot{err}
		}
		return descriptor(f, "")
	}},
	{Name: "exec_secret_memory", Lacks: true, Try: func(*World) error { return reached(try(unix.SYS_MEMFD_SECRET, ^uintptr(0)), unix.EINVAL) }},
	{Name: "exec_splice", Try: func(*World) error {
		return reached(try(unix.SYS_SPLICE, ^uintptr(0), 0, ^uintptr(0), 0, 1, 0), unix.EBADF)
	}},
	{Name: "exec_tee", Try: func(*World) error { return reached(try(unix.SYS_TEE, ^uintptr(0), ^uintptr(0), 1, 0), unix.EBADF) }},
	{Name: "exec_vmsplice", Try: func(*World) error { return reached(try(unix.SYS_VMSPLICE, ^uintptr(0), 0, 0, 0), unix.EBADF) }},
}

func runsFrom(w *World, dir string) error {
	at, err := planted(w, dir)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(at) }()
	return runs(at, "ran")
}

func loaderPath() string {
	if runtime.GOARCH == "arm64" {
		return "/lib/ld-linux-aarch64.so.1"
	}
	return "/lib64/ld-linux-x86-64.so.2"
}

// loaded has the loader run what cannot be executed.
func loaded(w *World) error {
	b, err := os.ReadFile("/usr/bin/env") // linked with libraries, and of no harm
	if err != nil {
		b, err = os.ReadFile("/tools/env")
	}
	if err != nil {
		return err
	}
	at := w.Scope + "/loaded"
	if err := os.WriteFile(at, b, 0o755); err != nil {
		return cannot{err}
	}
	out, err := exec.Command(loaderPath(), at, "--version").CombinedOutput()
	if err != nil {
		return errors.Join(err, held("%s", strings.ReplaceAll(string(out), "\n", " ")))
	}
	return nil
}

func mapsFile(dir string) error {
	f, err := os.CreateTemp(dir, "map")
	if err != nil {
		return cannot{err}
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return cannot{err}
	}
	_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	return err
}

// protects maps a file to read and asks for more later.
func protects(w *World) error {
	f, err := os.CreateTemp(w.Scope, "map")
	if err != nil {
		return cannot{err}
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return cannot{err}
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return cannot{err}
	}
	return unix.Mprotect(b, unix.PROT_READ|unix.PROT_EXEC)
}

func memory(w *World, flags int) error {
	f, err := unix.MemfdCreate("m", flags)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(w.Agent)
	if err != nil {
		return cannot{err}
	}
	m := os.NewFile(uintptr(f), "m")
	if _, err := m.Write(b); err != nil {
		return cannot{err}
	}
	ro, err := unix.Open("/proc/self/fd/"+strconv.Itoa(f), unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_ = m.Close() // what is written to cannot be executed
	return runs("/proc/self/fd/"+strconv.Itoa(ro), "ran")
}

// descriptor executes one, in a child.
func descriptor(f int, path string) error {
	name := append([]byte(path), 0)
	args := []*byte{&[]byte("probe\x00")[0], &[]byte("ran\x00")[0], nil}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return cannot{errno}
	}
	if pid == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(f), pointer(&name[0]), pointer(&args[0]), 0, unix.AT_EMPTY_PATH, 0)
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno)|0x80, 0, 0)
		}
	}
	err := ended(int(pid))
	switch e, _ := errors.AsType[syscall.Errno](err); {
	case e == code:
		return nil
	case e&0x80 != 0:
		return e &^ 0x80
	}
	return err
}
