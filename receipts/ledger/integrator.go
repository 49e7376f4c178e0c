package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/store"
)

// Outbox is the part of a store that holds facts until they are in a ledger.
type Outbox interface {
	Facts(ctx context.Context, shard writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error)
	Trim(ctx context.Context, shard writ.Tenant, upto int64) error
	Head(ctx context.Context, shard writ.Tenant) (store.Head, error)
}

// Sealer signs facts; receipts.Sealer is one.
type Sealer interface {
	Seal(f writ.StoredFact) (writ.Receipt, error)
}

// Keeper seals the evidence of facts once more before it is filed, under keys
// that can be destroyed.
type Keeper interface {
	// Keep seals the evidence of entries, which are those of facts, in place. The
	// keys it needs are on disk when it returns. It may be asked again about the
	// same facts, and about others in their place.
	Keep(facts []writ.StoredFact, entries []Entry) error
	// Filed says that what Keep was last asked about is in the ledger.
	Filed() error
	// Settle does what Filed could not: nothing is filed before it was done.
	Settle() error
}

const (
	batch   = 256                    // facts read, and synced, together
	wait    = 2 * time.Second        // for the first fact of a batch
	linger  = 10 * time.Millisecond  // after a short batch, so that a busy shard syncs groups
	backoff = 100 * time.Millisecond // first pause after an error; doubles up to wait
	trimAge = 5 * time.Second        // a steady trickle is trimmed this often: what lies longer in the outbox was not integrated
)

var errBehind = errors.New("the store is behind its ledger")

// Integrator moves a shard's facts from the outbox into the ledger, in order,
// each exactly once. One round is
//
//  1. read    the facts after Ledger.Last, and the one at Last with them
//  2. seal    them; the same fact always gives the same receipt. Then their
//     evidence once more, under keys that are on disk before the next step
//  3. append  and sync, as one group
//  4. destroy the keys that a fact of the group says to
//  5. trim    the outbox up to what is synced, but for the last
//
// The last fact stays in the outbox so that each round sees that it stands
// there still: a store that went back and was written to since is another
// history, though it may be as long, and is neither appended nor trimmed.
// A crash after any step leaves nothing to repair: after 1 or 2 nothing
// happened; within 3 Open cuts the torn end and the facts are read again;
// after 3 the keeper finds in the ledger what it has not done yet, and the next
// start goes on behind Last and trims then.
//
// An outage of store or disk is waited out. A history that does not fit the
// ledger is not: the Integrator stops for good, Done is closed and Err says
// why, because to go on would be to renumber or to skip.
type Integrator struct {
	shard  writ.Tenant
	ledger *Ledger
	outbox Outbox
	sealer Sealer
	keeper Keeper // nil: evidence is filed as it comes

	mu      sync.Mutex
	cancel  context.CancelFunc // not nil: started
	done    chan struct{}
	err     error // why it stopped
	trouble error // what it waits out, nil when all is well

	// Owned by the loop.
	trimmed   int64     // highest sequence trimmed by us
	trimmedAt time.Time // when
}

// NewIntegrator makes an Integrator; Start runs it.
func NewIntegrator(shard writ.Tenant, l *Ledger, o Outbox, s Sealer) *Integrator {
	return &Integrator{shard: shard, ledger: l, outbox: o, sealer: s, done: make(chan struct{}), trimmed: -1, trimmedAt: time.Now()}
}

// Keep has evidence sealed once more by k. Call it before Start.
func (g *Integrator) Keep(k Keeper) { g.keeper = k }

// Start compares ledger and store, and returns when the loop runs. It refuses
// a store that is behind its ledger, that has forgotten facts the ledger never
// got, or that holds another history. A second Start does nothing.
func (g *Integrator) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cancel != nil {
		return nil
	}
	if err := g.Compare(ctx); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	g.cancel = cancel
	g.trimmedAt = time.Time{} // what lay there over a stop is trimmed at once
	go g.loop(run)
	return nil
}

// Stop ends the loop and waits for it. What was not integrated stays in the
// outbox. It may be called twice, and before Start.
func (g *Integrator) Stop(ctx context.Context) error {
	g.mu.Lock()
	cancel := g.cancel
	g.mu.Unlock()
	if cancel == nil {
		return nil
	}
	cancel()
	select {
	case <-g.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the loop has ended.
func (g *Integrator) Done() <-chan struct{} { return g.done }

// Stopped says whether the loop has ended.
func (g *Integrator) Stopped() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// Err says why the loop ended by itself, or what it is waiting out now; nil
// when all is well or it was stopped.
func (g *Integrator) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return g.err
	}
	return g.trouble
}

// Lag is how many facts of the shard are not in the ledger yet.
func (g *Integrator) Lag(ctx context.Context) (int64, error) {
	last := g.ledger.Last()
	head, err := g.outbox.Head(ctx, g.shard)
	if err != nil {
		return 0, err
	}
	return max(head.Seq-last, 0), nil
}

// Compare says whether ledger and store belong together, as Start does first.
func (g *Integrator) Compare(ctx context.Context) error {
	const op = "ledger.Start"
	last := g.ledger.Last()
	head, err := g.outbox.Head(ctx, g.shard)
	if err != nil {
		return writ.Fault(writ.CodeStore, op, err)
	}
	if head.Seq < last {
		return notReady(op, fmt.Sprintf("the store is behind its ledger: it ends at %d, the ledger at %d", head.Seq, last),
			"restore the store that belongs to this ledger; if its end is lost, keep this ledger apart and begin a new one", errBehind)
	}
	if head.Trimmed > last {
		return notReady(op, fmt.Sprintf("the store has trimmed facts up to %d, the ledger ends at %d", head.Trimmed, last),
			"use the ledger that belongs to this store", ErrOrder)
	}
	if last < 0 || head.Trimmed >= last {
		return nil
	}
	// The last receipt's fact may still be there: it must be the same.
	facts, err := g.outbox.Facts(ctx, g.shard, last-1, 1, 0)
	if err != nil {
		return writ.Fault(writ.CodeStore, op, err)
	}
	if len(facts) == 0 || facts[0].Commit.Seq != last {
		return nil
	}
	return g.fits(op, facts[0])
}

