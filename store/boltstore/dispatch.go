package boltstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
)

// Lanes implements store.Store.
func (s *Store) Lanes(ctx context.Context, shard writ.Tenant) ([]writ.LaneCount, error) {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return nil, err
	}
	return m.counts(), nil
}

// Receive implements store.Store. There is one process, so who the consumer is
// makes no difference.
func (s *Store) Receive(ctx context.Context, shard writ.Tenant, lanes []writ.Lane, _ string, n int) ([]writ.Delivery, error) {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return nil, err
	}
	return m.receive(lanes, n, s.opts.Now()), nil
}

// GiveBack implements store.Store.
func (s *Store) GiveBack(ctx context.Context, shard writ.Tenant, _ string, d writ.Delivery) error {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return err
	}
	if t, ok := m.take(d.Lane, d.ID); ok {
		m.giveBack([]taken{t})
	}
	return nil
}

// Reclaim implements store.Store.
func (s *Store) Reclaim(ctx context.Context, shard writ.Tenant, idle time.Duration, n int) (int, error) {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return 0, err
	}
	back := m.abandoned(s.opts.Now()-idle.Milliseconds(), n)
	m.giveBack(back)
	return len(back), nil
}

// wakeMax bounds one Wake.
const wakeMax = 2 * time.Second

// Wake implements store.Store. A cursor of another life of the process, or too
// old, gives every lane that has entries now.
func (s *Store) Wake(ctx context.Context, shard writ.Tenant, cursor string, wait time.Duration) (string, []writ.Lane, error) {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return cursor, nil, err
	}
	timer := time.NewTimer(max(min(wait, wakeMax), 0))
	defer timer.Stop()
	for {
		next, lanes, known, more := m.wakes.since(cursor)
		if !known {
			for _, c := range m.counts() {
				lanes = append(lanes, c.Lane)
			}
		}
		if cursor = next; len(lanes) > 0 {
			return cursor, lanes, nil
		}
		if again, err := s.await(ctx, more, timer.C); !again {
			return cursor, nil, err
		}
	}
}

// wakeLog remembers the last lanes that got entries. A cursor is
// "<instance>.<how many before>".
type wakeLog struct {
	more     signal
	instance uint64

	mu     sync.Mutex
	before int64 // how many were forgotten
	lanes  []writ.Lane
}

const wakeKeep = 4096

func (l *wakeLog) add(entries []entry) {
	l.mu.Lock()
	for _, e := range entries {
		l.lanes = append(l.lanes, e.lane)
	}
	if forget := len(l.lanes) - wakeKeep; forget >= wakeKeep {
		l.lanes = append(l.lanes[:0], l.lanes[forget:]...)
		l.before += int64(forget)
	}
	l.mu.Unlock()
	l.more.broadcast()
}

// since lists the lanes after the cursor, each once. known is false for a
// cursor it cannot place; more is closed by the next add.
func (l *wakeLog) since(cursor string) (next string, lanes []writ.Lane, known bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	more = l.more.next()
	next = fmt.Sprintf("%x.%d", l.instance, l.before+int64(len(l.lanes)))
	if cursor == "" {
		return next, nil, true, more
	}
	instance, count, _ := strings.Cut(cursor, ".")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || instance != strconv.FormatUint(l.instance, 16) || n < l.before || n > l.before+int64(len(l.lanes)) {
		return next, nil, false, more
	}
	lanes = slices.Clone(l.lanes[n-l.before:])
	slices.Sort(lanes)
	return next, slices.Compact(lanes), true, more
}

// signal wakes everybody who waits, again and again.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next is closed by the next broadcast.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) broadcast() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
