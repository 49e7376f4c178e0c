package guard

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// tally writes counts as aggregate facts, each count once. What is taken out to be
// written stays as it is, under one call id, until it is known to be in the store:
// the store commits a call once, however often it is sent. What is counted
// meanwhile goes into the next fact.
type tally[T any] struct {
	k    *writ.Capability
	docs []writ.Key         // what plan reads
	args func(counts T) any // for the evidence
	// plan completes statement and transaction. It says whether there is
	// anything to write.
	plan func(t *try, counts T, st *writ.Statement, tx *writ.Tx) (bool, error)

	flushing sync.Mutex // held by the one flush under way, which alone changes what is late

	mu   sync.Mutex
	late map[writ.Tenant]*batch[T] // one of a shard at most
}

// batch is what one fact counts.
type batch[T any] struct {
	call   *writ.Call
	counts T
	// unsure is the store's time of the first commit that may have happened
	// without our knowing it; 0 while there was none.
	unsure int64
}

// callKept is how long a batch may be sent again without looking for its receipt.
// The store remembers the calls it has committed for ten minutes, and what is
// sent commits within seconds of what was read for it, or not at all.
const callKept = 9 * time.Minute

// flush writes what is late, and then what drain takes out of those shards where
// nothing is late any more.
func (a *tally[T]) flush(ctx context.Context, d *Door, drain func(late func(writ.Tenant) bool) map[writ.Tenant]T) error {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	var first error
	for _, shard := range slices.Sorted(maps.Keys(a.late)) {
		first = cmp.Or(first, a.send(ctx, d, shard))
	}
	for shard, counts := range drain(func(shard writ.Tenant) bool { return a.late[shard] != nil }) {
		a.put(shard, &batch[T]{counts: counts})
		first = cmp.Or(first, a.send(ctx, d, shard))
	}
	return first
}

// put sets what is late in a shard; nil when nothing is.
func (a *tally[T]) put(shard writ.Tenant, b *batch[T]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b == nil {
		delete(a.late, shard)
		return
	}
	if a.late == nil {
		a.late = map[writ.Tenant]*batch[T]{}
	}
	a.late[shard] = b
}

// missing is what is late in a shard and surely not in the store.
func (a *tally[T]) missing(shard writ.Tenant) (counts T, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b := a.late[shard]; b != nil && b.unsure == 0 {
		return b.counts, true
	}
	return counts, false
}

// send sends what is late in a shard. Without an error it is settled: written, or
// not worth it, or given up.
func (a *tally[T]) send(ctx context.Context, d *Door, shard writ.Tenant) error {
	b := *a.late[shard]
	if b.call == nil {
		call := &writ.Call{
			Capability: a.k.ID, Args: a.args(b.counts),
			Caller: writ.Caller{Tenant: shard, Principal: "writ", Kind: writ.KindSystem, Role: writ.RoleSystem},
		}
		if err := d.Stamp(call); err != nil {
			return err
		}
		b.call = call
	}
	t := &try{d: d, k: a.k, call: b.call}
	err := a.write(ctx, t, &b)
	if err == nil {
		a.put(shard, nil)
	} else {
		a.put(shard, &b)
	}
	return err
}

// write commits a batch, unless it is found out that it is committed already.
func (a *tally[T]) write(ctx context.Context, t *try, b *batch[T]) error {
	for {
		t.tries++
		t.snap = writ.Snapshot{}
		if err := t.read(ctx, writ.ReadSet{Docs: append([]writ.Key{writ.GateKey}, a.docs...)}); err != nil {
			return err
		}
		if b.unsure != 0 && t.snap.Now-b.unsure > callKept.Milliseconds() {
			if settled, err := t.written(ctx); settled || err != nil {
				return err
			}
			b.unsure = 0
		}
		if err := t.checkGate(); err != nil {
			return err
		}
		policy, bindings := t.rules.Revisions()
		t.dec = writ.Decision{PolicyRevision: policy, BindingsRevision: bindings}
		tx := writ.Tx{Call: t.call.ID, Mandate: true}
		t.guardReads(&tx)
		st := t.statement(writ.OutcomeOfAggregate, nil)
		if worth, err := a.plan(t, b.counts, &st, &tx); !worth || err != nil {
			return err
		}
		if err := t.addFact(&tx, st, writ.Reply{}); err != nil {
			return err
		}
		t.unsure = b.unsure != 0
		_, err := t.store(ctx, tx)
		switch {
		case !t.unsure:
			b.unsure = 0
		case b.unsure == 0:
			b.unsure = t.snap.Now
		}
		if _, again := err.(*errAgain); !again || t.tries >= maxTries {
			return err
		}
	}
}

// written says whether the receipt of a call shows that it was committed. Where
// the receipts are that would show it is for another replica to say; then the
// call is settled as well: counts that are lost were counted too low, as after a
// crash, and those sent twice would state what was never true.
func (t *try) written(ctx context.Context) (bool, error) {
	id := writ.ReceiptID(t.call.NewID(writ.PrefixReceipt, 0)) // as statement makes it
	found, err := t.d.cfg.Archive.Read(ctx, t.call.Caller.Tenant, writ.ArchiveRead{Receipt: id, Limit: 1})
	switch {
	case writ.CodeOf(err) == writ.CodeNotFound:
		t.d.cfg.Log.WarnContext(ctx, "counts are given up: whether they are in the store is not known here", "transition", t.k.ID, "receipt", id)
		return true, nil
	case err != nil:
		return false, storeDown("guard.aggregate", err)
	}
	return len(found) > 0, nil
}
