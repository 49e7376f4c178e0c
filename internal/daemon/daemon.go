package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/approvals"
	"github.com/writ-gateway/writ/budgets"
	"github.com/writ-gateway/writ/egress"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/internal/telemetry"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/quotas"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/shred"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/secrets/vault"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/blobs"
	"github.com/writ-gateway/writ/webhooks"
)

// Daemon is a running gateway. Start brings it up, Stop takes it down; both
// may be called once.
type Daemon struct {
	cfg Config
	log *slog.Logger

	keys       *receipts.Keys
	sealer     *receipts.Sealer
	store      store.Store
	ledger     *ledger.Ledger
	shred      *shred.Keys // of the ledger's evidence
	engine     *policies.Engine
	vet        func(sent []byte) (signer string, err error)
	failed     map[writ.BundleID]time.Time // did not compile here; used by whoever looks
	compiled   compiles
	proposed   []byte // the bundle this replica was started with, canonical
	proposer   proposer
	blobs      *blobs.Dir // policy bundles
	artifacts  *blobs.Dir
	let        atomic.Int64 // artifacts whose bytes this replica has removed
	replica    string       // among those of the store
	integrator *ledger.Integrator
	tlog       *tlog.Log
	follower   *tlog.Follower
	witnesses  []*tlog.Witness
	clock      *clockWatch
	told       atomic.Pointer[string] // the checkpoint another replica made last
	registry   *writ.Registry
	door       *guard.Door
	dispatcher *guard.Dispatcher
	sweeper    *guard.Sweeper
	unfolder   *guard.Unfolder
	endpoints  []webhooks.Endpoint
	tell       writ.Subscribers
	telemetry  *telemetry.Telemetry
	vault      *vault.Vault
	halves     halves // public halves of receipt keys
	root       root
	listener   net.Listener
	server     *http.Server
	faces      faces
	fetcher    *fetcher

	endTransfers context.CancelFunc

	stopping chan struct{}
	loops    sync.WaitGroup
	served   chan error
	undo     []func(context.Context) error // what Stop does, last first
}

// New makes a Daemon from a valid configuration.
func New(cfg Config, log *slog.Logger) *Daemon {
	return &Daemon{cfg: cfg, log: log, clock: newClockWatch(), replica: consumerName(), failed: map[writ.BundleID]time.Time{}, proposer: proposer{took: map[string]bool{}}, stopping: make(chan struct{}), served: make(chan error, 1)}
}

// Start brings the gateway up in reading order and returns when it answers. If
// a part refuses, the parts before it are stopped again.
func (d *Daemon) Start(ctx context.Context) error { return d.start(ctx, d.openStore, d.openLedger) }

func (d *Daemon) start(ctx context.Context, openStore, openLedger func(context.Context) error) error {
	steps := []func(context.Context) error{
		d.openWebhooks, d.openListener, d.openData, openStore, d.openKeys, d.sameKey, d.openRoot, openLedger, d.openPolicies, d.openArtifacts, d.openVault, d.openDoor, d.openGate, d.attachArtifacts, d.openLoops, d.openServer,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			if serr := d.Stop(context.WithoutCancel(ctx)); serr != nil {
				d.log.Warn("stopping after a failed start", "error", serr)
			}
			return err
		}
	}
	return nil
}

// Stop takes the gateway down in reverse: no new calls, waiting claims answer,
// calls under way finish, facts reach the ledger, the store closes.
func (d *Daemon) Stop(ctx context.Context) error {
	var errs []error
	for i := len(d.undo) - 1; i >= 0; i-- {
		if err := d.undo[i](ctx); err != nil {
			errs = append(errs, err)
		}
	}
	d.undo = nil
	return errors.Join(errs...)
}

// Served delivers the error that ended serving, if something but Stop did.
func (d *Daemon) Served() <-chan error { return d.served }

func (d *Daemon) onStop(f func(context.Context) error) { d.undo = append(d.undo, f) }

func (d *Daemon) openData(context.Context) error {
	if err := makeData(d.cfg.Data, d.log); err != nil {
		return err
	}
	debug.SetGCPercent(d.cfg.GCPct)
	if limit := memoryLimit(d.cfg.MemoryMB); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	return nil
}

