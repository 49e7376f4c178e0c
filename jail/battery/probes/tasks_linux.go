package probes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tasks are other things an agent does, which must work, or must end as they should.
var tasks map[string]func(args []string) error

func init() {
	tasks = map[string]func([]string) error{
		"sleep":     func([]string) error { return forever() },
		"use":       use,
		"breed":     breed,
		"say":       func(a []string) error { _, err := fmt.Println(strings.Join(a, " ")); return err },
		"exit":      func(a []string) error { os.Exit(number(a[0])); return nil },
		"crash":     crash,
		"fill":      fill,
		"exec":      execute,
		"get":       get,
		"threads":   threads,
		"children":  children,
		"shout":     shout,
		"daemons":   daemons,
		"hit-init":  hitInit,
		"write":     func(a []string) error { return os.WriteFile(a[0], []byte(a[1]), 0o644) },
		"link":      func(a []string) error { return os.Symlink(a[0], a[1]) },
		"hold":      hold,
		"leave":     leave,
		"keep":      keep,
		"starve":    starve,
		"echo-in":   func([]string) error { _, err := io.Copy(os.Stdout, os.Stdin); return err },
		"environ":   func([]string) error { _, err := fmt.Println(strings.Join(os.Environ(), "\n")); return err },
		"directory": func([]string) error { d, err := os.Getwd(); fmt.Println(d); return err },
		"pass-out":  passOut,
		"be-there":  beThere,
		"meet":      meet,
	}
}

// forever waits, also where nothing else could ever happen.
func forever() error {
	for {
		time.Sleep(time.Hour)
	}
}

func use(a []string) error {
	n := number(a[0])
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("used")
	return forever()
}

