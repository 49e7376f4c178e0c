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
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// lives knows on which life of which server the shards were opened. A server
// that restarts or is replaced may have lost commits; only its run id and
// replication id tell. Every new connection is asked for them before it is
// used (connections do not outlive their server), so no command reaches
// another life before each shard was opened on it. A shard is open only on the
// history this process knows: one that is as long is not therefore the same.
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
	prefix string // of its keys

	// Guarded by lives.mu.
	known mark   // the last fact known to be committed
	life  string // of the server it was opened on, "" when it must be opened
	fence error  // why it must not be used, as of asked
	asked time.Time
}

// mark is a fact by which a history is told from another one: by its id while it
// is in the outbox, by the epoch it was committed in when it is trimmed. Each
// epoch is one life of one server, which has one history.
type mark struct {
	seq   int64          // -1 for none
	id    writ.ReceiptID // "" when it is not known
	epoch string         // "" when it is not known
}

// tells is how much there is to tell the fact by.
func (m mark) tells() (n int) {
	if m.id != "" {
		n++
	}
	if m.epoch != "" {
		n++
	}
	return n
}

// opened is a shard that may be used. Its commits and trims carry the life, so
// that one on its way over a restart does not run on a server that has lost
// something.
type opened struct {
	*shard
	life  string
	known mark // when it was taken
}

// fenceFor is how long a fence is believed before the server is asked again:
// an operator may have restored what was lost. It is lifted only when the store
// shows that the fact that is known was committed in its history: others may
// have written it on past what it has lost.
const fenceFor = time.Second

// reopenings of a shard that one call puts up with.
const reopenings = 8

var errUnstable = errors.New("the redis server does not stay the same")

// learn notes that a fact is committed. lives.mu is held.
func (sh *shard) learn(m mark) {
	if m.seq > sh.known.seq || m.seq == sh.known.seq && m.tells() > sh.known.tells() {
		sh.known = m
	}
}

// saw notes a fact that was read since the shard was opened, and says whether
// it is open there still. If not, what was read may be of another history.
func (l *lives) saw(sh opened, m mark) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sh.shard.life != sh.life || sh.fence != nil {
		return false
	}
	sh.learn(m)
	return true
}

// acknowledged notes a fact of this process, which counts whatever became of
// the server since: then the shard is opened again, with this fact known.
func (l *lives) acknowledged(sh opened, m mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sh.learn(m)
	if sh.shard.life != sh.life {
		sh.shard.life = ""
	}
}

