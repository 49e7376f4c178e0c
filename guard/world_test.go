package guard_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shard writ.Tenant = "default"

// world is a door on a real store with a policy tests can steer.
type world struct {
	t     testing.TB
	door  *guard.Door
	store store.Store
	seal  *sealer
	law   *law
	heard *heard
	reads *reads
	now   *atomic.Int64
}

// reads notes which shards the store was asked for.
type reads struct {
	store.Store
	mu     sync.Mutex
	shards map[writ.Tenant]bool
	asked  []writ.ReadSet
	before func(writ.ReadSet)
}

func (r *reads) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	r.mu.Lock()
	r.shards[shard] = true
	r.asked = append(r.asked, rs)
	before := r.before
	r.mu.Unlock()
	if before != nil {
		before(rs)
	}
	return r.Store.Read(ctx, shard, rs)
}

func (r *reads) seen(shard writ.Tenant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shards[shard]
}

// law is a Decider.
type law struct {
	mu       sync.Mutex
	policy   string
	deny     map[writ.CapabilityID]writ.Finding
	forbid   map[writ.CapabilityID]bool
	unbound  map[writ.Bind]bool
	down     bool
	deciding func() // runs inside Decide: what happens between read and commit
	decided  int
	judge    func(writ.PolicyInput) *writ.Finding
	failing  bool // set by judge: this decision errs
}

func (l *law) Permit(r writ.Role, _ writ.Tenant, c writ.CapabilityID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.forbid[c]
}

func (l *law) Bound(p writ.PrincipalID, r writ.Role, _ writ.Tenant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.unbound[writ.Bind{Principal: p, Role: r}]
}

func (l *law) Revisions() (string, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.policy, "bindings-1"
}

func (l *law) Decide(_ context.Context, in writ.PolicyInput) (writ.Decision, error) {
	l.mu.Lock()
	hook := l.deciding
	l.decided++
	d := writ.Decision{Effect: writ.EffectAllow, PolicyRevision: l.policy, BindingsRevision: "bindings-1", InputDigest: "00"}
	if f, ok := l.deny[in.Capability.ID]; ok {
		d.Effect, d.Findings = f.Effect, []writ.Finding{f}
	}
	if l.judge != nil {
		if f := l.judge(in); f != nil {
			d.Effect, d.Findings = f.Effect, []writ.Finding{*f}
		}
	}
	down := l.down || l.failing
	l.mu.Unlock()
	for _, f := range d.Findings {
		d.Needs = append(d.Needs, f.Needs...)
		d.Duties.Join(f.Duties)
	}
	if hook != nil {
		hook()
	}
	if down {
		return writ.Decision{}, errors.New("the engine is gone")
	}
	return d, nil
}

// sealer can be made to fail.
type sealer struct {
	*receipts.Sealer
	broken   atomic.Bool // fails, and nobody knew
	unusable atomic.Bool // fails, and says so
}

func (s *sealer) Ready() error {
	if s.unusable.Load() {
		return errors.New("the signer is gone")
	}
	return s.Sealer.Ready()
}

func (s *sealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	if s.broken.Load() {
		return writ.Receipt{}, errors.New("the signer is gone")
	}
	return s.Sealer.Seal(f)
}

type noArchive struct{}

func (noArchive) Read(context.Context, writ.Tenant, writ.ArchiveRead) ([]writ.Receipt, error) {
	return nil, nil
}

// plainJSON is a Validator without a schema.
type plainJSON struct{}

func (plainJSON) Decode(c *writ.Capability, raw []byte) (any, error) {
	v := reflect.New(c.Args).Interface()
	if len(raw) == 0 {
		raw = []byte("{}")
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, writ.Refuse(writ.CodeMalformed, "test", "not JSON", "")
	}
	return v, nil
}
func (plainJSON) Schema(writ.RawObject, writ.RawObject) error { return nil }

