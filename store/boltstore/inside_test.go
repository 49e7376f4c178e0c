package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

const shardName = writ.Tenant("default")

// inside opens a store with a clock that stands still.
func inside(t *testing.T) (*Store, *atomic.Int64) {
	t.Helper()
	now := new(atomic.Int64)
	now.Store(1_700_000_000_000)
	s, err := Open(filepath.Join(t.TempDir(), "writ.db"), Options{NoSync: true, Now: now.Load})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Head(t.Context(), shardName); err != nil {
		t.Fatal(err)
	}
	return s, now
}

func fact() *writ.Fact { return &writ.Fact{Head: []byte("{"), Tail: []byte("}")} }

func mustCommit(t *testing.T, s *Store, tx writ.Tx) writ.Committed {
	t.Helper()
	c, err := s.Commit(t.Context(), shardName, tx)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keys counts what a bucket of the shard holds.
func keys(t *testing.T, s *Store, bucket []byte) (n int) {
	t.Helper()
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(shardName)).Bucket(bucket).ForEach(func(_, _ []byte) error { n++; return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTrimDropsWholeRings(t *testing.T) {
	s, _ := inside(t)
	// Begin shortly before a border, as if so many facts had come and gone.
	const begin = 3*ringFacts - 5
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(shardName))
		h, err := decodeHead(b.Get(keyHead))
		if err != nil {
			return err
		}
		h.seq, h.trimmed = begin-1, begin-1
		return b.Put(keyHead, h.encode())
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(10) {
		if c := mustCommit(t, s, writ.Tx{Fact: fact()}); c.Seq != begin+i {
			t.Fatalf("sequence %d, want %d", c.Seq, begin+i)
		}
	}
	for _, step := range []struct {
		upto  int64
		rings int
		left  int
	}{{begin, 2, 9}, {begin + 3, 2, 6}, {begin + 4, 1, 5}, {begin + 8, 1, 1}, {begin + 9, 1, 0}} {
		if err := s.Trim(t.Context(), shardName, step.upto); err != nil {
			t.Fatal(err)
		}
		got, err := s.Facts(t.Context(), shardName, -1, 100, 0)
		if err != nil || len(got) != step.left || keys(t, s, bucketFacts) != step.rings {
			t.Fatalf("after trimming %d: %d facts, %d rings, %v; want %d and %d", step.upto, len(got), keys(t, s, bucketFacts), err, step.left, step.rings)
		}
	}
}

// A group that fills a ring to its end, trims it and goes on.
func TestTrimAndCommitInOneGroup(t *testing.T) {
	s, _ := inside(t)
	var batch []*request
	add := func(apply func(*shardTx) (writ.Committed, error)) *request {
		r := &request{ctx: t.Context(), shard: shardName, reply: make(chan result, 1), apply: apply}
		batch = append(batch, r)
		return r
	}
	emit := func(x *shardTx) (writ.Committed, error) { return x.commit(&writ.Tx{Fact: fact()}) }
	for range ringFacts {
		add(emit)
	}
	add(func(x *shardTx) (writ.Committed, error) { x.trim(ringFacts - 1); return writ.Committed{}, nil })
	last := add(emit)
	s.serve(batch)
	if res := <-last.reply; res.err != nil || res.committed.Seq != ringFacts {
		t.Fatalf("got %+v", res)
	}
	if got, err := s.Facts(t.Context(), shardName, -1, 100, 0); err != nil || len(got) != 1 || keys(t, s, bucketFacts) != 1 {
		t.Fatalf("%d facts, %d rings, %v", len(got), keys(t, s, bucketFacts), err)
	}
}

func TestCallsAreDroppedWhole(t *testing.T) {
	s, now := inside(t)
	for i := range 10 {
		for j := range 5 {
			mustCommit(t, s, writ.Tx{Call: writ.CallID(fmt.Sprintf("c-%d-%d", i, j)), Fact: fact()})
		}
		if n := keys(t, s, bucketCalls[0]) + keys(t, s, bucketCalls[1]); n > 20 {
			t.Fatalf("%d calls are remembered after %d minutes", n, 6*i)
		}
		now.Add((6 * time.Minute).Milliseconds())
	}
	if _, err := s.Commit(t.Context(), shardName, writ.Tx{Call: "c-0-0", Fact: fact()}); err != nil {
		t.Fatal(err)
	}
	if h, err := s.Head(t.Context(), shardName); err != nil || h.Seq != 50 {
		t.Fatalf("a call of an hour ago was still remembered: %+v, %v", h, err)
	}
}

func TestExpiredDocumentsAreForgotten(t *testing.T) {
	s, now := inside(t)
	const docs = 3 * writ.MaxOps
	for i := range 3 {
		tx := writ.Tx{Fact: fact()}
		for j := range writ.MaxOps {
			tx.PutFor(writ.Key(fmt.Sprintf("doc/%d/%d", i, j)), []byte("x"), 1000)
		}
		mustCommit(t, s, tx)
	}
	tx := writ.Tx{Fact: fact()}
	tx.Put("doc/0/0", []byte("kept"))
	tx.Delete("doc/0/1")
	tx.PutFor("doc/0/2", []byte("longer"), 5000)
	mustCommit(t, s, tx)
	now.Add(1000)
	mustCommit(t, s, writ.Tx{Fact: fact()})
	if d, due := keys(t, s, bucketDocs), keys(t, s, bucketTTL); due != docs+1-sweepPage || d < docs-1-sweepPage {
		t.Fatalf("one commit left %d documents and %d ends", d, due)
	}
	mustCommit(t, s, writ.Tx{Fact: fact()})
	if d, due := keys(t, s, bucketDocs), keys(t, s, bucketTTL); d != 2 || due != 1 {
		t.Fatalf("two commits left %d documents and %d ends", d, due)
	}
}

// What leaves the state leaves the file.
func TestNothingIsLeftBehind(t *testing.T) {
	s, _ := inside(t)
	c := writ.Counter{Entity: "e", Field: "f"}
	tx := writ.Tx{Fact: fact()}
	tx.Put("doc/a", []byte("A"))
	tx.Add(c, 1)
	tx.Index("v/x", "m", 1)
	tx.Index("due/x", "m", 1)
	tx.Push("5/a.b/c", "e")
	mustCommit(t, s, tx)
	ds, err := s.Receive(t.Context(), shardName, []writ.Lane{"5/a.b/c"}, "c", 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("%v, %v", ds, err)
	}
	tx = writ.Tx{Fact: fact()}
	tx.Delete("doc/a")
	tx.Add(c, -1)
	tx.Unindex("v/x", "m")
	tx.Unindex("due/x", "m")
	tx.Ack(ds[0])
	mustCommit(t, s, tx)
	for _, b := range [][]byte{bucketDocs, bucketTTL, bucketCounters, bucketMembers, bucketScores, bucketVersions, bucketLanes} {
		if n := keys(t, s, b); n != 0 {
			t.Errorf("%d keys are left in %s", n, b)
		}
	}
}

// One request that breaks the group does not disturb the others.
func TestCulpritFailsAlone(t *testing.T) {
	s, _ := inside(t)
	mustCommit(t, s, func() (tx writ.Tx) { tx.Push("5/a.b/c", "e"); return tx }())
	ds, err := s.Receive(t.Context(), shardName, []writ.Lane{"5/a.b/c"}, "c", 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("%v, %v", ds, err)
	}
	broken := errors.New("broken")
	var batch []*request
	for i := range 5 {
		batch = append(batch, &request{ctx: t.Context(), shard: shardName, reply: make(chan result, 1), apply: func(x *shardTx) (writ.Committed, error) {
			tx := writ.Tx{Fact: fact()}
			tx.Ack(ds[0])
			c, err := x.commit(&tx)
			if i == 2 {
				x.must(broken)
			}
			return c, err
		}})
	}
	s.serve(batch)
	seq := int64(0)
	for i, r := range batch {
		res := <-r.reply
		if i == 2 {
			if !errors.Is(res.err, broken) {
				t.Fatalf("the culprit got %+v", res)
			}
			continue
		}
		if res.err != nil || res.committed.Seq != seq {
			t.Fatalf("request %d got %+v, want sequence %d", i, res, seq)
		}
		seq++
	}
	if n := keys(t, s, bucketLanes); n != 0 {
		t.Fatalf("the acked entry is still there")
	}
}

// When there is no space for all, mandates are tried alone.
func TestMandatesGoOnWithoutSpace(t *testing.T) {
	s, _ := inside(t)
	s.db.MaxSize = 256 << 10 // room for the small one only
	work := func(bytes int, mandate bool) *request {
		tx := writ.Tx{Fact: fact(), Mandate: mandate}
		for i := 0; bytes > 0; i, bytes = i+1, bytes-60<<10 {
			tx.Put(writ.Key(fmt.Sprintf("doc/%d/%v/%d", bytes, mandate, i)), []byte(strings.Repeat("x", min(bytes, 60<<10))))
		}
		return &request{
			ctx: t.Context(), shard: shardName, essential: mandate, reply: make(chan result, 1),
			apply: func(x *shardTx) (writ.Committed, error) { return x.commit(&tx) },
		}
	}
	large, small, mandate := work(240<<10, false), work(10, false), work(10, true)
	s.serve([]*request{large, small, mandate})
	for _, r := range []*request{large, small} {
		if res := <-r.reply; !errors.Is(res.err, store.ErrFull) {
			t.Errorf("ordinary work got %+v", res)
		}
	}
	if res := <-mandate.reply; res.err != nil || res.committed.Seq != 0 {
		t.Errorf("the mandate got %+v", res)
	}
	s.db.MaxSize = 0
	again := work(240<<10, false)
	s.serve([]*request{again})
	if res := <-again.reply; res.err != nil || res.committed.Seq != 1 {
		t.Errorf("with space again: %+v", res)
	}
}

// A file that became unusable is opened again, and who holds what is kept.
func TestReopensItself(t *testing.T) {
	s, _ := inside(t)
	lane := writ.Lane("5/a.b/c")
	var tx writ.Tx
	tx.Push(lane, "1")
	tx.Push(lane, "2")
	tx.Push(lane, "3")
	mustCommit(t, s, tx)
	ds, err := s.Receive(t.Context(), shardName, []writ.Lane{lane}, "c", 2)
	if err != nil || len(ds) != 2 {
		t.Fatalf("%v, %v", ds, err)
	}
	if err := s.db.Close(); err != nil {
		t.Fatal(err)
	}
	tx = writ.Tx{Fact: fact()}
	tx.Ack(ds[0])
	if c := mustCommit(t, s, tx); c.Seq != 0 {
		t.Fatalf("got %+v", c)
	}
	if err := s.GiveBack(t.Context(), shardName, "c", ds[1]); err != nil {
		t.Fatal(err)
	}
	got, err := s.Receive(t.Context(), shardName, []writ.Lane{lane}, "c", 9)
	if err != nil || len(got) != 2 || got[0].Entry != "3" || got[1].Entry != "2" {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestOldCursorsGetEveryLane(t *testing.T) {
	s, _ := inside(t)
	lane := writ.Lane("5/a.b/c")
	cursor, _, err := s.Wake(t.Context(), shardName, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * wakeKeep / writ.MaxOps {
		var tx writ.Tx
		for range writ.MaxOps {
			tx.Push(lane, "e")
		}
		mustCommit(t, s, tx)
	}
	if n := len(s.loaded(shardName).wakes.lanes); n >= 2*wakeKeep {
		t.Errorf("%d wake-ups are kept", n)
	}
	for _, c := range []string{cursor, "not a cursor", "0.5", ".", cursor + "999999"} {
		next, lanes, err := s.Wake(t.Context(), shardName, c, 0)
		if err != nil || len(lanes) != 1 || lanes[0] != lane {
			t.Errorf("cursor %q: %v, %v", c, lanes, err)
		}
		if _, lanes, err := s.Wake(t.Context(), shardName, next, 0); err != nil || len(lanes) != 0 {
			t.Errorf("cursor %q: woken again by %v, %v", next, lanes, err)
		}
	}
}

func FuzzDecodeFact(f *testing.F) {
	f.Add(encodeFact(writ.StoredFact{Fact: writ.Fact{ID: "rcp_1", Run: "run_1", KeyID: "k", Head: []byte("{"), Tail: []byte("}")}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fact, err := decodeFact(b)
		if err != nil {
			return
		}
		again, err := decodeFact(encodeFact(fact))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(fact) {
			t.Fatalf("%+v became %+v, %v", fact, again, err)
		}
	})
}
