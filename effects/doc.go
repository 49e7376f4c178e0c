// Package effects keeps what calls did outside the store: it plans what follows once an
// effect has begun, and shows to people what became of it.
//
// It is pure planning; the door begins effects and carries them out. Its invariants:
//
//   - what an attempt came to is charged once, whoever says it and however often;
//   - only an effect whose lease has ended becomes unknown without its replica saying so;
//   - an outcome that comes late holds, unless the effect was attempted again meanwhile or
//     a person has said what became of it;
//   - what is unknown and not idempotent is not attempted again until a person says so.
package effects

import "github.com/writ-gateway/writ"

// Capabilities are the verbs of this room.
func Capabilities() []*writ.Capability {
	return []*writ.Capability{settle(), expire(), get(), list(), resolve()}
}

// EffectArgs name an effect.
type EffectArgs struct {
	ID writ.EffectID `json:"effect_id" doc:"The effect." pattern:"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// reads names what must be known of an effect to change it.
func reads(id writ.EffectID, s writ.Snapshot) (rs writ.ReadSet, err error) {
	rs.Docs = []writ.Key{writ.IntentKey(id)}
	rs.Counters = []writ.Counter{writ.EffectLease(id)}
	if !s.Has(rs.Docs[0]) {
		return rs, nil
	}
	i, _, ok, err := writ.Get[writ.Intent](s, rs.Docs[0])
	if err == nil && ok && i.Run != "" {
		rs.Docs = append(rs.Docs, writ.RunKey(i.Run))
	}
	for _, h := range i.Quotas {
		rs.Counters = append(rs.Counters, writ.QuotaUsed(h.Tag), writ.QuotaBegan(h.Tag))
	}
	return rs, err
}

// describe says which run an effect is of.
func describe(id writ.EffectID, s writ.Snapshot) (sub writ.Subject, err error) {
	i, _, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(id))
	if err != nil || !ok || i.Run == "" {
		return sub, err
	}
	run, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(i.Run))
	if err == nil && ok {
		sub.Run = &writ.RunFacts{ID: run.ID, State: run.State}
	}
	return sub, err
}

// move puts an effect into another state, with all that follows, and forgets it after a
// day if it has ended.
func move(c *writ.Call, s writ.Snapshot, tx *writ.Tx, i writ.Intent, to writ.IntentState, fact writ.EffectFact) error {
	from := i.State
	i.Enter(tx, to)
	i.State, i.UpdatedAt, i.Receipt = to, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
	if from == writ.IntentUnderWay {
		lease := writ.EffectLease(i.ID)
		end := s.Counters[lease]
		tx.Within(lease, end, end)
		tx.Add(lease, -end)
		tx.Unindex(writ.IndexEffectLeases, string(i.ID))
	}
	fact.Attempt = i.Attempt
	tx.Effect = &fact
	tx.Move(writ.ObjectEffect, string(i.ID), string(from), string(to))
	key := writ.IntentKey(i.ID)
	if to.Open() {
		return tx.PutDoc(s, key, writ.ObjectEffect, i)
	}
	doc, err := writ.EncodeDoc(s, key, writ.ObjectEffect, i)
	if err == nil {
		tx.PutFor(key, doc, writ.EffectKeptMs)
	}
	return err
}
