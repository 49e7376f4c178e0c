package jail

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// ids are those of the jails of this process, whichever Jailer made them.
var ids sync.Map

// called gives a jail its id, which no other has.
func (j *inside) called(id string) error {
	if _, taken := ids.LoadOrStore(id, true); taken {
		return idRefusal()
	}
	ids.Delete(j.id)
	j.id = id
	return nil
}

func idRefusal() *Refusal {
	return refuse(FeatureSpec, nil, "another jail has this id", "give each jail its own")
}

// confine gives it its id and makes the control group.
func (j *inside) confine(s Spec, l Limits) error {
	if err := j.called(s.ID); err != nil {
		return err
	}
	c, err := found()
	if err == nil {
		j.group, err = c.newGroup(s.ID, l)
	}
	switch {
	case errors.Is(err, os.ErrExist): // what was left of one
		return idRefusal()
	case full(err): // there are control groups, so that one may do without them is not said of this machine
		return fullRefusal(err)
	case err != nil && !s.Profile.WithoutCgroup:
		return noCgroup(unnamed(err))
	case err == nil:
		j.features.Cgroup = c.version
		j.features.Controllers = j.group.controllers()
	}
	return nil
}

// begin asks for the first process, which waits for its spec. Until then it has nothing to read from or write to.
func (j *inside) begin() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	j.theirs = append(j.theirs, null)
	mine, theirs, err := socketpair()
	if err != nil {
		return err
	}
	j.control = mine
	j.theirs = append(j.theirs, theirs)
	order, files := orderFor(j.features.HostUID, j.features.Privileged, j.become, j.group), []*os.File{null, null, null, theirs}
	order.Kept = j.kept
	group, err := j.group.open()
	if err != nil {
		return err
	}
	if group != nil {
		j.theirs = append(j.theirs, group)
		order.Group, files = true, append(files, group)
	}
	j.launching = begin(order, files)
	return nil
}

// begun waits for the first process to have been started.
func (j *inside) begun() error {
	process, err := j.launching.started()
	j.launching = nil
	for _, f := range j.theirs {
		_ = f.Close()
	}
	j.theirs = nil
	if in, ok := errors.AsType[notInGroup](err); ok {
		return noCgroup(unnamed(in.error))
	}
	if errors.Is(err, errLauncher) {
		return err
	}
	if err != nil {
		return startRefusal(err)
	}
	if j.process = process; process.pidfd == nil { // it could not be killed, only left without its gateway, which is what undo does
		return fullRefusal(unix.EMFILE)
	}
	return nil
}

// hand gives the first process its spec, with the agent's input and outputs, and the mounts that were made for it.
func (j *inside) hand(ctx context.Context, s Spec, spec *wire.Spec, trees []*os.File) error {
	before := len(j.theirs)
	stdin, stdout, stderr, err := j.streams(s)
	if err != nil {
		return err
	}
	err = j.tell(ctx, spec, append([]*os.File{stdin, stdout, stderr}, trees...))
	for _, f := range j.theirs[before:] {
		_ = f.Close()
	}
	j.theirs = j.theirs[:before]
	return err
}

// streams are the jail's ends of its input and its two outputs.
func (j *inside) streams(s Spec) (stdin, stdout, stderr *os.File, err error) {
	o := s.Output.orDefault()
	if stdin, err = j.input(s.Stdin); err == nil {
		stdout, err = j.capture(&j.out, s.Stdout, o)
	}
	if err == nil {
		stderr, err = j.capture(&j.err, s.Stderr, o)
	}
	return stdin, stdout, stderr, err
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
	j.own(read)
	j.theirs, j.pipes = append(j.theirs, read), append(j.pipes, write)
	j.feed = func() {
		_, _ = io.Copy(write, r)
		_ = write.Close()
	}
	return read, nil
}

func (j *inside) capture(c *capture, w io.Writer, o Output) (*os.File, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	j.own(write)
	j.theirs, j.pipes = append(j.theirs, write), append(j.pipes, read)
	j.copying.Go(func() { c.run(read, w, o, j.wait) })
	return write, nil
}

// wait lets the jail wait for whoever reads what it prints, as long as it lives.
func (j *inside) wait(d time.Duration) {
	select {
	case <-j.dead:
	case <-time.After(d):
	}
}

// own gives the agent an end of a pipe, or it could not open it as /dev/stdout. Where that fails it still has the descriptor.
func (j *inside) own(pipe *os.File) {
	if j.features.Privileged {
		_ = pipe.Chown(j.features.HostUID, j.features.HostUID)
	}
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

// tell sends the first process its spec, which it may not have been started to read yet. One that has ended may have said why.
func (j *inside) tell(ctx context.Context, spec *wire.Spec, files []*os.File) error {
	message := spec.Encode()
	if len(message) > wire.MaxMessage {
		return refuse(FeatureSpec, nil, "it is too long in all", "name fewer scopes, tools and libraries, or shorter arguments")
	}
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_ = j.control.SetDeadline(time.Now().Add(j.start))
	if _, _, err := j.control.WriteMsgUnix(message, rights, nil); err != nil && !ended(err) {
		return j.silent(ctx, err)
	}
	return nil
}

// stands waits until the jail stands, and takes the listeners that were opened in it.
func (j *inside) stands(ctx context.Context, opened int) error {
	_ = j.control.SetDeadline(time.Now().Add(j.start))
	stop := context.AfterFunc(ctx, func() { _ = j.control.SetDeadline(time.Now()) })
	defer stop()
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
	if err == nil && (r.Kind != wire.Ready || len(got) != opened) {
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
	if opened > 0 {
		j.tcp, j.unix = listeners[0], listeners[1]
	}
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
		return gone(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(FeatureInit, nil, "it did not stand in time", "try again when the machine is less busy")
	case ended(err):
		return refuse(FeatureInit, err, "the first process ended", "look for its end in the kernel's log: the limit of memory may be too low for it (16 MiB)")
	}
	return err
}

// ended says whether an error of the socket is that nobody is at its other end.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

func gone(ctx context.Context) *Refusal {
	return refuse(FeatureInit, ctx.Err(), "whoever asked for it has gone", "ask again")
}
