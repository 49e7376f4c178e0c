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

// forbidUserns makes user namespaces impossible below this one. An outer container may keep /proc/sys
// read-only; the filter refuses them in any case.
func forbidUserns() bool {
	f, err := unix.Open("/proc/sys/user/max_user_namespaces", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(f) }()
	_, err = unix.Write(f, []byte("0"))
	return err == nil
}
