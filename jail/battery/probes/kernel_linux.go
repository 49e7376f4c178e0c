package probes

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel are the parts of it an agent has no use for.
var kernel = []Probe{
	{Name: "kernel_io_uring", Lacks: true, Try: func(*World) error {
		var p [120]byte
		return closing2(value(unix.SYS_IO_URING_SETUP, 1, pointer(&p)))
	}},
	{Name: "kernel_io_uring_enter", Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_IO_URING_ENTER, ^uintptr(0), 0, 0, 0, 0, 0), unix.EBADF)
	}},
	{Name: "kernel_io_uring_register", Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_IO_URING_REGISTER, ^uintptr(0)>>33, 0, 0, 0), unix.EBADF, unix.EINVAL)
	}},
	{Name: "kernel_aio", Lacks: true, Try: func(*World) error { return try(unix.SYS_IO_SETUP, 1, pointer(new(uint64))) }},
	{Name: "kernel_bpf", Control: Root, Lacks: true, Try: func(*World) error {
		attr := [18]uint32{2, 4, 4, 1} // an array
		return closing2(value(unix.SYS_BPF, 0, pointer(&attr), unsafe.Sizeof(attr)))
	}},
	{Name: "kernel_bpf_program", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_BPF, 5, pointer(&[18]uint32{}), 72), unix.EINVAL, unix.EFAULT, unix.E2BIG)
	}},
	{Name: "kernel_perf", Control: Root, Lacks: true, Try: func(*World) error {
		a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK}
		a.Size = uint32(unsafe.Sizeof(a))
		return closing(unix.PerfEventOpen(&a, 0, -1, -1, 0))
	}},
	{Name: "kernel_userfaultfd", Lacks: true, Try: func(*World) error { return closing2(value(unix.SYS_USERFAULTFD, 1)) }},
	{Name: "kernel_userfaultfd_device", Control: Root, Lacks: true, Try: func(*World) error { return opens("/dev/userfaultfd", unix.O_RDWR) }},
	{Name: "kernel_keyring", Lacks: true, Try: func(*World) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_PROCESS_KEYRING, true)
		return err
	}},
	{Name: "kernel_add_key", Lacks: true, Try: func(*World) error {
		_, err := unix.AddKey("user", "probe", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	}},
	{Name: "kernel_request_key", Lacks: true, Try: func(*World) error {
		_, err := unix.RequestKey("user", "probe-none", "", unix.KEY_SPEC_PROCESS_KEYRING)
		return reached(err, unix.ENOKEY, unix.ENOENT)
	}},
	{Name: "kernel_module", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_INIT_MODULE, 0, 0, 0), unix.ENOEXEC, unix.EFAULT, unix.EINVAL)
	}},
	{Name: "kernel_module_file", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_FINIT_MODULE, ^uintptr(0), 0, 0x1000), unix.EBADF, unix.EINVAL)
	}},
	{Name: "kernel_module_remove", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_DELETE_MODULE, pointer(&none[0]), unix.O_NONBLOCK), unix.ENOENT)
	}},
	{Name: "kernel_kexec", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0xffff), unix.EINVAL)
	}},
	{Name: "kernel_kexec_file", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0), ^uintptr(0), 0, 0, 0xffff), unix.EINVAL, unix.EBADF)
	}},
	{Name: "kernel_reboot", Control: Root, Try: func(*World) error { return reached(try(unix.SYS_REBOOT, 0, 0, 0, 0), unix.EINVAL) }},
	{Name: "kernel_swap_on", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_SWAPON, pointer(&none[0]), 0), unix.ENOENT)
	}},
	{Name: "kernel_swap_off", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(try(unix.SYS_SWAPOFF, pointer(&none[0])), unix.ENOENT)
	}},
	{Name: "kernel_accounting", Control: Root, Lacks: true, Try: func(*World) error {
		return reached(unix.Acct("/none"), unix.ENOENT)
	}},
	{Name: "kernel_messages", Control: Root, Try: func(*World) error {
		_, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
		return err
	}},
	{Name: "kernel_set_clock", Control: Root, Try: func(*World) error { // no time that is one
		return reached(unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Nsec: 2e9}), unix.EINVAL)
	}},
	{Name: "kernel_set_time_zone", Control: Root, Try: func(*World) error {
		return reached(try(unix.SYS_SETTIMEOFDAY, 0, pointer(&[2]int32{9999, 0})), unix.EINVAL)
	}},
	{Name: "kernel_adjust_clock", Control: Root, Try: func(*World) error {
		_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: 1})
		return reached(err, unix.EINVAL)
	}},
	{Name: "kernel_adjust_other_clock", Control: Root, Try: func(*World) error {
		_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &unix.Timex{Modes: unix.ADJ_TICK, Tick: 1})
		return reached(err, unix.EINVAL)
	}},
	{Name: "kernel_host_name", Control: Own, Try: func(*World) error { return unix.Sethostname([]byte("probe")) }},
	{Name: "kernel_domain_name", Control: Own, Try: func(*World) error { return unix.Setdomainname([]byte("probe")) }},
	{Name: "kernel_hang_up", Control: Root, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_SETSID}, [4]uintptr{unix.SYS_VHANGUP}) }},
	{Name: "kernel_memory_policy", Lacks: true, Try: func(*World) error { return try(unix.SYS_SET_MEMPOLICY, 0, 0, 0) }},
	{Name: "kernel_memory_bind", Lacks: true, Try: func(*World) error { return reached(try(unix.SYS_MBIND, 0, 0, 0, 0, 0, 0), unix.EFAULT) }},
	{Name: "kernel_migrate", Lacks: true, Try: func(*World) error { return reached(try(unix.SYS_MIGRATE_PAGES, 0, 0, 0, 0), unix.EINVAL) }},
	{Name: "kernel_security_module", Lacks: true, Try: func(*World) error {
		return reached(try(459, 0, 0, pointer(new(uint32)), 0), unix.EINVAL, unix.EOPNOTSUPP)
	}},
	{Name: "kernel_remap_pages", Lacks: true, Try: func(*World) error { return reached(try(unix.SYS_REMAP_FILE_PAGES, 1, 0, 0, 0, 0), unix.EINVAL) }},
	{Name: "kernel_attribute_at", Lacks: true, Try: func(*World) error {
		return reached(try(464, dirHere, pointer(&none[0]), 0, pointer(&none[0]), 0, 0), unix.EINVAL, unix.ENOENT, unix.EFAULT)
	}},
	{Name: "kernel_file_attribute", Lacks: true, Try: func(*World) error {
		return reached(try(468, dirHere, pointer(&none[0]), 0, 0, 0), unix.EINVAL, unix.ENOENT, unix.EFAULT)
	}},
	{Name: "kernel_secure_bits", Control: Own, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0}) }},
	{Name: "kernel_trust_random", Control: Root, Try: func(*World) error {
		f, err := unix.Open("/dev/urandom", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			f, err = unix.Open("/dev/urandom", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return cannot{err}
		}
		const addToCount = 0x40045201 // RNDADDTOENTCNT, of nothing
		return try(unix.SYS_IOCTL, uintptr(f), addToCount, pointer(new(int32)))
	}},
}

func closing2(fd uintptr, err error) error { return closing(int(fd), err) }