// found notes what came of opening a shard as it was known then. lives.mu is
// held.
func (sh *shard) found(then shard, life string, last mark, err error) {
	if err == nil && sh.known != then.known && (sh.life != life || sh.fence != nil) {
		sh.life, sh.asked = "", time.Time{} // a fact was acknowledged meanwhile, and must stand there too
		return
	}
	sh.life, sh.fence, sh.asked = life, err, time.Now()
	sh.learn(last)
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
	if err := isMaster(repl.Val()); err != nil {
		return err
	}
	id := field(server.Val(), "run_id") + "/" + field(repl.Val(), "master_replid")

	l.mu.Lock()
	same := l.server == id
	shards, before := make([]*shard, 0, len(l.shards)), make([]shard, 0, len(l.shards))
	for _, sh := range l.shards {
		shards, before = append(shards, sh), append(before, *sh)
	}
	l.mu.Unlock()
	if same {
		return nil
	}
	found, lasts, fences := make([]string, len(shards)), make([]mark, len(shards)), make([]error, len(shards))
	for i, b := range before {
		life, last, err := openOn(ctx, cn, b)
		if err != nil && transient(err) {
			return err
		}
		found[i], lasts[i], fences[i] = life, last, err // one shard's trouble is not the others'
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = id
	l.turn++
	for i, sh := range shards {
		sh.found(before[i], found[i], lasts[i], fences[i])
	}
	return nil
}

// isMaster refuses a server that says it is a replica.
func isMaster(info string) error {
	if field(info, "role") != "master" {
		return writ.Refuse(writ.CodeStore, "redisstore", "the redis server is a replica", "connect to the master")
	}
	return nil
}

// noticed looks at why a command failed: a server that has become a replica
// refuses writes.
func (s *Store) noticed(err error) {
	if redis.IsReadOnlyError(err) {
		s.demoted()
	}
}

// demoted makes no connection outlive the server's time as master: it would go
// on answering reads with what it had then, while others write elsewhere. No
// shard is used before a new connection has found a master and opened it there.
func (s *Store) demoted() {
	s.conns.drop()
	l := &s.lives
	l.mu.Lock()
	defer l.mu.Unlock()
	l.server = ""
	l.turn++
	for _, sh := range l.shards {
		sh.life, sh.asked = "", time.Time{}
	}
}

// open returns a shard that was opened on the present life of the server.
func (l *lives) open(ctx context.Context, s *Store, t writ.Tenant) (opened, error) {
	for range reopenings {
		l.mu.Lock()
		sh := l.shards[t]
		if sh == nil {
			sh = &shard{tenant: t, prefix: s.shardPrefix(t), known: mark{seq: -1}}
			l.shards[t] = sh
		}
		now, turn := *sh, l.turn
		l.mu.Unlock()
		if now.fence != nil && time.Since(now.asked) <= fenceFor {
			return opened{sh, "", now.known}, now.fence
		}
		if now.fence == nil && now.life != "" {
			return opened{sh, now.life, now.known}, nil
		}
		var life string
		var last mark
		err := s.retry(ctx, func(int) (err error) {
			life, last, err = openOn(ctx, s.rdb, now)
			return err
		})
		if err != nil && !errors.Is(err, store.ErrFenced) {
			return opened{}, err
		}
		l.mu.Lock()
		// When the server began another life meanwhile, that opening counts.
		if l.turn == turn {
			sh.found(now, life, last, err)
		}
		l.mu.Unlock()
	}
	return opened{}, errUnstable
}

// openOn runs open.lua and returns the server's life and the shard's last fact.
// It fails with store.ErrFenced when the shard ends before the fact that is
// known, has another one in its place, or does not say which one it had.
func openOn(ctx context.Context, c scripter, sh shard) (life string, last mark, err error) {
	last.seq = -1
	var fresh [8]byte
	_, _ = rand.Read(fresh[:]) // never fails
	v, err := openScript.once(ctx, c, sh.prefix, []any{sh.known.seq, hex.EncodeToString(fresh[:]), string(sh.known.id), sh.known.epoch})
	if err != nil {
		return "", last, err
	}
	r := reply{list: v}
	what, life, _, seq, end := r.str(), r.str(), r.str(), r.int(), r.str()
	switch {
	case r.err != nil:
		return "", last, r.err
	case what == "behind":
		return life, last, lost(sh.tenant, seq, sh.known.seq)
	case what == "unknown":
		return life, last, unknown(sh.tenant, sh.known)
	case what != "ok":
		return life, last, other(sh.tenant, sh.known)
	}
	return life, markAt(seq, end), nil
}

// markAt reads the last fact as the head of a shard names it: "<seq> <id>
// <epoch>". A writer of an earlier version leaves it as it was.
func markAt(seq int64, last string) mark {
	n, fact, _ := strings.Cut(last, " ")
	if n != strconv.FormatInt(seq, 10) {
		return mark{seq: seq}
	}
	id, epoch, _ := strings.Cut(fact, " ")
	return mark{seq, writ.ReceiptID(id), epoch}
}

// fenced marks a shard that answered with less than was known.
func (s *Store) fenced(sh *shard, seq, known int64) error {
	err := lost(sh.tenant, seq, known)
	s.lives.mu.Lock()
	sh.fence, sh.asked = err, time.Now()
	s.lives.mu.Unlock()
	return err
}

// forget makes the next use of a shard open it again, and ask again why it is
// fenced if it is.
func (s *Store) forget(sh *shard) {
	s.lives.mu.Lock()
	sh.life, sh.asked = "", time.Time{}
	s.lives.mu.Unlock()
}

// Recover compares the shard with the ledger when a gateway starts: sequence, id
// and epoch are of the last receipt the ledger holds, -1 and "" for none. It
// refuses, and the shard stays refused, when the store is behind, since sequences
// would be given out a second time, or had another fact there. Once the store is
// restored, Recover lifts the refusal.
func (s *Store) Recover(ctx context.Context, t writ.Tenant, seq int64, id writ.ReceiptID, epoch string) error {
	const op = "redisstore.Recover"
	sh, err := s.shardOf(ctx, op, t)
	if err != nil && !errors.Is(err, store.ErrFenced) {
		return err
	}
	s.lives.mu.Lock()
	if ledger := (mark{seq, id, epoch}); sh.fence != nil {
		sh.learn(ledger)
	} else if seq >= 0 {
		sh.shard.known = ledger // what stands there now says nothing of what the ledger has
	}
	s.lives.mu.Unlock()
	s.forget(sh.shard)
	_, err = s.shardOf(ctx, op, t)
	return err
}

// lost is the error of a shard that is behind what was acknowledged. It is
// fenced until an operator acts.
func lost(t writ.Tenant, seq, known int64) error {
	return &writ.Error{
		Code: writ.CodeStore, Op: "redisstore",
		Msg:  "the store has lost acknowledged commits; the shard is fenced",
		Hint: "stop the redis server, restore its newest append-only file and start it again",
		Err:  fmt.Errorf("%w: shard %s ends at sequence %d, %d was acknowledged", store.ErrFenced, t, seq, known),
	}
}

// other is the error of a shard that has lost acknowledged commits and was
// written to since.
func other(t writ.Tenant, known mark) error {
	return &writ.Error{
		Code: writ.CodeStore, Op: "redisstore",
		Msg:  "the store has lost acknowledged commits and others were written in their place; the shard is fenced",
		Hint: "stop all gateways and the redis server, restore its newest append-only file and start them again",
		Err:  fmt.Errorf("%w: shard %s does not hold the fact %q of epoch %q at sequence %d, which was acknowledged", store.ErrFenced, t, known.id, known.epoch, known.seq),
	}
}

// unknown is the error of a shard that may be the right one and does not show it.
// Only who starts anew can use it: it compares the shard with the ledger.
func unknown(t writ.Tenant, known mark) error {
	return &writ.Error{
		Code: writ.CodeStore, Op: "redisstore",
		Msg:  "the store does not say whether it ever held the newest commit this gateway knows of; the shard is fenced",
		Hint: "make sure that the redis server has its newest append-only file, then restart this gateway",
		Err: fmt.Errorf("%w: shard %s has trimmed sequence %d and forgotten in which epoch it was committed; the fact %q of epoch %q is known",
			store.ErrFenced, t, known.seq, known.id, known.epoch),
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
