package probes

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes are ways at others: of the host, and the first of the jail. Inside, a process of the
// host has no number, and whoever has that number here is of the jail.
var processes = []Probe{
	{Name: "proc_signal_other", Other: true, Control: Root, Try: func(w *World) error { return victim(w, unix.Kill(w.Victim, 0)) }},
	{Name: "proc_signal_gateway", Other: true, Control: Root, Try: func(w *World) error { return unix.Kill(w.Gateway, 0) }},
	{Name: "proc_signal_thread", Other: true, Control: Root, Try: func(w *World) error { return unix.Tgkill(w.Victim, w.Victim, 0) }},
	{Name: "proc_queue_signal", Other: true, Control: Root, Try: func(w *World) error {
		info := [128]byte{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff} // SI_QUEUE
		return try(unix.SYS_RT_SIGQUEUEINFO, uintptr(w.Victim), 0, pointer(&info))
	}},
	{Name: "proc_signal_group", Other: true, Control: Root, Try: func(w *World) error { return unix.Kill(-w.Victim, 0) }},
	{Name: "proc_descriptor_of_other", Other: true, Try: func(w *World) error { return closing(unix.PidfdOpen(w.Victim, 0)) }},
	{Name: "proc_signal_descriptor", Other: true, Control: Root, Try: func(w *World) error {
		f, err := unix.PidfdOpen(w.Victim, 0)
		if err != nil {
			return err
		}
		return unix.PidfdSendSignal(f, 0, nil, 0)
	}},
	{Name: "proc_see_other", Other: true, Try: func(w *World) error { return reads(proc(w.Victim, "status")) }},
	{Name: "proc_see_gateway", Other: true, Try: func(w *World) error { return reads(proc(w.Gateway, "cmdline")) }},
	{Name: "proc_environment_of_other", Other: true, Control: Root, Try: func(w *World) error {
		return anyOf(reads(proc(w.Victim, "environ")), reads(proc(w.Gateway, "environ")))
	}},
	{Name: "proc_memory_of_other", Other: true, Control: Root, Try: func(w *World) error { return opens(proc(w.Victim, "mem"), unix.O_RDONLY) }},
	{Name: "proc_descriptors_of_other", Other: true, Control: Root, Try: func(w *World) error { return anyOf(reads(proc(w.Gateway, "fd")), reads(proc(w.Victim, "fd"))) }},
	{Name: "proc_renice_other", Other: true, Control: Root, Try: func(w *World) error { return unix.Setpriority(unix.PRIO_PROCESS, w.Victim, 0) }},
	{Name: "proc_renice_all_of_user", Other: true, Control: Root, Try: func(w *World) error {
		if _, err := unix.Getpriority(unix.PRIO_PROCESS, w.Victim); err != nil {
			return err
		}
		return unix.Setpriority(unix.PRIO_PROCESS, w.Victim, 0)
	}},
	{Name: "proc_pin_other", Other: true, Control: Root, Try: func(w *World) error {
		var all unix.CPUSet
		if err := unix.SchedGetaffinity(w.Victim, &all); err != nil {
			return err
		}
		return unix.SchedSetaffinity(w.Victim, &all)
	}},
	{Name: "proc_limit_other", Other: true, Control: Root, Try: func(w *World) error {
		var l unix.Rlimit
		if err := unix.Prlimit(w.Victim, unix.RLIMIT_STACK, nil, &l); err != nil {
			return err
		}
		return unix.Prlimit(w.Victim, unix.RLIMIT_STACK, &l, nil)
	}},
	{Name: "proc_io_priority_other", Other: true, Control: Root, Try: func(w *World) error { return try(unix.SYS_IOPRIO_SET, 1, uintptr(w.Victim), 2<<13|4) }},
	{Name: "proc_own_signals_of_other", Other: true, Control: Root, Try: func(w *World) error { // who is told of input
		r, _, err := pipe()
		if err != nil {
			return cannot{err}
		}
		_, err = unix.FcntlInt(uintptr(r), unix.F_SETOWN, w.Victim)
		return err
	}},
	{Name: "proc_schedule_other", Other: true, Control: Root, Try: func(w *World) error {
		a, err := unix.SchedGetAttr(w.Victim, 0)
		if err != nil {
			return err
		}
		return unix.SchedSetAttr(w.Victim, a, 0)
	}},
	{Name: "proc_move_memory_of_other", Other: true, Control: Root, Lacks: true, Try: func(w *World) error {
		return try(unix.SYS_MOVE_PAGES, uintptr(w.Victim), 0, 0, 0, 0, 0)
	}},

	{Name: "proc_see_init", Try: func(*World) error { return reads("/proc/1/status") }},
	{Name: "proc_list_init", Try: func(*World) error {
		all, err := os.ReadDir("/proc")
		for _, e := range all {
			if e.Name() == "1" {
				return nil
			}
		}
		if err == nil {
			err = unix.ENOENT
		}
		return err
	}},
	{Name: "proc_init_environment", Control: Own, Try: func(*World) error { return reads("/proc/1/environ") }},
	{Name: "proc_init_memory", Control: Own, Try: func(*World) error { return anyOf(opens("/proc/1/mem", unix.O_RDONLY), reads("/proc/1/maps")) }},
	{Name: "proc_init_program", Control: Own, Try: func(*World) error { return opens("/proc/1/exe", unix.O_RDONLY) }},
	{Name: "proc_init_descriptors", Control: Own, Try: func(*World) error { return reads("/proc/1/fd") }},
	{Name: "proc_init_take_descriptor", Control: Own, Try: takeFromInit},
	{Name: "proc_init_trace", Control: Own, Try: func(w *World) error { return traces(1, w) }},
	{Name: "proc_init_namespaces", Control: Own, Try: func(*World) error {
		f, err := unix.PidfdOpen(1, 0)
		if err != nil {
			return err
		}
		const getNet = 0xff04 // PIDFD_GET_NET_NAMESPACE
		return anyOf(try(unix.SYS_IOCTL, uintptr(f), getNet, 0), reads("/proc/1/ns"))
	}},
	{Name: "proc_init_limits", Control: Own, Try: func(*World) error {
		var l unix.Rlimit
		if err := unix.Prlimit(1, unix.RLIMIT_STACK, nil, &l); err != nil {
			return err
		}
		return unix.Prlimit(1, unix.RLIMIT_STACK, &l, nil)
	}},
	{Name: "proc_init_renice", Control: Own, Try: func(*World) error { return renices(unix.PRIO_PROCESS, 1) }},
	{Name: "proc_init_renice_group", Control: Own, Try: func(*World) error { return renices(unix.PRIO_PGRP, 1) }},
	{Name: "proc_init_renice_all_of_user", Control: Own, Try: func(*World) error { return renices(unix.PRIO_USER, os.Getuid()) }},
	{Name: "proc_init_schedule", Control: Own, Try: func(*World) error {
		a, err := unix.SchedGetAttr(1, 0)
		if err != nil {
			return err
		}
		return anyOf(unix.SchedSetAttr(1, a, 0), try(unix.SYS_SCHED_SETSCHEDULER, 1, uintptr(a.Policy), pointer(&[1]int32{})), try(unix.SYS_SCHED_SETPARAM, 1, pointer(&[1]int32{})))
	}},
	{Name: "proc_init_pin", Control: Own, Try: func(*World) error {
		var all unix.CPUSet
		if err := unix.SchedGetaffinity(1, &all); err != nil {
			return err
		}
		return unix.SchedSetaffinity(1, &all)
	}},
	{Name: "proc_init_io_priority", Control: Own, Try: func(*World) error { return try(unix.SYS_IOPRIO_SET, 1, 1, 2<<13|4) }},
	{Name: "proc_init_read_memory", Control: Own, Try: func(*World) error { return readsMemory(1) }},

	{Name: "proc_trace_child", Try: func(w *World) error {
		return withChild(func(pid int) error { return traces(pid, w) })
	}},
	{Name: "proc_trace_me", Try: func(*World) error { return inChild([4]uintptr{unix.SYS_PTRACE, unix.PTRACE_TRACEME}) }},
	{Name: "proc_read_memory", Try: func(*World) error { return withChild(readsMemory) }},
	{Name: "proc_write_memory", Try: func(*World) error {
		return withChild(func(pid int) error {
			var there, here byte
			local := []unix.Iovec{{Base: &here, Len: 1}}
			_, err := unix.ProcessVMWritev(pid, local, []unix.RemoteIovec{{Base: pointer(&there), Len: 1}}, 0)
			return err
		})
	}},
	{Name: "proc_take_descriptor", Try: func(*World) error {
		return withChild(func(pid int) error {
			f, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return cannot{err}
			}
			return closing(unix.PidfdGetfd(f, 0, 0))
		})
	}},
	{Name: "proc_advise_other", Control: Root, Try: func(*World) error {
		return withChild(func(pid int) error {
			f, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return cannot{err}
			}
			return reached(try(unix.SYS_PROCESS_MADVISE, uintptr(f), 0, 0, unix.MADV_COLD, 0, 0), unix.EFAULT, unix.EINVAL)
		})
	}},
	{Name: "proc_compare", Lacks: true, Try: func(*World) error {
		return try(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 0, 0, 0)
	}},
	{Name: "proc_reap_memory", Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_PROCESS_MRELEASE, ^uintptr(0), 0), unix.EBADF)
	}},
	{Name: "proc_tracer_allow", Lacks: true, Try: func(*World) error { return unix.Prctl(unix.PR_SET_PTRACER, 1, 0, 0, 0) }},
	{Name: "proc_memory_layout", Try: func(*World) error {
		return reached(unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, pointer(new(uint32)), 0, 0), unix.EINVAL)
	}},
	{Name: "proc_memory_layout_high_bits", Try: func(*World) error {
		return try(unix.SYS_PRCTL, unix.PR_SET_MM|high, unix.PR_SET_MM_MAP_SIZE, pointer(new(uint32)), 0, 0)
	}},
	{Name: "proc_no_randomness", Try: func(*World) error { return inChild([4]uintptr{unix.SYS_PERSONALITY, 0x0040000}) }},
	{Name: "proc_read_implies_exec", Try: func(*World) error { return inChild([4]uintptr{unix.SYS_PERSONALITY, 0x0400000}) }},
	{Name: "proc_map_zero_page", Control: Root, Try: func(*World) error {
		return try(unix.SYS_MMAP, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, ^uintptr(0), 0)
	}},
}

