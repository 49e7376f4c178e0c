package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/target"
)

// What goes out is the request that was judged, without the agent's credentials and
// the frame it came in; what comes back says nothing of ours or of the hop.
func TestReverse(t *testing.T) {
	var seen *http.Request
	var body []byte
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Answer", "yes")
		for _, name := range []string{"Set-Cookie", "Receipt-Id", "Effect-Id", "Proxy-Authenticate", "Alt-Svc", "Writ-Session", "Www-Authenticate"} {
			w.Header().Set(name, "x")
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "hello")
	}))
	l.permit.Mark, l.permit.Key = http.Header{"Receipt-Id": {"rcp_1"}}, "eff_1"
	h := l.want("POST /egress/host/a/caf%C3%A9?q=1&r=%2F HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 4\r\nContent-Type: text/plain\r\nAccept: */*\r\n"+
		"Authorization: Bearer mine\r\nCookie: a=b\r\nProxy-Authorization: x\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nWrit-Session: ses_1\r\nIdempotency-Key: k\r\nCosignature: v1\r\n"+
		"X-Http-Method-Override: DELETE\r\nX_Forwarded_For: y\r\nTe: trailers\r\nUpgrade: websocket\r\nX-Mine: 1\r\nConnection: X-Mine, Upgrade\r\nX-Ours: 2\r\n\r\nbody", http.StatusTeapot, "hello")
	if err := <-l.errs; err != nil {
		t.Fatal(err)
	}
	if seen.Method != http.MethodPost || seen.RequestURI != "/a/caf%C3%A9?q=1&r=%2F" || seen.Host != l.permit.Target.String() || string(body) != "body" || seen.ContentLength != 4 {
		t.Errorf("%s %s at %s: %q", seen.Method, seen.RequestURI, seen.Host, body)
	}
	names := []string{}
	for name := range seen.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "Accept Connection Content-Length Content-Type Idempotency-Key User-Agent X-Ours" || seen.Header.Get("Idempotency-Key") != "eff_1" || seen.Header.Get("Connection") != "close" {
		t.Errorf("out went %s: %v", got, seen.Header)
	}
	if h.Get("X-Answer") != "yes" || h.Get("Receipt-Id") != "rcp_1" {
		t.Errorf("back came %v", h)
	}
	for _, name := range []string{"Set-Cookie", "Effect-Id", "Proxy-Authenticate", "Alt-Svc", "Writ-Session", "Www-Authenticate"} {
		if h.Get(name) != "" {
			t.Errorf("%s came back", name)
		}
	}
	if out := <-l.outcome; out.Status != http.StatusTeapot || out.Up < 4 || out.Up > 300 || out.Down < 5 || out.Down > 500 {
		t.Errorf("%+v", out)
	}
}

// As a proxy for plain http the gateway does the same.
func TestForward(t *testing.T) {
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Host+r.RequestURI) }))
	to := l.permit.Target.String()
	l.want("GET http://"+to+"/x?y HTTP/1.1\r\nHost: other.test\r\n\r\n", http.StatusOK, to+"/x?y")
	for _, uri := range []string{
		"https://" + to + "/", "ftp://" + to + "/", "http://other.example/", "http://" + to + "./", "http://HOST.example/", "http://u@" + to + "/", "http://" + to + "/../x", "http://" + to + "/%2e%2e/x",
		"http://host.example%00/", "http://127.0.0.1/", "http://2130706433/", "*://x", "http:" + to,
	} {
		status, body, _, err := l.ask("GET " + uri + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
		if err != nil || (status != http.StatusForbidden || body != string(writ.CodeEgress)) && body != "400 Bad Request" {
			t.Errorf("%s: %d %q %v", uri, status, body, err)
		}
	}
	if n := l.lookups.Load(); n != 1 {
		t.Errorf("%d names were looked up", n)
	}
}

// What belongs to a hop stays there, also what only the hop says is its own.
func TestFilter(t *testing.T) {
	h := http.Header{"Connection": {"X-Hop, keep-alive", "x-other"}, "X-Hop": {"1"}, "X-Other": {"2"}, "Keep-Alive": {"3"}, "X-End": {"4"}, "Transfer-Encoding": {"chunked"}}
	for _, may := range []func(string) bool{kept, shown} {
		if got := filter(h, may); len(got) != 1 || got.Get("X-End") != "4" {
			t.Errorf("%v", got)
		}
	}
}

