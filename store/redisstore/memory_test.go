package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// At maxmemory new work is refused whole; what shrinks the store goes on, and
// in the end new work is taken again.
func TestMaxMemory(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "appendfsync everysec", "maxmemory 8mb")
	s := open(t, srv)
	lane := writ.Lane("0/a/b")
	push(t, s, lane, "held", "waiting")
	held, err := s.Receive(t.Context(), shard, []writ.Lane{lane}, "me", 1)
	if err != nil {
		t.Fatal(err)
	}
	n := writ.Counter{Entity: "e", Field: "n"}
	body := bytes.Repeat([]byte("x"), 60<<10)
	var stored int64
	for {
		tx := factTx()
		tx.Fact.Evidence = body
		tx.Put(writ.Key(fmt.Sprintf("d/%d", stored)), body)
		tx.Add(n, 1)
		_, err := s.Commit(t.Context(), shard, tx)
		if errors.Is(err, store.ErrFull) {
			break
		}
		if err != nil || stored > 1000 {
			t.Fatalf("after %d commits: %v, want ErrFull", stored, err)
		}
		stored++
	}
	snap := read(t, s, writ.ReadSet{Counters: []writ.Counter{n}, Docs: []writ.Key{writ.Key(fmt.Sprintf("d/%d", stored))}})
	if snap.Counters[n] != stored || snap.Docs[writ.Key(fmt.Sprintf("d/%d", stored))].Version != 0 {
		t.Errorf("a commit refused as full changed something: %+v, want %d", snap, stored)
	}
	h, err := s.Head(t.Context(), shard)
	if err != nil || h.Seq != stored-1 {
		t.Errorf("Head = %+v, %v", h, err)
	}

	if err := s.GiveBack(t.Context(), shard, "me", held[0]); err != nil {
		t.Errorf("GiveBack when full: %v", err)
	}
	got, err := s.Receive(t.Context(), shard, []writ.Lane{lane}, "me", 2)
	if err != nil || len(got) != 2 {
		t.Errorf("Receive when full: %v, %v", got, err)
	}
	end := factTx()
	end.Mandate = true
	end.Delete("d/0")
	for _, d := range got {
		end.Ack(d)
	}
	c, err := s.Commit(t.Context(), shard, end)
	if err != nil || c.Seq != stored {
		t.Errorf("mandate when full: %+v, %v", c, err)
	}
	fresh := open(t, srv)
	if err := fresh.Recover(t.Context(), shard, stored, end.Fact.ID, c.Epoch); err != nil {
		t.Errorf("Recover when full: %v", err)
	}
	if err := s.Trim(t.Context(), shard, stored-1); err != nil {
		t.Fatalf("Trim when full: %v", err)
	}
	if h, err := s.Head(t.Context(), shard); err != nil || h.Backlog != 1 || h.Trimmed != stored-1 {
		t.Errorf("Head after Trim = %+v, %v", h, err)
	}
	if _, err := s.Commit(t.Context(), shard, factTx()); err != nil {
		t.Errorf("commit after Trim: %v", err)
	}
}
