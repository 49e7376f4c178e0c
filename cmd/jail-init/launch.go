//go:build linux

package main

import (
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

const image = 4 // this program, as a descriptor

// initEnv is all of the environment of a first process, and keptEnv of one whose jail is not known yet.
var (
	initEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}
	keptEnv = append([]string{wire.Role + "=" + wire.Kept}, initEnv...)
)

// launcher starts first processes for a gateway, one after another, from the one thread they die with, and tells when they
// have ended. It ends with the gateway, and they with it.
func launcher() {
	for _, n := range []unix.Signal{unix.SIGHUP, unix.SIGINT} { // which Go lets be where the gateway ignores them, and agents would too
		handle(uintptr(n), 0)
	}
	l := children{running: map[int]uint64{}, started: make(chan struct{}, 1)}
	go l.bury()
	buf := make([]byte, wire.MaxMessage)
	for {
		b, fds := message(buf)
		var order wire.Launch
		if !order.Decode(b) || len(fds) < 4 || order.Group && len(fds) != 5 {
			unix.Exit(exitRefused)
		}
		l.launch(&order, fds)
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}

// children are those that run, by process and what they were asked for as.
type children struct {
	mu      sync.Mutex // held while one is made, so that nobody else buries it
	running map[int]uint64
	started chan struct{}
}

func (l *children) launch(order *wire.Launch, fds []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := wire.Launched{ID: order.ID}
	pid, pidfd := 0, -1
	env := initEnv
	err := within(order, func() error {
		attr := syscall.SysProcAttr{
			Cloneflags:                 uintptr(order.Flags),
			UidMappings:                []syscall.SysProcIDMap{{ContainerID: int(order.UID), HostID: int(order.HostUID), Size: 1}},
			GidMappings:                []syscall.SysProcIDMap{{ContainerID: int(order.GID), HostID: int(order.HostGID), Size: 1}},
			GidMappingsEnableSetgroups: order.SetGroups,
			Setsid:                     true,
			Pdeathsig:                  unix.SIGKILL,
			PidFD:                      &pidfd,
		}
		for _, c := range order.Caps {
			attr.AmbientCaps = append(attr.AmbientCaps, uintptr(c))
		}
		if order.Take {
			attr.Credential = &syscall.Credential{Uid: order.UID, Gid: order.GID}
		}
		if order.Kept {
			env = keptEnv
		}
		if order.Group {
			attr.UseCgroupFD, attr.CgroupFD = true, fds[4]
		}
		files := []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2]), uintptr(fds[3]), image}
		var err error
		start := func() {
			pid, err = syscall.ForkExec("/proc/self/fd/4", []string{"jail-init"}, &syscall.ProcAttr{Env: env, Files: files, Sys: &attr})
		}
		if start(); err == unix.ENOSYS && order.Group { // filters that containers have say so of clone3: it is put there while it waits
			attr.UseCgroupFD = false
			if start(); err == nil {
				err = join(fds[4], pid)
			}
		}
		return err
	})
	if in, ok := err.(notInGroup); ok {
		err, answer.InGroup = in.error, true
	}
	if err != nil {
		errno, _ := err.(syscall.Errno)
		answer.Errno = uint32(max(errno, 1))
		if pid > 0 { // its end is told to nobody
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
		tell(&answer)
		return
	}
	answer.Pid = uint32(pid)
	l.running[pid] = order.ID
	if pidfd >= 0 {
		tell(&answer, pidfd)
		_ = unix.Close(pidfd)
	} else {
		tell(&answer)
	}
	select {
	case l.started <- struct{}{}:
	default:
	}
}

// notInGroup is why a process was not started in its group.
type notInGroup struct{ error }

// within runs something on this thread as one of a group. Moving the running thread alone is what a kernel does
// without making all of the machine wait; its children begin where it is.
func within(order *wire.Launch, do func() error) (err error) {
	back := order.Leave[:0:0]
	defer func() {
		for _, file := range back {
			if e := self(file); e != nil {
				err = notInGroup{e}
			}
		}
	}()
	for i, file := range order.Enter {
		if e := self(file); e != nil {
			return notInGroup{e}
		}
		back = append(back, order.Leave[i])
	}
	return do()
}

// self writes the running thread into a group.
func self(file string) error {
	f, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(f) }()
	_, err = unix.Write(f, []byte("0"))
	return err
}

// join writes a process into a group.
func join(group, pid int) error {
	f, err := unix.Openat(group, "cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(f, []byte(strconv.Itoa(pid)))
		_ = unix.Close(f)
	}
	if err != nil {
		return notInGroup{err}
	}
	return nil
}

// bury waits for children and tells of their ends. It looks before it takes: what is just being made is not its own yet.
func (l *children) bury() {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil { // there is none
			<-l.started
			continue
		}
		pid := int(*(*int32)(unsafe.Pointer(uintptr(unsafe.Pointer(&info)) + 16)))
		l.mu.Lock()
		if id, ok := l.running[pid]; ok {
			var usage unix.Rusage
			var status unix.WaitStatus
			if _, err := unix.Wait4(pid, &status, 0, &usage); err == nil {
				delete(l.running, pid)
				tell(&wire.Launched{ID: id, Ended: true, Pid: uint32(pid), CPU: uint64(usage.Utime.Nano() + usage.Stime.Nano()), Status: uint32(status)})
			}
		}
		l.mu.Unlock()
	}
}

func tell(a *wire.Launched, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(control, a.Encode(), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		unix.Exit(exitRefused)
	}
}
