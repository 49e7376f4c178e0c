package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Due says which mandate a member of a deadline index calls for.
type Due struct {
	Index writ.Index
	// Call maps a member to the capability and its arguments; ok is false for a
	// member nothing handles, which is left alone and logged.
	Call func(member string) (id writ.CapabilityID, args map[string]any, ok bool)
	// Grace delays members after an outage: while callers could not renew
	// anything, nothing they held may be taken from them.
	Grace bool
	// Again sweeps the index at once as long as members are handled: work done
	// in steps leaves its member there until the last.
	Again bool
}

// Todo maps the kinds of follow-up work in IndexTodo ("<kind> <id>") to calls.
func Todo(kinds map[string]func(id string) (writ.CapabilityID, map[string]any)) Due {
	return Due{Index: writ.IndexTodo, Again: true, Call: func(member string) (writ.CapabilityID, map[string]any, bool) {
		kind, id, _ := strings.Cut(member, " ")
		f, ok := kinds[kind]
		if !ok {
			return "", nil, false
		}
		c, args := f(id)
		return c, args, true
	}}
}

// SweeperConfig tunes a Sweeper.
type SweeperConfig struct {
	Shards []writ.Tenant
	Dues   []Due
	Every  time.Duration // between sweeps (250 ms)
	Budget int           // members handled per index and sweep (64)
	Outage time.Duration // a gap between sweeps longer than this is an outage (10 s)
	Grace  time.Duration // what an outage, or a start, adds to leases and heartbeats (60 s)
}

// Sweeper carries out what is due: it scans the deadline indexes and makes the
// call each due member names. Any replica may sweep; the commit decides who
// was first, and a call that finds nothing left to do only removes its member.
type Sweeper struct {
	door *Door
	cfg  SweeperConfig

	// Owned by the loop.
	quietUntil time.Time
	lastSweep  time.Time
	failed     map[writ.Index]failures
	acting     Trouble
	measuring  Trouble
	flushing   Trouble

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// NewSweeper makes a Sweeper.
func NewSweeper(d *Door, cfg SweeperConfig) *Sweeper {
	if cfg.Every == 0 {
		cfg.Every = 250 * time.Millisecond
	}
	if cfg.Budget == 0 {
		cfg.Budget = 64
	}
	if cfg.Outage == 0 {
		cfg.Outage = 10 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Minute
	}
	return &Sweeper{door: d, cfg: cfg, failed: map[writ.Index]failures{}}
}

// Start sweeps until Stop.
func (s *Sweeper) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.quietUntil = time.Now().Add(s.cfg.Grace)
	s.lastSweep = time.Now()
	s.done.Go(func() {
		watch, flush := time.Now(), time.Now()
		for ctx.Err() == nil {
			now := time.Now()
			if now.Sub(s.lastSweep) > s.cfg.Outage {
				s.quietUntil = now.Add(s.cfg.Grace)
			}
			if s.Sweep(ctx, now.Before(s.quietUntil)) {
				s.lastSweep = now
			}
			if now.Sub(watch) >= time.Second {
				watch = now
				for _, shard := range s.cfg.Shards {
					if err := s.door.Watch(ctx, shard); ctx.Err() == nil {
						s.measuring.Note(s.door.cfg.Log, err, "the store does not answer; what is due waits until it does", "the store answers again")
					}
				}
			}
			if now.Sub(flush) >= 10*time.Second {
				flush = now
				s.flush(ctx)
			}
			t := time.NewTimer(s.cfg.Every)
			select {
			case <-t.C:
			case <-s.door.due: // a commit left work for now: do not wait
			case <-ctx.Done():
			}
			t.Stop()
		}
		c, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.flush(c)
	})
}

func (s *Sweeper) flush(ctx context.Context) {
	if err := s.door.FlushDenials(ctx); ctx.Err() == nil {
		s.flushing.Note(s.door.cfg.Log, err, "counted denials are not receipted yet", "counted denials are receipted again")
	}
}

// Stop ends sweeping and writes what denials were counted.
func (s *Sweeper) Stop() {
	if s.cancel != nil {
		s.cancel()
		s.done.Wait()
	}
}

