package guard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// try is one call on its way. A conflict sends it back to the first read; what
// was read and judged before is forgotten then, the call's ids stay.
type try struct {
	d     *Door
	call  *writ.Call
	k     *writ.Capability // nil: no such capability, told only to authenticated callers
	tries int

	held    []writ.Key // locked across this try
	counted bool       // the denial has its place in the principal's bucket

	// Fresh on every try:
	snap    writ.Snapshot
	reads   int          // of the store, for snap
	last    writ.ReadSet // what the last of them asked for
	session *writ.Session
	gate    writ.Gate
	rules   Decider // what the gate names
	sub     writ.Subject
	dec     writ.Decision
}

// errAgain says that a guard no longer held: read and judge again.
type errAgain struct {
	cause error
	keys  []writ.Key // to lock first
}

func (e *errAgain) Error() string { return e.cause.Error() }

// run tries until the call commits or is refused.
func (t *try) run(ctx context.Context) (writ.Reply, *writ.Receipt, error) {
	var keys []writ.Key
	for {
		t.tries++
		reply, receipt, err := t.locked(ctx, keys)
		again, isAgain := errors.AsType[*errAgain](err)
		if !isAgain {
			return reply, receipt, err
		}
		if t.tries >= maxTries {
			return writ.Reply{}, nil, &writ.Error{
				Code: writ.CodeContention, Op: "guard.Do", RetryMs: 1000, Err: again.cause,
				Msg: "others kept changing what this call depends on", Hint: "repeat the call after the Retry-After time",
			}
		}
		keys = append(keys, again.keys...)
		// Jitter, so that replicas which met once do not meet again.
		pause := time.NewTimer(time.Duration(rand.Int64N(int64(time.Millisecond) << min(t.tries, 5))))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return writ.Reply{}, nil, writ.Fault(writ.CodeNotReady, "guard.Do", ctx.Err())
		}
	}
}

func (t *try) locked(ctx context.Context, keys []writ.Key) (writ.Reply, *writ.Receipt, error) {
	if len(keys) > 0 {
		release, err := t.d.locks.acquire(ctx, keys)
		if err != nil {
			return writ.Reply{}, nil, writ.Fault(writ.CodeNotReady, "guard.Do", err)
		}
		defer release()
	}
	t.held = keys
	return t.once(ctx)
}

// decode fills call.Args from call.Raw and digests them. It costs what the
// caller sends, so it comes after the caller is known and may make the call.
func (t *try) decode() error {
	if t.call.Args == nil {
		args, err := t.d.cfg.Validator.Decode(t.k, t.call.Raw)
		if err != nil {
			return err
		}
		t.call.Args = args
	}
	if t.call.Digest == "" {
		canonical, err := json.Marshal(t.call.Args)
		if err != nil {
			return writ.Fault(writ.CodeInternal, "guard.decode", err)
		}
		h := sha256.New()
		h.Write([]byte(t.call.Capability))
		h.Write([]byte{0})
		h.Write(canonical)
		t.call.Digest = hex.EncodeToString(h.Sum(nil))
	}
	return nil
}

