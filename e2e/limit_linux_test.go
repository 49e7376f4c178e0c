package e2e

import "golang.org/x/sys/unix"

// limitFiles keeps the running program from writing any file beyond a size,
// which to it is a full disk. A negative size lifts the limit.
func (g *gateway) limitFiles(size int64) {
	g.t.Helper()
	limit := unix.Rlimit{Cur: uint64(size), Max: unix.RLIM_INFINITY}
	if size < 0 {
		limit.Cur = unix.RLIM_INFINITY
	}
	if err := unix.Prlimit(g.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		g.t.Fatal(err)
	}
}
