package guard

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// commit completes the plan (guards for everything read, obligations, fact,
// idempotency record), commits it and seals the fact. A request for approval
// is charged nothing: the call it is about has not happened.
func (t *try) commit(ctx context.Context, tx writ.Tx, reply writ.Reply, outcome string) (writ.Reply, *writ.Receipt, error) {
	tx.Call = t.call.ID
	charged := map[string]int64{}
	t.warned = nil
	if t.k.Class != writ.Mandate && outcome == writ.OutcomeOfTransition {
		for _, o := range t.d.cfg.Obligors {
			c, warned, err := o.Oblige(t.call, t.k, t.snap, t.sub, &tx)
			if err != nil {
				return t.refused(ctx, err)
			}
			t.warned = append(t.warned, warned...)
			for dim, n := range c {
				charged[dim] += n
			}
		}
	}
	if outcome == writ.OutcomeOfRequest {
		for _, o := range t.d.cfg.Obligors {
			if a, ok := o.(Asking); ok {
				if err := a.Asked(t.call, t.k, t.snap, t.sub, &tx); err != nil {
					return t.refused(ctx, err)
				}
			}
		}
	}
	t.guardReads(&tx)
	if outcome == writ.OutcomeOfTransition {
		reply.Durability = t.durability()
	}
	if writesDocuments(tx) {
		if err := t.changesNamed(tx); err != nil {
			return t.refused(ctx, err)
		}
		st := t.statement(outcome, tx.Changes)
		if v := tx.Verdict; v != nil && outcome == writ.OutcomeOfTransition {
			st.Verdict = &writ.VerdictRef{Digest: v.Digest, KeyID: v.Key.ID}
		}
		for _, p := range tx.Causes {
			st.Parents = follows(st.Parents, p)
		}
		if st.Verdict != nil { // it is logged as it was signed, by this commit too
			tx.Before = tx.Verdict.Fact(st.Run)
			st.Parents = append(st.Parents, tx.Before.ID)
		}
		st.Budget = charged
		if outcome == writ.OutcomeOfTransition {
			st.Key, st.Effect = tx.Key, tx.Effect
			for dim, n := range tx.Charged {
				charged[dim] += n
			}
		}
		if err := t.addFact(&tx, st, reply); err != nil {
			return writ.Reply{}, nil, err
		}
		if err := t.remember(&tx, reply); err != nil {
			return writ.Reply{}, nil, err
		}
	}
	if outcome == writ.OutcomeOfTransition {
		t.notices(&tx)
	}
	release, err := t.lockWritten(tx)
	if err != nil {
		return writ.Reply{}, nil, err
	}
	if outcome == writ.OutcomeOfTransition {
		if err := t.keep(ctx); err != nil {
			release()
			return writ.Reply{}, nil, err
		}
	}
	done, err := t.store(ctx, tx)
	release()
	if t.intent != nil && outcome == writ.OutcomeOfTransition && (err == nil || t.unsure) {
		t.begun = &begun{intent: t.intent, fence: done.Version()}
	}
	if err != nil {
		return writ.Reply{}, nil, err
	}
	if err := t.finish(&reply, done); err != nil {
		return writ.Reply{}, nil, err
	}
	if outcome == writ.OutcomeOfTransition {
		t.notify(ctx)
		t.warn(ctx, &reply)
	}
	if tx.Fact == nil {
		return reply, nil, nil
	}
	receipt, err := t.d.cfg.Sealer.Seal(writ.StoredFact{Fact: *tx.Fact, Commit: done})
	if err != nil {
		// The change stands and its fact with it; only the proof is late.
		return writ.Reply{}, nil, &writ.Error{
			Code: writ.CodeReceiptPending, Op: "guard.seal", RetryMs: 1000, Receipt: tx.Fact.ID, Err: err,
			Msg: "the change is committed, its receipt is not sealed yet", Hint: "repeat the call with the same Idempotency-Key",
		}
	}
	return reply, &receipt, nil
}

// lockWritten takes the locks of the documents the transaction writes. If one
// is taken somebody is about to change what was read: the call goes back and
// waits for it first.
func (t *try) lockWritten(tx writ.Tx) (release func(), err error) {
	var keys []writ.Key
	for _, o := range tx.Ops {
		if o.Kind == writ.OpPut && !slices.Contains(t.held, o.Key) && !slices.Contains(keys, o.Key) {
			keys = append(keys, o.Key)
		}
	}
	release, taken := t.d.locks.try(keys)
	if taken != "" {
		return nil, &errAgain{cause: errors.New("another call is changing " + string(taken)), keys: []writ.Key{taken}}
	}
	return release, nil
}