// once is the path itself: read, judge, plan, commit, seal.
func (t *try) once(ctx context.Context) (writ.Reply, *writ.Receipt, error) {
	t.snap, t.reads, t.last = writ.Snapshot{}, 0, writ.ReadSet{}
	t.session, t.sub, t.dec, t.gate, t.rules = nil, writ.Subject{}, writ.Decision{}, writ.Gate{}, t.d.cfg.Decider

	if err := t.first(ctx); err != nil {
		return writ.Reply{}, nil, err
	}
	if err := t.authenticate(); err != nil {
		return writ.Reply{}, nil, err
	}
	if t.k == nil || (t.k.Internal && t.call.Caller.Role != writ.RoleSystem) {
		return writ.Reply{}, nil, writ.Refuse(writ.CodeNotFound, "guard.Do", "there is no such capability", "list them with capability.list")
	}
	if err := t.checkGate(); err != nil {
		return writ.Reply{}, nil, err
	}
	if err := t.permit(); err != nil {
		return t.refused(ctx, err)
	}
	if err := t.decode(); err != nil {
		return writ.Reply{}, nil, err
	}
	release, err := t.lockNamed()
	if err != nil {
		return writ.Reply{}, nil, err
	}
	defer release()
	if err := t.hops(ctx); err != nil {
		return t.refused(ctx, err)
	}
	if reply, receipt, done, err := t.replay(); done {
		return reply, receipt, err
	}
	if err := t.judge(ctx); err != nil {
		return t.refused(ctx, err)
	}
	tx, reply, err := t.k.Plan(t.call, t.snap, t.dec)
	if err != nil {
		return t.refused(ctx, err)
	}
	if t.needsApproval() && !tx.Empty() && reply.Poll == nil && (t.call.Entry == nil || len(tx.Changes) > 0) {
		// Only now: nobody is bothered with a call that cannot happen anyway, or
		// with a lane entry that is only put in order.
		use, waits, met, err := t.settle(ctx)
		switch {
		case err != nil:
			return t.refused(ctx, err)
		case !met:
			return t.ask(ctx, use, waits)
		}
		tx.Join(use)
	}
	if tx.Empty() {
		if err := finish(&reply, writ.Committed{Seq: -1}); err != nil {
			return writ.Reply{}, nil, err
		}
		return reply, nil, nil
	}
	if t.k.ReadOnly() {
		return writ.Reply{}, nil, writ.Fault(writ.CodeInternal, "guard.Do", errors.New("a read-only capability planned a change"))
	}
	if err := t.d.admit(t.k, tx); err != nil {
		return writ.Reply{}, nil, err
	}
	return t.commit(ctx, tx, reply, writ.OutcomeOfTransition)
}

// lockNamed takes the locks of the documents the capability says it will write.
// Only callers who may make the call get here, so nobody else can stand in the
// way. A lock that is taken is waited for by the next try, before it reads.
func (t *try) lockNamed() (release func(), err error) {
	if len(t.held) > 0 || t.k.Locks == nil {
		return func() {}, nil
	}
	keys := t.k.Locks(t.call)
	release, taken := t.d.locks.try(keys)
	if taken != "" {
		return nil, &errAgain{cause: errors.New("another call is changing " + string(taken)), keys: keys}
	}
	t.held = keys
	return release, nil
}

// first reads what says who calls and what is in force, and nothing else: what
// a stranger sends is not looked into, and costs no more than this.
func (t *try) first(ctx context.Context) error {
	if c := t.call.Credential; c != nil {
		if !slices.Contains(t.d.cfg.Shards, c.Tenant) || !c.Session.Valid() {
			return unauthenticated()
		}
		t.call.Caller = writ.Caller{Tenant: c.Tenant}
	}
	return t.read(ctx, writ.ReadSet{Docs: t.standing()})
}

// standing are the documents every call stands on: the gate and its session.
func (t *try) standing() []writ.Key {
	keys := []writ.Key{writ.GateKey}
	if c := t.call.Credential; c != nil {
		keys = append(keys, writ.SessionKey(c.Session))
	}
	return keys
}

// read adds one atomic read to the snapshot. What answers without a commit has
// no guards, so every read after the first looks at gate and session again, and
// the store comes last: the caller still had his right when all was read.
func (t *try) read(ctx context.Context, want writ.ReadSet) error {
	want = t.snap.Missing(want)
	if want.Empty() {
		return nil
	}
	again := t.snap.Docs != nil
	if !again {
		t.snap = writ.Snapshot{
			Docs: map[writ.Key]writ.Doc{}, Counters: map[writ.Counter]int64{},
			Ranges: map[writ.Range]writ.RangeResult{}, Archive: map[writ.ArchiveRead][]writ.Receipt{},
			Cache: &t.d.docs,
		}
	}
	for _, q := range want.Archive {
		found, err := t.d.cfg.Archive.Read(ctx, t.call.Caller.Tenant, q)
		if err != nil {
			return storeDown("guard.read", err)
		}
		t.snap.Archive[q] = found
	}
	want.Archive = nil
	if again {
		want.Docs = append(want.Docs, t.standing()...)
	}
	t.reads, t.last = t.reads+1, want
	s, err := t.d.cfg.Store.Read(ctx, t.call.Caller.Tenant, want)
	if err != nil {
		return storeDown("guard.read", err)
	}
	if again && s.Epoch != t.snap.Epoch {
		return &errAgain{cause: store.ErrFenced}
	}
	if again {
		for _, k := range t.standing() {
			if s.Docs[k].Version != t.snap.Docs[k].Version {
				return &errAgain{cause: errors.New(string(k) + " changed while the call was read")}
			}
		}
	}
	t.snap.Now, t.snap.Epoch = s.Now, s.Epoch
	maps.Copy(t.snap.Docs, s.Docs)
	maps.Copy(t.snap.Counters, s.Counters)
	maps.Copy(t.snap.Ranges, s.Ranges)
	return nil
}

