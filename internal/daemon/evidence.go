package daemon

import (
	"context"
	"path/filepath"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/shred"
)

// openShred opens the keys of the ledger's evidence, and destroys those that
// receipts in the ledger say to and a crash has left.
func (d *Daemon) openShred() (err error) {
	dir := filepath.Join(d.cfg.Data, ledgerDir, shred.Dir)
	d.shred, err = shred.Open(dir, d.keys.Evidence, d.ledger)
	if err != nil {
		return err
	}
	d.onStop(func(context.Context) error { return d.shred.Close() })
	if n := d.shred.Missing(); n > 0 {
		d.log.Warn("keys of evidence are missing beside the ledger, so evidence cannot be read: restore them from a backup",
			"directory", dir, "receipts", n)
	}
	return nil
}

// evidence decrypts what stands beside a receipt. In the ledger it was sealed
// once more, in the outbox it is as the call's replica has sealed it.
func (d *Daemon) evidence(r writ.Receipt) ([]byte, error) {
	if d.shred != nil {
		sealed, err := d.shred.Sealed(r)
		if err != nil {
			return nil, err
		}
		r.Evidence = sealed
	}
	return receipts.OpenEvidence(d.keys.Evidence, r.ID, r.Evidence)
}
