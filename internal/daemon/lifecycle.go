package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/policies/author"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/blobs"
)

// rules is the engine as the door wants it.
type rules struct{ *policies.Engine }

func (r rules) Under(policy, bindings string, version int64) (guard.Decider, bool) {
	s, ok := r.Engine.Under(policy, bindings, version)
	return s, ok
}

// newBundles joins the room of bundles with what reads them.
func newBundles(vet func(sent []byte) (string, error)) bundles.Room {
	return bundles.New(bundles.Config{Unpack: policies.Unpack, Vet: vet, Open: func(sent, inForce []byte, add bool) (bundles.Contents, error) {
		c, err := policies.OpenBundle(sent, inForce, add)
		return bundles.Contents{
			ID: writ.BundleOf(c.Digest), Packed: c.Packed, Bytes: int64(len(c.Bundle)), Packs: c.Packs, Policy: c.Policy, Bindings: c.Bindings, Bound: c.Bound,
		}, err
	}})
}

// vetting reads a trust file and gives what asks it about a bundle.
func vetting(file string) (func(sent []byte) (string, error), error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	trust, err := author.ReadTrust(b, os.DirFS(filepath.Dir(file)))
	if err != nil {
		return nil, err
	}
	return func(sent []byte) (string, error) {
		c, err := trust.Verify(context.Background(), sent)
		if err != nil {
			e := writ.Refuse(writ.CodePolicy, "daemon.Vet", "the bundle is not signed by a key that may ship its packs, or is not as it was signed",
				"make it with 'writ policy bundle' and 'writ policy sign'; 'writ policy verify --trust' says what is wrong with it")
			e.Err = err
			return "", e
		}
		return c.KeyID, nil
	}, nil
}

// openPolicies loads the bundle the gate names, from the store. What this
// replica was started with is loaded only when the store has no bundle, or the
// one it has does not load and the operator says to put another one in its place.
func (d *Daemon) openPolicies(ctx context.Context) error {
	dir, err := blobs.OpenDir(filepath.Join(d.cfg.Data, keptDir), maxBundle)
	if err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	d.blobs = dir
	if d.cfg.Trust != "" {
		if d.vet, err = vetting(d.cfg.Trust); err != nil {
			return fmt.Errorf("policy_trust: %w", err)
		}
	}
	given := policies.Shipped()
	if d.cfg.Policies != "" {
		given = policies.Directory(d.cfg.Policies)
	}
	o := policies.Options{Capabilities: IDs(Catalog()), Tenants: []writ.Tenant{shard}}
	gate, open, err := d.readGate(ctx)
	if err != nil {
		return err
	}
	if !open || gate.Bundle == "" {
		if d.engine, err = policies.Load(ctx, given, o); err != nil {
			return fmt.Errorf("policies: %w", err)
		}
		d.proposed, _ = d.engine.Bundle()
		return d.keepBundle(ctx, d.proposed)
	}
	inForce, err := stored(ctx, d.store, gate.Bundle)
	if err == nil {
		d.engine, err = policies.Load(ctx, policies.FromBundle(inForce), o)
	}
	if err != nil {
		err = fmt.Errorf("the bundle in force, %s, does not load: %w", gate.Bundle.Digest(), err)
		if !d.cfg.Activate {
			return fmt.Errorf("%w\nto put others in its place: --policies DIR --activate-policies", err)
		}
		d.log.Error("the policies this gateway is started with take the place of the ones in force", "error", err)
		if d.engine, err = policies.Load(ctx, given, o); err != nil {
			return fmt.Errorf("policies: %w", err)
		}
		d.proposed, _ = d.engine.Bundle()
		return d.keepBundle(ctx, d.proposed)
	}
	if err := d.keepBundle(ctx, inForce); err != nil {
		return err
	}
	if d.proposed, err = proposal(given); err != nil {
		if d.cfg.Activate {
			return fmt.Errorf("policies: %w", err)
		}
		d.log.Warn("the policies this gateway is started with cannot be read; it serves the ones in force", "error", err)
	}
	return nil
}