// authenticate turns the credential and the session document into the caller.
func (t *try) authenticate() error {
	c := t.call.Credential
	if c == nil {
		return nil // a call of the gateway's own
	}
	ses, _, ok, err := writ.Get[writ.Session](t.snap, writ.SessionKey(c.Session))
	if err != nil {
		return err
	}
	want, _ := hex.DecodeString(ses.TokenHash)
	if !ok || subtle.ConstantTimeCompare(want, c.SecretHash[:]) != 1 {
		return unauthenticated()
	}
	if writ.SessionMoves.Terminal(ses.State) || t.snap.Now >= ses.ExpiresAt {
		return unauthenticated()
	}
	t.session = &ses
	t.call.Caller = writ.Caller{
		Tenant: c.Tenant, Principal: ses.Principal, Kind: ses.Kind, Role: ses.Role, Session: ses.ID, Agent: ses.Agent,
		Controller: ses.AnsweredBy(), Openers: ses.Openers,
	}
	return nil
}

// checkGate takes the rules the gate names, and refuses when this replica does
// not hold them, or holds another receipt key. The gate's version is guarded by
// every commit; reads that commit nothing rely on this comparison.
func (t *try) checkGate() error {
	gate, version, ok, err := writ.Get[writ.Gate](t.snap, writ.GateKey)
	if err != nil {
		return err
	}
	if t.k.ID == gateSet || t.k.ID == policyAdopt {
		t.note()
		return nil
	}
	held := false
	if ok {
		if t.rules, held = t.d.under(gate, version); held {
			t.note()
		}
	}
	switch {
	case !ok:
		return &writ.Error{Code: writ.CodeNotReady, Op: "guard.Do", RetryMs: 1000, Msg: "the gateway is starting", Hint: "repeat the call"}
	case gate.Schema > writ.Schema:
		return &writ.Error{Code: writ.CodeUpgrade, Op: "guard.Do", Msg: "this replica is too old for its store", Hint: "upgrade this replica"}
	case !held:
		return &writ.Error{
			Code: writ.CodePolicyDown, Op: "guard.Do", RetryMs: 2000,
			Msg: "this replica does not hold the policies in force", Hint: "repeat the call; it may reach another replica",
		}
	case gate.ReceiptKeyID != t.d.cfg.Sealer.KeyID():
		return &writ.Error{
			Code: writ.CodePolicyDown, Op: "guard.Do", RetryMs: 2000,
			Msg: "this replica does not hold the receipt key in force", Hint: "repeat the call; it may reach another replica",
		}
	}
	t.gate = gate
	return nil
}

// note tells the edge which rules the call is judged by.
func (t *try) note() { t.call.PolicyRevision, _ = t.rules.Revisions() }

// under is the rules a gate names, if this replica has them.
func (d *Door) under(gate writ.Gate, version int64) (Decider, bool) {
	if s, ok := d.cfg.Decider.(Switcher); ok {
		return s.Under(gate.PolicyRevision, gate.BindingsRevision, version)
	}
	policy, bindings := d.cfg.Decider.Revisions()
	return d.cfg.Decider, policy == gate.PolicyRevision && bindings == gate.BindingsRevision
}