// Policy comes before the name server: whatever is refused, nobody is asked for it.
func TestPolicyBeforeNames(t *testing.T) {
	l := newLab(t, http.NotFoundHandler())
	for _, host := range []string{
		"other.example:443", "host.example:444", "host.example.:443", "HOST.example:443", "127.0.0.1:443", "[::1]:443", "2130706433:443", "0x7f.1:443", "host.example%00:443",
		"user@host.example:443", "host.example:0443", "data.host.example:443", "host\xe3\x80\x82example:443",
	} {
		text := "CONNECT " + host + " HTTP/1.1\r\nHost: x\r\n\r\n"
		if strings.Contains(host, "%") || strings.Contains(host, "\xe3") { // net/http has seen enough
			l.want(text, http.StatusBadRequest, "400 Bad Request")
			continue
		}
		l.refused(text, writ.CodeEgress)
	}
	for _, path := range []string{"/egress/other/", "/egress/", "/egress/Host/", "/egress/host/../../v1", "/egress/host//x", "/egress/host/%2e%2e/x", "/egress/host%2fx/", "/egress/host/a\\b"} {
		l.refused(get(path), writ.CodeEgress)
	}
	for _, method := range []string{"TRACE", "PROPFIND", "PURGE"} {
		l.refused(method+" /egress/host/ HTTP/1.1\r\nHost: x\r\n\r\n", writ.CodeEgress)
	}
	if n := l.lookups.Load(); n != 0 {
		t.Errorf("%d names were looked up", n)
	}
	if n := l.denied.Load(); n != 6+7+3 { // the others say where they go, and no grant is for that
		t.Errorf("who keeps account was told of %d", n)
	}
}

// Where a name leads is looked up once, and everything it leads to must be granted.
func TestAddresses(t *testing.T) {
	hits := 0
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer s.Close()
	for _, c := range []struct {
		name    string
		answers [][]string
		private []netip.Prefix
		own     bool
		ok      bool
	}{
		{"granted", [][]string{{"127.0.0.1"}}, loopback, false, true},
		{"not granted", [][]string{{"127.0.0.1"}}, nil, false, false},
		{"another network is granted", [][]string{{"127.0.0.1"}}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, false, false},
		{"rebinding to what is not granted", [][]string{{"127.0.0.1"}, {"169.254.169.254"}}, loopback, false, true},
		{"one of them is not", [][]string{{"127.0.0.1", "10.0.0.1"}}, loopback, false, false},
		{"written as IPv6", [][]string{{"::ffff:169.254.169.254"}}, loopback, false, false},
		{"metadata, though granted", [][]string{{"169.254.169.254"}}, []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16")}, false, false},
		{"the gateway itself", [][]string{{"127.0.0.1"}}, loopback, true, false},
		{"no address", [][]string{{}}, loopback, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := labFor(t, s.Listener.Addr(), "http", nil)
			l.permit.Private = c.private
			if c.own {
				l.own.Store(&l.host)
			}
			asked := 0
			l.names = func(string) ([]string, error) { asked++; return c.answers[min(asked, len(c.answers))-1], nil }
			before := hits
			status, body, _, err := l.ask(get("/egress/host/"))
			if ok := status == http.StatusOK && hits == before+1; ok != c.ok || err != nil || !c.ok && (hits != before || body != string(writ.CodeEgress)) {
				t.Errorf("%d %q %v, %d requests", status, body, err, hits-before)
			}
			if asked != 1 {
				t.Errorf("looked up %d times", asked)
			}
		})
	}
	l := labFor(t, s.Listener.Addr(), "http", nil)
	l.names = func(string) ([]string, error) { return nil, &net.DNSError{Err: "no such host", Name: "host.example"} }
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeEffectFailed))
}

