package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var lifeCases = append(append(
	survival("reopen", aReopen, func(o Opened) func(testing.TB) store.Store { return o.Reopen }),
	survival("crash", aCrash, func(o Opened) func(testing.TB) store.Store { return o.Crash })...),
	testCase{
		name: "close/a closed store does nothing", needs: aReopen,
		run: func(f *fixture) {
			f.do(func(*writ.Tx) {})
			old := f.Store
			f.Store = f.Reopen(f)
			if err := old.Close(); err != nil {
				f.Fatalf("closing again: %v", err)
			}
			calls := map[string]func() error{
				"commit":  func() error { _, err := old.Commit(f.ctx, f.shard, f.tx()); return err },
				"read":    func() error { _, err := old.Read(f.ctx, f.shard, writ.ReadSet{}); return err },
				"facts":   func() error { _, err := old.Facts(f.ctx, f.shard, -1, 1, time.Second); return err },
				"receive": func() error { _, err := old.Receive(f.ctx, f.shard, []writ.Lane{laneA}, "c", 1); return err },
				"wake":    func() error { _, _, err := old.Wake(f.ctx, f.shard, "", time.Second); return err },
				"trim":    func() error { return old.Trim(f.ctx, f.shard, 0) },
				"head":    func() error { _, err := old.Head(f.ctx, f.shard); return err },
			}
			for name, call := range calls {
				if err := call(); !errors.Is(err, store.ErrClosed) {
					f.Fatalf("%s: got %v, want ErrClosed", name, err)
				}
			}
			if h := f.head(); h.Seq != 0 {
				f.Fatalf("head: %+v", h)
			}
		},
	},
)

// survival are the cases of what a new life of the host must still know.
func survival(how string, needs *need, hook func(Opened) func(testing.TB) store.Store) []testCase {
	return []testCase{
		{name: how + "/everything committed is still there", needs: needs, run: func(f *fixture) {
			ctr, v, due := writ.Counter{Entity: "e", Field: "f"}, writ.Range{Index: "v/x", Limit: 10}, writ.Range{Index: "due/x", ByScore: true, Max: 99, Limit: 10}
			all := writ.ReadSet{Docs: []writ.Key{"doc/a", "doc/b", "doc/ttl"}, Counters: []writ.Counter{ctr}, Ranges: []writ.Range{v, due}}
			tx := f.tx()
			tx.Fact.Run, tx.Fact.Evidence = "run_a", []byte("sealed")
			tx.Put("doc/a", []byte("A"))
			tx.Put("doc/b", []byte("B"))
			tx.PutFor("doc/ttl", []byte("T"), time.Hour.Milliseconds())
			tx.Add(ctr, 7)
			tx.Index("v/x", "m", 3)
			tx.Index("due/x", "m", 3)
			first := f.commit(tx)
			f.do(func(tx *writ.Tx) { tx.Delete("doc/b") })
			f.do(func(*writ.Tx) {})
			f.trim(0)
			before, head, facts := f.read(all), f.head(), f.facts(-1, 10)

			f.Store = hook(f.Opened)(f)
			after := f.read(all)
			if how == "crash" { // it may have entered another epoch
				head.Epoch = f.head().Epoch
			} else if after.Epoch != before.Epoch {
				f.Fatalf("epoch: got %s, want %s", after.Epoch, before.Epoch)
			}
			if after.Now < head.At || fmt.Sprint(after.Docs, after.Counters, after.Ranges) != fmt.Sprint(before.Docs, before.Counters, before.Ranges) {
				f.Fatalf("got %+v, want %+v", after, before)
			}
			if h := f.head(); h != head {
				f.Fatalf("head: got %+v, want %+v", h, head)
			}
			if got := f.facts(-1, 10); fmt.Sprint(got) != fmt.Sprint(facts) || len(got) != 2 {
				f.Fatalf("facts: got %+v, want %+v", got, facts)
			}
			if c := f.commit(tx); c != first {
				f.Fatalf("the repeated call: got %+v, want %+v", c, first)
			}
			next := f.tx()
			next.Fact.Run = "run_a"
			next.Index("v/x", "m", 4)
			if c := f.commit(next); c.Seq != head.Seq+1 || c.RunSeq != 2 || c.At < head.At {
				f.Fatalf("the next commit: %+v after %+v", c, head)
			}
			if v := f.find(v).Version; v <= before.Ranges[writ.Range{Index: "v/x", Limit: 10}].Version {
				f.Fatalf("the index went back to version %d", v)
			}
		}},
		{name: how + "/entries nobody acked are available, acked ones are not", needs: needs, run: func(f *fixture) {
			f.push(laneA, "1", "2", "3", "4")
			ds := f.wantEntries(3, laneA, "1", "2", "3")
			f.do(func(tx *writ.Tx) { tx.Ack(ds[1]) })

			f.Store = hook(f.Opened)(f)
			var got []string
			for deadline := time.Now().Add(10 * time.Second); len(got) < 3 && time.Now().Before(deadline); {
				if _, err := f.Store.Reclaim(f.ctx, f.shard, 0, 10); err != nil && !errors.Is(err, store.ErrClosed) {
					f.Fatal(err)
				}
				for _, d := range f.receive(1, laneA) {
					got = append(got, d.Entry)
					f.do(func(tx *writ.Tx) { tx.Ack(d) })
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, []string{"1", "3", "4"}) {
				f.Fatalf("received %v", got)
			}
			f.wantEntries(5, laneA)
			f.wantLanes()
		}},
		{name: how + "/a cursor of the old life loses no wake-up", needs: needs, run: func(f *fixture) {
			cursor := f.cursor()
			f.push(laneA, "1")
			f.Store = hook(f.Opened)(f)
			if err := f.hears(f.Store.Wake, cursor, laneA); err != nil {
				f.Fatal(err)
			}
		}},
		{name: how + "/under load, every acknowledged commit is there once", needs: needs, run: func(f *fixture) {
			const committers = 16
			old := f.Store
			acked := make([][]writ.Committed, committers)
			reopened := make(chan store.Store, 1)
			f.together(committers+1, func(i int) error {
				if i == committers {
					// Half of the committers' work later:
					if _, err := old.Facts(f.ctx, f.shard, committers*5, 1, 20*time.Second); err != nil {
						return err
					}
					reopened <- hook(f.Opened)(f)
					return nil
				}
				for n := range 40 {
					tx := f.tx()
					tx.Put(writ.Key(fmt.Sprintf("doc/%d/%d", i, n)), []byte("x"))
					c, err := old.Commit(f.ctx, f.shard, tx)
					if err != nil {
						return nil // the old life ended
					}
					acked[i] = append(acked[i], c)
				}
				return nil
			})
			f.Store = <-reopened
			head := f.head()
			facts := map[int64]bool{}
			for after := int64(-1); after < head.Seq; after++ {
				got := f.facts(after, 1)
				if len(got) != 1 || got[0].Commit.Seq != after+1 {
					f.Fatalf("after %d: %+v", after, got)
				}
				facts[got[0].Commit.Seq] = true
			}
			for i := range acked {
				for n, c := range acked[i] {
					if d := f.doc(writ.Key(fmt.Sprintf("doc/%d/%d", i, n))); d.Version != c.Version() || !facts[c.Seq] {
						f.Fatalf("commit %+v: document at version %d", c, d.Version)
					}
				}
			}
		}},
	}
}
