package wire

import (
	"bytes"
	"errors"
	"net"
	"slices"
)

// ErrMalformed ends a connection whose bytes are not one request after another.
// net/http answers 400 to it.
var ErrMalformed = errors.New("the bytes are not HTTP/1.1 in its strict form")

// MaxHead bounds request line and headers of one request.
const MaxHead = 16 << 10

// Listener makes connections of l strict.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

// Where a connection stands: what its next byte belongs to.
type state int

const (
	inHead    state = iota
	inBody          // left bytes of it
	inSize          // the line before a chunk
	inChunk         // left bytes of it, the CRLF behind it among them
	inTrailer       // behind the last chunk
	inTunnel        // behind a CONNECT: whatever it is
)

// conn lets bytes through once it knows what they are. It is read by one goroutine
// at a time, as net/http does; a read that a deadline ended can be tried again.
type conn struct {
	net.Conn
	buf   []byte // what came and was not read
	valid int    // how much of it may be
	state state
	left  int64
	err   error
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.valid > 0 {
			n := copy(p, c.buf[:c.valid])
			c.valid -= n
			c.buf = c.buf[n:]
			return n, nil
		}
		if c.err != nil {
			return 0, c.err
		}
		if c.advance(); c.valid > 0 || c.err != nil {
			continue
		}
		if len(c.buf) == 0 && (c.state == inBody || c.state == inTunnel) { // no need to look at it
			most := int64(len(p))
			if c.state == inBody {
				most = min(most, c.left)
			}
			n, err := c.Conn.Read(p[:most])
			c.passed(int64(n))
			return n, err
		}
		c.buf = slices.Grow(c.buf, 4096)
		n, err := c.Conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if n == 0 && err != nil {
			return 0, err
		}
	}
}

// NetConn is the connection beneath.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends what is written, if the connection beneath can.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// passed counts bytes of a body that were let through.
func (c *conn) passed(n int64) {
	if c.state == inBody {
		if c.left -= n; c.left == 0 {
			c.state = inHead
		}
	}
}

// advance looks at what was not looked at, up to the next thing there is to know.
func (c *conn) advance() {
	if len(c.buf) == 0 {
		return
	}
	switch c.state {
	case inHead:
		end := bytes.Index(c.buf, []byte("\r\n\r\n"))
		switch {
		case end >= 0 && end <= MaxHead-4:
			next, left, ok := readHead(c.buf[:end+2])
			if !ok {
				c.err = ErrMalformed
				return
			}
			c.valid, c.state, c.left = end+4, next, left
		case end >= 0, len(c.buf) > MaxHead, !plausible(c.buf):
			c.err = ErrMalformed
		}
	case inBody:
		c.valid = int(min(int64(len(c.buf)), c.left))
		c.passed(int64(c.valid))
	case inTunnel:
		c.valid = len(c.buf)
	case inSize:
		line, ok := c.line(18)
		if !ok {
			return
		}
		n, ok := chunkSize(line)
		switch {
		case !ok:
			c.err = ErrMalformed
		case n == 0:
			c.valid, c.state = len(line)+2, inTrailer
		default:
			c.valid, c.state, c.left = len(line)+2, inChunk, n+2
		}
	case inChunk:
		n := min(int64(len(c.buf)), c.left)
		for i := range n { // the last two are a CRLF
			if at := c.left - i; at <= 2 && c.buf[i] != "\n\r"[at-1] {
				c.err = ErrMalformed
				return
			}
		}
		c.valid = int(n)
		if c.left -= n; c.left == 0 {
			c.state = inSize
		}
	case inTrailer: // nobody here has a use for one
		line, ok := c.line(0)
		if ok && len(line) == 0 {
			c.valid, c.state = 2, inHead
		}
	}
}

// line is the next line without its CRLF, if it has come. One that is longer than
// most ends the connection, and so does a CR or LF alone.
func (c *conn) line(most int) ([]byte, bool) {
	end := bytes.IndexAny(c.buf, "\r\n")
	switch {
	case end < 0 && len(c.buf) > most, end > most, end >= 0 && c.buf[end] == '\n', end >= 0 && end+1 < len(c.buf) && c.buf[end+1] != '\n':
		c.err = ErrMalformed
		return nil, false
	case end < 0 || end+1 == len(c.buf):
		return nil, false
	}
	return c.buf[:end], true
}
