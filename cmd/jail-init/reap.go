//go:build linux

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// defaultSignals takes back every handler of the Go runtime but the one it preempts with. The kernel
// keeps signals from the first process of a namespace that it has no handler for, when they come from
// inside: the agent can neither end it nor stop it. The agent inherits no ignored signal.
func defaultSignals() {
	const last = 64
	var dfl [32]byte // struct sigaction: SIG_DFL, no flags, an empty mask
	for n := uintptr(1); n <= last; n++ {
		switch unix.Signal(n) {
		case unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0); errno != 0 {
			must("signals", "", errno)
		}
	}
}

// reap buries what dies until the agent does, and takes the rest of the jail with it.
func reap(agent int, deadlineMs uint64) {
	go watch(deadlineMs)
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		must("wait", "", err)
		if pid == agent {
			send(&wire.Report{Kind: wire.Exited, Status: uint32(status)})
			unix.Exit(0) // which kills everything else in the namespace
		}
	}
}

// watch ends the jail when the gateway is gone, and when its time is over: with this process ends
// all that is in it.
func watch(deadlineMs uint64) {
	for end := now() + deadlineMs; ; {
		timeout := -1
		if deadlineMs > 0 {
			timeout = int(min(end-min(now(), end), 1<<30))
		}
		fds := []unix.PollFd{{Fd: control, Events: unix.POLLIN}}
		switch n, err := unix.Poll(fds, timeout); {
		case err == unix.EINTR:
		case err != nil || n > 0: // nothing more is ever sent: this is its end
			unix.Exit(exitRefused)
		case now() >= end:
			send(&wire.Report{Kind: wire.Exited, Status: uint32(unix.SIGKILL), Why: wire.ByDeadline})
			unix.Exit(0)
		}
	}
}

// now is in milliseconds, of a clock nobody sets.
func now() uint64 {
	var ts unix.Timespec
	must("clock", "", unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	return uint64(ts.Nano() / 1e6)
}
