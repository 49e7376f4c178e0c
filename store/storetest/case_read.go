package storetest

import (
	"fmt"
	"time"

	"github.com/writ-gateway/writ"
)

var readCases = []testCase{
	{name: "read/absent is the zero Doc, 0 and no members", run: func(f *fixture) {
		r := writ.Range{Index: "list/x", Limit: 10}
		v := writ.Range{Index: "v/x", Limit: 10}
		c := writ.Counter{Entity: "e", Field: "f"}
		s := f.read(writ.ReadSet{Docs: []writ.Key{"a"}, Counters: []writ.Counter{c}, Ranges: []writ.Range{r, v}})
		d, known := s.Docs["a"]
		if !known || d.Version != 0 || len(d.Body) != 0 {
			f.Fatalf("document: known %v, %+v", known, d)
		}
		if n, known := s.Counters[c]; !known || n != 0 {
			f.Fatalf("counter: known %v, %d", known, n)
		}
		for _, r := range []writ.Range{r, v} {
			if res, known := s.Ranges[r]; !known || len(res.Members) != 0 || res.Version != 0 {
				f.Fatalf("range: known %v, %+v", known, res)
			}
		}
	}},
	{name: "read/an empty set gives clock and epoch", run: func(f *fixture) {
		s := f.read(writ.ReadSet{})
		if s.Epoch == "" || s.Now <= 0 {
			f.Fatalf("got epoch %q, now %d", s.Epoch, s.Now)
		}
		if c := f.do(func(*writ.Tx) {}); c.Epoch != s.Epoch || f.head().Epoch != s.Epoch {
			f.Fatalf("read says epoch %q, commit %q, head %q", s.Epoch, c.Epoch, f.head().Epoch)
		}
	}},
	{name: "read/the archive is ignored", run: func(f *fixture) {
		s := f.read(writ.ReadSet{Archive: []writ.ArchiveRead{{After: -1, Limit: 10}}})
		if len(s.Archive) != 0 {
			f.Fatalf("got %v", s.Archive)
		}
	}},
	{name: "read/gives what was written, all at once", run: func(f *fixture) {
		c := f.do(func(tx *writ.Tx) {
			tx.Put("doc/a", []byte("A"))
			tx.Put("doc/b", []byte("B"))
			tx.Add(writ.Counter{Entity: "e", Field: "f"}, 7)
			tx.Index("list/x", "m", 0)
		})
		ctr, r := writ.Counter{Entity: "e", Field: "f"}, writ.Range{Index: "list/x", Limit: 10}
		s := f.read(writ.ReadSet{Docs: []writ.Key{"doc/a", "doc/b", "doc/c"}, Counters: []writ.Counter{ctr}, Ranges: []writ.Range{r}})
		if len(s.Docs) != 3 || string(s.Docs["doc/a"].Body) != "A" || s.Docs["doc/b"].Version != c.Version() || s.Docs["doc/c"].Version != 0 {
			f.Fatalf("documents: %+v", s.Docs)
		}
		if s.Counters[ctr] != 7 || len(s.Ranges[r].Members) != 1 {
			f.Fatalf("counters %v, ranges %v", s.Counters, s.Ranges)
		}
	}},
	{name: "read/is one consistent snapshot", run: func(f *fixture) {
		c := writ.Counter{Entity: "e", Field: "n"}
		v := writ.Range{Index: "v/one", Limit: 10}
		ended := make(chan struct{})
		const rounds = 200
		f.together(5, func(i int) error {
			if i == 0 {
				defer close(ended)
				for n := range rounds {
					tx := f.tx()
					tx.Put("doc/a", fmt.Append(nil, n))
					tx.Put("doc/b", fmt.Append(nil, n))
					tx.Add(c, 1)
					tx.Index(v.Index, "m", int64(n))
					if _, err := f.try(tx); err != nil {
						return err
					}
				}
				return nil
			}
			for {
				select {
				case <-ended:
					return nil
				default:
				}
				s, err := f.Store.Read(f.ctx, f.shard, writ.ReadSet{
					Docs: []writ.Key{"doc/a", "doc/b"}, Counters: []writ.Counter{c}, Ranges: []writ.Range{v},
				})
				if err != nil {
					return err
				}
				a, b := s.Docs["doc/a"], s.Docs["doc/b"]
				torn := a.Version != b.Version || string(a.Body) != string(b.Body) || s.Counters[c] != a.Version
				if m := s.Ranges[v].Members; a.Version > 0 {
					torn = torn || len(m) != 1 || m[0].Score != a.Version-1
				}
				if torn {
					return fmt.Errorf("torn read: %+v", s)
				}
			}
		})
	}},
	{name: "read/a range has a limit of 1 to 1000", run: func(f *fixture) {
		for _, limit := range []int{-1, 0, 1001} {
			rs := writ.ReadSet{Ranges: []writ.Range{{Index: "list/x", Limit: limit}}}
			if _, err := f.Store.Read(f.ctx, f.shard, rs); err == nil {
				f.Fatalf("a limit of %d was accepted", limit)
			}
		}
	}},
	{name: "read/names outside the alphabet are refused", run: func(f *fixture) {
		for _, bad := range []string{"", "a b", "a{b}", "a:b", "a\x00b", "ä"} {
			for _, rs := range []writ.ReadSet{
				{Docs: []writ.Key{writ.Key(bad)}},
				{Counters: []writ.Counter{{Entity: bad, Field: "f"}}},
				{Counters: []writ.Counter{{Entity: "e", Field: bad}}},
				{Ranges: []writ.Range{{Index: writ.Index(bad), Limit: 1}}},
			} {
				if _, err := f.Store.Read(f.ctx, f.shard, rs); err == nil {
					f.Fatalf("%+v was accepted", rs)
				}
			}
		}
	}},
	{name: "read/shards know nothing of each other", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("A")); tx.Push("0/x.y/d", "e") })
		other := *f.Opened.sub(f, newShard())
		other.wantDoc("doc/a", 0, "")
		other.wantLanes()
		if h := other.head(); h.Seq != -1 {
			f.Fatalf("head of a new shard: %+v", h)
		}
		if c := other.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("B")) }); c.Seq != 0 {
			f.Fatalf("first sequence of the other shard: %d", c.Seq)
		}
		f.wantDoc("doc/a", 1, "A")
	}},
	{name: "read/the clock follows the store's", needs: aClock, run: func(f *fixture) {
		before := f.read(writ.ReadSet{}).Now
		f.Advance(time.Hour)
		if now := f.read(writ.ReadSet{}).Now; now < before+time.Hour.Milliseconds() {
			f.Fatalf("an hour later the clock went from %d to %d", before, now)
		}
	}},
}

// sub is a fixture over the same store and another shard.
func (o Opened) sub(f *fixture, shard writ.Tenant) *fixture {
	return &fixture{T: f.T, Opened: o, ctx: f.ctx, shard: shard}
}
