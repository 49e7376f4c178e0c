package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var opCases = []testCase{
	{name: "op/put replaces, delete makes absent", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("A")); tx.Put("doc/ab", []byte("AB")) })
		c := f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("a")) })
		f.wantDoc("doc/a", c.Version(), "a")
		f.wantDoc("doc/ab", 1, "AB")
		f.do(func(tx *writ.Tx) { tx.Delete("doc/a"); tx.Delete("doc/never") })
		f.wantDoc("doc/a", 0, "")
		f.wantDoc("doc/ab", 1, "AB")
	}},
	{name: "op/a document with an end is there before it", run: func(f *fixture) {
		c := f.do(func(tx *writ.Tx) { tx.PutFor("doc/a", []byte("A"), time.Hour.Milliseconds()) })
		f.wantDoc("doc/a", c.Version(), "A")
		f.wants(true, "", "", func(tx *writ.Tx) { tx.Expect("doc/a", c.Version()) })
	}},
	{name: "op/a document with an end is absent after it", needs: aClock, run: func(f *fixture) {
		c := f.do(func(tx *writ.Tx) {
			tx.PutFor("doc/a", []byte("A"), time.Minute.Milliseconds())
			tx.PutFor("doc/kept", []byte("K"), time.Minute.Milliseconds())
			tx.PutFor("doc/longer", []byte("L"), time.Minute.Milliseconds())
		})
		kept := f.do(func(tx *writ.Tx) {
			tx.Put("doc/kept", []byte("K"))
			tx.PutFor("doc/longer", []byte("L"), time.Hour.Milliseconds())
		})
		f.Advance(time.Minute + time.Second)
		for range 2 { // before and after the store tidies up
			f.wantDoc("doc/a", 0, "")
			f.wants(true, "", "", func(tx *writ.Tx) { tx.Expect("doc/a", 0) })
			f.wants(false, writ.GuardExpect, "doc/a", func(tx *writ.Tx) { tx.Expect("doc/a", c.Version()) })
			f.wantDoc("doc/kept", kept.Version(), "K")
			f.wantDoc("doc/longer", kept.Version(), "L")
			f.do(func(*writ.Tx) {})
		}
	}},
	{name: "op/add moves a counter both ways", run: func(f *fixture) {
		c, sibling := writ.Counter{Entity: "e", Field: "f"}, writ.Counter{Entity: "e", Field: "g"}
		want := int64(0)
		for _, d := range []int64{5, -3, -2, -7, 0, 8, writ.MaxAmount - 1, -writ.MaxAmount} {
			f.do(func(tx *writ.Tx) { tx.Add(c, d) })
			if want += d; f.counter(c) != want {
				f.Fatalf("after %+d: got %d, want %d", d, f.counter(c), want)
			}
		}
		if n := f.counter(sibling); n != 0 {
			f.Fatalf("the field beside it is %d", n)
		}
	}},
	{name: "op/add up to its limit and no further", run: func(f *fixture) {
		c := writ.Counter{Entity: "run/r", Field: "steps"}
		upTo := func(pass bool, delta, limit int64) {
			f.Helper()
			tx := f.quiet()
			tx.AddUpTo(c, delta, limit)
			_, err := f.try(tx)
			l, isLimit := errors.AsType[*store.Limit](err)
			switch {
			case pass && err != nil:
				f.Fatalf("%+d up to %d: %v", delta, limit, err)
			case !pass && (!isLimit || l.Counter != c):
				f.Fatalf("%+d up to %d: got %v, want a limit of %v", delta, limit, err, c)
			}
		}
		upTo(false, 6, 5)
		upTo(true, 3, 5)
		upTo(false, 3, 5)
		upTo(true, 2, 5)
		upTo(false, 1, 5)
		upTo(true, 1, 6)
		upTo(true, -2, 6)
		upTo(true, 0, 4)
		if n := f.counter(c); n != 4 {
			f.Fatalf("counter %d, want 4", n)
		}
		upTo(false, 1, 0)
		f.do(func(tx *writ.Tx) { tx.Add(c, 100) }) // without a limit nothing refuses
	}},
	{name: "op/a limit counts what the transaction did before", run: func(f *fixture) {
		c := writ.Counter{Entity: "e", Field: "f"}
		tx := f.quiet()
		tx.AddUpTo(c, 3, 5)
		tx.AddUpTo(c, 3, 5)
		if _, err := f.try(tx); err == nil {
			f.Fatal("6 of 5 were committed")
		}
		tx = f.quiet()
		tx.AddUpTo(c, 3, 5)
		tx.Add(c, -2)
		tx.AddUpTo(c, 3, 5)
		f.commit(tx)
		if n := f.counter(c); n != 4 {
			f.Fatalf("counter %d, want 4", n)
		}
	}},
	{name: "op/a limit holds among many", run: func(f *fixture) {
		c := writ.Counter{Entity: "e", Field: "f"}
		stores := f.stores()
		var passed [64]bool
		f.together(len(passed), func(i int) error {
			tx := f.quiet()
			tx.AddUpTo(c, 1, 10)
			_, err := stores[i%len(stores)].Commit(f.ctx, f.shard, tx)
			if _, isLimit := errors.AsType[*store.Limit](err); isLimit {
				return nil
			}
			passed[i] = err == nil
			return err
		})
		n := 0
		for _, p := range passed {
			if p {
				n++
			}
		}
		if n != 10 || f.counter(c) != 10 {
			f.Fatalf("%d passed, counter %d, want 10", n, f.counter(c))
		}
	}},
}