func (d *Daemon) openKeys(ctx context.Context) error {
	gate, ok, err := d.readGate(ctx)
	if err != nil {
		return err
	}
	o := keyOptions(d.cfg)
	if ok {
		if err := hasKeys(d.cfg, gate.ReceiptKeyID); err != nil {
			return err
		}
		o.InForce = gate.ReceiptKeyID
	}
	keys, err := receipts.LoadOrCreate(d.cfg.Keys, o)
	if err != nil {
		return fmt.Errorf("receipt keys: %w", err)
	}
	d.keys = keys
	d.sealer, err = keys.Sealer()
	return err
}

// keyOptions are the options of the receipt key; its password, when it has
// one, is in WRIT_KEY_PASSWORD.
func keyOptions(cfg Config) receipts.KeyOptions {
	o := receipts.KeyOptions{Origin: cfg.Origin}
	if p, ok := os.LookupEnv("WRIT_KEY_PASSWORD"); ok {
		o.Password = func() ([]byte, error) { return []byte(p), nil }
	}
	return o
}

func (d *Daemon) openStore(ctx context.Context) error {
	st, err := openStore(ctx, d.cfg)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	d.store = st
	d.onStop(func(context.Context) error { return st.Close() })
	return nil
}

// sameKey refuses keys other than those the store's receipts are signed with:
// what waits in the outbox could not be sealed with them.
func (d *Daemon) sameKey(ctx context.Context) error {
	gate, ok, err := d.readGate(ctx)
	if err != nil || !ok || d.sealer.Holds(gate.ReceiptKeyID) {
		return err
	}
	return otherKey(d.cfg, gate.ReceiptKeyID, "holds "+d.sealer.KeyID())
}

func (d *Daemon) readGate(ctx context.Context) (gate writ.Gate, ok bool, err error) {
	return readGate(ctx, d.store)
}

func readGate(ctx context.Context, st store.Store) (gate writ.Gate, ok bool, err error) {
	s, err := st.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.GateKey}})
	if err != nil {
		return gate, false, fmt.Errorf("store: %w", err)
	}
	gate, _, ok, err = writ.Get[writ.Gate](s, writ.GateKey)
	return gate, ok, err
}

func (d *Daemon) openDoor(context.Context) error {
	secret, made, err := loadSecret(filepath.Join(d.cfg.Keys, sessionKeyFile))
	if err != nil {
		return err
	}
	if made && !d.keys.Created {
		d.log.Warn("the session key was missing beside the receipt keys and was made anew: open sessions go on, but a backup of these keys is not whole",
			"file", filepath.Join(d.cfg.Keys, sessionKeyFile))
	}
	reg, validator, err := build(rooms{
		secret: agents.SecretsFrom(secret), policyInfo: func() any { return d.engine.Info() }, gate: func(id string) bool { return d.engine.Knows(id) }, record: d.record, explain: d.explain, minLease: int64(d.cfg.MinLease), keepArtifacts: int64(d.cfg.ArtifactDays) * 24 * 3600 * 1000,
		export: d.export, vet: d.vet, evidence: d.evidence, tell: d.tell, roles: d.rolesConfig(), rights: d.rights, bound: d.engine.Bound,
		shadow:  func(t writ.Tenant) ([]writ.PackVer, []writ.ShadowPack) { return d.engine.Shadowed(), d.door.Shadow(t) },
		logHead: d.logHead, keys: d.keysConfig(),
	})
	if err != nil {
		return err
	}
	d.registry = reg
	d.telemetry = telemetry.New()
	d.gauges()
	if d.fetcher == nil {
		d.fetcher = d.newFetcher(egress.Config{})
	}
	d.door, err = guard.New(guard.Config{
		Effectors: map[writ.CapabilityID]guard.Effector{"egress.fetch": d.fetcher},
		Store:     d.store, Registry: reg, Decider: rules{d.engine}, Sealer: d.sealer, Archive: d.archive(),
		Validator: validator, Obligors: []guard.Obligor{budgets.New(), quotas.Obligor{}}, Approver: newApprovals(approvals.Config{Tell: d.tell}), Cosigner: receipts.Cosigner{}, Seal: d.vault.Seal, Blobs: d.artifacts, Tell: d.tell,
		Published: published{d.follower, d.tlog, d.store},
		Origin:    d.keys.Origin, Shards: []writ.Tenant{shard},
		Observer: d.telemetry.Door, Log: d.log, MaxInflight: d.cfg.Inflight,
	})
	return err
}

