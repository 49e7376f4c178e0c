package redisstore_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// forked is a server that went back from sequence 9 to 4.
type forked struct {
	srv         *redistest.Server
	aof, newest string
}

// fork writes facts 0 … 9, calls see, lets the server come back with 0 … 4 and
// calls behind.
func fork(t *testing.T, srv *redistest.Server, see, behind func()) forked {
	t.Helper()
	f := forked{srv: srv, aof: filepath.Join(srv.Dir(), "appendonlydir"), newest: t.TempDir()}
	old := t.TempDir()
	writer := open(t, srv)
	write(t, writer, 5)
	copyData(t, f.aof, old)
	write(t, writer, 5)
	see()
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	srv.Kill()
	copyData(t, f.aof, f.newest)
	copyData(t, old, f.aof)
	srv.Restart()
	behind()
	return f
}

// restore brings the history back that was lost.
func (f forked) restore(t *testing.T) {
	t.Helper()
	f.srv.Kill()
	copyData(t, f.newest, f.aof)
	f.srv.Restart()
}

// write commits n facts that a ledger takes.
func write(t testing.TB, s *redisstore.Store, n int) {
	t.Helper()
	for range n {
		commit(t, s, receiptTx())
	}
}

func receiptTx() writ.Tx {
	tx := factTx()
	n := calls.Add(1)
	var e [10]byte
	for i := range 8 {
		e[i] = byte(n >> (8 * i))
	}
	tx.Fact.ID = writ.ReceiptID(writ.MakeID(writ.PrefixReceipt, time.Now().UnixMilli(), e))
	return tx
}

func fenced(t *testing.T, s *redisstore.Store, when string) {
	t.Helper()
	if _, err := s.Read(t.Context(), shard, writ.ReadSet{}); !errors.Is(err, store.ErrFenced) || writ.CodeOf(err) != writ.CodeStore {
		t.Errorf("%s: Read = %v, want a fenced shard", when, err)
	}
	if _, err := s.Commit(t.Context(), shard, factTx()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("%s: Commit = %v, want a fenced shard", when, err)
	}
}

// aSecond is longer than a fence is believed without asking again.
func aSecond() { time.Sleep(1200 * time.Millisecond) }

// A store that has lost facts and was written to since is as long as before,
// and is not the same. However a process learned of the facts that were lost,
// it stays refused until they are back.
func TestAnotherHistoryIsRefused(t *testing.T) {
	t.Parallel()
	for name, see := range map[string]func(t *testing.T, s *redisstore.Store){
		"who read":           func(t *testing.T, s *redisstore.Store) { read(t, s, writ.ReadSet{}) },
		"who asked for head": func(t *testing.T, s *redisstore.Store) { _, _ = s.Head(t.Context(), shard) },
		"who read facts":     func(t *testing.T, s *redisstore.Store) { allFacts(t, s) },
		"who opened":         func(t *testing.T, s *redisstore.Store) { _, _ = s.Lanes(t.Context(), shard) },
	} {
		for when, asked := range map[string]bool{"and asked meanwhile": true, "and did not": false} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				srv := redistest.Start(t)
				s := open(t, srv)
				f := fork(t, srv, func() { see(t, s) }, func() {
					if asked {
						fenced(t, s, "behind")
					}
				})
				other := open(t, srv)
				write(t, other, 8)
				aSecond()
				fenced(t, s, "with another history")
				aSecond()
				fenced(t, s, "asked again")
				if h, err := other.Head(t.Context(), shard); err != nil || h.Seq != 12 {
					t.Errorf("the process that knows of nothing lost: %+v, %v", h, err)
				}

				f.restore(t)
				eventually(t, "the history it knows is taken again", func() bool {
					_, err := s.Read(t.Context(), shard, writ.ReadSet{})
					return err == nil
				})
				if c := commit(t, s, factTx()); c.Seq != 10 {
					t.Errorf("sequence %d after the restore, want 10", c.Seq)
				}
			})
		}
	}
}

// A process that starts with the ledger of the history that was lost is
// refused, and so is every use of the shard afterwards.
func TestRecoverRefusesAnotherHistory(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	var last writ.StoredFact
	fork(t, srv, func() { last = allFacts(t, s)[9] }, func() {})
	write(t, open(t, srv), 8)
	fresh := open(t, srv)
	if err := fresh.Recover(t.Context(), shard, 9, last.ID, last.Commit.Epoch); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Recover = %v, want a fenced shard", err)
	}
	fenced(t, fresh, "after Recover")
}

type noSealer struct{}

