package redisstore_test

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// lossy passes requests to a server. It loses answers on demand: the server
// has executed what the client cannot know of. And it holds a request back, so
// that it arrives after the client has given it up.
type lossy struct {
	addr string
	lose atomic.Int64 // how many more connections break instead of answering
	lost atomic.Int64

	hold     atomic.Bool   // the next request
	release  chan struct{} // lets it go on
	answered chan struct{} // the server has answered it
}

func newLossy(t testing.TB, srv *redistest.Server) *lossy {
	t.Helper()
	p := &lossy{addr: filepath.Join(srv.Dir(), "lossy"), release: make(chan struct{}), answered: make(chan struct{})}
	l, err := net.Listen("unix", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.pipe(c, srv.Socket(), &wg) })
		}
	})
	return p
}

func (p *lossy) pipe(c net.Conn, to string, wg *sync.WaitGroup) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("unix", to)
	if err != nil {
		return
	}
	var held atomic.Bool
	wg.Go(func() {
		defer func() { _ = s.Close() }()
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			if p.hold.CompareAndSwap(true, false) {
				held.Store(true)
				<-p.release
			}
			if _, err := s.Write(buf[:n]); err != nil {
				return
			}
			if held.Load() {
				<-p.release
				return
			}
		}
	})
	buf := make([]byte, 1<<16)
	for {
		n, err := s.Read(buf)
		if err != nil {
			if held.Load() {
				<-p.release // the client waits on a server that is gone
			}
			return
		}
		if held.Load() {
			p.answered <- struct{}{}
			p.release <- struct{}{}
			return
		}
		if p.lose.Add(-1) >= 0 {
			p.lost.Add(1)
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A commit whose answer is lost is repeated under its call id and takes effect
// once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv)
	s := openWith(t, redisstore.Options{Addr: p.addr, Timeout: 2 * time.Second})
	n := writ.Counter{Entity: "e", Field: "n"}
	for i := range int64(20) {
		tx := factTx()
		tx.Expect("d", i)
		tx.Put("d", []byte("x"))
		tx.Add(n, 1)
		tx.Push("0/a/b", "e")
		p.lose.Store(1 + i%2) // once, or the first repetition's connection too
		if c := commit(t, s, tx); c.Seq != i {
			t.Fatalf("commit %d has sequence %d", i, c.Seq)
		}
		p.lose.Store(0)
	}
	if p.lost.Load() < 20 {
		t.Fatalf("only %d answers were lost: the test proves nothing", p.lost.Load())
	}
	if got := read(t, s, writ.ReadSet{Counters: []writ.Counter{n}}).Counters[n]; got != 20 {
		t.Errorf("20 commits moved the counter to %d", got)
	}
}

// When every answer is lost the outcome is unknown, and says so; the caller
// repeats the same transaction and learns the first result.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv)
	s := openWith(t, redisstore.Options{Addr: p.addr})
	commit(t, s, factTx()) // the server knows the script
	tx := factTx()
	tx.Expect("d", 0)
	tx.Put("d", []byte("x"))
	p.lose.Store(1000)
	_, err := s.Commit(t.Context(), shard, tx)
	if writ.CodeOf(err) != writ.CodeStore || errors.Is(err, store.ErrFenced) {
		t.Fatalf("commit = %v, want %s", err, writ.CodeStore)
	}
	p.lose.Store(0)
	tx.Guards, tx.Ops = nil, nil // whatever the rest says
	tx.Put("other", []byte("y"))
	if c := commit(t, s, tx); c.Seq != 1 {
		t.Errorf("sequence %d, want 1", c.Seq)
	}
	if snap := read(t, s, docs("d", "other")); snap.Docs["d"].Version != 2 || snap.Docs["other"].Version != 0 {
		t.Errorf("documents: %+v", snap.Docs)
	}
}

// A try that arrives after its repetition was refused stays without effect,
// though it would pass by then; a new plan under the same call id commits.
func TestLateArrival(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv)
	s := openWith(t, redisstore.Options{Addr: p.addr, Timeout: 200 * time.Millisecond})
	other := open(t, srv)
	n := writ.Counter{Entity: "e", Field: "n"}
	five := factTx()
	five.Add(n, 5)
	commit(t, s, five)

	tx := factTx()
	tx.AddUpTo(n, 1, 5)
	p.hold.Store(true)
	var limit *store.Limit
	if _, err := s.Commit(t.Context(), shard, tx); !errors.As(err, &limit) {
		t.Fatalf("commit = %v, want *Limit", err)
	}
	less := factTx()
	less.Add(n, -5)
	commit(t, other, less)
	p.release <- struct{}{}
	<-p.answered
	if got := read(t, other, writ.ReadSet{Counters: []writ.Counter{n}}).Counters[n]; got != 0 {
		t.Errorf("the counter is %d, want 0: a refused commit took effect later", got)
	}
	if c := commit(t, s, tx); c.Seq != 2 {
		t.Errorf("the new plan has sequence %d, want 2", c.Seq)
	}
}

// A server that stands still makes tries time out, which it executes later, in
// any order: one call still commits once.
func TestPausedServer(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := openWith(t, redisstore.Options{URL: srv.URL(), Timeout: 100 * time.Millisecond})
	other := open(t, srv)
	n := writ.Counter{Entity: "e", Field: "n"}
	commit(t, s, factTx())
	for range 5 {
		tx := factTx()
		tx.Add(n, 1)
		srv.Command("CLIENT", "PAUSE", "150", "WRITE")
		_, err := s.Commit(t.Context(), shard, tx)
		for err != nil {
			if writ.CodeOf(err) != writ.CodeStore {
				t.Fatal(err)
			}
			_, err = s.Commit(t.Context(), shard, tx)
		}
	}
	if got := read(t, other, writ.ReadSet{Counters: []writ.Counter{n}}).Counters[n]; got != 5 {
		t.Errorf("5 commits moved the counter to %d", got)
	}
}

// Every pooled connection is broken after a restart: calls go through anyway.
func TestRestartIsBridged(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	var wg sync.WaitGroup
	for range 16 { // fill the pool
		wg.Go(func() { _, _ = s.Commit(t.Context(), shard, factTx()) })
	}
	wg.Wait()
	srv.Restart()
	for range 16 {
		wg.Go(func() {
			if _, err := s.Commit(t.Context(), shard, factTx()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if h, err := s.Head(t.Context(), shard); err != nil || h.Seq != 31 {
		t.Errorf("Head = %+v, %v, want sequence 31", h, err)
	}
}
