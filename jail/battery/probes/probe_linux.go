package probes

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Control is how a probe is run outside a jail, where it must succeed.
type Control int

const (
	Plain Control = iota // as an ordinary user of the machine
	Own                  // with every capability in namespaces of its own
	Root                 // as root of the machine, in namespaces where it harms nobody
)

// Probe is one attempt. Try is nil where it succeeded, errno where it was refused, and a cannot
// where it did not come to be made.
type Probe struct {
	Name    string
	Control Control
	Lacks   bool // kernels may be built without what is attacked, and then there is no control
	Alone   bool // it may take others of its jail with it
	Other   bool // it is about processes of the host by their numbers, which somebody of the jail may have too
	Try     func(w *World) error
}

// Verdicts of a probe.
const (
	Escaped = "escaped"
	Blocked = "blocked"
	Cannot  = "cannot"
)

// World is what there is to attack. Inside and outside the paths of what is one's own differ.
type World struct {
	// Of the host, and open to everybody there.
	TCP4, TCPHost, TCP6, UDP4, UDP6 string   // addresses somebody answers at
	Unix, Abstract, Datagram        string   // sockets by path, by name, and of the kind without connections
	Secret, SecretText              string   // a file, and what is in it
	Open                            string   // a directory
	Victim, Gateway                 int      // processes
	Marks                           []string // among their arguments
	Host                            string   // name of the machine
	Group                           string   // control group of the gateway
	HandleType                      int32    // of the secret, for open_by_handle_at
	Handle                          []byte
	EnvName                         string // a variable only the gateway has

	// Of the agent.
	Scope, ReadScope string // directories it works in
	Run, Etc         string
	Agent            string // its own program
	Suid, FileCap    string // programs that would raise it
	Loose            string // a program everybody may write, where only the jail is in the way
	Parts            []string
}

// Line is how a result is told.
func Line(name string, err error) string {
	verdict, why := verdictOf(err)
	return strings.Join([]string{name, verdict, why}, " ")
}

// Parse reads a Line.
func Parse(line string) (name, verdict, why string, ok bool) {
	f := strings.SplitN(strings.TrimSpace(line), " ", 3)
	if len(f) < 2 || !slices.Contains([]string{Escaped, Blocked, Cannot}, f[1]) {
		return "", "", "", false
	}
	if len(f) == 3 {
		why = f[2]
	}
	return f[0], f[1], why, true
}

func verdictOf(err error) (verdict, why string) {
	if err == nil {
		return Escaped, ""
	}
	why = err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		why = unix.ErrnoName(errno)
	}
	if _, ok := errors.AsType[cannot](err); ok {
		return Cannot, why
	}
	return Blocked, why
}

// cannot wraps what kept a probe from making its attempt.
type cannot struct{ error }

func (c cannot) Unwrap() error { return c.error }

// held is a refusal that is no error of the kernel's.
func held(format string, a ...any) error { return fmt.Errorf(format, a...) }

// reached is for calls whose arguments mean nothing: the kernel looking at them is what counts.
func reached(err error, looked ...syscall.Errno) error {
	for _, e := range looked {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// try makes a system call.
func try(nr uintptr, a ...uintptr) error {
	_, err := value(nr, a...)
	return err
}

func value(nr uintptr, a ...uintptr) (uintptr, error) {
	var b [6]uintptr
	copy(b[:], a)
	r, _, errno := syscall.Syscall6(nr, b[0], b[1], b[2], b[3], b[4], b[5])
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

// inChild makes one call after another in a child with one thread, until one fails. The child makes
// no use of Go's runtime.
func inChild(calls ...[4]uintptr) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for i := range calls {
			if _, _, errno = syscall.RawSyscall(calls[i][0], calls[i][1], calls[i][2], calls[i][3]); errno != 0 {
				break
			}
		}
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	return ended(int(pid))
}

// ended waits for a child that exits with an errno.
func ended(pid int) error {
	var st syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &st, 0, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return err
		case st.Signaled():
			return held("signal %d", st.Signal())
		case st.ExitStatus() != 0:
			return syscall.Errno(st.ExitStatus())
		}
		return nil
	}
}

// cloned makes a child with flags, which does nothing.
func cloned(flags uintptr) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return ended(int(pid))
}

// All are the probes, in the order they are run.
var All = slices.Concat(network, mounts, files, execution, processes, kernel, machine, resources, identity, leaks)

// Named finds one.
func Named(name string) (Probe, bool) {
	i := slices.IndexFunc(All, func(p Probe) bool { return p.Name == name })
	if i < 0 {
		return Probe{}, false
	}
	return All[i], true
}
