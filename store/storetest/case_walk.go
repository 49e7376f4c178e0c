package storetest

import (
	"fmt"
	"slices"

	"github.com/writ-gateway/writ"
)

var walkCases = []testCase{
	{name: "walk/names are all documents with a prefix", run: func(f *fixture) {
		want := []writ.Key{}
		for n := range 2500 { // more than a page
			k := writ.Key(fmt.Sprintf("task/%04d", n))
			want = append(want, k)
			if n%100 == 0 {
				f.do(func(tx *writ.Tx) {
					for i := range 100 {
						tx.Put(writ.Key(fmt.Sprintf("task/%04d", n+i)), []byte("x"))
					}
					tx.Put("tasks/no", []byte("x"))
					tx.Put("run/1", []byte("x"))
				})
			}
		}
		f.do(func(tx *writ.Tx) { tx.Delete("task/0007") })
		want = slices.DeleteFunc(want, func(k writ.Key) bool { return k == "task/0007" })
		f.wantNames("task/", want...)
		f.wantNames("run/", "run/1")
		f.wantNames("none/")
		if _, _, err := f.Store.Names(f.ctx, f.shard, "a b", ""); err == nil {
			f.Fatalf("a name outside the alphabet was accepted")
		}
	}},
	{name: "walk/entries are those of a lane, received or not", run: func(f *fixture) {
		f.wantLying(laneA)
		f.push(laneA, "1", "2", "3")
		f.push(laneB, "other")
		d := f.receive(2, laneA)
		f.wantLying(laneA, "1", "2", "3")
		f.giveBack(d[0])
		f.wantLying(laneA, "1", "2", "3")
		f.do(func(tx *writ.Tx) { tx.Ack(d[1]) })
		f.wantLying(laneA, "1", "3")
		if _, _, err := f.Store.Entries(f.ctx, f.shard, "a b", ""); err == nil {
			f.Fatalf("a name outside the alphabet was accepted")
		}
	}},
	{name: "walk/entries of a long lane", run: func(f *fixture) {
		var want []string
		for n := range 2500 {
			want = append(want, fmt.Sprintf("%04d", n))
		}
		for some := range slices.Chunk(want, 100) {
			f.push(laneA, some...)
		}
		f.wantLying(laneA, want...)
	}},
	{name: "walk/a member is found whatever its score", run: func(f *fixture) {
		for _, i := range []writ.Index{"due/x", "v/x"} {
			f.do(func(tx *writ.Tx) {
				tx.Index(i, "a", 7)
				tx.Index(i, "b", 3)
				tx.Index(i, "a b", 9)
			})
			r := writ.Range{Index: i, Member: "a", Limit: 1}
			none := writ.Range{Index: i, Member: "c", Limit: 1, Desc: true}
			s := f.read(writ.ReadSet{Ranges: []writ.Range{r, none}})
			if m := s.Ranges[r].Members; len(m) != 1 || m[0] != (writ.Member{Name: "a", Score: 7}) {
				f.Fatalf("%s: got %+v", i, m)
			}
			if m := s.Ranges[none].Members; len(m) != 0 || (s.Ranges[none].Version != 0) != i.Versioned() {
				f.Fatalf("%s: got %+v", i, s.Ranges[none])
			}
		}
	}},
}

// wantNames walks all documents with a prefix.
func (f *fixture) wantNames(prefix string, want ...writ.Key) {
	f.Helper()
	var got []writ.Key
	for cursor := ""; ; {
		some, next, err := f.Store.Names(f.ctx, f.shard, prefix, cursor)
		if err != nil {
			f.Fatalf("names: %v", err)
		}
		if got = append(got, some...); next == "" {
			break
		}
		cursor = next
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		f.Fatalf("got %d documents %.200v, want %d", len(got), got, len(want))
	}
}

// wantLying walks all that lies in a lane.
func (f *fixture) wantLying(lane writ.Lane, want ...string) {
	f.Helper()
	var got []string
	for cursor := ""; ; {
		some, next, err := f.Store.Entries(f.ctx, f.shard, lane, cursor)
		if err != nil {
			f.Fatalf("entries: %v", err)
		}
		if got = append(got, some...); next == "" {
			break
		}
		cursor = next
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		f.Fatalf("got %d entries %.200v, want %d", len(got), got, len(want))
	}
}