type heard struct {
	conflicts atomic.Int64
	calls     atomic.Int64
	mu        sync.Mutex
	shed      map[string]int
}

func (h *heard) Shed(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shed == nil {
		h.shed = map[string]int{}
	}
	h.shed[reason]++
}

func (h *heard) ObserveCall(string, string, float64, int) { h.calls.Add(1) }
func (h *heard) Conflict(string)                          { h.conflicts.Add(1) }
func (*heard) Denial(string)                              {}
func (*heard) Inflight(int)                               {}
func (*heard) BudgetWarning(string, int64)                {}
func (h *heard) QuotaRefused(metric string)               { h.Shed("quota " + metric) }

func (h *heard) Shadow(pack, from, to string) { h.Shed("shadow " + pack + " " + from + " " + to) }
func (h *heard) ShadowLost(reason string)     { h.Shed("lost " + reason) }

// newWorld is a door on an embedded store that does not sync, with a clock of
// its own.
func newWorld(t testing.TB, tune ...func(*guard.Config)) *world {
	t.Helper()
	now := &atomic.Int64{}
	now.Store(1_767_225_600_000)
	st, err := boltstore.Open(filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true, Now: now.Load})
	if err != nil {
		t.Fatal(err)
	}
	return worldOn(t, st, now, tune...)
}

// oneKey is the receipt key of all worlds, of other processes too: those on one store share it.
var oneKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) {
	d := sha256.Sum256([]byte("the key of all worlds"))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
})

