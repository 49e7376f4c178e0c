package guard

import (
	"context"

	"github.com/writ-gateway/writ"
)

// confined holds the call to the jail policy wants it made from. The jail is read in this
// try, so the commit fails if it ended meanwhile.
func (t *try) confined(ctx context.Context) error {
	want := t.dec.Duties.Jail
	if want == "" || t.k.Jails {
		return nil
	}
	const hint = "run the agent with session.spawn, and with this tier in its registration's jail; docs/jail.md says what that takes"
	none := t.owes("policy wants this done from a jail of the tier "+string(want)+" or stronger", hint)
	if t.session == nil || !t.session.Spawned {
		return none
	}
	key := writ.JailKey(t.session.ID)
	if err := t.read(ctx, writ.ReadSet{Docs: []writ.Key{key}}); err != nil {
		return err
	}
	jail, _, ok, err := writ.Get[writ.Jail](t.snap, key)
	if err == nil && (!ok || !jail.Holds(want)) {
		err = none
	}
	return err
}
