package guard

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// effects are those this replica carries out. While there are any, one loop renews their
// leases and stops those that may not go on: because their session or an agent of it has
// ended, the role was taken away, their run is over, the task they are for is not held any
// more, their session was given data of a kind they were not judged for, a document they
// rest on has changed, or they are leased to this replica no more.
//
// The loop looks often, and at once when a commit of this replica changes a document that
// matters to one. Another replica's commit is seen at the next look.
type effects struct {
	places  *slots
	ring    chan struct{}
	alive   context.Context // until the store is about to be closed
	abandon context.CancelFunc

	mu       sync.Mutex
	going    int           // calls that are, or may come to be, under way, and what is done for them
	stopping bool          // none begins any more
	idle     chan struct{} // closed when nothing goes on and none begins any more

	under   map[*underway]bool
	watched map[writ.Key]int
	looping bool
	trouble Trouble
}

// underway is one effect at work. What is below cancel is the loop's.
type underway struct {
	shard  writ.Tenant
	id     writ.EffectID
	fence  int64
	caller writ.Caller
	call   writ.CapabilityID
	run    writ.RunID
	while  map[writ.Key]int64
	errand *writ.Errand
	cancel context.CancelCauseFunc

	leased  int64 // the end of its lease, by the store's time
	renewed time.Time
}

func newEffects(max int) *effects {
	e := &effects{places: newSlots(max), ring: make(chan struct{}, 1), idle: make(chan struct{}), under: map[*underway]bool{}, watched: map[writ.Key]int{}}
	e.alive, e.abandon = context.WithCancel(context.Background())
	return e
}

// enter counts somebody in who may begin an effect; false: none begins any more.
func (e *effects) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return false
	}
	e.going++
	return true
}

// leave counts out what was counted in.
func (e *effects) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.going--; e.going == 0 && e.stopping {
		close(e.idle)
	}
}

// do does something beside, for somebody who was counted in.
func (e *effects) do(f func()) {
	e.mu.Lock()
	e.going++
	e.mu.Unlock()
	go func() {
		defer e.leave()
		f()
	}()
}

// keys are the documents it rests on.
func (u *underway) keys() []writ.Key {
	out := []writ.Key{writ.IntentKey(u.id)}
	if u.caller.Session != "" {
		out = append(out, writ.SessionKey(u.caller.Session))
	}
	for _, a := range u.caller.Agents() {
		out = append(out, writ.AgentKey(a))
	}
	if u.run != "" {
		out = append(out, writ.RunKey(u.run))
	}
	if u.errand.Task != "" {
		out = append(out, writ.TaskKey(u.errand.Task), writ.GivenKey(u.caller.Session))
	}
	for k := range u.while {
		out = append(out, k)
	}
	return out
}

// counters are those it rests on.
func (u *underway) counters() (out []writ.Counter) {
	if u.errand.Task != "" {
		out = append(out, writ.TaskLease(u.errand.Task))
	}
	return out
}

// begin notes an effect that begins, and gives it the context it runs in.
func (e *effects) begin(ctx context.Context, d *Door, t *try) (context.Context, *underway) {
	b := t.begun
	run, cancel := context.WithCancelCause(ctx)
	u := &underway{
		shard: t.call.Caller.Tenant, id: b.doc.ID, fence: b.fence, caller: t.call.Caller, call: t.k.ID, run: b.doc.Run, while: map[writ.Key]int64{}, errand: b.errand,
		leased: b.leased, renewed: time.Now(),
	}
	for _, k := range b.errand.While {
		u.while[k] = t.snap.Docs[k].Version
	}
	long := b.errand.TimeoutMs
	if long <= 0 {
		long = writ.EffectTimeoutMs
	}
	late := time.AfterFunc(time.Duration(min(long, writ.MaxEffectMs))*time.Millisecond, func() { cancel(stopped("timeout")) })
	u.cancel = func(cause error) { late.Stop(); cancel(cause) }
	e.mu.Lock()
	defer e.mu.Unlock()
	e.under[u] = true
	for _, k := range u.keys() {
		e.watched[k]++
	}
	if !e.looping {
		e.looping = true
		go d.watchEffects() // it ends with the last of them
	}
	e.look()
	return run, u
}

