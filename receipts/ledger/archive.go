package ledger

import (
	"context"

	"github.com/writ-gateway/writ"
)

// MaxPage bounds the receipts one read returns.
const MaxPage = 1000

// Archive answers reads of receipts: from the ledger, and for what is not
// integrated yet from the outbox, sealed on the spot. It is safe for
// concurrent use, also with the Integrator.
type Archive struct {
	ledgers map[writ.Tenant]*Ledger
	outbox  Outbox
	sealer  Sealer
}

// NewArchive makes an Archive of the ledgers this process holds. Of a shard
// without a ledger only the outbox is read.
func NewArchive(ledgers map[writ.Tenant]*Ledger, o Outbox, s Sealer) *Archive {
	return &Archive{ledgers: ledgers, outbox: o, sealer: s}
}

// Read returns the receipt with an id, or a page of receipts after a sequence
// in order. Nothing found is no error, but a sequence the log has not reached
// is: what is said about it now would be false later.
func (a *Archive) Read(ctx context.Context, shard writ.Tenant, q writ.ArchiveRead) ([]writ.Receipt, error) {
	if q.Receipt == "" {
		if err := a.reached(ctx, shard, q.After); err != nil {
			return nil, err
		}
		limit := min(max(q.Limit, 1), MaxPage)
		return a.read(ctx, shard, q.After, limit, false, func(f writ.StoredFact) bool { return q.Run == "" || f.Run == q.Run },
			func(l *Ledger, after int64, n int) ([]writ.Receipt, error) { return l.Range(after, n, q.Run) })
	}
	return a.read(ctx, shard, -1, 1, true, func(f writ.StoredFact) bool { return f.ID == q.Receipt },
		func(l *Ledger, _ int64, _ int) ([]writ.Receipt, error) {
			r, ok, err := l.ByID(q.Receipt)
			if !ok || err != nil {
				return nil, err
			}
			return []writ.Receipt{r}, nil
		})
}

// reached refuses a sequence after the log's last.
func (a *Archive) reached(ctx context.Context, shard writ.Tenant, after int64) error {
	if l := a.ledgers[shard]; after < 0 || l != nil && l.Last() >= after {
		return nil
	}
	head, err := a.outbox.Head(ctx, shard)
	if err != nil {
		return writ.Fault(writ.CodeStore, "ledger.Read", err)
	}
	if head.Seq >= after {
		return nil
	}
	return &writ.Error{
		Code: writ.CodeInputInvalid, Op: "ledger.Read", Msg: "the log has no receipt of this sequence yet",
		Hint:   "ask for receipts after one there is: next_after of an earlier page",
		Fields: []writ.FieldError{{Pointer: "/after", Msg: "is past the end of the log"}},
	}
}

// read collects up to limit receipts with sequences > after: as far as the
// ledger goes by filed, from there on those facts that match. Facts move from
// outbox to ledger while it reads, and are trimmed only when the ledger has
// them: whenever the ledger has grown past what was read, it is asked first.
func (a *Archive) read(
	ctx context.Context, shard writ.Tenant, after int64, limit int, one bool,
	match func(writ.StoredFact) bool, filed func(l *Ledger, after int64, n int) ([]writ.Receipt, error),
) ([]writ.Receipt, error) {
	const op = "ledger.Read"
	l, elsewhere := a.ledgers[shard], false
	if l == nil {
		head, err := a.outbox.Head(ctx, shard)
		if err != nil {
			return nil, writ.Fault(writ.CodeStore, op, err)
		}
		// What is gone from here is in another replica's ledger. Handing out the
		// rest of a page as if it were everything would be a lie; one receipt may
		// still be here.
		if elsewhere = after < head.Trimmed; elsewhere && !one {
			return nil, errElsewhere
		}
		after = max(after, head.Trimmed)
	}
	var out []writ.Receipt
	for len(out) < limit {
		if l != nil && l.Last() > after {
			last := l.Last()
			rs, err := filed(l, after, limit-len(out))
			if err != nil {
				return nil, err
			}
			out = append(out, rs...)
			after = last
			if len(rs) > 0 {
				after = max(after, rs[len(rs)-1].Seq)
			}
			continue
		}
		facts, err := a.outbox.Facts(ctx, shard, after, MaxPage, 0)
		if l != nil && l.Last() > after {
			continue
		}
		if err != nil {
			return nil, writ.Fault(writ.CodeStore, op, err)
		}
		if len(facts) == 0 {
			break
		}
		for _, f := range facts {
			after = f.Commit.Seq
			if len(out) == limit || !match(f) {
				continue
			}
			r, err := a.sealer.Seal(f)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	if elsewhere && len(out) == 0 {
		return nil, errElsewhere
	}
	return out, nil
}

// errElsewhere will not go away by repeating the call here, and nothing is wrong
// with this replica.
var errElsewhere = &writ.Error{
	Code: writ.CodeNotFound, Op: "ledger.Read", Msg: "older receipts are in the ledger of another replica",
	Hint: "ask the replica that writes the ledger, or for receipts after a later sequence",
}
