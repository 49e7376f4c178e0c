package tlog

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sync/errgroup"

	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// Witness is asked to cosign checkpoints before they are published (C2SP tlog-witness):
// with its signature a log cannot be shown to one and another to others, whoever has the
// log's key, unless the witness helps.
type Witness struct {
	key    *checkpoint.Witness
	url    string
	client *http.Client
	size   int64 // of the checkpoint it cosigned last, as far as is known
}

// witnessWait is how long a witness may take.
const witnessWait = 5 * time.Second

// NewWitness makes a Witness from its address, to which /add-checkpoint is added, and its
// verifier key.
func NewWitness(address, key string) (*Witness, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the address of a witness is https://host/path or http://host/path, without user, query or fragment")
	}
	k, err := checkpoint.NewWitness(key)
	if err != nil {
		return nil, err
	}
	return &Witness{key: k, url: strings.TrimSuffix(u.String(), "/") + "/add-checkpoint", client: &http.Client{
		Timeout:       witnessWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Key is what its signatures are checked with.
func (w *Witness) Key() *checkpoint.Witness { return w.key }

// ErrWitness: a witness did not cosign a checkpoint.
var ErrWitness = errors.New("a witness did not cosign the checkpoint")

// cosign has the witness sign a checkpoint, and gives it with the signature. prove gives
// the proof from an earlier size.
func (w *Witness) cosign(ctx context.Context, cp Checkpoint, prove func(old int64) ([]tlog.Hash, error)) ([]byte, error) {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %w", ErrWitness, w.key.Name(), fmt.Errorf(format, args...))
	}
	for again := false; ; again = true {
		var proof []tlog.Hash
		if w.size > 0 && w.size < cp.Size {
			var err error
			if proof, err = prove(w.size); err != nil {
				return nil, err
			}
		}
		status, answer, err := w.add(ctx, w.size, proof, cp.Text)
		if err != nil {
			return nil, fail("it does not answer: %w", err)
		}
		switch {
		case status == http.StatusOK:
			text, err := w.key.Keep(cp.Text, answer)
			if err != nil {
				return nil, fail("%w", err)
			}
			w.size = cp.Size
			return text, nil
		case status == http.StatusConflict && !again:
			size, err := strconv.ParseInt(strings.TrimSpace(string(answer)), 10, 64)
			if err != nil || size < 0 {
				return nil, fail("it answers with a conflict and no size")
			}
			if size > cp.Size {
				return nil, fail("it has seen this log with %d receipts, and here it has %d: the ledger was restored from an earlier time, or the log is written elsewhere too: restore the ledger, or see 'writ log next'", size, cp.Size)
			}
			w.size = size
		case status == http.StatusUnprocessableEntity:
			return nil, fail("the log does not go on from what it has seen of it at %d receipts: it was forked, see 'writ log next'", w.size)
		case status == http.StatusNotFound:
			return nil, fail("it does not know this log: have its operator add the log's verifier key")
		default:
			return nil, fail("it answers with HTTP %d", status)
		}
	}
}

// add is one request of add-checkpoint.
func (w *Witness) add(ctx context.Context, old int64, proof []tlog.Hash, text []byte) (status int, answer []byte, err error) {
	var body bytes.Buffer
	fmt.Fprintf(&body, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintln(&body, base64.StdEncoding.EncodeToString(h[:]))
	}
	body.WriteByte('\n')
	body.Write(text)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, &body)
	if err != nil {
		return 0, nil, err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, checkpoint.MaxText))
	return res.StatusCode, answer, err
}

// Witnessed has checkpoints cosigned by each of some witnesses before they are published.
// open: they are published all the same when one does not; else they wait. Call it before
// the first Publish.
func (l *Log) Witnessed(by []*Witness, open bool) {
	l.witnesses, l.open = by, open
	for _, w := range by {
		if _, err := w.key.At(l.published.Text); err == nil {
			w.size = l.published.Size
		}
	}
}

// Unwitnessed is why the latest checkpoint is not cosigned by all witnesses; nil when it is,
// or there are none.
func (l *Log) Unwitnessed() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.unwitnessed
}

// witness gives the text of a checkpoint with what the log's second key and the witnesses
// sign.
func (l *Log) witness(cp Checkpoint) ([]byte, error) {
	text := cp.Text
	if l.key.second != nil {
		line, err := l.key.second.Line(text, time.Now())
		if err != nil {
			return nil, err
		}
		text = append(bytes.Clone(text), line...)
	}
	if len(l.witnesses) == 0 {
		return text, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), witnessWait)
	defer cancel()
	prove := func(old int64) ([]tlog.Hash, error) { return tlog.ProveTree(cp.Size, old, l.reader()) }
	texts, errs := make([][]byte, len(l.witnesses)), make([]error, len(l.witnesses))
	var g errgroup.Group
	for i, w := range l.witnesses {
		g.Go(func() error { texts[i], errs[i] = w.cosign(ctx, cp, prove); return nil })
	}
	_ = g.Wait()
	err := errors.Join(errs...)
	l.mu.Lock()
	l.unwitnessed = err
	l.mu.Unlock()
	if err != nil && !l.open {
		return nil, err
	}
	for _, t := range texts {
		if t != nil {
			text = append(bytes.Clone(text), t[len(cp.Text):]...)
		}
	}
	return text, nil
}
