package jail

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// launcher is the one process of ours that makes namespaces. It is small: a process in a user namespace of its own is made by
// copying the tables of all memory of whoever makes it, and then every page either writes once more.
//
// It is started from one thread that never ends, because it dies with that thread, and jails with it; Go ends threads as it likes.
type launcher struct {
	starting sync.Mutex // held by who starts it
	start    chan chan error

	mu       sync.Mutex
	control  *net.UnixConn // nil: none runs
	children map[uint64]*child
	next     uint64
}

// launcherPid is who must never be taken for an agent: a thread of it is in a jail's group for a moment.
var launcherPid atomic.Int64

// child is a process the launcher was asked for.
type child struct {
	pid     int
	pidfd   *os.File
	how     ending // once it has
	answer  chan *wire.Launched
	ended   chan struct{}
	endOnce sync.Once
}

var launches = sync.OnceValue(func() *launcher {
	l := &launcher{children: map[uint64]*child{}, start: make(chan chan error)}
	go func() {
		runtime.LockOSThread()
		for began := range l.start {
			l.run(began)
		}
	}()
	return l
})

// The image is passed as descriptor 4 and executed as that: a path that needs no directory.
const imagePath = "/proc/self/fd/4"

// run starts the launcher, and hears it until its end.
func (l *launcher) run(began chan<- error) {
	control, process, err := startLauncher()
	if err == nil {
		l.mu.Lock()
		l.control = control
		l.mu.Unlock()
		launcherPid.Store(int64(process.Pid))
	}
	began <- err
	if err != nil {
		return
	}
	for l.hear(control) == nil {
	}
	l.mu.Lock()
	l.control = nil
	left := l.children
	l.children = map[uint64]*child{}
	l.mu.Unlock()
	_ = control.Close()
	_ = process.Kill()
	_, _ = process.Wait()
	for _, c := range left { // they have died with it
		c.kill()
		c.end(ending{status: syscall.WaitStatus(unix.SIGKILL)})
	}
}

func startLauncher() (*net.UnixConn, *os.Process, error) {
	exe, err := image()
	if err != nil {
		return nil, nil, err
	}
	mine, theirs, err := socketpair()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = theirs.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		_ = mine.Close()
		return nil, nil, err
	}
	defer func() { _ = null.Close() }()
	p, err := os.StartProcess(imagePath, []string{"jail-launcher"}, &os.ProcAttr{
		Dir: "/", Env: []string{wire.Role + "=" + wire.Launcher, "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=16MiB"},
		Files: []*os.File{null, null, null, theirs, exe},
		Sys:   &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL},
	})
	if err != nil {
		_ = mine.Close()
		return nil, nil, startRefusal(err)
	}
	return mine, p, nil
}

// hear is one message of the launcher.
func (l *launcher) hear(control *net.UnixConn) error {
	buf, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	b, fds, err := readMessage(control, buf, oob)
	if err != nil {
		return err
	}
	var a wire.Launched
	if !a.Decode(b) {
		closeAll(fds)
		return errors.New("the launcher said what nobody understands")
	}
	l.mu.Lock()
	c := l.children[a.ID]
	if a.Ended || a.Errno != 0 {
		delete(l.children, a.ID)
	}
	l.mu.Unlock()
	switch {
	case c == nil:
		closeAll(fds)
	case a.Ended:
		c.end(ending{time.Duration(a.CPU), syscall.WaitStatus(a.Status)})
	default:
		for i, fd := range fds {
			if f := os.NewFile(uintptr(fd), "process"); i == 0 {
				c.pidfd = f
			} else {
				_ = f.Close()
			}
		}
		c.pid = int(a.Pid)
		c.answer <- &a
	}
	return nil
}

// launch starts a first process with descriptors, which it takes copies of. A launcher that was killed is noticed by the first who
// asks it for something, who then asks another.
func launch(order wire.Launch, files []*os.File) (*child, error) {
	c, err := begin(order, files).started()
	if errors.Is(err, errLauncher) {
		c, err = begin(order, files).started()
	}
	return c, err
}

// launching is a first process that was asked for.
type launching struct {
	child *child
	err   error // of asking
}

