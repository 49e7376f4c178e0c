package jail

import (
	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// Accesses of Landlock, as rules of a jail need them.
const (
	execute     uint64 = unix.LANDLOCK_ACCESS_FS_EXECUTE
	fileRead    uint64 = unix.LANDLOCK_ACCESS_FS_READ_FILE
	fileWrite   uint64 = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	dirRead     uint64 = unix.LANDLOCK_ACCESS_FS_READ_DIR
	ioctlDev    uint64 = unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	resolveUnix uint64 = 1 << 16 // connecting to a socket by its path, of another than the jail itself

	reads = fileRead | dirRead
	all   = reads | fileWrite |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER
	ofFiles = execute | fileRead | fileWrite | ioctlDev | resolveUnix
)

// landlockABI asks the kernel; 0 means it has no Landlock.
func landlockABI() int {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// handled are all file accesses that an ABI can refuse.
func handled(abi int) uint64 {
	switch {
	case abi < 1:
		return 0
	case abi < 2:
		return 1<<13 - 1
	case abi < 3:
		return 1<<14 - 1
	case abi < 5:
		return 1<<15 - 1
	case abi < 9:
		return 1<<16 - 1
	}
	return 1<<17 - 1
}

// rulesFor is the ruleset of a profile before it allows anything.
func rulesFor(abi int, p Profile) wire.Landlock {
	l := wire.Landlock{FS: handled(abi)}
	if abi >= 4 && !p.Servers {
		l.Net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		l.Connect = []uint64{gatewayTCP}
	}
	if abi >= 6 {
		l.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return l
}

// allow adds a rule, of what this ABI can refuse.
func (p *plan) allow(path string, access uint64) {
	if access &= p.Landlock.FS; access != 0 {
		p.Landlock.Paths = append(p.Landlock.Paths, wire.PathRule{Path: path, Access: access})
	}
}
