package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var commitCases = []testCase{
	{name: "commit/facts are numbered 0, 1, 2 and documents get seq + 1", run: func(f *fixture) {
		for n := range int64(5) {
			c := f.do(func(tx *writ.Tx) { tx.Put("doc/a", fmt.Append(nil, n)) })
			if c.Seq != n || c.Epoch == "" || c.At <= 0 {
				f.Fatalf("commit %d gave %+v", n, c)
			}
			f.wantDoc("doc/a", n+1, fmt.Sprint(n))
		}
	}},
	{name: "commit/without a fact there is no sequence", run: func(f *fixture) {
		f.do(func(*writ.Tx) {})
		tx := f.quiet()
		tx.Add(writ.Counter{Entity: "e", Field: "f"}, 1)
		if c := f.commit(tx); c.Seq != -1 || c.RunSeq != 0 {
			f.Fatalf("got %+v", c)
		}
		if c := f.do(func(*writ.Tx) {}); c.Seq != 1 {
			f.Fatalf("the next fact has sequence %d, want 1", c.Seq)
		}
	}},
	{name: "commit/a run counts its facts from 1", run: func(f *fixture) {
		for i, want := range []struct {
			run writ.RunID
			n   int64
		}{{"run_a", 1}, {"run_b", 1}, {"", 0}, {"run_a", 2}, {"run_a", 3}, {"run_b", 2}} {
			if c := f.do(func(tx *writ.Tx) { tx.Fact.Run = want.run }); c.RunSeq != want.n || c.Seq != int64(i) {
				f.Fatalf("fact %d of run %q: %+v", i, want.run, c)
			}
		}
	}},
	{name: "commit/at never goes back", needs: aClock, run: func(f *fixture) {
		first := f.do(func(*writ.Tx) {})
		f.StepBack(time.Hour)
		for range 3 {
			if now, at := f.read(writ.ReadSet{}).Now, f.head().At; now < first.At || at < first.At {
				f.Fatalf("at %d, the clock went to %d and the head to %d", first.At, now, at)
			}
			if c := f.do(func(*writ.Tx) {}); c.At < first.At {
				f.Fatalf("at went from %d to %d", first.At, c.At)
			}
		}
	}},
	{name: "commit/a call that was committed gives the first result again", run: func(f *fixture) {
		tx := f.tx()
		tx.Fact.Run = "run_a"
		tx.Put("doc/a", []byte("A"))
		tx.Expect("doc/a", 0)
		first := f.commit(tx)
		f.do(func(*writ.Tx) {})
		for name, again := range map[string]writ.Tx{
			"itself, whose guard fails now": tx,
			"one that does something else":  {Call: tx.Call, Fact: f.tx().Fact, Ops: []writ.Op{{Kind: writ.OpPut, Key: "doc/b", Body: []byte("B")}}},
			"one in another epoch":          {Call: tx.Call, Guards: []writ.Guard{{Kind: writ.GuardEpoch, From: "0.0"}}},
			"one that does nothing":         {Call: tx.Call},
		} {
			if c := f.commit(again); c != first {
				f.Fatalf("%s: got %+v, want %+v", name, c, first)
			}
		}
		f.wantDoc("doc/b", 0, "")
		if h := f.head(); h.Seq != 1 {
			f.Fatalf("sequence %d after repeats, want 1", h.Seq)
		}
	}},
	{name: "commit/a call is remembered without a fact too", run: func(f *fixture) {
		c := writ.Counter{Entity: "e", Field: "f"}
		tx := f.quiet()
		tx.Add(c, 1)
		first := f.commit(tx)
		if again := f.commit(tx); again != first || f.counter(c) != 1 {
			f.Fatalf("got %+v, want %+v; counter %d, want 1", again, first, f.counter(c))
		}
	}},
	{name: "commit/a call is remembered for ten minutes", needs: aClock, run: func(f *fixture) {
		f.do(func(*writ.Tx) {})
		f.Advance(7 * time.Minute)
		tx := f.tx()
		first := f.commit(tx)
		for range 9 {
			f.Advance(time.Minute + 6*time.Second)
			f.do(func(*writ.Tx) {})
			if c := f.commit(tx); c != first {
				f.Fatalf("got %+v, want %+v", c, first)
			}
		}
	}},
	{name: "commit/a refused call is not remembered", run: func(f *fixture) {
		tx := f.tx()
		tx.Put("doc/a", []byte("A"))
		tx.Expect("doc/b", 1)
		f.refused(tx, writ.GuardExpect, "doc/b")
		f.do(func(tx *writ.Tx) { tx.Put("doc/b", []byte("B")) })
		if c := f.commit(tx); c.Seq != 1 {
			f.Fatalf("got %+v", c)
		}
	}},
	{name: "commit/a call committed by many at once happens once", run: func(f *fixture) {
		tx := f.tx()
		tx.Add(writ.Counter{Entity: "e", Field: "f"}, 1)
		stores := f.stores()
		results := make([]writ.Committed, 32)
		f.together(len(results), func(i int) (err error) {
			results[i], err = stores[i%len(stores)].Commit(f.ctx, f.shard, tx)
			return err
		})
		for _, c := range results {
			if c != results[0] {
				f.Fatalf("got %+v and %+v", c, results[0])
			}
		}
		if n := f.counter(writ.Counter{Entity: "e", Field: "f"}); n != 1 {
			f.Fatalf("it happened %d times", n)
		}
	}},
	{name: "commit/a refusal changes nothing", run: func(f *fixture) {
		ctr := writ.Counter{Entity: "e", Field: "f"}
		f.do(func(tx *writ.Tx) {
			tx.Put("doc/a", []byte("A"))
			tx.Index("v/x", "m", 1)
			tx.Add(ctr, 5)
			tx.Push("0/x.y/d", "held")
		})
		held := f.wantEntries(1, "0/x.y/d", "held")[0]
		r := writ.Range{Index: "v/x", Limit: 10}
		all := writ.ReadSet{Docs: []writ.Key{"doc/a", "doc/b"}, Counters: []writ.Counter{ctr}, Ranges: []writ.Range{r}}
		before, headBefore := f.read(all), f.head()
		change := func() writ.Tx {
			tx := f.tx()
			tx.Fact.Run = "run_a"
			tx.Put("doc/a", []byte("changed"))
			tx.Put("doc/b", []byte("new"))
			tx.Delete("doc/a")
			tx.Index("v/x", "other", 2)
			tx.Unindex("v/x", "m")
			tx.Add(ctr, 1)
			tx.Push("0/x.y/d", "new")
			tx.Ack(held)
			return tx
		}
		refusals := map[string]func(*writ.Tx){
			"expect": func(tx *writ.Tx) { tx.Expect("doc/a", 9) },
			"range":  func(tx *writ.Tx) { tx.ExpectRange("v/x", 9) },
			"free":   func(tx *writ.Tx) { tx.Free("v/x", "a", "z", "") },
			"within": func(tx *writ.Tx) { tx.Within(ctr, 6, 9) },
			"late":   func(tx *writ.Tx) { tx.NotAfter(1) },
			"epoch":  func(tx *writ.Tx) { tx.Guards = append(tx.Guards, writ.Guard{Kind: writ.GuardEpoch, From: "0.0"}) },
			"limit":  func(tx *writ.Tx) { tx.AddUpTo(ctr, 1, 6) },
			"check":  func(tx *writ.Tx) { tx.Put("not allowed", []byte("x")) },
		}
		for name, refuse := range refusals {
			tx := change()
			refuse(&tx)
			if _, err := f.try(tx); err == nil {
				f.Fatalf("%s: it was committed", name)
			}
			after := f.read(all)
			if !bytes.Equal(after.Docs["doc/a"].Body, []byte("A")) || after.Docs["doc/b"].Version != 0 || after.Counters[ctr] != 5 ||
				len(after.Ranges[r].Members) != 1 || after.Ranges[r].Version != before.Ranges[r].Version {
				f.Fatalf("%s: got %+v, want %+v", name, after, before)
			}
			if h := f.head(); h != headBefore {
				f.Fatalf("%s: head went from %+v to %+v", name, headBefore, h)
			}
			f.wantLanes()
		}
		if c := f.commit(change()); c.RunSeq != 1 {
			f.Fatalf("the run counted refused facts: %+v", c)
		}
		f.wantEntries(9, "0/x.y/d", "new")
	}},
	{name: "commit/the first guard that fails is named", run: func(f *fixture) {
		tx := f.quiet()
		tx.Expect("doc/a", 0)
		tx.Expect("doc/b", 3)
		tx.Within(writ.Counter{Entity: "e", Field: "f"}, 1, 2)
		f.refused(tx, writ.GuardExpect, "doc/b")
		tx.Guards = append(tx.Guards, writ.Guard{Kind: writ.GuardEpoch, From: "0.0"})
		f.refused(tx, writ.GuardExpect, "doc/b")
		tx.Guards = append([]writ.Guard{{Kind: writ.GuardEpoch, From: "0.0"}}, tx.Guards...)
		if _, err := f.try(tx); !errors.Is(err, store.ErrFenced) {
			f.Fatalf("got %v, want ErrFenced", err)
		}
	}},
	{name: "commit/guards come before limits", run: func(f *fixture) {
		tx := f.quiet()
		tx.AddUpTo(writ.Counter{Entity: "e", Field: "f"}, 2, 1)
		tx.Expect("doc/a", 7)
		f.refused(tx, writ.GuardExpect, "doc/a")
	}},
	{name: "commit/operations on one name apply in order", run: func(f *fixture) {
		ctr := writ.Counter{Entity: "e", Field: "f"}
		c := f.do(func(tx *writ.Tx) {
			tx.Put("doc/twice", []byte("1"))
			tx.Put("doc/twice", []byte("2"))
			tx.Put("doc/gone", []byte("1"))
			tx.Delete("doc/gone")
			tx.Delete("doc/back")
			tx.Put("doc/back", []byte("1"))
			tx.Index("due/x", "m", 1)
			tx.Index("due/x", "m", 2)
			tx.UnindexAt("due/x", "m", 1)
			tx.Index("due/x", "out", 1)
			tx.Unindex("due/x", "out")
			tx.Unindex("due/x", "in")
			tx.Index("due/x", "in", 1)
			tx.Add(ctr, 5)
			tx.AddUpTo(ctr, 5, 10)
			tx.Add(ctr, 5)
			tx.Push("0/x.y/d", "1")
			tx.Push("0/x.y/d", "2")
		})
		f.wantDoc("doc/twice", c.Version(), "2")
		f.wantDoc("doc/gone", 0, "")
		f.wantDoc("doc/back", c.Version(), "1")
		f.wantRange(writ.Range{Index: "due/x", ByScore: true, Max: 9}, "in:1", "m:2")
		if n := f.counter(ctr); n != 15 {
			f.Fatalf("counter %d, want 15", n)
		}
		f.wantEntries(9, "0/x.y/d", "1", "2")
	}},
	{name: "commit/what Tx.Check refuses is invalid and changes nothing", run: func(f *fixture) {
		for name, build := range invalidTxs() {
			tx := f.tx()
			tx.Put("doc/a", []byte("A"))
			build(&tx)
			if _, err := f.try(tx); !errors.Is(err, store.ErrInvalid) {
				f.Fatalf("%s: got %v, want ErrInvalid", name, err)
			}
		}
		f.wantDoc("doc/a", 0, "")
		if h := f.head(); h.Seq != -1 {
			f.Fatalf("head: %+v", h)
		}
	}},
	{name: "commit/as large as the caps allow", run: func(f *fixture) {
		many := f.tx()
		for i := range writ.MaxOps / 2 {
			many.Expect(writ.Key(fmt.Sprintf("doc/%d", i)), 0)
			many.Put(writ.Key(fmt.Sprintf("doc/%d", i)), []byte("x"))
		}
		f.wantDoc("doc/255", 0, "")
		c := f.commit(many)
		f.wantDoc("doc/255", c.Version(), "x")
		large := bytes.Repeat([]byte("x"), writ.MaxDocBytes)
		for i := range large {
			large[i] = byte(i)
		}
		c = f.do(func(tx *writ.Tx) {
			for i := range 3 {
				tx.Put(writ.Key(fmt.Sprintf("large/%d", i)), large)
			}
		})
		f.wantDoc("large/2", c.Version(), string(large))
		longName := strings.Repeat("n", 256)
		c = f.do(func(tx *writ.Tx) {
			tx.Put(writ.Key(longName), []byte("x"))
			tx.Index(writ.Index(longName), strings.Repeat("m", 1024), writ.MaxAmount)
			tx.Add(writ.Counter{Entity: longName, Field: longName}, writ.MaxAmount)
			tx.Push(writ.Lane(longName), strings.Repeat("e", 256))
		})
		f.wantDoc(writ.Key(longName), c.Version(), "x")
		f.wantRange(writ.Range{Index: writ.Index(longName), ByScore: true, Max: writ.MaxAmount}, fmt.Sprintf("%s:%d", strings.Repeat("m", 1024), writ.MaxAmount))
		if n := f.counter(writ.Counter{Entity: longName, Field: longName}); n != writ.MaxAmount {
			f.Fatalf("counter %d, want %d", n, writ.MaxAmount)
		}
		f.wantEntries(1, writ.Lane(longName), strings.Repeat("e", 256))
	}},
	{name: "commit/a mandate is a commit like any other", run: func(f *fixture) {
		tx := f.tx()
		tx.Mandate = true
		tx.Put("doc/a", []byte("A"))
		tx.Expect("doc/a", 0)
		c := f.commit(tx)
		f.wantDoc("doc/a", c.Version(), "A")
		again := f.tx()
		again.Mandate = true
		again.Expect("doc/a", 0)
		f.refused(again, writ.GuardExpect, "doc/a")
	}},
	{name: "commit/bytes come back as they were", run: func(f *fixture) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		tx := f.tx()
		tx.Fact.Head, tx.Fact.Tail, tx.Fact.Evidence = every, every[128:], every[:128]
		tx.Put("doc/a", every)
		tx.Index("list/x", string(every), 0)
		tx.Push("0/x.y/d", string(every))
		c := f.commit(tx)
		f.wantDoc("doc/a", c.Version(), string(every))
		f.wantRange(writ.Range{Index: "list/x"}, string(every)+":0")
		f.wantEntries(1, "0/x.y/d", string(every))
		got := f.facts(-1, 1)[0]
		if !bytes.Equal(got.Head, every) || !bytes.Equal(got.Tail, every[128:]) || !bytes.Equal(got.Evidence, every[:128]) {
			f.Fatalf("fact: %+v", got)
		}
	}},
}