// breed has two children, who have two, down to a depth; all wait for theirs.
func breed(a []string) error {
	depth := number(a[0])
	if depth == 0 {
		time.Sleep(200 * time.Millisecond) // so that all are there at once
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var all []*exec.Cmd
	var failed error
	for range 2 {
		c := exec.Command(self, "breed", strconv.Itoa(depth-1))
		if err := c.Start(); err != nil {
			failed = err
			continue
		}
		all = append(all, c)
	}
	for _, c := range all {
		failed = errors.Join(failed, c.Wait())
	}
	return failed
}

// fill takes all processes there may be, as soon as it can, and has them all end.
func fill([]string) error {
	runtime.LockOSThread()
	var all []uintptr
	for range 4096 {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		if pid == 0 {
			tenth := unix.Timespec{Nsec: 1e8}
			for {
				syscall.RawSyscall(syscall.SYS_NANOSLEEP, pointer(&tenth), 0, 0)
				syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		all = append(all, pid)
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, pointer(&unix.Timespec{Nsec: 5e7}), 0, 0)
	for range all {
		_, _ = syscall.Wait4(-1, nil, 0, nil)
	}
	_, err := fmt.Println("filled")
	return err
}

func crash([]string) error {
	signal.Reset(syscall.SIGSEGV)
	return inSelf(unix.SIGSEGV)
}

// inSelf has a signal do what it does by default.
func inSelf(s syscall.Signal) error {
	var dfl [32]byte
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), pointer(&dfl), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	if err := unix.Kill(os.Getpid(), s); err != nil {
		return err
	}
	return forever()
}

// execute has a program found and run.
func execute(a []string) error {
	c := exec.Command(a[0], a[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// get asks the gateway, over tcp or unix, with headers as NAME=value, and prints the body.
func get(a []string) error {
	body, err := request(a[0], a[1], a[2:]...)
	if err != nil {
		return err
	}
	_, err = fmt.Println(body)
	return err
}

func request(network, path string, headers ...string) (string, error) {
	address := "127.0.0.1:80"
	if network == "unix" {
		address = "/run/gateway.sock"
	}
	c, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.0\r\nHost: gateway\r\n", path)
	for _, h := range headers {
		k, v, _ := strings.Cut(h, "=")
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	if _, err := io.WriteString(c, b.String()+"\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	_, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !ok {
		return "", errors.New("no answer")
	}
	return strings.TrimSpace(string(body)), nil
}

// threads asks from many at once.
func threads([]string) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for i := range 16 {
		wg.Go(func() {
			_, err := request([]string{"tcp", "unix"}[i%2], "/")
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed == nil {
		fmt.Println("all threads")
	}
	return failed
}

// children ask too, and their children.
func children(a []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, network := range []string{"tcp", "unix"} {
		c := exec.Command(self, "get", network, "/")
		if len(a) == 0 {
			c = exec.Command(self, "children", "again")
		}
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	fmt.Println("all children")
	return nil
}

func shout(a []string) error {
	line := strings.Repeat("x", number(a[1])) + "\n"
	for range number(a[0]) {
		if _, err := io.WriteString(os.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// daemons leaves processes that do their best to stay.
func daemons(a []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for range 3 {
		c := exec.Command(self, append([]string{"leave"}, a...)...)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			return err
		}
	}
	_, err = fmt.Println("left")
	return err
}

// leave has a child of its own and ignores all signals it can.
func leave(a []string) error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	if len(a) > 0 && a[0] != "last" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		_ = exec.Command(self, append([]string{"leave", "last"}, a...)...).Start()
	}
	return forever()
}

// keep stays, with children that do.
func keep(a []string) error {
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0)
	if err := daemons(a); err != nil {
		return err
	}
	return forever()
}

// starve does what it may so that the first process never runs again: that is put behind everything, and everything kept busy.
func starve([]string) error {
	var one unix.CPUSet
	one.Set(0)
	idle, behind := [1]int32{}, unix.Setpriority(unix.PRIO_PGRP, 1, 19) == nil
	for pid := 1; pid <= 16; pid++ {
		if pid == os.Getpid() {
			continue
		}
		for _, err := range []error{
			unix.SchedSetaffinity(pid, &one), try(unix.SYS_SCHED_SETSCHEDULER, uintptr(pid), unix.SCHED_IDLE, pointer(&idle)), unix.Setpriority(unix.PRIO_PROCESS, pid, 19),
		} {
			behind = behind || err == nil
		}
	}
	_ = unix.SchedSetaffinity(0, &one)
	runtime.LockOSThread()
	for range 100 {
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		for pid == 0 { // until the jail's end
			syscall.RawSyscall(syscall.SYS_GETPID, 0, 0, 0)
		}
	}
	if behind {
		fmt.Println("and the first process is put behind")
	}
	fmt.Println("busy")
	return forever()
}

// hitInit sends the first process every signal there is, and asks the gateway whether all is well.
func hitInit([]string) error {
	for range 3 {
		for n := syscall.Signal(1); n <= 64; n++ {
			_ = unix.Kill(1, n)
			_ = unix.Tgkill(1, 1, n)
		}
		_ = unix.Kill(1, unix.SIGKILL)
		_ = unix.Kill(1, unix.SIGSTOP)
	}
	if _, err := request("tcp", "/"); err != nil {
		return err
	}
	// That it still buries what dies: an orphan that ends must be gone.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := exec.Command(self, "say", "x").Run(); err != nil {
		return err
	}
	fmt.Println("it lives")
	return nil
}

// hold waits with an open connection.
func hold([]string) error {
	c, err := net.Dial("unix", "/run/gateway.sock")
	if err != nil {
		return err
	}
	fmt.Println("held")
	_, _ = io.ReadAll(c)
	fmt.Println("let go")
	for _, network := range []string{"tcp", "unix"} {
		if _, err := request(network, "/"); errors.Is(err, syscall.ECONNREFUSED) {
			fmt.Println("refused")
		}
	}
	return nil
}

// passOut sends our own output to whoever is at the other end, who may never look.
func passOut([]string) error {
	for range 8 {
		c, err := net.Dial("unix", "/run/gateway.sock")
		if err != nil {
			return err
		}
		if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte("x"), unix.UnixRights(0, 1, 2), nil); err != nil {
			return err
		}
	}
	_, err := fmt.Println("passed")
	return err
}

// beThere has names of every kind that another could find.
func beThere(a []string) error {
	for _, name := range []string{"@" + a[0], "/tmp/" + a[0]} {
		if l, err := net.Listen("unix", name); err == nil {
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_ = c.Close()
				}
			}()
		}
	}
	if l, err := net.Listen("tcp", "127.0.0.1:4242"); err == nil {
		defer func() { _ = l.Close() }()
	}
	_, _ = unix.SysvShmGet(meeting, 4096, unix.IPC_CREAT|0o666)
	for _, name := range []string{"/tmp/" + a[0] + ".file", "/dev/shm/" + a[0]} {
		if err := os.WriteFile(name, []byte(a[0]), 0o666); err != nil {
			return err
		}
	}
	fmt.Println("there")
	return forever()
}

// meeting is a key of System V.
const meeting = 0x77726974

// meet looks for the other.
func meet(a []string) error {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range all {
		b, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err == nil && number(e.Name()) > 0 && number(e.Name()) != os.Getpid() && strings.Contains(string(b), a[0]) {
			fmt.Println("saw its process")
		}
		if number(e.Name()) != os.Getpid() && number(e.Name()) > 0 && unix.Kill(number(e.Name()), 0) == nil {
			fmt.Println("may signal", e.Name())
		}
	}
	for pid := 2; pid < 4096; pid++ { // also of those that are not shown; our own threads have numbers too
		if unix.Kill(pid, 0) == nil && !own(&World{}, pid) {
			fmt.Println("may signal", pid)
		}
	}
	for _, name := range []string{"@" + a[0], "/tmp/" + a[0]} {
		if connectUnix(unix.SOCK_STREAM, name) == nil {
			fmt.Println("connected")
		}
	}
	if c, err := net.DialTimeout("tcp", "127.0.0.1:4242", wait); err == nil {
		_ = c.Close()
		fmt.Println("connected to its port")
	}
	if _, err := unix.SysvShmGet(meeting, 4096, 0); err == nil {
		fmt.Println("shares memory")
	}
	for _, name := range []string{"/tmp/" + a[0] + ".file", "/dev/shm/" + a[0]} {
		if holds(name, a[0]) == nil {
			fmt.Println("read its file")
		}
	}
	_, err = fmt.Println("met nobody")
	return err
}
