package effects

import "github.com/writ-gateway/writ"

// settle takes what became of an attempt.
func settle() *writ.Capability {
	return writ.Define[writ.EffectSettleArgs, writ.EffectSettled](writ.Capability{
		ID: writ.EffectSettle, Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Note what became of an effect, and charge what it came to.",
	}, writ.Verb[writ.EffectSettleArgs]{
		Locks: func(_ *writ.Call, a *writ.EffectSettleArgs) []writ.Key { return []writ.Key{writ.IntentKey(a.Effect)} },
		Reads: func(_ *writ.Call, a *writ.EffectSettleArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs, err := reads(a.Effect, s)
			rs.Docs = append(rs.Docs, writ.EffectReplyKey(a.Effect))
			return rs, err
		},
		Describe: func(_ *writ.Call, a *writ.EffectSettleArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(a.Effect, s)
		},
		Plan: func(c *writ.Call, a *writ.EffectSettleArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			i, version, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(a.Effect))
			if err != nil {
				return tx, r, err
			}
			is := writ.EffectSettled{State: i.State, Version: version, Receipt: i.Receipt}
			r.Outcome = writ.OutcomeDone
			said := ok && i.SettledBy == a.By
			late := i.State == writ.IntentUnknown
			// Who cannot tell either what became of it can still say what it came to.
			adds := !late || a.State != writ.IntentUnknown || i.SettledAt == 0
			if !ok || said || i.Attempt != a.Attempt || !i.State.Open() || !adds {
				is.Taken = said
				r.Body = is
				return tx, r, nil
			}
			run, _, _, err := runOf(i, s)
			if err != nil {
				return tx, r, err
			}
			tx.Charged = i.Settle(&tx, run, a.Used, s.Now)
			tx.SettleQuotas(s, i.Quotas, a.Used[writ.BudgetEgress])
			i.Quotas = nil
			i.SettledBy, i.Code, i.Late = a.By, a.Code, late
			if a.State == writ.IntentOK && len(a.Reply) > 0 {
				tx.PutFor(writ.EffectReplyKey(i.ID), a.Reply, writ.EffectKeptMs)
			}
			is.State, is.Taken, is.Receipt = a.State, true, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			r.Body, r.Versioned = is, []string{"version"}
			fact := writ.EffectFact{Late: i.Late, Settled: i.Settled}
			if a.State != writ.IntentOK { // of what has happened the evidence says it: a receipt has no reason why not
				fact.Code = a.Code
			}
			return tx, r, move(c, s, &tx, i, a.State, fact)
		},
	})
}

// runOf is the run of an effect, if it has one.
func runOf(i writ.Intent, s writ.Snapshot) (run writ.Run, version int64, ok bool, err error) {
	if i.Run == "" {
		return run, 0, false, nil
	}
	return writ.Get[writ.Run](s, writ.RunKey(i.Run))
}

// Expired says what became of an effect whose lease was looked at.
type Expired struct {
	Unknown bool `json:"unknown" doc:"Whether nobody knows now what became of it."`
}

// expire calls an effect unknown whose lease nobody renewed. What was held for it stays
// charged: it may have been used. Its run need not wait for that any more.
func expire() *writ.Capability {
	return writ.Define[EffectArgs, Expired](writ.Capability{
		ID: "effect.expire", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Say of an effect that nobody carries out any more that it is unknown what became of it.",
	}, writ.Verb[EffectArgs]{
		Locks:    func(_ *writ.Call, a *EffectArgs) []writ.Key { return []writ.Key{writ.IntentKey(a.ID)} },
		Reads:    func(_ *writ.Call, a *EffectArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(a.ID, s) },
		Describe: func(_ *writ.Call, a *EffectArgs, s writ.Snapshot) (writ.Subject, error) { return describe(a.ID, s) },
		Plan: func(c *writ.Call, a *EffectArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			r = writ.Reply{Outcome: writ.OutcomeDone, Body: Expired{}}
			i, _, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(a.ID))
			if err != nil {
				return tx, r, err
			}
			lease := writ.EffectLease(a.ID)
			switch end := s.Counters[lease]; {
			case !ok || i.State != writ.IntentUnderWay:
				tx.Unindex(writ.IndexEffectLeases, string(a.ID))
				return tx, r, nil
			case s.Now <= end:
				tx.Within(lease, end, end)
				tx.Index(writ.IndexEffectLeases, string(a.ID), end)
				return tx, r, nil
			}
			r.Body = Expired{Unknown: true}
			return tx, r, move(c, s, &tx, i, writ.IntentUnknown, writ.EffectFact{})
		},
	})
}
