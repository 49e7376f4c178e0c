package guard

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// refused answers a call that is not allowed or not possible. A denial leaves
// a fact, guarded by everything that was read, so that no receipt states what
// was never true; beyond the principal's bucket it is counted instead, and so is
// a denial that makes no fact. A denial never turns into a failure of ours. What
// is refused without a fact is checked by settled.
func (t *try) refused(ctx context.Context, err error) (writ.Reply, *writ.Receipt, error) {
	if again, ok := err.(*errAgain); ok {
		return writ.Reply{}, nil, again
	}
	if err := t.stands(ctx); err != nil { // it is no one any more, and nobody's denial is recorded
		return writ.Reply{}, nil, err
	}
	e := writ.AsError("guard.Do", err)
	if !e.Code.Receipted() || t.call.Caller.Role == writ.RoleSystem {
		if saysState(e.Code) {
			if err := t.settled(ctx); err != nil {
				return writ.Reply{}, nil, err
			}
		}
		return writ.Reply{}, nil, e
	}
	c := *e
	e, t.warned, t.details = &c, nil, c.Details
	tx := writ.Tx{Call: t.call.ID}
	for _, o := range t.d.cfg.Obligors {
		o.Denied(t.call, t.snap, t.sub, t.dec, &tx)
	}
	if e.Once != nil {
		t.quota = e.Details["quota"]
		if t.told(e.Once) {
			if t.tries < maxTries {
				if err := t.settled(ctx); err != nil {
					return writ.Reply{}, nil, err
				}
			}
			return t.aggregated(ctx, e, "the principal has the receipt of one like it", nil)
		}
	}
	if !t.counted && !t.d.denials.take(t.call.Caller.Tenant, t.call.Caller.Principal, time.Now()) {
		if t.tries < maxTries { // beyond that it is counted as it is: a denial never turns into a failure of ours
			if err := t.settled(ctx); err != nil {
				return writ.Reply{}, nil, err
			}
		}
		t.noting = t.noting || t.d.denials.follow(tx.Ops, time.Now())
		if t.noting && !tx.Empty() && t.tries < maxTries { // now and then, without a receipt of it
			// It is no commit of the call, whose id is for the one that answers it.
			tx.Call = ""
			t.guardStanding(&tx)
			_, ferr := t.store(ctx, tx)
			if _, again := ferr.(*errAgain); again {
				return writ.Reply{}, nil, ferr
			}
			if ferr != nil {
				t.d.cfg.Log.WarnContext(ctx, "what follows from a denial is not noted; another denial will", "capability", t.k.ID, "error", ferr)
			}
		}
		return t.aggregated(ctx, e, "the principal has used up its receipts", nil)
	}
	t.counted = true // a conflict does not cost the principal another receipt
	t.guardReads(&tx)
	if len(tx.Guards)+len(tx.Ops) > writ.MaxOps {
		// More was read than one commit can hold to. What says who was denied,
		// by which policies, is held to still.
		tx.Guards = nil
		t.guardStanding(&tx)
	}
	if e.Once != nil {
		t.tell(e.Once, &tx)
	}
	st := t.statement(writ.OutcomeOfDenial, nil)
	st.Code = e.Code
	ferr := t.addFact(&tx, st, writ.Reply{Outcome: writ.Outcome(e.Code)})
	if ferr == nil {
		_, ferr = t.store(ctx, tx)
	}
	if _, again := ferr.(*errAgain); again {
		return writ.Reply{}, nil, ferr
	}
	switch writ.CodeOf(ferr) {
	case "":
	case writ.CodeInternal, writ.CodeTooLarge:
		return t.aggregated(ctx, e, "it makes no fact", ferr)
	default: // the store is down, or asks to wait
		return writ.Reply{}, nil, ferr
	}
	t.d.cfg.Observer.Denial(string(e.Code))
	t.overQuota(e)
	e.Receipt = tx.Fact.ID
	return writ.Reply{}, nil, e
}

// told says whether a denial of which only the first has a receipt has had it.
func (t *try) told(o *writ.Once) bool { return t.snap.Counters[o.Counter] >= o.At }

// tell notes in the transaction of a receipt that it is the first. Two replicas
// that refuse at once meet at the counter.
func (t *try) tell(o *writ.Once, tx *writ.Tx) {
	last := t.snap.Counters[o.Counter]
	tx.Within(o.Counter, last, last)
	tx.Add(o.Counter, o.At-last)
	tx.KeepQuota(o.Counter, o.At)
}

// overQuota counts a refusal by a quota.
func (t *try) overQuota(e *writ.Error) {
	if e.Once != nil {
		t.d.cfg.Observer.QuotaRefused(e.Details["metric"])
	}
}

// saysState says whether a refusal follows from what was read, and not from an
// outage. A defect may: what was never true at one time can look impossible.
func saysState(c writ.Code) bool {
	return c == writ.CodeInternal || c.Receipted() || c == writ.CodeNotFound || c == writ.CodeInputInvalid || c == writ.CodeVersion
}