func (noSealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	return writ.Receipt{ID: f.ID, Seq: f.Commit.Seq, Payload: f.Payload()}, nil
}

// The ledger of the history that was lost takes nothing of the other one, and
// nothing of the other one is trimmed because the ledger has its own.
func TestLedgerKeepsToItsHistory(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	l, err := ledger.Open(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	g := ledger.NewIntegrator(shard, l, s, noSealer{})
	fork(t, srv, func() {
		if n, err := g.Round(t.Context(), 0); n != 10 || err != nil {
			t.Fatal(n, err)
		}
	}, func() { fenced(t, s, "behind") })
	other := open(t, srv)
	write(t, other, 8)
	aSecond()
	if n, err := g.Round(t.Context(), 0); n != 0 || err == nil {
		t.Errorf("Round = %d, %v, want a refusal", n, err)
	}
	if l.Last() != 9 {
		t.Errorf("the ledger ends at %d, want 9", l.Last())
	}
	if got := allFacts(t, other); len(got) != 13 {
		t.Errorf("%d facts are left in the outbox, want 13", len(got))
	}
}

// A trim that was on its way when the server went back does not run on what
// others have written since.
func TestLateTrimIsRefused(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := newLossy(t, srv)
	s := openWith(t, redisstore.Options{Addr: p.addr, Timeout: 10 * time.Second})
	trimmed := make(chan error, 1)
	fork(t, srv, func() {
		read(t, s, writ.ReadSet{})
		p.hold.Store(true)
		go func() { trimmed <- s.Trim(t.Context(), shard, 8) }()
		eventually(t, "the trim is on its way", func() bool { return !p.hold.Load() })
	}, func() {})
	other := open(t, srv)
	write(t, other, 8)
	close(p.release) // the connection breaks, and the client tries again
	if err := <-trimmed; !errors.Is(err, store.ErrFenced) {
		t.Errorf("Trim = %v, want a fenced shard", err)
	}
	if got := allFacts(t, other); len(got) != 13 {
		t.Errorf("%d facts are left in the outbox, want 13", len(got))
	}
}

// What a process knows to be committed may have been trimmed when it asks. In
// whose life of the server it was committed still tells the histories apart.
func TestTrimmedFactOfAnotherHistory(t *testing.T) {
	t.Parallel()
	for name, recovers := range map[string]bool{"who runs": false, "who starts with a ledger": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			s := open(t, srv)
			var last writ.StoredFact
			f := fork(t, srv, func() { last = allFacts(t, s)[9] }, func() {})
			other := open(t, srv)
			write(t, other, 8)
			if err := other.Trim(t.Context(), shard, 11); err != nil {
				t.Fatal(err)
			}
			if recovers {
				s = open(t, srv)
				if err := s.Recover(t.Context(), shard, 9, last.ID, last.Commit.Epoch); !errors.Is(err, store.ErrFenced) {
					t.Errorf("Recover = %v, want a fenced shard", err)
				}
			}
			fenced(t, s, "with another history")
			aSecond()
			fenced(t, s, "asked again")

			f.restore(t)
			eventually(t, "the history it knows is taken again", func() bool {
				_, err := s.Read(t.Context(), shard, writ.ReadSet{})
				return err == nil
			})
		})
	}
}

// The right file is taken again also when others had written and trimmed past
// what a process knows before it was lost, and whatever was written since.
func TestTrimmedFactIsKnownAfterTheRestore(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]bool{"and nobody wrote": false, "and others wrote": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			s := open(t, srv)
			f := fork(t, srv, func() {
				read(t, s, writ.ReadSet{})
				o := open(t, srv)
				write(t, o, 2)
				if err := o.Trim(t.Context(), shard, 10); err != nil {
					t.Fatal(err)
				}
			}, func() { fenced(t, s, "behind") })
			if meanwhile {
				other := open(t, srv)
				write(t, other, 8)
				if err := other.Trim(t.Context(), shard, 11); err != nil {
					t.Fatal(err)
				}
				aSecond()
				fenced(t, s, "with another history")
			}
			f.restore(t)
			eventually(t, "the history it knows is taken again", func() bool {
				_, err := s.Read(t.Context(), shard, writ.ReadSet{})
				return err == nil
			})
			if c := commit(t, s, factTx()); c.Seq != 12 {
				t.Errorf("sequence %d after the restore, want 12", c.Seq)
			}
		})
	}
}

