//go:build linux

package main

import (
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// sandboxed is the first process where another kernel runs the jail. It can be sent no descriptor and can send none
// out: it comes to the gateway's socket before anything else runs that could, and what connects to its TCP listener it
// takes to the door. The agent is another user, who can do nothing to it, and whose limits are not its own.
func sandboxed() {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err == nil {
		err = unix.Connect(s, &unix.SockaddrUnix{Name: wire.SandboxControl})
	}
	if err == nil && s != control {
		err = unix.Dup2(s, control)
		_ = unix.Close(s)
	}
	if err != nil {
		unix.Exit(exitRefused) // there is nobody to tell
	}
	unix.CloseOnExec(control)
	inheritNone()
	unix.Umask(0o022)
	spec, _ := receive()
	tcp := listenTCP(spec.Port)
	send(&wire.Report{Kind: wire.Ready})
	awaitGo()
	pid := launchStage(spec)
	send(&wire.Report{Kind: wire.Started})
	go bridge(tcp)
	reap(pid, spec.DeadlineMs)
}

// inheritNone keeps this process's rights from whatever it executes.
func inheritNone() {
	_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0)
	if errno != 0 && errno != unix.EINVAL { // a gVisor of before 2023 has no such set
		must("capabilities", "ambient", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	must("capabilities", "", unix.Capget(&header, &have[0]))
	have[0].Inheritable, have[1].Inheritable = 0, 0
	allThreads("capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&have)), 0)
}

// said is the descriptor on which a stage says why it did not become the agent.
const said = 3

// launchStage starts the agent: this program once more, as the agent's user and without a right, which takes the agent's
// limits before it becomes the agent. They would hold this process too. Its words are its limits, its directory, how many words of environment follow, those, what
// it is to execute, and the words of that.
func launchStage(spec *wire.Spec) (pid int) {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ { // ours stay, and no child gets any
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && (err != unix.EINVAL || c <= unix.CAP_AUDIT_READ) {
			must("capabilities", "bounding", err)
		}
	}
	var tell [2]int
	must("exec", "", unix.Pipe2(tell[:], unix.O_CLOEXEC))
	var limits []string
	for _, l := range spec.Limits {
		limits = append(limits, strconv.Itoa(int(l.Resource))+"="+strconv.FormatUint(l.Value, 10))
	}
	words := append([]string{"stage", strings.Join(limits, ","), spec.Dir, strconv.Itoa(len(spec.Env))}, spec.Env...)
	words = append(append(words, spec.Exec), spec.Args...)
	pid, err := syscall.ForkExec("/proc/self/exe", words, &syscall.ProcAttr{
		Dir: "/", Env: []string{wire.Role + "=" + wire.Stage}, Files: []uintptr{0, 1, 2, uintptr(tell[1])}, Sys: &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: spec.UID, Gid: spec.GID}},
	})
	must("exec", "", err)
	_ = unix.Close(tell[1])
	var why [1]byte
	n, err := unix.Read(tell[0], why[:])
	for err == unix.EINTR {
		n, err = unix.Read(tell[0], why[:])
	}
	must("exec", "", err)
	if n > 0 {
		must("exec", spec.Exec, syscall.Errno(why[0]))
	}
	_ = unix.Close(tell[0])
	return pid
}

// stage becomes the agent.
func stage() {
	unix.CloseOnExec(said)
	words := words()
	if len(words) < 6 {
		giveIn(unix.EINVAL)
	}
	dir, envs := words[2], int(whole(words[3]))
	if len(words) < 6+envs {
		giveIn(unix.EINVAL)
	}
	env, rest := words[4:4+envs], words[4+envs:]
	for _, l := range strings.Split(words[1], ",") {
		resource, value, _ := strings.Cut(l, "=")
		var now unix.Rlimit
		giveIn(unix.Prlimit(0, int(whole(resource)), nil, &now))
		v := min(whole(value), now.Max)
		giveIn(unix.Prlimit(0, int(whole(resource)), &unix.Rlimit{Cur: v, Max: v}, nil))
	}
	giveIn(unix.Chdir(dir))
	giveIn(syscall.Exec(rest[0], rest[1:], env))
}

// giveIn says why there will be no agent.
func giveIn(err error) {
	if err == nil {
		return
	}
	errno, ok := err.(syscall.Errno)
	if !ok {
		errno = unix.EINVAL
	}
	_, _ = unix.Write(said, []byte{byte(errno)})
	unix.Exit(exitRefused)
}

func whole(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	giveIn(err)
	return n
}

// words are what this process was started with.
func words() []string {
	f, err := unix.Open("/proc/self/cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	giveIn(err)
	var text []byte
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Read(f, buf)
		giveIn(err)
		if n == 0 {
			break
		}
		text = append(text, buf[:n]...)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}
