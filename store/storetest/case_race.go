package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// The races below are how the rooms use the seam, in miniature. Each keeps a
// promise only because something it looked at is guarded.
var raceCases = []testCase{
	{name: "race/one hot document loses no write", run: func(f *fixture) {
		const workers, each = 16, 10
		stores := f.stores()
		f.together(workers, func(i int) error {
			s := stores[i%len(stores)]
			for range each {
				err := f.retry(s, writ.ReadSet{Docs: []writ.Key{"doc/hot"}}, func(snap writ.Snapshot, tx *writ.Tx) {
					var n int64
					_, _ = fmt.Sscan(string(snap.Docs["doc/hot"].Body), &n)
					tx.Put("doc/hot", fmt.Append(nil, n+1))
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if d := f.doc("doc/hot"); string(d.Body) != fmt.Sprint(workers*each) {
			f.Fatalf("counted to %s, want %d", d.Body, workers*each)
		}
	}},
	{name: "race/a join of 16 queues its successor once, by Within", run: func(f *fixture) {
		const siblings = 16
		stores := f.stores()
		for round := range rounds(f) {
			left := writ.Counter{Entity: fmt.Sprintf("join/%d", round), Field: "deps_left"}
			lane := writ.Lane(fmt.Sprintf("5/join.next/r%d", round))
			f.do(func(tx *writ.Tx) { tx.Add(left, siblings) })
			f.together(siblings, func(i int) error {
				done := writ.Key(fmt.Sprintf("join/%d/%d", round, i))
				return f.retry(stores[i%len(stores)], writ.ReadSet{Docs: []writ.Key{done}, Counters: []writ.Counter{left}},
					func(snap writ.Snapshot, tx *writ.Tx) {
						n := snap.Counters[left]
						tx.Within(left, n, n)
						tx.Put(done, []byte("done"))
						tx.Add(left, -1)
						if n == 1 {
							tx.Push(lane, "successor")
						}
					})
			})
			f.wantEntries(siblings, lane, "successor")
		}
	}},
	{name: "race/a wide join activates its successor after the last, by todo", run: func(f *fixture) {
		const siblings = 16
		stores := f.stores()
		for round := range rounds(f) {
			left := writ.Counter{Entity: fmt.Sprintf("join/%d", round), Field: "deps_left"}
			todo := writ.Range{Index: writ.Index(fmt.Sprintf("due/todo/%d", round)), ByScore: true, Max: writ.MaxAmount, Limit: 10}
			next := writ.Key(fmt.Sprintf("join/%d/next", round))
			lane := writ.Lane(fmt.Sprintf("5/join.next/r%d", round))
			f.do(func(tx *writ.Tx) { tx.Add(left, siblings); tx.Put(next, []byte("blocked")) })
			f.together(siblings+2, func(i int) error {
				s := stores[i%len(stores)]
				if i < siblings { // completes; nothing guards the counter
					tx := f.tx()
					tx.Add(left, -1)
					tx.Index(todo.Index, "join", int64(rand.IntN(1e9)))
					_, err := s.Commit(f.ctx, f.shard, tx)
					return err
				}
				// Follows up until the successor is queued.
				for queued := false; !queued; {
					rs := writ.ReadSet{Docs: []writ.Key{next}, Counters: []writ.Counter{left}, Ranges: []writ.Range{todo}}
					err := f.retry(s, rs, func(snap writ.Snapshot, tx *writ.Tx) {
						queued = string(snap.Docs[next].Body) == "queued"
						n := snap.Counters[left]
						if n == 0 && !queued {
							tx.Within(left, 0, 0)
							tx.Put(next, []byte("queued"))
							tx.Push(lane, "successor")
						}
						for _, m := range snap.Ranges[todo].Members {
							// A completion that comes in between has another score and stays.
							tx.UnindexAt(todo.Index, m.Name, m.Score)
						}
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
			f.wantEntries(siblings, lane, "successor")
		}
	}},
	{name: "race/nobody is left waiting on a holder that released", run: func(f *fixture) {
		const parkers = 8
		stores := f.stores()
		for round := range rounds(f) {
			holder := writ.Key(fmt.Sprintf("task/holder%d", round))
			waiting := writ.Range{Index: writ.Index(fmt.Sprintf("v/waiting/%d", round)), Limit: 100}
			lane := writ.Lane(fmt.Sprintf("5/park.wake/r%d", round))
			f.do(func(tx *writ.Tx) { tx.Put(holder, []byte("running")) })
			f.together(parkers+1, func(i int) error {
				s := stores[i%len(stores)]
				if i == parkers { // releases, and wakes all who wait
					return f.retry(s, writ.ReadSet{Docs: []writ.Key{holder}, Ranges: []writ.Range{waiting}}, func(snap writ.Snapshot, tx *writ.Tx) {
						tx.Put(holder, []byte("released"))
						for _, m := range snap.Ranges[waiting].Members {
							tx.Unindex(waiting.Index, m.Name)
							tx.Push(lane, m.Name)
						}
					})
				}
				me := fmt.Sprint("task-", i)
				return f.retry(s, writ.ReadSet{Docs: []writ.Key{holder}}, func(snap writ.Snapshot, tx *writ.Tx) {
					if string(snap.Docs[holder].Body) == "running" {
						tx.Index(waiting.Index, me, 0)
					} else { // the scope is free: it need not wait
						tx.Push(lane, me)
					}
				})
			})
			f.wantRange(waiting)
			if got := f.receive(100, lane); len(got) != parkers {
				f.Fatalf("round %d: %d of %d went on: %v", round, len(got), parkers, entriesOf(got))
			}
		}
	}},
	{name: "race/one of many claims a task", run: func(f *fixture) {
		stores := f.stores()
		for round := range rounds(f) {
			task := writ.Key(fmt.Sprintf("task/%d", round))
			v := f.do(func(tx *writ.Tx) { tx.Put(task, []byte("queued")) }).Version()
			var won [16]bool
			f.together(len(won), func(i int) error {
				tx := f.tx()
				tx.Expect(task, v)
				tx.Free("scope/x", "fs:a/", "fs:a0", fmt.Sprint("tsk", i))
				tx.Put(task, []byte("claimed"))
				tx.Index("due/lease", string(task), int64(i))
				_, err := stores[i%len(stores)].Commit(f.ctx, f.shard, tx)
				if _, isConflict := errors.AsType[*store.Conflict](err); isConflict {
					return nil
				}
				won[i] = err == nil
				return err
			})
			n := 0
			for _, w := range won {
				if w {
					n++
				}
			}
			if n != 1 {
				f.Fatalf("round %d: %d claimed it", round, n)
			}
		}
	}},
	{name: "race/overlapping scopes are never held by two", run: func(f *fixture) {
		stores := f.stores()
		scopes := []string{"fs:a/", "fs:a/b/", "fs:a/b/c/", "fs:a/d/", "fs:e/"}
		var holds int64
		f.together(8, func(i int) error {
			s := stores[i%len(stores)]
			me := writ.TaskID(fmt.Sprint("tsk", i))
			for n := range 20 {
				scope := scopes[(i+n)%len(scopes)]
				take := f.tx()
				for _, r := range writ.ScopeRanges(scope) {
					take.Free(writ.IndexScopes, r[0], r[1], string(me))
				}
				take.Index(writ.IndexScopes, writ.ScopeMember(scope, me), 0)
				_, err := s.Commit(f.ctx, f.shard, take)
				if _, isConflict := errors.AsType[*store.Conflict](err); isConflict {
					continue
				} else if err != nil {
					return err
				}
				all := writ.Range{Index: writ.IndexScopes, Limit: 100}
				snap, err := s.Read(f.ctx, f.shard, writ.ReadSet{Ranges: []writ.Range{all}})
				if err != nil {
					return err
				}
				for _, m := range snap.Ranges[all].Members {
					if other, holder, _ := writ.SplitScopeMember(m.Name); holder != writ.Holder(me) && writ.ScopesOverlap(scope, other) {
						return fmt.Errorf("%s holds %s while %s holds %s", me, scope, holder, other)
					}
				}
				give := f.tx()
				give.Unindex(writ.IndexScopes, writ.ScopeMember(scope, me))
				give.Add(writ.Counter{Entity: "scope", Field: "holds"}, 1)
				if _, err := s.Commit(f.ctx, f.shard, give); err != nil {
					return err
				}
			}
			return nil
		})
		f.wantRange(writ.Range{Index: writ.IndexScopes})
		if holds = f.counter(writ.Counter{Entity: "scope", Field: "holds"}); holds == 0 {
			f.Fatal("nobody ever held a scope")
		}
	}},
}

// rounds of a race: more when the test has time.
func rounds(f *fixture) int {
	if soak() {
		return 300
	}
	return 20
}

// retry reads, plans and commits until no guard refuses, as the door does:
// everything read is guarded, counters by the plan.
func (f *fixture) retry(s store.Store, rs writ.ReadSet, plan func(writ.Snapshot, *writ.Tx)) error {
	for try := range 10_000 {
		snap, err := s.Read(f.ctx, f.shard, rs)
		if err != nil {
			return err
		}
		tx := f.tx()
		tx.GuardSnapshot(snap)
		plan(snap, &tx)
		_, err = s.Commit(f.ctx, f.shard, tx)
		if _, isConflict := errors.AsType[*store.Conflict](err); !isConflict {
			return err
		}
		timer := time.NewTimer(time.Duration(rand.Int64N(int64(time.Millisecond) * int64(min(try+1, 8)))))
		select {
		case <-timer.C:
		case <-f.ctx.Done():
			timer.Stop()
			return f.ctx.Err()
		}
	}
	return errors.New("conflicts without an end")
}
