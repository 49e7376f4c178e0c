package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// lives knows on which life of which server the shards were opened. A server
// that restarts or is replaced may have lost commits; only its run id and
// replication id tell. Every new connection is asked for them before it is
// used (connections do not outlive their server), so no command reaches
// another life before each shard was opened on it.
type lives struct {
	connecting sync.Mutex // one new connection at a time asks and opens

	mu     sync.Mutex
	server string // "<run id>/<replication id>"
	turn   int    // counts the lives
	shards map[writ.Tenant]*shard
}

// shard is what this process knows of one shard.
type shard struct {
	tenant writ.Tenant
	prefix string       // of its keys
	seen   atomic.Int64 // highest sequence seen committed, -1 for none

	// Guarded by lives.mu.
	life  string // of the server it was opened on, "" when it must be opened
	fence error  // why it must not be used, as of asked
	asked time.Time
}

// opened is a shard that may be used. Its commits carry the life, so that one
// on its way over a restart does not run on a server that has lost something.
type opened struct {
	*shard
	life string
}

// fenceFor is how long a fence is believed before the server is asked again:
// an operator may have restored what was lost.
const fenceFor = time.Second

// reopenings of a shard that one call puts up with.
const reopenings = 8

var errUnstable = errors.New("the redis server does not stay the same")

// saw notes that a sequence is committed.
func (sh *shard) saw(seq int64) {
	for {
		old := sh.seen.Load()
		if seq <= old || sh.seen.CompareAndSwap(old, seq) {
			return
		}
	}
}

// connected is called with every new connection before its first use.
func (s *Store) connected(ctx context.Context, cn *redis.Conn) error {
	l := &s.lives
	l.connecting.Lock()
	defer l.connecting.Unlock()
	var server, repl *redis.StringCmd
	if _, err := cn.Pipelined(ctx, func(p redis.Pipeliner) error {
		server, repl = p.Info(ctx, "server"), p.Info(ctx, "replication")
		return nil
	}); err != nil {
		return err
	}
	if field(repl.Val(), "role") != "master" {
		return writ.Refuse(writ.CodeStore, "redisstore.Open", "the redis server is a replica", "connect to the master")
	}
	id := field(server.Val(), "run_id") + "/" + field(repl.Val(), "master_replid")

	l.mu.Lock()
	same := l.server == id
	known := make([]*shard, 0, len(l.shards))
	for _, sh := range l.shards {
		known = append(known, sh)
	}
	l.mu.Unlock()
	if same {
		return nil
	}
	found, fences := make([]string, len(known)), make([]error, len(known))
	for i, sh := range known {
		life, _, err := openOn(ctx, cn, sh, sh.seen.Load())
		if err != nil && transient(err) {
			return err
		}
		found[i], fences[i] = life, err // one shard's trouble is not the others'
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = id
	l.turn++
	for i, sh := range known {
		sh.life, sh.fence, sh.asked = found[i], fences[i], time.Now()
	}
	return nil
}

// open returns a shard that was opened on the present life of the server.
func (l *lives) open(ctx context.Context, s *Store, t writ.Tenant) (opened, error) {
	for range reopenings {
		l.mu.Lock()
		sh := l.shards[t]
		if sh == nil {
			sh = &shard{tenant: t, prefix: s.shardPrefix(t)}
			sh.seen.Store(-1)
			l.shards[t] = sh
		}
		life, fence, turn := sh.life, sh.fence, l.turn
		stale := time.Since(sh.asked) > fenceFor
		l.mu.Unlock()
		if fence != nil && !stale {
			return opened{sh, ""}, fence
		}
		if fence == nil && life != "" {
			return opened{sh, life}, nil
		}
		seq, known := int64(-1), sh.seen.Load()
		err := s.retry(ctx, func(int) (err error) {
			life, seq, err = openOn(ctx, s.rdb, sh, known)
			return err
		})
		if err != nil && !errors.Is(err, store.ErrFenced) {
			return opened{}, err
		}
		l.mu.Lock()
		// When the server began another life meanwhile, that opening counts.
		if l.turn == turn {
			sh.life, sh.fence, sh.asked = life, err, time.Now()
			sh.saw(seq)
		}
		l.mu.Unlock()
	}
	return opened{}, errUnstable
}

// openOn runs open.lua and returns the server's life and the shard's last
// sequence. It fails with store.ErrFenced when that is below known.
func openOn(ctx context.Context, c scripter, sh *shard, known int64) (life string, seq int64, err error) {
	var fresh [8]byte
	_, _ = rand.Read(fresh[:]) // never fails
	v, err := openScript.once(ctx, c, sh.prefix, []any{known, hex.EncodeToString(fresh[:])})
	if err != nil {
		return "", -1, err
	}
	r := reply{list: v}
	what, life, _, seq := r.str(), r.str(), r.str(), r.int()
	if r.err != nil {
		return "", -1, r.err
	}
	if what != "ok" {
		return life, -1, lost(sh, seq, known)
	}
	return life, seq, nil
}

// fenced marks a shard that answered with less than was known.
func (s *Store) fenced(sh *shard, seq, known int64) error {
	err := lost(sh, seq, known)
	s.lives.mu.Lock()
	sh.fence, sh.asked = err, time.Now()
	s.lives.mu.Unlock()
	return err
}

// forget makes the next use of a shard open it again.
func (s *Store) forget(sh *shard) {
	s.lives.mu.Lock()
	sh.life, sh.fence = "", nil
	s.lives.mu.Unlock()
}

// Recover compares the shard with the ledger when a gateway starts: ledgerSeq
// is the highest sequence the ledger holds, -1 for none. It refuses, and the
// shard stays refused, when the store is behind: sequences would be given out
// a second time. Once the store is restored, Recover lifts the refusal.
func (s *Store) Recover(ctx context.Context, t writ.Tenant, ledgerSeq int64) error {
	const op = "redisstore.Recover"
	sh, err := s.shardOf(ctx, op, t)
	if err != nil && !errors.Is(err, store.ErrFenced) {
		return err
	}
	sh.saw(ledgerSeq)
	s.forget(sh.shard)
	_, err = s.shardOf(ctx, op, t)
	return err
}

// lost is the error of a shard that is behind what was acknowledged. It is
// fenced until an operator acts.
func lost(sh *shard, seq, known int64) error {
	return &writ.Error{
		Code: writ.CodeStore, Op: "redisstore",
		Msg:  "the store has lost acknowledged commits; the shard is fenced",
		Hint: "stop the redis server, restore its newest append-only file and start it again",
		Err:  fmt.Errorf("%w: shard %s ends at sequence %d, %d was acknowledged", store.ErrFenced, sh.tenant, seq, known),
	}
}

// field is a value from the answer to INFO.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func number(info, name string) int64 {
	n, _ := strconv.ParseInt(field(info, name), 10, 64)
	return n
}
