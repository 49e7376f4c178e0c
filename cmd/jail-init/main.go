//go:build linux

//go:debug containermaxprocs=0

// Command jail-init is the first process of a jail. The gateway carries it inside itself and
// starts it in new namespaces with a socket as descriptor 3. It builds the root file
// system, opens the two listeners and sends them out, gives up every right it has, and
// only then starts the agent, whose children it buries. It decides nothing: all it does is
// in the wire.Spec it is sent, and whatever fails ends it before anything was started.
//
// It starts once per jail, so it imports nearly nothing. And it starts once per gateway as the launcher, which starts
// the others: making new namespaces copies the tables of all memory of who does it, and a gateway has much. Go is told
// not to look for more processors, for which it would hold files of the host's control groups.
package main

import (
	"math"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

const (
	control     = 3
	exitRefused = 125
)

// The first thread does everything that the agent is to inherit. Go runs every init on it, so all of this is one: to lock main to it
// makes Go keep a thread more, in every jail. That it still is the first is seen to before the agent starts.
func init() { begin() }

func main() {}

func begin() {
	role, _ := syscall.Getenv(wire.Role)
	switch role {
	case wire.Sandbox:
		sandboxed()
	case wire.Stage:
		stage()
	}
	must("descriptors", "", unix.CloseRange(control, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC))
	must("parent", "", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
	if role == wire.Launcher {
		launcher()
	}
	unix.Umask(0o022) // the agent's too, whatever the gateway's is
	ready := wire.Report{Kind: wire.Ready, UsernsLimit: boundNamespace()}
	if role == wire.Kept {
		leave()
	}
	spec, fds := receive()
	fds = streams(fds)

	tcp := loopback(spec.Port)
	unixListener := build(spec, fds)
	setLimits(spec.Limits)
	send(&ready, tcp, unixListener)
	_ = unix.Close(tcp)
	_ = unix.Close(unixListener)

	giveUp() // while the gateway does what must be done before the agent starts
	landlock(spec.Landlock)
	filter(spec.Filter)
	ignoreSignals()
	awaitGo()
	if unix.Gettid() != unix.Getpid() { // what a thread is forbidden, its child is
		must("thread", "", unix.EPERM)
	}
	pid, err := syscall.ForkExec(spec.Exec, spec.Args, &syscall.ProcAttr{
		Dir: spec.Dir, Env: spec.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	must("exec", spec.Exec, err)
	send(&wire.Report{Kind: wire.Started})
	reap(pid, spec.DeadlineMs)
}

// must ends everything with a report of what failed.
func must(step, detail string, err error) {
	if err == nil {
		return
	}
	errno, _ := err.(syscall.Errno)
	send(&wire.Report{Kind: wire.Failed, Step: step, Detail: detail, Errno: uint32(errno)})
	unix.Exit(exitRefused)
}

// receive waits for the spec. A gateway that is gone closed the socket.
func receive() (*wire.Spec, []int) {
	b, fds := message(make([]byte, wire.MaxMessage))
	spec := new(wire.Spec)
	if !spec.Decode(b) {
		must("spec", "", unix.EPROTO)
	}
	return spec, fds
}

// streams takes the first descriptors sent along as the agent's input and outputs, and gives back the others.
func streams(fds []int) []int {
	if len(fds) < 3 {
		must("spec", "", unix.EPROTO)
	}
	for i, fd := range fds[:3] {
		must("streams", "", unix.Dup3(fd, i, 0))
		_ = unix.Close(fd)
	}
	return fds[3:]
}

// message reads one, with the descriptors sent along.
func message(buf []byte) (b []byte, fds []int) {
	oob := make([]byte, unix.CmsgSpace(4*wire.MaxDescriptors))
	n, oobn, flags, _, err := unix.Recvmsg(control, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		unix.Exit(exitRefused)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		must("spec", "", unix.EPROTO)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	must("spec", "", err)
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		must("spec", "", err)
		fds = append(fds, got...)
	}
	return buf[:n], fds
}

func send(r *wire.Report, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(control, r.Encode(), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		unix.Exit(exitRefused)
	}
}

func awaitGo() {
	var word [8]byte
	if n, err := unix.Read(control, word[:]); err != nil || string(word[:n]) != wire.Go {
		unix.Exit(exitRefused)
	}
}
