package guard

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/writ-gateway/writ"
)

// Jails are the door's part in running agents in jails: it says which are wanted and
// which go on, and notes what became of them.
type Jails struct {
	door  *Door
	shard writ.Tenant
}

// Jails are those of a shard.
func (d *Door) Jails(shard writ.Tenant) *Jails { return &Jails{d, shard} }

// jailsAtOnce is how many jails one read shows.
const jailsAtOnce = 100

// All are all jails that have not ended, the oldest session first.
func (j *Jails) All(ctx context.Context) (out []writ.JailSeen, err error) {
	for page := (writ.Page{Index: writ.IndexJails, Limit: jailsAtOnce}); ; {
		s, err := j.door.cfg.Store.Read(ctx, j.shard, writ.ReadSet{Ranges: []writ.Range{page.Range()}})
		if err != nil {
			return nil, storeDown("guard.jails", err)
		}
		names, next := page.Of(s)
		if len(names) == 0 {
			return out, nil
		}
		var rs writ.ReadSet
		for _, n := range names {
			rs.Docs = append(rs.Docs, writ.JailKey(writ.SessionID(n)), writ.SessionKey(writ.SessionID(n)))
		}
		if s, err = j.door.cfg.Store.Read(ctx, j.shard, rs); err != nil {
			return nil, storeDown("guard.jails", err)
		}
		for _, n := range names {
			jail, _, ok, err := writ.Get[writ.Jail](s, writ.JailKey(writ.SessionID(n)))
			if err != nil {
				return nil, err
			}
			ses, _, _, err := writ.Get[writ.Session](s, writ.SessionKey(writ.SessionID(n)))
			if err != nil {
				return nil, err
			}
			if ok && jail.State != writ.JailEnded {
				out = append(out, writ.JailSeen{Jail: jail, Session: ses})
			}
		}
		if next == "" {
			return out, nil
		}
		page.After = next
	}
}

// Note says what became of a jail this replica, host, has or wants to have. Of two
// replicas that want one, the other is refused.
func (j *Jails) Note(ctx context.Context, host string, id writ.SessionID, to writ.JailState, features map[string]string, exit *writ.JailExit) error {
	args := map[string]any{"session_id": id, "host": host, "state": to}
	if len(features) > 0 {
		args["features"] = features
	}
	if exit != nil {
		args["exit"] = exit
	}
	_, _, err := j.door.System(ctx, j.shard, "session.jail", args, nil)
	if writ.CodeOf(err) == writ.CodeReceiptPending { // it is noted, and only its proof is late
		return nil
	}
	return err
}

// As makes a call of a session that runs in a jail of this replica: it is judged as
// any other call of that session. Nobody has its secret, and the digest is in its
// document. Made again under a key it is the same call, as Idempotency-Key makes others'.
func (j *Jails) As(ctx context.Context, ses writ.Session, id writ.CapabilityID, key string, args any) error {
	return j.as(ctx, ses, args, &writ.Call{Capability: id, IdempotencyKey: key})
}

// Beat is the sign of life of a session that runs in a jail of this replica, and what its
// agent uses there.
func (j *Jails) Beat(ctx context.Context, ses writ.Session, used writ.JailUse) error {
	return j.as(ctx, ses, map[string]any{"session_id": ses.ID}, &writ.Call{Capability: "session.heartbeat", Used: &used})
}

func (j *Jails) as(ctx context.Context, ses writ.Session, args any, call *writ.Call) error {
	raw, err := json.Marshal(args)
	if err != nil {
		return writ.Fault(writ.CodeInternal, "guard.jails", err)
	}
	who := writ.Credential{Tenant: j.shard, Session: ses.ID}
	if n, err := hex.Decode(who.SecretHash[:], []byte(ses.TokenHash)); err != nil || n != len(who.SecretHash) {
		return writ.Fault(writ.CodeInternal, "guard.jails", errors.New("the session has no digest of its secret"))
	}
	call.Raw, call.Credential, call.Jailed = raw, &who, true
	if err := j.door.Stamp(call); err != nil {
		return err
	}
	_, _, err = j.door.Do(ctx, call)
	if writ.CodeOf(err) == writ.CodeReceiptPending {
		return nil
	}
	return err
}