// keepBundle keeps the bytes of a bundle on this machine too: receipts name
// policies by digest, for longer than the store holds them.
func (d *Daemon) keepBundle(ctx context.Context, b []byte) error {
	if _, err := d.blobs.Put(ctx, bytesReader(b)); err != nil {
		return fmt.Errorf("policies: keeping the bundle: %w", err)
	}
	return nil
}

// KeptBundle is a bundle that a replica kept in its data directory, which is only read; the replica need not run.
func KeptBundle(ctx context.Context, data, digest string) (b []byte, err error) {
	r, err := blobs.ReadDir(filepath.Join(data, keptDir)).Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// stored is a bundle as the store holds it, canonical.
func stored(ctx context.Context, st store.Store, id writ.BundleID) ([]byte, error) {
	s, err := st.Read(ctx, shard, writ.ReadSet{Docs: writ.ChunkKeys(id)})
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	packed, err := bundles.Packed(s, id)
	if err != nil {
		return nil, err
	}
	if len(packed) == 0 {
		return nil, errors.New("the store does not hold its bytes")
	}
	return policies.Unpack(packed, id.Digest())
}

// openGate makes sure that a bundle is in force, that this replica holds it, and
// that it is counted among the living. What it was started with is adopted by a
// store without a bundle and staged, once, where another bundle is in force:
// replicas that are started with different policies never depose each other.
func (d *Daemon) openGate(ctx context.Context) error {
	gate, version, open, err := d.standing(ctx)
	if err != nil {
		return err
	}
	if open { // with the bindings by capability, if it holds the rest
		d.engine.Follow(gate.PolicyRevision, gate.BindingsRevision, version)
	}
	policy, bindings := d.engine.Revisions()
	switch mine := writ.BundleOf(digestOf(d.proposed)); {
	case gate.Bundle == "":
		if open && (gate.PolicyRevision != policy || gate.BindingsRevision != bindings) {
			d.log.Warn("this store was made before policies were kept in it; the ones this gateway is started with are put in force",
				"before", gate.PolicyRevision, "now", policy)
		}
		err = d.adopt(ctx, d.proposed, false)
	case d.cfg.Activate && mine != gate.Bundle && d.proposed != nil:
		if _, err = d.engine.Prepare(ctx, d.proposed); err == nil {
			err = d.adopt(ctx, d.proposed, true)
		}
	case gate.PolicyRevision != policy || gate.BindingsRevision != bindings:
		// The same bundle, and another version of this program.
		b, _ := d.engine.Bundle()
		err = d.adopt(ctx, b, d.cfg.Activate || d.cfg.Store == "bolt") // which has no other replica
	}
	if err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	if gate, err = d.underGate(ctx); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	if _, _, err := d.door.System(ctx, shard, "gate.set", guard.GateSetArgs{
		PolicyRevision: gate.PolicyRevision, BindingsRevision: gate.BindingsRevision, ReceiptKeyID: d.sealer.KeyID(),
	}, nil); err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	if err := d.beat(ctx, d.beatLife(), true); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	if err := d.look(ctx); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	if d.proposed != nil && !d.propose(ctx, d.proposed) {
		d.log.Warn("the policies this gateway is started with were not staged: the store did not answer")
	}
	return nil
}

// underGate makes the engine answer from what the gate names.
func (d *Daemon) underGate(ctx context.Context) (writ.Gate, error) {
	gate, version, _, err := d.standing(ctx)
	if err != nil {
		return gate, err
	}
	if d.engine.Follow(gate.PolicyRevision, gate.BindingsRevision, version) != nil {
		return gate, nil
	}
	b, err := stored(ctx, d.store, gate.Bundle)
	if err != nil {
		return gate, fmt.Errorf("bundle %s: %w", gate.Bundle.Digest(), err)
	}
	if _, err := d.engine.Prepare(ctx, b); err != nil {
		return gate, fmt.Errorf("bundle %s: %w", gate.Bundle.Digest(), err)
	}
	if d.engine.Follow(gate.PolicyRevision, gate.BindingsRevision, version) == nil {
		return gate, fmt.Errorf("bundle %s is in force as %s, which this version of writ does not make of it", gate.Bundle.Digest(), gate.PolicyRevision)
	}
	return gate, d.keepBundle(ctx, b)
}

// adopt puts a bundle in force that this replica holds compiled.
func (d *Daemon) adopt(ctx context.Context, canonical []byte, force bool) error {
	sent, err := packed(canonical)
	if err != nil {
		return err
	}
	_, _, err = d.door.System(ctx, shard, "policy.adopt", bundles.PolicyAdoptArgs{
		Bundle: sent, Replica: d.replica, ReceiptKey: d.sealer.KeyID(), Force: force,
	}, nil)
	if e, ok := errors.AsType[*writ.Error](err); ok && e.Details["not_ready"] != "" {
		return fmt.Errorf("other replicas serve the same policies with another version of writ, under another revision; stop them first, or start this one with --activate-policies and the others again: %w", err)
	}
	return err
}

func packed(canonical []byte) (bundles.Upload, error) {
	c, err := policies.OpenCanonical(canonical)
	return bundles.Upload(base64.StdEncoding.EncodeToString(c.Packed)), err
}

func digestOf(canonical []byte) string {
	c, err := policies.OpenCanonical(canonical)
	if err != nil {
		return ""
	}
	return c.Digest
}

// How long a replica counts as alive after a beat, and how often it beats. On
// the embedded store there is no other that could wait for it.
func (d *Daemon) beatLife() time.Duration {
	if d.cfg.Store == "bolt" {
		return 5 * time.Minute
	}
	return 8 * time.Second
}

func (d *Daemon) beat(ctx context.Context, life time.Duration, first bool) error {
	_, _, err := d.door.System(ctx, shard, "policy.beat", bundles.PolicyBeatArgs{
		Replica: d.replica, Seconds: int64(life / time.Second), Tidy: first, Alone: first && d.cfg.Store == "bolt",
	}, nil)
	return err
}

// beats keeps this replica among those an activation waits for, and takes it off
// when it stops.
func (d *Daemon) beats() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(d.beatLife() / 4)
	defer tick.Stop()
	missed := false
	for {
		select {
		case <-d.stopping:
			bye, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_ = d.beat(bye, 0, false) // else it lapses by itself
			return
		case <-tick.C:
			err := d.beat(ctx, d.beatLife(), false)
			if err != nil && !missed { // an outage is said once
				d.log.Warn("this replica could not say that it is alive", "error", err)
			}
			missed = err != nil
		}
	}
}

