package guard_test

import (
	"context"
	"errors"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store"
)

// gone is a store whose server went away; like redisstore it says no more than
// a code.
type gone struct {
	store.Store
	reading, committing bool
}

var errGone = writ.Fault(writ.CodeStore, "test", errors.New("connection refused"))

func (g *gone) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if g.reading {
		return writ.Snapshot{}, errGone
	}
	return g.Store.Read(ctx, shard, rs)
}

func (g *gone) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if g.committing {
		return writ.Committed{}, errGone
	}
	return g.Store.Commit(ctx, shard, tx)
}

func TestAStoreThatIsGoneIsExplained(t *testing.T) {
	var g *gone
	w := newWorld(t, func(c *guard.Config) { g = &gone{Store: c.Store}; c.Store = g })
	alice := w.session("alice")
	for name, set := range map[string]func(){
		"reading":    func() { g.reading, g.committing = true, false },
		"committing": func() { g.reading, g.committing = false, true },
	} {
		set()
		_, _, err := w.call(alice, "test.bump", thingArgs{Run: runID(1)}, "")
		e := writ.AsError("", err)
		if e == nil || e.Code != writ.CodeStore || e.Msg == "" || e.Hint == "" || e.RetryMs == 0 || !errors.Is(err, errGone) {
			t.Errorf("%s: got %+v", name, e)
		}
	}
}
