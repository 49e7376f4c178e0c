package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, change func(*Config)) (addr string, door *fakeDoor) {
	t.Helper()
	h, door := newFake(t, func(c *Config) {
		c.Now = nil
		if change != nil {
			change(c)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(h)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return ln.Addr().String(), door
}

func TestTimeoutsAllowALongPoll(t *testing.T) {
	s := Server(nil)
	if s.ReadHeaderTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("no limit: %+v", s)
	}
	if s.WriteTimeout < 40*time.Second || s.ReadTimeout != 0 {
		t.Errorf("a claim that waits 30 s would be cut off: write %s, read %s", s.WriteTimeout, s.ReadTimeout)
	}
}

// The time a body may take must not end the call that follows it.
func TestBodyDeadlineIsLifted(t *testing.T) {
	addr, door := serve(t, func(c *Config) { c.Limits.BodyTime = 100 * time.Millisecond })
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		<-time.After(300 * time.Millisecond) // longer than BodyTime: a poll
		return writ.Reply{Outcome: writ.OutcomeDone, JSON: []byte(`{"id":"x"}`)}, nil, nil
	}
	req, _ := http.NewRequest("POST", "http://"+addr+"/v1/tasks/claim", strings.NewReader(`{"wait_s":1}`))
	req.Header.Set("Authorization", "Bearer "+testToken)
	req.Header.Set("Content-Type", "application/json")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		t.Errorf("status %d", res.StatusCode)
	}
}

func TestSlowBodyIsCutOff(t *testing.T) {
	addr, door := serve(t, func(c *Config) { c.Limits.BodyTime = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{", testToken)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, " 400 ") {
		t.Errorf("%q %v", line, err)
	}
	if door.count() != 0 {
		t.Error("half a body reached the door")
	}
}

// The server drains a body before it answers; a caller without a token must
// not be able to hold it there.
func TestUnreadSlowBodyIsCutOff(t *testing.T) {
	addr, _ := serve(t, func(c *Config) { c.Limits.BodyTime = 100 * time.Millisecond })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, " 401 ") {
		t.Errorf("%q %v", line, err)
	}
}

// A body that announces too much is refused before it is sent.
func TestLargeBodyIsRefusedUnread(t *testing.T) {
	addr, door := serve(t, nil)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", testToken, 128<<10+1)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, " 413 ") {
		t.Errorf("%q %v", line, err)
	}
	if door.count() != 0 {
		t.Error("it reached the door")
	}
}

// When the caller goes away, the call under way hears of it.
func TestCallerGoneEndsTheCall(t *testing.T) {
	gone := make(chan struct{})
	entered := make(chan struct{})
	h, door := newFake(t, func(c *Config) { c.Now = nil })
	wrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		go func() { <-r.Context().Done(); close(gone) }()
		h.ServeHTTP(w, r)
	})
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		close(entered)
		<-gone
		return writ.Reply{}, nil, writ.Refuse(writ.CodeNotReady, "test", "gone", "")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(wrapped)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-done }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(conn, "POST /v1/tasks/claim HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", testToken)
	<-entered
	_ = conn.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the call was not cancelled")
	}
}

// A page that made its own name lead to this machine does not get in.
func TestHostNamesOfOthersAreRefused(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Hosts = append([]string{"writ.example.org"}, LoopbackHosts...) })
	for host, ok := range map[string]bool{
		"localhost": true, "LocalHost:8700": true, "127.0.0.1:8700": true, "127.0.0.1": true, "127.1.2.3:1": true, "[::1]:8700": true, "[::1]": true,
		"writ.example.org": true, "writ.example.org:443": true,
		"": false, "evil.example:8700": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "192.168.0.1:8700": false,
		"0.0.0.0:8700": false, "localhost.": false, "[::1": false, "a:b:c": false, "[::ffff:10.0.0.1]": false,
	} {
		for _, path := range []string{"/v1/runs", "/healthz", "/docs", "/nowhere"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			r.Header.Set("Authorization", "Bearer "+testToken)
			w := httptest.NewRecorder()
			before := door.count()
			h.ServeHTTP(w, r)
			if !ok {
				wantProblem(t, w, http.StatusMisdirectedRequest, writ.CodeMalformed)
				if door.count() != before || host != "" && strings.Contains(w.Body.String(), host) {
					t.Errorf("%q at %s: %s", host, path, w.Body)
				}
			} else if w.Code == http.StatusMisdirectedRequest {
				t.Errorf("%q at %s is refused", host, path)
			}
		}
	}
}
