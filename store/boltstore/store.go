// Package boltstore is the embedded host of package store: one bbolt file, one
// process, nothing else to run. It is not a database for others: a second
// opener is refused.
//
// Its invariant: when Commit returns nil, change and fact are in the file and
// the file is synced, so kill -9 and power loss cost nothing that was
// acknowledged. Everything kept in memory only (who received which lane entry,
// who waits) may be lost and is made again from the file.
//
// One goroutine writes (writer.go): it drains the commits that wait into one
// bbolt transaction and syncs once for all of them.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
	"github.com/writ-gateway/writ/store"
)

// Options of Open. The zero value is right for production.
type Options struct {
	// Now is the clock in milliseconds since 1970; the host's when nil.
	Now func() int64
	// Timeout is how long to wait for another process to let go of the file; 1 s
	// when 0.
	Timeout time.Duration
	// NoSync leaves the syncing to the operating system: kill -9 still costs
	// nothing, power loss may cost the whole file. For tests.
	NoSync bool
}

// Store is an open file. It implements store.Store.
type Store struct {
	path  string
	opts  Options
	owner *owner

	queue   chan *request
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed by the writer
	once    sync.Once

	// dbMu is held to use db, and held exclusively by the writer to open the
	// file again.
	dbMu sync.RWMutex
	db   *bolt.DB

	mu     sync.Mutex
	shards map[writ.Tenant]*shard // what was used since Open
}

var _ store.Store = (*Store)(nil)

// mapBytes of address space are reserved for the file: while it fits, a reader
// never makes the writer wait for a new mapping.
const mapBytes = int64(8) << 30

// Open opens or creates the file with mode 0600, and <path>.owner beside it,
// which says who has it open. When another process has, Open fails within
// Timeout with CodeStore and names file and owner. The caller calls Close.
func Open(path string, opts Options) (*Store, error) {
	const op = "boltstore.Open"
	if opts.Now == nil {
		opts.Now = func() int64 { return time.Now().UnixMilli() }
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	own, err := takeOwnership(path, opts.Timeout)
	if err != nil {
		return nil, writ.AsError(op, err)
	}
	s := &Store{
		path: path, opts: opts, owner: own,
		queue: make(chan *request, maxGroup), closing: make(chan struct{}), ended: make(chan struct{}),
		shards: map[writ.Tenant]*shard{},
	}
	if s.db, err = openFile(path, opts); err == nil {
		if err = s.checkFormat(); err != nil {
			_ = s.db.Close()
		}
	}
	if err != nil {
		own.release()
		return nil, writ.AsError(op, err)
	}
	go s.write()
	return s, nil
}

func openFile(path string, opts Options) (*bolt.DB, error) {
	_, statErr := os.Stat(path)
	for size := mapBytes; ; size /= 2 {
		if size > math.MaxInt {
			continue
		}
		db, err := bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         opts.Timeout,
			NoFreelistSync:  true,
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: int(size),
			NoSync:          opts.NoSync,
			NoStatistics:    true,
		})
		switch {
		case err == nil && os.IsNotExist(statErr):
			if err := durable.SyncDir(filepath.Dir(path)); err != nil {
				_ = db.Close()
				return nil, err
			}
			return db, nil
		case err == nil:
			return db, nil
		case errors.Is(err, syscall.ENOMEM) && size > 1<<26: // little address space: map less
		case errors.Is(err, berrors.ErrTimeout):
			return nil, inUse(path, "another program")
		default:
			return nil, &writ.Error{
				Code: writ.CodeStore, Err: err, Msg: fmt.Sprintf("cannot open the store %s", path),
				Hint: "check that the file is a writ store and that this user may write it",
			}
		}
	}
}

// Info implements store.Store.
func (s *Store) Info(ctx context.Context) (store.Info, error) {
	if err := s.alive(ctx); err != nil {
		return store.Info{}, err
	}
	info := store.Info{Kind: "bolt", Durability: store.DurabilityCommitted}
	if s.opts.NoSync {
		info.Durability = store.DurabilityBuffered
	}
	return info, nil
}

// Close waits for the commit under way, refuses those that wait with
// store.ErrClosed, and lets the file go. Calling it again does nothing.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		<-s.ended
		s.dbMu.Lock()
		defer s.dbMu.Unlock()
		err = s.db.Close()
		s.owner.release()
	})
	return err
}

// alive refuses work after Close and for callers that have gone.
func (s *Store) alive(ctx context.Context) error {
	select {
	case <-s.closing:
		return store.ErrClosed
	default:
		return ctx.Err()
	}
}

// view runs fn in one short read transaction.
func (s *Store) view(fn func(*bolt.Tx) error) error {
	s.dbMu.RLock()
	defer s.dbMu.RUnlock()
	err := s.db.View(fn)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		select {
		case <-s.closing:
			return store.ErrClosed
		default:
		}
	}
	return err
}

// shard finds the part of a shard that is kept in memory; the first use of a
// shard goes through the writer, which creates or loads it.
func (s *Store) shard(ctx context.Context, name writ.Tenant) (*shard, error) {
	if err := s.alive(ctx); err != nil {
		return nil, err
	}
	if m := s.loaded(name); m != nil {
		return m, nil
	}
	if !name.Valid() {
		return nil, fmt.Errorf("%w: the shard is no tenant", store.ErrInvalid)
	}
	_, err := s.submit(ctx, &request{shard: name, apply: func(*shardTx) (writ.Committed, error) { return writ.Committed{}, nil }})
	return s.loaded(name), err
}

func (s *Store) loaded(name writ.Tenant) *shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[name]
}
