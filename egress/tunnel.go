package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Conn is an agent's connection. What was read ahead of it comes first.
type Conn interface{ net.Conn }

const (
	helloTime = 10 * time.Second
	maxHello  = 32 << 10
	// extECH is encrypted_client_hello: with it the name that is seen is not the one
	// that is meant.
	extECH = 0xfe0d
)

// tunnel joins an agent with a host, once the first thing the agent says is that it
// wants TLS with that very host.
func (c *Client) tunnel(ctx context.Context, p Permit, s *Streams, up, down *tally) error {
	dialling, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	host, err := c.dial(dialling, p)
	if err != nil {
		return failed(ctx, err, false)
	}
	defer func() { _ = host.Close() }()
	agent, err := s.Hijack()
	if err != nil {
		return err
	}
	defer func() { _ = agent.Close() }()
	defer context.AfterFunc(ctx, func() { abort(agent); abort(host) })()

	said, err := readHello(ctx, agent, p.Target.Host)
	if err != nil {
		return errors.Join(ErrAnswered, err)
	}
	if !up.add(int64(len(said))) {
		return errors.Join(ErrAnswered, up.over())
	}
	if _, err := host.Write(said); err != nil {
		return errors.Join(ErrAnswered, failed(ctx, err, true))
	}
	err = join(agent, host, up, down)
	if err == nil && ctx.Err() != nil {
		err = errors.Join(ErrAnswered, writ.Refuse(writ.CodeEffectStopped, "egress.tunnel", "it was cut off before either side had ended it", "a grant says how long a tunnel may last"))
	}
	if err != nil {
		err = &writ.Happened{Err: err} // what was said until then was heard
	}
	return err
}

// join copies both ways until both have ended, or one has failed.
func join(agent, host net.Conn, up, down *tally) error {
	var wg sync.WaitGroup
	var errs [2]error
	way := func(i int, to, from net.Conn, t *tally) {
		wg.Go(func() {
			_, errs[i] = io.Copy(onlyWriter{to}, counted{from, t})
			if half, ok := to.(interface{ CloseWrite() error }); ok && errs[i] == nil {
				_ = half.CloseWrite()
				return
			}
			abort(to)
			abort(from)
		})
	}
	way(0, host, agent, up)
	way(1, agent, host, down)
	wg.Wait()
	for _, err := range errs {
		if e, ok := errors.AsType[*writ.Error](err); ok {
			return errors.Join(ErrAnswered, e)
		}
	}
	return nil // who hangs up ends it, politely or not
}

// abort ends a connection so that the other side does not take it for its end.
func abort(c net.Conn) {
	for inner := c; inner != nil; {
		if tcp, ok := inner.(interface{ SetLinger(int) error }); ok {
			_ = tcp.SetLinger(0)
			break
		}
		next, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = next.NetConn()
	}
	_ = c.Close()
}

// onlyWriter keeps io.Copy from reading past what counts.
type onlyWriter struct{ io.Writer }

// ErrAnswered says that a part of the answer is out, so that nothing else can be
// said in its place.
var ErrAnswered = errors.New("the exchange was broken off")

var errSeen = errors.New("seen")

// readHello reads the ClientHello of an agent and what came with it. It must name
// the host, in the open.
func readHello(ctx context.Context, agent net.Conn, host string) ([]byte, error) {
	_ = agent.SetReadDeadline(time.Now().Add(helloTime))
	r := &listening{Conn: agent}
	var name string
	var hidden, seen bool
	err := tls.Server(r, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, seen, hidden = h.ServerName, true, slices.Contains(h.Extensions, extECH)
		return nil, errSeen
	}}).HandshakeContext(ctx)
	_ = agent.SetReadDeadline(time.Time{})
	const op = "egress.tunnel"
	switch {
	case !seen:
		return nil, &writ.Error{Code: writ.CodeEgress, Op: op, Msg: "what came is no beginning of TLS", Hint: "only TLS passes here", Err: err}
	case hidden:
		return nil, writ.Refuse(writ.CodeEgress, op, "the agent hides which host it means", "do without encrypted client hello")
	case name != host:
		return nil, writ.Refuse(writ.CodeEgress, op, "the agent asks the host for another name than it was let through to", "connect to the host that is meant")
	}
	return r.said, nil
}

// listening is a connection that is read and kept in mind, and never answered.
type listening struct {
	net.Conn
	said []byte
}

func (l *listening) Read(p []byte) (int, error) {
	if len(l.said) >= maxHello {
		return 0, io.ErrShortBuffer
	}
	n, err := l.Conn.Read(p[:min(len(p), maxHello-len(l.said))])
	l.said = append(l.said, p[:n]...)
	return n, err
}

func (l *listening) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