// begin asks for a first process.
func begin(order wire.Launch, files []*os.File) *launching {
	c := &child{answer: make(chan *wire.Launched, 1), ended: make(chan struct{})}
	control, err := launches().ask(c, &order)
	if err != nil {
		return &launching{err: err}
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err = control.WriteMsgUnix(order.Encode(), unix.UnixRights(fds...), nil)
	runtime.KeepAlive(files)
	switch {
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, net.ErrClosed): // it has ended
		_ = control.Close()
		<-c.ended
		return &launching{err: errLauncher}
	case err != nil: // which is no reason to end all jails
		launches().forget(order.ID)
		return &launching{err: err}
	}
	return &launching{child: c}
}

// started is the process, once there is one. What a launcher that ended was asked for is asked for anew, from the beginning: the
// first process may have been there, and been told things.
func (l *launching) started() (*child, error) {
	if l.err != nil {
		return nil, l.err
	}
	var a *wire.Launched
	select {
	case a = <-l.child.answer:
	case <-l.child.ended:
		select {
		case a = <-l.child.answer: // which came before
		default:
			l.child.close()
			return nil, errLauncher
		}
	}
	switch {
	case a.InGroup:
		return nil, notInGroup{unix.Errno(a.Errno)}
	case a.Errno != 0:
		return nil, unix.Errno(a.Errno)
	}
	return l.child, nil
}

// notInGroup is why a process was not started in its group.
type notInGroup struct{ error }

// ask registers a child with a launcher that runs.
func (l *launcher) ask(c *child, order *wire.Launch) (*net.UnixConn, error) {
	l.starting.Lock()
	defer l.starting.Unlock()
	if !l.runs() {
		began := make(chan error)
		l.start <- began
		if err := <-began; err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control == nil {
		return nil, errLauncher
	}
	l.next++
	order.ID = l.next
	l.children[order.ID] = c
	return l.control, nil
}

// forget takes back what was asked for and not sent.
func (l *launcher) forget(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.children, id)
}

func (l *launcher) runs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.control != nil
}

var errLauncher = errors.New("the process that starts jails ended")

func (c *child) end(how ending) {
	c.endOnce.Do(func() {
		c.how = how
		close(c.ended)
	})
}

// kill ends the process. A descriptor of it never means another one.
func (c *child) kill() {
	if c.pidfd != nil {
		_ = unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	}
}

// wait returns when the process has ended.
func (c *child) wait() ending {
	<-c.ended
	return c.how
}

func (c *child) close() {
	if c.pidfd != nil {
		_ = c.pidfd.Close()
	}
}

// setupCaps are what the first process needs in its own namespaces to build the jail.
var setupCaps = []uint64{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE, unix.CAP_SETUID, unix.CAP_SETGID}

// orderFor are the namespaces and the user: one line of map, which has no uid 0 inside. A process that need not open
// anything of the host with our rights is that user from the start.
func orderFor(uid int, privileged, become bool, g *group) wire.Launch {
	o := wire.Launch{
		Flags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UID:   insideID, HostUID: uint32(uid), GID: insideID, HostGID: uint32(uid),
		SetGroups: privileged, Take: privileged && !become, Caps: setupCaps,
	}
	if !privileged { // which it is by the map alone
		o.HostGID = uint32(os.Getegid())
	}
	o.Enter, o.Leave = g.tasks()
	return o
}

var namespaces = []string{"user", "mount", "pid", "net", "ipc", "uts", "cgroup"}

// readMessage reads one, with the descriptors sent along. The end of the socket is io.EOF.
func readMessage(c *net.UnixConn, buf, oob []byte) (b []byte, fds []int, err error) {
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if errors.Is(err, unix.ECONNRESET) { // it ended without reading all it was told, which the kernel says once, before what it said itself
		n, oobn, _, _, err = c.ReadMsgUnix(buf, oob)
	}
	if err != nil {
		return nil, nil, err
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
		for i := range messages {
			if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	if n == 0 {
		closeAll(fds)
		return nil, nil, io.EOF
	}
	return buf[:n], fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// proc is the path of a file about the process.
func (c *child) proc(name string) string { return "/proc/" + strconv.Itoa(c.pid) + "/" + name }