// guardReads makes the commit re-check everything this try looked at, and that
// it is not too old.
func (t *try) guardReads(tx *writ.Tx) {
	tx.GuardSnapshot(t.snap)
	tx.NotAfter(t.freshUntil())
}

// freshUntil is when what was read is too old to commit on, or the session that calls
// ends.
func (t *try) freshUntil() int64 {
	until := t.snap.Now + snapshotAge.Milliseconds()
	if t.session != nil && t.call.Credential != nil {
		until = min(until, t.session.ExpiresAt-1)
	}
	return until
}

func writesDocuments(tx writ.Tx) bool {
	return slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Kind == writ.OpPut || o.Kind == writ.OpDelete })
}

// changesNamed checks that the plan says which object each document it writes
// belongs to, and that every move is one the tables have.
func (t *try) changesNamed(tx writ.Tx) error {
	defect := func(format string, args ...any) error {
		return writ.Fault(writ.CodeInternal, "guard.commit", fmt.Errorf("%s: "+format, append([]any{t.k.ID}, args...)...))
	}
	if len(tx.Changes) == 0 {
		return defect("writes documents and names no change")
	}
	for i, c := range tx.Changes {
		if !writ.LegalMove(c.Kind, c.From, c.To) {
			return defect("%s %q → %q is not a legal move", c.Kind, c.From, c.To)
		}
		// A second move of one object begins where the first has led, or a receipt would
		// contradict itself.
		for _, before := range slices.Backward(tx.Changes[:i]) {
			if before.Kind == c.Kind && before.ID == c.ID {
				if before.To != c.From {
					return defect("%s moves to %q and then from %q", c.Kind, before.To, c.From)
				}
				break
			}
		}
	}
	for _, o := range tx.Ops {
		if o.Kind != writ.OpPut && o.Kind != writ.OpDelete {
			continue
		}
		kind, id, _ := strings.Cut(string(o.Key), "/")
		if slices.Contains(writ.ObjectKinds(), kind) && !slices.ContainsFunc(tx.Changes, func(c writ.Change) bool {
			return c.Kind == kind && (c.ID == id || kind == writ.ObjectGate)
		}) {
			return defect("writes %s without naming its move", o.Key)
		}
	}
	return nil
}

// statement is what this try's fact will say.
func (t *try) statement(outcome string, changes []writ.Change) writ.Statement {
	st := writ.Statement{
		Receipt:    writ.ReceiptID(t.call.NewID(writ.PrefixReceipt, 0)),
		Call:       t.call.ID,
		Tenant:     t.call.Caller.Tenant,
		Log:        t.d.cfg.Origin,
		Transition: string(t.k.ID),
		Version:    t.k.Version,
		Outcome:    outcome,
		Actor: writ.Actor{
			Agent: t.call.Caller.Agent, Kind: t.call.Caller.Kind, Role: t.call.Caller.Role, Session: t.call.Caller.Session,
		},
		Changes:  changes,
		Labels:   t.sub.Labels,
		Decision: t.dec,
		KeyID:    t.signingKey(),
	}
	if t.sub.Run != nil {
		st.Run = t.sub.Run.ID
	}
	if t.sub.Task != nil {
		st.Task = t.sub.Task.ID
	}
	if f, ok := t.call.Args.(interface{ FenceCarried() int64 }); ok {
		st.Fence = f.FenceCarried()
	}
	for _, c := range changes {
		switch {
		case c.Kind == writ.ObjectRun && st.Run == "":
			st.Run = writ.RunID(c.ID)
		case c.Kind == writ.ObjectTask && st.Task == "":
			st.Task = writ.TaskID(c.ID)
		}
		st.Parents = follows(st.Parents, t.receiptOf(c))
	}
	// What an agent is registered with says what it may do, judge and sign. That its receipts
	// name the last change of its entry keeps one from being left out of what is shown of them.
	if id := t.call.Caller.Agent; id != "" {
		st.Parents = follows(st.Parents, t.receiptOf(writ.Change{Kind: writ.ObjectAgent, ID: string(id)}))
	}
	// The nonce is public and the salt is not, so one must not give the other.
	h := sha256.Sum256(append([]byte("writ nonce v1\x00"), t.call.Salt[:]...))
	copy(st.Nonce[:], h[:16])
	return st
}

