package effects

import "github.com/writ-gateway/writ"

// What lists and counters hold about effects follows from their documents. This file says
// how, for who looks whether it still does; no verb uses it.

// Follower says what follows from the documents of effects.
func Follower() writ.Follower {
	return writ.Follower{Kind: writ.ObjectEffect, Reads: followReads, Sound: coherent, Implies: implies, Counts: counts}
}

func followReads(id string, _ writ.Snapshot) (rs writ.ReadSet, err error) {
	rs.Counters = []writ.Counter{writ.EffectLease(writ.EffectID(id))}
	return rs, nil
}

// coherent says what contradicts itself in an effect.
func coherent(id string, s writ.Snapshot) (string, error) {
	i, _, _, err := writ.Get[writ.Intent](s, writ.IntentKey(writ.EffectID(id)))
	if err != nil {
		return "", err
	}
	return writ.Incoherent(writ.ObjectEffect, id, string(i.ID), writ.IntentMoves, i.State), nil
}

func implies(id string, s writ.Snapshot) ([]writ.Implied, error) {
	i, _, _, err := writ.Get[writ.Intent](s, writ.IntentKey(writ.EffectID(id)))
	if err != nil {
		return nil, err
	}
	is := "the effect is " + string(i.State)
	end := s.Counters[writ.EffectLease(i.ID)]
	return []writ.Implied{
		writ.InIf(i.State.Open(), writ.IndexEffects, id, is),
		writ.InIf(i.State == writ.IntentUnknown, writ.IndexUnknown, id, is),
		// Who comes too early looks again, and one that has ended is dropped when it is met.
		{Entry: writ.Entry{Index: writ.IndexEffectLeases, Member: id, Score: end}, Out: i.State != writ.IntentUnderWay, Soon: true, Why: is},
	}, nil
}

// counts: a run waits with its budget for effects that are under way, and what they hold
// of it may come back.
func counts(id string, s writ.Snapshot) (out []writ.Count, err error) {
	i, _, _, err := writ.Get[writ.Intent](s, writ.IntentKey(writ.EffectID(id)))
	if err != nil || i.Run == "" {
		return nil, err
	}
	goes := i.State == writ.IntentUnderWay
	part := func(n int64) int64 {
		if goes {
			return n
		}
		return 0
	}
	out = append(out, writ.Count{Counter: writ.RunEffects(i.Run), N: part(1)})
	for _, dim := range writ.Dimensions(i.Held) {
		out = append(out, writ.Count{Counter: writ.BudgetHeld(i.Run, dim), N: part(i.Held[dim])})
	}
	return out, nil
}
