package egress

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/writ-gateway/writ/egress/target"
	"github.com/writ-gateway/writ/egress/wire"
)

// permits lets everything through to one host.
type permits struct {
	c *Client
	p Permit
}

func (a permits) Deny(_ context.Context, _, _ string, why error) error { return why }

func (a permits) Authorize(ctx context.Context, at Attempt, s *Streams) error {
	p := a.p
	p.Mode, p.Method, p.Path, p.Query = at.Mode, at.Method, at.Path, at.Query
	_, err := a.c.Carry(ctx, p, s)
	return err
}

// BenchmarkAgainstReverseProxy compares reverse mode with the proxy of the standard
// library, which checks nothing, in turns. Its metric "ratio" is how much of the
// throughput of that one is left; the judging by the door is not in it.
func BenchmarkAgainstReverseProxy(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}, {"16MiB", 16 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			body := make([]byte, c.size)
			host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
			defer host.Close()
			at := netip.MustParseAddrPort(host.Listener.Addr().String())
			ours := httptest.NewUnstartedServer(&Proxy{
				Auth: permits{New(Config{}), Permit{
					Scheme: "http", Target: target.Target{Host: at.Addr().String(), Port: at.Port()}, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Up: 1 << 40, Down: 1 << 40, Time: time.Minute,
				}},
				Fail: func(w http.ResponseWriter, _ *http.Request, err error) {
					http.Error(w, err.Error(), http.StatusBadGateway)
				},
			})
			ours.Listener = wire.Listener(ours.Listener)
			ours.Start()
			defer ours.Close()
			to, err := url.Parse(host.URL)
			if err != nil {
				b.Fatal(err)
			}
			theirs := httptest.NewServer(httputil.NewSingleHostReverseProxy(to))
			defer theirs.Close()
			get := func(url string) time.Duration {
				begun := time.Now()
				res, err := http.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
				if err != nil || n != int64(c.size) || res.StatusCode != http.StatusOK {
					b.Fatalf("%d, %d bytes, %v", res.StatusCode, n, err)
				}
				return time.Since(begun)
			}
			var we, they time.Duration
			for b.Loop() {
				we += get(ours.URL + "/egress/host/x")
				they += get(theirs.URL + "/x")
			}
			b.SetBytes(int64(2 * c.size))
			b.ReportMetric(float64(they)/float64(we), "ratio")
			b.ReportMetric(float64(c.size)*float64(b.N)/we.Seconds()/1e6, "MB/s-ours")
		})
	}
}