// hops reads until the capability asks for nothing new.
func (t *try) hops(ctx context.Context) error {
	base := writ.ReadSet{}
	if a := t.call.Caller.Agent; a != "" {
		base.Docs = append(base.Docs, writ.AgentKey(a))
	}
	if t.call.IdempotencyKey != "" && !t.k.ReadOnly() {
		base.Docs = append(base.Docs, writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey))
	}
	for range maxHops {
		more, err := t.k.Reads(t.call, t.snap)
		if err != nil {
			return err
		}
		want := t.snap.Missing(join(base, more))
		if want.Empty() {
			return nil
		}
		if err := t.read(ctx, want); err != nil {
			return err
		}
	}
	more, err := t.k.Reads(t.call, t.snap)
	if err != nil {
		return err
	}
	if missing := t.snap.Missing(more); !missing.Empty() {
		return writ.Fault(writ.CodeInternal, "guard.Do", errors.New("the capability asks for more reads than a call may make"))
	}
	return nil
}

// permit asks for the role's right: to the capability, and to the wrapper it
// came through.
func (t *try) permit() error {
	c := t.call.Caller
	for _, id := range []writ.CapabilityID{t.k.ID, t.call.Via} {
		if id != "" && !t.rules.Permit(c.Role, c.Tenant, id) {
			return (&writ.Error{
				Code: writ.CodeRBAC, Op: "guard.Do", Msg: "the role " + string(c.Role) + " may not invoke " + string(id),
				Hint: "use a session of a role that may; capability.list shows what yours can call",
			}).With("role", string(c.Role)).With("capability", string(id))
		}
	}
	return nil
}

// judge describes the call to policy and takes its decision.
func (t *try) judge(ctx context.Context) error {
	sub, err := t.k.Describe(t.call, t.snap)
	if err != nil {
		return err
	}
	if a := t.call.Caller.Agent; a != "" && sub.Agent == nil {
		agent, _, ok, err := writ.Get[writ.Agent](t.snap, writ.AgentKey(a))
		if err != nil {
			return err
		}
		if !ok {
			return unauthenticated()
		}
		sub.Agent = &writ.AgentFacts{ID: agent.ID, Status: agent.State, Domain: agent.Domain, WriteScope: agent.WriteScope}
	}
	for _, o := range t.d.cfg.Obligors {
		more, err := o.Reads(t.call, t.k, sub)
		if err != nil {
			return err
		}
		if err := t.read(ctx, more); err != nil {
			return err
		}
		if err := o.Facts(t.call, t.k, t.snap, t.moves, &sub); err != nil {
			return err
		}
	}
	t.sub = sub
	t.dec, err = t.rules.Decide(ctx, writ.PolicyInput{
		Call: t.call, Capability: t.k, Session: t.session, Subject: sub, Now: t.snap.Now,
	})
	if t.dec.Effect.Rank() > writ.EffectDeny.Rank() {
		t.dec.Effect = writ.EffectDeny // an effect nobody knows
	}
	mandate := t.k.Class == writ.Mandate
	if err != nil {
		if mandate {
			policy, bindings := t.rules.Revisions()
			t.dec = writ.Decision{Effect: writ.EffectAllow, PolicyRevision: policy, BindingsRevision: bindings}
			t.d.cfg.Log.ErrorContext(ctx, "policy unavailable for a mandate", "capability", t.k.ID, "error", err)
			return nil
		}
		return &writ.Error{
			Code: writ.CodePolicyDown, Op: "guard.judge", RetryMs: 1000, Err: err,
			Msg: "policy could not answer, so nothing is allowed", Hint: "repeat the call; operators see the cause in the log",
		}
	}
	if mandate || t.dec.Effect == writ.EffectAllow && !obliged(t.dec) || t.needsApproval() {
		return nil
	}
	return denied(t.dec)
}

// needsApproval says that the call may happen once people have agreed.
func (t *try) needsApproval() bool {
	return t.dec.Effect == writ.EffectRequireApproval && len(t.dec.Needs) > 0 && t.d.cfg.Approver != nil &&
		t.k.Class == writ.Ordinary && !t.k.ReadOnly() && !strings.HasPrefix(string(t.k.ID), "approval.") // deciding is not decided about
}

