package storetest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

const laneA, laneB writ.Lane = "5/site.build/media", "5/site.build/ops/@builder"

var laneCases = []testCase{
	{name: "lane/oldest first", run: func(f *fixture) {
		f.push(laneA, "1", "2", "3")
		f.push(laneB, "other")
		f.push(laneA, "4")
		f.wantEntries(1, laneA, "1")
		f.wantEntries(2, laneA, "2", "3")
		f.wantEntries(5, laneA, "4")
		f.wantEntries(5, laneA)
	}},
	{name: "lane/the first lane that has any", run: func(f *fixture) {
		f.push(laneB, "b1", "b2")
		if got := entriesOf(f.receive(5, "0/none.such/x", laneA, laneB)); !slices.Equal(got, []string{"b1", "b2"}) {
			f.Fatalf("got %v", got)
		}
		f.push(laneB, "b3")
		f.push(laneA, "a1")
		if got := entriesOf(f.receive(5, laneA, laneB)); !slices.Equal(got, []string{"a1"}) {
			f.Fatalf("got %v, want one lane only", got)
		}
		if got := f.receive(0, laneB); len(got) != 0 {
			f.Fatalf("asked for none, got %v", got)
		}
		if got := f.receive(1); len(got) != 0 {
			f.Fatalf("asked of no lane, got %v", got)
		}
	}},
	{name: "lane/a delivery names lane, id and entry", run: func(f *fixture) {
		f.push(laneA, "same", "same")
		ds := f.receive(2, laneA)
		if len(ds) != 2 || ds[0].Lane != laneA || ds[0].Entry != "same" || ds[0].ID == "" || ds[0].ID == ds[1].ID {
			f.Fatalf("got %+v", ds)
		}
	}},
	{name: "lane/counts what nobody has received", run: func(f *fixture) {
		f.wantLanes()
		f.push(laneA, "1", "2", "3")
		f.push(laneB, "1")
		f.wantLanes(string(laneA)+":3", string(laneB)+":1")
		d := f.receive(1, laneB)
		f.receive(1, laneA)
		f.wantLanes(string(laneA) + ":2")
		f.giveBack(d[0])
		f.wantLanes(string(laneA)+":2", string(laneB)+":1")
		again := f.receive(1, laneB)
		f.do(func(tx *writ.Tx) { tx.Ack(again[0]) })
		f.wantLanes(string(laneA) + ":2")
	}},
	{name: "lane/what a refused commit pushes is never seen", run: func(f *fixture) {
		tx := f.quiet()
		tx.Push(laneA, "1")
		tx.Expect("doc/a", 1)
		f.refused(tx, writ.GuardExpect, "doc/a")
		f.wantEntries(5, laneA)
		f.wantLanes()
	}},
	{name: "lane/an acked entry is gone for good", run: func(f *fixture) {
		f.push(laneA, "1", "2")
		d := f.wantEntries(1, laneA, "1")[0]
		f.do(func(tx *writ.Tx) { tx.Ack(d) })
		f.do(func(tx *writ.Tx) { tx.Ack(d) }) // and may be acked again
		f.giveBack(d)
		f.reclaimAll("nothing is held", 0)
		f.wantEntries(5, laneA, "2")
	}},
	{name: "lane/an ack in a refused commit leaves the entry held", run: func(f *fixture) {
		f.push(laneA, "1")
		d := f.wantEntries(1, laneA, "1")[0]
		tx := f.quiet()
		tx.Ack(d)
		tx.Expect("doc/a", 1)
		f.refused(tx, writ.GuardExpect, "doc/a")
		f.wantEntries(5, laneA)
		f.giveBack(d)
		f.wantEntries(5, laneA, "1")
	}},
	{name: "lane/an unknown delivery is ignored", run: func(f *fixture) {
		f.push(laneA, "1")
		d := f.wantEntries(1, laneA, "1")[0]
		other := d
		other.Lane = laneB
		f.giveBack(other)
		f.do(func(tx *writ.Tx) { tx.Ack(other) })
		f.wantLanes()
		f.giveBack(d) // still held
		d = f.wantEntries(5, laneA, "1")[0]
		f.do(func(tx *writ.Tx) { tx.Ack(d) })
		f.giveBack(d)
		f.wantLanes()
	}},
	{name: "lane/given back to the end", run: func(f *fixture) {
		f.push(laneA, "1", "2", "3")
		ds := f.wantEntries(2, laneA, "1", "2")
		f.giveBack(ds[0])
		f.giveBack(ds[0]) // once
		f.push(laneA, "4")
		f.wantEntries(5, laneA, "3", "1", "4")
		f.giveBack(ds[1])
		f.wantEntries(5, laneA, "2")
	}},
	{name: "lane/who gave an entry back no longer holds it", run: func(f *fixture) {
		f.push(laneA, "1")
		first := f.wantEntries(1, laneA, "1")[0]
		f.giveBack(first)
		second := f.wantEntries(1, laneA, "1")[0]
		f.giveBack(first)
		f.do(func(tx *writ.Tx) { tx.Ack(first) })
		f.wantEntries(5, laneA)
		f.giveBack(second)
		f.wantEntries(5, laneA, "1")
	}},
	{name: "lane/abandoned entries are reclaimed, at most n", run: func(f *fixture) {
		f.push(laneA, "1", "2", "3")
		f.push(laneB, "b")
		f.wantEntries(5, laneA, "1", "2", "3")
		f.wantEntries(5, laneB, "b")
		if n, err := f.Store.Reclaim(f.ctx, f.shard, time.Hour, 10); n != 0 || err != nil {
			f.Fatalf("entries in use: reclaimed %d, %v", n, err)
		}
		f.reclaimAll("four are held", 4)
		a, b := entriesOf(f.receive(9, laneA)), entriesOf(f.receive(9, laneB))
		slices.Sort(a)
		if !slices.Equal(a, []string{"1", "2", "3"}) || !slices.Equal(b, []string{"b"}) {
			f.Fatalf("received %v and %v", a, b)
		}
	}},
	{name: "lane/idle time follows the store's clock", needs: aClock, run: func(f *fixture) {
		f.push(laneA, "1", "2")
		f.wantEntries(1, laneA, "1")
		f.Advance(time.Minute)
		late := f.wantEntries(1, laneA, "2")[0]
		if n, err := f.Store.Reclaim(f.ctx, f.shard, 30*time.Second, 10); n != 1 || err != nil {
			f.Fatalf("reclaimed %d, %v, want the one from a minute ago", n, err)
		}
		f.wantEntries(5, laneA, "1")
		f.giveBack(late)
		f.wantEntries(5, laneA, "2")
	}},
	{name: "lane/no two consumers hold one entry", run: func(f *fixture) {
		const entries, workers = 400, 64
		for i := range 4 {
			tx := f.quiet()
			for j := range entries / 4 {
				tx.Push(laneA, fmt.Sprint(100*i+j))
			}
			f.commit(tx)
		}
		var mu sync.Mutex
		holder, done := map[string]int{}, 0
		stores := f.stores()
		f.together(workers, func(i int) error {
			s := stores[i%len(stores)]
			me := fmt.Sprint("consumer-", i)
			for round := 0; ; round++ {
				mu.Lock()
				over := done == entries
				mu.Unlock()
				if over {
					return nil
				}
				ds, err := s.Receive(f.ctx, f.shard, []writ.Lane{laneA}, me, 1+i%3)
				if err != nil {
					return err
				}
				for n, d := range ds {
					mu.Lock()
					other, held := holder[d.Entry]
					holder[d.Entry] = i
					mu.Unlock()
					if held {
						return fmt.Errorf("%s was delivered to %d while %d held it", d.Entry, i, other)
					}
					back := (round+n)%4 == 0
					mu.Lock()
					if back { // it may be received again as soon as it is given back
						delete(holder, d.Entry)
					}
					mu.Unlock()
					if back {
						err = s.GiveBack(f.ctx, f.shard, me, d)
					} else {
						tx := f.quiet()
						tx.Ack(d)
						_, err = s.Commit(f.ctx, f.shard, tx)
						mu.Lock()
						done++
						mu.Unlock()
					}
					if err != nil {
						return err
					}
				}
			}
		})
		if len(holder) != entries {
			f.Fatalf("%d entries were acked, want %d", len(holder), entries)
		}
		f.wantLanes()
	}},
}

func (f *fixture) giveBack(d writ.Delivery) {
	f.Helper()
	if err := f.Store.GiveBack(f.ctx, f.shard, "consumer", d); err != nil {
		f.Fatalf("give back: %v", err)
	}
}

// reclaimAll reclaims one entry at a time until want were; the clock of some
// hosts has to move on first, so it is asked again for a while.
func (f *fixture) reclaimAll(why string, want int) {
	f.Helper()
	got := 0
	for deadline := time.Now().Add(5 * time.Second); got < want && time.Now().Before(deadline); {
		n, err := f.Store.Reclaim(f.ctx, f.shard, 0, 1)
		if err != nil || n > 1 {
			f.Fatalf("reclaimed %d of at most 1: %v", n, err)
		}
		got += n
	}
	if n, err := f.Store.Reclaim(f.ctx, f.shard, 0, 10); err != nil || got+n != want {
		f.Fatalf("%s: reclaimed %d, want %d; %v", why, got+n, want, err)
	}
}
