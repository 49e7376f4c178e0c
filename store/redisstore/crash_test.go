package redisstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// kill -9 of a server that syncs every command, under 16 committers: each
// acknowledged commit is found afterwards, whole and once, the others wholly
// or not at all.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	n := writ.Counter{Entity: "all", Field: "n"}
	acked := map[int64]string{} // sequence → document
	var mu sync.Mutex
	rounds, enough := 3, int64(150)
	if os.Getenv("WRIT_SOAK") != "" {
		rounds, enough = 30, 2000
	}
	for round := range rounds {
		var done atomic.Int64
		full := make(chan struct{})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for {
					tx := factTx()
					key := "d/" + string(tx.Call)
					tx.Put(writ.Key(key), []byte(tx.Call))
					tx.Add(n, 1)
					tx.Push("0/a/b", key)
					c, err := s.Commit(t.Context(), shard, tx)
					if err != nil {
						return
					}
					mu.Lock()
					acked[c.Seq] = key
					mu.Unlock()
					if done.Add(1) == enough {
						close(full)
					}
				}
			})
		}
		<-full
		srv.Kill()
		wg.Wait()
		srv.Restart()
		// The client library waits up to a second after many failed dials.
		eventually(t, "the client finds the server", func() bool {
			_, err := s.Read(t.Context(), shard, writ.ReadSet{})
			return err == nil
		})

		facts := allFacts(t, s)
		snap := read(t, s, writ.ReadSet{Counters: []writ.Counter{n}})
		if snap.Counters[n] != int64(len(facts)) {
			t.Fatalf("round %d: counter %d, but %d facts", round, snap.Counters[n], len(facts))
		}
		waiting, err := s.Lanes(t.Context(), shard)
		if err != nil || len(waiting) != 1 || waiting[0].Count != int64(len(facts)) {
			t.Fatalf("round %d: lanes %v, %v, but %d facts", round, waiting, err, len(facts))
		}
		byID := make(map[string]writ.StoredFact, len(facts))
		for i, f := range facts {
			if f.Commit.Seq != int64(i) {
				t.Fatalf("round %d: fact %d has sequence %d", round, i, f.Commit.Seq)
			}
			byID["d/"+strings.TrimPrefix(string(f.ID), "rcp_")] = f
		}
		for seq, key := range acked {
			f, ok := byID[key]
			d := read(t, s, docs(writ.Key(key))).Docs[writ.Key(key)]
			if !ok || f.Commit.Seq != seq || d.Version != seq+1 {
				t.Fatalf("round %d: %s was acknowledged at %d, found at %d with version %d", round, key, seq, f.Commit.Seq, d.Version)
			}
		}
		if want := fmt.Sprintf("%d.", round+2); !strings.HasPrefix(snap.Epoch, want) {
			t.Errorf("round %d: epoch %s, want %s…", round, snap.Epoch, want)
		}
	}
	t.Logf("%d commits were acknowledged, all found", len(acked))
}

// A restarted server begins another epoch: plans made before it are fenced.
func TestRestartFencesOldPlans(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s, other := open(t, srv), open(t, srv)
	commit(t, s, factTx())
	snap, theirs := read(t, s, docs("a")), read(t, other, docs("a"))
	srv.Restart()
	for _, old := range []writ.Snapshot{snap, theirs} {
		tx := factTx()
		tx.GuardSnapshot(old)
		tx.Put("a", []byte("x"))
		if _, err := s.Commit(t.Context(), shard, tx); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("commit over a restart: %v, want ErrFenced", err)
		}
	}
	now, again := read(t, s, docs("a")), read(t, other, docs("a"))
	if now.Epoch == snap.Epoch || now.Epoch != again.Epoch || !strings.HasPrefix(now.Epoch, "2.") {
		t.Errorf("epochs %s → %s and %s", snap.Epoch, now.Epoch, again.Epoch)
	}
	tx := factTx()
	tx.GuardSnapshot(now)
	tx.Put("a", []byte("x"))
	if c := commit(t, s, tx); c.Seq != 1 || c.Epoch != now.Epoch {
		t.Errorf("commit = %+v", c)
	}
}

