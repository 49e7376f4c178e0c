package boltstore_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/storetest"
)

// clock is the host's, moved by the tests.
type clock struct{ shift atomic.Int64 }

func (c *clock) now() int64 { return time.Now().UnixMilli() + c.shift.Load() }

func open(t testing.TB, path string, opts boltstore.Options) *boltstore.Store {
	t.Helper()
	s, err := boltstore.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Opened {
		var c clock
		path := filepath.Join(t.TempDir(), "writ.db")
		opts := boltstore.Options{Now: c.now, NoSync: true}
		s := open(t, path, opts)
		return storetest.Opened{
			Store: s,
			Reopen: func(t testing.TB) store.Store {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return open(t, path, opts)
			},
			Advance:  func(d time.Duration) { c.shift.Add(d.Milliseconds()) },
			StepBack: func(d time.Duration) { c.shift.Add(-d.Milliseconds()) },
		}
	})
}
