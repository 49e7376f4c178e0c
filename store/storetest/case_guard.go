package storetest

import (
	"errors"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var guardCases = []testCase{
	{name: "guard/expect wants the document at its version", run: func(f *fixture) {
		expect := func(pass bool, k writ.Key, version int64) {
			f.Helper()
			f.wants(pass, writ.GuardExpect, string(k), func(tx *writ.Tx) { tx.Expect(k, version) })
		}
		expect(true, "doc/a", 0)
		expect(false, "doc/a", 1)
		f.do(func(*writ.Tx) {})
		c := f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("A")) })
		expect(true, "doc/a", c.Version())
		expect(false, "doc/a", c.Version()-1)
		expect(false, "doc/a", c.Version()+1)
		expect(false, "doc/a", 0)
	}},
	{name: "guard/a version never comes back", run: func(f *fixture) {
		first := f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("A")) })
		f.do(func(tx *writ.Tx) { tx.Delete("doc/a") })
		f.wantDoc("doc/a", 0, "")
		f.wants(true, writ.GuardExpect, "doc/a", func(tx *writ.Tx) { tx.Expect("doc/a", 0) })
		second := f.do(func(tx *writ.Tx) { tx.Put("doc/a", []byte("A")) })
		if second.Version() <= first.Version() {
			f.Fatalf("version went from %d to %d", first.Version(), second.Version())
		}
		f.wants(false, writ.GuardExpect, "doc/a", func(tx *writ.Tx) { tx.Expect("doc/a", first.Version()) })
	}},
	{name: "guard/range wants the index at its version, 0 for empty", run: func(f *fixture) {
		expect := func(pass bool, version int64) {
			f.Helper()
			f.wants(pass, writ.GuardRange, "v/x", func(tx *writ.Tx) { tx.ExpectRange("v/x", version) })
		}
		expect(true, 0)
		expect(false, 1)
		f.do(func(tx *writ.Tx) { tx.Index("v/x", "m", 1) })
		v := f.find(writ.Range{Index: "v/x"}).Version
		expect(true, v)
		expect(false, 0)
		expect(false, v+1)
		f.do(func(tx *writ.Tx) { tx.Unindex("v/x", "m") })
		expect(true, 0)
		expect(false, v)
	}},
	{name: "guard/free wants no member in the range", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) {
			tx.Index("scope/x", "fs:a/b/ tsk_1", 0)
			tx.Index("scope/x", "fs:a/c/ tsk_2", 0)
		})
		free := func(pass bool, from, to, except string) {
			f.Helper()
			f.wants(pass, writ.GuardFree, "scope/x", func(tx *writ.Tx) { tx.Free("scope/x", from, to, except) })
		}
		free(true, "fs:a/d/", "fs:a/d0", "")
		free(false, "fs:a/b/", "fs:a/b0", "")
		free(false, "a", "z", "")
		free(true, "fs:a/b/ tsk_10", "fs:a/c/", "")           // between the two
		free(true, "a", "fs:a/b/ tsk_1", "")                  // the end is not part of it
		free(false, "fs:a/c/ tsk_2", "fs:a/c/ tsk_2\x00", "") // the beginning is
		f.wants(true, "", "", func(tx *writ.Tx) { tx.Free("scope/y", "a", "z", "") })
	}},
	{name: "guard/free says who is in the way", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) { tx.Index("scope/x", "fs:a/b/ tsk_1", 0) })
		tx := f.quiet()
		tx.Free("scope/x", "fs:a/", "fs:a0", "tsk_2")
		if c := f.refused(tx, writ.GuardFree, "scope/x"); c.Member != "fs:a/b/ tsk_1" {
			f.Fatalf("member %q", c.Member)
		}
	}},
	{name: "guard/free except mine", run: func(f *fixture) {
		f.do(func(tx *writ.Tx) {
			tx.Index("scope/x", "fs:a/ tsk_1", 0)
			tx.Index("scope/x", "fs:a/b/ tsk_1", 0)
		})
		free := func(pass bool, except string) {
			f.Helper()
			f.wants(pass, writ.GuardFree, "scope/x", func(tx *writ.Tx) { tx.Free("scope/x", "fs:a/", "fs:a0", except) })
		}
		free(true, "tsk_1")
		free(false, "tsk_2")
		free(false, "sk_1") // a whole word only
		free(false, "")
		f.do(func(tx *writ.Tx) { tx.Index("scope/x", "fs:a/c/ tsk_2", 0) })
		free(false, "tsk_1")
		free(false, "tsk_2")
	}},
	{name: "guard/free with many of mine before another's", run: func(f *fixture) {
		tx := f.tx()
		for i := range 300 {
			tx.Index("scope/x", "fs:"+string(rune('a'+i/26))+string(rune('a'+i%26))+"/ mine", 0)
		}
		f.commit(tx)
		free := func(pass bool) {
			f.Helper()
			f.wants(pass, writ.GuardFree, "scope/x", func(tx *writ.Tx) { tx.Free("scope/x", "fs:", "fs;", "mine") })
		}
		free(true)
		f.do(func(tx *writ.Tx) { tx.Index("scope/x", "fs:z/ theirs", 0) })
		free(false)
	}},
	{name: "guard/within wants the counter in the band", run: func(f *fixture) {
		c := writ.Counter{Entity: "run/r", Field: "open"}
		within := func(pass bool, lo, hi int64) {
			f.Helper()
			f.wants(pass, writ.GuardWithin, "run/r#open", func(tx *writ.Tx) { tx.Within(c, lo, hi) })
		}
		within(true, 0, 0)
		within(false, 1, 9)
		f.do(func(tx *writ.Tx) { tx.Add(c, 5) })
		within(true, 5, 5)
		within(true, 0, 5)
		within(true, 5, 9)
		within(false, 0, 4)
		within(false, 6, 9)
		within(false, 9, 0)
		f.do(func(tx *writ.Tx) { tx.Add(c, -8) })
		within(true, -3, -3)
		within(false, 0, 9)
	}},
	{name: "guard/within looks at what was before the commit", run: func(f *fixture) {
		c := writ.Counter{Entity: "e", Field: "f"}
		tx := f.quiet()
		tx.Add(c, 1)
		tx.Within(c, 1, 1)
		f.refused(tx, writ.GuardWithin, "e#f")
	}},
	{name: "guard/not after wants to be in time", run: func(f *fixture) {
		now := f.read(writ.ReadSet{}).Now
		f.wants(true, "", "", func(tx *writ.Tx) { tx.NotAfter(now + time.Hour.Milliseconds()) })
		f.wants(false, writ.GuardNotAfter, "", func(tx *writ.Tx) { tx.NotAfter(now - 1) })
		f.wants(false, writ.GuardNotAfter, "", func(tx *writ.Tx) { tx.NotAfter(0) })
	}},
	{name: "guard/not after follows the store's clock", needs: aClock, run: func(f *fixture) {
		deadline := f.read(writ.ReadSet{}).Now + time.Minute.Milliseconds()
		inTime := func(pass bool) {
			f.Helper()
			f.wants(pass, writ.GuardNotAfter, "", func(tx *writ.Tx) { tx.NotAfter(deadline) })
		}
		inTime(true)
		f.Advance(time.Minute + time.Second)
		inTime(false)
	}},
	{name: "guard/epoch wants the shard's", run: func(f *fixture) {
		s := f.read(writ.ReadSet{Docs: []writ.Key{"doc/a"}})
		tx := f.tx()
		tx.Put("doc/a", []byte("A"))
		tx.GuardSnapshot(s)
		f.commit(tx)
		late := f.tx()
		late.Guards = []writ.Guard{{Kind: writ.GuardEpoch, From: "1.0000000000000000"}}
		if _, err := f.try(late); !errors.Is(err, store.ErrFenced) {
			f.Fatalf("got %v, want ErrFenced", err)
		}
	}},
}