// copyData copies the server's files, as a backup would.
func copyData(t testing.TB, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A server restarted from an older file is refused by the process that saw
// more, and by a new one that is told the ledger's last sequence.
func TestOlderFileIsRefused(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	aof := filepath.Join(srv.Dir(), "appendonlydir")
	old, newest := t.TempDir(), t.TempDir()
	for range 5 {
		commit(t, s, factTx())
	}
	copyData(t, aof, old)
	for range 5 {
		commit(t, s, factTx())
	}
	last := allFacts(t, s)[9]
	srv.Kill()
	copyData(t, aof, newest)
	copyData(t, old, aof)
	srv.Restart()

	check := func(name string, err error) {
		t.Helper()
		e, ok := errors.AsType[*writ.Error](err)
		if !ok || !errors.Is(err, store.ErrFenced) || e.Code != writ.CodeStore || e.Hint == "" {
			t.Errorf("%s = %v, want a fenced shard with a remedy", name, err)
		}
	}
	_, err := s.Commit(t.Context(), shard, factTx())
	check("Commit", err)
	_, err = s.Read(t.Context(), shard, writ.ReadSet{})
	check("Read", err)
	_, err = s.Receive(t.Context(), shard, []writ.Lane{"0/a/b"}, "me", 1)
	check("Receive", err)
	if seq := srv.Command("HGET", "writ:{default}:h", "seq"); seq != "4" {
		t.Errorf("a commit moved the shard to sequence %s before it was refused", seq)
	}
	if _, err := s.Commit(t.Context(), "another", factTx()); err != nil {
		t.Errorf("a shard that lost nothing is refused too: %v", err)
	}

	fresh := open(t, srv)
	check("Recover", fresh.Recover(t.Context(), shard, 9, last.ID, last.Commit.Epoch))
	_, err = fresh.Commit(t.Context(), shard, factTx())
	check("Commit after Recover", err)

	// The newest file comes back: the refusals end.
	srv.Kill()
	copyData(t, newest, aof)
	srv.Restart()
	if err := fresh.Recover(t.Context(), shard, 9, last.ID, last.Commit.Epoch); err != nil {
		t.Errorf("Recover after the restore: %v", err)
	}
	eventually(t, "the running process asks again", func() bool {
		_, err := s.Read(t.Context(), shard, writ.ReadSet{})
		return err == nil
	})
	if c := commit(t, s, factTx()); c.Seq != 10 {
		t.Errorf("sequence %d after the restore, want 10", c.Seq)
	}
}

// A shard that vanishes under a running process is not made anew.
func TestFlushedServerIsRefused(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	s := open(t, srv)
	commit(t, s, factTx())
	srv.Command("FLUSHALL")
	if _, err := s.Read(t.Context(), shard, writ.ReadSet{}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Read = %v, want ErrFenced", err)
	}
	if _, err := s.Commit(t.Context(), shard, factTx()); !errors.Is(err, store.ErrFenced) {
		t.Errorf("Commit = %v, want ErrFenced", err)
	}
}

// A head that went back under the process's feet, without a restart, is
// noticed by the next read or commit.
func TestSteppedBackHeadIsRefused(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(store.Store) error{
		"read":   func(s store.Store) error { _, err := s.Read(t.Context(), shard, writ.ReadSet{}); return err },
		"head":   func(s store.Store) error { _, err := s.Head(t.Context(), shard); return err },
		"commit": func(s store.Store) error { _, err := s.Commit(t.Context(), shard, factTx()); return err },
	} {
		srv := redistest.Start(t)
		s := open(t, srv)
		for range 3 {
			commit(t, s, factTx())
		}
		srv.Command("HSET", "writ:{default}:h", "seq", "0")
		srv.Command("DEL", "writ:{default}:o")
		if err := use(s); !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s = %v, want ErrFenced", name, err)
		}
		if _, err := s.Commit(t.Context(), shard, factTx()); !errors.Is(err, store.ErrFenced) {
			t.Errorf("commit after %s = %v, want ErrFenced", name, err)
		}
	}
}
