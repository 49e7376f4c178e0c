package jail_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// worse makes this process worse off in some way, tries to start a jail, and prints why it was refused.
func worse(how string) int {
	p := jail.Strict()
	how, late := strings.CutSuffix(how, toldLate)
	if f, ok := filters[how]; ok {
		p.WithoutCgroup = true
		if err := f.install(); err != nil {
			fmt.Println("cannot:", err)
			return 1
		}
	}
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
	case "die ready":
		fmt.Println(keeps(20*time.Second, must))
		time.Sleep(time.Hour)
	case "no cgroup, ready":
		must(unix.Mount("none", "/sys/fs/cgroup", "tmpfs", 0, ""))
		fmt.Println(keeps(time.Second/2, must))
		return 0
	case "root of a container, ready":
		must(keeping(ofContainers(), "ready"))
	case "ready":
		fmt.Println(keeps(time.Second/2, must))
		return 0
	case "holds a user": // until nobody listens any more
		p.WithoutCgroup = true
		j, err := jail.New(jail.Options{FirstUID: fewUsers, UIDs: 2}).Spawn(context.Background(), jail.Spec{
			ID: fmt.Sprintf("holds-%d", os.Getpid()), Profile: p, Agent: jail.Program{Path: agentBinary},
		})
		if r, ok := errors.AsType[*jail.Refusal](err); ok {
			fmt.Println(r.Feature)
			return 0
		}
		must(err)
		fmt.Println(j.Features().HostUID)
		_, _ = io.Copy(io.Discard, os.Stdin)
		j.Kill("test")
		j.Wait()
		return 0
	case "no namespaces": // as root of a user namespace we were started in
		p.WithoutCgroup = true
		must(os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0))
	case "no cgroup":
		must(unix.Mount("none", "/sys/fs/cgroup", "tmpfs", 0, ""))
	case "root without rights":
		must(keeping(slices.DeleteFunc(ofContainers(), func(c int) bool { return c == unix.CAP_SETUID || c == unix.CAP_SETGID }), "still root"))
	case "root of a container":
		must(keeping(ofContainers(), "in a container"))
	case "in a container":
		p.WithoutCgroup = true
		return runs(p, must)
	case "no descriptors": // but for what this process has, and a few
		p.WithoutCgroup = true
		open, err := os.ReadDir("/proc/self/fd")
		must(err)
		n := uint64(len(open) + 2)
		must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}))
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
	if late {
		j, spawned := jail.New(jail.Options{}).Spawn(context.Background(), jail.Spec{
			ID: fmt.Sprintf("late-%d", os.Getpid()), Profile: p, Agent: jail.Program{Path: agentBinary},
		})
		must(spawned)
		time.Sleep(100 * time.Millisecond) // its first process has given up by now, and is told to go all the same
		err = j.Go()
		j.Wait()
	}
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

// toldLate is added to how a process is worse off that starts a jail and takes its time to say go.
const toldLate = ", told late"

// A filter has a system call fail, where one of its arguments has a bit of a mask, or is a value.
type filter struct {
	call, arg   uint32
	mask, value uint32
	errno       unix.Errno
	want        string // the feature that is missing then
}

const always = 1 << 31 // as an argument's number: whatever it is

// filters are kernels that lack something, and containers that forbid it. clone3 fails as for
// who asks a kernel that has none, since what it is for lies where no filter can look.
var filters = map[string]filter{
	"a filter that allows it all":  {call: unix.SYS_SWAPON, arg: always, errno: unix.EPERM, want: "started: <nil>"},
	"namespaces filtered":          {call: unix.SYS_CLONE, mask: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET, errno: unix.EPERM, want: jail.FeatureOuter},
	"mounts filtered":              {call: unix.SYS_FSOPEN, arg: always, errno: unix.EPERM, want: jail.FeatureOuter},
	"no control group namespaces":  {call: unix.SYS_CLONE, mask: unix.CLONE_NEWCGROUP, errno: unix.EINVAL, want: jail.FeatureNamespaces},
	"no mount interface":           {call: unix.SYS_FSOPEN, arg: always, errno: unix.ENOSYS, want: jail.FeatureMount},
	"no attributes of mounts":      {call: unix.SYS_MOUNT_SETATTR, arg: always, errno: unix.ENOSYS, want: jail.FeatureMount},
	"no Landlock":                  {call: unix.SYS_LANDLOCK_CREATE_RULESET, arg: always, errno: unix.EOPNOTSUPP, want: jail.FeatureLandlock},
	"Landlock that takes no rules": {call: unix.SYS_LANDLOCK_ADD_RULE, arg: always, errno: unix.EINVAL, want: jail.FeatureLandlock},
	"no filters":                   {call: unix.SYS_SECCOMP, arg: always, errno: unix.EINVAL, want: jail.FeatureSeccomp},
	"no IPv4":                      {call: unix.SYS_SOCKET, value: unix.AF_INET, errno: unix.EAFNOSUPPORT, want: jail.FeatureNetwork},
	"no files in memory":           {call: unix.SYS_MEMFD_CREATE, arg: always, errno: unix.ENOSYS, want: jail.FeatureInit},
}

