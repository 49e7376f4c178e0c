package seccomp

import "strings"

// allowed are the calls ordinary programs make. None of them gives a handle on another process,
// mounts, loads code into the kernel, or opens a socket.
const allowed = `
read write open close stat fstat lstat poll lseek mprotect munmap brk pread64 pwrite64 readv writev access pipe
select sched_yield mremap msync mincore madvise dup dup2 dup3 pause nanosleep getitimer alarm setitimer getpid sendfile
connect accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown bind listen getsockname getpeername getsockopt
fork vfork execve exit exit_group wait4 waitid kill tkill tgkill uname flock fsync fdatasync sync syncfs sync_file_range
truncate ftruncate getdents getdents64 getcwd chdir fchdir rename renameat renameat2 rmdir link linkat unlink unlinkat
symlink symlinkat readlink readlinkat chown fchown lchown fchownat umask utime utimes futimesat utimensat
gettimeofday time times getrlimit getrusage sysinfo getuid getgid geteuid getegid getppid getpgrp getpgid
setpgid setsid getsid getgroups getresuid getresgid capget gettid getcpu
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend sigaltstack
restart_syscall statfs fstatfs statx newfstatat faccessat faccessat2 getpriority
sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval sched_getaffinity sched_getattr ioprio_get
mlock mlock2 munlock mlockall munlockall arch_prctl readahead fadvise64 fallocate copy_file_range
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list set_tid_address membarrier rseq
epoll_create epoll_create1 epoll_wait epoll_ctl epoll_pwait epoll_pwait2 pselect6 ppoll eventfd eventfd2 signalfd signalfd4
timerfd_create timerfd_settime timerfd_gettime timer_create timer_settime timer_gettime timer_getoverrun timer_delete
clock_gettime clock_getres clock_nanosleep inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
pipe2 preadv pwritev preadv2 pwritev2 close_range getrandom pidfd_open pidfd_send_signal
shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl
mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
pkey_mprotect pkey_alloc pkey_free mseal cachestat map_shadow_stack
landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp`

// refused are calls a program may try and must be told no, rather than that there is no such call:
// it would take the latter for an old kernel and look for another way, or end.
const refused = `
unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr
ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd bpf perf_event_open userfaultfd
io_uring_setup io_uring_enter io_uring_register keyctl add_key request_key
init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd syslog
clock_settime settimeofday adjtimex clock_adjtime sethostname setdomainname iopl ioperm vhangup
open_by_handle_at name_to_handle_at fanotify_init fanotify_mark lookup_dcookie mknodat
setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages modify_ldt uselib ustat sysfs nfsservctl _sysctl`

// Numbers of Linux that both architectures share.
const (
	afUnix, afInet, afInet6              = 1, 2, 10
	sockStream, sockDgram, sockSeqpacket = 1, 2, 5
	sockFlags                            = 0o2000000 | 0o4000 // CLOEXEC, NONBLOCK
	protoTCP                             = 6

	oCreat, oTmpfile   = 0o100, 0o20000000
	fileType, fifoType = 0o170000, 0o010000

	memfdNoExecSeal             = 8
	mapHuge, memfdHuge, shmHuge = 0x40000, 4, 0o4000
	setLease                    = 1024
	limitCore                   = 4
)

func is(arg int, value uint32) Cond         { return Cond{Arg: arg, Mask: ^uint32(0), Value: value} }
func bits(arg int, mask, value uint32) Cond { return Cond{Arg: arg, Mask: mask, Value: value} }

