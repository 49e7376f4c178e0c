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
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/agents"
	"github.com/writ-gateway/writ/budgets"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/internal/telemetry"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/blobs"
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
	engine     *policies.Engine
	vet        func(sent []byte) (signer string, err error)
	failed     map[writ.BundleID]time.Time // did not compile here; used by whoever looks
	proposed   []byte                      // the bundle this replica was started with, canonical
	blobs      *blobs.Dir
	replica    string // among those of the store
	integrator *ledger.Integrator
	registry   *writ.Registry
	door       *guard.Door
	dispatcher *guard.Dispatcher
	sweeper    *guard.Sweeper
	telemetry  *telemetry.Telemetry
	listener   net.Listener
	server     *http.Server

	stopping chan struct{}
	loops    sync.WaitGroup
	served   chan error
	undo     []func(context.Context) error // what Stop does, last first
}

// New makes a Daemon from a valid configuration.
func New(cfg Config, log *slog.Logger) *Daemon {
	return &Daemon{cfg: cfg, log: log, replica: consumerName(), failed: map[writ.BundleID]time.Time{}, stopping: make(chan struct{}), served: make(chan error, 1)}
}

// Start brings the gateway up in reading order and returns when it answers. If
// a part refuses, the parts before it are stopped again.
func (d *Daemon) Start(ctx context.Context) error {
	steps := []func(context.Context) error{
		d.openData, d.openKeys, d.openStore, d.sameKey, d.openLedger, d.openPolicies, d.openDoor, d.openGate, d.openLoops, d.openServer,
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

// URL is where the gateway answers.
func (d *Daemon) URL() string { return "http://" + d.listener.Addr().String() }

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

func (d *Daemon) openKeys(context.Context) error {
	keys, err := receipts.LoadOrCreate(d.cfg.Keys, keyOptions(d.cfg))
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

func (d *Daemon) openLedger(ctx context.Context) error {
	if d.cfg.Ledger == "none" {
		return nil
	}
	l, err := ledger.Open(filepath.Join(d.cfg.Data, "ledger"))
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	d.ledger = l
	d.onStop(func(context.Context) error { return l.Close() })
	if r, ok := d.store.(interface {
		Recover(context.Context, writ.Tenant, int64) error
	}); ok {
		if err := r.Recover(ctx, shard, l.Last()); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	// It compares store and ledger before anything new is committed.
	d.integrator = ledger.NewIntegrator(shard, d.ledger, d.store, d.sealer)
	if err := d.integrator.Start(ctx); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	d.onStop(func(ctx context.Context) error { return d.integrator.Stop(ctx) })
	return nil
}

// sameKey refuses keys other than those the store's receipts are signed with:
// what waits in the outbox could not be sealed with them.
func (d *Daemon) sameKey(ctx context.Context) error {
	gate, ok, err := d.readGate(ctx)
	if err != nil || !ok || gate.ReceiptKeyID == d.sealer.KeyID() {
		return err
	}
	return fmt.Errorf("this store's receipts are signed with key %s, and %s holds %s: give it the keys directory it was made with",
		gate.ReceiptKeyID, d.cfg.Keys, d.sealer.KeyID())
}

func (d *Daemon) readGate(ctx context.Context) (gate writ.Gate, ok bool, err error) {
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.GateKey}})
	if err != nil {
		return gate, false, fmt.Errorf("store: %w", err)
	}
	gate, _, ok, err = writ.Get[writ.Gate](s, writ.GateKey)
	return gate, ok, err
}

func (d *Daemon) openDoor(context.Context) error {
	secret, err := loadSecret(filepath.Join(d.cfg.Keys, sessionKeyFile))
	if err != nil {
		return err
	}
	reg, validator, err := build(rooms{
		secret: agents.SecretsFrom(secret), policyInfo: func() any { return d.engine.Info() }, minLease: int64(d.cfg.MinLease),
		export: d.export, vet: d.vet,
	})
	if err != nil {
		return err
	}
	d.registry = reg
	d.telemetry = telemetry.New()
	d.gauges()
	d.door, err = guard.New(guard.Config{
		Store: d.store, Registry: reg, Decider: rules{d.engine}, Sealer: d.sealer, Archive: d.archive(),
		Validator: validator, Obligors: []guard.Obligor{budgets.New()}, Approver: newApprovals(validator.Schema), Origin: d.keys.Origin, Shards: []writ.Tenant{shard},
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

	if err := d.ensureOperator(ctx); err != nil {
		return fmt.Errorf("operator session: %w", err)
	}
	d.loops.Go(d.housekeeping)
	d.loops.Go(d.watchBundles)
	d.loops.Go(d.beats)
	d.onStop(func(context.Context) error { close(d.stopping); d.loops.Wait(); return nil })

	d.dispatcher = guard.NewDispatcher(d.door, d.replica)
	d.dispatcher.Start(shard)
	d.onStop(func(context.Context) error { d.dispatcher.Stop(); return nil })
	return nil
}

// housekeeping keeps the operator's session alive, gives entries of dead
// replicas back and measures what the metrics show.
func (d *Daemon) housekeeping() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reclaim := time.NewTicker(15 * time.Second)
	renew := time.NewTicker(10 * time.Minute)
	defer reclaim.Stop()
	defer renew.Stop()
	var sealed <-chan struct{}
	if d.integrator != nil {
		sealed = d.integrator.Done()
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
		case <-reclaim.C:
			if n, err := d.store.Reclaim(ctx, shard, 30*time.Second, 128); err != nil {
				d.log.Warn("entries of dead replicas were not given back", "error", err)
			} else if n > 0 {
				d.log.Info("gave back entries a replica left behind", "entries", n)
			}
		case <-renew.C:
			if err := d.ensureOperator(ctx); err != nil {
				d.log.Error("the operator's session was not renewed", "error", err)
			}
		}
	}
}

func (d *Daemon) openServer(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", d.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", d.cfg.Listen, err)
	}
	d.listener = listener
	d.onStop(func(context.Context) error { _ = listener.Close(); return nil }) // the server has closed it, if it came up
	hosts := d.cfg.hosts()
	if a, ok := listener.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
		hosts = append(hosts, gateway.LoopbackHosts...)
	}
	handler, _, err := gateway.New(gateway.Config{
		Door: d.dispatcher, Registry: d.registry, Hosts: hosts, Telemetry: d.telemetry, Ready: d.ready, Log: d.log,
		PolicyRevision: func() string { policy, _ := d.engine.Revisions(); return policy },
	})
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if err := writeFile(filepath.Join(d.cfg.Data, urlFile), d.URL()+"\n"); err != nil {
		return err
	}
	d.server = gateway.Server(handler)
	go func() {
		if err := d.server.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
			d.served <- err
		}
	}()
	d.onStop(func(ctx context.Context) error {
		// Waiting claims first: they would hold the shutdown for their wait.
		d.dispatcher.Stop()
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		return d.server.Shutdown(c)
	})
	return nil
}
