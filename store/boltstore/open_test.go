package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
)

func TestSecondOpenerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.db")
	s := open(t, path, boltstore.Options{})
	began := time.Now()
	_, err := boltstore.Open(path, boltstore.Options{})
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if writ.CodeOf(err) != writ.CodeStore {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{path, fmt.Sprintf("pid %d", os.Getpid()), "since 20"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %q: %v", part, err)
		}
	}
	for _, name := range []string{path, path + ".owner"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path, boltstore.Options{})
}

// A program that does not know the owner file is noticed by bbolt's own lock.
func TestForeignOpenerIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = boltstore.Open(path, boltstore.Options{Timeout: 50 * time.Millisecond})
	if writ.CodeOf(err) != writ.CodeStore || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	db, err := bolt.Open(newer, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("/writ"))
		if err != nil {
			return err
		}
		return b.Put([]byte("format"), []byte("99"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]writ.Code{
		filepath.Join(dir, "no such folder", "writ.db"): writ.CodeStore,
		dir:     writ.CodeStore,
		garbage: writ.CodeStore,
		newer:   writ.CodeUpgrade,
	} {
		for range 2 { // a refusal lets go of the file
			if _, err := boltstore.Open(path, boltstore.Options{Timeout: 50 * time.Millisecond}); writ.CodeOf(err) != want {
				t.Errorf("%s: got %v, want %s", filepath.Base(path), err, want)
			}
		}
	}
}

func TestInfo(t *testing.T) {
	for noSync, want := range map[bool]store.Durability{false: store.DurabilityCommitted, true: store.DurabilityBuffered} {
		s := open(t, filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: noSync})
		info, err := s.Info(t.Context())
		if err != nil || info.Kind != "bolt" || info.Durability != want {
			t.Errorf("no sync %v: got %+v, %v", noSync, info, err)
		}
	}
}

func TestUncheckedTenantIsRefused(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	for _, bad := range []writ.Tenant{"", "/writ", "A", "a b"} {
		_, readErr := s.Read(t.Context(), bad, writ.ReadSet{})
		_, commitErr := s.Commit(t.Context(), bad, writ.Tx{})
		if !errors.Is(readErr, store.ErrInvalid) || !errors.Is(commitErr, store.ErrInvalid) {
			t.Errorf("%q: read %v, commit %v", bad, readErr, commitErr)
		}
	}
}

func TestCallerThatLeft(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "writ.db"), boltstore.Options{NoSync: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Commit(ctx, workShard, enqueue("c-1")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if h, err := s.Head(t.Context(), workShard); err != nil || h.Seq != -1 {
		t.Errorf("head %+v, %v", h, err)
	}
}
