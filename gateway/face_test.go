package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress"
)

// faces are sessions that are served on listeners of their own.
func serveFace(t *testing.T, h http.Handler, session writ.SessionID, limits FaceLimits) (at string, end func(), gone *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone = &atomic.Int64{}
	face := Face(h, Identity{Credential: writ.Credential{Tenant: "default", Session: session, SecretHash: [32]byte{1}}, Jailed: true}, func() { gone.Add(1); cancel() })
	done := make(chan error, 1)
	go func() { done <- ServeFace(ctx, l, face, limits) }()
	end = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(end)
	return l.Addr().String(), end, gone
}

func sayTo(t *testing.T, at, text string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, text)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

const otherSession = "ses_01HYYYYYYYYYYYYYYYYYYYYYYY"

// Who speaks is said by the listener, and by nothing that is sent there: two sessions
// that claim to be each other stay who they are.
func TestIdentityIsTheListener(t *testing.T) {
	h, door := newFake(t, nil)
	one, _, _ := serveFace(t, h, testSession, FaceLimits{})
	two, _, _ := serveFace(t, h, otherSession, FaceLimits{})
	claims := func(other writ.SessionID) string {
		return "Authorization: Bearer default." + string(other) + "." + testSecret + "\r\nX-Agent-Id: other\r\nX-Session-Id: " + string(other) + "\r\nWrit-Session: " + string(other) + "\r\n" +
			"Proxy-Authorization: Bearer default." + string(other) + "." + testSecret + "\r\nCookie: session=" + string(other) + "\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=x\r\n"
	}
	for _, c := range []struct {
		at         string
		me, claims writ.SessionID
	}{{one, testSession, otherSession}, {two, otherSession, testSession}} {
		for _, text := range []string{
			"GET /v1/runs/" + testRun + " HTTP/1.1\r\nHost: gateway\r\n" + claims(c.claims) + "\r\n",
			"GET /v1/runs/" + testRun + " HTTP/1.1\r\nHost: gateway\r\n\r\n",
			"POST /v1/egress/fetch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 16\r\n" + claims(c.claims) + "\r\n{\"grant\":\"site\"}",
			"GET /egress/site/x HTTP/1.1\r\nHost: gateway\r\n" + claims(c.claims) + "\r\n",
			"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n" + claims(c.claims) + "\r\n",
			"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n" + claims(c.claims) + "\r\n",
		} {
			before := door.count()
			status, body := sayTo(t, c.at, text)
			if door.count() != before+1 {
				t.Fatalf("%.40q did not reach the door: %d %s", text, status, body)
			}
			call := door.last(t)
			if call.Credential.Session != c.me || call.Credential.SecretHash != [32]byte{1} || !call.Jailed {
				t.Errorf("%.40q is a call of %s, jailed %t", text, call.Credential.Session, call.Jailed)
			}
		}
	}
	// Elsewhere a token is wanted, and nothing of this is there.
	if w := send(h, "GET", "/egress/site/x", ""); w.Code != http.StatusNotFound {
		t.Errorf("a way out without a listener: %d", w.Code)
	}
	before := door.count()
	if w := send(h, "GET", "/v1/runs/"+testRun, "", "Authorization", ""); w.Code != http.StatusUnauthorized || door.count() != before {
		t.Errorf("without a token: %d", w.Code)
	}
	if send(h, "GET", "/v1/runs/"+testRun, ""); door.last(t).Jailed {
		t.Error("a token makes a jail")
	}
}