// end notes that what became of an effect is said.
func (e *effects) end(u *underway) {
	u.cancel(nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.under, u)
	for _, k := range u.keys() {
		if e.watched[k]--; e.watched[k] == 0 {
			delete(e.watched, k)
		}
	}
	e.look()
}

// look has the loop look now.
func (e *effects) look() {
	select {
	case e.ring <- struct{}{}:
	default:
	}
}

// changed has the loop look when a commit changed what an effect rests on.
func (e *effects) changed(tx writ.Tx) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.watched) == 0 {
		return
	}
	for _, o := range tx.Ops {
		if (o.Kind == writ.OpPut || o.Kind == writ.OpDelete) && e.watched[o.Key] > 0 {
			e.look()
			return
		}
	}
}

// list is what is under way; when that is nothing the loop is over.
func (e *effects) list() (out []*underway) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for u := range e.under {
		out = append(out, u)
	}
	e.looping = len(out) > 0
	return out
}

// watchEffects looks until nothing is under way.
func (d *Door) watchEffects() {
	e := d.effects
	for {
		list := e.list()
		if len(list) == 0 {
			return
		}
		var trouble error
		for len(list) > 0 {
			some := list[:min(len(list), effectsAtOnce)]
			list = list[len(some):]
			if err := d.lookAtEffects(some); err != nil {
				trouble = err
			}
		}
		if e.alive.Err() == nil {
			e.trouble.Note(d.cfg.Log, trouble, "the store does not say whether effects may go on; they end with their leases", "the store answers about effects again")
		}
		t := time.NewTimer(d.cfg.EffectWatch)
		select {
		case <-t.C:
		case <-e.ring:
		}
		t.Stop()
	}
}

// effectsAtOnce is how many one read is about.
const effectsAtOnce = 64

// lookAtEffects stops those that may not go on and renews the leases of the others.
func (d *Door) lookAtEffects(list []*underway) (err error) {
	ctx, cancel := context.WithTimeout(d.effects.alive, d.cfg.EffectLease/3)
	defer cancel()
	by := map[writ.Tenant][]*underway{}
	for _, u := range list {
		by[u.shard] = append(by[u.shard], u)
	}
	for shard, some := range by {
		var rs writ.ReadSet
		for _, u := range some {
			rs.Docs = append(rs.Docs, u.keys()...)
			rs.Counters = append(rs.Counters, u.counters()...)
		}
		slices.Sort(rs.Docs)
		rs.Docs = slices.Compact(rs.Docs)
		s, rerr := d.cfg.Store.Read(ctx, shard, rs)
		if rerr != nil {
			err = rerr
		}
		for _, u := range some {
			if rerr == nil {
				s.Cache = &d.docs
				if why := d.mayNotGoOn(u, s); why != "" {
					u.cancel(stopped(why))
					continue
				}
				if time.Since(u.renewed) >= d.cfg.EffectLease/3 {
					if nerr := d.renewEffect(ctx, u, s.Now); nerr != nil {
						err = nerr
					}
				}
			}
			if time.Since(u.renewed) >= d.cfg.EffectLease {
				u.cancel(stopped("lease")) // by its own clock: another may have taken it over
			}
		}
	}
	return err
}

// mayNotGoOn says why an effect is to be stopped; "" when it is not.
func (d *Door) mayNotGoOn(u *underway, s writ.Snapshot) string {
	// What cannot be read stops it: it would not be allowed now.
	if doc := s.Docs[writ.IntentKey(u.id)]; doc.Version != u.fence {
		return "lease"
	}
	if id := u.caller.Session; id != "" {
		ses, _, ok, err := writ.Get[writ.Session](s, writ.SessionKey(id))
		if err != nil || !ok || writ.SessionMoves.Terminal(ses.State) || s.Now >= ses.ExpiresAt {
			return "session"
		}
		c := u.caller
		if !d.cfg.Decider.Bound(c.Principal, c.Role, c.Tenant) || !d.cfg.Decider.Permit(c.Role, c.Tenant, u.call) {
			return "role"
		}
	}
	for _, id := range u.caller.Agents() {
		if a, _, ok, err := writ.Get[writ.Agent](s, writ.AgentKey(id)); err != nil || !ok || a.State != writ.AgentActive {
			return "agent"
		}
	}
	if u.run != "" {
		if r, _, ok, err := writ.Get[writ.Run](s, writ.RunKey(u.run)); err != nil || !ok || writ.RunMoves.Terminal(r.State) {
			return "run"
		}
	}
	if why := u.outgrown(s); why != "" {
		return why
	}
	for k, version := range u.while {
		if s.Docs[k].Version != version {
			return "changed"
		}
	}
	return ""
}

