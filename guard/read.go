package guard

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// first reads what says who calls and what is in force, and nothing else: what
// a stranger sends is not looked into, and costs no more than this.
func (t *try) first(ctx context.Context) error {
	if c := t.call.Credential; c != nil {
		if !slices.Contains(t.d.cfg.Shards, c.Tenant) || !c.Session.Valid() {
			return unauthenticated()
		}
		t.call.Caller = writ.Caller{Tenant: c.Tenant}
	} else if t.call.Behalf != "" {
		t.call.Caller = writ.Caller{Tenant: t.call.Caller.Tenant}
	}
	return t.read(ctx, writ.ReadSet{Docs: t.standing()})
}

// acting is the session the call is made by, or for; "" for one of the gateway's own.
func (t *try) acting() writ.SessionID {
	if c := t.call.Credential; c != nil {
		return c.Session
	}
	return t.call.Behalf
}

// standing are the documents every call stands on: the gate, its session and,
// once it is known, the agents that session stands or falls with.
func (t *try) standing() []writ.Key {
	keys := []writ.Key{writ.GateKey}
	if id := t.acting(); id != "" {
		keys = append(keys, writ.SessionKey(id))
		for _, a := range t.call.Caller.Agents() {
			keys = append(keys, writ.AgentKey(a))
		}
	}
	return keys
}

// stands refuses a session whose agent, or one that is behind it, is not active:
// the commit that stops an agent stops its sessions, before any of them is revoked.
// What commits afterwards expects these documents as they were read, so it comes
// before that commit or not at all. What is done for a session wants agents that were not
// stopped since it was opened: one that had ended by then was not revoked with the rest.
func (t *try) stands(ctx context.Context) error {
	agents := t.call.Caller.Agents()
	if t.acting() == "" || len(agents) == 0 {
		return nil
	}
	if err := t.read(ctx, writ.ReadSet{Docs: t.standing()}); err != nil {
		return err
	}
	for _, id := range agents {
		a, _, ok, err := writ.Get[writ.Agent](t.snap, writ.AgentKey(id))
		if err != nil {
			return err
		}
		if !ok || a.State != writ.AgentActive || t.call.Behalf != "" && a.StoppedAt >= t.session.CreatedAt {
			t.forget()
			return unauthenticated()
		}
	}
	return nil
}

// unread refuses what cannot be looked into. Who is no one any more is told that and
// nothing else.
func (t *try) unread(ctx context.Context, err error) (writ.Reply, *writ.Receipt, error) {
	if stopped := t.stands(ctx); stopped != nil {
		err = stopped
	}
	return writ.Reply{}, nil, err
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
			Blobs: map[string]writ.BlobState{},
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
	for _, digest := range want.Blobs {
		if t.d.cfg.Blobs == nil {
			return writ.Fault(writ.CodeInternal, "guard.read", errors.New("there is no store of blobs"))
		}
		state, err := t.d.cfg.Blobs.Examine(ctx, digest)
		if err != nil {
			return storeDown("guard.read", err)
		}
		t.snap.Blobs[digest] = state
	}
	want.Archive, want.Blobs = nil, nil
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
			if t.snap.Has(k) && s.Docs[k].Version != t.snap.Docs[k].Version {
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

// hops reads until the capability asks for nothing new.
func (t *try) hops(ctx context.Context) error {
	base := writ.ReadSet{}
	for _, a := range t.call.Caller.Agents() {
		base.Docs = append(base.Docs, writ.AgentKey(a))
	}
	if t.call.IdempotencyKey != "" && !t.k.ReadOnly() {
		base.Docs = append(base.Docs, writ.IdempotencyDoc(t.call.Caller, t.call.IdempotencyKey))
	}
	return t.readFor(ctx, max(maxHops, t.k.Hops), func() (writ.ReadSet, error) {
		begun, err := t.effectReads()
		if err != nil {
			return base, err
		}
		more, err := t.k.Reads(t.call, t.snap)
		return base.Join(begun).Join(more), err
	})
}

// readFor reads what somebody asks for until nothing new is named, at most hops times.
func (t *try) readFor(ctx context.Context, hops int, more func() (writ.ReadSet, error)) error {
	for range hops {
		want, err := more()
		if err != nil {
			return err
		}
		if want = t.snap.Missing(want); want.Empty() {
			return nil
		}
		if err := t.read(ctx, want); err != nil {
			return err
		}
	}
	want, err := more()
	if err != nil {
		return err
	}
	if missing := t.snap.Missing(want); !missing.Empty() {
		return writ.Fault(writ.CodeInternal, "guard.Do", errors.New("the capability asks for more reads than a call may make"))
	}
	return nil
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