// watchBundles compiles what is staged, and what a gate names that this replica
// does not hold.
func (d *Daemon) watchBundles() {
	d.watch("policy bundles were not looked at", d.engine.Missed(), d.look)
}

// watch looks every second, and when it is woken, until the gateway stops.
func (d *Daemon) watch(failed string, woken <-chan struct{}, look func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-d.stopping:
			return
		case <-tick.C:
		case <-woken:
		}
		err := look(ctx)
		if err != nil && !failing { // an outage is said once
			d.log.Warn(failed, "error", err)
		}
		if failing = err != nil; failing {
			select { // do not spin on what keeps waking it
			case <-d.stopping:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
}

// look reads which bundles there are, compiles those this replica does not hold
// and says which it does. It is used by one goroutine at a time.
func (d *Daemon) look(ctx context.Context) error {
	gate, version, _, err := d.standing(ctx)
	if err != nil || gate.Bundle == "" {
		return err
	}
	d.engine.Follow(gate.PolicyRevision, gate.BindingsRevision, version) // when only bindings have changed, this is all
	staged := writ.Range{Index: writ.IndexStaged, Limit: 100}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.BundleKey(gate.Bundle)}, Ranges: []writ.Range{staged}})
	if err != nil {
		return err
	}
	want := []writ.BundleID{gate.Bundle}
	b, _, _, err := writ.Get[writ.Bundle](s, writ.BundleKey(gate.Bundle))
	if err != nil {
		return err
	}
	if b.Replaced != "" {
		want = append(want, b.Replaced)
	}
	for _, m := range s.Ranges[staged].Members {
		if id := writ.BundleID(m.Name); !slices.Contains(want, id) {
			want = append(want, id)
		}
	}
	var errs []error
	digests := make([]string, len(want))
	for i, id := range want {
		digests[i] = id.Digest()
		if err := d.holdReady(ctx, id); err != nil {
			errs = append(errs, err)
		}
		if i == 0 { // serve it before the others are compiled
			d.engine.Follow(gate.PolicyRevision, gate.BindingsRevision, version)
		}
	}
	d.engine.Keep(digests)
	return errors.Join(errs...)
}

