package probes

import (
	"errors"

	"golang.org/x/sys/unix"
)

// machine are calls that only this architecture has, and its older ways to make calls.
var machine = []Probe{
	{Name: "machine_ports", Control: Root, Lacks: true, Try: func(*World) error { return unix.Iopl(3) }},
	{Name: "machine_port", Control: Root, Lacks: true, Try: func(*World) error { return unix.Ioperm(0x80, 1, 1) }},
	{Name: "machine_segments", Lacks: true, Try: func(*World) error { return try(unix.SYS_MODIFY_LDT, 0, pointer(new([16]byte)), 16) }},
	{Name: "machine_file_systems", Lacks: true, Try: func(*World) error { return try(unix.SYS_SYSFS, 3) }},
	{Name: "machine_usage", Lacks: true, Try: func(*World) error {
		var st unix.Stat_t
		if err := unix.Stat("/", &st); err != nil {
			return cannot{err}
		}
		return unix.Ustat(int(st.Dev), new(unix.Ustat_t))
	}},
	{Name: "machine_x32", Lacks: true, Try: func(*World) error {
		r, err := value(0x40000000 | unix.SYS_GETPID)
		if err == nil && int(r) != unix.Getpid() {
			err = held("another answer")
		}
		return err
	}},
	{Name: "machine_32bit", Lacks: true, Try: func(*World) error { return of32(20) }},                                         // getpid
	{Name: "machine_32bit_socket", Lacks: true, Try: func(*World) error { return of32(359, unix.AF_NETLINK, unix.SOCK_RAW) }}, // socket
	{Name: "machine_32bit_unshare", Lacks: true, Try: func(*World) error { return reached(of32(310, 0x7fffffff), unix.EINVAL) }},
}

// int80 makes a call as 32-bit programs do.
func int80(nr, a, b, c uintptr) int32

func of32(nr uintptr, a ...uintptr) error {
	var b [3]uintptr
	copy(b[:], a)
	r := int80(nr, b[0], b[1], b[2])
	switch {
	case r >= 0:
		return nil
	case r > -4096:
		return unix.Errno(-r)
	}
	return errors.New("no answer")
}