// fits refuses a fact that is not the ledger's under its sequence.
func (g *Integrator) fits(op string, f writ.StoredFact) error {
	mine, ok, err := g.ledger.Get(f.Commit.Seq)
	if err != nil {
		return err
	}
	if !ok || mine.ID != f.ID || !bytes.Equal(mine.Payload, f.Payload()) {
		return notReady(op, fmt.Sprintf("store and ledger hold different receipts under sequence %d", f.Commit.Seq),
			"use the ledger that belongs to this store", ErrOrder)
	}
	return nil
}

func (g *Integrator) loop(ctx context.Context) {
	defer close(g.done)
	pause := backoff
	for {
		n, err := g.Round(ctx, wait)
		stop := errors.Is(err, ErrOrder) || errors.Is(err, ErrFailed) || errors.Is(err, ErrClosed) || errors.Is(err, errSeal)
		g.mu.Lock()
		g.trouble = err
		if ctx.Err() != nil {
			g.trouble = nil
		} else if stop {
			g.err = err
		}
		g.mu.Unlock()
		rest := time.Duration(0)
		switch {
		case stop || ctx.Err() != nil:
			return
		case err != nil:
			rest, pause = pause, min(2*pause, wait)
		case n > 0 && n < batch:
			rest, pause = linger, backoff
		default:
			pause = backoff
		}
		if rest > 0 && !sleep(ctx, rest) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// errSeal: a fact that cannot be sealed will not become sealable, and nothing
// may pass it.
var errSeal = errors.New("a fact cannot be sealed")

// Round is one round as described above, waiting for a first fact at most w.
// It returns how many facts it integrated. The loop calls it; a program that
// has no loop may call it until it returns 0. Not for concurrent use.
func (g *Integrator) Round(ctx context.Context, w time.Duration) (int, error) {
	const op = "ledger.Integrate"
	if g.keeper != nil {
		if err := g.keeper.Settle(); err != nil {
			return 0, err
		}
	}
	last := g.ledger.Last()
	facts, same, err := g.next(ctx, last, w) // 1
	if err != nil {
		return 0, err
	}
	entries := make([]Entry, 0, len(facts))
	for i, f := range facts {
		if f.Commit.Seq != last+1+int64(i) {
			return 0, writ.Fault(writ.CodeInternal, op, fmt.Errorf("%w: fact %d follows %d", ErrOrder, f.Commit.Seq, last+int64(i)))
		}
		r, err := g.sealer.Seal(f)               // 2
		if errors.Is(err, receipts.ErrNotHeld) { // its file may come yet
			if i > 0 {
				break // what comes before it need not wait
			}
			return 0, writ.Fault(writ.CodeNotReady, op, fmt.Errorf("fact %d is to be signed with the receipt key %s, which is not in the directory of keys: %w", f.Commit.Seq, f.KeyID, err))
		}
		if err != nil {
			return 0, writ.Fault(writ.CodeInternal, op, fmt.Errorf("%w: fact %d: %w", errSeal, f.Commit.Seq, err))
		}
		entries = append(entries, Entry{Receipt: r, Run: f.Run})
	}
	facts = facts[:len(entries)]
	if err := g.file(facts, entries); err != nil { // 3 and 4
		return 0, err
	}
	// 5: a trim costs the store a write, so not after every small group.
	upto := g.ledger.Last() - 1
	if (same || len(facts) > 0) && upto > g.trimmed && (len(facts) == 0 || upto-g.trimmed >= batch || time.Since(g.trimmedAt) >= trimAge) {
		if err := g.outbox.Trim(ctx, g.shard, upto); err != nil {
			return len(facts), writ.Fault(writ.CodeStore, op, err)
		}
		g.trimmed, g.trimmedAt = upto, time.Now()
	}
	return len(facts), nil
}

// file appends a group, whose evidence the keeper has sealed.
func (g *Integrator) file(facts []writ.StoredFact, entries []Entry) error {
	if len(entries) == 0 || g.keeper == nil {
		return g.ledger.Append(entries)
	}
	if err := g.keeper.Keep(facts, entries); err != nil {
		return err
	}
	if err := g.ledger.Append(entries); err != nil {
		return err
	}
	return g.keeper.Filed()
}

// next waits for a fact after last and reads those there are, together with the
// one at last: same says that it stands there and is the ledger's. Only a store
// that an earlier version has trimmed does not have it; what it still has
// follows upon it.
func (g *Integrator) next(ctx context.Context, last int64, w time.Duration) (facts []writ.StoredFact, same bool, err error) {
	const op = "ledger.Integrate"
	if _, err := g.outbox.Facts(ctx, g.shard, last, 1, w); err != nil {
		return nil, false, writ.Fault(writ.CodeStore, op, err)
	}
	n := batch
	if last >= 0 {
		n++
	}
	facts, err = g.outbox.Facts(ctx, g.shard, max(last, 0)-1, n, 0)
	if err != nil {
		return nil, false, writ.Fault(writ.CodeStore, op, err)
	}
	if len(facts) == 0 || facts[0].Commit.Seq != last {
		return facts, false, nil
	}
	if err := g.fits(op, facts[0]); err != nil {
		return nil, false, err
	}
	return facts[1:], true, nil
}
