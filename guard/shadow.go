package guard

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Shadower is a Decider some of whose packs are in shadow: asked about decisions
// after they were taken, and never enforced.
type Shadower interface {
	Decider
	// Shadowed lists the packs in shadow, by id.
	Shadowed() []writ.PackVer
	// Shadows says whether one of them would judge a capability. It must not
	// allocate.
	Shadows(c writ.CapabilityID) bool
	// Shadow asks them about a decision, by its record.
	Shadow(ctx context.Context, c writ.CapabilityID, record []byte) []writ.Shade
}

// decided is a decision that packs in shadow are asked about.
type decided struct {
	shard      writ.Tenant
	rules      Shadower
	capability writ.CapabilityID
	record     []byte
	effect     writ.Effect
	sample     string
}

// shadow is what waits for packs in shadow, and what they would have changed
// since the last flush.
type shadow struct {
	queue chan decided

	mu     sync.Mutex
	counts map[writ.Tenant]map[string]*writ.ShadowPack // by digest
	failed map[string]error                            // by pack: the last failure since the last flush

	tally *tally[[]writ.ShadowPack]
}

func newShadow(queue int) *shadow {
	return &shadow{queue: make(chan decided, queue), counts: map[writ.Tenant]map[string]*writ.ShadowPack{}, failed: map[string]error{}, tally: tallyShadow()}
}

// shade hands a finished call's decision to the packs in shadow, if there are
// any for it. It never waits: when they cannot keep up, the decision is counted
// as lost. A mandate is left out: it happens whatever policy says.
func (t *try) shade(receipt *writ.Receipt, err error) {
	if t.k == nil || t.k.Class == writ.Mandate || t.dec.Record == nil {
		return
	}
	rules, ok := t.rules.(Shadower)
	if !ok || !rules.Shadows(t.k.Judged()) {
		return
	}
	job := decided{
		shard: t.call.Caller.Tenant, rules: rules, capability: t.k.Judged(), record: t.dec.Record, effect: t.dec.Effect, sample: string(t.call.ID),
	}
	if e, ok := errors.AsType[*writ.Error](err); ok && e.Receipt != "" {
		job.sample = string(e.Receipt)
	} else if receipt != nil {
		job.sample = string(receipt.ID)
	}
	select {
	case t.d.shadow.queue <- job:
	default:
		t.d.cfg.Observer.ShadowLost("queue")
	}
}

// ask asks about one decision and counts what would have changed.
func (d *Door) ask(ctx context.Context, job decided) {
	for _, s := range job.rules.Shadow(ctx, job.capability, job.record) {
		d.shadow.note(job, s)
		if s.Err != nil {
			d.cfg.Observer.ShadowLost("error")
		} else {
			d.cfg.Observer.Shadow(s.Pack.ID, string(job.effect), string(s.Effect(job.effect)))
		}
	}
}

func (w *shadow) note(job decided, s writ.Shade) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.Err != nil {
		w.failed[s.Pack.ID] = s.Err
	}
	w.pack(job.shard, writ.ShadowPack{ID: s.Pack.ID, Digest: s.Pack.Digest, Since: time.Now().UnixMilli()}).Note(s, job.effect, job.sample)
}

// pack is the count of a pack, begun when there is none.
func (w *shadow) pack(shard writ.Tenant, begin writ.ShadowPack) *writ.ShadowPack {
	if w.counts[shard] == nil {
		w.counts[shard] = map[string]*writ.ShadowPack{}
	}
	p := w.counts[shard][begin.Digest]
	if p == nil {
		p = &begin
		w.counts[shard][begin.Digest] = p
	}
	return p
}

// pending is what was counted and not flushed, by id. The lock must be held.
func (w *shadow) pending(shard writ.Tenant) []writ.ShadowPack {
	var out []writ.ShadowPack
	for _, p := range w.counts[shard] {
		c := *p
		c.Changes = slices.Clone(p.Changes)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b writ.ShadowPack) int { return strings.Compare(a.ID+a.Digest, b.ID+b.Digest) })
	return out
}

// drain takes the counts of the shards where something would have changed, and
// none are late. The others stay: what changes nothing is not worth a receipt, and
// is committed with the next change.
func (w *shadow) drain(late func(writ.Tenant) bool) map[writ.Tenant][]writ.ShadowPack {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[writ.Tenant][]writ.ShadowPack{}
	for shard := range w.counts {
		if packs := w.pending(shard); changed(packs) > 0 && !late(shard) {
			out[shard] = packs
			delete(w.counts, shard)
		}
	}
	return out
}

// changed is how many decisions packs would have made stronger.
func changed(packs []writ.ShadowPack) (n int64) {
	for _, p := range packs {
		n += p.Changed
	}
	return n
}

// Shadow is what was counted here about packs in shadow and is not in the store yet.
// What may be there, because an answer was lost, is left out.
func (d *Door) Shadow(shard writ.Tenant) []writ.ShadowPack {
	late, _ := d.shadow.tally.missing(shard)
	d.shadow.mu.Lock()
	defer d.shadow.mu.Unlock()
	return append(slices.Clone(late), d.shadow.pending(shard)...)
}
