package guard

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
)

// shedder refuses new work when the store's memory or the outbox fills up, or
// the ledger does not keep up. Work that shrinks what is stored (mandates,
// completions, releases) goes on.
type shedder struct{ reason atomic.Pointer[overload] }

// overload is why new work, or a call, is refused: as a metric's label, and in words.
type overload struct{ label, msg string }

var (
	noMemory    = &overload{"memory", "the store has used 80 % of its memory"}
	longBacklog = &overload{"backlog", "too many facts wait for the ledger"}
	oldBacklog  = &overload{"age", "facts have waited for the ledger for too long"}
	manyCalls   = &overload{"inflight", "too many calls are under way"}
	manyOfOne   = &overload{"session", "too many calls with this token are under way"}
)

const (
	// MaxBacklog is how many facts may wait for the ledger before new work is
	// refused.
	MaxBacklog = 50_000
	// MaxWait is how long the oldest of them may wait.
	MaxWait = time.Minute
)

// Watch looks at the store once and sets or lifts the refusal of new work. The
// sweeper calls it every second.
func (d *Door) Watch(ctx context.Context, shard writ.Tenant) error {
	why, err := d.overload(ctx, shard)
	if err != nil {
		return err
	}
	if was := d.shed.reason.Swap(why); was != why {
		if why != nil {
			d.cfg.Log.WarnContext(ctx, "new work is refused", "reason", why.msg)
		} else {
			d.cfg.Log.InfoContext(ctx, "new work is taken again")
		}
	}
	return nil
}

func (d *Door) overload(ctx context.Context, shard writ.Tenant) (*overload, error) {
	info, err := d.cfg.Store.Info(ctx)
	if err != nil {
		return nil, err
	}
	if info.MemoryMax > 0 && info.MemoryUsed > info.MemoryMax/10*8 {
		return noMemory, nil
	}
	head, err := d.cfg.Store.Head(ctx, shard)
	if err != nil {
		return nil, err
	}
	if head.Backlog > MaxBacklog {
		return longBacklog, nil
	}
	if head.Backlog <= 1 {
		return nil, nil
	}
	// The first may be the last the ledger has, which stays there.
	oldest, err := d.cfg.Store.Facts(ctx, shard, head.Trimmed+1, 1, 0)
	if err != nil || len(oldest) == 0 {
		return nil, err
	}
	now, err := d.cfg.Store.Read(ctx, shard, writ.ReadSet{})
	if err != nil {
		return nil, err
	}
	if now.Now-oldest[0].Commit.At > MaxWait.Milliseconds() {
		return oldBacklog, nil
	}
	return nil, nil
}

// Refusing says why new work is refused now; "" when it is taken.
func (d *Door) Refusing() string {
	if r := d.shed.reason.Load(); r != nil {
		return r.msg
	}
	return ""
}

// admit refuses a transaction that brings something new into being while there
// is no room for it.
func (d *Door) admit(k *writ.Capability, tx writ.Tx) error {
	reason := d.shed.reason.Load()
	if reason == nil || tx.Mandate || k.Class == writ.Mandate || !grows(tx) {
		return nil
	}
	d.cfg.Observer.Shed(reason.label)
	return &writ.Error{
		Code: writ.CodeBackpressure, Op: "guard.admit", RetryMs: 2000, Msg: reason.msg,
		Hint: "repeat the call after the Retry-After time; operators see /readyz",
	}
}

// grows says whether a transaction brings a new object into being.
func grows(tx writ.Tx) bool {
	for _, c := range tx.Changes {
		if c.From == "" {
			return true
		}
	}
	return false
}