// worldOn is a door on a store, which is closed with the test.
func worldOn(t testing.TB, st store.Store, now *atomic.Int64, tune ...func(*guard.Config)) *world {
	t.Helper()
	w := &world{t: t, now: now, law: &law{policy: "policy-1", deny: map[writ.CapabilityID]writ.Finding{}, forbid: map[writ.CapabilityID]bool{}, unbound: map[writ.Bind]bool{}}, heard: &heard{}}
	t.Cleanup(func() { _ = st.Close() })
	w.store = st
	w.reads = &reads{Store: st, shards: map[writ.Tenant]bool{}}
	key, err := oneKey()
	if err != nil {
		t.Fatal(err)
	}
	real, err := receipts.NewSealer(key, "writ.local", [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	w.seal = &sealer{Sealer: real}
	reg, err := writ.NewRegistry(append(guard.Capabilities(), things()...)...)
	if err != nil {
		t.Fatal(err)
	}
	cfg := guard.Config{
		Store: w.reads, Registry: reg, Decider: w.law, Sealer: w.seal, Archive: noArchive{}, Validator: plainJSON{},
		Origin: "writ.local", Shards: []writ.Tenant{shard}, Observer: w.heard, DenialPerSecond: 0.0001,
	}
	for _, f := range tune {
		f(&cfg)
	}
	w.door, err = guard.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.gate()
	return w
}

func (w *world) gate() {
	w.t.Helper()
	policy, bindings := w.law.Revisions()
	_, _, err := w.door.System(w.t.Context(), shard, "gate.set", guard.GateSetArgs{
		PolicyRevision: policy, BindingsRevision: bindings, ReceiptKeyID: w.seal.KeyID(),
	}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
}

// session puts a live session in place and returns its credential.
func (w *world) session(name string) *writ.Credential {
	w.t.Helper()
	return w.sessionAs(name, "", writ.RoleOperator)
}

// sessionAs opens the n-th session of a principal in a role.
func (w *world) sessionAs(name, n string, role writ.Role) *writ.Credential {
	w.t.Helper()
	return w.sessionOn(name, n, role, "")
}

// sessionOn is sessionAs for one that claims a scope.
func (w *world) sessionOn(name, n string, role writ.Role, claims string) *writ.Credential {
	w.t.Helper()
	id := writ.SessionID(writ.MakeID(writ.PrefixSession, w.now.Load(), [10]byte([]byte((name + n + "__________")[:10]))))
	hash := sha256.Sum256([]byte("secret of " + name))
	_, _, err := w.door.System(w.t.Context(), shard, "test.session", sessionArgs{ID: id, Hash: hex.EncodeToString(hash[:]), Principal: writ.PrincipalID(name), Role: role, Claims: claims}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &writ.Credential{Tenant: shard, Session: id, SecretHash: hash}
}

// call sends one call as a session.
func (w *world) call(c *writ.Credential, id writ.CapabilityID, args any, key string) (writ.Reply, *writ.Receipt, error) {
	w.t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		w.t.Fatal(err)
	}
	call := &writ.Call{Capability: id, Credential: c, Raw: raw, IdempotencyKey: key}
	if err := w.door.Stamp(call); err != nil {
		w.t.Fatal(err)
	}
	return w.door.Do(context.Background(), call)
}

// facts are all facts of the shard.
func (w *world) facts() []writ.StoredFact {
	w.t.Helper()
	f, err := w.store.Facts(w.t.Context(), shard, -1, 10_000, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// predicate decodes what a fact states.
func predicate(t testing.TB, f writ.StoredFact) map[string]any {
	t.Helper()
	var st struct {
		Predicate map[string]any `json:"predicate"`
	}
	if err := json.Unmarshal(f.Payload(), &st); err != nil {
		t.Fatalf("%v in %s", err, f.Payload())
	}
	return st.Predicate
}

// Capabilities of the tests: one run document that calls count on.

type thingArgs struct {
	Run  writ.RunID `json:"run_id"`
	Note string     `json:"note,omitempty"`
}

type thingView struct {
	Run     writ.RunID `json:"run_id"`
	Count   int64      `json:"count"`
	Version int64      `json:"version"`
	Token   string     `json:"token,omitempty" writ:"secret"`
}

// thing abuses the budget of a run as a number that only a read-modify-write
// keeps right.
type thing struct {
	writ.Run
	Count int64 `json:"count"`
}

type amountArgs struct {
	Run   writ.RunID `json:"run_id"`
	Lease int64      `json:"lease_s,omitempty" default:"60" minimum:"10"`
	Wait  int64      `json:"wait_s,omitempty" minimum:"0"`
	TTL   int64      `json:"ttl_s,omitempty" minimum:"10"`
	Tries *int64     `json:"tries,omitempty" minimum:"1"`
	Must  int64      `json:"must"`
	Note  string     `json:"note,omitempty"`
}

type sessionArgs struct {
	ID        writ.SessionID   `json:"id"`
	Hash      string           `json:"hash"`
	Principal writ.PrincipalID `json:"principal"`
	Role      writ.Role        `json:"role"`
	Revoke    bool             `json:"revoke"`
	Agent     writ.AgentID     `json:"agent"`
	Claims    string           `json:"claims,omitempty"` // a scope
}

// giveArgs give a role.
type giveArgs struct {
	thingArgs
	Principal writ.PrincipalID `json:"principal"`
	Role      writ.Role        `json:"role"`
}

func (a *giveArgs) GivesRole() (writ.PrincipalID, writ.Role) { return a.Principal, a.Role }

func things() []*writ.Capability {
	reads := func(_ *writ.Call, a *thingArgs, _ writ.Snapshot) (writ.ReadSet, error) {
		return writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}}, nil
	}
	describe := func(_ *writ.Call, a *thingArgs, s writ.Snapshot) (writ.Subject, error) {
		return writ.Subject{Run: &writ.RunFacts{ID: a.Run, State: writ.RunActive}}, nil
	}
	bump := func(secret string) func(c *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
		return func(c *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			t, _, ok, err := writ.Get[thing](s, writ.RunKey(a.Run))
			if err != nil {
				return tx, r, err
			}
			from := t.State
			if !ok {
				t.ID = a.Run
			}
			if t.State == writ.RunDone {
				return tx, r, writ.IllegalMove("test", "run", "done", "active")
			}
			t.State, t.Count = writ.RunActive, t.Count+1
			t.Receipt = writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			tx.Move(writ.ObjectRun, string(a.Run), string(from), string(t.State))
			return tx, writ.Reply{
				Outcome: writ.OutcomeDone, Body: thingView{Run: a.Run, Count: t.Count, Token: secret}, Versioned: []string{"version"}, ETag: -1,
			}, tx.PutDoc(s, writ.RunKey(a.Run), "run", t)
		}
	}
	finish := func(c *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
		t, _, ok, err := writ.Get[thing](s, writ.RunKey(a.Run))
		if err != nil || !ok {
			return tx, r, writ.Refuse(writ.CodeNotFound, "test", "no such run", "")
		}
		tx.Move(writ.ObjectRun, string(a.Run), string(t.State), string(writ.RunDone))
		t.State = writ.RunDone
		return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.RunKey(a.Run), "run", t)
	}
	lock := func(_ *writ.Call, a *thingArgs) []writ.Key { return []writ.Key{writ.RunKey(a.Run)} }
	give := bump("")
	return []*writ.Capability{
		writ.Define[giveArgs, thingView](writ.Capability{ID: "test.give", Summary: "Count, and give a role.", Safety: writ.SafetyMutating}, writ.Verb[giveArgs]{
			Reads: func(c *writ.Call, a *giveArgs, s writ.Snapshot) (writ.ReadSet, error) {
				return reads(c, &a.thingArgs, s)
			},
			Plan: func(c *writ.Call, a *giveArgs, s writ.Snapshot, d writ.Decision) (writ.Tx, writ.Reply, error) {
				return give(c, &a.thingArgs, s, d)
			},
		}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.bump", Summary: "Count.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Locks: lock, Reads: reads, Describe: describe, Plan: bump("")}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.bump-unlocked", Summary: "Count.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Reads: reads, Describe: describe, Plan: bump("")}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.secret", Summary: "Count and tell a secret.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Reads: reads, Describe: describe, Plan: bump("s3cret")}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.finish", Summary: "End.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Reads: reads, Plan: finish}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.finish-anyway", Summary: "End.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true},
			writ.Verb[thingArgs]{Reads: reads, Plan: finish}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.mandate", Summary: "Count.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true},
			writ.Verb[thingArgs]{Reads: reads, Describe: describe, Plan: bump("")}),
		writ.Define[amountArgs, amountArgs](writ.Capability{ID: "test.amount", Summary: "Do so much.", Safety: writ.SafetyMutating},
			writ.Verb[amountArgs]{
				Reads: func(_ *writ.Call, a *amountArgs, _ writ.Snapshot) (writ.ReadSet, error) {
					rs := writ.ReadSet{Docs: []writ.Key{writ.RunKey(a.Run)}}
					if a.Note == "reads by lease" { // a smaller one is about another document
						rs.Docs = append(rs.Docs, writ.RunKey(runID(byte(a.Lease))))
					}
					return rs, nil
				},
				Describe: func(c *writ.Call, a *amountArgs, _ writ.Snapshot) (writ.Subject, error) {
					c.Memo = a.Lease
					return writ.Subject{}, nil
				},
				Plan: func(c *writ.Call, a *amountArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
					if memo, ok := c.Memo.(int64); ok && memo != a.Lease {
						return tx, r, errors.New("what was worked out is of other arguments")
					}
					t, _, _, err := writ.Get[thing](s, writ.RunKey(a.Run))
					if err != nil {
						return tx, r, err
					}
					from := t.State
					t.ID, t.State, t.Count = a.Run, writ.RunActive, a.Lease
					tx.Move(writ.ObjectRun, string(a.Run), string(from), string(t.State))
					return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: *a}, tx.PutDoc(s, writ.RunKey(a.Run), "run", t)
				},
			}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.unnamed", Summary: "Forget to name the move.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Reads: reads, Plan: func(_ *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				return tx, r, tx.PutDoc(s, writ.RunKey(a.Run), "run", thing{})
			}}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.twice", Summary: "Move a run twice from where it was.", Safety: writ.SafetyMutating},
			writ.Verb[thingArgs]{Reads: reads, Plan: func(_ *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				tx.Move(writ.ObjectRun, string(a.Run), string(writ.RunActive), string(writ.RunDone))
				tx.Move(writ.ObjectRun, string(a.Run), string(writ.RunActive), string(writ.RunCancelled))
				return tx, r, tx.PutDoc(s, writ.RunKey(a.Run), "run", thing{})
			}}),
		writ.Define[thingArgs, thingView](writ.Capability{ID: "test.look", Summary: "Look.", Safety: writ.SafetyReadOnly},
			writ.Verb[thingArgs]{Reads: reads, Plan: func(_ *writ.Call, a *thingArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
				t, v, ok, err := writ.Get[thing](s, writ.RunKey(a.Run))
				if err != nil || !ok {
					return tx, r, writ.Refuse(writ.CodeNotFound, "test", "no such run", "")
				}
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: thingView{Run: a.Run, Count: t.Count, Version: v}, ETag: v}, nil
			}}),
		writ.Define[writ.Agent, thingView](writ.Capability{ID: "test.agent", Summary: "Put an agent in place.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true},
			writ.Verb[writ.Agent]{
				Reads: func(_ *writ.Call, a *writ.Agent, _ writ.Snapshot) (writ.ReadSet, error) {
					return writ.ReadSet{Docs: []writ.Key{writ.AgentKey(a.ID)}}, nil
				},
				Plan: func(_ *writ.Call, a *writ.Agent, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
					old, _, _, err := writ.Get[writ.Agent](s, writ.AgentKey(a.ID))
					if err != nil {
						return tx, r, err
					}
					next, from := *a, writ.AgentPlanned
					if next.State = writ.AgentActive; old.ID == "" {
						from = ""
					}
					tx.Move(writ.ObjectAgent, string(a.ID), string(from), string(writ.AgentPlanned))
					return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.AgentKey(a.ID), "agent", next)
				},
			}),
		writ.Define[sessionArgs, thingView](writ.Capability{ID: "test.session", Summary: "Open or revoke a session.", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true},
			writ.Verb[sessionArgs]{
				Reads: func(_ *writ.Call, a *sessionArgs, _ writ.Snapshot) (writ.ReadSet, error) {
					return writ.ReadSet{Docs: []writ.Key{writ.SessionKey(a.ID)}}, nil
				},
				Plan: func(_ *writ.Call, a *sessionArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
					ses, _, _, err := writ.Get[writ.Session](s, writ.SessionKey(a.ID))
					if err != nil {
						return tx, r, err
					}
					from, to := ses.State, writ.SessionOpened
					if a.Revoke {
						to = writ.SessionRevoked
					} else {
						ses = writ.Session{ID: a.ID, Principal: a.Principal, Kind: writ.KindHuman, Role: a.Role, Agent: a.Agent, TokenHash: a.Hash, CreatedAt: s.Now, ExpiresAt: s.Now + 3_600_000}
						if a.Claims != "" {
							ses.WriteClaims = []writ.WriteClaim{{Resource: a.Claims, Mode: writ.ScopeExclusive}}
						}
					}
					ses.State = to
					tx.Move(writ.ObjectSession, string(a.ID), string(from), string(to))
					return tx, writ.Reply{Outcome: writ.OutcomeDone}, tx.PutDoc(s, writ.SessionKey(a.ID), "session", ses)
				},
			}),
	}
}

func runID(n byte) writ.RunID {
	return writ.RunID(writ.MakeID(writ.PrefixRun, 1_767_225_600_000, [10]byte{n}))
}