// Plain http with networks goes to those and nowhere else, also not to the internet:
// what is encrypted may, and so may what policy lets out in the open without any.
func TestPlainStaysInside(t *testing.T) {
	inside := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		scheme, host string
		answers      []string
		private      []netip.Prefix
		dialled      string // "": refused
	}{
		{"http", "inside.example", []string{"10.1.2.3"}, inside, "10.1.2.3:80"},
		{"http", "inside.example", []string{"93.184.216.34"}, inside, ""},
		{"http", "inside.example", []string{"10.1.2.3", "93.184.216.34"}, inside, ""},
		{"http", "inside.example", []string{"2606:4700:4700::1111"}, inside, ""},
		{"http", "93.184.216.34", nil, inside, ""},
		{"http", "93.184.216.34", nil, nil, "93.184.216.34:80"},
		{"https", "inside.example", []string{"93.184.216.34"}, inside, "93.184.216.34:80"},
		{"", "inside.example", []string{"93.184.216.34"}, inside, "93.184.216.34:80"}, // a tunnel
	} {
		dialled := ""
		client := New(Config{
			Own: func(a netip.AddrPort) bool { dialled = a.String(); return true }, // nothing goes out
			Lookup: func(context.Context, string) (out []netip.Addr, err error) {
				for _, a := range c.answers {
					out = append(out, netip.MustParseAddr(a))
				}
				return out, nil
			},
		})
		_, err := client.dial(t.Context(), Permit{Scheme: c.scheme, Target: target.Target{Host: c.host, Port: 80}, Private: c.private})
		if dialled != c.dialled || err == nil {
			t.Errorf("%+v: dialled %q, %v", c, dialled, err)
		}
	}
}

// A redirect is the agent's to look at. Nobody follows it, and where it leads is
// judged when the agent goes there.
func TestRedirects(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	hits := 0
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		to := other.URL + "/secret"
		if r.URL.Path == "/same" {
			to = "/next"
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	l.inject = func(h http.Header) error { h.Set("Authorization", "Bearer canary-1234"); return nil }
	for i, path := range []string{"/away", "/same"} {
		h := l.want(get("/egress/host"+path), http.StatusTemporaryRedirect, "")
		if h.Get("Location") == "" || hits != i+1 || elsewhere != 0 {
			t.Errorf("%v, %d and %d requests", h, hits, elsewhere)
		}
	}
	l.refused("GET "+other.URL+"/secret HTTP/1.1\r\nHost: x\r\n\r\n", writ.CodeEgress)
}

// The agent never sees the credential, whatever the host does with it.
func TestCredentialsStay(t *testing.T) {
	const canary = "canary-0123456789"
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+canary || r.Header.Get("Accept-Encoding") != "identity" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/ok":
			_, _ = io.WriteString(w, "canary-012345678 is not it")
		case "/header":
			w.Header().Set("X-Debug", "you sent "+r.Header.Get("Authorization"))
		case "/body":
			_, _ = io.WriteString(w, strings.Repeat("x", 100)+canary)
		case "/parts":
			for _, c := range "you sent Bearer " + canary + " I think" {
				_, _ = io.WriteString(w, string(c))
				_ = http.NewResponseController(w).Flush()
			}
		case "/late":
			_, _ = io.WriteString(w, strings.Repeat("y", 100_000)+canary+strings.Repeat("z", 100_000))
		case "/packed":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "?")
		}
	}))
	l.inject = func(h http.Header) error { h.Set("Authorization", "Bearer "+canary); return nil }
	l.want("GET /egress/host/ok HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mine\r\nAccept-Encoding: gzip\r\n\r\n", http.StatusOK, "canary-012345678 is not it")
	<-l.errs
	for _, path := range []string{"/header", "/body", "/parts", "/late", "/packed"} {
		status, body, h, err := l.ask(get("/egress/host" + path))
		if strings.Contains(body, canary[:10]) || strings.Contains(fmt.Sprint(h), canary) || status == http.StatusOK && err == nil {
			t.Errorf("%s: %d, %d bytes, %v, %v", path, status, len(body), h, err)
		}
		if err := <-l.errs; writ.CodeOf(err) != writ.CodeEgress {
			t.Errorf("%s: %v", path, err)
		}
	}
	l.inject = func(http.Header) error { return writ.Refuse(writ.CodeUnavailable, "lab", "no such secret", "") }
	before := l.lookups.Load()
	l.want(get("/egress/host/ok"), http.StatusForbidden, string(writ.CodeUnavailable))
	if l.lookups.Load() != before {
		t.Error("a name was looked up without the credential")
	}
}

