package guard

import (
	"context"
	"sync/atomic"

	"github.com/writ-gateway/writ"
)

// shedder refuses new work when the store's memory or the outbox fills up.
// Work that shrinks what is stored (mandates, completions, releases) goes on.
type shedder struct{ reason atomic.Pointer[string] }

// MaxBacklog is how many facts may wait for the ledger before new work is
// refused.
const MaxBacklog = 50_000

// Watch looks at the store once and sets or lifts the refusal of new work. The
// sweeper calls it every second.
func (d *Door) Watch(ctx context.Context, shard writ.Tenant) error {
	info, err := d.cfg.Store.Info(ctx)
	if err != nil {
		return err
	}
	head, err := d.cfg.Store.Head(ctx, shard)
	if err != nil {
		return err
	}
	var reason *string
	switch {
	case info.MemoryMax > 0 && info.MemoryUsed > info.MemoryMax/10*8:
		r := "the store has used 80 % of its memory"
		reason = &r
	case head.Backlog > MaxBacklog:
		r := "too many facts wait for the ledger"
		reason = &r
	}
	d.shed.reason.Store(reason)
	return nil
}

func (s *shedder) admit(k *writ.Capability, tx writ.Tx) error {
	reason := s.reason.Load()
	if reason == nil || tx.Mandate || k.Class == writ.Mandate || !grows(tx) {
		return nil
	}
	return &writ.Error{
		Code: writ.CodeBackpressure, Op: "guard.admit", RetryMs: 2000, Msg: *reason,
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
