package redisstore_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// Amounts at the edge of the range survive every operation exactly.
func TestLargeNumbers(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t))
	c := writ.Counter{Entity: "e", Field: "f"}
	tx := factTx()
	tx.Add(c, writ.MaxAmount-1)
	tx.AddUpTo(c, 1, math.MaxInt64)
	tx.Index("v/i", "m", writ.MaxAmount-1)
	tx.Index("v/i", "n", writ.MaxAmount)
	tx.Within(c, math.MinInt64, math.MaxInt64)
	tx.NotAfter(math.MaxInt64)
	tx.PutFor("d", []byte("x"), math.MaxInt64)
	commit(t, s, tx)

	all := writ.Range{Index: "v/i", ByScore: true, Min: math.MinInt64, Max: math.MaxInt64, Limit: 9}
	one := writ.Range{Index: "v/i", ByScore: true, Min: writ.MaxAmount, Max: writ.MaxAmount, Limit: 9}
	snap := read(t, s, writ.ReadSet{Docs: []writ.Key{"d"}, Counters: []writ.Counter{c}, Ranges: []writ.Range{all, one}})
	if got := snap.Counters[c]; got != writ.MaxAmount {
		t.Errorf("counter = %d, want %d", got, writ.MaxAmount)
	}
	if got := fmt.Sprint(snap.Ranges[all].Members); got != "[{m 99999999999999} {n 100000000000000}]" {
		t.Errorf("all = %s", got)
	}
	if got := fmt.Sprint(snap.Ranges[one].Members); got != "[{n 100000000000000}]" {
		t.Errorf("one = %s", got)
	}
	if snap.Docs["d"].Version != 1 {
		t.Error("a document with a far end of life was not stored")
	}

	over := factTx()
	over.Add(c, 1)
	var limit *store.Limit
	if _, err := s.Commit(t.Context(), shard, over); !errors.As(err, &limit) || limit.Counter != c {
		t.Errorf("past MaxAmount: %v, want *Limit", err)
	}
	exact := factTx()
	exact.Within(c, writ.MaxAmount, writ.MaxAmount)
	exact.UnindexAt("v/i", "m", writ.MaxAmount) // another score: stays
	exact.UnindexAt("v/i", "n", writ.MaxAmount)
	exact.Add(c, -writ.MaxAmount)
	commit(t, s, exact)
	snap = read(t, s, writ.ReadSet{Counters: []writ.Counter{c}, Ranges: []writ.Range{all}})
	if got := fmt.Sprint(snap.Counters[c], snap.Ranges[all].Members); got != "0 [{m 99999999999999}]" {
		t.Errorf("after = %s", got)
	}
}

// Limits are judged in order over all moves of one counter, before any write.
func TestLimitsInSequence(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t))
	c, d := writ.Counter{Entity: "e", Field: "f"}, writ.Counter{Entity: "e", Field: "g"}
	tx := factTx()
	tx.Put("doc", []byte("x"))
	tx.AddUpTo(d, 7, 7)
	tx.AddUpTo(c, 3, 5)
	tx.AddUpTo(c, 3, 5)
	tx.Push("0/a/b", "entry")
	var limit *store.Limit
	if _, err := s.Commit(t.Context(), shard, tx); !errors.As(err, &limit) || limit.Counter != c {
		t.Fatalf("commit = %v, want *Limit of %v", err, c)
	}
	snap := read(t, s, writ.ReadSet{Docs: []writ.Key{"doc"}, Counters: []writ.Counter{c, d}})
	if snap.Docs["doc"].Version != 0 || snap.Counters[c] != 0 || snap.Counters[d] != 0 || len(allFacts(t, s)) != 0 {
		t.Fatalf("a refused commit changed something: %+v", snap)
	}
	tx.Call = newCall()
	tx.Ops[2].Delta = -3
	commit(t, s, tx)
	if snap = read(t, s, writ.ReadSet{Counters: []writ.Counter{c}}); snap.Counters[c] != 0 {
		t.Errorf("counter = %d, want 0", snap.Counters[c])
	}
}

// A document written for a while and then for good stays.
func TestExpiryIsForgotten(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	put := func(k writ.Key, ttl int64) {
		tx := factTx()
		tx.PutFor(k, []byte("x"), ttl)
		commit(t, s, tx)
	}
	put("a", 60_000)
	put("a", 0)
	tx := factTx()
	tx.PutFor("b", []byte("1"), 60_000)
	tx.Put("b", []byte("2"))
	commit(t, s, tx)
	for _, k := range []string{"a", "b"} {
		if got := srv.Command("PTTL", "writ:{default}:d:"+k); got != "-1" {
			t.Errorf("PTTL of %s = %s, want -1 (never)", k, got)
		}
	}
	put("a", 1)
	eventually(t, "the document expires", func() bool { return read(t, s, docs("a")).Docs["a"].Version == 0 })
	again := factTx()
	again.Expect("a", 0)
	again.Put("a", []byte("new"))
	commit(t, s, again)
}

