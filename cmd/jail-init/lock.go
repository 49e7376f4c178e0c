//go:build linux

package main

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// setLimits lowers each limit, and its ceiling with it.
func setLimits(limits []wire.Limit) {
	for _, l := range limits {
		var now unix.Rlimit
		must("limit", "", unix.Prlimit(0, int(l.Resource), nil, &now))
		v := min(l.Value, now.Max)
		must("limit", "", unix.Prlimit(0, int(l.Resource), &unix.Rlimit{Cur: v, Max: v}, nil))
	}
}

// NOROOT, NO_SETUID_FIXUP, KEEP_CAPS and NO_CAP_AMBIENT_RAISE as they must be, and locked.
const secureBits = 0xef

// giveUp drops every right for good, on every thread; the bounding set is the calling thread's, which starts the agent: it
// says what executing a program may give, no other thread ever executes one, and the filter gives them no_new_privs too.
func giveUp() {
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL && c > unix.CAP_AUDIT_READ { // one past the last this kernel knows
			break
		}
		must("capabilities", "bounding", err)
	}
	allThreads("securebits", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, secureBits, 0)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	allThreads("capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0) // ambient ones too
	must("no_new_privs", "", unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	must("dumpable", "", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

func allThreads(step string, trap, a, b, c uintptr) {
	if _, _, errno := syscall.AllThreadsSyscall6(trap, a, b, c, 0, 0, 0); errno != 0 {
		must(step, "", errno)
	}
}

// landlock is the second wall: the same that the mounts say, in case one of them is wrong. It
// is the calling thread's, and so the agent's.
func landlock(l wire.Landlock) {
	if l.FS == 0 {
		return
	}
	attr := unix.LandlockRulesetAttr{Access_fs: l.FS, Access_net: l.Net, Scoped: l.Scoped}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		must("landlock", "", errno)
	}
	for _, p := range l.Paths {
		f, err := unix.Open(p.Path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		must("landlock", p.Path, err)
		rule := unix.LandlockPathBeneathAttr{Allowed_access: p.Access, Parent_fd: int32(f)}
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			must("landlock", p.Path, errno)
		}
		_ = unix.Close(f)
	}
	for _, port := range l.Connect {
		rule := [2]uint64{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, port}
		const netPort = 2 // LANDLOCK_RULE_NET_PORT
		if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, netPort, uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 {
			must("landlock", "connect", errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		must("landlock", "restrict", errno)
	}
	_ = unix.Close(int(set))
}

// filter confines every thread of this process and all that come of it.
func filter(program string) {
	if len(program) == 0 || len(program)%8 != 0 {
		must("seccomp", "", unix.EINVAL)
	}
	prog := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.StringData(program)))}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		must("seccomp", "", errno)
	}
	if thread != 0 { // one that could not be confined
		must("seccomp", "threads", unix.ESRCH)
	}
}
