package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/wire"
)

// Identity is who speaks on a listener, whatever is said there.
type Identity struct {
	Credential writ.Credential
	Jailed     bool // the listener is the only way out of where they are
}

type identityKey struct{}

// identity is who a request comes from, if its listener says so.
func identity(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// Face is a gateway as one session sees it: the API without a token, and the ways
// out. Nothing in a request says who sends it: what would is taken off. gone is called
// when the session is none any more.
func Face(h http.Handler, who Identity, gone func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if speaks(name) {
				delete(r.Header, name)
			}
		}
		ctx := context.WithValue(r.Context(), identityKey{}, who)
		h.ServeHTTP(&watched{w, gone}, r.WithContext(ctx))
	})
}

// speaks says whether a header would say who sends a request, or on whose behalf.
func speaks(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "authorization", "cookie", "forwarded", "x-real-ip", "x-agent-id", "x-session-id", "x-run-id":
		return true
	}
	return strings.HasPrefix(name, "writ-") || strings.HasPrefix(name, "x-writ-") || strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "proxy-")
}

// watched tells when the door does not know the session any more.
type watched struct {
	http.ResponseWriter
	gone func()
}

func (w *watched) WriteHeader(status int) {
	if status == http.StatusUnauthorized && w.gone != nil && w.Header().Get("Effect-Id") == "" {
		w.gone()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// FaceLimits bound what one listener may cost.
type FaceLimits struct {
	Conns      int           // connections at a time; 64 when 0
	HeaderTime time.Duration // to send a head in; ReadHeaderTimeout when 0
	WriteTime  time.Duration // to take an answer in; WriteTimeout when 0. Answers that stream have a time for each part
	Log        *slog.Logger
}

// ServeFace serves one listener until its context ends, and closes it. Requests that
// are under way then are cut off: whoever speaks there has no session any more.
func ServeFace(ctx context.Context, l net.Listener, h http.Handler, limits FaceLimits) error {
	if limits.Conns == 0 {
		limits.Conns = 64
	}
	if limits.HeaderTime == 0 {
		limits.HeaderTime = ReadHeaderTimeout
	}
	if limits.WriteTime == 0 {
		limits.WriteTime = WriteTimeout
	}
	if limits.Log == nil {
		limits.Log = slog.New(slog.DiscardHandler)
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: limits.HeaderTime, WriteTimeout: limits.WriteTime, IdleTimeout: IdleTimeout, MaxHeaderBytes: MaxHeaderBytes,
		ErrorLog:    slog.NewLogLogger(limits.Log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	few := &few{Listener: l, free: make(chan struct{}, limits.Conns), closed: make(chan struct{})}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	err := s.Serve(wire.Listener(few))
	_ = s.Close()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return err
}

// few accepts no more connections than are free. Who comes later waits in the queue
// of the system, which costs nothing here.
type few struct {
	net.Listener
	free   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (f *few) Accept() (net.Conn, error) {
	select {
	case f.free <- struct{}{}:
	case <-f.closed:
		return nil, net.ErrClosed
	}
	c, err := f.Listener.Accept()
	if err != nil {
		<-f.free
		return nil, err
	}
	return &counted{Conn: c, leave: sync.OnceFunc(func() { <-f.free })}, nil
}

func (f *few) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Listener.Close()
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// NetConn is the connection beneath.
func (c *counted) NetConn() net.Conn { return c.Conn }

// CloseWrite ends what is written, if the connection beneath can.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