// Restarts that lose nothing refuse nobody, whoever committed last in whichever
// life and however much of it is trimmed; and a life that committed nothing may
// be lost.
func TestLivesThatLoseNothing(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	aof, before := filepath.Join(srv.Dir(), "appendonlydir"), t.TempDir()
	idle, busy := open(t, srv), open(t, srv)
	for life := range 4 {
		write(t, busy, 3)
		if life == 0 {
			read(t, idle, writ.ReadSet{}) // it asks for nothing more until the end
		}
		if err := busy.Trim(t.Context(), shard, int64(3*life+1)); err != nil {
			t.Fatal(err)
		}
		srv.Kill()
		copyData(t, aof, before)
		srv.Restart()
	}
	read(t, busy, writ.ReadSet{}) // begins a life
	srv.Kill()
	copyData(t, before, aof) // in which nothing was committed
	srv.Restart()
	for name, s := range map[string]*redisstore.Store{"who was idle": idle, "who wrote": busy} {
		eventually(t, name+" reads on", func() bool {
			_, err := s.Read(t.Context(), shard, writ.ReadSet{})
			if errors.Is(err, store.ErrFenced) {
				t.Fatalf("%s: %v", name, err)
			}
			return err == nil
		})
	}
	if c := commit(t, idle, factTx()); c.Seq != 12 {
		t.Errorf("sequence %d, want 12", c.Seq)
	}
}

// head is a field of the shard's head.
func head(srv *redistest.Server, field string) string {
	return srv.Command("HGET", "writ:{default}:h", field)
}

// Lives are forgotten: all but the last 256 that committed something. Who knows
// only of an older one is told that nothing can be told, and what to do.
func TestForgottenLives(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	idle, busy := open(t, srv), open(t, srv)
	write(t, busy, 1)
	read(t, idle, writ.ReadSet{})
	for range 2 {
		srv.Restart()
		eventually(t, "the server is found", func() bool {
			_, err := busy.Read(t.Context(), shard, writ.ReadSet{})
			return err == nil
		})
	}
	if got := strings.Fields(head(srv, "lives")); len(got) != 4 {
		t.Errorf("%d lives are noted, want the two in which there were commits: %v", len(got)/2, got)
	}
	write(t, busy, 2)
	if err := busy.Trim(t.Context(), shard, 1); err != nil {
		t.Fatal(err)
	}
	// As many lives as are kept, all of them after the first fact.
	many := strings.Repeat("1.00 1 ", 255) + head(srv, "epoch") + " 1"
	srv.Command("HSET", "writ:{default}:h", "lives", many)
	srv.Restart()
	write(t, open(t, srv), 1)
	if got := strings.Fields(head(srv, "lives")); len(got) != 512 || got[511] != "3" {
		t.Errorf("%d lives are noted, want 256, the last from sequence 3", len(got)/2)
	}
	_, err := idle.Read(t.Context(), shard, writ.ReadSet{})
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || !errors.Is(err, store.ErrFenced) || !strings.Contains(e.Hint, "restart this gateway") || strings.Contains(err.Error(), "lost") {
		t.Errorf("Read = %v, want that nothing can be told", err)
	}
	if _, err := open(t, srv).Read(t.Context(), shard, writ.ReadSet{}); err != nil {
		t.Errorf("a gateway that was restarted: %v", err)
	}
}

// A store that an earlier version has written says nothing of its lives, and
// that version trimmed the last fact of the ledger too.
func TestStoreWithoutLives(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	writer := open(t, srv)
	write(t, writer, 5)
	last := allFacts(t, writer)[4]
	if err := writer.Trim(t.Context(), shard, 4); err != nil {
		t.Fatal(err)
	}
	srv.Command("HDEL", "writ:{default}:h", "lives", "last")
	srv.Restart()
	s := open(t, srv)
	read(t, s, writ.ReadSet{})
	if err := s.Recover(t.Context(), shard, 4, last.ID, last.Commit.Epoch); err != nil {
		t.Errorf("Recover = %v", err)
	}
	srv.Restart()
	eventually(t, "it goes on after a restart", func() bool {
		_, err := s.Read(t.Context(), shard, writ.ReadSet{})
		return err == nil
	})
	write(t, s, 2)
	// A life that an earlier version began is missing among them: where it began
	// is not known, and so nothing before it.
	if err := s.Trim(t.Context(), shard, 5); err != nil {
		t.Fatal(err)
	}
	srv.Command("HSET", "writ:{default}:h", "epoch", "9.00", "server", "")
	fresh := open(t, srv)
	if err := fresh.Recover(t.Context(), shard, 5, "rcp_x", "1.00"); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Recover = %v, want a fenced shard", err)
	}
	write(t, open(t, srv), 1)
}
