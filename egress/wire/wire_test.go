package wire

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// script is a connection on which bytes come as a reader gives them.
type script struct {
	net.Conn
	r io.Reader
}

func (s script) Read(p []byte) (int, error) { return s.r.Read(p) }

func read(s string, how func(io.Reader) io.Reader) (string, error) {
	c := &conn{Conn: script{r: how(strings.NewReader(s))}}
	b, err := io.ReadAll(c)
	return string(b), err
}

func plain(r io.Reader) io.Reader { return r }

var good = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\nExpect: 100-continue\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03\n\n\r\x00GET / HTTP/9\n\n",
	"CONNECT a:443 HTTP/1.0\r\n\r\n\x16\x03\n\n\r\x00GET / HTTP/9\n\n", // Python before 3.12
	"CONNECT a:443 HTTP/1.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",   // openssl
	"CONNECT a:443 HTTP/1.0\r\nHost: a:443\r\n\r\n\x16\x03",
	"GET http://a/ HTTP/1.1\r\nHost:a\r\nX: \ty\t z \r\nY:\r\nZ: caf\xc3\xa9\r\n\r\n",
}

var bad = []string{
	"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", // an empty line first
	"GET / HTTP/1.1\nHost: a\n\n",           // bare LF
	"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\rHost: a\r\n\r\n", // bare CR
	"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", // obs-fold
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
	"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", // both
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", // two
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", // other spellings
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \x0b\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", // a space before the colon
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n", // chunks
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n +5\r\nhello\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100000005\r\nhello\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", // a trailer
	"GET / HTTP/1.1\r\n\r\n", // hosts
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"GET / HTTP/1.0\r\nHost: a\r\n\r\n", // request lines
	"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"GET /\r\nHost: a\r\n\r\n",
	"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
	"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
	"get / HTTP/1.1\r\nHost: a\r\n\r\n",
	"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n",
	"\x16\x03\x01\x00\x05hello",
	"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", // headers
	"GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX\x00: y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\x00z\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n(x): y\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
	"CONNECT a:443 HTTP/1.1\r\n\r\n", // tunnels in HTTP/1.0 and nothing else of it
	"CONNECT a:443 HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
	"CONNECT a:443 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
	"CONNECT a:443 HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
	"CONNECT a:443 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"CONNECT a:443 HTTP/1.0\nX: y\n\n",
	"CONNECT a:443 HTTP/1.0\r\n X: y\r\n\r\n",
	"CONNECT a:443 HTTP/0.9\r\n\r\n",
	"CONNECT a:443 HTTP/1.2\r\nHost: a\r\n\r\n",
	"CONNECT a:443\r\n\r\n",
	"GET / HTTP/1.0\r\n\r\n",
	"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
	"CONNECTX a:443 HTTP/1.0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("y", MaxHead) + "\r\n\r\n", // too much
	"GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", maxHeaders) + "\r\n",
	"GET /" + strings.Repeat("y", 2*MaxHead),
}

// What is HTTP/1.1 comes through byte for byte, and of what is not no byte of the
// request that breaks it, in whatever pieces the bytes come.
func TestStrict(t *testing.T) {
	for _, how := range []func(io.Reader) io.Reader{plain, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		for _, s := range good {
			if got, err := read(s, how); err != nil || got != s {
				t.Errorf("%q: %q, %v", s, got, err)
			}
		}
		for _, s := range bad {
			got, err := read(s, how)
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%.80q: %v", s, err)
			}
			if !strings.Contains(s, "chunked\r\n\r\n") && got != "" {
				t.Errorf("%.80q: %q came through", s, got)
			}
		}
	}
	first := good[2]
	for _, s := range bad { // behind one that is well formed
		if got, err := read(first+s, plain); !errors.Is(err, ErrMalformed) || !strings.HasPrefix(got, first) {
			t.Errorf("%.80q: %q, %v", s, got, err)
		}
	}
}

// net/http answers what is refused with 400 and takes nothing else from the
// connection.
func TestServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 100)
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			seen <- r.Method + " " + r.RequestURI + " " + string(b)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- s.Serve(Listener(l)) }()
	ask := func(text string) string {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		r := bufio.NewReader(c)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err.Error()
		}
		_ = res.Body.Close()
		_, _ = io.Copy(io.Discard, r) // until the server has nothing more to say
		return res.Status
	}
	for _, text := range []string{
		"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
		"GET /x HTTP/1.1\nHost: a\n\n",
	} {
		if got := ask(text); got != "400 Bad Request" {
			t.Errorf("%q: %s", text, got)
		}
	}
	if got := ask(good[4]); got != "200 OK" {
		t.Error(got)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
	close(seen)
	var all []string
	for s := range seen {
		all = append(all, s)
	}
	if strings.Join(all, "|") != "POST / hello0123456789|GET / " {
		t.Error(all)
	}
}

// What comes through reads the same for net/http as here, and ends where we say.
func FuzzStrict(f *testing.F) {
	for _, s := range append(good, bad...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := read(s, plain)
		if !strings.HasPrefix(s, got) {
			t.Fatalf("%q became %q", s, got)
		}
		if err != nil || strings.HasPrefix(got, "CONNECT") {
			return
		}
		r := bufio.NewReader(strings.NewReader(got))
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return // net/http takes less than we do: hosts, targets
			}
			if len(req.TransferEncoding) > 0 && req.Header.Get("Content-Length") != "" || len(req.Trailer) > 0 || req.Proto != "HTTP/1.1" && (req.Proto != "HTTP/1.0" || req.Method != http.MethodConnect) {
				t.Fatalf("%q has %v", got, req.Header)
			}
			if req.Method == http.MethodConnect {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil && !strings.Contains(err.Error(), "unexpected EOF") { // it ends in the middle
				t.Fatalf("%q: %v", got, err)
			}
		}
	})
}