// What reaches the door is what was sent: where to, how, and how much, and the streams.
func TestAttemptsBecomeCalls(t *testing.T) {
	h, door := newFake(t, nil)
	at, _, _ := serveFace(t, h, testSession, FaceLimits{})
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		s := c.Streams.(*egress.Streams)
		b := []byte{}
		if s.Body != nil {
			b, _ = io.ReadAll(s.Body)
		}
		err := s.Answer(&egress.Answer{Status: http.StatusCreated, Header: http.Header{"Effect-Id": {"eff_1"}, "X-Host": {"y"}}, Length: -1, Body: strings.NewReader(string(b))})
		return writ.Reply{Outcome: writ.OutcomeDone}, nil, err
	}
	for text, want := range map[string]string{
		"POST /egress/site/x?y=z HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi":           `{"grant":"site","length":2,"method":"POST","path":"/x?y=z"}`,
		"GET /egress/site HTTP/1.1\r\nHost: g\r\n\r\n":                                         `{"grant":"site","length":0,"method":"GET","path":"/"}`,
		"GET http://a.example:81/x HTTP/1.1\r\nHost: b\r\n\r\n":                                `{"length":0,"method":"GET","to":"http://a.example:81/x"}`,
		"PUT /egress/site/ HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": `{"grant":"site","length":-1,"method":"PUT","path":"/"}`,
	} {
		status, body := sayTo(t, at, text)
		call := door.last(t)
		if status != http.StatusCreated || string(call.Raw) != want || call.Capability != "egress.fetch" || strings.Contains(text, "\r\n\r\nhi") && body != "hi" {
			t.Errorf("%.30q: %d %q, %s", text, status, body, call.Raw)
		}
	}
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{}, nil, writ.Refuse(writ.CodeEgress, "test", "no grant", "")
	}
	if status, body := sayTo(t, at, "GET /egress/site/x HTTP/1.1\r\nHost: g\r\n\r\n"); status != http.StatusForbidden || !strings.Contains(body, `"egress_denied"`) {
		t.Errorf("%d %s", status, body)
	}
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{Outcome: writ.OutcomePending, Body: writ.Pending{Approval: "apr_01HYYYYYYYYYYYYYYYYYYYYYYY"}}, nil, nil
	}
	if status, body := sayTo(t, at, "GET /egress/site/x HTTP/1.1\r\nHost: g\r\n\r\n"); status != http.StatusForbidden || !strings.Contains(body, `"approval_required"`) || !strings.Contains(body, "apr_01HYY") {
		t.Errorf("people must agree: %d %s", status, body)
	}
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{Outcome: writ.OutcomeDone}, nil, nil
	}
	if status, body := sayTo(t, at, "GET /egress/site/x HTTP/1.1\r\nHost: g\r\n\r\n"); status != http.StatusInternalServerError {
		t.Errorf("nothing was carried out, and that is %d %s", status, body)
	}
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		err := c.Streams.(*egress.Streams).Answer(&egress.Answer{Status: http.StatusOK, Header: http.Header{}, Length: -1, Body: io.MultiReader(strings.NewReader("half"), breaks{})})
		return writ.Reply{}, nil, err
	}
	if status, body := sayTo(t, at, "GET /egress/site/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"); status == http.StatusOK && !strings.HasPrefix(body, "half") || strings.Contains(body, "code") {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := sayTo(t, at, "GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n"); status != http.StatusNotFound {
		t.Errorf("metrics: %d", status)
	}
}

type breaks struct{}

func (breaks) Read([]byte) (int, error) { return 0, errors.New("broken") }

// A session that has ended has no listener: the door says so once, and nobody connects
// any more.
func TestARevokedSessionHasNoListener(t *testing.T) {
	h, door := newFake(t, nil)
	at, end, gone := serveFace(t, h, testSession, FaceLimits{})
	held, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	_ = held.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(held, "GET /v1/runs/"+testRun+" HTTP/1.1\r\nHost: g\r\n\r\n")
	r := bufio.NewReader(held)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	} else {
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	door.mu.Lock()
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{}, nil, writ.Refuse(writ.CodeUnauthenticated, "test", "no session", "")
	}
	door.mu.Unlock()
	_, _ = sayTo(t, at, "GET /v1/runs/"+testRun+" HTTP/1.1\r\nHost: g\r\n\r\n")
	end()
	if gone.Load() != 1 {
		t.Errorf("told %d times", gone.Load())
	}
	if c, err := net.Dial("tcp", at); err == nil {
		_ = c.Close()
		t.Error("somebody still listens")
	}
	if _, err := r.ReadByte(); err == nil {
		t.Error("a connection from before is still open")
	}
}

// A host that says 401 to the agent has not ended its session.
func TestAHostsOwn401(t *testing.T) {
	h, door := newFake(t, nil)
	at, _, gone := serveFace(t, h, testSession, FaceLimits{})
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{Outcome: writ.OutcomeDone}, nil, c.Streams.(*egress.Streams).Answer(&egress.Answer{Status: http.StatusUnauthorized, Header: http.Header{"Effect-Id": {"eff_1"}}, Body: strings.NewReader("")})
	}
	if status, _ := sayTo(t, at, "GET /egress/site/x HTTP/1.1\r\nHost: g\r\n\r\n"); status != http.StatusUnauthorized || gone.Load() != 0 {
		t.Errorf("%d, told %d times", status, gone.Load())
	}
}

