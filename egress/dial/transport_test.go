package dial

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// local may be dialled on this machine.
func local(t *testing.T) Grants {
	t.Helper()
	g, err := ParseGrants([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Whoever does not answer, and wherever that is: when the request ends, so does all
// that was begun for it.
func TestNothingOutlivesItsRequest(t *testing.T) {
	get := func(ctx context.Context, d *Dialer, url string) (*http.Response, error) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return d.Transport(time.Hour).RoundTrip(req)
	}
	t.Run("a name", func(t *testing.T) {
		asked, over := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		d := &Dialer{Lookup: func(ctx context.Context, _ string) ([]netip.Addr, error) {
			close(asked)
			<-ctx.Done()
			close(over)
			return nil, ctx.Err()
		}}
		go func() { <-asked; cancel() }()
		if _, err := get(ctx, d, "http://a.example/"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-over
	})
	t.Run("a connection", func(t *testing.T) {
		asked, over := make(chan struct{}), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		d := &Dialer{Connect: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			close(asked)
			<-ctx.Done()
			close(over)
			return nil, ctx.Err()
		}}
		go func() { <-asked; cancel() }()
		if _, err := get(ctx, d, "http://1.1.1.1/"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-over
	})
	t.Run("a handshake", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		mine, its := net.Pipe()
		d := &Dialer{Connect: func(context.Context, netip.AddrPort) (net.Conn, error) { return mine, nil }}
		over := make(chan struct{})
		go func() {
			defer close(over)
			b := make([]byte, 1<<10)
			for n := 0; ; n++ {
				if _, err := its.Read(b); err != nil {
					return // closed
				}
				if n == 0 {
					cancel()
				}
			}
		}()
		if _, err := get(ctx, d, "https://1.1.1.1/"); err == nil {
			t.Error("answered")
		}
		<-over
	})
	t.Run("another protocol", func(t *testing.T) {
		over := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(over)
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
			_, _ = c.Read(make([]byte, 1)) // until the other side closes
			_ = c.Close()
		}))
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		res, err := get(ctx, &Dialer{Grants: local(t)}, s.URL)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := res.Body.Read(make([]byte, 1)); err == nil {
			t.Error("read on")
		}
		_ = res.Body.Close()
		<-over
	})
}