// follows adds a parent that is there, once.
func follows(parents []writ.ReceiptID, p writ.ReceiptID) []writ.ReceiptID {
	if p == "" || slices.Contains(parents, p) {
		return parents
	}
	return append(parents, p)
}

// signingKey is the one the gate names, as it was read: the commit guards it, so that
// no fact names another key. Where there is no gate yet, it is the one this replica has.
func (t *try) signingKey() string {
	if t.snap.Has(writ.GateKey) {
		if gate, _, _, err := writ.Get[writ.Gate](t.snap, writ.GateKey); err == nil && gate.ReceiptKeyID != "" {
			return gate.ReceiptKeyID
		}
	}
	return t.d.cfg.Sealer.KeyID()
}

// receiptOf is the receipt of the last change of an object before this one.
func (t *try) receiptOf(c writ.Change) writ.ReceiptID {
	key := writ.Key(c.Kind + "/" + c.ID)
	if c.Kind == writ.ObjectGate {
		key = writ.GateKey
	}
	if !t.snap.Has(key) {
		return ""
	}
	doc, _, ok, err := writ.Get[struct {
		Receipt writ.ReceiptID `json:"receipt"`
	}](t.snap, key)
	if err != nil || !ok {
		return ""
	}
	return doc.Receipt
}

// evidence is what a receipt's digest stands for: the call in full. It is
// stored encrypted beside the fact and never in the receipt. Arguments that
// were refused unread, or are too large to keep, are there by their digest: the
// SHA-256 of their JSON.
type evidence struct {
	Capability writ.CapabilityID `json:"capability"`
	Via        writ.CapabilityID `json:"via,omitempty"`
	Call       writ.CallID       `json:"call"`
	Principal  writ.PrincipalID  `json:"principal"`
	Args       any               `json:"args"`
	ArgsDigest string            `json:"args_digest,omitempty"`
	Limited    []writ.Limit      `json:"limited,omitempty"` // what was used instead of args
	Cosigned   *cosigned         `json:"cosigned,omitempty"`
	Verdict    *verdict          `json:"verdict,omitempty"`
	Findings   []writ.Finding    `json:"findings,omitempty"`
	Input      string            `json:"policy_input,omitempty"`
	Record     json.RawMessage   `json:"policy_record,omitempty"`
	Outcome    string            `json:"outcome,omitempty"`

	Warnings []writ.BudgetWarning `json:"budget_warnings,omitempty"`
	Quota    string               `json:"quota,omitempty"`   // over which the call was refused
	Details  map[string]string    `json:"details,omitempty"` // what its caller was told of why: ids and states, of who holds what it wanted for example
	Scopes   *scopesMoved         `json:"scopes,omitempty"`
}

// verdict is what the evidence keeps of a signed verdict: whoever trusts the key can
// check it again, without the gateway's word.
type verdict struct {
	Envelope json.RawMessage `json:"envelope"` // DSSE
	Key      writ.PublicKey  `json:"key"`      // that the agent had registered
}

// witnessed is what the evidence keeps of arguments. Those that are large and
// stored elsewhere by digest say so themselves.
func witnessed(args any) any {
	if a, ok := args.(interface{ Witnessed() any }); ok {
		return a.Witnessed()
	}
	return args
}

