package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
)

func (d *Daemon) openLedger(ctx context.Context) error {
	if d.cfg.Ledger == "none" {
		return nil
	}
	if err := d.takeLedger(ctx); err != nil {
		return err
	}
	files, name, err := d.openShard(ctx)
	if err == nil {
		err = d.openLog(ctx, files, name)
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	return d.integrate(ctx, d.sealer, d.shred)
}

// takeLedger opens the ledger, which is this process's alone from then on.
func (d *Daemon) takeLedger(ctx context.Context) error {
	l, err := ledger.Open(filepath.Join(d.cfg.Data, ledgerDir))
	if err != nil {
		return fmt.Errorf("ledger: %w", d.maybeReplica(err))
	}
	d.ledger = l
	d.onStop(func(context.Context) error { return l.Close() })
	if r, ok := d.store.(interface {
		Recover(context.Context, writ.Tenant, int64, writ.ReceiptID, string) error
	}); ok {
		last, _, err := l.Get(l.Last())
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		// A receipt that this version does not read has its id alone.
		rec, _ := receipts.Decode(last.Payload)
		if err := r.Recover(ctx, shard, l.Last(), last.ID, rec.Commit.Epoch); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := d.openShred(); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// integrate has facts moved into the ledger. It compares store and ledger before anything
// new is committed, and is stopped before the log, which so has what came last.
func (d *Daemon) integrate(ctx context.Context, s ledger.Sealer, k ledger.Keeper) error {
	d.integrator = ledger.NewIntegrator(shard, d.ledger, d.store, s)
	d.integrator.Keep(k)
	if err := d.integrator.Start(ctx); err != nil {
		return fmt.Errorf("ledger: %w", d.maybeReplica(err))
	}
	d.onStop(func(ctx context.Context) error { return d.integrator.Stop(ctx) })
	return nil
}

// maybeReplica adds to why the ledger cannot be used what a further replica of
// a store forgot.
func (d *Daemon) maybeReplica(err error) error {
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != writ.CodeNotReady || d.cfg.Store == "bolt" {
		return err
	}
	c := *e
	if c.Hint != "" {
		c.Hint += "; "
	}
	c.Hint += "a further replica of a store wants --ledger none, and a --data directory of its own"
	return &c
}