func (d *Daemon) openLoops(ctx context.Context) error {
	d.sweeper = guard.NewSweeper(d.door, guard.SweeperConfig{
		Shards: []writ.Tenant{shard}, Dues: dues(), Grace: time.Duration(d.cfg.Grace),
	})
	d.sweeper.Start()
	d.onStop(func(context.Context) error { d.sweeper.Stop(); return nil })
	d.unfolder = guard.NewUnfolder(d.door, guard.UnfolderConfig{Shards: []writ.Tenant{shard}, Steps: d.readSteps})
	d.unfolder.Start()
	d.onStop(func(context.Context) error { d.unfolder.Stop(); return nil })
	shadows := guard.NewShadowWorker(d.door)
	shadows.Start()
	d.onStop(func(context.Context) error { shadows.Stop(); return nil })

	if err := d.ensureOperator(ctx); err != nil {
		return fmt.Errorf("operator session: %w", err)
	}
	d.loops.Go(d.housekeeping)
	d.loops.Go(d.notePublished)
	if d.tlog == nil {
		d.loops.Go(d.watchCheckpoint)
	}
	d.loops.Go(d.signManifests)
	d.loops.Go(d.watchBundles)
	if d.cfg.Policies != "" {
		d.loops.Go(d.watchFolder)
	}
	d.loops.Go(d.beats)
	d.loops.Go(d.watchKeys)
	d.loops.Go(d.sweepArtifacts)
	d.onStop(func(context.Context) error { close(d.stopping); d.loops.Wait(); return nil })

	d.dispatcher = guard.NewDispatcher(d.door, d.replica)
	if err := d.openProber(); err != nil {
		return err
	}
	d.dispatcher.Start(shard)
	d.onStop(func(context.Context) error { d.dispatcher.Stop(); return nil })

	d.openCourier()
	return nil
}

// housekeeping keeps the operator's session alive, gives entries of dead
// replicas back and measures what the metrics show.
func (d *Daemon) housekeeping() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reclaim := time.NewTicker(15 * time.Second)
	renew := time.NewTicker(10 * time.Minute)
	look := time.NewTicker(time.Second)
	defer reclaim.Stop()
	defer renew.Stop()
	defer look.Stop()
	var reclaiming, sealing, publishing, witnessing guard.Trouble
	var sealed, published <-chan struct{}
	if d.integrator != nil {
		sealed, published = d.integrator.Done(), d.follower.Done()
	}
	for {
		select {
		case <-d.stopping:
			return
		case <-sealed:
			if err := d.integrator.Err(); err != nil {
				d.log.Error("the ledger has stopped: receipts stay in the outbox until this is mended", "error", err)
			}
			sealed = nil
		case <-published:
			if err := d.follower.Err(); err != nil {
				d.log.Error("the transparency log has stopped: receipts are in the ledger, and not in the log until this is mended", "error", err)
			}
			published = nil
		case <-look.C:
			d.clock.look(d.log)
			if published != nil {
				publishing.Note(d.log, d.follower.Err(), "the transparency log waits until the disk answers, and its witnesses", "the transparency log goes on")
				witnessing.Note(d.log, d.tlog.Unwitnessed(), "checkpoints of the transparency log are not cosigned by all witnesses", "checkpoints are cosigned by all witnesses again")
			}
			if d.integrator != nil && !d.integrator.Stopped() {
				sealing.Note(d.log, d.integrator.Err(), "the ledger waits: receipts stay in the outbox until store and disk answer", "the ledger goes on")
			}
		case <-reclaim.C:
			n, err := d.store.Reclaim(ctx, shard, 30*time.Second, 128)
			reclaiming.Note(d.log, err, "entries of dead replicas are not given back until the store answers", "entries of dead replicas are given back again")
			if n > 0 {
				d.log.Info("gave back entries a replica left behind", "entries", n)
			}
		case <-renew.C:
			if err := d.ensureOperator(ctx); err != nil {
				d.log.Error("the operator's session was not renewed", "error", err)
			}
		}
	}
}