// failedAgain is when a bundle that did not compile here is tried again.
const failedAgain = 30 * time.Second

// holdReady makes sure that this replica holds a bundle and has said so.
func (d *Daemon) holdReady(ctx context.Context, id writ.BundleID) error {
	mine := writ.Range{Index: writ.ReadyOn(id), From: d.replica, To: d.replica + "\x00", Limit: 1}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.BundleKey(id)}, Ranges: []writ.Range{mine}})
	if err != nil {
		return err
	}
	b, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(id))
	held := d.engine.Holds(id.Digest()) != nil
	said := len(s.Ranges[mine].Members) > 0
	if err != nil || !ok || b.Chunks == 0 || held && said {
		return err
	}
	report := bundles.PolicyReportArgs{Digest: id.Digest(), Replica: d.replica, OK: true}
	if !held {
		if time.Since(d.failed[id]) < failedAgain {
			return nil
		}
		canonical, err := stored(ctx, d.store, id)
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := d.engine.Prepare(ctx, canonical); err != nil {
			report.OK, report.Reason = false, reason(err)
		} else if err := d.keepBundle(ctx, canonical); err != nil {
			return err
		}
		d.compiled.note(report.OK)
		d.log.Info("policy bundle compiled", "digest", id.Digest(), "ready", report.OK, "ms", time.Since(start).Milliseconds(), "reason", report.Reason)
	}
	known := !d.failed[id].IsZero()
	if !report.OK {
		d.failed[id] = time.Now()
	}
	if !report.OK && b.State == writ.BundleRetired { // of an earlier version, perhaps; what is in force does not need it
		if !known {
			d.log.Warn("the policy bundle before the one in force does not compile here: there is no rollback to it", "digest", id.Digest(), "reason", report.Reason)
		}
		return nil
	}
	if !report.OK && b.State != writ.BundleStaged {
		return fmt.Errorf("bundle %s (%s) does not compile here: %s", id.Digest(), b.State, report.Reason)
	}
	reply, _, err := d.door.System(ctx, shard, "policy.report", report, nil)
	if err != nil {
		return err
	}
	delete(d.failed, id)
	var noted bundles.Noted
	if err := json.Unmarshal(reply.JSON, &noted); err == nil && noted.State == writ.BundleRefused {
		d.log.Warn("a staged policy bundle is refused; what is in force stays", "digest", id.Digest(), "reason", report.Reason)
	}
	return nil
}

// reason is what a compiler said, short enough to be kept. It names files of the
// bundle only: compiling reads nothing else.
func reason(err error) string {
	const most = 2000
	text := strings.TrimSpace(err.Error())
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-4], "") + " …"
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// compiles counts what became of compiling bundles here.
type compiles struct{ ready, refused atomic.Int64 }

func (c *compiles) note(ok bool) {
	if ok {
		c.ready.Add(1)
	} else {
		c.refused.Add(1)
	}
}
