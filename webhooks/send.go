package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// What became of a delivery, as metrics name it.
const (
	outcomeDelivered = "delivered"
	outcomeFailed    = "failed" // and is tried again
	outcomeGone      = "gone"   // the endpoint said 410: it is asked no more
	outcomeGivenUp   = "given_up"
)

// Bounds of one request.
const (
	timeout    = 10 * time.Second
	maxHeaders = 32 << 10
	maxBody    = 16 << 10 // read of an answer so that its connection serves again; nothing is made of it
)

// newTransport is how requests go out: verified TLS, and no header or
// compressed body without a bound.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    timeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaders,
		MaxIdleConnsPerHost:    parallel,
		IdleConnTimeout:        90 * time.Second,
	}
}

// answer is what came of one request.
type answer struct {
	outcome string
	why     string        // of a failure, for the log
	after   time.Duration // how long the endpoint asks to be left alone
}

// sender makes signed requests. It uses the transport itself and no client, so
// no redirect is followed: what a receiver redirects to may be anybody.
type sender struct {
	transport *http.Transport
	limit     time.Duration // of one request
	now       func() time.Time
}

// send delivers one body once.
func (s *sender) send(ctx context.Context, e Endpoint, id string, body []byte) answer {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return answer{outcome: outcomeFailed, why: "the address is no URL"}
	}
	at := s.now().Unix()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "writ/"+writ.Version)
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(at, 10))
	req.Header.Set("Webhook-Signature", e.Secrets.signature(id, at, body))
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return answer{outcome: outcomeFailed, why: s.reason(ctx, err)}
	}
	_, _ = io.CopyN(io.Discard, res.Body, maxBody)
	_ = res.Body.Close()
	return s.judge(res)
}

// judge says what a status means.
func (s *sender) judge(res *http.Response) answer {
	code := res.StatusCode
	a := answer{outcome: outcomeFailed, why: "it answered " + strconv.Itoa(code)}
	switch {
	case code >= 200 && code < 300:
		return answer{outcome: outcomeDelivered}
	case code >= 300 && code < 400:
		a.why += ", and redirects are not followed: configure the address it has moved to"
	case code == http.StatusGone:
		a.outcome = outcomeGone
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable:
		a.after = retryAfter(res.Header.Get("Retry-After"), s.now())
	}
	return a
}

// maxReason bounds what an endpoint's nonsense adds to the log.
const maxReason = 200

// reason is why there was no answer.
func (s *sender) reason(ctx context.Context, err error) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %v", s.limit)
	}
	why := err.Error()
	return strings.ToValidUTF8(why[:min(len(why), maxReason)], "")
}

// Probe sends one signed webhook.test to an endpoint. The error says what came
// back instead of a 2xx.
func Probe(ctx context.Context, e Endpoint, id string) error {
	t := newTransport()
	defer t.CloseIdleConnections()
	s := &sender{t, timeout, time.Now}
	m, err := probe(s.now())
	if err != nil {
		return err
	}
	if a := s.send(ctx, e, id, m); a.outcome != outcomeDelivered {
		return errors.New(a.why)
	}
	return nil
}
