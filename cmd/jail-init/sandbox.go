//go:build linux

package main

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// sandboxed is the first process where another kernel runs the jail. It can be sent no descriptor and can send none
// out: it comes to the gateway's socket before anything else runs that could, and what connects to its TCP listener it
// takes to the door. The agent is another user, who can do nothing to it.
func sandboxed() {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	must("control", "", err)
	if err = unix.Connect(s, &unix.SockaddrUnix{Name: wire.SandboxControl}); err == nil && s != control {
		err = unix.Dup2(s, control)
		_ = unix.Close(s)
	}
	if err != nil {
		unix.Exit(exitRefused) // there is nobody to tell
	}
	unix.CloseOnExec(control)
	unix.Umask(0o022)
	spec, _ := receive()
	tcp := listenTCP(spec.Port)
	setLimits(spec.Limits)
	send(&wire.Report{Kind: wire.Ready})
	awaitGo()
	pid, err := syscall.ForkExec(spec.Exec, spec.Args, &syscall.ProcAttr{
		Dir: spec.Dir, Env: spec.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: spec.UID, Gid: spec.GID}},
	})
	must("exec", spec.Exec, err)
	send(&wire.Report{Kind: wire.Started})
	go bridge(tcp)
	reap(pid, spec.DeadlineMs)
}

// bridge takes each connection to the door, so many at a time; more wait.
func bridge(tcp int) {
	free := make(chan struct{}, maxBridged)
	for {
		free <- struct{}{}
		in, _, err := unix.Accept4(tcp, unix.SOCK_CLOEXEC)
		if err != nil {
			<-free
			continue
		}
		go func() {
			carry(in)
			<-free
		}()
	}
}

const maxBridged = 64

// carry passes on both ways until both ends have said all.
func carry(in int) {
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(out, &unix.SockaddrUnix{Name: wire.SandboxTCP})
	}
	if err == nil {
		back := make(chan struct{})
		go func() {
			pour(in, out)
			close(back)
		}()
		pour(out, in)
		<-back
	}
	_ = unix.Close(in)
	_ = unix.Close(out)
}

func pour(to, from int) {
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Read(from, buf)
		if err == unix.EINTR {
			continue
		}
		for rest := buf[:max(n, 0)]; err == nil && len(rest) > 0; {
			var w int
			if w, err = unix.SendmsgN(to, rest, nil, nil, unix.MSG_NOSIGNAL); err == unix.EINTR {
				err = nil
			}
			rest = rest[max(w, 0):]
		}
		if err != nil || n <= 0 {
			break
		}
	}
	_ = unix.Shutdown(to, unix.SHUT_WR)
	_ = unix.Shutdown(from, unix.SHUT_RD)
}
