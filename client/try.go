package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

const (
	maxAnswer = 64 << 20        // bytes of one reply
	maxPause  = 5 * time.Second // between two tries
)

// try sends a body until it is answered for good.
func (c *Client) try(ctx context.Context, body []byte, o options) ([]byte, Meta, error) {
	for n := 1; ; n++ {
		answer, meta, err := c.once(ctx, body, o)
		meta.Tries = n
		if err == nil || n > c.cfg.Retries || !again(err) {
			return answer, meta, err
		}
		timer := time.NewTimer(pause(n, err))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, meta, err
		}
	}
}

// again says whether a failure may go away by itself.
func again(err error) bool {
	code := writ.CodeOf(err)
	return code.Passes() || code == writ.CodeReceiptPending || code == writ.CodeUpgrade
}

// pause is how long to wait before the next try: what the gateway asks for, or
// else 100 ms doubled each time, half of it at random so that clients that
// failed together do not come back together.
func pause(n int, err error) time.Duration {
	d := 100 * time.Millisecond << min(n-1, 10)
	if e, ok := errors.AsType[*writ.Error](err); ok && e.RetryMs > 0 {
		d = time.Duration(e.RetryMs) * time.Millisecond
		d += d / 2
	}
	d = min(d, maxPause)
	return d/2 + rand.N(d/2+1)
}

// once makes one HTTP exchange, and takes what the reply shows of the log.
func (c *Client) once(ctx context.Context, body []byte, o options) ([]byte, Meta, error) {
	answer, header, meta, err := c.exchange(ctx, body, o)
	c.noteLog(header)
	return answer, meta, err
}

func (c *Client) exchange(ctx context.Context, body []byte, o options) ([]byte, http.Header, Meta, error) {
	const op = "client.try"
	who, err := c.identity()
	if err != nil {
		return nil, nil, Meta{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout+o.wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/invoke", bytes.NewReader(body))
	if err != nil {
		return nil, nil, Meta{}, writ.Fault(writ.CodeInternal, op, err)
	}
	who.authorize(req)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, application/problem+json")
	if o.key != "" {
		req.Header.Set("Idempotency-Key", o.key)
	}
	if o.version > 0 {
		req.Header.Set("If-Match", `"`+strconv.FormatInt(o.version, 10)+`"`)
	}
	if o.sign != nil { // by every try: the token, and with it the session, may be renewed
		header, err := o.sign(who)
		if err != nil {
			return nil, nil, Meta{}, writ.AsError(op, err)
		}
		req.Header.Set("Cosignature", header)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, nil, Meta{}, unreachable(op, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	meta := metaOf(res.Header)
	if err != nil {
		return nil, res.Header, meta, unreachable(op, err)
	}
	if len(answer) > maxAnswer {
		return nil, res.Header, meta, writ.Refuse(writ.CodeTooLarge, op, "the reply is too large", "ask for a smaller page")
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return answer, res.Header, meta, nil
	}
	return nil, res.Header, meta, refusal(res, answer)
}

func unreachable(op string, err error) error {
	return &writ.Error{
		Code: writ.CodeNotReady, Op: op, Err: err, Msg: "the gateway cannot be reached",
		Hint: "check the URL, and that the gateway runs",
	}
}

func metaOf(h http.Header) Meta {
	version, _ := strconv.ParseInt(strings.Trim(h.Get("ETag"), `"`), 10, 64)
	return Meta{
		Receipt: writ.ReceiptID(h.Get("Receipt-Id")), RequestID: writ.CallID(h.Get("Request-Id")),
		PolicyRevision: h.Get("Policy-Revision"), Version: version, Replayed: h.Get("Idempotency-Replayed") == "true",
	}
}

// refusal turns a problem (RFC 9457) back into the error it was made from. An
// answer that is no problem came from something in between.
func refusal(res *http.Response, answer []byte) error {
	var p struct {
		Code       writ.Code         `json:"code"`
		Detail     string            `json:"detail"`
		Hint       string            `json:"hint"`
		RequestID  string            `json:"request_id"`
		RuleIDs    []string          `json:"rule_ids"`
		Receipt    writ.ReceiptID    `json:"receipt"`
		Aggregated bool              `json:"aggregated"`
		Errors     []writ.FieldError `json:"errors"`
		Missing    []string          `json:"missing"`
		Probes     []writ.Probe      `json:"probes"`
		Details    map[string]string `json:"details"`
	}
	err := json.Unmarshal(answer, &p)
	if err != nil || !slices.Contains(writ.Codes(), p.Code) {
		e := &writ.Error{
			Code: writ.CodeInternal, Op: "client.refusal", Msg: "the answer is not that of a gateway (HTTP " + strconv.Itoa(res.StatusCode) + ")",
			Hint: "check the URL and what lies between",
		}
		switch res.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			e.Code = writ.CodeNotReady
		}
		return e
	}
	e := &writ.Error{
		Code: p.Code, Op: "gateway", Msg: p.Detail, Hint: p.Hint, Rules: p.RuleIDs, Details: p.Details, Fields: p.Errors,
		Missing: p.Missing, Probes: p.Probes, Receipt: p.Receipt, Aggregated: p.Aggregated,
	}
	if s, err := strconv.ParseInt(res.Header.Get("Retry-After"), 10, 64); err == nil && s > 0 && s < 3600 {
		e.RetryMs = 1000 * s
	}
	if p.RequestID != "" {
		e = e.With("request_id", p.RequestID)
	}
	return e
}
