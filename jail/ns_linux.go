package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/seccomp"
	"github.com/writ-gateway/writ/jail/wire"
)

// Options are what the jails of one process share. The zero value is good.
type Options struct {
	FirstUID, UIDs int           // users of the host for jails, where the gateway is root; 61000 and 1000
	Start          time.Duration // how long making a jail, and starting its agent, may take; 10 s
}

// New makes jails of namespaces, in this process. It fails at nothing: what is missing is said by Preflight.
func New(o Options) Jailer {
	if o.FirstUID == 0 {
		o.FirstUID = 61000
	}
	if o.UIDs == 0 {
		o.UIDs = 1000
	}
	if o.Start == 0 {
		o.Start = 10 * time.Second
	}
	return &ns{
		Options: o,
		users:   &users{first: o.FirstUID, n: o.UIDs, taken: map[int]bool{}, translators: map[translation]*os.File{}},
	}
}

type ns struct {
	Options
	users *users
}

func (n *ns) Preflight(ctx context.Context, p Profile) (Features, error) {
	s := Spec{ID: fmt.Sprintf("preflight-%d", preflights.next()), Profile: p, Agent: Program{Path: "/preflight"}}
	j, err := n.spawn(ctx, s, true)
	if err != nil {
		return Features{}, err
	}
	// Everything is tried up to starting a program, of which there is none.
	err = j.Go()
	j.Kill("preflight")
	j.Wait()
	if r, ok := errors.AsType[*Refusal](err); ok && r.Feature == FeatureAgent {
		return j.Features(), nil
	}
	return Features{}, err
}

var preflights counter

type counter struct {
	mu sync.Mutex
	n  int64
}

func (c *counter) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (n *ns) Spawn(ctx context.Context, s Spec) (Jail, error) {
	j, err := n.spawn(ctx, s, false)
	if err != nil {
		return nil, err
	}
	return j, nil
}

