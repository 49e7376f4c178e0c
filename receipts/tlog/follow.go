package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// Source is where receipts are, in the order of the log; a ledger is one.
type Source interface {
	Last() int64
	Range(after int64, n int, run writ.RunID) ([]writ.Receipt, error)
	// Grown is closed when receipts are added after the call.
	Grown() <-chan struct{}
}

// Every is how often a checkpoint is made while receipts come, unless configured, and
// MinEvery how often at most.
const (
	Every    = time.Second
	MinEvery = 100 * time.Millisecond
)

const (
	batch   = 1024                   // receipts read together
	backoff = 100 * time.Millisecond // first pause after an error; doubles up to most
	most    = 2 * time.Second
)

// Follower publishes what comes into a ledger. A disk that does not take it is waited
// out. Another history is not: it stops for good, Done is closed and Err says why.
type Follower struct {
	log    *Log
	source Source
	public func(keyID string) ([]byte, bool)
	every  time.Duration

	cancel context.CancelFunc
	done   chan struct{}

	mu        sync.Mutex
	err       error         // why it stopped
	trouble   error         // what it waits out, nil when all is well
	published chan struct{} // closed with the next checkpoint
	behind    time.Time     // since when there is something to publish; zero: there is nothing
}

// NewFollower makes a Follower; Start runs it. public gives receipt keys as DER, by
// their id.
func NewFollower(l *Log, s Source, public func(keyID string) ([]byte, bool), every time.Duration) *Follower {
	if every == 0 {
		every = Every
	}
	return &Follower{log: l, source: s, public: public, every: max(every, MinEvery), done: make(chan struct{}), published: make(chan struct{})}
}

// Start compares log and ledger, and returns when the loop runs. It refuses a log that
// is ahead of its ledger, or has other receipts.
func (f *Follower) Start(ctx context.Context) error {
	if err := f.compare(); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.cancel = cancel
	go f.loop(run)
	return nil
}

// wayOut is what is left where log and ledger do not belong together any more.
const wayOut = "'writ log next --dry-run' shows which receipts that concerns, and 'writ log next' freezes the log and begins the next one"

// compare says whether log and ledger belong together.
func (f *Follower) compare() error {
	const op = "tlog.Start"
	size, last := f.log.Size(), f.source.Last()
	if size > last+1 {
		return notReady(op, fmt.Sprintf("the log has published %d receipts, the ledger has %d", size, last+1),
			"restore the ledger that belongs to this log; if its end is lost, "+wayOut, ErrFork)
	}
	if size > 0 {
		have, err := f.log.Entry(size - 1)
		if err != nil {
			return notReady(op, "the log cannot be read", "restore it with its key from a backup", err)
		}
		want, err := f.leaves(size-2, 1)
		if err != nil || len(want) != 1 {
			return notReady(op, "the ledger cannot be read", "restore it from a backup", errors.Join(err, ErrDamaged))
		}
		if !bytes.Equal(have, want[0]) {
			return notReady(op, fmt.Sprintf("log and ledger hold different receipts under sequence %d", size-1), "use the log that belongs to this ledger; if that is lost, "+wayOut, ErrFork)
		}
	}
	return nil
}

// Belongs says whether the log in some files is the one of a ledger, as Start does: it
// refuses one that is ahead of it, or has other receipts. Who signed it is not asked.
func Belongs(files Files, s Source, public func(keyID string) ([]byte, bool)) (Checkpoint, error) {
	text, err := files.Read(CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		return Checkpoint{}, nil
	}
	if err != nil {
		return Checkpoint{}, err
	}
	_, cp, err := checkpoint.Unverified(text)
	if err != nil {
		return cp, err
	}
	l := &Log{files: files}
	if err := l.loadEdge(cp.Size); err != nil {
		return cp, err
	}
	return cp, (&Follower{log: l, source: s, public: public}).compare()
}

// Stop ends the loop, with a checkpoint of what there is, and waits for it.
func (f *Follower) Stop(ctx context.Context) error {
	if f.cancel == nil {
		return nil
	}
	f.cancel()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the loop has ended.
func (f *Follower) Done() <-chan struct{} { return f.done }

// Err says why the loop ended by itself, or what it is waiting out now; nil when all is
// well or it was stopped.
func (f *Follower) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	return f.trouble
}

