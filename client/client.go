// Package client is how programs use a gateway: one call by name, Invoke, and
// typed helpers for what agents do all day.
//
// It is not a second implementation of any rule: it sends, repeats what is
// safe to repeat, and turns problems back into *writ.Error. Its invariant: a
// change asked for once is made at most once, however often the network makes
// the client try, because every try carries the same Idempotency-Key.
package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Config says where the gateway is and who calls.
type Config struct {
	// URL of the gateway, for example http://127.0.0.1:8700. With UnixSocket it
	// may be left out.
	URL        string
	UnixSocket string // path of a socket to dial instead of the URL's host

	// Token of the session, or a file that holds it and is read for every call,
	// so that a renewed token is noticed. Exactly one of them.
	Token     string
	TokenFile string
	// Jailed is the session of the jail the caller runs in ($WRIT_SESSION there), in
	// place of a token: the listener says who it is, and nothing is sent.
	Jailed writ.SessionID

	// Timeout of one try without the time a claim waits; 15 s when 0.
	Timeout time.Duration
	// Retries after the first try; 4 when 0, none when negative.
	Retries int

	// Cosign signs every call that carries an Idempotency-Key with the caller's own
	// key, where policy may want that: it gives the header Cosignature for a call,
	// whose ArgsDigest is empty, and its arguments as they are sent. Optional;
	// (*receipts.CosignKey).Header is one.
	Cosign func(call writ.Cosigned, args []byte) (header string, err error)

	// Log says how the gateway is held to its transparency log.
	Log LogConfig

	Transport http.RoundTripper // nil: a transport of its own
}

// Client calls a gateway. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base string
	http *http.Client

	logMu   sync.Mutex
	log     watch
	proving sync.Mutex // one proof at a time; taken before the next
	keeping sync.Mutex // one update of the keeper at a time; taken before logMu
}

