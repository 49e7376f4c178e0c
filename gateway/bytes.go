package gateway

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Blobs is where the bytes of artifacts are. package store/blobs has one.
type Blobs interface {
	// Stage takes in at most max bytes; CodeTooLarge when there are more. An error
	// of the reader that is a *writ.Error comes back as it is.
	Stage(ctx context.Context, r io.Reader, max int64) (Staged, error)
	// Open opens what is stored under a digest, and says how many bytes there are.
	// Reading it fails, at the latest in place of io.EOF, when they are others.
	Open(ctx context.Context, digest string) (io.ReadCloser, int64, error)
	// Examine reads it to its end.
	Examine(ctx context.Context, digest string) (writ.BlobState, error)
}

// Staged is a body that was taken in and is not stored yet.
type Staged interface {
	Digest() string
	Size() int64
	Small() []byte // all of it, if it has at most writ.MaxCheckedBytes
	Keep(ctx context.Context) error
	Discard()
}

const (
	octetStream  = "application/octet-stream"
	transferTime = 10 * time.Minute // that one body may take in all, in or out
	leastRate    = 16 << 10         // bytes a second a body comes with at least, once Limits.BodyTime is over
	chunkBytes   = 64 << 10
)

// transfers bounds the bodies on their way.
type transfers struct {
	most, each int

	mu    sync.Mutex
	all   int
	under map[writ.Credential]int // never more entries than transfers
}

func newTransfers(n int) *transfers {
	return &transfers{most: n, each: max(n/8, 2), under: map[writ.Credential]int{}}
}

func (t *transfers) enter(who writ.Credential) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= t.most || t.under[who] >= t.each {
		return &writ.Error{
			Code: writ.CodeBackpressure, Op: "gateway.transfer", RetryMs: 1000,
			Msg: "too many large bodies are on their way", Hint: "repeat the call after the Retry-After time",
		}
	}
	t.all++
	t.under[who]++
	return nil
}

func (t *transfers) leave(who writ.Credential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.under[who]--; t.under[who] == 0 {
		delete(t.under, who)
	}
}

// upload is the body of a request, untouched until the door asks for it.
type upload struct {
	cfg    Config
	who    writ.Credential
	w      http.ResponseWriter
	r      *http.Request
	staged Staged
}

// newUpload adds the length of the body to the arguments, unless they state one.
func newUpload(cfg Config, w http.ResponseWriter, r *http.Request, who writ.Credential, members []byte) (*upload, []byte, error) {
	const op = "gateway.upload"
	if e := r.Header.Values("Content-Encoding"); len(e) > 0 {
		return nil, nil, writ.Refuse(writ.CodeMalformed, op, "the body is encoded", "send the bytes as they are, without Content-Encoding")
	}
	if r.ContentLength > writ.MaxArtifactBytes {
		return nil, nil, writ.Refuse(writ.CodeTooLarge, op, "an artifact has at most "+strconv.Itoa(writ.MaxArtifactBytes)+" bytes", "split it, or store it elsewhere and refer to it")
	}
	if r.ContentLength > 0 && !r.URL.Query().Has("size") {
		if len(members) > 0 {
			members = append(members, ',')
		}
		members = append(members, `"size":`...)
		members = strconv.AppendInt(members, r.ContentLength, 10)
	}
	return &upload{cfg: cfg, who: who, w: w, r: r}, members, nil
}

// Receive implements [writ.Body].
func (u *upload) Receive(ctx context.Context, max int64) (writ.Received, error) {
	if u.cfg.Blobs == nil {
		return writ.Received{}, noBlobs("gateway.upload")
	}
	if err := u.cfg.transfers.enter(u.who); err != nil {
		return writ.Received{}, err
	}
	defer u.cfg.transfers.leave(u.who)
	ctx, end := transfer(ctx, u.cfg)
	defer end()
	in := &patient{ctx: ctx, r: u.r.Body, control: http.NewResponseController(u.w), each: u.cfg.Limits.BodyTime, start: time.Now()}
	defer context.AfterFunc(ctx, func() { _ = in.control.SetReadDeadline(time.Now()) })()
	// The body may have taken longer than an answer may, a refusal too.
	defer func() { _ = in.control.SetWriteDeadline(time.Now().Add(WriteTimeout)) }()
	staged, err := u.cfg.Blobs.Stage(ctx, in, max)
	if err != nil && ctx.Err() != nil {
		_ = in.control.SetReadDeadline(time.Now()) // nor does the server wait for the rest
	}
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errStopping):
		return writ.Received{}, errStopping
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return writ.Received{}, tooSlow(ctx.Err())
	case err != nil:
		return writ.Received{}, err
	}
	u.staged = staged
	_ = in.control.SetReadDeadline(time.Time{})
	return writ.Received{Digest: staged.Digest(), Size: staged.Size(), Small: staged.Small()}, nil
}

// Keep implements [writ.Body].
func (u *upload) Keep(ctx context.Context) error { return u.staged.Keep(ctx) }

func (u *upload) discard() {
	if u.staged != nil {
		u.staged.Discard()
	}
}

