package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
)

// egress compares what an agent gets from a host by reverse mode, judged, charged and receipted, with
// the same by the proxy of the standard library, which checks nothing.
func (b *bench) egress(ctx context.Context) (err error) {
	size := 0
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for left := size; left > 0; {
			n, err := w.Write(make([]byte, min(left, 1<<20)))
			if left -= n; err != nil {
				return
			}
		}
	}))
	defer host.Close()
	to, err := url.Parse(host.URL)
	if err != nil {
		return err
	}
	theirs := httptest.NewServer(httputil.NewSingleHostReverseProxy(to))
	defer theirs.Close()

	d, g, end, err := b.inside(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	at := host.Listener.Addr().(*net.TCPAddr)
	if _, err := g.operator.Invoke(ctx, "egress.grant", map[string]any{
		"grant_id": "host", "host": at.IP.String(), "port": at.Port, "scheme": "http", "private": []string{at.IP.String() + "/32"},
		"agents": []string{builderAgent}, "rps": 1000, "down_bytes": 64 << 20,
	}, nil); err != nil {
		return err
	}
	p := newPoster(1, g.planner.Token)
	defer p.close()
	if _, _, err := p.post(ctx, g.url+"/v1/tasks", g.task("outside")); err != nil { // an agent acts outside for a task it holds
		return err
	}
	if _, err := g.builder.Claim(ctx, client.ClaimOptions{}); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = d.ServeSession(served, l, daemon.Served{Session: g.builder.ID, Jailed: true}) }()

	fetch := func(url string) (float64, error) {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return 0, err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer func() { _ = res.Body.Close() }()
		n, err := io.Copy(io.Discard, res.Body)
		if err == nil && (n != int64(size) || res.StatusCode != http.StatusOK) {
			err = fmt.Errorf("%s: %d bytes of %d", res.Status, n, size)
		}
		return ms(time.Since(began)), err
	}
	for _, c := range []struct {
		name   string
		size   int
		target float64 // 0: a note
	}{{"64 KiB", 64 << 10, 0}, {"1 MiB", 1 << 20, 0}, {"16 MiB", 16 << 20, 0.5}} {
		size = c.size
		var we, they []float64
		for range b.pick(60, 10) {
			ours, err1 := fetch("http://" + l.Addr().String() + "/egress/host/x")
			other, err2 := fetch(theirs.URL + "/x")
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			we, they = append(we, ours), append(they, other)
		}
		in, out := median(we), median(they)
		if c.target > 0 {
			b.line("throughput of reverse mode / of httputil.ReverseProxy, "+c.name, out/in, atLeast(c.target, "×"))
		}
		b.note("%s: %.2f ms governed, %.2f ms by the other (%.2f×)", c.name, in, out, out/in)
	}
	return nil
}