// outgrown says whether the work an effect is done for is other than it was judged for:
// its task is not held any more, or its session has data that it was not said to carry.
func (u *underway) outgrown(s writ.Snapshot) string {
	e := u.errand
	if e.Task == "" {
		return ""
	}
	t, _, ok, err := writ.Get[writ.Task](s, writ.TaskKey(e.Task))
	if err != nil || !ok || t.Lease == nil || t.Lease.ID != e.Lease {
		return "task"
	}
	if t.State != writ.TaskParked && s.Now > s.Counters[writ.TaskLease(e.Task)] { // while people are asked the lease stands still
		return "task"
	}
	given, err := writ.GivenTo(s, u.caller.Session)
	if err != nil || slices.ContainsFunc(given, func(l writ.Label) bool { return !slices.Contains(e.Labels, l) }) {
		return "labels"
	}
	return ""
}

// renewEffect lets an effect go on. It is refused where the document is another: the
// effect is unknown by then, or attempted by somebody else.
func (d *Door) renewEffect(ctx context.Context, u *underway, now int64) error {
	var call writ.Call
	if err := d.Stamp(&call); err != nil {
		return err
	}
	at, end := time.Now(), now+d.cfg.EffectLease.Milliseconds()
	tx := writ.Tx{Call: call.ID, Mandate: true}
	tx.Expect(writ.IntentKey(u.id), u.fence)
	lease := writ.EffectLease(u.id)
	tx.Within(lease, u.leased, u.leased)
	tx.Add(lease, end-u.leased)
	tx.Index(writ.IndexEffectLeases, string(u.id), end)
	_, err := d.cfg.Store.Commit(ctx, u.shard, tx)
	if _, conflict := errors.AsType[*store.Conflict](err); conflict {
		// Another renewal of ours may have been committed without our knowing it.
		s, rerr := d.cfg.Store.Read(ctx, u.shard, writ.ReadSet{Docs: []writ.Key{writ.IntentKey(u.id)}, Counters: []writ.Counter{lease}})
		if rerr != nil {
			return rerr
		}
		if s.Docs[writ.IntentKey(u.id)].Version != u.fence {
			u.cancel(stopped("lease"))
			return nil
		}
		u.leased = s.Counters[lease]
		return nil // the next look renews it
	}
	if err == nil {
		u.leased, u.renewed = end, at
	}
	return err
}

// EffectsUnderWay is how many effects this replica carries out now.
func (d *Door) EffectsUnderWay() int {
	d.effects.mu.Lock()
	defer d.effects.mu.Unlock()
	return len(d.effects.under)
}

// StopEffects lets no effect begin any more. Those under way may end until ctx is done,
// and are stopped then. It returns once what became of each is committed, or cannot be.
func (d *Door) StopEffects(ctx context.Context) {
	e := d.effects
	e.mu.Lock()
	if !e.stopping {
		e.stopping = true
		if e.going == 0 {
			close(e.idle)
		}
	}
	e.mu.Unlock()
	select {
	case <-e.idle:
		return
	case <-ctx.Done():
	}
	e.mu.Lock()
	for u := range e.under {
		u.cancel(stopped("stopping"))
	}
	e.mu.Unlock()
	for range 2 {
		t := time.NewTimer(stopFor)
		select {
		case <-e.idle:
		case <-t.C:
		}
		t.Stop()
		e.abandon() // what is not said by now is unknown once its lease has ended
	}
}

// stopFor is how long effects that were stopped have to come to their end.
const stopFor = 5 * time.Second
