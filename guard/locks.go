package guard

import (
	"context"
	"slices"
	"sync"

	"github.com/writ-gateway/writ"
)

// locks are FIFO locks by document, so that callers of one replica who will
// write the same document queue here instead of conflicting in the store. Every
// commit holds the locks of the documents it writes; a call that found one
// taken, or met a conflict, takes it before it reads again, and then nobody of
// this replica can change the document under it. They are a courtesy, never
// what correctness rests on: the commit's guards are.
type locks struct {
	mu sync.Mutex
	m  map[writ.Key][]chan struct{} // holder first, then waiters in order
}

// acquire takes every key, in sorted order so that no two callers wait on each
// other, and returns the function that gives them back.
func (l *locks) acquire(ctx context.Context, keys []writ.Key) (func(), error) {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for i, k := range keys {
		if err := l.take(ctx, k); err != nil {
			l.release(keys[:i])
			return nil, err
		}
	}
	return func() { l.release(keys) }, nil
}

// try takes every key that is free at this moment, or none: then it names one
// that was taken.
func (l *locks) try(keys []writ.Key) (release func(), taken writ.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		if len(l.m[k]) > 0 {
			return nil, k
		}
	}
	if l.m == nil {
		l.m = map[writ.Key][]chan struct{}{}
	}
	for _, k := range keys {
		l.m[k] = []chan struct{}{make(chan struct{})}
	}
	return func() { l.release(keys) }, ""
}

func (l *locks) take(ctx context.Context, k writ.Key) error {
	l.mu.Lock()
	if l.m == nil {
		l.m = map[writ.Key][]chan struct{}{}
	}
	ready := make(chan struct{})
	l.m[k] = append(l.m[k], ready)
	if len(l.m[k]) == 1 {
		close(ready)
	}
	l.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		l.drop(k, ready)
		return ctx.Err()
	}
}

func (l *locks) release(keys []writ.Key) {
	for _, k := range keys {
		l.mu.Lock()
		q := l.m[k]
		l.mu.Unlock()
		l.drop(k, q[0])
	}
}

// drop takes one place out of the queue and wakes the new head if there is one.
func (l *locks) drop(k writ.Key, ready chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.m[k]
	i := slices.Index(q, ready)
	q = slices.Delete(slices.Clone(q), i, i+1)
	if len(q) == 0 {
		delete(l.m, k)
		return
	}
	l.m[k] = q
	if i == 0 {
		close(q[0])
	}
}