// A listener has so many connections, and one more when one has gone.
func TestFewConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &few{Listener: l, free: make(chan struct{}, 2), closed: make(chan struct{})}
	var got []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		in, err := f.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, in)
	}
	if len(f.free) != cap(f.free) {
		t.Error("there is room for a third")
	}
	third := make(chan error, 1)
	go func() {
		_, err := f.Accept()
		third <- err
	}()
	_, _ = got[0].Close(), got[0].Close() // twice is once
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		defer func() { _ = c.Close() }()
	}
	if err := <-third; err != nil || len(f.free) != 2 {
		t.Errorf("%v, %d", err, len(f.free))
	}
	go func() {
		_, err := f.Accept()
		third <- err
	}()
	_ = f.Close()
	if err := <-third; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// What is no HTTP/1.1 in its strict form, comes too slowly, or is too much, gets no
// further.
func TestFaceLimits(t *testing.T) {
	h, door := newFake(t, nil)
	at, _, _ := serveFace(t, h, testSession, FaceLimits{Conns: 2, HeaderTime: 200 * time.Millisecond})
	for _, text := range []string{
		"POST /v1/runs HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /v1/runs HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
		"GET /v1/runs HTTP/1.1\nHost: g\n\n",
		"GET /v1/runs HTTP/1.1\r\nHost: g\r\nX: y\r\n z\r\n\r\n",
		"GET /v1/runs HTTP/1.1\r\nHost: g\r\nX: " + strings.Repeat("y", 20<<10) + "\r\n\r\n",
	} {
		if status, body := sayTo(t, at, text); status != http.StatusBadRequest && status != 0 {
			t.Errorf("%.60q: %d %s", text, status, body)
		}
	}
	if n := door.count(); n != 0 {
		t.Errorf("%d calls reached the door", n)
	}
	// Two who say nothing take the places there are: a third waits, however long, until one of them is gone.
	patient, _, _ := serveFace(t, h, testSession, FaceLimits{Conns: 2, HeaderTime: time.Hour})
	var silent []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", patient)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET /v1/runs HTTP/1.1\r\n")
		silent = append(silent, c)
	}
	third := make(chan int, 1)
	go func() {
		status, _ := sayTo(t, patient, fmt.Sprintf("GET /v1/runs/%s HTTP/1.1\r\nHost: g\r\n\r\n", testRun))
		third <- status
	}()
	select {
	case status := <-third:
		t.Errorf("a third was answered beside two: %d", status)
	case <-time.After(300 * time.Millisecond):
		_ = silent[0].Close()
		if status := <-third; status != http.StatusOK {
			t.Errorf("the third, once there was room: %d", status)
		}
	}
	// And those that say nothing are there for as long as a head may take.
	for range 2 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET /v1/runs HTTP/1.1\r\n")
	}
	if status, body := sayTo(t, at, fmt.Sprintf("GET /v1/runs/%s HTTP/1.1\r\nHost: g\r\n\r\n", testRun)); status != http.StatusOK {
		t.Errorf("the third: %d %s", status, body)
	}
}

// drips says something forever, a little at a time, and returns when nobody listens any more.
func drips(t *testing.T, at, head, more string) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, err = io.WriteString(c, head)
	for end := time.Now().Add(20 * time.Second); err == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%.40q is listened to for ever", head)
			return
		}
		_, err = io.WriteString(c, more)
	}
}

// Who keeps a listener busy by being slow has a time in all, however often something of it
// comes: with a head, with a body, and with taking an answer. What is too large is not read.
func TestFaceIsNotKeptBusy(t *testing.T) {
	const soon = 100 * time.Millisecond
	h, door := newFake(t, func(c *Config) { c.Limits.BodyTime, c.Limits.BodyBytes = soon, 100 })
	at, _, _ := serveFace(t, h, testSession, FaceLimits{HeaderTime: soon})
	drips(t, at, "GET /v1/runs HTTP/1.1\r\nHost: g\r\nX: ", "y")
	drips(t, at, "POST /v1/runs HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", " ")
	drips(t, at, "POST /v1/runs HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n")
	// What is too long is refused for that, however slow the machine is.
	h, patient := newFake(t, func(c *Config) { c.Limits.BodyBytes = 100 })
	at, _, _ = serveFace(t, h, testSession, FaceLimits{})
	for _, size := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		text := "POST /v1/runs HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n" + size + "\r\n\r\n65\r\n" + strings.Repeat(" ", 101) + "\r\n0\r\n\r\n"
		if status, body := sayTo(t, at, text); status != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d %s", size, status, body)
		}
	}
	if n := door.count() + patient.count(); n != 0 {
		t.Errorf("%d calls reached the door", n)
	}
	// An answer that nobody takes.
	given := make(chan error, 1)
	at, _, _ = serveFace(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		given <- err
	}), testSession, FaceLimits{WriteTime: soon})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: g\r\n\r\n")
	select {
	case <-given:
	case <-time.After(20 * time.Second):
		t.Error("an answer is written for ever to who does not read")
	}
}
