package egress

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// secure is a host that has a certificate for a name, and says which name it was
// asked for.
func secure(t *testing.T, name string) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s", r.TLS.ServerName, r.Host, r.RequestURI)
		if r.URL.Path == "/much" {
			_, _ = w.Write(make([]byte, 100_000))
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func pool(s *httptest.Server) *x509.CertPool {
	p := x509.NewCertPool()
	c, _ := x509.ParseCertificate(s.TLS.Certificates[0].Certificate[0])
	p.AddCert(c)
	return p
}

// connect asks for a tunnel and says whether there is one.
func (l *lab) connect() (net.Conn, *bufio.Reader) {
	l.t.Helper()
	to := l.permit.Target.String()
	return l.connectBy("CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
}

func (l *lab) connectBy(head string) (net.Conn, *bufio.Reader) {
	l.t.Helper()
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, head); err != nil {
		l.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || res.StatusCode != http.StatusOK {
		l.t.Fatalf("%v, %v", res, err)
	}
	return c, r
}

type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// A tunnel is for TLS with the host it was let through to, and nothing else.
func TestTunnel(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	shake := func(cfg *tls.Config) (*tls.Conn, error) {
		t.Helper()
		c, r := l.connect()
		cfg.RootCAs = pool(s)
		tc := tls.Client(buffered{c, r}, cfg)
		return tc, tc.Handshake()
	}
	tc, err := shake(&tls.Config{ServerName: "host.example"})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(tc, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(tc), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); string(b) != "host.example h /x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	_ = res.Body.Close()
	_ = tc.Close()
	if err := <-l.errs; err != nil {
		t.Error(err)
	}
	if out := <-l.outcome; out.Up < 200 || out.Down < 500 || out.Status != 0 {
		t.Errorf("%+v", out)
	}
	cut := func(why string) {
		t.Helper()
		if err := <-l.errs; !errors.Is(err, ErrAnswered) || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, want %s", err, why)
		}
		<-l.outcome
	}
	if _, err := shake(&tls.Config{ServerName: "other.example"}); err == nil {
		t.Error("another name passes")
	}
	cut("another name")
	if _, err := shake(&tls.Config{InsecureSkipVerify: true}); err == nil { //nolint:gosec // no name is sent
		t.Error("no name passes")
	}
	cut("another name")
	for _, text := range []string{"SSH-2.0-OpenSSH_9.2\r\n", "GET / HTTP/1.1\r\nHost: host.example\r\n\r\n", "\x16\x03\x01\xff\xff" + strings.Repeat("\x01", 70_000)} {
		c, r := l.connect()
		_, _ = io.WriteString(c, text)
		if b, err := io.ReadAll(r); len(b) > 0 {
			t.Errorf("%.20q is answered with %q, %v", text, b, err)
		}
		cut("no beginning of TLS")
	}
	if l.lookups.Load() == 0 {
		t.Error("nothing was looked up")
	}
}

// Tunnels are for clients as they are: some ask for one in HTTP/1.0, without a Host.
func TestTunnelOfOldClients(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	to := l.permit.Target.String()
	for name, head := range map[string]string{
		"Python before 3.12": "CONNECT " + to + " HTTP/1.0\r\n\r\n",
		"openssl s_client":   "CONNECT " + to + " HTTP/1.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",
		"curl":               "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\nUser-Agent: curl/8.5.0\r\nProxy-Connection: Keep-Alive\r\n\r\n",
	} {
		c, r := l.connectBy(head)
		tc := tls.Client(buffered{c, r}, &tls.Config{ServerName: "host.example", RootCAs: pool(s)})
		_, _ = io.WriteString(tc, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(tc)
		if err != nil || !strings.HasSuffix(string(b), "host.example h /x") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		_ = tc.Close()
		if err := <-l.errs; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is refused ends the connection, though the client would keep it.
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "CONNECT other.example:443 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /egress/host/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), " 403 ") || strings.Count(string(b), "HTTP/1.") != 1 {
		t.Errorf("%q, %v", b, err)
	}
}

// A name that is hidden is none.
func TestTunnelHiddenName(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	c, r := l.connect()
	k, err := ecdhKey()
	if err != nil {
		t.Fatal(err)
	}
	tc := tls.Client(buffered{c, r}, &tls.Config{ServerName: "secret.example", MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: echList("host.example", k), RootCAs: pool(s)})
	if err := tc.Handshake(); err == nil {
		t.Error("a hidden name passes")
	}
	if err := <-l.errs; err == nil || !strings.Contains(err.Error(), "hides") {
		t.Error(err)
	}
}

// An agent that has said all it has to say hears the host out.
func TestTunnelHalfClosed(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	c, r := l.connect()
	tc := tls.Client(buffered{c, r}, &tls.Config{ServerName: "host.example", RootCAs: pool(s)})
	_, _ = io.WriteString(tc, "GET /much HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	_ = c.(*net.TCPConn).CloseWrite()
	if n, err := io.Copy(io.Discard, tc); n < 100_000 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := <-l.errs; err != nil {
		t.Error(err)
	}
}

// A tunnel ends with its bytes.
func TestTunnelBytes(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	l.permit.Down = 64 << 10
	c, r := l.connect()
	tc := tls.Client(buffered{c, r}, &tls.Config{ServerName: "host.example", RootCAs: pool(s)})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(tc, "GET /much HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	n, err := io.Copy(io.Discard, tc)
	if n > 64<<10 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	err = <-l.errs
	e, ok := errors.AsType[*writ.Error](err)
	if _, happened := errors.AsType[*writ.Happened](err); !happened || !ok || e.Code != writ.CodeBudget || e.Details["dimension"] != writ.BudgetIngress {
		t.Errorf("%v", err)
	}
}

// A tunnel ends with its time, whoever would go on.
func TestTunnelTime(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "", nil)
	l.permit.Time = 300 * time.Millisecond
	c, r := l.connect()
	tc := tls.Client(buffered{c, r}, &tls.Config{ServerName: "host.example", RootCAs: pool(s)})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, tc); err == nil {
		t.Error("it looks as if the host had ended it")
	}
	err := <-l.errs
	if _, happened := errors.AsType[*writ.Happened](err); !happened || writ.CodeOf(err) != writ.CodeEffectStopped {
		t.Errorf("%v", err)
	}
}
