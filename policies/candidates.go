package policies

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// candidates are rules that are compiled and can be put in force at once: those
// staged, those in force and those before them.
type candidates struct {
	held   atomic.Pointer[map[string]*snapshot] // by digest of the bundle; never changed, only replaced
	change sync.Mutex
	gate   atomic.Int64 // version of the gate that put e.now in force
	missed chan struct{}
}

func (c *candidates) holding() map[string]*snapshot {
	if m := c.held.Load(); m != nil {
		return *m
	}
	return nil
}

// candidateWarmUp is shorter than at the start: calls are being served meanwhile,
// and a pack that never ends also takes memory.
const candidateWarmUp = 3 * time.Second

// Prepare compiles a canonical bundle beside the rules in force and holds it
// until Keep lets it go. A bundle that is held already costs nothing.
func (e *Engine) Prepare(ctx context.Context, bundle []byte) (*Rules, error) {
	if s := e.Holds(digest(bundle)); s != nil {
		return s, nil
	}
	o := e.options
	o.WarmUp = min(o.WarmUp, candidateWarmUp)
	s, err := e.build(ctx, bundleSource(bundle), o)
	if err != nil {
		return nil, err
	}
	e.hold(s)
	return s, nil
}

func (e *Engine) hold(s *snapshot) {
	e.change.Lock()
	defer e.change.Unlock()
	m := maps.Clone(e.holding())
	if m == nil {
		m = map[string]*snapshot{}
	}
	m[s.digest] = s
	e.held.Store(&m)
}

// Holds is the compiled rules of a bundle, nil when they are not held.
func (e *Engine) Holds(digest string) *Rules {
	if s := e.now.Load(); s.digest == digest {
		return s
	}
	return e.holding()[digest]
}

// Keep lets go of every candidate but these and the rules in force.
func (e *Engine) Keep(digests []string) {
	e.change.Lock()
	defer e.change.Unlock()
	m := maps.Clone(e.holding())
	now := e.now.Load().digest
	maps.DeleteFunc(m, func(d string, _ *snapshot) bool { return d != now && !slices.Contains(digests, d) })
	e.held.Store(&m)
}

// Under is the rules a gate names, if they are held: a bundle that is compiled,
// with bindings that were made ready. version is the gate's, which grows with
// every change of it. The newest gate seen is what the engine's own
// methods answer from. A call keeps the rules it was given: whatever is put in
// force meanwhile, it is judged by one set of rules, the one its gate names.
func (e *Engine) Under(policy, bindings string, version int64) (*Rules, bool) {
	s := e.Follow(policy, bindings, version)
	if s == nil {
		select {
		case e.missed <- struct{}{}:
		default:
		}
	}
	return s, s != nil
}

// Follow is Under for whoever looks after the engine himself: nobody is told of
// what is missing.
func (e *Engine) Follow(policy, bindings string, version int64) *Rules {
	s := e.now.Load()
	if s.policy != policy || s.bindings != bindings {
		s = e.find(policy, bindings)
	}
	if s != nil && version > e.gate.Load() {
		e.enforce(s, version)
	}
	return s
}

// find looks for rules among all that are held.
func (e *Engine) find(policy, bindings string) *snapshot {
	now := e.now.Load()
	over := append([]overlay{now.over}, e.ready()...)
	if s := now.as(policy, bindings, over); s != nil {
		return s
	}
	for _, held := range e.holding() {
		if s := held.as(policy, bindings, over); s != nil {
			return s
		}
	}
	return nil
}

// enforce makes s what the engine answers from, unless a newer gate has named
// other rules already.
func (e *Engine) enforce(s *snapshot, version int64) {
	e.change.Lock()
	defer e.change.Unlock()
	if version <= e.gate.Load() {
		return
	}
	if old := e.now.Load(); old.digest != s.digest { // a rollback is likely soon, if there is one
		m := maps.Clone(e.holding())
		if m == nil {
			m = map[string]*snapshot{}
		}
		m[old.digest] = old
		e.held.Store(&m)
	}
	e.now.Store(s)
	e.gate.Store(version)
}

// Missed rings when a call met a gate that names rules the engine does not hold.
func (e *Engine) Missed() <-chan struct{} { return e.missed }
