package jail

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// process is what runs a jail, and all that is of it.
type process interface {
	kill()
	wait() ending
	close()
}

// ending is how a first process itself ended.
type ending struct {
	cpu    time.Duration
	status syscall.WaitStatus
}

// String is "signal 9" or "exit 125".
func (e ending) String() string {
	if e.status.Signaled() {
		return fmt.Sprintf("signal %d", int(e.status.Signal()))
	}
	return fmt.Sprintf("exit %d", e.status.ExitStatus())
}

// inside is a jail that stands, or is being made.
type inside struct {
	id       string
	features Features
	become   bool // the first process opens what is of the host with our rights, and takes the jail's user then
	kept     bool // the first process is there before the jail is asked for
	start    time.Duration
	began    time.Time

	launching *launching // until there is a process
	process   process
	control   *net.UnixConn
	group     *group
	release   func() // gives the user back
	tcp       net.Listener
	unix      net.Listener
	deadline  time.Duration

	feed     func()     // passes input on, once there is a jail that it is for
	pipes    []*os.File // ours
	theirs   []*os.File // the jail's, until it has them
	out, err capture
	copying  sync.WaitGroup
	dead     chan struct{} // closed when no process of it is left

	goOnce  sync.Once
	started chan error // what became of Go, once
	mu      sync.Mutex
	why     string        // of Kill
	spent   time.Duration // CPU time, as last seen
	report  *wire.Report
	late    *time.Timer
	over    bool // nothing of it is left to kill
	refused *Refusal
	exit    Exit
	done    chan struct{}
}

func newInside(start time.Duration) *inside {
	return &inside{start: start, done: make(chan struct{}), dead: make(chan struct{}), started: make(chan error, 1)}
}

func (j *inside) undo() {
	if j.launching != nil {
		_ = j.begun()
	}
	if j.control != nil {
		_ = j.control.Close() // by which a first process ends that there is no descriptor of, to kill it by
	}
	if j.process != nil {
		j.process.kill()
		j.process.wait()
		j.process.close()
	}
	for _, l := range []net.Listener{j.tcp, j.unix} {
		if l != nil {
			_ = l.Close()
		}
	}
	close(j.dead)
	for _, f := range j.theirs {
		_ = f.Close()
	}
	j.drain()
	for _, f := range j.pipes {
		_ = f.Close()
	}
	j.giveBack()
}

// giveBack lets others have what no two jails have at a time.
func (j *inside) giveBack() {
	j.group.remove()
	if j.release != nil {
		j.release()
	}
	ids.Delete(j.id)
}

func (j *inside) Listeners() (tcp, unix net.Listener) { return j.tcp, j.unix }

func (j *inside) Features() Features { return j.features }

func (j *inside) Go() error {
	err := errors.New("the jail was started before")
	j.goOnce.Do(func() { err = j.goNow() })
	return err
}

func (j *inside) goNow() error {
	if _, err := j.control.Write([]byte(wire.Go)); err != nil { // it has ended, and may have said why
		j.Kill(Lost)
	}
	late := time.AfterFunc(j.start, func() { j.Kill(Lost) })
	defer late.Stop()
	if err := <-j.started; err != nil {
		<-j.done
		return err
	}
	if j.deadline > 0 { // the first process has a clock too; this one holds if it does not
		j.mu.Lock()
		j.late = time.AfterFunc(j.deadline+time.Second/4, func() { j.Kill(Deadline) })
		j.mu.Unlock()
	}
	return nil
}

func (j *inside) ended() error {
	return refuse(FeatureInit, nil, "the jail ended before its agent was started", "make another; Exit says why this one ended")
}

func (j *inside) Kill(reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over { // another jail may have its name by now
		return
	}
	if j.why == "" && j.report == nil {
		j.why = reason
	}
	j.seen(j.group.spent()) // of processes that are killed with their first one nobody is told what they used
	j.process.kill()
	j.group.kill()
}

func (j *inside) Wait() Exit {
	<-j.done
	return j.exit
}

func (j *inside) Usage() Usage {
	select {
	case <-j.done:
		return j.exit.Usage
	default:
	}
	u := Usage{Wall: time.Since(j.began), Stdout: j.out.total.Load(), Stderr: j.err.total.Load()}
	j.group.usage(&u)
	j.group.now(&u)
	j.mu.Lock()
	j.seen(u.CPU)
	j.mu.Unlock()
	if u.Processes = max(u.Processes-1, 0); j.features.Runtime != "" { // those of a sandbox are its own affair
		u.Processes = 0
	}
	return u
}

