package egress

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
)

// Prefix is where the paths of grants begin: /egress/<grant>/<path>.
const Prefix = "/egress/"

// Proxy is the face agents see: it reads attempts out of requests and hands answers
// on. Who asks it knows from elsewhere: no header says so.
type Proxy struct {
	Auth Authorizer
	// Fail answers a request that was refused, or failed before anything of its answer
	// was out.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
	// BodyTime is how long a part of a body may be on its way, in each direction (10 s).
	BodyTime time.Duration
}

// Takes says whether a request is one for a Proxy.
func Takes(r *http.Request) bool {
	return r.Method == http.MethodConnect || strings.HasPrefix(r.RequestURI, Prefix) || !strings.HasPrefix(r.RequestURI, "/") && r.RequestURI != "*"
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, err := attempt(r)
	if err != nil {
		p.fail(w, r, p.Auth.Deny(r.Context(), r.Method, r.RequestURI, err))
		return
	}
	each := p.each()
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // a host has its own time to answer in
	began := false                            // something of an answer is out, or may be
	s := &Streams{
		Header: r.Header, Length: a.Length,
		Answer: func(ans *Answer) error { began = true; return hand(w, control, ans, a.Method, each) },
		Hijack: func() (Conn, error) { began = true; return hijack(control) },
	}
	if a.Length != 0 {
		_ = control.EnableFullDuplex() // a host may answer before it has read all
		s.Body = patient{r.Body, control, each}
	}
	switch err := p.Auth.Authorize(r.Context(), a, s); {
	case !began && err == nil:
		p.fail(w, r, writ.Fault(writ.CodeInternal, "egress", errors.New("it was permitted and not carried out")))
	case !began:
		p.fail(w, r, err)
	case err != nil && a.Mode != Connect: // nobody is to take it for whole
		panic(http.ErrAbortHandler)
	}
}

func (p *Proxy) each() time.Duration {
	if p.BodyTime == 0 {
		return 10 * time.Second
	}
	return p.BodyTime
}

// fail refuses without waiting for a body that nobody reads.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.ContentLength != 0 || r.Method == http.MethodConnect { // behind a tunnel that is none nothing is read strictly
		w.Header().Set("Connection", "close")
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(p.each()))
	p.Fail(w, r, err)
}

// attempt reads what a request wants, out of its bytes as they came: not as net/http
// understood them.
func attempt(r *http.Request) (Attempt, error) {
	a := Attempt{Method: r.Method, Length: r.ContentLength}
	var err error
	switch {
	case r.Method == http.MethodConnect:
		a.Mode, a.Length = Connect, 0
		a.Target, err = target.Parse(r.RequestURI)
	case strings.HasPrefix(r.RequestURI, Prefix):
		a.Mode = Reverse
		rest := r.RequestURI[len(Prefix):]
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if a.Grant = rest[:end]; !writ.ValidSlug(a.Grant) {
			err = target.ErrSpelling
			break
		}
		a.Path, a.Query, err = target.ParseRequest(rest[end:])
	default:
		a.Mode = Forward
		var scheme string
		scheme, a.Target, a.Path, a.Query, err = target.ParseURL(r.RequestURI)
		if err == nil && scheme != "http" {
			return a, writ.Refuse(writ.CodeEgress, "egress", "the gateway is a proxy for plain http only", "use /egress/<grant>/<path>, which is https to the host")
		}
	}
	if err != nil {
		return a, &writ.Error{Code: writ.CodeEgress, Op: "egress", Msg: "where the request goes is not written in the one way there is", Hint: "hosts are lower-case names without a dot at the end; paths have no empty parts, dots or needless escapes", Err: err}
	}
	if a.Mode != Connect && !ValidMethod(a.Method) {
		return a, writ.Refuse(writ.CodeEgress, "egress", "no grant lets this method through", "use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS")
	}
	return a, nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// hand passes an answer on, at once where its length is not known.
func hand(w http.ResponseWriter, control *http.ResponseController, a *Answer, method string, each time.Duration) error {
	h := w.Header()
	for name, values := range a.Header {
		h[name] = values
	}
	if a.Length > 0 || a.Length == 0 && method != http.MethodHead && a.Status != http.StatusNoContent && a.Status != http.StatusNotModified {
		h.Set("Content-Length", strconv.FormatInt(a.Length, 10))
	}
	_ = control.SetWriteDeadline(time.Now().Add(each))
	w.WriteHeader(a.Status)
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := a.Body.Read(*b)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(each))
			if _, werr := w.Write((*b)[:n]); werr != nil {
				return errors.Join(ErrAnswered, werr)
			}
			if a.Length < 0 {
				_ = control.Flush()
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return errors.Join(ErrAnswered, err)
		}
	}
}

// hijack takes an agent's connection over and tells it so.
func hijack(control *http.ResponseController) (Conn, error) {
	c, rw, err := control.Hijack()
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "egress.hijack", err)
	}
	_ = c.SetDeadline(time.Time{})
	if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		_ = c.Close()
		return nil, errors.Join(ErrAnswered, err)
	}
	said := io.LimitReader(rw.Reader, int64(rw.Reader.Buffered())) // read on there, the end of what the agent says would end its request
	return ahead{c, io.MultiReader(said, c)}, nil
}

// ahead is a connection of which some was read already.
type ahead struct {
	net.Conn
	r io.Reader
}

func (a ahead) Read(p []byte) (int, error) { return a.r.Read(p) }

// NetConn is the connection beneath.
func (a ahead) NetConn() net.Conn { return a.Conn }

func (a ahead) CloseWrite() error {
	if half, ok := a.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return a.Close()
}

// patient reads a body of which every part must come in time. Behind its end no time is
// set: net/http reads on there to notice who hangs up, and what ended that would end the
// request, whose host has the time of the grant to answer in.
type patient struct {
	r       io.Reader
	control *http.ResponseController
	each    time.Duration
}

func (p patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(p.each))
	n, err := p.r.Read(b)
	switch {
	case errors.Is(err, io.EOF):
		_ = p.control.SetReadDeadline(time.Time{})
	case err != nil:
		err = &writ.Error{Code: writ.CodeMalformed, Op: "egress", Msg: "the body could not be read to its end", Hint: "send it again, faster", Err: err}
	}
	return n, err
}
