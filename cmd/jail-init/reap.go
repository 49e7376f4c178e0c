//go:build linux

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// ignoreSignals has every signal ignored that would end this process, but for those nobody can ignore. The kernel keeps from the
// first process of a namespace what it has no handler for and comes from inside, so the agent can neither end nor stop it; but what
// comes while its first thread has signals blocked, as Go has them whenever it forks or makes a thread, it gives another thread, and
// that is the end of all. What is ignored ends nobody. The agent finds every signal at its default again: Go sets back what it handles
// itself before it executes another program. It handles neither 32 nor 34, which threading libraries set themselves and some call
// SIGRTMIN: those an agent finds ignored, as under nohup.
func ignoreSignals() {
	const last = 64
	for n := uintptr(1); n <= last; n++ {
		switch unix.Signal(n) {
		case unix.SIGKILL, unix.SIGSTOP: // come from outside alone
		case unix.SIGURG: // by which the runtime preempts
		case unix.SIGCHLD, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU: // end nobody; who ignores the first hears of no child
			handle(n, 0)
		default:
			handle(n, 1)
		}
	}
}

// handle sets what is done at a signal: 0 what is by default, 1 nothing.
func handle(n, what uintptr) {
	action := [32]byte{byte(what)} // struct sigaction: no flags, an empty mask
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno != 0 {
		must("signals", "", errno)
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