// seen notes CPU time that was looked at while it ran: at the end it is not less. The caller holds mu.
func (j *inside) seen(cpu time.Duration) { j.spent = max(j.spent, cpu) }

// watch hears what becomes of the jail, and clears up after it.
func (j *inside) watch() {
	if j.feed != nil {
		go j.feed()
	}
	told := false
	tell := func(err error) {
		if !told {
			told = true
			j.started <- err
		}
	}
	for {
		r, fds, err := j.receive()
		closeAll(fds)
		if err != nil {
			break
		}
		switch r.Kind {
		case wire.Started:
			tell(nil)
		case wire.Failed:
			j.mu.Lock()
			j.refused = failure(r)
			j.mu.Unlock()
			tell(j.refused)
		case wire.Exited:
			j.mu.Lock()
			if j.report == nil {
				j.report = r
			}
			j.mu.Unlock()
		}
	}
	j.process.kill() // it has nothing to say any more
	end := j.process.wait()
	close(j.dead)
	_ = j.tcp.Close()
	_ = j.unix.Close()
	j.drain()
	for _, f := range j.pipes {
		_ = f.Close()
	}
	_ = j.control.Close()
	j.conclude(end)
	j.giveBack()
	close(j.done)
	tell(j.ended())
}

// drain waits until all output was passed on. Nobody of the jail lives, but an agent may have sent an end of its
// pipes to the gateway, where it lies in a connection nobody reads: what is in the pipe then is the end.
func (j *inside) drain() {
	done := make(chan struct{})
	go func() {
		j.copying.Wait()
		close(done)
	}()
	for patience := maxDrains; patience > 0; patience-- {
		select {
		case <-done:
			return
		case <-time.After(time.Second / 2):
			if !slices.ContainsFunc(j.outputs(), unread) {
				patience = 0
			}
		}
	}
	for _, f := range j.outputs() {
		_ = f.SetReadDeadline(time.Now())
	}
	<-done
}

const maxDrains = 20

// outputs are the pipes that are read here; there may be one more, which is written.
func (j *inside) outputs() []*os.File { return j.pipes[max(len(j.pipes)-2, 0):] }

// unread says whether there is something in a pipe that somebody is slow to take.
func unread(f *os.File) bool {
	c, err := f.SyscallConn()
	n := 0
	if err == nil {
		_ = c.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return err == nil && n > 0
}

// conclude says how it ended.
func (j *inside) conclude(end ending) {
	u := Usage{Wall: time.Since(j.began), CPU: end.cpu, Stdout: j.out.total.Load(), Stderr: j.err.total.Load()}
	j.group.usage(&u)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seen(u.CPU)
	u.CPU = j.spent
	j.over = true
	j.process.close()
	if j.late != nil {
		j.late.Stop()
	}
	e := Exit{Usage: u, Truncated: j.out.truncated.Load() || j.err.truncated.Load()}
	killed := codeSignal + int(unix.SIGKILL)
	switch {
	case j.refused != nil:
		e.Code, e.Reason = j.refused.Code, Refused
	case j.why == Deadline, j.report != nil && j.report.Why == wire.ByDeadline:
		e.Code, e.Reason = CodeDeadline, Deadline
	case j.report != nil:
		status := syscall.WaitStatus(j.report.Status)
		e.Code, e.Reason = status.ExitStatus(), Exited
		if status.Signaled() {
			e.Signal, e.Code, e.Reason = int(status.Signal()), codeSignal+int(status.Signal()), Signaled
			if status.Signal() == unix.SIGKILL && u.OOMKills > 0 {
				e.Reason = OOM
			}
		}
	case j.why != "":
		e.Code, e.Signal, e.Reason = killed, int(unix.SIGKILL), j.why
	default:
		e.Code, e.Signal, e.Reason = killed, int(unix.SIGKILL), Lost
		if u.OOMKills > 0 {
			e.Reason = OOM
		}
	}
	if e.Reason == Lost {
		e.First = end.String()
	}
	j.exit = e
}