// settled says whether everything that has a version and was read by this try
// was ever true at one time: it is when what the reads before the last one found
// is still there. If not, the call reads again.
func (t *try) settled(ctx context.Context) error {
	if t.reads < 2 {
		return nil
	}
	var want writ.ReadSet
	for k := range t.snap.Docs {
		if !slices.Contains(t.last.Docs, k) {
			want.Docs = append(want.Docs, k)
		}
	}
	for r := range t.snap.Ranges {
		if r.Index.Versioned() && !slices.Contains(t.last.Ranges, r) {
			want.Ranges = append(want.Ranges, r)
		}
	}
	if want.Empty() {
		return nil // the last read saw it all
	}
	now, err := t.d.cfg.Store.Read(ctx, t.call.Caller.Tenant, want)
	if err != nil {
		return storeDown("guard.settled", err)
	}
	same := now.Epoch == t.snap.Epoch
	for k, d := range now.Docs {
		same = same && d.Version == t.snap.Docs[k].Version
	}
	for r, found := range now.Ranges {
		same = same && found.Version == t.snap.Ranges[r].Version
	}
	if !same {
		return &errAgain{cause: errors.New("what was read has changed between two reads")}
	}
	return nil
}

// aggregated answers a denial that was counted.
func (t *try) aggregated(ctx context.Context, e *writ.Error, why string, cause error) (writ.Reply, *writ.Receipt, error) {
	t.d.denials.count(t.call.Caller.Tenant, 1)
	t.d.cfg.Observer.Denial("aggregated")
	t.overQuota(e)
	t.d.cfg.Log.WarnContext(ctx, "a denial is counted, not receipted: "+why,
		"session", t.call.Caller.Session, "capability", t.k.ID, "code", e.Code, "error", cause)
	e.Aggregated = true
	return writ.Reply{}, nil, e
}

// guardStanding guards the gate, the caller's session and its agents, of all
// that was read.
func (t *try) guardStanding(tx *writ.Tx) {
	keys := t.standing()
	kept := writ.Snapshot{Now: t.snap.Now, Epoch: t.snap.Epoch, Docs: map[writ.Key]writ.Doc{}}
	for _, k := range keys {
		if d, ok := t.snap.Docs[k]; ok {
			kept.Docs[k] = d
		}
	}
	tx.GuardSnapshot(kept)
	tx.NotAfter(t.freshUntil())
}

// denials are the buckets of denial receipts, per principal of a shard, and
// the counts of what went beyond them.
type denials struct {
	burst float64
	rate  float64 // per second

	mu      sync.Mutex
	buckets map[denier]*bucket
	over    map[writ.Tenant]int64
	follows map[string]time.Time // follow-ups of counted denials, and when they were noted last

	tally *tally[int64]
}

type denier struct {
	shard     writ.Tenant
	principal writ.PrincipalID
}

type bucket struct {
	level float64
	at    time.Time
}

func newDenials(burst int, rate float64) *denials {
	return &denials{burst: float64(burst), rate: rate, buckets: map[denier]*bucket{}, over: map[writ.Tenant]int64{}, follows: map[string]time.Time{}, tally: tallyDenials()}
}

// followEvery is how often the same follow-up of denials that are only counted is
// noted: a principal that is denied all the time costs the store no more.
const followEvery = time.Second

// follow says whether follow-ups are to be noted now.
func (n *denials) follow(ops []writ.Op, now time.Time) (due bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.follows) > 10_000 {
		clear(n.follows)
	}
	for _, o := range ops {
		if name := string(o.Index) + " " + o.Member; now.Sub(n.follows[name]) >= followEvery {
			n.follows[name], due = now, true
		}
	}
	return due
}

// take says whether the principal may have a receipt of its own now.
func (n *denials) take(shard writ.Tenant, p writ.PrincipalID, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.buckets[denier{shard, p}]
	if b == nil {
		if len(n.buckets) > 10_000 {
			n.forget(now)
		}
		if len(n.buckets) > 20_000 {
			return false // too many principals at once: count, do not grow
		}
		b = &bucket{level: n.burst, at: now}
		n.buckets[denier{shard, p}] = b
	}
	b.level = math.Min(n.burst, b.level+now.Sub(b.at).Seconds()*n.rate)
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// forget drops buckets that are full again.
func (n *denials) forget(now time.Time) {
	for k, b := range n.buckets {
		if b.level+now.Sub(b.at).Seconds()*n.rate >= n.burst {
			delete(n.buckets, k)
		}
	}
}

// drain takes the counts of the shards where none are late.
func (n *denials) drain(late func(writ.Tenant) bool) map[writ.Tenant]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[writ.Tenant]int64{}
	for shard, count := range n.over {
		if !late(shard) {
			out[shard] = count
			delete(n.over, shard)
		}
	}
	return out
}

// count adds denials that have no receipt of their own.
func (n *denials) count(shard writ.Tenant, count int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.over[shard] += count
}

// FlushDenials writes one aggregate fact per shard for the denials counted
// since the last flush. The sweeper calls it every ten seconds; a crash loses
// at most that long of counts.
func (d *Door) FlushDenials(ctx context.Context) error {
	return d.denials.tally.flush(ctx, d, d.denials.drain)
}

// AggregateArgs are what an aggregate's evidence holds.
type AggregateArgs struct {
	Count int64 `json:"count"`
}

func tallyDenials() *tally[int64] {
	return &tally[int64]{
		k:    &writ.Capability{ID: "denial.aggregate", Version: "1"},
		args: func(count int64) any { return &AggregateArgs{Count: count} },
		plan: func(t *try, count int64, st *writ.Statement, _ *writ.Tx) (bool, error) {
			t.dec.Effect = writ.EffectDeny
			st.Decision, st.Count = t.dec, count
			return true, nil
		},
	}
}