// settle asks the approvals whether what the decision needs is met.
func (t *try) settle(ctx context.Context) (use writ.Tx, waits writ.Reply, met bool, err error) {
	for hop := 0; ; hop++ {
		more, err := t.d.cfg.Approver.Reads(t.call, t.k, t.snap, t.sub, t.dec)
		if err != nil {
			return use, waits, false, err
		}
		more = t.snap.Missing(more)
		if more.Empty() {
			break
		}
		if hop == maxHops {
			return use, waits, false, writ.Fault(writ.CodeInternal, "guard.settle", errors.New("approvals read more than four times"))
		}
		if err := t.read(ctx, more); err != nil {
			return use, waits, false, err
		}
	}
	return t.d.cfg.Approver.Settle(t.call, t.k, t.snap, t.sub, t.dec)
}

// ask commits the request for approval, which is all that becomes of the call
// for now. When people have been asked already there is nothing to commit.
func (t *try) ask(ctx context.Context, tx writ.Tx, reply writ.Reply) (writ.Reply, *writ.Receipt, error) {
	reply.Outcome = writ.OutcomePending
	if tx.Empty() {
		if err := finish(&reply, writ.Committed{Seq: -1}); err != nil {
			return writ.Reply{}, nil, err
		}
		return reply, nil, nil
	}
	if err := t.d.admit(t.k, tx); err != nil {
		return writ.Reply{}, nil, err
	}
	return t.commit(ctx, tx, reply, writ.OutcomeOfRequest)
}

// moves says whether the call would move an object if it were allowed. What a
// call that is refused anyway, or finds nothing to do, would have cost is no
// question for policy: nobody can exhaust a run with calls that cannot happen.
func (t *try) moves() bool {
	tx, _, err := t.k.Plan(t.call, t.snap, writ.Decision{Effect: writ.EffectAllow})
	return err == nil && len(tx.Changes) > 0
}

// obliged says whether the decision asks for something this door cannot
// fulfil; such a decision denies.
func obliged(d writ.Decision) bool {
	for _, f := range d.Findings {
		for _, o := range f.Obligations {
			if o.Type != "notify" {
				return true
			}
		}
	}
	return false
}

// notify tells the log whom policy wants to hear of an allowed call. The rule
// stands in the receipt; its pack says who.
func (t *try) notify(ctx context.Context) {
	for _, f := range t.dec.Findings {
		for _, o := range f.Obligations {
			if o.Type == "notify" {
				t.d.cfg.Log.WarnContext(ctx, "policy allows a call and wants it known", "rule", f.Rule, "capability", t.k.ID, "call", t.call.ID)
			}
		}
	}
}

// denied makes the refusal of a decision: the strongest finding names the code.
func denied(d writ.Decision) *writ.Error {
	e := &writ.Error{Code: writ.CodePolicy, Op: "guard.judge", Msg: "policy denies this call", Rules: d.Rules()}
	e.Hint = "read the rules named in rule_ids in the packs of policy.info"
	if len(d.Findings) > 0 {
		f := d.Findings[0]
		if c := writ.Code(f.Code); c.Receipted() {
			e.Code = c
		}
		if f.Message != "" {
			e.Msg = f.Message
		}
	}
	return e
}

// join is the union of two read sets; Missing removes what is there already.
func join(a, b writ.ReadSet) writ.ReadSet {
	return writ.ReadSet{
		Docs:     append(a.Docs[:len(a.Docs):len(a.Docs)], b.Docs...),
		Counters: append(a.Counters[:len(a.Counters):len(a.Counters)], b.Counters...),
		Ranges:   append(a.Ranges[:len(a.Ranges):len(a.Ranges)], b.Ranges...),
		Archive:  append(a.Archive[:len(a.Archive):len(a.Archive)], b.Archive...),
	}
}

// storeDown is the refusal for a store that did not answer. What a store says in
// our own terms (it is fenced, it does not keep that) is passed on.
func storeDown(op string, err error) error {
	if e, ok := errors.AsType[*writ.Error](err); ok && (e.Msg != "" || e.Code != writ.CodeStore) {
		return e
	}
	if errors.Is(err, store.ErrInvalid) {
		return writ.Fault(writ.CodeInternal, op, err)
	}
	return &writ.Error{
		Code: writ.CodeStore, Op: op, RetryMs: 1000, Err: err,
		Msg: "the store does not answer", Hint: "repeat the call, with the same Idempotency-Key if it had one",
	}
}
