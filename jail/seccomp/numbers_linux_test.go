package seccomp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The numbers of this machine are those of its kernel headers.
func TestNumbers(t *testing.T) {
	for name, want := range map[string]uint32{
		"read": unix.SYS_READ, "clone": unix.SYS_CLONE, "clone3": unix.SYS_CLONE3, "socket": unix.SYS_SOCKET, "openat": unix.SYS_OPENAT,
		"ptrace": unix.SYS_PTRACE, "io_uring_setup": unix.SYS_IO_URING_SETUP, "mount_setattr": unix.SYS_MOUNT_SETATTR, "execveat": unix.SYS_EXECVEAT,
		"memfd_create": unix.SYS_MEMFD_CREATE, "bpf": unix.SYS_BPF, "ioctl": unix.SYS_IOCTL, "exit_group": unix.SYS_EXIT_GROUP,
	} {
		if got := arches[runtime.GOARCH].numbers[name]; got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}