// policy is the whole list, by name.
func policy(o Options) map[string]Rule {
	out := map[string]Rule{}
	all := func(names string, a Action) {
		for _, name := range strings.Fields(names) {
			out[name] = Rule{Else: a}
		}
	}
	all(allowed, Allow)
	all(refused, Errno(eperm))

	out["clone"] = deny(Errno(eperm), newNamespaces(0)...)
	all("clone3 openat2", Errno(enosys)) // what they do is behind a pointer, where no filter can look; all fall back on the older call
	out["socket"] = Rule{Cases: sockets(o), Else: Errno(eafnosupport)}
	out["socketpair"] = Rule{Cases: []Case{{[]Cond{is(0, afUnix)}, Allow}}, Else: Errno(eafnosupport)}
	// Filters that are compiled into the kernel, and protocols it would load a module for.
	out["setsockopt"] = deny(Errno(eperm),
		[]Cond{is(1, 1), is(2, 26)}, []Cond{is(1, 1), is(2, 50)}, []Cond{is(1, 1), is(2, 51)}, []Cond{is(1, 1), is(2, 52)}, // SO_ATTACH_…
		[]Cond{is(1, protoTCP), is(2, 31)}) // TCP_ULP
	out["ioctl"] = deny(Errno(eperm),
		[]Cond{is(1, 0x5412)}, // TIOCSTI types into a terminal
		[]Cond{is(1, 0x541c)}, // TIOCLINUX pastes into one
		[]Cond{is(1, 0x540e)}, // TIOCSCTTY
		[]Cond{is(1, 0x541d)}, // TIOCCONS
		[]Cond{is(1, 0x5423)}) // TIOCSETD
	out["fcntl"] = deny(Errno(eperm), []Cond{is(1, setLease)}) // whoever opens the file waits, on the host too
	out["prctl"] = deny(Errno(eperm),
		[]Cond{is(0, 35)},         // PR_SET_MM
		[]Cond{is(0, 0x59616d61)}, // PR_SET_PTRACER
		[]Cond{is(0, 28)})         // PR_SET_SECUREBITS
	out["personality"] = Rule{Else: Errno(eperm)}
	for _, p := range []uint32{0, 8, 0x20000, 0x20008, 0xffffffff} {
		r := out["personality"]
		r.Cases = append(r.Cases, Case{[]Cond{is(0, p)}, Allow})
		out["personality"] = r
	}

	// The limit of core dumps says that nobody of the host is given one; a lower one, 0, would let the
	// kernel start whoever it is told to for that. Who lowers it is told that it is so.
	out["setrlimit"] = Rule{Cases: []Case{{[]Cond{is(0, limitCore)}, Errno(0)}}, Else: Allow}
	out["prlimit64"] = Rule{Cases: []Case{ // its own limits; the first process is the same user's
		{[]Cond{is(0, 0), is(1, limitCore), is(2, 0), {Arg: 2, Mask: ^uint32(0), High: true}}, Allow}, // only asks
		{[]Cond{is(0, 0), is(1, limitCore)}, Errno(0)},
		{[]Cond{is(0, 0)}, Allow},
	}, Else: Errno(eperm)}

	// How its own thread is scheduled is a program's affair. The first process is the same user's, and one that never runs ends
	// neither at its deadline nor with the gateway. A filter knows no thread's number, so only 0, which is the caller, passes.
	for _, name := range []string{"sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"} {
		out[name] = Rule{Cases: []Case{{[]Cond{is(0, 0)}, Allow}}, Else: Errno(eperm)}
	}
	out["setpriority"] = Rule{Cases: []Case{{[]Cond{is(0, 0), is(1, 0)}, Allow}}, Else: Errno(eperm)} // PRIO_PROCESS
	out["ioprio_set"] = Rule{Cases: []Case{{[]Cond{is(0, 1), is(1, 0)}, Allow}}, Else: Errno(eperm)}  // IOPRIO_WHO_PROCESS

	// Huge pages are a store of the host's own, which no limit of memory counts. Without them there are small ones.
	out["mmap"] = deny(Errno(enomem), []Cond{bits(3, mapHuge, mapHuge)})
	out["shmget"] = deny(Errno(enomem), []Cond{bits(2, shmHuge, shmHuge)})

	// A scope outlives the jail: nobody on the host may find a file in it that runs as its owner.
	out["chmod"] = deny(Errno(eperm), setIDs(1)...)
	out["fchmod"] = deny(Errno(eperm), setIDs(1)...)
	out["fchmodat"] = deny(Errno(eperm), setIDs(2)...)
	out["fchmodat2"] = deny(Errno(eperm), setIDs(2)...)
	out["mkdir"] = deny(Errno(eperm), setIDs(1)...)
	out["mkdirat"] = deny(Errno(eperm), setIDs(2)...)
	out["creat"] = deny(Errno(eperm), setIDs(1)...)
	out["open"] = deny(Errno(eperm), created(1, 2)...)
	out["openat"] = deny(Errno(eperm), created(2, 3)...)
	out["mknod"] = fifos(1)
	out["mknodat"] = fifos(2)

	memfd := deny(Errno(enomem), []Cond{bits(1, memfdHuge, memfdHuge)})
	if !o.MemfdExec {
		memfd.Cases = append(memfd.Cases, Case{[]Cond{bits(1, memfdNoExecSeal, memfdNoExecSeal)}, Allow})
		memfd.Else = Errno(eperm)
	}
	out["memfd_create"] = memfd
	if o.Execveat {
		all("execveat", Allow)
	} else {
		all("execveat", Errno(eperm))
	}
	if o.Splice {
		all("splice tee vmsplice", Allow)
	} else {
		all("splice tee vmsplice", Errno(einval)) // as of files that cannot be spliced, for which callers copy
	}
	return out
}

