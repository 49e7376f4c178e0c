package egress

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
	"github.com/writ-gateway/writ/egress/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is an agent, a proxy, and a host on loopback that the name host.example leads
// to, as far as it is granted.
type lab struct {
	t       *testing.T
	client  *Client
	permit  Permit                         // what is permitted, but for what the attempt says
	grants  func(a Attempt) bool           // nil: any
	names   func(string) ([]string, error) // nil: all lead to loopback
	lookups atomic.Int64                   // of names
	denied  atomic.Int64                   // attempts that could not be judged
	agent   *httptest.Server               // what the agent talks to
	errs    chan error                     // what became of exchanges
	outcome chan Outcome                   //
	inject  func(h http.Header) error      //
	host    netip.AddrPort                 //
	own     atomic.Pointer[netip.AddrPort] // the gateway's own address
	roots   *x509.CertPool                 //
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// newLab permits everything that goes to host.example, which is at h.
func newLab(t *testing.T, h http.Handler) *lab {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return labFor(t, s.Listener.Addr(), "http", nil)
}

func labFor(t *testing.T, at net.Addr, scheme string, roots *x509.CertPool) *lab {
	t.Helper()
	return labWith(t, at, scheme, roots, 5*time.Second)
}

// labWith gives parts of requests so much time.
func labWith(t *testing.T, at net.Addr, scheme string, roots *x509.CertPool, each time.Duration) *lab {
	t.Helper()
	l := &lab{t: t, errs: make(chan error, 100), outcome: make(chan Outcome, 100), host: netip.MustParseAddrPort(at.String()), roots: roots}
	l.client = New(Config{
		Roots: roots,
		Own:   func(a netip.AddrPort) bool { own := l.own.Load(); return own != nil && *own == a },
		Lookup: func(_ context.Context, name string) (out []netip.Addr, err error) {
			l.lookups.Add(1)
			list := []string{"127.0.0.1"}
			if l.names != nil {
				if list, err = l.names(name); err != nil {
					return nil, err
				}
			}
			for _, a := range list {
				out = append(out, netip.MustParseAddr(a))
			}
			return out, nil
		},
	})
	l.permit = Permit{Scheme: scheme, Target: target.Target{Host: "host.example", Port: l.host.Port()}, Private: loopback, Up: 1 << 20, Down: 1 << 20, Time: 10 * time.Second}
	proxy := &Proxy{Auth: l, BodyTime: each, Fail: func(w http.ResponseWriter, _ *http.Request, err error) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, writ.CodeOf(err))
	}}
	l.agent = httptest.NewUnstartedServer(proxy)
	l.agent.Listener = wire.Listener(l.agent.Listener)
	l.agent.Config.ReadHeaderTimeout, l.agent.Config.WriteTimeout = each, each
	l.agent.Start()
	t.Cleanup(l.agent.Close)
	return l
}

// Authorize implements Authorizer.
func (l *lab) Authorize(ctx context.Context, a Attempt, s *Streams) error {
	p := l.permit
	switch {
	case l.grants != nil && !l.grants(a), a.Mode == Reverse && a.Grant != "host", a.Mode != Reverse && a.Target != p.Target:
		return writ.Refuse(writ.CodeEgress, "lab", "no grant", "")
	}
	p.Mode, p.Method, p.Path, p.Query = a.Mode, a.Method, a.Path, a.Query
	if l.inject != nil {
		p.Inject = func(_ context.Context, h http.Header) error { return l.inject(h) }
	}
	out, err := l.client.Carry(ctx, p, s)
	l.errs <- err
	l.outcome <- out
	return err
}

// Deny implements Authorizer.
func (l *lab) Deny(_ context.Context, _, _ string, why error) error {
	l.denied.Add(1)
	return why
}

// ask makes a request in bytes and reads the answer.
func (l *lab) ask(text string) (status int, body string, h http.Header, err error) {
	l.t.Helper()
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		l.t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), res.Header, err
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: gateway\r\n\r\n" }

func (l *lab) want(text string, status int, body string) http.Header {
	l.t.Helper()
	got, b, h, err := l.ask(text)
	if err != nil || got != status || b != body {
		l.t.Errorf("%.100q: %d %q %v, want %d %q", text, got, b, err, status, body)
	}
	return h
}

// refused expects a refusal that nothing was looked up for.
func (l *lab) refused(text string, code writ.Code) {
	l.t.Helper()
	before := l.lookups.Load()
	l.want(text, http.StatusForbidden, string(code))
	if n := l.lookups.Load() - before; n != 0 {
		l.t.Errorf("%.100q: %d names were looked up for what is refused", text, n)
	}
}

// raw is a host that says something without listening much.
func raw(t *testing.T, answer string) net.Addr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}()
		}
	}()
	return ln.Addr()
}
