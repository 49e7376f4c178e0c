package guard

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// Published says what of the receipts is in the transparency log.
type Published interface {
	// Size is how many a checkpoint covers: those with a smaller sequence. It may be
	// late, and is never ahead.
	Size(ctx context.Context, shard writ.Tenant) (int64, error)
	// Wait returns once a checkpoint covers a sequence, or with the context's error.
	Wait(ctx context.Context, shard writ.Tenant, seq int64) error
}

// maxLogged is how long an answer waits for the log.
const maxLogged = 3 * time.Second

// durability is what the reply to this call must mean: as policy wants it, and of some
// capabilities more than policy has to say.
func (t *try) durability() writ.Durability {
	d := writ.Duties{Durability: t.dec.Duties.Durability}
	if t.d.cfg.Published != nil { // of itself a capability asks for no more than there is
		d.Join(writ.Duties{Durability: t.k.Durability})
	}
	return d.Durability
}

// builtOnLogged refuses a call that builds on what is not in the log yet, where policy
// wants that: any task, run or approval that was read says by its version which receipt
// it is of.
func (t *try) builtOnLogged(ctx context.Context) error {
	if !t.dec.Duties.BuiltOnLogged {
		return nil
	}
	if t.d.cfg.Published == nil {
		return t.notDurable("policy wants this change to build on what is in a transparency log, and this gateway knows of none",
			"operators: take the obligation from the pack, or run a replica that writes the ledger")
	}
	size, err := t.d.cfg.Published.Size(ctx, t.call.Caller.Tenant)
	if err != nil {
		return storeDown("guard.builtOnLogged", err)
	}
	for key, doc := range t.snap.Docs {
		kind, _, _ := strings.Cut(string(key), "/")
		if doc.Version > size && slices.Contains([]string{writ.ObjectTask, writ.ObjectRun, writ.ObjectApproval}, kind) {
			return &writ.Error{
				Code: writ.CodeReceiptPending, Op: "guard.builtOnLogged", RetryMs: 500, Rules: t.dec.Rules(),
				Msg:  fmt.Sprintf("policy wants this change to build on what is in the transparency log, and the last receipt of the %s is not there yet, so nothing was done", kind),
				Hint: "repeat the call in a moment",
			}
		}
	}
	return nil
}

// logged waits until a receipt is in the transparency log where the reply must mean
// that. The change stands whatever comes of it, so when it takes too long the answer says
// so, and the call can be repeated for its reply. No slot and no lock is held meanwhile.
func (d *Door) logged(ctx context.Context, call *writ.Call, reply writ.Reply, receipt *writ.Receipt) (writ.Reply, error) {
	if reply.Durability != writ.DurabilityLogged || receipt == nil || d.cfg.Published == nil {
		return reply, nil
	}
	wait, cancel := context.WithTimeout(ctx, maxLogged)
	defer cancel()
	if d.cfg.Published.Wait(wait, call.Caller.Tenant, receipt.Seq) == nil {
		return reply, nil
	}
	late := writ.Reply{
		Outcome: writ.OutcomePending, Replayed: reply.Replayed, Limited: reply.Limited, Budget: reply.Budget,
		Body: writ.Unlogged{
			Status: writ.StatusUnlogged, Receipt: receipt.ID,
			Hint: "the change is made; repeat the call with the same Idempotency-Key for its reply, or ask receipt.get whether the receipt is included",
		},
	}
	return late, finish(&late, writ.Committed{Seq: receipt.Seq})
}