// New makes a client. It does not connect.
func New(cfg Config) (*Client, error) {
	if cfg.URL == "" && cfg.UnixSocket != "" {
		cfg.URL = "http://writ"
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("client: URL must be http://host or https://host, without user, query or fragment")
	}
	switch {
	case cfg.Jailed != "" && cfg.Token+cfg.TokenFile != "":
		return nil, errors.New("client: in a jail there is no token: who calls is who the listener belongs to")
	case cfg.Jailed == "" && (cfg.Token == "") == (cfg.TokenFile == ""):
		return nil, errors.New("client: give either a token or a token file")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 15 * time.Second
	}
	switch {
	case cfg.Retries == 0:
		cfg.Retries = 4
	case cfg.Retries < 0:
		cfg.Retries = 0
	}
	cfg.Log.Every = cmp.Or(cfg.Log.Every, LogEvery)
	if cfg.Transport == nil {
		t := &http.Transport{
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 60 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
			ExpectContinueTimeout: 2 * time.Second,
			Proxy:                 http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
		}
		if path := cfg.UnixSocket; path != "" {
			t.Proxy = nil
			t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			}
		}
		cfg.Transport = t
	}
	c := &Client{
		cfg: cfg, base: strings.TrimSuffix(u.String(), "/"),
		http: &http.Client{
			Transport: cfg.Transport,
			// A redirect would carry the token somewhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if cfg.Log.Keep != nil {
		seen, err := cfg.Log.Keep.Load()
		if err != nil {
			return nil, err
		}
		if !seen.Valid() {
			return nil, errors.New("client: what is kept of the log is damaged: move it away, what was shown before is not known any more")
		}
		c.log.seen, c.log.kept = seen, seen
	}
	if key := cfg.Log.Key; key != "" && key != c.log.seen.Key {
		if c.log.seen.Key != "" {
			return nil, wrongLog(c.log.seen.Proven, "", "what was kept of the log of this gateway is of another key than the one given")
		}
		c.log.seen.Key = key
	}
	return c, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Meta is what a reply says besides its data.
type Meta struct {
	Receipt        writ.ReceiptID // empty for reads
	RequestID      writ.CallID
	Outcome        writ.Outcome
	PolicyRevision string
	Redacted       []string     // JSON pointers into the data: policy keeps what was there from the caller
	Limited        []writ.Limit // arguments that were greater than policy allows, and what was used instead
	Version        int64        // ETag of the document shown; 0 when there is none
	Replayed       bool         // the reply of an earlier call with the same key
	Tries          int
}

// Option qualifies one call.
type Option func(*options)

type options struct {
	key     string
	noKey   bool
	version int64
	wait    time.Duration
	verdict string                                    // signed, of VerifyTask and CloseRun
	gate    writ.GateStatus                           // of Complete
	sign    func(identity) (header string, err error) // nil: the call is not signed
}

// WithIdempotencyKey sends a key of the caller's instead of a fresh one; an
// empty key changes nothing.
func WithIdempotencyKey(key string) Option {
	return func(o *options) {
		if key != "" {
			o.key = key
		}
	}
}

// WithIfVersion makes the change only if the document is still at a version.
func WithIfVersion(v int64) Option { return func(o *options) { o.version = v } }

// WithWait allows the gateway that much longer to answer: for calls that wait.
func WithWait(d time.Duration) Option { return func(o *options) { o.wait = d } }

// naturally marks a call as safe to repeat by its nature, so that no key is
// kept for it.
func naturally(o *options) { o.noKey = true }

// Invoke calls a capability by name. args is rendered as JSON and must be an
// object, nil for none; the reply's data is decoded into out unless that is
// nil or there is no data (Meta.Outcome is then writ.OutcomeEmpty).
//
// A call that people must agree to first has not happened: the error has
// CodeApprovalRequired and the approval's id among its details, and Meta.Outcome is
// writ.OutcomePending. Make the same call again, with the same key, once the
// approval is approved. If it is then refused with CodeApprovalDenied and a
// successor among the details, a person agreed to it with other arguments only:
// approval.get shows them, and the call with these is another call with a key of
// its own.
//
// Errors are *writ.Error: what the gateway refused has the gateway's code;
// CodeNotReady with an Err means that no answer came. Calls are repeated on
// network errors, on 503 and on backpressure, with the same key, as often as
// the configuration says and never past ctx. Once the gateway was seen to have changed
// its log no call is sent any more: the error has a *LogError in it.
func (c *Client) Invoke(ctx context.Context, capability writ.CapabilityID, args, out any, opts ...Option) (Meta, error) {
	const op = "client.Invoke"
	if err := c.LogError(); err != nil {
		return Meta{}, err
	}
	var o options
	if capability == "task.heartbeat" || capability == "session.heartbeat" {
		opts = append([]Option{naturally}, opts...)
	}
	for _, f := range opts {
		f(&o)
	}
	if o.key == "" && !o.noKey {
		o.key = rand.Text()
	}
	if o.wait == 0 {
		o.wait = waitIn(args)
	}
	if args == nil {
		args = struct{}{}
	}
	sent, err := json.Marshal(args)
	var body []byte
	if err == nil {
		body, err = json.Marshal(struct {
			Capability writ.CapabilityID `json:"capability"`
			Args       json.RawMessage   `json:"args"`
		}{capability, sent})
	}
	if err != nil {
		return Meta{}, &writ.Error{Code: writ.CodeMalformed, Op: op, Msg: "the arguments cannot be written as JSON", Err: err}
	}
	if c.cfg.Cosign != nil && o.key != "" {
		o.sign = func(who identity) (string, error) {
			return c.cfg.Cosign(writ.Cosigned{Capability: capability, IdempotencyKey: o.key, Session: who.session, Tenant: who.tenant}, sent)
		}
	}
	defer c.tend(ctx)
	meta, err := c.read(ctx, body, o, out)
	for n := 0; writ.CodeOf(err) == writ.CodeReceiptPending && meta.Outcome == writ.OutcomePending && o.key != "" && n < c.cfg.Retries; n++ {
		meta, err = c.read(ctx, body, o, out) // it is made; the gateway waits for the log once more, and answers as it would have
	}
	return meta, err
}

// read makes a call and decodes its answer.
func (c *Client) read(ctx context.Context, body []byte, o options, out any) (Meta, error) {
	const op = "client.Invoke"
	answer, meta, err := c.try(ctx, body, o)
	if err != nil {
		return meta, err
	}
	var env struct {
		Status   writ.Outcome    `json:"status"`
		Data     json.RawMessage `json:"data"`
		Receipt  writ.ReceiptID  `json:"receipt"`
		Redacted []string        `json:"redacted"`
		Limited  []writ.Limit    `json:"limited"`
	}
	if err := json.Unmarshal(answer, &env); err != nil || env.Status == "" {
		return meta, &writ.Error{Code: writ.CodeInternal, Op: op, Msg: "the answer is not that of a gateway", Hint: "check the URL", Err: err}
	}
	meta.Outcome, meta.Receipt, meta.Redacted, meta.Limited = env.Status, env.Receipt, env.Redacted, env.Limited
	if env.Status == writ.OutcomePending {
		return meta, pending(env.Data, env.Receipt)
	}
	if out == nil || len(env.Data) == 0 || string(env.Data) == "null" {
		return meta, nil
	}
	if err := json.Unmarshal(env.Data, out); err != nil {
		return meta, &writ.Error{Code: writ.CodeInternal, Op: op, Msg: "the reply does not fit what was asked for", Hint: "client and gateway may differ in version", Err: err}
	}
	return meta, nil
}

// pending is the error of a call that people must agree to first, or whose receipt the
// transparency log does not have in time.
func pending(data []byte, receipt writ.ReceiptID) error {
	var p writ.Pending
	err := json.Unmarshal(data, &p)
	if err == nil && p.Status == writ.StatusUnlogged {
		return &writ.Error{
			Code: writ.CodeReceiptPending, Op: "gateway", Receipt: receipt,
			Msg: "the change is made, and the transparency log does not have its receipt yet", Hint: p.Hint,
		}
	}
	if err != nil || p.Approval == "" {
		return &writ.Error{Code: writ.CodeInternal, Op: "client.Invoke", Msg: "the answer is not that of a gateway", Hint: "check the URL", Err: err}
	}
	e := &writ.Error{
		Code: writ.CodeApprovalRequired, Op: "gateway", Msg: "the call has not happened: people must agree first", Hint: p.Hint,
		Rules: p.Rules, Receipt: receipt,
	}
	return e.With("approval", string(p.Approval)).With("expires_at", p.ExpiresAt)
}

// waitIn finds the seconds that untyped arguments ask the gateway to wait.
func waitIn(args any) time.Duration {
	m, ok := args.(map[string]any)
	if !ok {
		return 0
	}
	switch v := m["wait_s"].(type) {
	case int:
		return time.Duration(v) * time.Second
	case int64:
		return time.Duration(v) * time.Second
	case float64:
		return time.Duration(v * float64(time.Second))
	}
	return 0
}

// identity is whose the calls are.
type identity struct {
	tenant  writ.Tenant
	session writ.SessionID
	token   string // none in a jail, where the listener says it
}

// jailTenant is the tenant of sessions in jails.
const jailTenant writ.Tenant = "default"

// identity is whose the next try is.
func (c *Client) identity() (identity, error) {
	if c.cfg.Jailed != "" {
		return identity{tenant: jailTenant, session: c.cfg.Jailed}, nil
	}
	token, err := c.token()
	tenant, rest, _ := strings.Cut(token, ".")
	session, _, _ := strings.Cut(rest, ".")
	return identity{writ.Tenant(tenant), writ.SessionID(session), token}, err
}

// authorize puts it into a request.
func (i identity) authorize(req *http.Request) {
	if i.token != "" {
		req.Header.Set("Authorization", "Bearer "+i.token)
	}
}

// token is the credential of the next try.
func (c *Client) token() (string, error) {
	if c.cfg.Token != "" {
		return c.cfg.Token, nil
	}
	b, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return "", &writ.Error{Code: writ.CodeUnauthenticated, Op: "client.token", Msg: "the token file cannot be read", Hint: "check --token-file", Err: err}
	}
	t := strings.TrimSpace(string(b))
	if t == "" || strings.ContainsAny(t, " \t\r\n") {
		return "", &writ.Error{
			Code: writ.CodeUnauthenticated, Op: "client.token", Msg: "the token file does not hold one token",
			Hint: "it must hold <tenant>.ses_<id>.<secret>", Err: fmt.Errorf("%d bytes", len(t)),
		}
	}
	return t, nil
}
