package redisstore_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// The contract's cases that move the store's clock cannot run on a real server.
// These tests hold it to the same promises by what the server keeps, and by
// waits of a few milliseconds.

// clockNow is the server's own clock in milliseconds.
func clockNow(t testing.TB, srv *redistest.Server) int64 {
	t.Helper()
	const seconds = `local t = redis.call('TIME') return string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))`
	n, err := strconv.ParseInt(srv.Command("EVAL", seconds, "0"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ahead puts the last commit of the shard an hour into the server's future, as
// a clock that went back by an hour would leave it.
func ahead(t testing.TB, srv *redistest.Server) int64 {
	t.Helper()
	at := clockNow(t, srv) + time.Hour.Milliseconds()
	srv.Command("HSET", "writ:{default}:h", "at", strconv.FormatInt(at, 10))
	return at
}

func storeNow(t testing.TB, s *redisstore.Store) int64 {
	t.Helper()
	return read(t, s, writ.ReadSet{}).Now
}

func TestAtNeverGoesBack(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	commit(t, s, factTx())
	at := ahead(t, srv)
	for range 3 {
		h, err := s.Head(t.Context(), shard)
		if err != nil {
			t.Fatal(err)
		}
		if now := storeNow(t, s); now < at || h.At < at {
			t.Fatalf("after a commit at %d the clock is %d and the head %d", at, now, h.At)
		}
		if c := commit(t, s, factTx()); c.At < at {
			t.Fatalf("at went from %d to %d", at, c.At)
		} else {
			at = c.At
		}
	}
	for i, f := range allFacts(t, s)[1:] {
		if f.Commit.At < at {
			t.Errorf("fact %d is kept with %d, before %d", i+1, f.Commit.At, at)
		}
	}
}

func TestReadsFollowTheServersClock(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	commit(t, s, factTx())
	for range 3 {
		before := clockNow(t, srv)
		now := storeNow(t, s)
		if after := clockNow(t, srv); now < before || now > after {
			t.Fatalf("read %d, the server's clock went from %d to %d", now, before, after)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestNotAfterFollowsTheClock(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	commit(t, s, factTx())
	refused := func(deadline int64) {
		t.Helper()
		tx := factTx()
		tx.NotAfter(deadline)
		if _, err := s.Commit(t.Context(), shard, tx); err == nil {
			t.Fatalf("committed at %d, after its deadline %d", storeNow(t, s), deadline)
		}
	}
	deadline := storeNow(t, s) + 30
	for storeNow(t, s) <= deadline {
		time.Sleep(time.Millisecond)
	}
	refused(deadline)
	// Time that a clock which went back would show again is over too.
	minute := storeNow(t, s) + time.Minute.Milliseconds()
	tx := factTx()
	tx.NotAfter(minute)
	commit(t, s, tx)
	ahead(t, srv)
	refused(minute)
}

func TestDocumentEnds(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	tx := factTx()
	for _, k := range []writ.Key{"doc/a", "doc/kept", "doc/longer"} {
		tx.PutFor(k, []byte("1"), 100)
	}
	first := commit(t, s, tx)
	tx = factTx()
	tx.Put("doc/kept", []byte("2"))
	tx.PutFor("doc/longer", []byte("2"), time.Hour.Milliseconds())
	second := commit(t, s, tx)
	time.Sleep(time.Duration(max(0, first.At+100+20-storeNow(t, s))) * time.Millisecond)
	for range 2 { // the first look may be what makes the server drop it
		got := read(t, s, docs("doc/a", "doc/kept", "doc/longer")).Docs
		if got["doc/a"].Version != 0 || got["doc/kept"].Version != second.Version() || got["doc/longer"].Version != second.Version() {
			t.Fatalf("after its end: %+v", got)
		}
		tx := factTx()
		tx.Expect("doc/a", first.Version())
		if _, err := s.Commit(t.Context(), shard, tx); err == nil {
			t.Fatal("a document that has ended is still at its version")
		}
		tx = factTx()
		tx.Expect("doc/a", 0)
		commit(t, s, tx)
	}
}

func TestCallIsRememberedForTenMinutes(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	for name, tx := range map[string]writ.Tx{"with a fact": factTx(), "without": {Call: newCall()}} {
		tx.Add(writ.Counter{Entity: "e", Field: "f"}, 1)
		before := clockNow(t, srv)
		first := commit(t, s, tx)
		left, err := strconv.ParseInt(srv.Command("PTTL", "writ:{default}:x:"+string(tx.Call)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if until := clockNow(t, srv) + left; until < before+10*time.Minute.Milliseconds() {
			t.Errorf("%s: forgotten %d ms after it", name, until-before)
		}
		if again := commit(t, s, tx); again != first {
			t.Errorf("%s: got %+v, at first it was %+v", name, again, first)
		}
	}
}

func TestReclaimFollowsTheClock(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	const lane = writ.Lane("5/site.build/web")
	tx := factTx()
	tx.Push(lane, "1")
	tx.Push(lane, "2")
	commit(t, s, tx)
	got, err := s.Receive(t.Context(), shard, []writ.Lane{lane}, "me", 2)
	if err != nil || len(got) != 2 {
		t.Fatalf("received %v, %v", got, err)
	}
	// The first was delivered a minute ago, the server is told.
	srv.Command("XCLAIM", "writ:{default}:l:"+string(lane), "g", "me", "0", got[0].ID, "IDLE", "60000", "JUSTID")
	if n, err := s.Reclaim(t.Context(), shard, 30*time.Second, 10); n != 1 || err != nil {
		t.Fatalf("reclaimed %d, %v, want the one from a minute ago", n, err)
	}
	again, err := s.Receive(t.Context(), shard, []writ.Lane{lane}, "other", 5)
	if err != nil || len(again) != 1 || again[0].Entry != "1" {
		t.Fatalf("received %v, %v", again, err)
	}
}