// spawn makes a jail. What it has made is undone when a later step fails.
func (n *ns) spawn(ctx context.Context, s Spec, empty bool) (made *inside, err error) {
	j := &inside{start: n.Start, began: time.Now(), done: make(chan struct{}), started: make(chan error, 1)}
	defer func() {
		if err != nil {
			j.undo()
			err = asRefusal(err)
		}
	}()
	j.features = Features{
		Backend: "ns", Kernel: kernel(), Profile: s.Profile.Name, Privileged: privileged(), Namespaces: namespaces,
		Landlock: landlockABI(), Cgroup: "none", Proc: !s.Profile.WithoutProc,
	}
	if least := max(s.Profile.MinLandlock, 1); j.features.Landlock < least {
		return nil, refuse(FeatureLandlock, nil, fmt.Sprintf("this kernel has ABI %d of Landlock, and the profile wants %d", j.features.Landlock, least),
			"use a newer kernel (ABI 4 came with 6.7), and put landlock among those of the lsm= parameter")
	}
	filter, err := filterOf(s.Profile)
	if err != nil {
		return nil, refuse(FeaturePlatform, err, "there are jails on amd64 and arm64 only", "run the agent on such a machine")
	}
	j.features.Seccomp = filter.Digest()
	var p *plan
	if empty {
		p, err = emptyPlan(s, j.features.Landlock)
	} else {
		p, err = planOf(s, j.features.Landlock)
	}
	if err != nil {
		return nil, err
	}
	p.Filter = filter.Program
	j.features.Limits = s.Limits.orDefault()
	if err := n.user(j, s); err != nil {
		return nil, err
	}
	if err := j.confine(s); err != nil {
		return nil, err
	}
	trees, err := n.trees(p, j)
	defer func() {
		for _, t := range trees {
			_ = t.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := j.launch(s, p.Become); err != nil {
		return nil, err
	}
	if err := j.build(ctx, &p.Spec, trees); err != nil {
		return nil, err
	}
	go j.watch()
	return j, nil
}

// filters are those assembled so far: there are few, and assembling one takes a while.
var filters sync.Map

func filterOf(p Profile) (seccomp.Filter, error) {
	o := seccomp.Options{Datagrams: p.Datagrams, MemfdExec: p.MemfdExec, Execveat: p.Execveat, Splice: p.Splice}
	if f, ok := filters.Load(o); ok {
		return f.(seccomp.Filter), nil
	}
	f, err := seccomp.New(runtime.GOARCH, o)
	if err == nil {
		filters.Store(o, f)
	}
	return f, err
}

// emptyPlan is that of a jail with nothing of the caller's in it.
func emptyPlan(s Spec, abi int) (*plan, error) {
	s.Limits = s.Limits.orDefault()
	p := &plan{Spec: wire.Spec{
		UID: insideID, GID: insideID, Hostname: "jail",
		ReadOnly: []string{"/", "/run", "/dev"}, Socket: socketPath, Port: gatewayTCP,
		Exec: "/agent/none", Args: []string{"none"}, Dir: "/tmp", Landlock: rulesFor(abi, s.Profile),
	}}
	p.furnish(s)
	return p, nil
}

func (n *ns) user(j *inside, s Spec) error {
	uid := os.Geteuid()
	switch {
	case j.features.Privileged:
		got, err := n.users.take(s.HostUID)
		if err != nil {
			return err
		}
		j.release = func() { n.users.give(got) }
		uid = got
	case s.HostUID != 0 && s.HostUID != uid:
		return refuse(FeatureHostUID, nil, "only root of the machine runs an agent as another user", "leave the host user out, or run the gateway as root")
	}
	if uid == 0 && rootOfMachine() {
		return refuse(FeatureHostUID, nil, "the agent would be root of the host", "give this process CAP_SETUID and CAP_SETGID, or run it as an ordinary user")
	}
	j.features.HostUID = uid
	return nil
}

// trees are the mounts this process makes and hands over: with all of root's rights, every one of the host's. A scope
// is shown as the jail's own. One that is only read, and cannot be shown so, is shown as what it is: the jail may then
// read less of it.
func (n *ns) trees(p *plan, j *inside) (out []*os.File, err error) {
	if !j.features.Privileged {
		return nil, nil
	}
	if !hasCap(unix.CAP_SYS_ADMIN) {
		p.Become = true
		for _, i := range p.shared {
			if m := &p.Mounts[i]; m.Attr&unix.MOUNT_ATTR_RDONLY == 0 && !ownedBy(m.Source, j.features.HostUID) {
				return nil, scopeRefusal(nil, j.features.HostUID)
			}
		}
		return nil, nil
	}
	for i := range p.Mounts {
		m := &p.Mounts[i]
		if m.Kind != wire.Bind {
			continue
		}
		if len(out) == wire.MaxDescriptors {
			return out, refuse(FeatureSpec, nil, "it shows too much of the host", "name directories rather than what is in them")
		}
		uid := asItIs
		if slices.Contains(p.shared, i) {
			uid = j.features.HostUID
		}
		f, err := n.users.tree(*m, uid)
		if r, ok := errors.AsType[*Refusal](err); ok && r.Feature == FeatureScope && m.Attr&unix.MOUNT_ATTR_RDONLY != 0 {
			f, err = n.users.tree(*m, asItIs)
		}
		if err != nil {
			return out, err
		}
		m.FD = int32(len(out))
		out = append(out, f)
	}
	return out, nil
}

// inside is a jail of namespaces.
type inside struct {
	features Features
	start    time.Duration
	began    time.Time

	process  *child
	control  *net.UnixConn
	group    *group
	release  func() // gives the user back
	tcp      net.Listener
	unix     net.Listener
	deadline time.Duration

	pipes    []*os.File // ours
	theirs   []*os.File // the jail's, until it has them
	out, err capture
	copying  sync.WaitGroup

	goOnce  sync.Once
	started chan error // what became of Go, once
	mu      sync.Mutex
	why     string // of Kill
	report  *wire.Report
	late    *time.Timer
	over    bool // nothing of it is left to kill
	refused *Refusal
	exit    Exit
	done    chan struct{}
}

// confine makes the control group.
func (j *inside) confine(s Spec) error {
	c, err := ours()
	if err == nil {
		j.group, err = c.newGroup(s.ID, j.features.Limits)
	}
	switch {
	case errors.Is(err, os.ErrExist):
		return refuse(FeatureSpec, nil, "another jail has this id", "give each jail its own")
	case err != nil && !s.Profile.WithoutCgroup:
		return noCgroup(unnamed(err))
	case err == nil:
		j.features.Cgroup = c.version
		j.features.Controllers = j.group.controllers()
	}
	return nil
}

// launch starts the first process, which waits for its spec.
func (j *inside) launch(s Spec, become bool) error {
	j.deadline = s.Deadline
	stdin, err := j.input(s.Stdin)
	if err != nil {
		return err
	}
	o := s.Output.orDefault()
	stdout, err := j.capture(&j.out, s.Stdout, o)
	if err != nil {
		return err
	}
	stderr, err := j.capture(&j.err, s.Stderr, o)
	if err != nil {
		return err
	}
	mine, theirs, err := socketpair()
	if err != nil {
		return err
	}
	j.control = mine
	j.theirs = append(j.theirs, theirs)
	order, files := orderFor(j.features.HostUID, j.features.Privileged, become, j.group), []*os.File{stdin, stdout, stderr, theirs}
	group, err := j.group.open()
	if err != nil {
		return err
	}
	if group != nil {
		j.theirs = append(j.theirs, group)
		order.Group, files = true, append(files, group)
	}
	j.process, err = launch(order, files)
	for _, f := range j.theirs {
		_ = f.Close()
	}
	j.theirs = nil
	if in, ok := errors.AsType[notInGroup](err); ok {
		return noCgroup(unnamed(in.error))
	}
	if err != nil {
		return startRefusal(err)
	}
	return nil
}

func (j *inside) input(r io.Reader) (*os.File, error) {
	if r == nil {
		null, err := os.Open(os.DevNull)
		if err == nil {
			j.theirs = append(j.theirs, null)
		}
		return null, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	j.theirs, j.pipes = append(j.theirs, read), append(j.pipes, write)
	go func() {
		_, _ = io.Copy(write, r)
		_ = write.Close()
	}()
	return read, nil
}

func (j *inside) capture(c *capture, w io.Writer, o Output) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	j.theirs, j.pipes = append(j.theirs, write), append(j.pipes, read)
	j.copying.Go(func() { c.run(read, w, o) })
	return write, nil
}

// socketpair is the one way to talk to the first process: whole messages, and descriptors.
func socketpair() (mine *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer func() { _ = near.Close() }()
	c, err := net.FileConn(near)
	if err != nil {
		_ = far.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), far, nil
}

// build sends the spec and waits until the jail stands.
func (j *inside) build(ctx context.Context, spec *wire.Spec, trees []*os.File) error {
	message := spec.Encode()
	if len(message) > wire.MaxMessage {
		return refuse(FeatureSpec, nil, "it is too long in all", "name fewer scopes, tools and libraries, or shorter arguments")
	}
	var fds []int
	for _, t := range trees {
		fds = append(fds, int(t.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	stop := context.AfterFunc(ctx, func() { _ = j.control.SetDeadline(time.Now()) })
	defer stop()
	_ = j.control.SetDeadline(time.Now().Add(j.start))
	if _, _, err := j.control.WriteMsgUnix(message, rights, nil); err != nil {
		return j.silent(ctx, err)
	}
	r, got, err := j.receive()
	if err != nil {
		return j.silent(ctx, err)
	}
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	_ = j.control.SetDeadline(time.Time{})
	if err == nil && r.Kind == wire.Failed {
		err = failure(r)
	}
	if err == nil && (r.Kind != wire.Ready || len(got) != 2) {
		err = errors.New("the first process said something else than that it is ready")
	}
	var listeners []net.Listener
	for _, fd := range got {
		f := os.NewFile(uintptr(fd), "listener")
		if err == nil {
			var l net.Listener
			if l, err = net.FileListener(f); err == nil {
				listeners = append(listeners, l)
			}
		}
		_ = f.Close()
	}
	if err != nil {
		for _, l := range listeners {
			_ = l.Close()
		}
		return err
	}
	j.tcp, j.unix = listeners[0], listeners[1]
	j.features.UsernsLimit = r.UsernsLimit
	return nil
}

func (j *inside) receive() (*wire.Report, []int, error) {
	b, fds, err := readMessage(j.control, make([]byte, 4096), make([]byte, unix.CmsgSpace(4*4)))
	if err != nil {
		return nil, nil, err
	}
	r := new(wire.Report)
	if !r.Decode(b) {
		closeAll(fds)
		return nil, nil, errors.New("the first process said what nobody understands")
	}
	return r, fds, nil
}

// silent is why nothing was heard of the first process.
func (j *inside) silent(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return refuse(FeatureInit, ctx.Err(), "whoever asked for it has gone", "ask again")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(FeatureInit, nil, "it did not stand in time", "try again when the machine is less busy")
	case errors.Is(err, io.EOF), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return refuse(FeatureInit, err, "the first process ended", "look for its end in the kernel's log: the limit of memory may be too low for it (16 MiB)")
	}
	return err
}

func (j *inside) undo() {
	if j.process != nil {
		j.process.kill()
		j.process.wait()
		j.process.close()
	}
	for _, f := range j.theirs {
		_ = f.Close()
	}
	j.copying.Wait()
	for _, f := range j.pipes {
		_ = f.Close()
	}
	if j.control != nil {
		_ = j.control.Close()
	}
	j.group.remove()
	if j.release != nil {
		j.release()
	}
}

func (j *inside) Listeners() (tcp, unix net.Listener) { return j.tcp, j.unix }

func (j *inside) Features() Features { return j.features }

func (j *inside) Go() error {
	err := errors.New("the jail was started before")
	j.goOnce.Do(func() { err = j.goNow() })
	return err
}

func (j *inside) goNow() error {
	if _, err := j.control.Write([]byte(wire.Go)); err != nil {
		j.Kill(Lost)
		return j.ended()
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
	return u
}

// watch hears what becomes of the jail, and clears up after it.
func (j *inside) watch() {
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
	cpu := j.process.wait()
	j.copying.Wait()
	for _, f := range j.pipes {
		_ = f.Close()
	}
	_ = j.control.Close()
	_ = j.tcp.Close()
	_ = j.unix.Close()
	j.conclude(cpu)
	j.group.remove()
	if j.release != nil {
		j.release()
	}
	close(j.done)
	tell(j.ended())
}

// conclude says how it ended.
func (j *inside) conclude(cpu time.Duration) {
	u := Usage{Wall: time.Since(j.began), CPU: cpu, Stdout: j.out.total.Load(), Stderr: j.err.total.Load()}
	j.group.usage(&u)
	j.mu.Lock()
	defer j.mu.Unlock()
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
	j.exit = e
}

func kernel() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

func asRefusal(err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return refuse(FeatureInit, err, "something of this machine failed", "`writ jail doctor` tries each part by itself")
}