// addFact renders the statement and attaches it with its evidence.
func (t *try) addFact(tx *writ.Tx, st writ.Statement, reply writ.Reply) error {
	if len(t.dec.Record) > 0 {
		t.dec.InputDigest = blinded(t.call.Salt, t.dec.Record)
		st.Decision.InputDigest = t.dec.InputDigest
	}
	ev := evidence{
		Capability: t.k.ID, Via: t.call.Via, Call: t.call.ID, Principal: t.call.Caller.Principal,
		Args: witnessed(cmp.Or(t.asked, t.call.Args)), Limited: t.limited, Cosigned: t.signed, Findings: t.dec.Findings, Input: t.dec.InputDigest, Record: t.dec.Record, Outcome: string(reply.Outcome),
		Warnings: t.warned, Quota: t.quota, Scopes: moved(tx.Ops), Details: t.details,
	}
	if v := tx.Verdict; v != nil {
		ev.Verdict = &verdict{v.Envelope, v.Key}
	}
	if ev.Args == nil && t.call.Refused != nil {
		ev.Args = t.call.Raw // as the edge wrote them: it is nothing else's to read
	}
	if ev.Args == nil {
		ev.ArgsDigest = digestOf(t.call.Raw)
	}
	digest, sealed, err := t.d.cfg.Sealer.Evidence(t.call.Salt, st.Receipt, ev)
	if writ.CodeOf(err) == writ.CodeTooLarge && ev.Args != nil {
		args, merr := json.Marshal(ev.Args)
		if merr != nil {
			return writ.Fault(writ.CodeInternal, "guard.addFact", merr)
		}
		ev.Args, ev.ArgsDigest = nil, digestOf(args)
		digest, sealed, err = t.d.cfg.Sealer.Evidence(t.call.Salt, st.Receipt, ev)
	}
	if writ.CodeOf(err) == writ.CodeTooLarge && ev.Verdict != nil {
		return err // what it rests on must be kept whole
	}
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.addFact", err)
	}
	st.Evidence = digest
	head, tail, err := t.d.cfg.Sealer.Draft(st)
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.addFact", err)
	}
	tx.Fact = &writ.Fact{ID: st.Receipt, Run: st.Run, KeyID: st.KeyID, Head: head, Tail: tail, Evidence: sealed}
	return nil
}

// blinded is a digest of what policy judged that nobody can check a guess by: it has words of callers, and is in the receipt for
// good. Whoever has the evidence, with the record and the salt in it, can.
func blinded(salt [16]byte, record []byte) string {
	h := sha256.New()
	h.Write([]byte("writ policy input v1\x00"))
	h.Write(salt[:])
	h.Write(record)
	return hex.EncodeToString(h.Sum(nil))
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// leaves rings a bell when a transaction has left something in an index that is due at once.
func leaves(tx writ.Tx, index writ.Index, now int64, bell chan<- struct{}) {
	if slices.ContainsFunc(tx.Ops, func(o writ.Op) bool { return o.Kind == writ.OpIndex && o.Index == index && o.Score <= now }) {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

// store commits and sorts what can come back. That a guard failed says of every
// commit of the call that it did not happen: the store looks for the call first.
// That there is no room says it of this one.
func (t *try) store(ctx context.Context, tx writ.Tx) (writ.Committed, error) {
	// Nothing is committed whose receipt could not be sealed.
	if err := t.d.cfg.Sealer.Ready(); err != nil {
		return writ.Committed{}, &writ.Error{
			Code: writ.CodeNotReady, Op: "guard.commit", RetryMs: 1000, Err: err,
			Msg: "receipts cannot be signed, so nothing was done", Hint: "repeat the call; operators see the cause in the log",
		}
	}
	before := t.unsure
	done, err := t.d.cfg.Store.Commit(ctx, t.call.Caller.Tenant, tx)
	t.unsure = err != nil
	if err == nil {
		t.d.effects.changed(tx)
		leaves(tx, writ.IndexTodo, done.At, t.d.due)
		leaves(tx, writ.IndexUnfold, done.At, t.d.unfold)
		return done, nil
	}
	if _, ok := errors.AsType[*writ.Error](err); ok {
		return done, storeDown("guard.commit", err) // it may say itself what to do: it is fenced
	}
	if c, ok := errors.AsType[*store.Conflict](err); ok {
		t.unsure = false
		t.d.cfg.Observer.Conflict(string(c.Guard))
		again := &errAgain{cause: c}
		if c.Guard == writ.GuardExpect {
			again.keys = []writ.Key{writ.Key(c.Name)}
		}
		return done, again
	}
	if l, ok := errors.AsType[*store.Limit](err); ok {
		t.unsure = false
		// A counter filled up since it was read: the next plan sees it full.
		t.d.cfg.Observer.Conflict("limit")
		return done, &errAgain{cause: l}
	}
	if errors.Is(err, store.ErrFenced) {
		t.unsure = false
		t.d.cfg.Observer.Conflict(string(writ.GuardEpoch))
		return done, &errAgain{cause: err}
	}
	if errors.Is(err, store.ErrFull) {
		t.unsure = before
		return done, &writ.Error{
			Code: writ.CodeStore, Op: "guard.commit", RetryMs: 5000, Err: err,
			Msg: "the store is out of space, so nothing was done", Hint: "operators: see /readyz",
		}
	}
	return done, storeDown("guard.commit", err)
}