// More bytes than may pass end the exchange, so that nobody takes it for whole.
func TestBytes(t *testing.T) {
	got := make(chan int, 10)
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got <- int(n)
		if r.URL.Path == "/stream" {
			for range 10 {
				_, _ = w.Write(make([]byte, 10_000))
				_ = http.NewResponseController(w).Flush()
			}
			return
		}
		w.Header().Set("Content-Length", "10000")
		_, _ = w.Write(make([]byte, 10_000))
	}))
	over := func(dimension string) {
		t.Helper()
		e, ok := errors.AsType[*writ.Error](<-l.errs)
		if !ok || e.Code != writ.CodeBudget || e.Details["dimension"] != dimension {
			t.Errorf("%v", e)
		}
	}
	l.permit.Up, l.permit.Down = 20_000, 20_000
	if status, body, _, err := l.ask(get("/egress/host/")); status != http.StatusOK || len(body) != 10_000 || err != nil {
		t.Errorf("%d, %d bytes, %v", status, len(body), err)
	}
	<-l.errs
	<-got
	l.want("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n", http.StatusForbidden, string(writ.CodeBudget)) // before a byte of it is there
	over(writ.BudgetEgress)
	chunk := "2710\r\n" + strings.Repeat("x", 10_000) + "\r\n"
	if status, body, _, _ := l.ask("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk + chunk + "0\r\n\r\n"); status == http.StatusOK {
		t.Errorf("%d %q", status, body)
	}
	over(writ.BudgetEgress)
	if n := <-got; n > 20_000 {
		t.Errorf("%d bytes arrived", n)
	}
	if status, body, _, err := l.ask(get("/egress/host/stream")); len(body) > 20_000 || err == nil {
		t.Errorf("%d, %d bytes, %v: it looks whole", status, len(body), err)
	}
	over(writ.BudgetIngress)
	l.permit.Down = 5000
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeBudget))
	over(writ.BudgetIngress)
	l.permit.Up = 10
	before := l.lookups.Load()
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeBudget))
	if l.lookups.Load() != before {
		t.Error("a name was looked up for what does not fit")
	}
}

// Whatever a host frames its answer like, the agent gets one answer or none.
func TestAnswersOfHosts(t *testing.T) {
	for _, c := range []struct{ name, answer, body string }{
		{"plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"},
		{"bytes behind it", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", "ok"},
		{"until it closes", "HTTP/1.1 200 OK\r\n\r\nok", "ok"},
		{"both lengths", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", ""},
		{"too short", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", ""},
		{"broken chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", ""},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello", ""},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", ""},
		{"nothing", "", ""},
		{"a head without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 100_000), ""},
		{"a header with a line of its own", "HTTP/1.1 200 OK\r\nX: y\rReceipt-Id: forged\r\nContent-Length: 2\r\n\r\nok", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := labFor(t, raw(t, c.answer), "http", nil)
			status, body, h, err := l.ask(get("/egress/host/"))
			if whole := status == http.StatusOK && err == nil; whole != (c.body != "") || whole && body != c.body || h.Get("Receipt-Id") != "" {
				t.Errorf("%d %q %v %v", status, body, h, err)
			}
		})
	}
}

// An answer that cannot be passed on was one all the same: what was asked has happened.
func TestAnswersThatAreNone(t *testing.T) {
	for _, line := range []string{"000 X", "042 X", "099 X", "101 Switching Protocols", "600 X", "999 X"} {
		l := labFor(t, raw(t, "HTTP/1.1 "+line+"\r\nContent-Length: 2\r\n\r\nok"), "http", nil)
		l.want("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", http.StatusForbidden, string(writ.CodeEffectFailed))
		err := l.became()
		if _, happened := errors.AsType[*writ.Happened](err); !happened || writ.CodeOf(err) != writ.CodeEffectFailed {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, line := range []string{"200 OK", "299 X", "404 Not Found", "599 X"} {
		l := labFor(t, raw(t, "HTTP/1.1 "+line+"\r\nContent-Length: 2\r\n\r\nok"), "http", nil)
		status, err := strconv.Atoi(line[:3])
		if err != nil {
			t.Fatal(err)
		}
		l.want(get("/egress/host/"), status, "ok")
	}
}

// What of an answer is not counted does not pass either, and is bounded.
func TestUncounted(t *testing.T) {
	const end = "Transfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: secret\r\n\r\n"
	early := "HTTP/1.1 103 Early Hints\r\nX-Early: secret\r\n\r\n"
	l := labFor(t, raw(t, early+"HTTP/1.1 200 OK\r\n"+end), "http", nil)
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "GET /egress/host/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 OK\r\n") || !strings.Contains(string(b), "ok") || strings.Contains(string(b), "secret") {
		t.Errorf("%q, %v", b, err)
	}
	l = labFor(t, raw(t, strings.Repeat(early, 1000)+"HTTP/1.1 200 OK\r\n"+end), "http", nil)
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeEffectFailed))
}

// Who keeps a host or the gateway waiting does so for a while and no longer.
func TestSlow(t *testing.T) {
	stop := make(chan struct{})
	l := newLab(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			<-stop
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	t.Cleanup(func() { close(stop) })
	l.permit.Time = 100 * time.Millisecond
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeEffectFailed))
	l = labWith(t, raw(t, ""), "http", nil, 100*time.Millisecond)
	// A body that does not come: the request has begun, so nobody knows what the host made of it.
	status, body, _, err := l.ask("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
	if status == http.StatusOK {
		t.Errorf("%d %q %v", status, body, err)
	}
	// A head that does not come.
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET /egress/host/ HTTP/1.1\r\nHost: x\r\n")
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection stays: %v", err)
	}
	// An answer that nobody takes.
	l = labWith(t, endless(t), "http", nil, 100*time.Millisecond)
	l.permit.Down, l.permit.Time = 1<<40, time.Hour
	idle, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	_, _ = io.WriteString(idle, get("/egress/host/"))
	if err := l.became(); !errors.Is(err, ErrAnswered) {
		t.Errorf("an answer nobody takes: %v", err)
	}
	// A body of which something always comes, and an answer of which something is always taken, for as long as the grant says.
	l = labWith(t, endless(t), "http", nil, time.Minute)
	l.permit.Up, l.permit.Down, l.permit.Time = 1<<40, 1<<40, 200*time.Millisecond
	for _, head := range []string{"POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", get("/egress/host/")} {
		busy, err := net.Dial("tcp", l.agent.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = busy.Close() }()
		_, _ = io.WriteString(busy, head)
		go func() { _, _ = io.Copy(io.Discard, busy) }()
		go func() {
			for err := error(nil); err == nil && strings.HasPrefix(head, "POST"); {
				_, err = io.WriteString(busy, "x")
			}
		}()
		if err := l.became(); err == nil {
			t.Errorf("%.20q goes on for ever", head)
		}
	}
}

