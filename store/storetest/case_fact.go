package storetest

import (
	"bytes"
	"fmt"
	"reflect"
	"time"

	"github.com/writ-gateway/writ"
)

var factCases = []testCase{
	{name: "facts/come back whole, with their commit", run: func(f *fixture) {
		tx := f.tx()
		tx.Fact.Run = "run_a"
		tx.Fact.Evidence = []byte("sealed")
		first := f.commit(tx)
		bare := f.do(func(*writ.Tx) {})
		got := f.facts(-1, 10)
		if len(got) != 2 {
			f.Fatalf("got %d facts", len(got))
		}
		a, want := got[0], *tx.Fact
		if a.ID != want.ID || a.Run != want.Run || a.KeyID != want.KeyID || !bytes.Equal(a.Head, want.Head) ||
			!bytes.Equal(a.Tail, want.Tail) || !bytes.Equal(a.Evidence, want.Evidence) || a.Commit != first {
			f.Fatalf("got %+v, want %+v at %+v", a, want, first)
		}
		if b := got[1]; b.Run != "" || len(b.Evidence) != 0 || b.Commit != bare {
			f.Fatalf("got %+v", b)
		}
	}},
	{name: "facts/a foreign one comes directly before that which rests on it", run: func(f *fixture) {
		f.do(func(*writ.Tx) {})
		tx := f.tx()
		tx.Fact.Run = "run_a"
		tx.Before = foreign("run_a", "rcp_theirs")
		tx.Put("doc/a", []byte("A"))
		c := f.commit(tx)
		if again := f.commit(tx); c.Seq != 2 || c.RunSeq != 1 || again != c {
			f.Fatalf("got %+v, then %+v", c, again)
		}
		if d := f.read(writ.ReadSet{Docs: []writ.Key{"doc/a"}}).Docs["doc/a"]; d.Version != c.Version() {
			f.Fatalf("the document has version %d", d.Version)
		}
		tx = f.tx()
		tx.Before = foreign("", "rcp_refused")
		tx.Expect("doc/a", 1)
		if _, err := f.try(tx); err == nil {
			f.Fatalf("a guard that failed did not hold")
		}
		if next := f.do(func(*writ.Tx) {}); next.Seq != 3 {
			f.Fatalf("what was refused took a sequence: %+v", next)
		}
		got := f.facts(-1, 10)
		if len(got) != 4 || !reflect.DeepEqual(got[1].Fact, *foreign("run_a", "rcp_theirs")) || got[1].Commit != (writ.Committed{Epoch: c.Epoch, Seq: 1, At: c.At}) || got[2].Foreign() || got[2].Commit != c {
			f.Fatalf("got %+v", got)
		}
	}},
	{name: "facts/after a sequence, up to n, in order", run: func(f *fixture) {
		for range 10 {
			f.do(func(*writ.Tx) {})
		}
		for _, c := range []struct {
			after int64
			n     int
			first int64
			want  int
		}{{-1, 100, 0, 10}, {-1, 3, 0, 3}, {2, 3, 3, 3}, {8, 100, 9, 1}, {9, 100, 0, 0}, {50, 100, 0, 0}, {-1, 0, 0, 0}} {
			got := f.facts(c.after, c.n)
			if len(got) != c.want {
				f.Fatalf("after %d, at most %d: got %d, want %d", c.after, c.n, len(got), c.want)
			}
			for i, fact := range got {
				if fact.Commit.Seq != c.first+int64(i) {
					f.Fatalf("after %d: fact %d has sequence %d", c.after, i, fact.Commit.Seq)
				}
			}
		}
	}},
	{name: "facts/waits for the first one", run: func(f *fixture) {
		stores := f.stores()
		f.do(func(*writ.Tx) {})
		f.together(5, func(i int) error {
			if i == 0 {
				_, err := f.try(f.tx())
				return err
			}
			got, err := stores[i%len(stores)].Facts(f.ctx, f.shard, 0, 10, 20*time.Second)
			if err == nil && (len(got) != 1 || got[0].Commit.Seq != 1) {
				err = fmt.Errorf("got %+v", got)
			}
			return err
		})
	}},
	{name: "facts/waits no longer than it may", run: func(f *fixture) {
		got, err := f.Store.Facts(f.ctx, f.shard, -1, 10, 10*time.Millisecond)
		if err != nil || len(got) != 0 {
			f.Fatalf("got %v, %v", got, err)
		}
	}},
	{name: "facts/no gap and no repeat among many committers", run: func(f *fixture) {
		const committers, each = 64, 10
		stores := f.stores()
		seqs := make(chan int64, committers*each)
		f.together(committers+1, func(i int) error {
			if i < committers {
				for range each {
					tx := f.tx()
					tx.Fact.Run = writ.RunID(fmt.Sprint("run_", i))
					c, err := stores[i%len(stores)].Commit(f.ctx, f.shard, tx)
					if err != nil {
						return err
					}
					seqs <- c.Seq
				}
				return nil
			}
			// A reader meanwhile never sees a gap.
			runs := map[writ.RunID]int64{}
			for after := int64(-1); after < committers*each-1; {
				got, err := f.Store.Facts(f.ctx, f.shard, after, 7, 5*time.Second)
				if err != nil {
					return err
				}
				if len(got) == 0 {
					return fmt.Errorf("no fact after %d", after)
				}
				for _, fact := range got {
					runs[fact.Run]++
					if after++; fact.Commit.Seq != after || fact.Commit.RunSeq != runs[fact.Run] {
						return fmt.Errorf("got %+v, want sequence %d, run sequence %d", fact.Commit, after, runs[fact.Run])
					}
				}
			}
			return nil
		})
		close(seqs)
		seen := map[int64]bool{}
		for s := range seqs {
			if seen[s] || s < 0 || s >= committers*each {
				f.Fatalf("sequence %d", s)
			}
			seen[s] = true
		}
	}},
	{name: "facts/trimmed ones are forgotten, the others stay", run: func(f *fixture) {
		for range 10 {
			f.do(func(*writ.Tx) {})
		}
		f.trim(3)
		if h := f.head(); h.Trimmed != 3 || h.Seq != 9 || h.Backlog != 6 {
			f.Fatalf("head: %+v", h)
		}
		if got := f.facts(-1, 100); len(got) != 6 || got[0].Commit.Seq != 4 {
			f.Fatalf("got %d facts", len(got))
		}
		f.trim(1) // never back
		if h := f.head(); h.Trimmed != 3 {
			f.Fatalf("head: %+v", h)
		}
		f.trim(9)
		if h := f.head(); h.Trimmed != 9 || h.Seq != 9 || h.Backlog != 0 || len(f.facts(-1, 100)) != 0 {
			f.Fatalf("head: %+v", h)
		}
		if c := f.do(func(*writ.Tx) {}); c.Seq != 10 {
			f.Fatalf("after trimming all, the next sequence is %d", c.Seq)
		}
		if got := f.facts(-1, 100); len(got) != 1 || got[0].Commit.Seq != 10 {
			f.Fatalf("got %+v", got)
		}
	}},
	{name: "facts/the last one that is kept is read with those after it", run: func(f *fixture) {
		for range 5 {
			f.do(func(*writ.Tx) {})
		}
		f.trim(2)
		for after := int64(-1); after < 4; after++ { // at or before what was trimmed: what is left
			want := max(after, 2) + 1
			got := f.facts(after, 10)
			if int64(len(got)) != 5-want || got[0].Commit.Seq != want {
				f.Fatalf("after %d: got %d facts, want those from %d on", after, len(got), want)
			}
		}
	}},
	{name: "facts/trimming past the end waits for nothing", run: func(f *fixture) {
		f.trim(5)
		f.do(func(*writ.Tx) {})
		f.do(func(*writ.Tx) {})
		if got := f.facts(-1, 100); len(got) != 2 {
			f.Fatalf("facts committed after the trim are gone: got %d of 2", len(got))
		}
		f.trim(100)
		if h := f.head(); h.Trimmed != 1 || h.Backlog != 0 {
			f.Fatalf("head: %+v", h)
		}
		f.do(func(*writ.Tx) {})
		if got := f.facts(-1, 100); len(got) != 1 || got[0].Commit.Seq != 2 {
			f.Fatalf("got %+v", got)
		}
	}},
	{name: "facts/trimming many at once", run: func(f *fixture) {
		const n = 600
		for range n {
			f.do(func(*writ.Tx) {})
		}
		f.trim(n - 2)
		if got := f.facts(-1, 10); len(got) != 1 || got[0].Commit.Seq != n-1 {
			f.Fatalf("got %d facts", len(got))
		}
	}},
	{name: "head/of a new shard", run: func(f *fixture) {
		if h := f.head(); h.Seq != -1 || h.Trimmed != -1 || h.Backlog != 0 || h.Epoch == "" {
			f.Fatalf("head: %+v", h)
		}
	}},
	{name: "head/follows the commits", run: func(f *fixture) {
		f.do(func(*writ.Tx) {})
		c := f.do(func(*writ.Tx) {})
		if h := f.head(); h.Seq != 1 || h.Backlog != 2 || h.At != c.At || h.Epoch != c.Epoch {
			f.Fatalf("head: %+v, last commit %+v", h, c)
		}
	}},
	{name: "info/names host and durability", run: func(f *fixture) {
		i, err := f.Store.Info(f.ctx)
		if err != nil || i.Kind == "" || i.Durability == "" || i.MemoryUsed < 0 || i.MemoryMax < 0 {
			f.Fatalf("got %+v, %v", i, err)
		}
	}},
}

func (f *fixture) trim(upto int64) {
	f.Helper()
	if err := f.Store.Trim(f.ctx, f.shard, upto); err != nil {
		f.Fatalf("trim: %v", err)
	}
}
