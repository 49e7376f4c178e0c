package storetest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/writ-gateway/writ"
)

var wakeCases = []testCase{
	{name: "wake/returns at once when an entry was pushed since the cursor", run: func(f *fixture) {
		cursor := f.cursor()
		f.push(laneA, "1")
		next := f.wantWake(cursor, laneA)
		f.wantWake(cursor, laneA) // a cursor may be used again
		f.push(laneB, "1")
		f.wantWake(next, laneB)
	}},
	{name: "wake/the empty cursor means from now", run: func(f *fixture) {
		f.push(laneA, "1")
		if _, lanes, err := f.Store.Wake(f.ctx, f.shard, "", 0); err != nil || len(lanes) != 0 {
			f.Fatalf("got %v, %v", lanes, err)
		}
	}},
	{name: "wake/ends after its wait with a cursor that goes on", run: func(f *fixture) {
		cursor := f.cursor()
		for range 3 {
			next, lanes, err := f.Store.Wake(f.ctx, f.shard, cursor, 5*time.Millisecond)
			if err != nil || len(lanes) != 0 || next == "" {
				f.Fatalf("got %q, %v, %v", next, lanes, err)
			}
			cursor = next
		}
		f.push(laneA, "1")
		f.wantWake(cursor, laneA)
	}},
	{name: "wake/a wait is two seconds at the most", run: func(f *fixture) {
		began := time.Now()
		if _, lanes, err := f.Store.Wake(f.ctx, f.shard, "", time.Hour); err != nil || len(lanes) != 0 {
			f.Fatalf("got %v, %v", lanes, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			f.Fatalf("it took %v", took)
		}
	}},
	{name: "wake/a waiter hears of a push", run: func(f *fixture) {
		stores := f.stores()
		cursor := f.cursor()
		f.together(9, func(i int) error {
			if i == 0 {
				tx := f.quiet()
				tx.Push(laneA, "1")
				_, err := f.try(tx)
				return err
			}
			return f.hears(stores[i%len(stores)].Wake, cursor, laneA)
		})
	}},
	{name: "wake/giving back and reclaiming wake too", run: func(f *fixture) {
		f.push(laneA, "1")
		d := f.wantEntries(1, laneA, "1")[0]
		cursor := f.cursor()
		f.giveBack(d)
		cursor = f.wantWake(cursor, laneA)
		f.wantEntries(1, laneA, "1")
		f.reclaimAll("one is held", 1)
		f.wantWake(cursor, laneA)
	}},
	{name: "wake/a refused push wakes nobody", run: func(f *fixture) {
		cursor := f.cursor()
		tx := f.quiet()
		tx.Push(laneA, "1")
		tx.Expect("doc/a", 1)
		f.refused(tx, writ.GuardExpect, "doc/a")
		if _, lanes, err := f.Store.Wake(f.ctx, f.shard, cursor, 0); err != nil || len(lanes) != 0 {
			f.Fatalf("got %v, %v", lanes, err)
		}
	}},
	{name: "wake/no push between two calls is lost", run: func(f *fixture) {
		const pushes = 200
		cursor := f.cursor()
		f.together(2, func(i int) error {
			if i == 0 {
				for n := range pushes {
					tx := f.quiet()
					tx.Push(laneA, fmt.Sprint(n))
					if _, err := f.try(tx); err != nil {
						return err
					}
				}
				return nil
			}
			// Only a wake-up lets this one look.
			for got := 0; got < pushes; {
				next, lanes, err := f.Store.Wake(f.ctx, f.shard, cursor, 2*time.Second)
				if err != nil {
					return err
				}
				if cursor = next; len(lanes) == 0 {
					return fmt.Errorf("no wake-up after %d of %d entries", got, pushes)
				}
				for {
					ds, err := f.Store.Receive(f.ctx, f.shard, []writ.Lane{laneA}, "c", 10)
					if err != nil {
						return err
					}
					if got += len(ds); len(ds) == 0 {
						break
					}
				}
			}
			return nil
		})
	}},
	{name: "wake/a caller that leaves stops waiting", run: func(f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx)
		cancel()
		_, lanes, _ := f.Store.Wake(ctx, f.shard, "", 2*time.Second)
		if len(lanes) != 0 {
			f.Fatalf("got %v", lanes)
		}
	}},
}

func (f *fixture) cursor() string {
	f.Helper()
	cursor, _, err := f.Store.Wake(f.ctx, f.shard, "", 0)
	if err != nil || cursor == "" {
		f.Fatalf("wake: cursor %q, %v", cursor, err)
	}
	return cursor
}

type wakeFunc func(context.Context, writ.Tenant, string, time.Duration) (string, []writ.Lane, error)

// hears waits until the lane is named; a wait may end empty.
func (f *fixture) hears(wake wakeFunc, cursor string, lane writ.Lane) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		next, lanes, err := wake(f.ctx, f.shard, cursor, 2*time.Second)
		if err != nil || slices.Contains(lanes, lane) {
			return err
		}
		cursor = next
	}
	return fmt.Errorf("nothing was heard of %s", lane)
}

// wantWake asks once, without waiting, and wants the lane to be named.
func (f *fixture) wantWake(cursor string, lane writ.Lane) string {
	f.Helper()
	next, lanes, err := f.Store.Wake(f.ctx, f.shard, cursor, 0)
	if err != nil || !slices.Contains(lanes, lane) {
		f.Fatalf("after %q: got %v, %v, want %s", cursor, lanes, err, lane)
	}
	return next
}