// errStopping ends transfers when the gateway stops: it does not wait for them.
var errStopping = &writ.Error{Code: writ.CodeNotReady, Op: "gateway.transfer", RetryMs: 1000, Msg: "the gateway is stopping", Hint: "repeat the call"}

func tooSlow(err error) error {
	return &writ.Error{Code: writ.CodeMalformed, Op: "gateway.upload", Msg: "the body comes too slowly", Hint: "send it faster, or less of it", Err: err}
}

// transfer is the time one body has: it is over too when the gateway stops.
func transfer(ctx context.Context, cfg Config) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	ctx, stop := context.WithCancelCause(ctx)
	if cfg.Stopping == nil {
		return ctx, func() { stop(nil); cancel() }
	}
	release := context.AfterFunc(cfg.Stopping, func() { stop(errStopping) })
	return ctx, func() { release(); stop(nil); cancel() }
}

// patient reads a body as long as it comes with the least rate, so that who sends
// little for long keeps nobody's place.
type patient struct {
	ctx     context.Context
	r       io.Reader
	control *http.ResponseController
	each    time.Duration // without a byte, and before the rate counts
	start   time.Time
	n       int64
}

// until is when the next byte must be there.
func (p *patient) until(now time.Time) time.Time {
	rate := p.start.Add(p.each + time.Duration(float64(p.n)/leastRate*float64(time.Second)))
	if end := now.Add(p.each); end.Before(rate) {
		return end
	}
	return rate
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(p.until(time.Now()))
	if err := p.ctx.Err(); err != nil { // after the deadline is set: what ends ctx sets another
		return 0, err
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = tooSlow(err)
	case err != nil && !errors.Is(err, io.EOF):
		err = &writ.Error{Code: writ.CodeMalformed, Op: "gateway.upload", Msg: "the body could not be read to its end", Hint: "send it again", Err: err}
	}
	return n, err
}

func noBlobs(op string) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: op, Msg: "this gateway keeps no artifacts", Hint: "operators: give it a store of blobs"}
}

// content answers with the bytes of an artifact that the door lets the caller
// read. They are read once before, so that what is damaged is refused, and what
// becomes damaged meanwhile is not sent to its end.
func content(cfg Config, w http.ResponseWriter, r *http.Request, who writ.Credential, reply writ.Reply) error {
	const op = "gateway.content"
	digest := r.PathValue("digest")
	switch {
	case cfg.Blobs == nil:
		return noBlobs(op)
	case !writ.ValidDigest(digest): // the door has looked
		return writ.Fault(writ.CodeInternal, op, errors.New("the digest in the path has another form"))
	case len(reply.Redacted) > 0:
		return writ.Refuse(writ.CodePolicy, op, "policy keeps part of this from the caller, and bytes are shown whole or not at all", "artifact.get shows the rest")
	}
	if err := cfg.transfers.enter(who); err != nil {
		return err
	}
	defer cfg.transfers.leave(who)
	ctx, end := transfer(r.Context(), cfg)
	defer end()
	state, err := cfg.Blobs.Examine(ctx, digest)
	switch {
	case err != nil:
		return err
	case state == writ.BlobAbsent:
		return writ.Refuse(writ.CodeNotFound, op, "the bytes of the artifact are not kept any more", "make it again; artifact_days says how long they are kept")
	case state != writ.BlobIntact:
		cfg.Log.Error("a stored artifact is damaged", "digest", digest)
		return writ.Unsound(op, digest, state)
	}
	body, size, err := cfg.Blobs.Open(ctx, digest)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	raw, err := hex.DecodeString(strings.TrimPrefix(digest, "sha256:"))
	if err != nil {
		return writ.Fault(writ.CodeInternal, op, err)
	}
	h := w.Header()
	h.Set("Content-Type", octetStream) // whatever it is, no browser is to run it
	h.Set("Content-Disposition", "attachment")
	h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(raw)+":") // RFC 9530
	// So that it is seen when less comes, whatever lies between.
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	if r.Method == http.MethodHead {
		return nil
	}
	control := http.NewResponseController(w)
	defer context.AfterFunc(ctx, func() { _ = control.SetWriteDeadline(time.Now()) })()
	if err := copyWhole(ctx, w, body); err != nil {
		cfg.Log.Warn("an artifact was not sent to its end", "digest", digest, "error", err)
		panic(http.ErrAbortHandler) // the caller must not take it for whole
	}
	return nil
}

// copyWhole copies a body and holds the last chunk back until the reader says that all
// was as it should be.
func copyWhole(ctx context.Context, w http.ResponseWriter, body io.Reader) error {
	control := http.NewResponseController(w)
	held, next := make([]byte, 0, chunkBytes), make([]byte, chunkBytes)
	for {
		n, err := io.ReadFull(body, next)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		_ = control.SetWriteDeadline(time.Now().Add(WriteTimeout))
		if err := ctx.Err(); err != nil { // after the deadline is set: what ends ctx sets another
			return err
		}
		if _, werr := w.Write(held); werr != nil {
			return werr
		}
		held, next = append(held[:0], next[:n]...), next[:chunkBytes]
		if err != nil { // the reader was at its end, and content
			_, werr := w.Write(held)
			return werr
		}
	}
}
