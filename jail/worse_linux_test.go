package jail_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// worse makes this process worse off in some way, tries to start a jail, and prints why it was refused.
func worse(how string) int {
	p := jail.Strict()
	must := func(err error) {
		if err != nil {
			fmt.Println("cannot:", err)
			os.Exit(1)
		}
	}
	switch how {
	case "die", "die sandboxed":
		jailer := jail.New(jail.Options{})
		if how != "die" {
			jailer = jail.NewSandbox(jail.SandboxOptions{})
		}
		p.WithoutCgroup = true
		j, err := jailer.Spawn(context.Background(), jail.Spec{
			ID: fmt.Sprintf("died-%d", os.Getpid()), Profile: p, Agent: jail.Program{Path: agentBinary}, Args: []string{"orphan", "say=x", "sleep=1h"}, Stdout: os.Stdout,
		})
		must(err)
		must(j.Go())
		j.Wait()
		return 0
	case "filtered":
		p.WithoutCgroup = true
		must(denyClone())
	case "no namespaces": // as root of a user namespace we were started in
		p.WithoutCgroup = true
		must(os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0))
	case "no cgroup":
		must(unix.Mount("none", "/sys/fs/cgroup", "tmpfs", 0, ""))
	case "root without rights":
		runtime.LockOSThread()
		must(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SETUID, 0, 0, 0))
		must(unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SETGID, 0, 0, 0))
		must(syscall.Exec("/proc/self/exe", []string{"test", "worse", "still root"}, os.Environ()))
	case "root inside":
		p.WithoutCgroup = true
	case "masked /proc", "masked /proc, and none inside":
		p.WithoutCgroup, p.WithoutProc = true, how != "masked /proc"
		must(unix.Mount("none", "/proc/tty", "tmpfs", 0, ""))
	case "no /proc":
		p.WithoutCgroup = true
		must(unix.Mount("none", "/proc", "tmpfs", 0, ""))
	}
	_, err := jail.New(jail.Options{}).Preflight(context.Background(), p)
	if r, ok := errors.AsType[*jail.Refusal](err); ok {
		fmt.Println(r.Feature)
		if r.Remedy == "" || !strings.Contains(r.Error(), "not started") {
			fmt.Println("with too few words:", r)
		}
		return 0
	}
	fmt.Println("started:", err)
	return 0
}

// denyClone is the filter of a container that allows no namespaces.
func denyClone() error {
	const flags = 16
	program := []unix.SockFilter{
		{Code: 0x20, K: 0}, // number
		{Code: 0x15, Jt: 1, K: unix.SYS_CLONE3},
		{Code: 0x15, Jt: 1, Jf: 4, K: unix.SYS_CLONE},
		{Code: 0x06, K: 0x00050000 | uint32(unix.ENOSYS)},
		{Code: 0x20, K: flags},
		{Code: 0x45, Jf: 1, K: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET},
		{Code: 0x06, K: 0x00050000 | uint32(unix.EPERM)},
		{Code: 0x06, K: 0x7fff0000},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); errno != 0 || r != 0 {
		return errors.Join(errno, errors.New("not for all threads"))
	}
	return nil
}

// Wherever something is missing the jail is refused by its name, and nothing is started with less.
func TestRefusedWhereWorse(t *testing.T) {
	jailtest.Need(t)
	nested := func(as int) *syscall.SysProcAttr {
		return &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: as, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: as, HostID: os.Getegid(), Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_RESOURCE},
		}
	}
	for how, tt := range map[string]struct {
		attr *syscall.SysProcAttr
		want string
	}{
		"filtered":                      {nil, jail.FeatureOuter},
		"no namespaces":                 {nested(500), jail.FeatureUserns},
		"no cgroup":                     {nested(500), jail.FeatureCgroup},
		"no /proc":                      {nested(500), jail.FeatureProc},
		"masked /proc":                  {nested(500), jail.FeatureProc},
		"masked /proc, and none inside": {nested(500), "started: <nil>"},
		"root inside":                   {nested(0), "started: <nil>"}, // as an ordinary user would
		"root without rights":           {nil, jail.FeatureHostUID},
	} {
		if how == "root without rights" && os.Geteuid() != 0 {
			continue
		}
		t.Run(how, func(t *testing.T) {
			c := exec.Command("/proc/self/exe", "worse", how)
			c.Env = append(os.Environ(), "WRIT_TEST_JAIL_AGENT="+agentBinary)
			c.SysProcAttr = tt.attr
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatal(err, string(out))
			}
			same(t, string(out), tt.want)
		})
	}
}