// endless is a host that reads on, and answers without end.
func endless(t *testing.T) net.Addr {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr()
}

// became waits for what became of an exchange.
func (l *lab) became() error {
	l.t.Helper()
	select {
	case err := <-l.errs:
		return err
	case <-time.After(20 * time.Second):
		l.t.Error("it goes on for ever")
		return nil
	}
}

// A host may take longer to answer than a part of a body may take, again and again on
// one connection of the agent's.
func TestPatience(t *testing.T) {
	const each = 100 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		<-time.After(3 * each)
		_, _ = io.WriteString(w, "at last"+string(b))
	}))
	defer s.Close()
	l := labWith(t, s.Listener.Addr(), "http", nil, each)
	c, err := net.Dial("tcp", l.agent.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for _, ask := range []struct{ text, want string }{
		{get("/egress/host/"), "at last"},
		{"POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", "at lasthi"},
		{"PUT /egress/host/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "at lasthi"},
		{"POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000), "at last" + strings.Repeat("x", 100_000)},
		{get("/egress/host/"), "at last"},
	} {
		_, _ = io.WriteString(c, ask.text)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != ask.want || err != nil {
			t.Errorf("%.50q: %.50q, %v", ask.text, b, err)
		}
		if err := <-l.errs; err != nil {
			t.Errorf("%.50q: %v", ask.text, err)
		}
	}
}

// A request that may have arrived is not said to have failed.
func TestUnknown(t *testing.T) {
	l := labFor(t, raw(t, ""), "http", nil)
	l.want("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", http.StatusForbidden, string(writ.CodeEffectUnknown))
	l.want(get("/egress/host/"), http.StatusForbidden, string(writ.CodeEffectFailed))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	l = labFor(t, ln.Addr(), "http", nil)
	l.want("POST /egress/host/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", http.StatusForbidden, string(writ.CodeEffectFailed))
}

// TLS to the host is verified, under the name that was granted.
func TestTLS(t *testing.T) {
	s := secure(t, "host.example")
	l := labFor(t, s.Listener.Addr(), "https", pool(s))
	l.want(get("/egress/host/x"), http.StatusOK, "host.example "+l.permit.Target.String()+" /x")
	l = labFor(t, s.Listener.Addr(), "https", nil)
	l.want(get("/egress/host/x"), http.StatusForbidden, string(writ.CodeEffectFailed))
	l = labFor(t, s.Listener.Addr(), "https", pool(s))
	l.permit.Target = target.Target{Host: "other.example", Port: l.host.Port()}
	l.want(get("/egress/host/x"), http.StatusForbidden, string(writ.CodeEffectFailed))
}