func (f filter) install() error {
	const load, equal, anyBit, jump, answer = 0x20, 0x15, 0x45, 0x05, 0x06
	fail := func(e unix.Errno) unix.SockFilter { return unix.SockFilter{Code: answer, K: 0x00050000 | uint32(e)} }
	test := unix.SockFilter{Code: equal, Jf: 1, K: f.value}
	switch {
	case f.mask != 0:
		test = unix.SockFilter{Code: anyBit, Jf: 1, K: f.mask}
	case f.arg == always:
		test = unix.SockFilter{Code: jump}
		f.arg = 0
	}
	program := []unix.SockFilter{
		{Code: load, K: 0}, // number
		{Code: equal, Jf: 1, K: unix.SYS_CLONE3},
		fail(unix.ENOSYS),
		{Code: equal, Jf: 3, K: f.call},
		{Code: load, K: 16 + 8*f.arg},
		test,
		fail(f.errno),
		{Code: answer, K: 0x7fff0000}, // allow
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

// ofContainers are the capabilities that engines give root of a container by default.
func ofContainers() []int {
	return []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW, unix.CAP_SETGID, unix.CAP_SETUID,
		unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	}
}

// keeping goes on as root with these capabilities alone, for good.
func keeping(caps []int, as string) error {
	runtime.LockOSThread()
	for c := range unix.CAP_LAST_CAP + 1 {
		if slices.Contains(caps, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil {
			return err
		}
	}
	return syscall.Exec("/proc/self/exe", []string{"test", "worse", as}, os.Environ())
}

// runs starts a jail with an agent in it, and says as whom that ran, and how it ended.
func runs(p jail.Profile, must func(error)) int {
	j, err := jail.New(jail.Options{}).Spawn(context.Background(), jail.Spec{
		ID: fmt.Sprintf("caps-%d", os.Getpid()), Profile: p, Agent: jail.Program{Path: agentBinary}, Args: []string{"exit=7"}, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	must(err)
	must(j.Go())
	fmt.Printf("another user %t, cgroup %t, ended with %d\n", j.Features().Privileged, j.Features().Cgroup != "none", j.Wait().Code)
	return 0
}

// keeps runs a jail of those that would keep a first process for the next, and says which there is before long; 0: none.
func keeps(long time.Duration, must func(error)) (pid int) {
	p := jail.Strict()
	p.WithoutCgroup = true
	j, err := jail.New(jail.Options{Ready: time.Hour, FirstUID: 63100}).Spawn(context.Background(), jail.Spec{
		ID: fmt.Sprintf("keeps-%d", os.Getpid()), Profile: p, Agent: jail.Program{Path: agentBinary},
	})
	must(err)
	must(j.Go())
	j.Wait()
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, launcher := range children(os.Getpid(), "jail-launcher") {
			for _, pid := range children(launcher, "jail-init") {
				return pid
			}
		}
	}
	return 0
}

// worseOff is what a process is started with, and what it says.
type worseOff struct {
	attr *syscall.SysProcAttr
	want string
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
	cases := map[string]worseOff{
		"no namespaces":                 {nested(500), jail.FeatureUserns},
		"no cgroup":                     {nested(500), jail.FeatureCgroup},
		"no /proc":                      {nested(500), jail.FeatureProc},
		"masked /proc":                  {nested(500), jail.FeatureProc},
		"masked /proc, and none inside": {nested(500), "started: <nil>"},
		"root inside":                   {nested(0), "started: <nil>"}, // as an ordinary user would
		"no descriptors":                {nil, jail.FeatureInit},
	}
	for how, f := range filters {
		cases[how] = worseOff{nil, f.want}
	}
	cases["no filters"+toldLate] = worseOff{nil, jail.FeatureSeccomp} // which is what it said before it ended
	if os.Geteuid() == 0 {
		cases["root without rights"] = worseOff{nil, jail.FeatureHostUID}
		cases["root of a container"] = worseOff{nil, fmt.Sprintf("another user true, cgroup %t, ended with 7", jailtest.HasCgroup())}
	}
	for how, tt := range cases {
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
