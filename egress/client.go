package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/dial"
	"github.com/writ-gateway/writ/egress/target"
)

// Config is what a Client needs of its surroundings; the zero value works.
type Config struct {
	// Lookup resolves a name; nil asks the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Own says whether an address is this gateway's: nobody reaches it from here,
	// whatever is granted. nil: none is.
	Own func(netip.AddrPort) bool
	// Roots vouch for hosts; nil: those of the system.
	Roots *x509.CertPool
}

// Client carries out what was permitted. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Transport
}

const (
	handshakeTime = 10 * time.Second
	dialTime      = 10 * time.Second
	maxAnswerHead = 32 << 10
)

// New makes a Client: verified TLS, HTTP/1.1, no proxy, and a connection of its own
// for every request, so that nobody's request can reach into another's.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg}
	var plain http.Protocols
	plain.SetHTTP1(true)
	c.http = &http.Transport{
		Proxy:                  nil,
		DialContext:            c.dialFor,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
		TLSHandshakeTimeout:    handshakeTime,
		Protocols:              &plain,
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxAnswerHead,
		ReadBufferSize:         32 << 10, // a chunk at a time
	}
	return c
}

// Carry carries out what was permitted. An error says what went wrong; ErrAnswered
// is in it when the agent has had a part of the answer by then, and writ.Happened when
// the host has answered, whatever the agent has had of it.
func (c *Client) Carry(ctx context.Context, p Permit, s *Streams) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Time)
	defer cancel()
	up := &tally{dimension: writ.BudgetEgress, most: p.Up, meter: p.Meter}
	down := &tally{dimension: writ.BudgetIngress, most: p.Down, meter: p.Meter}
	out := Outcome{}
	var err error
	if p.Mode == Connect {
		err = c.tunnel(ctx, p, s, up, down)
	} else {
		out.Status, err = c.exchange(ctx, p, s, up, down)
	}
	out.Up, out.Down = up.n.Load(), down.n.Load()
	return out, err
}

// flight is one request on its way, for whoever dials for it.
type flight struct {
	ctx    context.Context
	permit Permit
}

type flightKey struct{}

// exchange makes one request and hands the answer over.
func (c *Client) exchange(ctx context.Context, p Permit, s *Streams, up, down *tally) (int, error) {
	var wrote atomic.Bool
	req, secrets, err := request(ctx, p, s, up)
	if err != nil {
		return 0, err
	}
	trace := &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(context.WithValue(ctx, flightKey{}, &flight{ctx, p}), trace))
	res, err := c.http.RoundTrip(req)
	if err != nil {
		return 0, failed(ctx, err, wrote.Load() && !safe(p.Method))
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := c.answer(res, p, secrets, down)
	if err == nil {
		err = s.Answer(answer)
	}
	if err != nil {
		err = &writ.Happened{Err: err}
	}
	return res.StatusCode, err
}

// request writes what goes out anew, from what was permitted.
func request(ctx context.Context, p Permit, s *Streams, up *tally) (*http.Request, [][]byte, error) {
	path, err := url.PathUnescape(p.Path)
	if err != nil || !target.ValidPath(p.Path) || !ValidMethod(p.Method) {
		return nil, nil, writ.Refuse(writ.CodeMalformed, "egress", "the method or the path is not in its one spelling", "write the path without empty parts, dots and needless escapes")
	}
	host := p.Target.String()
	if port := ":" + strconv.Itoa(int(p.Target.Port)); p.Scheme == "https" && port == ":443" || p.Scheme == "http" && port == ":80" {
		host = host[:len(host)-len(port)]
	}
	req := (&http.Request{
		Method: p.Method, URL: &url.URL{Scheme: p.Scheme, Host: host, Path: path, RawPath: p.Path, RawQuery: p.Query},
		Host: host, Header: filter(s.Header, kept), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "writ/"+writ.Version)
	}
	if p.Key != "" {
		req.Header.Set("Idempotency-Key", p.Key)
	}
	var secrets [][]byte
	if p.Inject != nil {
		req.Header.Set("Accept-Encoding", "identity") // what is packed could repeat the credential unseen
		req.Header.Del("Range")                       // and so could two halves
		req.Header.Del("If-Range")
		before := req.Header.Clone()
		if err := p.Inject(ctx, req.Header); err != nil {
			return nil, nil, err
		}
		secrets = injected(before, req.Header)
	}
	if !up.add(size(len(p.Method)+len(p.Path)+len(p.Query)+len("  HTTP/1.1 Host: ")+len(host), req.Header)) {
		return nil, nil, up.over()
	}
	if s.Body != nil && s.Length != 0 {
		if s.Length > p.Up-up.n.Load() {
			return nil, nil, up.over()
		}
		req.Body, req.ContentLength = io.NopCloser(counted{s.Body, up}), s.Length
	}
	return req, secrets, nil
}

