package effects

import "github.com/writ-gateway/writ"

// EffectResolveArgs say what a person found out.
type EffectResolveArgs struct {
	ID writ.EffectID `json:"effect_id" doc:"The effect." pattern:"^eff_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	As Found         `json:"as" doc:"ok: it has happened; error: it has not; repeat: who asked for it may have it attempted once more, with the same key." enum:"ok,error,repeat"`
}

// Found is what a person says of an effect.
type Found string

const (
	FoundOK     Found = "ok"
	FoundError  Found = "error"
	FoundRepeat Found = "repeat"
)

// resolve takes a person's word for what became of an effect. What was held for it stays
// charged: nobody has measured what it came to.
func resolve() *writ.Capability {
	const op = "effects.Resolve"
	return writ.Define[EffectResolveArgs, EffectView](writ.Capability{
		ID: "effect.resolve", Safety: writ.SafetyMutating, Summary: "Say what became of an effect of which the gateway does not know.",
		Example: `{"effect_id":"eff_01M89R8763R5PGQGSMXGFWBA4N","as":"error"}`,
	}, writ.Verb[EffectResolveArgs]{
		Locks: func(_ *writ.Call, a *EffectResolveArgs) []writ.Key { return []writ.Key{writ.IntentKey(a.ID)} },
		Reads: func(_ *writ.Call, a *EffectResolveArgs, s writ.Snapshot) (writ.ReadSet, error) { return reads(a.ID, s) },
		Describe: func(_ *writ.Call, a *EffectResolveArgs, s writ.Snapshot) (writ.Subject, error) {
			return describe(a.ID, s)
		},
		Plan: func(c *writ.Call, a *EffectResolveArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			i, version, ok, err := writ.Get[writ.Intent](s, writ.IntentKey(a.ID))
			switch {
			case err != nil:
				return tx, r, err
			case !ok:
				return tx, r, notFound(op)
			}
			if err := c.Match(op, version); err != nil {
				return tx, r, err
			}
			to := map[Found]writ.IntentState{FoundOK: writ.IntentOK, FoundError: writ.IntentError, FoundRepeat: writ.IntentUnknown}[a.As]
			if i.State != writ.IntentUnknown || to == i.State && i.Repeat {
				return tx, r, writ.IllegalMove(op, writ.ObjectEffect, string(i.State), string(to))
			}
			i.DecidedBy, i.Repeat = c.Caller.Session, a.As == FoundRepeat
			if i.SettledAt == 0 {
				i.SettledAt, i.Settled = s.Now, i.Held
			}
			fact := writ.EffectFact{Settled: i.Settled}
			if a.As == FoundError {
				i.Code, fact.Code = writ.CodeEffectFailed, writ.CodeEffectFailed
			}
			shown := i
			shown.State, shown.UpdatedAt, shown.Receipt = to, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(shown, s), ETag: -1}, move(c, s, &tx, i, to, fact)
		},
	})
}
