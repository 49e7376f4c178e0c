package guard

import (
	"errors"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
)

// An effect acts outside the store, and no transaction holds what is outside. So three
// things are done one after the other: the intent is committed, it is carried out, and
// what became of it is committed. Here is the first: see act.go for the others.

// intent is an effect on its way into the store.
type intent struct {
	doc    writ.Intent
	errand *writ.Errand
	leased int64 // when its lease ends
}

// intend adds to a plan the intent of its effect, and what follows from that: it is
// leased to this replica, listed, and what it may use is held in the budget of its run.
func (t *try) intend(tx *writ.Tx, errand *writ.Errand) error {
	const op = "guard.intend"
	if t.k.Class != writ.Effectful || t.d.cfg.Effectors[t.k.ID] == nil {
		return writ.Fault(writ.CodeInternal, op, fmt.Errorf("%s has an errand, and nobody carries it out", t.k.ID))
	}
	c, now := t.call.Caller, t.snap.Now
	doc := writ.Intent{ID: writ.EffectID(t.call.NewID(writ.PrefixEffect, 0)), CreatedAt: now}
	if t.again != nil {
		doc = writ.Intent{ID: t.again.ID, State: t.again.State, Attempt: t.again.Attempt, CreatedAt: t.again.CreatedAt}
	}
	from := doc.State
	doc.Capability, doc.Idempotent, doc.Secrets, doc.Attempt = t.k.ID, t.k.Idempotent, errand.Secrets, doc.Attempt+1
	doc.Session, doc.Principal, doc.Agent, doc.UpdatedAt = c.Session, c.Principal, c.Agent, now
	doc.Receipt = writ.ReceiptID(t.call.NewID(writ.PrefixReceipt, 0))
	if t.sub.Task != nil {
		doc.Task = t.sub.Task.ID
	}
	if r := t.sub.Run; r != nil && t.snap.Has(writ.RunKey(r.ID)) {
		run, _, ok, err := writ.Get[writ.Run](t.snap, writ.RunKey(r.ID))
		switch {
		case err != nil:
			return err
		case !ok || writ.RunMoves.Terminal(run.State):
			return writ.Refuse(writ.CodeIllegal, op, "the run has ended, so nothing more is done for it", "work in a run that goes on").With("kind", writ.ObjectRun)
		}
		doc.Run, doc.Held = r.ID, run.Metered(t.sub.Charge)
	}
	if sends := t.sub.Charge[writ.BudgetEgress]; sends > 0 {
		who := writ.QuotaCaller(c, "")
		if t.sub.Task != nil {
			who.Capability = t.sub.Task.Capability
		}
		var err error
		if doc.Quotas, err = writ.QuotaHolds(t.snap, writ.QuotaEgress, who, sends); err != nil {
			return err
		}
	}
	doc.Enter(tx, writ.IntentUnderWay)
	doc.State = writ.IntentUnderWay

	lease, end := writ.EffectLease(doc.ID), now+t.d.cfg.EffectLease.Milliseconds()
	before := t.snap.Counters[lease]
	tx.Within(lease, before, before)
	tx.Add(lease, end-before)
	tx.Index(writ.IndexEffectLeases, string(doc.ID), end)
	tx.Move(writ.ObjectEffect, string(doc.ID), string(from), string(doc.State))
	tx.Effect = &writ.EffectFact{Attempt: doc.Attempt, Held: doc.Held, Secrets: doc.Secrets}
	t.intent = &intent{doc: doc, errand: errand, leased: end}
	return tx.PutDoc(t.snap, writ.IntentKey(doc.ID), writ.ObjectEffect, doc)
}

// effectReads names what became of the effect that was begun under the call's key.
func (t *try) effectReads() (rs writ.ReadSet, err error) {
	if t.call.IdempotencyKey == "" || t.k.Class != writ.Effectful {
		return rs, nil
	}
	key := writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey)
	if !t.snap.Has(key) {
		return rs, nil
	}
	rec, _, ok, err := writ.Get[kept](t.snap, key)
	if err != nil || !ok || rec.Effect == "" {
		return rs, err
	}
	rs.Docs = []writ.Key{writ.IntentKey(rec.Effect), writ.EffectReplyKey(rec.Effect)}
	rs.Counters = []writ.Counter{writ.EffectLease(rec.Effect)}
	return rs, nil
}