// A key of the wrong type fails the commit before it writes anything.
func TestWrongTypeChangesNothing(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	commit(t, s, factTx())
	for _, key := range []string{"d:x", "i:x", "c:x", "l:x"} {
		srv.Command("SET", "writ:{default}:"+key, "foreign")
	}
	for name, op := range map[string]func(*writ.Tx){
		"put":     func(tx *writ.Tx) { tx.Put("x", []byte("x")) },
		"delete":  func(tx *writ.Tx) { tx.Delete("x") },
		"index":   func(tx *writ.Tx) { tx.Index("x", "m", 0) },
		"unindex": func(tx *writ.Tx) { tx.Unindex("x", "m") },
		"add":     func(tx *writ.Tx) { tx.Add(writ.Counter{Entity: "x", Field: "f"}, 1) },
		"push":    func(tx *writ.Tx) { tx.Push("x", "e") },
		"ack":     func(tx *writ.Tx) { tx.Ack(writ.Delivery{Lane: "x", ID: "1-0"}) },
	} {
		tx := factTx()
		tx.Put("before", []byte("x"))
		op(&tx)
		if _, err := s.Commit(t.Context(), shard, tx); writ.CodeOf(err) != writ.CodeStore {
			t.Errorf("%s: %v, want %s", name, err, writ.CodeStore)
		}
	}
	if h, err := s.Head(t.Context(), shard); err != nil || h.Seq != 0 {
		t.Errorf("Head = %+v, %v, want sequence 0", h, err)
	}
	if read(t, s, docs("before")).Docs["before"].Version != 0 {
		t.Error("a failed commit left a document")
	}
}

// Names come from the planner only: what a call id or a run id brings is
// checked too, and names cannot reach another shard's keys.
func TestNamesAreChecked(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t))
	bad := factTx()
	bad.Call = "x:{other}"
	if _, err := s.Commit(t.Context(), shard, bad); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("call id: %v", err)
	}
	bad = factTx()
	bad.Fact.Run = "a b"
	if _, err := s.Commit(t.Context(), shard, bad); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("run id: %v", err)
	}
	if _, err := s.Commit(t.Context(), "a}b", factTx()); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("shard: %v", err)
	}
	if _, err := s.Read(t.Context(), shard, docs("a b")); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("document: %v", err)
	}
	if _, err := s.Receive(t.Context(), shard, []writ.Lane{"a:b"}, "me", 1); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("lane: %v", err)
	}
}

// A server that has forgotten the scripts gets them again.
func TestScriptFlush(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	for i := range 3 {
		tx := factTx()
		tx.Mandate = i == 1
		if c := commit(t, s, tx); c.Seq != int64(i) {
			t.Fatalf("commit %d has sequence %d", i, c.Seq)
		}
		srv.Command("SCRIPT", "FLUSH")
		read(t, s, writ.ReadSet{})
		srv.Command("SCRIPT", "FLUSH")
	}
}

// Two replicas move one document under a guard: every commit that succeeds
// saw the one before it, and every other names the guard.
func TestHotDocument(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "appendfsync everysec")
	replicas := []store.Store{open(t, srv), open(t, srv)}
	const workers, each = 8, 25
	var conflicts atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		s := replicas[w%2]
		wg.Go(func() {
			for done := 0; done < each; {
				snap, err := s.Read(t.Context(), shard, docs("hot"))
				if err != nil {
					t.Error(err)
					return
				}
				tx := factTx()
				tx.GuardSnapshot(snap)
				tx.Put("hot", []byte{1})
				tx.Add(writ.Counter{Entity: "hot", Field: "n"}, 1)
				_, err = s.Commit(t.Context(), shard, tx)
				if c, ok := errors.AsType[*store.Conflict](err); ok && c.Guard == writ.GuardExpect && c.Name == "hot" {
					conflicts.Add(1)
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				done++
			}
		})
	}
	wg.Wait()
	s := open(t, srv)
	n := writ.Counter{Entity: "hot", Field: "n"}
	snap := read(t, s, writ.ReadSet{Docs: []writ.Key{"hot"}, Counters: []writ.Counter{n}})
	if snap.Counters[n] != workers*each || snap.Docs["hot"].Version != workers*each {
		t.Errorf("counter %d, version %d, want %d", snap.Counters[n], snap.Docs["hot"].Version, workers*each)
	}
	if conflicts.Load() == 0 {
		t.Error("nobody met a conflict: the test proves nothing")
	}
	for i, f := range allFacts(t, s) {
		if f.Commit.Seq != int64(i) {
			t.Fatalf("fact %d has sequence %d", i, f.Commit.Seq)
		}
	}
}

// Everything of a shard lies under its hash tag.
func TestKeysCarryTheTag(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	tx := factTx()
	tx.Fact.Run = "run_1"
	tx.Put("a", []byte("x"))
	tx.Index("v/i", "m", 1)
	tx.Push("0/a/b", "e")
	commit(t, s, tx)
	keys := srv.Command("EVAL", "return table.concat(redis.call('KEYS', '*'), ' ')", "0")
	for _, k := range strings.Fields(keys) {
		if !strings.HasPrefix(k, "writ:{default}:") {
			t.Errorf("key %s is outside the shard", k)
		}
	}
	if n := len(strings.Fields(keys)); n != 10 {
		t.Errorf("%d keys: %s", n, keys)
	}
}