// Sweep handles what is due once. In quiet times indexes with Grace are left
// alone. It says whether the gateway could act: while it cannot, callers could not
// renew anything either.
func (s *Sweeper) Sweep(ctx context.Context, quiet bool) bool {
	var outage error
	for _, shard := range s.cfg.Shards {
		for _, due := range s.cfg.Dues {
			if quiet && due.Grace {
				continue
			}
			for rounds := 0; ; rounds++ {
				handled, err := s.sweep(ctx, shard, due)
				outage = cmp.Or(outage, err)
				if handled == 0 || !due.Again || rounds >= maxRounds {
					break
				}
			}
		}
	}
	// Of a store that does not answer Watch tells. A quiet sweep does not see all
	// that is due, so it does not know that all is well.
	if ctx.Err() == nil && writ.CodeOf(outage) != writ.CodeStore && (outage != nil || !quiet) {
		s.acting.Note(s.door.cfg.Log, outage, "the gateway cannot act; what is due waits until it can", "what is due is done again")
	}
	return outage == nil
}

// maxRounds bounds how long one index may keep a sweep from the others.
const maxRounds = 32

// maxPages bounds how far one sweep looks past members that are put off.
const maxPages = 32

// sweep handles the first members of an index that are not put off. It says how
// many members it handled, and what keeps the gateway from handling any.
func (s *Sweeper) sweep(ctx context.Context, shard writ.Tenant, due Due) (handled int, outage error) {
	head, err := s.door.cfg.Store.Read(ctx, shard, writ.ReadSet{})
	if err != nil {
		return 0, storeDown("guard.sweep", err)
	}
	now := time.Now()
	failed := s.failed[due.Index]
	if failed == nil {
		failed = failures{}
		s.failed[due.Index] = failed
	}
	failed.forget(now)
	r := writ.Range{Index: due.Index, ByScore: true, Min: 0, Max: head.Now, Limit: min(s.cfg.Budget+len(failed), 1000)}
	met, calls := map[string]bool{}, 0
	for range maxPages {
		snap, err := s.door.cfg.Store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
		if err != nil {
			return handled, storeDown("guard.sweep", err)
		}
		page := snap.Ranges[r].Members
		for _, m := range page {
			if met[m.Name] || failed.waits(m.Name, now) {
				continue
			}
			if ctx.Err() != nil || calls == s.cfg.Budget {
				return handled, nil
			}
			met[m.Name] = true
			calls++
			switch done, err := s.call(ctx, shard, due, m.Name); {
			case done:
				handled++
				delete(failed, m.Name)
			case ctx.Err() != nil:
				return handled, nil
			case notAtFault(err):
				return handled, err
			case writ.CodeOf(err) == writ.CodeContention: // others are at it: the next sweep looks again
			default:
				s.door.cfg.Log.Error("due work failed; it is tried again later", "index", due.Index, "member", m.Name, "error", err)
				failed.putOff(m.Name, now)
			}
		}
		if !r.Desc && len(page) < r.Limit {
			return handled, nil
		}
		// The next page begins with the last score of this one: more members may
		// have it. A page of one score is followed by that score's other end.
		switch {
		case r.Desc:
			r.Min, r.Max, r.Desc = r.Max+1, head.Now, false
		case page[0].Score == page[len(page)-1].Score:
			r.Min, r.Max, r.Desc, r.Limit = page[0].Score, page[0].Score, true, 1000
		default:
			r.Min, r.Limit = page[len(page)-1].Score, 1000
		}
		if r.Min > head.Now {
			return handled, nil
		}
	}
	return handled, nil
}

// notAtFault says whether an error is about the gateway as a whole and not about
// the member it was met at: it holds for every other member as well, and says
// nothing about when this one should be tried again.
func notAtFault(err error) bool {
	switch writ.CodeOf(err) {
	case writ.CodeStore:
		return !errors.Is(err, store.ErrFull)
	case writ.CodePolicyDown, writ.CodeNotReady, writ.CodeUpgrade:
		return true
	}
	return false
}

// call makes the call a member names.
func (s *Sweeper) call(ctx context.Context, shard writ.Tenant, due Due, member string) (bool, error) {
	id, args, known := due.Call(member)
	if !known {
		return false, errors.New("nothing handles it")
	}
	_, _, err := s.door.System(ctx, shard, id, args, nil)
	if err != nil && writ.CodeOf(err) != writ.CodeReceiptPending { // then it is done, and only its proof is late
		return false, fmt.Errorf("%s: %w", id, err)
	}
	return true, nil
}