// replayEffect answers a call under whose key an effect was begun. It is not done where
// another attempt may be made.
func (t *try) replayEffect(rec kept) (writ.Reply, *writ.Receipt, bool, error) {
	const op = "guard.replay"
	refuse := func(e *writ.Error, id writ.ReceiptID) (writ.Reply, *writ.Receipt, bool, error) {
		e = e.With("effect", string(rec.Effect))
		e.Receipt = id
		return writ.Reply{}, nil, true, e
	}
	doc, version, ok, err := writ.Get[writ.Intent](t.snap, writ.IntentKey(rec.Effect))
	if err != nil {
		return writ.Reply{}, nil, true, err
	}
	switch {
	case !ok:
		return refuse(writ.Refuse(writ.CodeEffectUnknown, op, "what became of this request is not kept any more", "its receipts say it; use a new key for a new request"), rec.Receipt)
	case doc.State == writ.IntentUnderWay:
		e := writ.Refuse(writ.CodeInFlight, op, "this request is being carried out", "repeat it with the same Idempotency-Key after the Retry-After time")
		e.RetryMs = 1000
		return refuse(e, doc.Receipt)
	case doc.MayRepeat():
		t.again = &doc
		return writ.Reply{}, nil, false, nil
	case doc.State == writ.IntentUnknown:
		return refuse(unknownEffect(op), doc.Receipt)
	case doc.State == writ.IntentError:
		code := doc.Code
		if code == "" {
			code = writ.CodeEffectFailed
		}
		return refuse(writ.Refuse(code, op, "this request was carried out and did not succeed", "its receipt says why; a new key makes a new attempt"), doc.Receipt)
	}
	reply, _, ok, err := writ.Get[kept](t.snap, writ.EffectReplyKey(rec.Effect))
	if err != nil {
		return writ.Reply{}, nil, true, err
	}
	if !ok || reply.Withheld {
		return refuse(writ.Refuse(writ.CodeTokenIssued, op, "this request was carried out, and its reply is not kept", "its receipt says what it was; use a new key for a new request"), doc.Receipt)
	}
	out := writ.Reply{
		Outcome: reply.Outcome, Body: reply.Body, Replayed: true, Redacted: reply.Redacted, Limited: reply.Limited, Durability: reply.Durability,
		Effect: doc.ID, Intent: rec.Receipt,
	}
	if err := finish(&out, writ.Committed{Seq: -1}); err != nil {
		return writ.Reply{}, nil, true, err
	}
	return out, &writ.Receipt{ID: doc.Receipt, Seq: version - 1}, true, nil
}

// unknownEffect is the refusal of what nobody knows to have happened or not.
func unknownEffect(op string) *writ.Error {
	return writ.Refuse(writ.CodeEffectUnknown, op, "nobody knows whether what was asked for has happened, so it is not done again",
		"find out, and have an operator say so with effect.resolve")
}

// enterEffect takes a place among the effects that are under way.
func (t *try) enterEffect() error {
	if t.going {
		return nil
	}
	if !t.d.effects.enter() {
		e := writ.Refuse(writ.CodeNotReady, "guard.act", "the gateway is stopping", "repeat the call; it may reach another replica")
		e.RetryMs = 1000
		return e
	}
	if c := t.call.Credential; c != nil {
		place, why := t.d.effects.places.enter(*c)
		if why != nil {
			t.d.effects.leave()
			return t.d.crowded(why)
		}
		t.d.effects.places.found(place, t.session.Role)
		t.place = place
	}
	t.going = true
	return nil
}

// leaveEffect gives it back.
func (t *try) leaveEffect() {
	if t.place != nil {
		t.d.effects.places.leave(t.place)
	}
	if t.going {
		t.d.effects.leave()
	}
}

// Defaults of effects.
const (
	effectLease = 30 * time.Second       // for how long one is leased to its replica
	effectWatch = 250 * time.Millisecond // how often is looked whether it may go on
	maxReply    = 48 << 10               // of a reply that is kept for who asks again
)

// checkEffectors holds the configuration to the registry: what can be called is carried
// out by somebody.
func checkEffectors(cfg Config) error {
	for _, k := range cfg.Registry.All() {
		if (k.Class == writ.Effectful) != (cfg.Effectors[k.ID] != nil) {
			return errors.New("guard.New: each capability of class effect wants an effector, and no other has one: " + string(k.ID))
		}
	}
	return nil
}
