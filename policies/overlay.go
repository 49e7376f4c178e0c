package policies

import (
	"sync"
	"sync/atomic"

	"github.com/writ-gateway/writ"
)

// overlay is what capabilities said about bindings in one tenant. It lies on top
// of the roles' file of whatever bundle is in force, and costs a bundle nothing
// but a look: nothing is compiled when it changes.
type overlay struct {
	tenant writ.Tenant
	said   writ.BindingSet
	digest string
}

// on is what lies on top of the file in a tenant.
func (o overlay) on(t writ.Tenant) writ.BindingSet {
	if t != o.tenant {
		return nil
	}
	return o.said
}

// with is the same rules under other bindings by capability.
func (s *snapshot) with(o overlay) *snapshot {
	c := *s
	c.over, c.bindings = o, writ.BindingsRevision(s.own, o.digest)
	return &c
}

// as is these rules with the bindings that give them a revision, nil when they
// are others or none of the bindings do.
func (s *snapshot) as(policy, bindings string, over []overlay) *snapshot {
	switch {
	case s.policy != policy:
		return nil
	case s.bindings == bindings:
		return s
	}
	for _, o := range over {
		if writ.BindingsRevision(s.own, o.digest) == bindings {
			return s.with(o)
		}
	}
	return nil
}

// overlays are the bindings a gate may name soon, or named a moment ago.
type overlays struct {
	recent atomic.Pointer[[]overlay] // newest first; never changed, only replaced
	adding sync.Mutex
}

// maxOverlays is more than change between a call's reading of the gate and its
// looking for the rules the gate names.
const maxOverlays = 8

func (o *overlays) ready() []overlay {
	if l := o.recent.Load(); l != nil {
		return *l
	}
	return []overlay{{}}
}

// Bind makes bindings ready: from now on a gate may name them with any bundle
// that is held. What they take from or give to whom is in force when a gate
// names them, not before. The set MUST not be changed any more.
func (o *overlays) Bind(tenant writ.Tenant, set writ.BindingSet) {
	var add overlay // none
	if len(set) > 0 {
		add = overlay{tenant: tenant, said: set, digest: set.Digest(tenant)}
	}
	o.adding.Lock()
	defer o.adding.Unlock()
	list := []overlay{add}
	for _, old := range o.ready() {
		if old.digest != add.digest && len(list) < maxOverlays {
			list = append(list, old)
		}
	}
	o.recent.Store(&list)
}
