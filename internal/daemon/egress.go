package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress"
	"github.com/writ-gateway/writ/egress/target"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/grants"
	"github.com/writ-gateway/writ/store"
)

// fetcher carries out what egress.fetch permits.
type fetcher struct {
	client *egress.Client
	inject func(ctx context.Context, name, host string, h http.Header) (writ.SecretUse, error)

	mu    sync.Mutex
	under map[writ.EgressID]int64 // exchanges under way on this replica
}

// Act implements guard.Effector.
func (f *fetcher) Act(ctx context.Context, a *writ.Acting) (writ.Reply, error) {
	e, ok := a.Detail.(writ.EgressErrand)
	args, isFetch := a.Call.Args.(*grants.EgressFetchArgs)
	if !ok || !isFetch {
		return writ.Reply{}, writ.Fault(writ.CodeInternal, "daemon.fetch", errors.New("this is no errand of egress.fetch"))
	}
	if err := f.enter(e.Grant); err != nil {
		return writ.Reply{}, err
	}
	defer f.leave(e.Grant.ID)
	p, err := f.permit(a, e)
	if err != nil {
		return writ.Reply{}, err
	}
	body := grants.EgressFetched{Effect: a.Effect, Intent: a.Intent, Headers: map[string]string{}, Code: "text"}
	s, streams := a.Call.Streams.(*egress.Streams)
	if !streams {
		s = spoken(args, &body)
	}
	out, err := f.client.Carry(ctx, p, s)
	if err != nil {
		return writ.Reply{}, err
	}
	body.Status, body.Up, body.Down = int64(out.Status), out.Up, out.Down
	return writ.Reply{Outcome: writ.OutcomeDone, Body: body}, nil
}

// permit is an errand for who knows nothing of the gateway.
func (f *fetcher) permit(a *writ.Acting, e writ.EgressErrand) (egress.Permit, error) {
	g := e.Grant
	to, err := target.New(g.Host, g.Port)
	if err != nil {
		return egress.Permit{}, writ.Fault(writ.CodeInternal, "daemon.fetch", err)
	}
	p := egress.Permit{
		Mode: egress.Reverse, Scheme: g.Scheme, Target: to, Method: e.Method, Path: e.Path, Query: e.Query, Up: e.Up, Down: e.Down,
		Time: time.Duration(g.TimeMs) * time.Millisecond, Meter: a.Meter, Key: string(a.Effect),
		Mark: http.Header{"Receipt-Id": {string(a.Intent)}, "Effect-Id": {string(a.Effect)}},
	}
	if g.Mode == writ.EgressTunnel {
		p.Mode, p.Key = egress.Connect, ""
	}
	for _, n := range g.Private {
		network, err := netip.ParsePrefix(n)
		if err != nil {
			return p, writ.Fault(writ.CodeInternal, "daemon.fetch", err)
		}
		p.Private = append(p.Private, network)
	}
	if g.Credential != "" {
		p.Inject = func(ctx context.Context, h http.Header) error {
			_, err := f.inject(a.With(ctx), g.Credential, strings.TrimSuffix(to.String(), ":443"), h)
			return err
		}
	}
	return p, nil
}

// enter takes one of the places a grant has on this replica.
func (f *fetcher) enter(g writ.EgressGrant) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.under[g.ID] >= g.Conns {
		return &writ.Error{
			Code: writ.CodeQuota, Op: "daemon.fetch", RetryMs: 1000,
			Msg: "as many exchanges are under way as the grant lets be at a time", Hint: "wait for one to end",
		}
	}
	f.under[g.ID]++
	return nil
}

func (f *fetcher) leave(id writ.EgressID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.under[id]--; f.under[id] == 0 {
		delete(f.under, id)
	}
}

// spoken is the agent's side of an exchange that stands in arguments and reply.
func spoken(a *grants.EgressFetchArgs, into *grants.EgressFetched) *egress.Streams {
	s := &egress.Streams{Header: http.Header{}}
	for name, value := range a.Headers {
		s.Header.Set(name, value)
	}
	if b := a.Bytes(); len(b) > 0 {
		s.Body, s.Length = bytes.NewReader(b), int64(len(b))
	}
	s.Answer = func(ans *egress.Answer) error {
		b, err := io.ReadAll(io.LimitReader(ans.Body, a.Most+1))
		switch {
		case err != nil:
			return err
		case int64(len(b)) > a.Most:
			return writ.Refuse(writ.CodeTooLarge, "daemon.fetch", "the request was made, and the answer has more bytes than max_bytes", "where it may be made again ask for more, or read it through /egress/<grant>/…, where it is streamed")
		}
		for name, values := range ans.Header {
			into.Headers[name] = strings.Join(values, ", ")
		}
		if into.Body = string(b); !utf8.Valid(b) {
			into.Body, into.Code = base64.StdEncoding.EncodeToString(b), "base64"
		}
		return nil
	}
	return s
}

// newFetcher makes the one that acts outside for this replica. No agent reaches the
// gateway itself by it.
func (d *Daemon) newFetcher(cfg egress.Config) *fetcher {
	cfg.Own = d.own
	return &fetcher{under: map[writ.EgressID]int64{}, client: egress.New(cfg), inject: d.vault.Inject}
}