// Lag is how many receipts of the ledger no checkpoint covers, and for how long that
// has been so of the first of them.
func (f *Follower) Lag() (receipts int64, since time.Duration) {
	receipts = f.source.Last() + 1 - f.log.Latest().Size
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.behind.IsZero() {
		since = time.Since(f.behind)
	}
	return max(receipts, 0), since
}

// Wait returns once a checkpoint covers a sequence, or with the context's error.
func (f *Follower) Wait(ctx context.Context, seq int64) error {
	for {
		f.mu.Lock()
		next := f.published
		f.mu.Unlock()
		if f.log.Latest().Size > seq {
			return nil
		}
		select {
		case <-next:
		case <-f.done:
			return errors.Join(errors.New("the log is not written any more"), f.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f *Follower) loop(ctx context.Context) {
	defer close(f.done)
	pause := backoff
	for {
		grown := f.source.Grown()
		err := f.round(ctx)
		stop := errors.Is(err, ErrFork) || errors.Is(err, ErrDamaged)
		f.mu.Lock()
		f.trouble = err
		if stop {
			f.err = err
		}
		f.mu.Unlock()
		switch {
		case ctx.Err() != nil, stop:
			return
		case err != nil:
			sleep(ctx, pause)
			pause = min(2*pause, most)
			continue
		}
		pause = backoff
		select {
		case <-grown:
		case <-ctx.Done():
			continue // once more, for what came last
		}
		f.mu.Lock()
		f.behind = time.Now()
		f.mu.Unlock()
		sleep(ctx, f.every) // so that many share a checkpoint
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// round appends all there is, and publishes it. Of a long backlog it publishes as it
// goes.
func (f *Follower) round(ctx context.Context) error {
	begun := time.Now()
	if n, since := f.Lag(); n > 0 && since == 0 { // there at the start, or while it was at the last ones
		f.mu.Lock()
		f.behind = begun
		f.mu.Unlock()
	}
	for {
		leaves, caught, err := f.next()
		if err == nil {
			err = f.log.Append(leaves)
		}
		if err != nil {
			return err
		}
		if !caught && time.Since(begun) < f.every && ctx.Err() == nil {
			continue
		}
		if _, err := f.log.Publish(); err != nil {
			return err
		}
		f.mu.Lock()
		close(f.published)
		f.published = make(chan struct{})
		if caught {
			f.behind = time.Time{}
		}
		f.mu.Unlock()
		if caught || ctx.Err() != nil {
			return nil
		}
		begun = time.Now()
	}
}

// next are the leaves the log does not have, a batch at most; caught: there are no more. A
// foreign one comes with the receipt that rests on it: no checkpoint ends between the two.
func (f *Follower) next() (leaves [][]byte, caught bool, err error) {
	after := f.log.Size() - 1
	receipts, err := f.source.Range(after, batch, "")
	if err != nil {
		return nil, false, err
	}
	n := len(receipts)
	caught = n < batch
	if n > 0 && receipts[n-1].Kind() == writ.FactForeign {
		receipts = receipts[:n-1]
	}
	leaves, err = f.leavesOf(after, receipts)
	return leaves, caught, err
}

// leaves are those of up to n receipts with sequences > after.
func (f *Follower) leaves(after int64, n int) ([][]byte, error) {
	receipts, err := f.source.Range(after, n, "")
	if err != nil {
		return nil, err
	}
	return f.leavesOf(after, receipts)
}

func (f *Follower) leavesOf(after int64, receipts []writ.Receipt) ([][]byte, error) {
	out := make([][]byte, 0, len(receipts))
	for i, r := range receipts {
		if r.Seq != after+1+int64(i) {
			return nil, fmt.Errorf("%w: receipt %d is out of order", ErrFork, r.Seq)
		}
		var public []byte
		ok := r.Kind() == writ.FactForeign // its key is with it
		if !ok {
			public, ok = f.public(r.KeyID)
		}
		if !ok { // its file may come yet
			return nil, fmt.Errorf("receipt %d is of the key %s, whose public half is not in the directory of keys", r.Seq, r.KeyID)
		}
		out = append(out, Leaf(r, public))
	}
	return out, nil
}
