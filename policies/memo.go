package policies

import (
	linked "container/list"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/writ-gateway/writ"
)

const (
	// memoEntries bounds what is remembered for one pack.
	memoEntries = 1024
	// memoKey bounds one key, so that callers cannot fill the memory: what is
	// longer is not remembered.
	memoKey = 2 << 10

	memoShards = 8
)

// memo remembers what one pack found, by the part of the input the pack reads.
// It belongs to compiled rules and goes with them. What it holds was the answer
// of an evaluation: an error, or no answer, is never remembered. The least
// recently used entries make room.
type memo struct {
	seed   maphash.Seed
	shards [memoShards]memoShard
}

// memoShard is a part of a memo under its own lock.
type memoShard struct {
	mu    sync.Mutex
	by    map[string]*linked.Element // by the whole key, never by a digest of it alone
	order linked.List                // of *remembered, last used first
}

type remembered struct {
	key   string
	found []writ.Finding
}

func newMemo() *memo { return &memo{seed: maphash.MakeSeed()} }

func (m *memo) shard(key []byte) *memoShard {
	return &m.shards[maphash.Bytes(m.seed, key)%memoShards]
}

// get is what was found for a key. It is shared and must not be changed.
func (m *memo) get(key []byte) ([]writ.Finding, bool) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.by[string(key)]
	if e == nil {
		return nil, false
	}
	s.order.MoveToFront(e)
	return e.Value.(*remembered).found, true
}

// put remembers what was found for a key.
func (m *memo) put(key []byte, found []writ.Finding) {
	if len(key) > memoKey {
		return
	}
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[string(key)] != nil {
		return // another call was first, with the same answer
	}
	if s.by == nil {
		s.by = map[string]*linked.Element{}
	}
	if len(s.by) >= memoEntries/memoShards {
		delete(s.by, s.order.Remove(s.order.Back()).(*remembered).key)
	}
	r := &remembered{string(key), found}
	s.by[r.key] = s.order.PushFront(r)
}

// MemoCount is how often packs were not evaluated because what they read had
// not changed, and how often they were although it could have been so.
type MemoCount struct {
	hits, misses atomic.Int64
}

// Hits and Misses count packs, not calls: each call asks several.
func (c *MemoCount) Hits() int64   { return c.hits.Load() }
func (c *MemoCount) Misses() int64 { return c.misses.Load() }

func (c *MemoCount) add(hits, misses int) {
	if hits > 0 {
		c.hits.Add(int64(hits))
	}
	if misses > 0 {
		c.misses.Add(int64(misses))
	}
}
