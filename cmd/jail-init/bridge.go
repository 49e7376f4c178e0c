//go:build linux

package main

import (
	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// maxBridged is how many connections are carried at a time; more wait.
const maxBridged = 128

// way is one direction of a connection.
type way struct {
	from, to int
	buf      []byte // to be written
	eof      bool   // nothing more will be read
	shut     bool   // and to was told
}

// carried is a connection with both its ends.
type carried struct {
	in, out int
	ways    [2]way // there and back
	want    [2]uint32
}

// bridge takes each connection to the door. It is one thread, however many there are: the agent chooses that.
func bridge(tcp int) {
	b := &bridged{tcp: tcp, ends: map[int32]*carried{}, buf: make([]byte, 16<<10)}
	var err error
	b.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must("bridge", "", err)
	must("bridge", "", unix.SetNonblock(tcp, true))
	b.listen(true)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(b.poll, events, -1)
		if err == unix.EINTR {
			continue
		}
		must("bridge", "", err)
		for _, e := range events[:n] {
			if e.Fd == int32(tcp) {
				b.accept()
			} else if c := b.ends[e.Fd]; c != nil { // it may have ended with an event before
				b.carry(c, e)
			}
		}
	}
}

type bridged struct {
	poll, tcp int
	listens   bool
	ends      map[int32]*carried // by both descriptors
	buf       []byte
}

func (b *bridged) listen(yes bool) {
	if b.listens == yes {
		return
	}
	op := unix.EPOLL_CTL_DEL
	if yes {
		op = unix.EPOLL_CTL_ADD
	}
	must("bridge", "", unix.EpollCtl(b.poll, op, b.tcp, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(b.tcp)}))
	b.listens = yes
}

func (b *bridged) accept() {
	in, _, err := unix.Accept4(b.tcp, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		if err != unix.EAGAIN && err != unix.EINTR && err != unix.ECONNABORTED { // no room: not at once again
			_, _ = unix.Poll(nil, 20)
		}
		return
	}
	out, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == nil {
		err = unix.Connect(out, &unix.SockaddrUnix{Name: wire.SandboxTCP}) // of a unix socket it is at once, or not at all
	}
	c := &carried{in: in, out: out, ways: [2]way{{from: in, to: out}, {from: out, to: in}}}
	for i, fd := range []int{in, out} {
		if err == nil {
			c.want[i] = unix.EPOLLIN
			err = unix.EpollCtl(b.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
	}
	if err != nil {
		b.end(c)
		return
	}
	b.ends[int32(in)], b.ends[int32(out)] = c, c
	b.listen(len(b.ends) < 2*maxBridged)
}

// carry moves what can be moved.
func (b *bridged) carry(c *carried, e unix.EpollEvent) {
	good := true
	for i := range c.ways {
		good = good && b.move(&c.ways[i])
	}
	gone := e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0
	for i := range c.ways {
		if gone && int32(c.ways[i].from) == e.Fd && c.ways[i].eof { // nobody is left to write to, either
			good = false
		}
	}
	if !good || c.ways[0].shut && c.ways[1].shut {
		b.end(c)
		return
	}
	for i, fd := range []int{c.in, c.out} { // way i comes from it, the other goes to it
		want := uint32(0)
		if w := &c.ways[i]; !w.eof && len(w.buf) == 0 {
			want |= unix.EPOLLIN
		}
		if len(c.ways[1-i].buf) > 0 {
			want |= unix.EPOLLOUT
		}
		if want != c.want[i] {
			c.want[i] = want
			must("bridge", "", unix.EpollCtl(b.poll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: want, Fd: int32(fd)}))
		}
	}
}

// move passes on what is there, some of it at a time so that every connection has its turn. It is false when nothing can be
// written any more.
func (b *bridged) move(w *way) bool {
	for range 8 {
		if len(w.buf) == 0 && !w.eof {
			n, err := unix.Read(w.from, b.buf)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return true
			case err != nil || n == 0:
				w.eof = true
			default:
				w.buf = append(w.buf[:0], b.buf[:n]...)
			}
		}
		if len(w.buf) > 0 {
			n, err := unix.SendmsgN(w.to, w.buf, nil, nil, unix.MSG_NOSIGNAL)
			switch {
			case err == unix.EAGAIN:
				return true
			case err != nil && err != unix.EINTR:
				return false
			}
			w.buf = w.buf[max(n, 0):]
			continue
		}
		if w.eof && !w.shut {
			w.shut = true
			_ = unix.Shutdown(w.to, unix.SHUT_WR)
		}
		if w.eof {
			return true
		}
	}
	return true
}

func (b *bridged) end(c *carried) {
	delete(b.ends, int32(c.in))
	delete(b.ends, int32(c.out))
	_ = unix.Close(c.in)
	_ = unix.Close(c.out)
	b.listen(true)
}
