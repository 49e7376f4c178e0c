package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store/boltstore"
)

// Whether the clock is set by an hour, on or back, while a gateway runs or while none does:
// calls go on, their receipts come into the log, each at its index, and the time they state
// never goes back.
func TestAnHourOnAndBack(t *testing.T) {
	v := &victim{t: t, data: filepath.Join(t.TempDir(), "data"), store: "bolt", acked: map[writ.ReceiptID]string{}}
	cfg, err := killedConfig(v.data, v.store)
	if err != nil {
		t.Fatal(err)
	}
	var off atomic.Int64
	serve := func() *Daemon {
		t.Helper()
		d := New(cfg, slog.New(slog.DiscardHandler))
		err := d.start(t.Context(), func(context.Context) error {
			st, err := boltstore.Open(filepath.Join(cfg.Data, boltFile), boltstore.Options{Now: func() int64 { return time.Now().UnixMilli() + off.Load() }})
			if err != nil {
				return err
			}
			d.store = st
			d.onStop(func(context.Context) error { return st.Close() })
			return nil
		}, d.openLedger)
		if err != nil {
			t.Fatal(err)
		}
		v.url = d.URL()
		return d
	}
	more := func(what string) {
		t.Helper()
		v.made++
		agent := fmt.Sprintf("agent-%d", v.made)
		// What is in the outbox seems to have waited for an hour: for a moment new work is refused.
		for until := time.Now().Add(20 * time.Second); !v.register(agent); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(until) {
				t.Fatalf("%s it does not answer", what)
			}
		}
	}
	hour := time.Hour.Milliseconds()
	d := serve()
	for _, at := range []int64{0, hour, -hour} {
		off.Store(at)
		for range 2 {
			more(fmt.Sprintf("%d ms away", at))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		head, err := d.store.Head(ctx, shard)
		if err == nil {
			err = d.follower.Wait(ctx, head.Seq)
		}
		if cancel(); err != nil {
			t.Fatalf("%d ms away the log does not come up: %v", at, err)
		}
	}
	for _, at := range []int64{-hour, hour} { // and a start in another hour
		stopDaemon(t, d)
		off.Store(at)
		d = serve()
		more(fmt.Sprintf("started %d ms away", at))
	}
	stopDaemon(t, d)
	v.held("at the end", true)
	l, err := ledger.Read(filepath.Join(v.data, ledgerDir))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var last, first int64
	for r, err := range l.All(-1, l.Last()) {
		if err != nil {
			t.Fatal(err)
		}
		rec, err := receipts.Decode(r.Payload)
		if err != nil || rec.Commit.At < last {
			t.Fatalf("receipt %d is of %d, after one of %d, %v", r.Seq, rec.Commit.At, last, err)
		}
		if last = rec.Commit.At; first == 0 {
			first = last
		}
	}
	if last-first < hour || len(v.acked) != v.made {
		t.Errorf("the receipts span %d ms, %d of %d are acknowledged", last-first, len(v.acked), v.made)
	}
}
