package guard

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Observer hears what the door does, for metrics. Labels are from closed sets.
type Observer interface {
	ObserveCall(capability, outcome string, seconds float64, tries int)
	Conflict(guard string)
	Denial(code string)
	Shed(reason string)
	Inflight(delta int)
	BudgetWarning(dimension string, percent int64)
	// QuotaRefused hears of a call that was refused over a quota, by its metric.
	QuotaRefused(metric string)
	// Shadow hears of a decision that was enforced, and what it had been with a
	// pack in shadow enforced as well.
	Shadow(pack, from, to string)
	// ShadowLost hears of one that a pack in shadow was not asked about ("queue")
	// or had no answer to ("error").
	ShadowLost(reason string)
}

// Config is what a Door is made of. Everything but Observer, Log, Rand and the
// limits is required.
type Config struct {
	Store     store.Store
	Registry  *writ.Registry
	Decider   Decider
	Sealer    Sealer
	Archive   Archive
	Validator Validator
	Obligors  []Obligor
	// Effectors carry out what capabilities of class effect do; each of those has one.
	Effectors map[writ.CapabilityID]Effector
	// Seal encrypts values nobody may see (writ.Concealing); without it calls with any are
	// refused.
	Seal      func(about, value string) (sealed string, err error)
	Blobs     Blobs         // optional: without them, no call that wants to see any is answered
	Approver  Approver      // optional: without one, what needs approval is denied
	Cosigner  Cosigner      // optional: without one, what must be cosigned is denied
	Published Published     // optional: without it, what must be in the transparency log is refused
	Origin    string        // of the ledger, signed into every receipt
	Shards    []writ.Tenant // there are no others; anybody can write a tenant into a token
	// Tell says who outside is told of allowed calls that policy wants known.
	Tell writ.Subscribers

	Observer Observer
	Log      *slog.Logger
	Rand     io.Reader // crypto/rand
	// MaxInflight bounds the calls under way (256); more are refused with
	// backpressure. How they are shared out says newSlots.
	MaxInflight int
	// MaxEffects bounds the effects under way in the same way (256). EffectLease is for how
	// long one is leased to its replica before that renews it (30 s), EffectWatch how often
	// is looked whether it may go on (250 ms).
	MaxEffects  int
	EffectLease time.Duration
	EffectWatch time.Duration
	// ShadowQueue bounds the decisions that wait for packs in shadow (512).
	ShadowQueue int
	// DenialBurst and DenialPerSecond shape the bucket of denial receipts one
	// principal gets (20 and 1); denials beyond it are counted and receipted as
	// one aggregate by FlushDenials.
	DenialBurst     int
	DenialPerSecond float64
}

// Door takes calls through the one governed path. It is safe for concurrent
// use.
type Door struct {
	cfg     Config
	locks   locks
	docs    writ.DocCache
	slots   *slots
	denials *denials
	shadow  *shadow
	shed    shedder
	effects *effects
	due     chan struct{} // rung when a commit left follow-up work for now
	unfold  chan struct{} // rung when a commit left steps of a workflow to be made tasks
}

// New makes a Door.
func New(cfg Config) (*Door, error) {
	switch {
	case cfg.Store == nil, cfg.Registry == nil, cfg.Decider == nil, cfg.Sealer == nil, cfg.Archive == nil, cfg.Validator == nil:
		return nil, errors.New("guard.New: store, registry, decider, sealer, archive and validator are required")
	case len(cfg.Shards) == 0:
		return nil, errors.New("guard.New: shards are required")
	case cfg.Origin == "":
		return nil, errors.New("guard.New: origin is required")
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.MaxInflight == 0 {
		cfg.MaxInflight = 256
	}
	if cfg.MaxEffects == 0 {
		cfg.MaxEffects = 256
	}
	if cfg.EffectLease == 0 {
		cfg.EffectLease = effectLease
	}
	if cfg.EffectWatch == 0 {
		cfg.EffectWatch = effectWatch
	}
	if err := checkEffectors(cfg); err != nil {
		return nil, err
	}
	if cfg.ShadowQueue == 0 {
		cfg.ShadowQueue = 512
	}
	if cfg.DenialBurst == 0 {
		cfg.DenialBurst = 20
	}
	if cfg.DenialPerSecond == 0 {
		cfg.DenialPerSecond = 1
	}
	return &Door{
		cfg:     cfg,
		slots:   newSlots(cfg.MaxInflight),
		effects: newEffects(cfg.MaxEffects),
		denials: newDenials(cfg.DenialBurst, cfg.DenialPerSecond),
		shadow:  newShadow(cfg.ShadowQueue),
		due:     make(chan struct{}, 1),
		unfold:  make(chan struct{}, 1),
	}, nil
}

// Limits of one call.
const (
	maxHops     = 5               // reads after the first, by the capability, by each obligor, and by approvals
	maxTries    = 8               // commits that may conflict before contention
	snapshotAge = 5 * time.Second // how old a judged snapshot may be when it commits
	keyKeptFor  = 24 * time.Hour  // how long an idempotency key is remembered
)

// Do takes one call from outside through the door. The receipt is nil for
// calls that commit nothing. Errors are *writ.Error; a denial's error names its
// receipt.
func (d *Door) Do(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	if call.Credential == nil || call.Behalf != "" {
		return writ.Reply{}, nil, unauthenticated()
	}
	return d.do(ctx, call)
}

// System makes a call of the gateway's own: a timer, a cleanup, the start-up.
// Only code that holds the Door itself can reach it; the edge is given Do.
// args is rendered as JSON and decoded like any caller's.
func (d *Door) System(ctx context.Context, shard writ.Tenant, id writ.CapabilityID, args any, entry *writ.Delivery) (writ.Reply, *writ.Receipt, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Reply{}, nil, writ.Fault(writ.CodeInternal, "guard.System", err)
	}
	call := &writ.Call{
		Capability: id, Raw: raw, Entry: entry,
		Caller: writ.Caller{Tenant: shard, Principal: "writ", Kind: writ.KindSystem, Role: writ.RoleSystem},
	}
	if err := d.Stamp(call); err != nil {
		return writ.Reply{}, nil, err
	}
	return d.do(ctx, call)
}