func victim(w *World, err error) error {
	if w.Victim == 0 {
		return cannot{unix.ESRCH}
	}
	return err
}

func pipe() (r, w int, err error) {
	var p [2]int
	err = unix.Pipe2(p[:], unix.O_CLOEXEC)
	return p[0], p[1], err
}

// takeFromInit would have the socket over which the first process speaks to the gateway.
func takeFromInit(*World) error {
	f, err := unix.PidfdOpen(1, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(f) }()
	return anyOf(closing(unix.PidfdGetfd(f, 3, 0)), closing(unix.PidfdGetfd(f, 0, 0)))
}

// traces seizes a process, and lets it go by ending.
func traces(pid int, _ *World) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := try(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0); err != nil {
		return err
	}
	_ = try(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, uintptr(pid), 0, 0)
	var st syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &st, syscall.WALL, nil)
	return try(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, 0)
}

func readsMemory(pid int) error {
	var there, here byte
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &here, Len: 1}}, []unix.RemoteIovec{{Base: pointer(&there), Len: 1}}, 0)
	if pid == 1 {
		return reached(err, unix.EFAULT)
	}
	return err
}

// withChild has a copy of this process wait while something is done to it.
func withChild(do func(pid int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return cannot{errno}
	}
	if pid == 0 {
		forever := unix.Timespec{Sec: 30}
		for {
			syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(pointer(&forever)), 0, 0)
		}
	}
	defer func() {
		_ = unix.Kill(int(pid), unix.SIGKILL)
		_, _ = syscall.Wait4(int(pid), nil, 0, nil)
	}()
	return do(int(pid))
}

// sleeper starts this program anew, as something that only waits.
func sleeper(self string, marks ...string) (*exec.Cmd, error) {
	c := exec.Command(self, append([]string{"sleep"}, marks...)...)
	return c, c.Start()
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// renices sets the priority to what it is.
func renices(which, who int) error {
	n, err := unix.Getpriority(which, who)
	if err != nil {
		return err
	}
	return unix.Setpriority(which, who, 20-n)
}
