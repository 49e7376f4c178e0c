package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
)

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

// openStore opens the host the configuration names.
func openStore(ctx context.Context, cfg Config) (store.Store, error) {
	if cfg.Store == "bolt" {
		return boltstore.Open(filepath.Join(cfg.Data, "writ.db"), boltstore.Options{})
	}
	return redisstore.Open(ctx, redisstore.Options{URL: cfg.Store})
}

// archive is where receipts are read: the ledger, then the outbox.
func (d *Daemon) archive() guard.Archive {
	ledgers := map[writ.Tenant]*ledger.Ledger{}
	if d.ledger != nil {
		ledgers[shard] = d.ledger
	}
	return ledger.NewArchive(ledgers, d.store, d.sealer)
}

// export renders receipts as a signed export.
func (d *Daemon) export(list []writ.Receipt, after, at int64, more bool) ([]byte, error) {
	var b bytes.Buffer
	err := receipts.WriteExport(&b, func(yield func(writ.Receipt, error) bool) {
		for _, r := range list {
			if !yield(r, nil) {
				return
			}
		}
	}, d.sealer, after, at, more)
	return b.Bytes(), err
}

// consumerName names this replica in the store's lanes. A new name at every
// start is right: what the last one held is reclaimed.
func consumerName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails on the platforms Go supports
	return "r-" + hex.EncodeToString(b[:])
}

// memoryLimit is what the operator set, else 80 % of the container's limit.
func memoryLimit(mb int) int64 {
	if mb > 0 {
		return int64(mb) << 20
	}
	b, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0 // "max"
	}
	return n / 10 * 8
}

// ready says how each dependency is.
func (d *Daemon) ready(ctx context.Context) gateway.ReadyReport {
	r := gateway.ReadyReport{Ready: true}
	note := func(name string, ok bool, detail string) {
		r.Checks = append(r.Checks, gateway.ReadyCheck{Name: name, OK: ok, Detail: detail})
		r.Ready = r.Ready && ok
	}
	info, err := d.store.Info(ctx)
	if err != nil {
		note("store", false, "the store does not answer")
		return r
	}
	note("store", true, info.Kind+", a reply means "+string(info.Durability))
	head, err := d.store.Head(ctx, shard)
	if err != nil {
		note("shard", false, "the head of the shard cannot be read")
		return r
	}
	note("shard", true, "epoch "+head.Epoch+", "+strconv.FormatInt(head.Seq+1, 10)+" facts")
	switch {
	case d.ledger == nil:
		note("ledger", true, "written by another replica")
	case d.integrator.Err() != nil:
		note("ledger", false, "the ledger has stopped; the log says why")
	case head.Backlog > guard.MaxBacklog:
		note("ledger", false, strconv.FormatInt(head.Backlog, 10)+" facts wait for the ledger")
	default:
		note("ledger", true, strconv.FormatInt(max(0, head.Seq-d.ledger.Last()), 10)+" facts behind")
	}
	policy, _ := d.engine.Revisions()
	note("policies", true, policy)
	return r
}

// maxBundle bounds a policy bundle as it is kept.
const maxBundle = 16 << 20
