package redisstore_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// pair is two servers at one address, as a failover makes them: the second is
// the first one's replica until it takes its place.
type pair struct {
	t             *testing.T
	first, second *redistest.Server
	port          int // of the first
	addr          string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := &pair{
		t: t, port: port, second: redistest.Start(t),
		first: redistest.Start(t, fmt.Sprintf("port %d", port), "bind 127.0.0.1", "repl-diskless-sync-delay 0"),
	}
	p.addr = filepath.Join(p.first.Dir(), "at")
	p.lead(p.first)
	return p
}

// lead makes the address that of a server. Connections there are stay.
func (p *pair) lead(s *redistest.Server) {
	p.t.Helper()
	_ = os.Remove(p.addr)
	if err := os.Symlink(s.Socket(), p.addr); err != nil {
		p.t.Fatal(err)
	}
}

// demote puts the second server in the first one's place, which is left with
// what it has and hears of nothing new.
func (p *pair) demote() {
	p.t.Helper()
	p.second.Command("REPLICAOF", "127.0.0.1", fmt.Sprint(p.port))
	const seq = "writ:{default}:h"
	eventually(p.t, "the replica has everything", func() bool {
		return p.second.Command("HGET", seq, "seq") == p.first.Command("HGET", seq, "seq")
	})
	p.second.Command("REPLICAOF", "NO", "ONE")
	p.first.Command("REPLICAOF", "127.0.0.1", "1")
}

// A master that was made a replica keeps its connections, and answers reads on
// them with what it had. Once that is noticed, whatever notices it, nothing is
// read from it any more.
func TestDemotedMasterIsRefused(t *testing.T) {
	t.Parallel()
	unnamed := factTx()
	unnamed.Call = ""
	for name, notice := range map[string]func(s *redisstore.Store) error{
		"commit":              func(s *redisstore.Store) error { _, err := s.Commit(t.Context(), shard, factTx()); return err },
		"commit without call": func(s *redisstore.Store) error { _, err := s.Commit(t.Context(), shard, unnamed); return err },
		"trim":                func(s *redisstore.Store) error { return s.Trim(t.Context(), shard, 0) },
		"look":                func(s *redisstore.Store) error { _, err := s.Info(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			s := openWith(t, redisstore.Options{Addr: p.addr})
			write := func(s *redisstore.Store, text string) {
				tx := factTx()
				tx.Put("session/x", []byte(text))
				commit(t, s, tx)
			}
			write(s, "live")
			each := func(f func() error) (failed int) {
				errs := make(chan error, 16)
				var wg sync.WaitGroup
				for range cap(errs) {
					wg.Go(func() { errs <- f() })
				}
				wg.Wait()
				close(errs)
				for err := range errs {
					if err != nil {
						failed++
						if writ.CodeOf(err) != writ.CodeStore || errors.Is(err, store.ErrClosed) {
							t.Errorf("got %v, want %s", err, writ.CodeStore)
						}
					}
				}
				return failed
			}
			var want string
			look := func() error {
				snap, err := s.Read(t.Context(), shard, docs("session/x"))
				if got := string(snap.Docs["session/x"].Body); err == nil && got != want {
					t.Errorf("read %q, want %q", got, want)
				}
				return err
			}
			want = "live"
			if n := each(look); n > 0 { // many connections are open now
				t.Fatalf("%d of 16 reads failed", n)
			}

			p.demote()
			write(open(t, p.second), "revoked")
			if err := notice(s); writ.CodeOf(err) != writ.CodeStore {
				t.Errorf("%s = %v, want %s", name, err, writ.CodeStore)
			}
			want = "revoked"
			if n := each(look); n != 16 {
				t.Errorf("%d of 16 reads were answered by a server that is no master", 16-n)
			}
			for what, f := range map[string]func() error{
				"Facts": func() error { _, err := s.Facts(t.Context(), shard, -1, 10, 0); return err },
				"Head":  func() error { _, err := s.Head(t.Context(), shard); return err },
				"Info":  func() error { _, err := s.Info(t.Context()); return err },
				"Wake":  func() error { _, _, err := s.Wake(t.Context(), shard, "", maxWait); return err },
			} {
				if err := f(); writ.CodeOf(err) != writ.CodeStore {
					t.Errorf("%s = %v, want %s", what, err, writ.CodeStore)
				}
			}

			p.lead(p.second)
			eventually(t, "the new master is found", func() bool { return each(look) == 0 })
			if got := allFacts(t, s); len(got) != 2 {
				t.Errorf("%d facts, want 2", len(got))
			}
			if c := commit(t, s, factTx()); c.Seq != 2 {
				t.Errorf("sequence %d, want 2", c.Seq)
			}
		})
	}
}

// What a master had alone when another took its place is lost, and the other
// one is refused by who saw it.
func TestDemotedMasterWithMore(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	s := openWith(t, redisstore.Options{Addr: p.addr})
	commit(t, s, factTx())
	p.demote()
	p.first.Command("REPLICAOF", "NO", "ONE") // both are masters for a while
	commit(t, s, factTx())
	p.first.Command("REPLICAOF", "127.0.0.1", "1")
	if _, err := s.Info(t.Context()); writ.CodeOf(err) != writ.CodeStore {
		t.Errorf("Info = %v, want %s", err, writ.CodeStore)
	}
	p.lead(p.second)
	eventually(t, "the new master is found", func() bool {
		_, err := s.Read(t.Context(), shard, writ.ReadSet{})
		return errors.Is(err, store.ErrFenced)
	})
	commit(t, open(t, p.second), factTx())
	aSecond()
	fenced(t, s, "the new master has another fact in its place")
}
