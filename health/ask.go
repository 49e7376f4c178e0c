package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/dial"
)

// maxBody is how much of an answer is read; nothing is made of it.
const maxBody = 16 << 10

// ask makes one request and judges the answer. It uses the transport itself and
// no client, so no redirect is followed.
func ask(ctx context.Context, via http.RoundTripper, e writ.Endpoint) writ.ProbeResult {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(e.TimeoutMs)*time.Millisecond)
	defer cancel()
	r := writ.ProbeResult{}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL, nil)
	if err != nil {
		r.Reason = writ.ReasonProtocol
		return r
	}
	req.Header.Set("User-Agent", "writ/"+writ.Version)
	res, err := via.RoundTrip(req)
	if err == nil {
		_, err = io.CopyN(io.Discard, res.Body, maxBody)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		_ = res.Body.Close()
		r.Code = int64(res.StatusCode)
	}
	r.LatencyMs = time.Since(begun).Milliseconds()
	switch {
	case err != nil:
		r.Reason = reason(ctx, err)
	case slices.Contains(e.Codes, r.Code), len(e.Codes) == 0 && r.Code >= 200 && r.Code < 300:
	case r.Code >= 300 && r.Code < 400:
		r.Reason = writ.ReasonRedirect
	default:
		r.Reason = writ.ReasonCode
	}
	return r
}

// reason says why there was no answer.
func reason(ctx context.Context, err error) writ.HealthReason {
	var (
		name *net.DNSError
		cert *tls.CertificateVerificationError
		text tls.RecordHeaderError
		said tls.AlertError
		auth x509.UnknownAuthorityError
		op   *net.OpError
	)
	switch {
	case errors.Is(err, dial.ErrRefused):
		return writ.ReasonAddress
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return writ.ReasonTimeout
	case errors.As(err, &name):
		return writ.ReasonName
	case errors.As(err, &cert), errors.As(err, &text), errors.As(err, &said), errors.As(err, &auth):
		return writ.ReasonTLS
	case errors.As(err, &op):
		return writ.ReasonConnect
	}
	return writ.ReasonProtocol
}
