package guard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
)

// try is one call on its way. A conflict sends it back to the first read; what
// was read and judged before is forgotten then, the call's ids stay.
type try struct {
	d     *Door
	call  *writ.Call
	k     *writ.Capability // nil: no such capability, told only to authenticated callers
	tries int
	slot  *slot // nil for a call of the gateway's own

	held    []writ.Key // locked across this try
	counted bool       // the denial has its place in the principal's bucket
	noting  bool       // what follows from a denial beyond it is noted nevertheless
	unsure  bool       // a commit may have happened without our knowing it
	going   bool       // counted among the effects under way
	place   *slot      // among the effects under way
	begun   *begun     // the effect that is to be carried out, once the intent is committed
	blind   bool       // the arguments, as sent, did not say which body comes with them

	// Fresh on every try:
	snap    writ.Snapshot
	reads   int          // of the store, for snap
	last    writ.ReadSet // what the last of them asked for
	session *writ.Session
	gate    writ.Gate
	rules   Decider // what the gate names
	sub     writ.Subject
	dec     writ.Decision
	asked   any                  // the arguments as decoded, while the call has smaller ones
	limited []writ.Limit         // what was made smaller
	signed  *cosigned            // the signature policy wanted, once it held
	warned  []writ.BudgetWarning // by the commit, if it stands
	intent  *intent              // of the effect that is planned
	again   *writ.Intent         // the effect that may be attempted once more
	quota   string               // over which the call is refused
	details map[string]string    // of the refusal: what else it is about
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
		if more, ok := errors.AsType[*errBody](err); ok {
			if err = t.receive(ctx, more.max); err == nil {
				continue
			}
		}
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
		if err := t.conceal(args); err != nil {
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

// conceal seals the value of a call nobody may see, before anything else is done with it.
func (t *try) conceal(args any) error {
	const op = "guard.conceal"
	a, ok := args.(writ.Concealing)
	if !ok {
		return nil
	}
	if t.d.cfg.Seal == nil {
		return writ.Refuse(writ.CodeUnavailable, op, "this gateway keeps no secrets", "operators: it wants secrets.key among its keys")
	}
	if err := a.Conceal(t.d.cfg.Seal); err != nil {
		return err
	}
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Fault(writ.CodeInternal, op, err)
	}
	t.call.Raw = raw
	return nil
}

// once is the path itself: read, judge, plan, commit, seal.
func (t *try) once(ctx context.Context) (writ.Reply, *writ.Receipt, error) {
	defer t.unlimit()
	t.snap, t.reads, t.last = writ.Snapshot{}, 0, writ.ReadSet{}
	t.session, t.sub, t.dec, t.gate, t.rules = nil, writ.Subject{}, writ.Decision{}, writ.Gate{}, t.d.cfg.Decider
	t.signed, t.quota, t.details = nil, "", nil
	t.intent, t.again, t.begun = nil, nil, nil

	if err := t.first(ctx); err != nil {
		return writ.Reply{}, nil, err
	}
	if err := t.authenticate(); err != nil {
		return writ.Reply{}, nil, err
	}
	if t.slot != nil && !t.d.slots.found(t.slot, t.session.Role) {
		return writ.Reply{}, nil, t.d.crowded(manyCalls)
	}
	if t.k == nil || (t.k.Internal && t.call.Caller.Role != writ.RoleSystem) {
		return t.unread(ctx, writ.Refuse(writ.CodeNotFound, "guard.Do", "there is no such capability", "list them with capability.list"))
	}
	if err := t.checkGate(); err != nil {
		return writ.Reply{}, nil, err
	}
	if err := t.permit(); err != nil {
		return t.refused(ctx, err)
	}
	if e := t.call.Refused; e != nil {
		return t.refused(ctx, e)
	}
	if err := t.decode(); err != nil {
		return t.unread(ctx, err)
	}
	if err := t.permitRole(); err != nil {
		return t.refused(ctx, err)
	}
	release, err := t.lockNamed()
	if err != nil {
		return writ.Reply{}, nil, err
	}
	defer release()
	if err := t.hops(ctx); err != nil {
		return t.refused(ctx, err)
	}
	if err := t.stands(ctx); err != nil {
		return writ.Reply{}, nil, err
	}
	if reply, receipt, done, err := t.replay(); done && (err == nil || !t.awaits()) {
		return reply, receipt, err // a key belongs to a request with its body: whether it is another one is not known before it came
	}
	if err := t.judged(ctx); err != nil {
		return t.refused(ctx, err)
	}
	tx, reply, err := t.k.Plan(t.call, t.snap, t.dec)
	if err != nil {
		return t.refused(ctx, err)
	}
	if reply.Errand != nil {
		if err := t.intend(&tx, reply.Errand); err != nil {
			return t.refused(ctx, err)
		}
	}
	if !tx.Empty() {
		if err := t.durable(ctx); err != nil {
			return writ.Reply{}, nil, err
		}
	}
	if err := t.wantsBody(tx, reply); err != nil {
		return writ.Reply{}, nil, err
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
		if err := t.keep(ctx); err != nil { // what is stored already, it may mend
			return writ.Reply{}, nil, err
		}
		if err := t.finish(&reply, writ.Committed{Seq: -1}); err != nil {
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
	if t.intent != nil {
		if err := t.enterEffect(); err != nil {
			return writ.Reply{}, nil, err
		}
	}
	return t.commit(ctx, tx, reply, writ.OutcomeOfTransition)
}

// judged takes policy's decision and makes of the call what it obliges to. With
// smaller arguments a call can be about other things than were read: these are
// read, and it is judged once more. The decision stays the first one, which is of
// what was asked and obliges to all that goes with it; a second one that finds
// anything else refuses the call.
func (t *try) judged(ctx context.Context) error {
	if err := t.judge(ctx); err != nil {
		return err
	}
	if t.k.Bytes && len(t.dec.Duties.Redact) > 0 {
		return t.owes("policy keeps part of this from the caller, and bytes are shown whole or not at all", "ask for what is known of it instead")
	}
	if err := t.cosign(); err != nil {
		return err
	}
	if err := t.confined(ctx); err != nil {
		return err
	}
	if _, verdict := t.call.Args.(VerdictCarrier); t.dec.Duties.SignVerdict && !verdict {
		return t.owes("policy wants a signed verdict, and this call is none", "operators: let the rule hold of task.verify and run.close only")
	}
	if err := t.limit(ctx); err != nil || t.asked == nil {
		return err
	}
	before, first := t.reads, t.dec
	if err := t.hops(ctx); err != nil || t.reads == before {
		return err
	}
	if err := t.judge(ctx); err != nil {
		return err
	}
	for _, f := range t.dec.Findings {
		if !slices.ContainsFunc(first.Findings, func(g writ.Finding) bool { return reflect.DeepEqual(f, g) }) {
			return t.owes("policy has more to say about a call once it has limited it", "operators: two rules cannot agree on this call; mend their packs")
		}
	}
	t.dec = first
	return nil
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

// authenticate turns the credential and the session document into the caller. What a
// session has ordered outlives its own end, as the tasks do that it enqueued; who
// revokes it takes back what is not done yet.
func (t *try) authenticate() error {
	if t.acting() == "" {
		return nil // a call of the gateway's own
	}
	ses, _, ok, err := writ.Get[writ.Session](t.snap, writ.SessionKey(t.acting()))
	if err != nil {
		return err
	}
	if c := t.call.Credential; c != nil {
		want, _ := hex.DecodeString(ses.TokenHash)
		if !ok || subtle.ConstantTimeCompare(want, c.SecretHash[:]) != 1 {
			return unauthenticated()
		}
		if writ.SessionMoves.Terminal(ses.State) || t.snap.Now >= ses.ExpiresAt {
			t.forget()
			return unauthenticated()
		}
	} else if !ok || ses.State == writ.SessionRevoked {
		return unauthenticated()
	} else {
		ses.State = writ.SessionActive // as it was when it gave the order, which is what is judged
	}
	t.session = &ses
	t.call.Caller = writ.Caller{
		Tenant: t.call.Caller.Tenant, Principal: ses.Principal, Kind: ses.Kind, Role: ses.Role, Session: ses.ID, Agent: ses.Agent,
		Controller: ses.AnsweredBy(), Openers: ses.Openers, Behind: ses.Behind,
		Claims: ses.WriteClaims,
	}
	return nil
}

// forget says that a credential is good for nothing any more.
func (t *try) forget() {
	if c := t.call.Credential; c != nil {
		t.d.slots.forget(*c)
	}
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
		if ok && gate.ReceiptKeyID != "" && !t.d.cfg.Sealer.Use(gate.ReceiptKeyID, version) {
			return noKey()
		}
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
	case !t.d.cfg.Sealer.Use(gate.ReceiptKeyID, version):
		return noKey()
	}
	t.gate = gate
	return nil
}

func noKey() *writ.Error {
	return &writ.Error{
		Code: writ.CodePolicyDown, Op: "guard.Do", RetryMs: 2000,
		Msg: "this replica does not hold the receipt key in force", Hint: "repeat the call; it may reach another replica",
	}
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
