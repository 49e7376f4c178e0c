package gateway

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// sessionKey is where the context of a request has who its listener belongs to.
type sessionKey struct{}

// FaceHosts are what the gateway is called on a listener that is a session.
var FaceHosts = []string{"gateway", "localhost", "127.0.0.1", "::1"}

// Limits of a listener that is a session.
const (
	faceConns      = 64
	faceHeaderTime = 5 * time.Second
)

// Face is the API as one session has it: every request is that session's. Whatever
// the request says of who sends it is taken off before anything looks at it, and what
// tells of others (metrics) is not there.
func Face(h http.Handler, who writ.Credential) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/") && r.URL.Path != "/healthz" && r.URL.Path != "/openapi.json" && r.URL.Path != EnvelopePath {
			r.URL.Path, r.URL.RawPath = "/v1/", "" // there is nothing else, and the one handler says so in its own words
		}
		for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
			r.Header.Del(name)
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, &who)))
	})
}

// ServeSession answers on a listener that is a session until the context ends, and
// closes it: then nobody is that session there any more, whatever is under way.
func ServeSession(ctx context.Context, h http.Handler, who writ.Credential, l net.Listener) error {
	s := Server(Face(h, who))
	s.ReadHeaderTimeout = faceHeaderTime
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	return s.Serve(&crowded{Listener: l, room: make(chan struct{}, faceConns)})
}

// crowded is a listener with so many connections at a time; others wait in the
// kernel's queue.
type crowded struct {
	net.Listener
	room chan struct{}
}

func (c *crowded) Accept() (net.Conn, error) {
	c.room <- struct{}{}
	conn, err := c.Listener.Accept()
	if err != nil {
		<-c.room
		return nil, err
	}
	return &guest{Conn: conn, leave: c.room}, nil
}

type guest struct {
	net.Conn
	leave chan struct{}
	once  sync.Once
}

func (g *guest) Close() error {
	defer g.once.Do(func() { <-g.leave })
	return g.Conn.Close()
}
