package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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
		return boltstore.Open(filepath.Join(cfg.Data, boltFile), boltstore.Options{})
	}
	return redisstore.Open(ctx, redisstore.Options{URL: cfg.Store})
}

// archive is where receipts are read: the ledger, then the outbox; and what the log
// proves of them.
func (d *Daemon) archive() guard.Archive {
	ledgers := map[writ.Tenant]*ledger.Ledger{}
	if d.ledger != nil {
		ledgers[shard] = d.ledger
	}
	return archive{ledger.NewArchive(ledgers, d.store, d.sealer), d.tlog, d.follower}
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
	if info.Trouble != "" {
		note("store", false, info.Trouble)
	} else {
		note("store", true, info.Kind+", a reply means "+string(info.Durability))
	}
	head, err := d.store.Head(ctx, shard)
	if err != nil {
		note("shard", false, "the head of the shard cannot be read")
		return r
	}
	note("shard", true, "epoch "+head.Epoch+", "+strconv.FormatInt(head.Seq+1, 10)+" facts")
	switch {
	case d.ledger == nil:
		note("ledger", true, "written by another replica")
	case d.integrator.Err() != nil && d.integrator.Stopped():
		note("ledger", false, "the ledger has stopped; the log says why")
	case d.integrator.Err() != nil:
		note("ledger", false, "the ledger waits until store and disk answer; receipts stay in the outbox")
	case head.Backlog > guard.MaxBacklog:
		note("ledger", false, strconv.FormatInt(head.Backlog, 10)+" facts wait for the ledger")
	default:
		note("ledger", true, strconv.FormatInt(max(0, head.Seq-d.ledger.Last()), 10)+" facts behind")
	}
	if why := d.door.Refusing(); why != "" {
		note("load", true, "new work is refused: "+why)
	}
	d.logReady(note)
	if d.sealer.Ready() == nil {
		note("signer", true, "key "+d.sealer.KeyID())
	} else {
		note("signer", false, "the receipt key does not sign, so nothing is committed")
	}
	d.inForce(ctx, note)
	return r
}

// checkReceiptKey names the check whose detail holds the receipt key.
const checkReceiptKey = "receipt key"

// inForce compares what this replica holds with the gate: with anything else it
// refuses every call.
func (d *Daemon) inForce(ctx context.Context, note func(name string, ok bool, detail string)) {
	gate, ok, err := d.readGate(ctx)
	if err != nil || !ok {
		note("gate", false, "what is in force cannot be read")
		return
	}
	compare := func(name, mine, theirs, otherwise string) {
		if mine == theirs {
			note(name, true, mine)
			return
		}
		note(name, false, "this replica holds "+mine+", in force is "+theirs+": "+otherwise)
	}
	policy, bindings := d.engine.Revisions()
	if s, ok := d.engine.Under(gate.PolicyRevision, gate.BindingsRevision, 0); ok { // held, and in force with the next call
		policy, bindings = s.Revisions()
	}
	compare("policies", policy, gate.PolicyRevision, "it loads them from the store; the log says what keeps it")
	compare("bindings", bindings, gate.BindingsRevision, "it loads them from the store; the log says what keeps it")
	mine := d.sealer.KeyID()
	if d.sealer.Holds(gate.ReceiptKeyID) { // and uses it with the next call
		mine = gate.ReceiptKeyID
	}
	compare(checkReceiptKey, mine, gate.ReceiptKeyID, "put its file into "+d.cfg.Keys)
}

// gauge reads a value from the store when somebody scrapes; what cannot be read
// is no number.
func gauge(f func(context.Context) (float64, error)) func() float64 {
	return func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		v, err := f(ctx)
		if err != nil {
			return math.NaN()
		}
		return v
	}
}

// gauges adds what is read from the store when somebody scrapes.
func (d *Daemon) gauges() {
	count := func(n func() int64) func() float64 { return func() float64 { return float64(n()) } }
	d.telemetry.Counters("policy_compiles_total", "Policy bundles this replica compiled because they were staged or in force, by outcome: ready, or refused with a reason in the log and in policy.list.",
		"outcome", map[string]func() float64{"ready": count(d.compiled.ready.Load), "refused": count(d.compiled.refused.Load)})
	d.telemetry.Gauge("policy_staged_bundles", "Policy bundles that are staged and not in force.", gauge(func(ctx context.Context) (float64, error) {
		staged := writ.Range{Index: writ.IndexStaged, Limit: writ.MaxStaged + 1}
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{staged}})
		return float64(len(s.Ranges[staged].Members)), err
	}))
	d.telemetry.Gauge("policy_in_force_held", "1 while this replica holds the policies and bindings in force, 0 while it must refuse calls until it has compiled them.", gauge(func(ctx context.Context) (float64, error) {
		gate, ok, err := d.readGate(ctx)
		if err != nil || !ok {
			return 0, err
		}
		if _, held := d.engine.Under(gate.PolicyRevision, gate.BindingsRevision, 0); held {
			return 1, nil
		}
		return 0, nil
	}))
	d.telemetry.Gauge("artifact_bytes", "Bytes of artifacts in the directory this replica uses, as last counted, with those on their way in.", func() float64 { return float64(d.artifacts.Used()) })
	d.telemetry.Counters("artifacts_removed_total", "Stored artifacts this replica has removed, by why: nobody refers to them any more.", "reason", map[string]func() float64{"unreferenced": count(d.let.Load)})
	memo := d.engine.Memo()
	d.telemetry.Counters("policy_memo_total", "Packs asked about a call, by whether what they said of the same before was remembered (hit) or they were evaluated (miss). Packs that are never remembered are not counted.",
		"result", map[string]func() float64{"hit": count(memo.Hits), "miss": count(memo.Misses)})
	d.telemetry.Gauge("effects_under_way", "Effects this replica carries out now.", func() float64 { return float64(d.door.EffectsUnderWay()) })
	d.telemetry.Gauge("effects_unknown", "Effects of which nobody knows whether they have happened, up to 1000: those that are not idempotent wait for effect.resolve.", gauge(func(ctx context.Context) (float64, error) {
		unknown := writ.Range{Index: writ.IndexUnknown, Limit: 1000}
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{unknown}})
		return float64(len(s.Ranges[unknown].Members)), err
	}))
	d.telemetry.Gauge("outbox_facts", "Facts in the outbox of the store: those the ledger has not taken over, and the last it has.", gauge(func(ctx context.Context) (float64, error) {
		head, err := d.store.Head(ctx, shard)
		return float64(head.Backlog), err
	}))
	d.telemetry.Gauge("ledger_lag_facts", "Facts committed and not yet in the ledger of this replica.", gauge(func(ctx context.Context) (float64, error) {
		head, err := d.store.Head(ctx, shard)
		if d.ledger == nil {
			return 0, err
		}
		return float64(max(0, head.Seq-d.ledger.Last())), err
	}))
	d.logGauges()
	d.telemetry.Gauge("lane_entries", "Entries that wait in lanes.", gauge(func(ctx context.Context) (float64, error) {
		lanes, err := d.store.Lanes(ctx, shard)
		var n int64
		for _, l := range lanes {
			n += l.Count
		}
		return float64(n), err
	}))
	d.telemetry.Gauge("store_memory_bytes", "Memory the store uses, 0 when it does not say.", gauge(func(ctx context.Context) (float64, error) {
		info, err := d.store.Info(ctx)
		return float64(info.MemoryUsed), err
	}))
}

// maxBundle bounds a policy bundle as it is kept.
const maxBundle = 16 << 20
