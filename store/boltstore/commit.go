package boltstore

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, shard writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	if err := s.alive(ctx); err != nil {
		return writ.Committed{}, err
	}
	if !shard.Valid() {
		return writ.Committed{}, fmt.Errorf("%w: the shard is no tenant", store.ErrInvalid)
	}
	if err := tx.Check(); err != nil {
		return writ.Committed{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return s.submit(ctx, &request{
		shard: shard, essential: tx.Mandate,
		apply: func(x *shardTx) (writ.Committed, error) { return x.commit(&tx) },
	})
}

// commit checks everything first, so that a refusal has changed nothing.
func (x *shardTx) commit(tx *writ.Tx) (writ.Committed, error) {
	if c, ok := x.call(tx.Call); ok {
		return c, nil
	}
	at := max(x.head.at, x.now)
	for _, g := range tx.Guards {
		if err := x.check(g, at); err != nil {
			return writ.Committed{}, err
		}
	}
	if err := x.checkLimits(tx); err != nil {
		return writ.Committed{}, err
	}

	x.changed = true
	x.head.at = at
	x.head.commits++
	c := writ.Committed{Epoch: x.head.epoch, Seq: -1, At: at}
	if tx.Before != nil {
		x.head.seq++
		x.emit(writ.StoredFact{Fact: *tx.Before, Commit: writ.Committed{Epoch: c.Epoch, Seq: x.head.seq, At: at}})
	}
	if tx.Fact != nil {
		x.head.seq++
		c.Seq = x.head.seq
		if tx.Fact.Run != "" {
			c.RunSeq = x.add(writ.RunSequence(tx.Fact.Run), 1)
		}
		x.emit(writ.StoredFact{Fact: *tx.Fact, Commit: c})
	}
	for _, o := range tx.Ops {
		x.apply(o, c)
	}
	x.remember(tx.Call, c)
	return c, nil
}

// check is one guard at the time the commit would get.
func (x *shardTx) check(g writ.Guard, at int64) error {
	var name, member string
	ok := true
	switch g.Kind {
	case writ.GuardExpect:
		version, _, _ := liveDoc(x.docs.Get([]byte(g.Key)), at)
		name, ok = string(g.Key), version == g.Version
	case writ.GuardRange:
		name, ok = string(g.Index), intOf(x.versions.Get([]byte(g.Index))) == g.Version
	case writ.GuardFree:
		prefix := len(under(g.Index))
		name = string(g.Index)
		scan(x.members, under(g.Index, []byte(g.From)...), under(g.Index, []byte(g.To)...), false, func(k, _ []byte) bool {
			m := string(k[prefix:])
			if g.Except == "" || !strings.HasSuffix(m, " "+g.Except) {
				member, ok = m, false
			}
			return ok
		})
	case writ.GuardWithin:
		v := intOf(x.counters.Get(counterKey(g.Counter)))
		name, ok = g.Counter.Entity+"#"+g.Counter.Field, g.Lo <= v && v <= g.Hi
	case writ.GuardNotAfter:
		ok = at <= g.Hi
	case writ.GuardEpoch:
		if g.From != x.head.epoch {
			return store.ErrFenced
		}
	}
	if !ok {
		return &store.Conflict{Guard: g.Kind, Name: name, Member: member}
	}
	return nil
}

// checkLimits plays the counters' moves through, in order. No counter may
// leave the range every host holds exactly.
func (x *shardTx) checkLimits(tx *writ.Tx) error {
	value := map[writ.Counter]int64{}
	after := func(c writ.Counter, delta int64) int64 {
		v, seen := value[c]
		if !seen {
			v = intOf(x.counters.Get(counterKey(c)))
		}
		value[c] = v + delta
		return v + delta
	}
	if tx.Fact != nil && tx.Fact.Run != "" {
		after(writ.RunSequence(tx.Fact.Run), 1)
	}
	for _, o := range tx.Ops {
		if o.Kind != writ.OpAdd {
			continue
		}
		if v := after(o.Counter, o.Delta); o.HasLimit && v > o.Limit || v > writ.MaxAmount || v < -writ.MaxAmount {
			return &store.Limit{Counter: o.Counter}
		}
	}
	return nil
}

// apply does one operation of a commit that nothing can refuse any more.
func (x *shardTx) apply(o writ.Op, c writ.Committed) {
	switch o.Kind {
	case writ.OpPut:
		expires := int64(0)
		if o.TTLMs > 0 {
			expires = c.At + o.TTLMs
			x.put(x.ttl, append(appendInt(nil, expires), o.Key...), []byte{})
		}
		v := make([]byte, 0, 16+len(o.Body))
		x.put(x.docs, []byte(o.Key), append(appendInt(appendInt(v, c.Version()), expires), o.Body...))
	case writ.OpDelete:
		x.del(x.docs, []byte(o.Key))
	case writ.OpIndex:
		x.index(o.Index, o.Member, o.Score)
	case writ.OpUnindex:
		x.unindex(o)
	case writ.OpAdd:
		x.add(o.Counter, o.Delta)
	case writ.OpPush:
		x.head.entries++
		x.put(x.lanes, under(o.Lane, appendInt(nil, x.head.entries)...), []byte(o.Entry))
		x.pushed = append(x.pushed, entry{lane: o.Lane, number: x.head.entries, text: o.Entry})
	case writ.OpAck:
		if t, ok := x.mem.take(o.Lane, o.ID); ok {
			x.acked = append(x.acked, t)
			x.del(x.lanes, under(o.Lane, appendInt(nil, t.number)...))
		}
	}
}

func (x *shardTx) add(c writ.Counter, delta int64) int64 {
	k := counterKey(c)
	v := intOf(x.counters.Get(k)) + delta
	if v == 0 {
		x.del(x.counters, k)
	} else {
		x.put(x.counters, k, appendInt(nil, v))
	}
	return v
}

func (x *shardTx) index(i writ.Index, member string, score int64) {
	k := under(i, []byte(member)...)
	if old := x.members.Get(k); old != nil {
		if intOf(old) == score {
			return
		}
		x.del(x.scores, scoreKey(i, intOf(old), member))
	}
	x.put(x.members, k, appendInt(nil, score))
	x.put(x.scores, scoreKey(i, score, member), []byte{})
	x.touch(i)
}

func (x *shardTx) unindex(o writ.Op) {
	k := under(o.Index, []byte(o.Member)...)
	old := x.members.Get(k)
	if old == nil || o.IfScore && intOf(old) != o.Score {
		return
	}
	x.del(x.scores, scoreKey(o.Index, intOf(old), o.Member))
	x.del(x.members, k)
	x.touch(o.Index)
}

// touch gives a versioned index that changed the number of this commit, which
// it never had; an empty index has no version.
func (x *shardTx) touch(i writ.Index) {
	if !i.Versioned() {
		return
	}
	if k, _ := x.members.Cursor().Seek(under(i)); bytes.HasPrefix(k, under(i)) {
		x.put(x.versions, []byte(i), appendInt(nil, x.head.commits))
	} else {
		x.del(x.versions, []byte(i))
	}
}

// sweepPage is how many expired documents one group forgets at the most; it
// writes fewer.
const sweepPage = 1024

// forgetExpired removes documents past their end. A key of ttl whose document
// was written again since, or deleted, is only dropped.
func (x *shardTx) forgetExpired() {
	var due [][]byte
	at := max(x.head.at, x.now)
	scan(x.ttl, nil, appendInt(nil, at+1), false, func(k, _ []byte) bool {
		due = append(due, bytes.Clone(k))
		return len(due) < sweepPage
	})
	for _, k := range due {
		if v := x.docs.Get(k[8:]); v != nil && intOf(v[8:]) == intOf(k) {
			x.del(x.docs, k[8:])
		}
		x.del(x.ttl, k)
	}
}

// liveDoc takes a stored document apart; version 0 when it is absent or past
// its end. The body is bbolt's memory.
func liveDoc(v []byte, now int64) (version, expires int64, body []byte) {
	if len(v) < 16 {
		return 0, 0, nil
	}
	version, expires, body = intOf(v), intOf(v[8:]), v[16:]
	if expires != 0 && now >= expires {
		return 0, 0, nil
	}
	return version, expires, body
}
