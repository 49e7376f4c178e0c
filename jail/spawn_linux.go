package jail

import (
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// launch starts a process from the one thread that never ends. A process that dies with its parent
// dies with the thread that made it, and Go ends threads as it likes.
func launch(attr *os.ProcAttr, g *group) (*os.Process, error) {
	startLauncher()
	order := launchOrder{attr: attr, group: g, done: make(chan launched, 1)}
	orders <- order
	got := <-order.done
	return got.process, got.err
}

type launchOrder struct {
	attr  *os.ProcAttr
	group *group // that the process begins in
	done  chan launched
}

type launched struct {
	process *os.Process
	err     error
}

// notInGroup is why a process was not started in its group.
type notInGroup struct{ error }

var orders = make(chan launchOrder)

var startLauncher = sync.OnceFunc(func() {
	go func() {
		runtime.LockOSThread()
		for o := range orders {
			var l launched
			if err := o.group.within(func() { l.process, l.err = os.StartProcess(imagePath, []string{"jail-init"}, o.attr) }); err != nil {
				if l.process != nil {
					_ = l.process.Kill()
					_, _ = l.process.Wait()
				}
				l = launched{err: notInGroup{err}}
			}
			o.done <- l
		}
	}()
})

// The image is passed as descriptor 4 and executed as that: a path that needs no directory.
const imagePath = "/proc/self/fd/4"

// setupCaps are what the first process needs in its own namespaces to build the jail.
var setupCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE, unix.CAP_SETUID, unix.CAP_SETGID}

// initEnv is all of its environment.
var initEnv = []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"}

// sysAttr are the namespaces and the user: one line of map, which has no uid 0 inside. A process that need not open
// anything of the host with our rights is that user from the start.
func sysAttr(uid int, privileged, become bool, cgroupFD int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: insideID, HostID: uid, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: insideID, HostID: uid, Size: 1}},
		GidMappingsEnableSetgroups: privileged,
		AmbientCaps:                setupCaps,
		Setsid:                     true,
		Pdeathsig:                  unix.SIGKILL,
	}
	switch {
	case !privileged: // which it is by the map alone
		a.GidMappings[0].HostID = os.Getegid()
	case !become:
		a.Credential = &syscall.Credential{Uid: insideID, Gid: insideID}
	}
	if cgroupFD >= 0 {
		a.UseCgroupFD, a.CgroupFD = true, cgroupFD
	}
	return a
}

var namespaces = []string{"user", "mount", "pid", "net", "ipc", "uts", "cgroup"}
