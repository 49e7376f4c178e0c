package guard

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// ShadowWorker asks packs in shadow about decisions, one after another, and
// writes what they would have changed every ten seconds and when it stops.
// Without one the decisions are lost, and counted as that.
type ShadowWorker struct {
	door *Door
	once sync.Once
	quit chan struct{}
	done sync.WaitGroup

	// Owned by the loop.
	flushing Trouble
}

// NewShadowWorker makes a worker. A door has one at most.
func NewShadowWorker(d *Door) *ShadowWorker { return &ShadowWorker{door: d, quit: make(chan struct{})} }

// Start works until Stop.
func (w *ShadowWorker) Start() {
	w.done.Go(func() {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		flush := time.NewTicker(10 * time.Second)
		defer flush.Stop()
		for {
			select {
			case job := <-w.door.shadow.queue:
				w.door.ask(ctx, job)
			case <-flush.C:
				w.flush(ctx)
			case <-w.quit:
				w.last(ctx)
				return
			}
		}
	})
}

// stopWithin bounds the work that is still done when the worker stops.
const stopWithin = 2 * time.Second

// last asks about what has been decided, as long as there is time, and writes
// the counts.
func (w *ShadowWorker) last(ctx context.Context) {
	for end := time.Now().Add(stopWithin); time.Now().Before(end); {
		select {
		case job := <-w.door.shadow.queue:
			w.door.ask(ctx, job)
			continue
		default:
		}
		break
	}
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	w.flush(ctx)
}

func (w *ShadowWorker) flush(ctx context.Context) {
	log := w.door.cfg.Log
	w.flushing.Note(log, w.door.FlushShadow(ctx), "what packs in shadow would have changed is not recorded yet", "what packs in shadow would have changed is recorded again")
	failed := w.door.shadow.failures()
	for _, id := range slices.Sorted(maps.Keys(failed)) {
		log.WarnContext(ctx, "a pack in shadow gave no answer; nobody was refused", "pack", id, "error", failed[id])
	}
}

// failures are the packs that gave no answer since the last time, each with the
// last reason: one line of log for each, however often it failed.
func (w *shadow) failures() map[string]error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.failed
	w.failed = map[string]error{}
	return out
}

// Stop ends the work. It may be called twice.
func (w *ShadowWorker) Stop() {
	w.once.Do(func() { close(w.quit) })
	w.done.Wait()
}

// ShadowArgs are what the evidence of a shadow aggregate holds.
type ShadowArgs struct {
	Packs []writ.ShadowPack `json:"packs"`
}

// FlushShadow writes one aggregate fact per shard in which packs in shadow would
// have changed a decision since the last flush, and the counts with it. The
// statement says how many decisions; which packs and rules, and samples, are in
// its evidence and in the document. A crash loses what was not flushed.
func (d *Door) FlushShadow(ctx context.Context) error {
	return d.shadow.tally.flush(ctx, d, d.shadow.drain)
}

func tallyShadow() *tally[[]writ.ShadowPack] {
	return &tally[[]writ.ShadowPack]{
		k:    &writ.Capability{ID: "shadow.aggregate", Version: "1"},
		docs: []writ.Key{writ.ShadowKey},
		args: func(packs []writ.ShadowPack) any { return &ShadowArgs{Packs: packs} },
		plan: planShadow,
	}
}

// planShadow adds counts to the document. Those of packs that are in shadow no
// more are dropped.
func planShadow(t *try, packs []writ.ShadowPack, st *writ.Statement, tx *writ.Tx) (bool, error) {
	rules, ok := t.rules.(Shadower)
	if !ok {
		return false, nil
	}
	now := rules.Shadowed()
	if st.Count = changed(writ.Shadow{}.With(now, packs).Packs); st.Count == 0 {
		return false, nil
	}
	doc, _, _, err := writ.Get[writ.Shadow](t.snap, writ.ShadowKey)
	if err != nil {
		return false, err
	}
	doc = doc.With(now, packs)
	doc.Receipt = st.Receipt
	return true, tx.PutDoc(t.snap, writ.ShadowKey, writ.ObjectShadow, doc)
}