var indexCases = []testCase{
	{name: "index/lexical ranges", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) {
			for _, m := range []string{"c", "a", "b", "ba", "d"} {
				tx.Index("list/x", m, 0)
			}
			tx.Index("list/xa", "other", 0)
			tx.Index("list", "other", 0)
		})
		x := writ.Index("list/x")
		f.wantRange(writ.Range{Index: x}, "a:0", "b:0", "ba:0", "c:0", "d:0")
		f.wantRange(writ.Range{Index: x, From: "b"}, "b:0", "ba:0", "c:0", "d:0")
		f.wantRange(writ.Range{Index: x, To: "c"}, "a:0", "b:0", "ba:0")
		f.wantRange(writ.Range{Index: x, From: "b", To: "c"}, "b:0", "ba:0")
		f.wantRange(writ.Range{Index: x, From: "b\x00", To: "c"}, "ba:0")
		f.wantRange(writ.Range{Index: x, From: "c", To: "b"})
		f.wantRange(writ.Range{Index: x, Limit: 2}, "a:0", "b:0")
		f.wantRange(writ.Range{Index: x, Desc: true}, "d:0", "c:0", "ba:0", "b:0", "a:0")
		f.wantRange(writ.Range{Index: x, Desc: true, From: "b", To: "d", Limit: 2}, "c:0", "ba:0")
		f.wantRange(writ.Range{Index: x, Desc: true, To: "a"})
	}},
	{name: "index/ranges by score are ordered by score, then member", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) {
			tx.Index("due/x", "late", 300)
			tx.Index("due/x", "b", 100)
			tx.Index("due/x", "a", 100)
			tx.Index("due/x", "zero", 0)
			tx.Index("due/x", "max", writ.MaxAmount)
			tx.Index("due/xa", "other", 100)
		})
		x := writ.Index("due/x")
		f.wantRange(writ.Range{Index: x, ByScore: true, Max: 300}, "zero:0", "a:100", "b:100", "late:300")
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: 100, Max: 299}, "a:100", "b:100")
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: 101, Max: 299})
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: 5, Max: 4})
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: -5, Max: -1})
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: -5, Max: 0}, "zero:0")
		f.wantRange(writ.Range{Index: x, ByScore: true, Min: 300, Max: writ.MaxAmount}, "late:300", fmt.Sprintf("max:%d", writ.MaxAmount))
		f.wantRange(writ.Range{Index: x, ByScore: true, Max: 300, Limit: 2}, "zero:0", "a:100")
		f.wantRange(writ.Range{Index: x, ByScore: true, Max: 300, Desc: true, Limit: 3}, "late:300", "b:100", "a:100")
		f.wantRange(writ.Range{Index: x, ByScore: true, Max: 299, Desc: true}, "b:100", "a:100", "zero:0")
	}},
	{name: "index/a page of a thousand", run: func(f *fixture) {
		for i := range 4 {
			f.do(func(tx *writ.Tx) {
				for j := range 300 {
					tx.Index("list/x", fmt.Sprintf("%04d", 300*i+j), 0)
				}
			})
		}
		page := f.find(writ.Range{Index: "list/x", Limit: 1000}).Members
		if len(page) != 1000 || page[999].Name != "0999" {
			f.Fatalf("%d members", len(page))
		}
		page = f.find(writ.Range{Index: "list/x", From: page[999].Name + "\x00", Limit: 1000}).Members
		if len(page) != 200 || page[0].Name != "1000" {
			f.Fatalf("%d members on the second page", len(page))
		}
	}},
	{name: "index/rescoring moves a member", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("due/x", "m", 5); tx.Index("due/x", "n", 6) })
		f.do(func(tx *writ.Tx) { tx.Index("due/x", "m", 7) })
		f.wantRange(writ.Range{Index: "due/x", ByScore: true, Max: 9}, "n:6", "m:7")
		f.wantRange(writ.Range{Index: "due/x", ByScore: true, Max: 5})
	}},
	{name: "index/a member leaves, whatever its score or only at one", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("due/x", "m", 5); tx.Index("due/x", "n", 6) })
		f.do(func(tx *writ.Tx) {
			tx.UnindexAt("due/x", "m", 4)
			tx.UnindexAt("due/x", "never", 4)
			tx.Unindex("due/x", "never")
		})
		f.wantRange(writ.Range{Index: "due/x", ByScore: true, Max: 9}, "m:5", "n:6")
		f.do(func(tx *writ.Tx) { tx.UnindexAt("due/x", "m", 5); tx.Unindex("due/x", "n") })
		f.wantRange(writ.Range{Index: "due/x", ByScore: true, Max: 9})
	}},
	{name: "index/a version changes with every member and score, and never comes back", run: func(f *fixture) {
		seen := map[int64]string{}
		step := func(name string, build func(*writ.Tx), want int) {
			f.Helper()
			f.do(build)
			res := f.find(writ.Range{Index: "v/x"})
			if len(res.Members) != want {
				f.Fatalf("%s: members %v", name, res.Members)
			}
			if want == 0 {
				if res.Version != 0 {
					f.Fatalf("%s: an empty index has version %d", name, res.Version)
				}
				return
			}
			if before, was := seen[res.Version]; was || res.Version <= 0 {
				f.Fatalf("%s: version %d was already given by %s", name, res.Version, before)
			}
			seen[res.Version] = name
		}
		for round := range 3 {
			n := fmt.Sprint(" ", round)
			step("first member"+n, func(tx *writ.Tx) { tx.Index("v/x", "a", 0) }, 1)
			step("second member"+n, func(tx *writ.Tx) { tx.Index("v/x", "b", 0) }, 2)
			step("rescored"+n, func(tx *writ.Tx) { tx.Index("v/x", "a", 1) }, 2)
			step("back to the first score"+n, func(tx *writ.Tx) { tx.Index("v/x", "a", 0) }, 2)
			step("removed"+n, func(tx *writ.Tx) { tx.Unindex("v/x", "b") }, 1)
			step("emptied"+n, func(tx *writ.Tx) { tx.Unindex("v/x", "a") }, 0)
		}
	}},
	{name: "index/a version changes without a fact too", run: func(f *fixture) {
		seen := map[int64]bool{0: true}
		for i := range 20 {
			tx := f.quiet()
			tx.Index("v/x", "a", int64(i))
			f.commit(tx)
			v := f.find(writ.Range{Index: "v/x"}).Version
			if seen[v] {
				f.Fatalf("version %d came back", v)
			}
			seen[v] = true
		}
	}},
	{name: "index/versions are each index's own", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("v/x", "a", 0); tx.Index("v/y", "a", 0) })
		x := f.find(writ.Range{Index: "v/x"}).Version
		f.do(func(tx *writ.Tx) { tx.Index("v/y", "b", 0); tx.Put("doc/a", []byte("A")) })
		f.wants(true, "", "", func(tx *writ.Tx) { tx.ExpectRange("v/x", x) })
	}},
	{name: "index/the version is the whole index's, whatever part is read", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("v/x", "a", 0); tx.Index("v/x", "b", 0) })
		whole := f.find(writ.Range{Index: "v/x"}).Version
		part := f.find(writ.Range{Index: "v/x", From: "x", To: "y"})
		if len(part.Members) != 0 || part.Version != whole {
			f.Fatalf("part %+v, whole version %d", part, whole)
		}
	}},
	{name: "index/an index without versions has none", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("list/x", "a", 0) })
		if v := f.find(writ.Range{Index: "list/x"}).Version; v != 0 {
			f.Fatalf("version %d", v)
		}
	}},
}