// deny allows a call but for some arguments.
func deny(a Action, when ...[]Cond) Rule {
	r := Rule{Else: Allow}
	for _, c := range when {
		r.Cases = append(r.Cases, Case{c, a})
	}
	return r
}

// newNamespaces is a condition for each flag of clone that makes a namespace. The byte of the
// signal is not looked at: CLONE_NEWTIME is in it, and clone itself takes no such flag.
func newNamespaces(arg int) (out [][]Cond) {
	for _, flag := range []uint32{0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000} {
		out = append(out, []Cond{bits(arg, flag, flag)})
	}
	return out
}

// sockets are those one may open: streams to the gateway and between processes of the jail. No
// datagrams of the internet, no netlink, nothing a kernel module would be loaded for.
func sockets(o Options) (out []Case) {
	types := []uint32{sockStream}
	if o.Datagrams {
		types = append(types, sockDgram, sockSeqpacket)
	}
	for _, t := range types {
		out = append(out, Case{[]Cond{is(0, afUnix), bits(1, ^uint32(sockFlags), t)}, Allow})
	}
	for _, family := range []uint32{afInet, afInet6} {
		for _, proto := range []uint32{0, protoTCP} {
			out = append(out, Case{[]Cond{is(0, family), bits(1, ^uint32(sockFlags), sockStream), is(2, proto)}, Allow})
		}
	}
	return out
}

// setIDs are conditions for a mode with either of the bits.
func setIDs(arg int) [][]Cond {
	return [][]Cond{{bits(arg, 0o4000, 0o4000)}, {bits(arg, 0o2000, 0o2000)}}
}

// created are those for an open that makes a file; without a flag for that there is no mode, and
// the argument is what happened to be there.
func created(flags, mode int) (out [][]Cond) {
	for _, f := range []uint32{oCreat, oTmpfile} {
		for _, m := range setIDs(mode) {
			out = append(out, append([]Cond{bits(flags, f, f)}, m...))
		}
	}
	return out
}

// fifos lets a call make named pipes and plain files without such bits, and no device.
func fifos(mode int) Rule {
	r := deny(Errno(eperm), setIDs(mode)...)
	r.Else = Errno(eperm)
	for _, t := range []uint32{0, 0o100000, fifoType} {
		r.Cases = append(r.Cases, Case{[]Cond{bits(mode, fileType, t)}, Allow})
	}
	return r
}