// Behalf makes a call that a session has ordered, as that session: what role, policies,
// quotas and people say of it is asked as if it had made the call now. Like System
// only code that holds the Door itself can reach it.
func (d *Door) Behalf(ctx context.Context, shard writ.Tenant, session writ.SessionID, id writ.CapabilityID, args any) (writ.Reply, *writ.Receipt, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Reply{}, nil, writ.Fault(writ.CodeInternal, "guard.Behalf", err)
	}
	if !session.Valid() {
		return writ.Reply{}, nil, unauthenticated()
	}
	call := &writ.Call{Capability: id, Raw: raw, Behalf: session, Caller: writ.Caller{Tenant: shard}}
	if err := d.Stamp(call); err != nil {
		return writ.Reply{}, nil, err
	}
	return d.do(ctx, call)
}

// Stamp gives a call its id, time and salt.
func (d *Door) Stamp(call *writ.Call) error {
	var e [10]byte
	if _, err := io.ReadFull(d.cfg.Rand, e[:]); err != nil {
		return writ.Fault(writ.CodeInternal, "guard.Stamp", err)
	}
	if _, err := io.ReadFull(d.cfg.Rand, call.Salt[:]); err != nil {
		return writ.Fault(writ.CodeInternal, "guard.Stamp", err)
	}
	call.ReceivedAt = time.Now().UnixMilli()
	call.ID = writ.CallID(writ.MakeID(writ.PrefixCall, call.ReceivedAt, e))
	return nil
}

func (d *Door) do(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	start := time.Now()
	t := &try{d: d, call: call, k: d.cfg.Registry.Get(call.Capability)}
	leave := func() {}
	if call.Credential != nil { // what is due must go on however many call
		mine, why := d.slots.enter(*call.Credential)
		if why != nil {
			d.cfg.Observer.ObserveCall(d.label(call), string(writ.CodeBackpressure), 0, 0)
			return writ.Reply{}, nil, d.crowded(why)
		}
		leave = sync.OnceFunc(func() { d.slots.leave(mine) })
		defer leave()
		t.slot = mine
	}
	d.cfg.Observer.Inflight(1)
	defer d.cfg.Observer.Inflight(-1)

	reply, receipt, err := t.run(ctx)
	t.shade(receipt, err)
	if t.begun != nil {
		leave() // who waits for the outside keeps nobody from the door
		reply, receipt, err = d.act(ctx, t, reply, receipt, err)
	}
	t.leaveEffect()
	outcome := "ok"
	if err != nil {
		outcome = string(writ.CodeOf(err))
	}
	d.cfg.Observer.ObserveCall(d.label(call), outcome, time.Since(start).Seconds(), t.tries)
	return reply, receipt, err
}

// label is the capability as a metric label: never what the caller made up.
func (d *Door) label(call *writ.Call) string {
	if d.cfg.Registry.Get(call.Capability) == nil {
		return "other"
	}
	return string(call.Capability)
}

func unauthenticated() *writ.Error {
	return &writ.Error{
		Code: writ.CodeUnauthenticated, Op: "guard.Do", Msg: "no live session belongs to this credential",
		Hint: "send Authorization: Bearer with the token session.open returned, while its session lives, or ask the operator for a new session: an agent that is stopped loses those it has",
	}
}

type nobody struct{}

func (nobody) ObserveCall(string, string, float64, int) {}
func (nobody) Conflict(string)                          {}
func (nobody) Denial(string)                            {}
func (nobody) Shed(string)                              {}
func (nobody) Inflight(int)                             {}
func (nobody) BudgetWarning(string, int64)              {}
func (nobody) QuotaRefused(string)                      {}
func (nobody) Shadow(string, string, string)            {}
func (nobody) ShadowLost(string)                        {}
