package guard

import (
	"context"

	"github.com/writ-gateway/writ"
)

// durable holds the store to what policy wants a reply to mean, right before
// something is committed: a server can be configured anew while it runs. Nothing
// is asked of calls that commit nothing.
func (t *try) durable(ctx context.Context) error {
	const hint = "repeat the call later; operators: /readyz says what a reply means"
	if err := t.builtOnLogged(ctx); err != nil {
		return err
	}
	switch want := t.durability(); want {
	case "", writ.DurabilityBuffered: // every store has taken the change when it answers
		return nil
	case writ.DurabilityCommitted:
		info, err := t.d.cfg.Store.Info(ctx)
		switch {
		case err != nil:
			return storeDown("guard.durable", err)
		case info.Durability == want:
			return nil
		}
		return t.notDurable("policy wants this change on disk before it is answered, and the store does not promise that now", hint)
	case writ.DurabilityLogged:
		if t.d.cfg.Published == nil {
			return t.notDurable("policy wants this change in a transparency log before it is answered, and this gateway knows of none",
				"operators: take the obligation from the pack, or ask for committed")
		}
		return nil // the answer waits
	}
	return t.notDurable("policy wants a durability this gateway does not know", hint)
}

func (t *try) notDurable(msg, hint string) error {
	return &writ.Error{Code: writ.CodeStore, Op: "guard.durable", RetryMs: 5000, Msg: msg + ", so nothing was done", Hint: hint, Rules: t.dec.Rules()}
}