// own says whether an address is one this gateway listens at.
func (d *Daemon) own(at netip.AddrPort) bool {
	if d.listener == nil {
		return false
	}
	mine, err := netip.ParseAddrPort(d.listener.Addr().String())
	if err != nil || mine.Port() != at.Port() {
		return false
	}
	if mine.Addr() == at.Addr() {
		return true
	}
	return mine.Addr().IsUnspecified() && ownAddress(at.Addr())
}

func ownAddress(a netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // better none than ours
	}
	for _, i := range all {
		if n, ok := i.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
			return true
		}
	}
	return a.IsLoopback()
}

// Served is a session that has a listener of its own.
type Served struct {
	Session writ.SessionID
	Jailed  bool // the listener is the only way out of where its agent is
	Limits  gateway.FaceLimits
}

// faces are the sessions that are served on listeners of their own.
type faces struct {
	mu      sync.Mutex
	handler http.Handler // nil: none is served
	ends    map[int]func()
	next    int
	under   sync.WaitGroup
}

func (f *faces) open(h http.Handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handler, f.ends = h, map[int]func(){}
}

// enter counts one in that end ends.
func (f *faces) enter(end func()) (h http.Handler, leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.handler == nil {
		return nil, nil, writ.Refuse(writ.CodeNotReady, "daemon.ServeSession", "the gateway does not serve now", "start it first")
	}
	f.next++
	n := f.next
	f.ends[n] = end
	f.under.Add(1)
	return f.handler, func() {
		f.mu.Lock()
		delete(f.ends, n)
		f.mu.Unlock()
		f.under.Done()
	}, nil
}

// close ends all and waits for them.
func (f *faces) close() {
	f.mu.Lock()
	f.handler = nil
	for _, end := range f.ends {
		end()
	}
	f.mu.Unlock()
	f.under.Wait()
}

// faceWatch is how often is looked whether a session that is served still lives; calls
// find out at once.
const faceWatch = 500 * time.Millisecond

// ServeSession serves a listener as one session, without a token: whoever speaks there
// is that session. It returns, and the listener is closed, when the session has ended,
// the context has, or the gateway stops. While the store does not answer who connects
// waits.
func (d *Daemon) ServeSession(ctx context.Context, l net.Listener, s Served) error {
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler, leave, err := d.faces.enter(cancel)
	if err != nil {
		return err
	}
	defer leave()
	cred, err := d.faceCredential(ctx, s.Session, l.Addr().Network())
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	go d.watchSession(ctx, s.Session, cancel)
	if s.Limits.Log == nil {
		s.Limits.Log = d.log
	}
	return gateway.ServeFace(ctx, l, gateway.Face(handler, gateway.Identity{Credential: cred, Jailed: s.Jailed}, cancel), s.Limits)
}

// faceCredential is what a session is known by. Its secret is nowhere, and needs not be:
// what is compared is its digest. A store that fails is asked again until the context
// ends: a listener that was closed for it would be closed for ever. The log says so once,
// for who connects is told nothing, and it may be an error that does not pass.
func (d *Daemon) faceCredential(ctx context.Context, id writ.SessionID, listener string) (c writ.Credential, err error) {
	doc, ok, err := d.sessionNow(ctx, id)
	if passes(err) && ctx.Err() == nil {
		d.log.Warn("who connects to a session's listener waits, for the store does not answer: it is asked until it does", "session", id, "listener", listener, "error", err)
	}
	for wait := faceAgain; passes(err); wait = min(2*wait, faceAgainMost) {
		select {
		case <-ctx.Done():
			return c, err
		case <-time.After(wait):
		}
		doc, ok, err = d.sessionNow(ctx, id)
	}
	if err != nil {
		return c, err
	}
	if !ok {
		return c, writ.Refuse(writ.CodeNotFound, "daemon.ServeSession", "there is no such session, or it has ended", "open one first")
	}
	c = writ.Credential{Tenant: shard, Session: id}
	if n, err := hex.Decode(c.SecretHash[:], []byte(doc.TokenHash)); err != nil || n != len(c.SecretHash) {
		return c, writ.Fault(writ.CodeInternal, "daemon.ServeSession", errors.New("the session has no digest of its secret"))
	}
	return c, nil
}

// Waits before a store that failed is asked again.
const (
	faceAgain     = 50 * time.Millisecond
	faceAgainMost = 2 * time.Second
)

// passes says whether a read may go through a moment later. Errors without a code are of
// the store's host.
func passes(err error) bool {
	e, coded := errors.AsType[*writ.Error](err)
	if !coded {
		return err != nil && !errors.Is(err, store.ErrInvalid)
	}
	return e.Code.Passes()
}

// sessionNow is a session that lives.
func (d *Daemon) sessionNow(ctx context.Context, id writ.SessionID) (writ.Session, bool, error) {
	key := writ.SessionKey(id)
	if !id.Valid() {
		return writ.Session{}, false, nil
	}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{key}})
	if err != nil {
		return writ.Session{}, false, err
	}
	doc, _, ok, err := writ.Get[writ.Session](s, key)
	return doc, ok && !writ.SessionMoves.Terminal(doc.State) && s.Now < doc.ExpiresAt, err
}

// watchSession ends what is served for a session when that ends. A store that does not
// answer says nothing: the door refuses all calls then.
func (d *Daemon) watchSession(ctx context.Context, id writ.SessionID, end func()) {
	tick := time.NewTicker(faceWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, lives, err := d.sessionNow(ctx, id); err == nil && !lives {
				end()
				return
			}
		}
	}
}
