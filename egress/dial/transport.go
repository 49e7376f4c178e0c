package dial

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// Transport makes requests through a Dialer. Its user calls RoundTrip, which
// follows no redirect.
type Transport struct{ *http.Transport }

// Transport has verified TLS, no proxy, HTTP/1.1, every request on a connection of
// its own, headers of at most 32 KiB.
func (d *Dialer) Transport(handshake time.Duration) Transport {
	var plain http.Protocols
	plain.SetHTTP1(true) // connections of HTTP/2 are shared
	return Transport{&http.Transport{
		Proxy:                  nil,
		DialContext:            d.dialFor,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    handshake,
		Protocols:              &plain,
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 32 << 10,
	}}
}

// requestKey is where a context says for which request is dialled.
type requestKey struct{}

// RoundTrip makes one request. Nothing of it is left when its context has ended:
// by itself the package http goes on dialling then, and reads on where an answer
// switched protocols.
func (t Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.Transport.RoundTrip(r.WithContext(context.WithValue(r.Context(), requestKey{}, r.Context())))
}

// dialFor dials for as long as the request of a context goes on, and closes what it
// dialled when that ends.
func (d *Dialer) dialFor(ctx context.Context, network, address string) (net.Conn, error) {
	request, ok := ctx.Value(requestKey{}).(context.Context)
	if !ok {
		return nil, ErrRefused // who took the inner transport is bound by nothing
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(request, cancel)()
	c, err := d.DialContext(ctx, network, address)
	if err == nil {
		context.AfterFunc(request, func() { _ = c.Close() })
	}
	return c, err
}
