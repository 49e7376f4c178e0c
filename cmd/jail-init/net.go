//go:build linux

package main

import "golang.org/x/sys/unix"

// loopback brings up the only interface there is and listens on it.
func loopback(port uint32) int {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must("loopback", "", err)
	lo, err := unix.NewIfreq("lo")
	must("loopback", "", err)
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	must("loopback", "", unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo))
	_ = unix.Close(s)
	return listenTCP(port)
}

// listenTCP listens on loopback.
func listenTCP(port uint32) int {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must("listen", "tcp", err)
	must("listen", "tcp", unix.Bind(s, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}))
	must("listen", "tcp", unix.Listen(s, backlog))
	return s
}

// listenUnix makes a listener everybody in the jail may connect to.
func listenUnix(path string) int {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must("listen", "unix", err)
	must("listen", "unix", unix.Bind(s, &unix.SockaddrUnix{Name: path}))
	must("listen", "unix", unix.Listen(s, backlog))
	return s
}

const backlog = 128

// boundNamespace makes user namespaces impossible below this one, and bounds what is charged to whoever made it, on the host too:
// what it takes of inotify, of which a user has 128 instances in all. An outer container may keep /proc/sys read-only; then the filter still
// refuses namespaces. It says whether all is so.
func boundNamespace() bool {
	namespaces := bound("max_user_namespaces", "0")
	instances := bound("max_inotify_instances", "8")
	watches := bound("max_inotify_watches", "2048")
	return namespaces && instances && watches
}

func bound(name, most string) bool {
	f, err := unix.Open("/proc/sys/user/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err == unix.ENOENT // this kernel has nothing of the kind
	}
	defer func() { _ = unix.Close(f) }()
	_, err = unix.Write(f, []byte(most))
	return err == nil
}
