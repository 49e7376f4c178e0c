package boltstore

import (
	"crypto/rand"
	"encoding/hex"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
)

// group is one bbolt transaction over everything a batch does. Its first
// unexpected error sticks in err and dooms it: nothing of it is committed.
type group struct {
	store  *Store
	tx     *bolt.Tx
	now    int64
	shards map[writ.Tenant]*shardTx
	dirty  bool
	err    error
}

// shardTx is a group's hold on one shard.
type shardTx struct {
	*group
	buckets
	head head
	mem  *shard
	ring *bolt.Bucket // of facts, the one written last
	nth  int64        // which that is

	changed bool    // the head must be written
	pushed  []entry // join their lanes in memory when the group is on disk
	acked   []taken // left the lanes; go back when the group fails
	facts   bool    // some were added
}

func (g *group) must(err error) {
	if g.err == nil {
		g.err = err
	}
}

func (g *group) put(b *bolt.Bucket, k, v []byte) { g.must(b.Put(k, v)) }
func (g *group) del(b *bolt.Bucket, k []byte)    { g.must(b.Delete(k)) }

// shard opens a shard for the group, creating it when it is new and reading
// its lanes when this process has not used it yet.
func (g *group) shard(name writ.Tenant) *shardTx {
	if x := g.shards[name]; x != nil {
		return x
	}
	x := &shardTx{group: g, mem: g.store.loaded(name), nth: -1}
	var err error
	if x.buckets = bucketsOf(g.tx, name); x.root == nil {
		x.buckets, err = createBuckets(g.tx, name)
		x.head = head{seq: -1, trimmed: -1, callsSince: g.now, epoch: newEpoch()}
		x.changed = true
	} else {
		x.head, err = decodeHead(x.root.Get(keyHead))
	}
	if g.must(err); g.err != nil {
		return nil
	}
	if x.mem == nil {
		x.mem = newShard()
		x.mem.load(x.buckets)
	}
	g.shards[name] = x
	return x
}

// newEpoch names a life of a shard. Nothing acknowledged is ever lost here, so
// a shard keeps its first.
func newEpoch() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "1." + hex.EncodeToString(b[:])
}

// finish writes what the commits of the group changed together.
func (g *group) finish() {
	for _, x := range g.shards {
		if !x.changed {
			continue
		}
		x.forgetExpired()
		x.put(x.root, keyHead, x.head.encode())
		g.dirty = true
	}
}

// undo puts back what the group took from memory.
func (g *group) undo() {
	for _, x := range g.shards {
		x.mem.putBack(x.acked)
	}
}

// publish shows the group, now on disk, to those who read from memory.
func (g *group) publish() {
	for name, x := range g.shards {
		x.mem.push(x.pushed)
		if x.facts {
			x.mem.facts.broadcast()
		}
		g.store.mu.Lock()
		g.store.shards[name] = x.mem
		g.store.mu.Unlock()
	}
}