// answer makes of what a host said what the agent may see.
func (c *Client) answer(res *http.Response, p Permit, secrets [][]byte, down *tally) (*Answer, error) {
	const op = "egress"
	if !down.add(size(len("HTTP/1.1 200 ")+len(res.Status), res.Header)) {
		return nil, down.over()
	}
	coding := res.Header.Get("Content-Encoding")
	switch {
	case res.StatusCode == http.StatusSwitchingProtocols:
		return nil, writ.Refuse(writ.CodeEffectFailed, op, "the host wants to speak another protocol", "this way is for HTTP requests and their answers")
	case res.StatusCode < 200, res.StatusCode > 599: // net/http takes any three digits from a host, and panics at some when they are passed on
		return nil, writ.Refuse(writ.CodeEffectFailed, op, "the host answered with a status that HTTP does not have", "operators: look at the host")
	case len(secrets) > 0 && (repeats(res.Header, secrets) || coding != "" && coding != "identity"):
		return nil, echoed()
	case res.ContentLength > p.Down-down.n.Load():
		return nil, down.over()
	}
	a := &Answer{Status: res.StatusCode, Header: filter(res.Header, shown), Length: res.ContentLength, Body: newQuiet(counted{res.Body, down}, secrets)}
	for name, values := range p.Mark {
		a.Header[name] = values
	}
	return a, nil
}

// dialFor dials for the request of a context, and closes what it dialled when that
// ends: by itself the package http goes on then.
func (c *Client) dialFor(ctx context.Context, network, address string) (net.Conn, error) {
	f, ok := ctx.Value(flightKey{}).(*flight)
	if !ok || address != f.permit.Target.String() {
		return nil, dial.ErrRefused // nothing was permitted
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	defer context.AfterFunc(f.ctx, cancel)()
	conn, err := c.dial(ctx, f.permit)
	if err == nil {
		context.AfterFunc(f.ctx, func() { _ = conn.Close() })
	}
	return conn, err
}

// dial connects to the host of a permit.
func (c *Client) dial(ctx context.Context, p Permit) (net.Conn, error) {
	networks := make([]string, 0, len(p.Private))
	for _, n := range p.Private {
		networks = append(networks, n.String())
	}
	grants, err := dial.ParseGrants(networks)
	if err != nil {
		return nil, dial.ErrRefused
	}
	// Plain http is let through for the sake of the networks that are named. Wherever else
	// the name leads, everybody on the way would read along, the credential too.
	inside := p.Scheme == "http" && len(p.Private) > 0
	d := dial.Dialer{Grants: grants, Inside: inside, Lookup: c.cfg.Lookup, Connect: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		if Never(to.Addr()) || c.cfg.Own != nil && c.cfg.Own(to) {
			return nil, dial.ErrRefused
		}
		return new(net.Dialer).DialContext(ctx, "tcp", to.String())
	}}
	return d.DialContext(ctx, "tcp", p.Target.String())
}

// Never says whether an address is reached for no agent, whatever is granted: those
// at which machines are told who they are, secrets among it, and those that are no
// single host.
func Never(a netip.Addr) bool {
	switch a.String() {
	case "168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254":
		return true
	}
	return !a.IsValid() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// ValidMethod says whether a method is one that can be granted. TRACE repeats what
// was sent, credentials too.
func ValidMethod(m string) bool {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return true
	}
	return false
}

// safe says whether a request of a method changes nothing at the host, so that it
// does not matter whether it arrived.
func safe(m string) bool {
	return m == http.MethodGet || m == http.MethodHead || m == http.MethodOptions
}

// failed says why an exchange did not come to an answer, and no name or address.
// arrived says that the host may have acted on it.
func failed(ctx context.Context, err error, arrived bool) error {
	const op = "egress"
	if e, ok := errors.AsType[*writ.Error](err); ok {
		return e
	}
	fail := func(code writ.Code, msg, hint string) error {
		return &writ.Error{Code: code, Op: op, Msg: msg, Hint: hint, Err: err}
	}
	var name *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, dial.ErrRefused):
		return fail(writ.CodeEgress, "the host is at an address that may not be reached", "operators: a grant can name the private networks its host may lie in; with plain http it must lie there")
	case arrived:
		return fail(writ.CodeEffectUnknown, "the request went out and no answer came, so nobody knows whether the host acted on it", "find out at the host before it is sent again")
	case errors.As(err, &name):
		return fail(writ.CodeEffectFailed, "the name of the host was not found", "repeat the call later, or have the grant looked at")
	case errors.As(err, &cert):
		return fail(writ.CodeEffectFailed, "nobody vouches for the host's certificate", "operators: look at the host")
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fail(writ.CodeEffectFailed, "the host did not answer in time", "repeat the call later")
	}
	return fail(writ.CodeEffectFailed, "the host could not be reached, or gave no answer in HTTP/1.1", "repeat the call later")
}
