package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

const maxWait = 2 * time.Second

func push(t testing.TB, s store.Store, lane writ.Lane, entries ...string) {
	t.Helper()
	tx := writ.Tx{Call: newCall()}
	for _, e := range entries {
		tx.Push(lane, e)
	}
	if _, err := s.Commit(t.Context(), shard, tx); err != nil {
		t.Fatal(err)
	}
}

// Two replicas with several consumers each take, give back, ack and reclaim
// at once: nobody holds what another holds, nothing is lost, nothing remains.
func TestNoDoubleDelivery(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "appendfsync everysec")
	replicas := []store.Store{open(t, srv), open(t, srv)}
	const entries = 300
	lanes := []writ.Lane{"0/a/b", "1/a/b", "1/c/d"}
	for i := range entries {
		push(t, replicas[i%2], lanes[i%3], fmt.Sprintf("e%d", i))
	}
	var mu sync.Mutex
	held, acked := map[string]string{}, map[string]int{}
	var wg sync.WaitGroup
	for w := range 8 {
		s, me := replicas[w%2], fmt.Sprintf("c%d", w)
		wg.Go(func() {
			for turn := 0; ; turn++ {
				got, err := s.Receive(t.Context(), shard, lanes, me, 1+turn%3)
				if err != nil {
					t.Error(err)
					return
				}
				if len(got) == 0 {
					return
				}
				for i, d := range got {
					mu.Lock()
					if by, twice := held[d.ID]; twice {
						t.Errorf("entry %s of %s is held by %s and %s", d.ID, d.Lane, by, me)
					}
					held[d.ID] = me
					mu.Unlock()
					if (turn+i+w)%4 == 0 {
						mu.Lock()
						delete(held, d.ID)
						mu.Unlock()
						if err := s.GiveBack(t.Context(), shard, me, d); err != nil {
							t.Error(err)
						}
						continue
					}
					tx := writ.Tx{Call: newCall()}
					tx.Ack(d)
					if _, err := s.Commit(t.Context(), shard, tx); err != nil {
						t.Error(err)
					}
					mu.Lock()
					delete(held, d.ID)
					acked[d.Entry]++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	// A worker may have seen empty lanes while another was giving back.
	for {
		got, err := replicas[0].Receive(t.Context(), shard, lanes, "last", 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		tx := writ.Tx{Call: newCall()}
		for _, d := range got {
			tx.Ack(d)
			acked[d.Entry]++
		}
		if _, err := replicas[0].Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
	}
	if len(acked) != entries {
		t.Errorf("%d of %d entries were acked", len(acked), entries)
	}
	for e, n := range acked {
		if n != 1 {
			t.Errorf("%s was acked %d times", e, n)
		}
	}
	left := srv.Command("EVAL", "return #redis.call('KEYS', '*:l:*') + #redis.call('KEYS', '*:n') + #redis.call('KEYS', '*:p')", "0")
	if left != "0" {
		t.Errorf("%s keys of empty lanes remain", left)
	}
}

// Counts are exact after any mixture of push, receive, give back, reclaim and
// ack, also of an entry that is gone.
func TestCounts(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t))
	counts := func(want string) {
		t.Helper()
		got, err := s.Lanes(t.Context(), shard)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("Lanes = %v, %v, want %s", got, err, want)
		}
	}
	receive := func(n int) []writ.Delivery {
		t.Helper()
		got, err := s.Receive(t.Context(), shard, []writ.Lane{"0/x/y", "0/a/b"}, "me", n)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	ack := func(d writ.Delivery) {
		t.Helper()
		tx := writ.Tx{Call: newCall()}
		tx.Ack(d)
		if _, err := s.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
	}
	counts("[]")
	push(t, s, "0/a/b", "1", "2", "3")
	counts("[{0/a/b 3}]")
	got := receive(2)
	counts("[{0/a/b 1}]")
	for range 2 { // the second time it is gone
		if err := s.GiveBack(t.Context(), shard, "me", got[0]); err != nil {
			t.Fatal(err)
		}
		counts("[{0/a/b 2}]")
	}
	ack(got[0]) // gone: the entry is another one by now
	counts("[{0/a/b 2}]")
	if err := s.GiveBack(t.Context(), shard, "somebody", got[1]); err != nil {
		t.Fatal(err)
	}
	counts("[{0/a/b 2}]")
	ack(got[1])
	ack(got[1])
	counts("[{0/a/b 2}]")
	rest := receive(9)
	if len(rest) != 2 || rest[0].Entry != "3" || rest[1].Entry != "1" {
		t.Errorf("received %v, want 3 and then 1", rest)
	}
	counts("[]")
	if n, err := s.Reclaim(t.Context(), shard, time.Hour, 9); n != 0 || err != nil {
		t.Errorf("Reclaim of fresh entries = %d, %v", n, err)
	}
	eventually(t, "one entry is reclaimed", func() bool {
		n, err := s.Reclaim(t.Context(), shard, 0, 1)
		return n == 1 && err == nil
	})
	counts("[{0/a/b 1}]")
	ack(writ.Delivery{Lane: "0/a/b", ID: "no such thing"})
	ack(writ.Delivery{Lane: "0/never/was", ID: "1-0"})
	counts("[{0/a/b 1}]")
}

// A waiter hears of pushes by other replicas; one that fell behind the end of
// the wake stream is told of every lane that holds something.
func TestWake(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "appendfsync everysec")
	s, other := open(t, srv), open(t, srv)
	cursor, lanes, err := s.Wake(t.Context(), shard, "", 0)
	if err != nil || len(lanes) != 0 {
		t.Fatal(lanes, err)
	}
	type answer struct {
		cursor string
		lanes  []writ.Lane
		err    error
	}
	woken := make(chan answer)
	go func() {
		c, l, err := s.Wake(t.Context(), shard, cursor, maxWait)
		woken <- answer{c, l, err}
	}()
	eventually(t, "the waiter blocks", func() bool { return infoField(srv, "clients", "blocked_clients") == "1" })
	push(t, other, "0/a/b", "1", "2")
	a := <-woken
	if a.err != nil || fmt.Sprint(a.lanes) != "[0/a/b]" {
		t.Fatalf("Wake = %v", a)
	}
	if _, lanes, err := s.Wake(t.Context(), shard, a.cursor, 0); err != nil || len(lanes) != 0 {
		t.Errorf("Wake again = %v, %v", lanes, err)
	}
	push(t, other, "0/c/d", "x")
	got, err := other.Receive(t.Context(), shard, []writ.Lane{"0/c/d"}, "o", 1)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	if err := other.GiveBack(t.Context(), shard, "o", got[0]); err != nil {
		t.Fatal(err)
	}
	srv.Command("XTRIM", "writ:{default}:w", "MAXLEN", "1")
	if _, lanes, err = s.Wake(t.Context(), shard, a.cursor, 0); err != nil || fmt.Sprint(lanes) != "[0/a/b 0/c/d]" {
		t.Errorf("Wake after a cut = %v, %v, want both lanes", lanes, err)
	}
}

// A cancelled context ends a waiting call at once.
func TestWaitingIsCancelled(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() {
		_, _, err := s.Wake(ctx, shard, "", maxWait)
		ended <- err
	}()
	go func() {
		_, err := s.Facts(ctx, shard, -1, 1, time.Hour)
		ended <- err
	}()
	eventually(t, "both wait", func() bool { return infoField(srv, "clients", "blocked_clients") == "2" })
	start := time.Now()
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %s to notice", d)
	}
}
