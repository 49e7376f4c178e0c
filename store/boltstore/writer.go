package boltstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// maxGroup bounds the requests of one bbolt transaction, and with them its
// memory (256 KiB each at the most).
const maxGroup = 256

// request is one thing to do in the next group. apply either refuses with an
// error and changes nothing, or does all of it.
type request struct {
	ctx       context.Context
	shard     writ.Tenant
	essential bool // must go on when there is no space: it is tried again alone
	apply     func(*shardTx) (writ.Committed, error)
	reply     chan result // of one element: the writer never waits
}

type result struct {
	committed writ.Committed
	err       error
}

// submit queues a request and waits for its group to be on disk. When the
// context ends first, the outcome is unknown.
func (s *Store) submit(ctx context.Context, r *request) (writ.Committed, error) {
	r.ctx, r.reply = ctx, make(chan result, 1)
	select {
	case s.queue <- r:
	case <-s.closing:
		return writ.Committed{}, store.ErrClosed
	case <-ctx.Done():
		return writ.Committed{}, ctx.Err()
	}
	select {
	case res := <-r.reply:
		return res.committed, res.err
	case <-ctx.Done():
		return writ.Committed{}, ctx.Err()
	case <-s.ended:
	}
	select {
	case res := <-r.reply: // served just before the end
		return res.committed, res.err
	default:
		return writ.Committed{}, store.ErrClosed
	}
}

// write is the one writer. It ends when the store is closed.
func (s *Store) write() {
	defer close(s.ended)
	for {
		select {
		case <-s.closing:
			return
		case r := <-s.queue:
			batch := []*request{r}
			for more := true; more && len(batch) < maxGroup; {
				select {
				case r := <-s.queue:
					batch = append(batch, r)
				default:
					more = false
				}
			}
			s.serve(batch)
		}
	}
}

// serve does a batch and answers every request of it.
func (s *Store) serve(batch []*request) {
	for len(batch) > 0 {
		culprit, err := s.group(batch)
		if err == nil {
			return
		}
		var failed []*request
		switch {
		case culprit != nil: // the others have nothing to do with it
			failed = []*request{culprit}
		case errors.Is(err, store.ErrFull) && slices.ContainsFunc(batch, isEssential) && slices.ContainsFunc(batch, isOrdinary):
			failed = slices.DeleteFunc(slices.Clone(batch), isEssential)
		default:
			failed = batch
		}
		for _, r := range failed {
			r.reply <- result{err: err}
		}
		batch = slices.DeleteFunc(slices.Clone(batch), func(r *request) bool { return slices.Contains(failed, r) })
	}
}

func isEssential(r *request) bool { return r.essential }
func isOrdinary(r *request) bool  { return !r.essential }

// group runs the requests in one bbolt transaction, in order, each seeing what
// those before it did. It syncs once, then publishes the changes to readers in
// memory, then answers. On an error nobody was answered and nothing is changed,
// unless the error says that the outcome is unknown; culprit is the request to
// blame, when there is one.
func (s *Store) group(batch []*request) (culprit *request, err error) {
	tx, err := s.begin()
	if err != nil {
		return nil, err
	}
	g := &group{store: s, tx: tx, now: s.opts.Now(), shards: map[writ.Tenant]*shardTx{}}
	results := make([]result, len(batch))
	for i, r := range batch {
		if err := r.ctx.Err(); err != nil {
			results[i].err = err
			continue
		}
		x := g.shard(r.shard)
		if g.err == nil {
			results[i].committed, results[i].err = r.apply(x)
		}
		if g.err != nil {
			g.undo()
			_ = tx.Rollback()
			return r, fmt.Errorf("boltstore: %w", g.err)
		}
	}
	if g.finish(); g.err != nil {
		g.undo()
		_ = tx.Rollback()
		return nil, fmt.Errorf("boltstore: %w", g.err)
	}
	id := tx.ID()
	if !g.dirty {
		_ = tx.Rollback()
	} else if err := tx.Commit(); err != nil {
		g.undo()
		return nil, s.failed(id, err)
	}
	g.publish()
	for i, r := range batch {
		r.reply <- results[i]
	}
	return nil, nil
}

// begin starts a write transaction, opening the file again when a failed
// commit left it unusable.
func (s *Store) begin() (*bolt.Tx, error) {
	if tx, err := s.db.Begin(true); err == nil {
		return tx, nil
	}
	if err := s.reopen(); err != nil {
		return nil, fmt.Errorf("boltstore: %w", err)
	}
	return s.db.Begin(true)
}

// reopen closes and opens the file and reads the lanes again. The owner file
// stays locked meanwhile.
func (s *Store) reopen() error {
	s.dbMu.Lock()
	_ = s.db.Close() // it is of no use any more
	db, err := openFile(s.path, s.opts)
	if err == nil {
		s.db = db
	}
	s.dbMu.Unlock()
	if err != nil {
		return err
	}
	return s.reload()
}

// reload reads the lanes of every shard again.
func (s *Store) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view(func(tx *bolt.Tx) error {
		for name, m := range s.shards {
			m.load(bucketsOf(tx, name))
		}
		return nil
	})
}

// failed says what became of a transaction that bbolt could not commit. bbolt
// rolls back, so normally nothing is changed. Only when the sync of the very
// last page failed is the transaction there for readers, and nobody can say
// whether it is on disk: the lanes are then read again from the file.
func (s *Store) failed(id int, cause error) error {
	var last int
	seen := func(tx *bolt.Tx) error { last = tx.ID(); return nil }
	err := s.view(seen)
	if err != nil {
		if err = s.reopen(); err == nil {
			err = s.view(seen)
		}
	}
	switch {
	case err == nil && last < id && outOfSpace(cause):
		return fmt.Errorf("%w: %w", store.ErrFull, cause)
	case err == nil && last < id:
		return fmt.Errorf("boltstore: nothing was committed: %w", cause)
	case err == nil:
		err = s.reload()
	}
	return fmt.Errorf("boltstore: it is unknown whether the commit is on disk: %w", errors.Join(cause, err))
}

// outOfSpace recognises a full disk, quota or file size limit, the system's or
// bbolt's own. bbolt wraps some of these as text only.
func outOfSpace(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) {
		return true
	}
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}
