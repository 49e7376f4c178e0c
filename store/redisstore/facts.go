package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// factFields name what an outbox entry holds: id, run, key id, head, tail,
// evidence. The script adds n (number in the run), a (at) and p (epoch).
var factFields = [6]string{"i", "r", "k", "h", "t", "e"}

// foreignFields are what one of a foreign fact holds instead: id, run, key id, payload,
// signature, public key. A program that knows none finds no head and stops there.
var foreignFields = [6]string{"i", "r", "k", "f", "s", "y"}

// partsOf are what a fact holds, in the order of its fields.
func partsOf(f *writ.Fact) (fields [6]string, parts [6]any) {
	if f.Foreign() {
		return foreignFields, [6]any{string(f.ID), string(f.Run), f.KeyID, f.Head, f.Sig, f.Public}
	}
	return factFields, [6]any{string(f.ID), string(f.Run), f.KeyID, f.Head, f.Tail, f.Evidence}
}

// Facts implements store.Store. It fails when a fact is missing that was not
// trimmed, rather than skip it.
func (s *Store) Facts(ctx context.Context, t writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error) {
	const op = "redisstore.Facts"
	if after < -1 {
		after = -1
	}
	end := time.Now().Add(wait)
	for {
		sh, err := s.shardOf(ctx, op, t)
		if err != nil || n <= 0 {
			return nil, err
		}
		left := time.Until(end)
		got, err := s.follow(ctx, sh.prefix+":o", outboxID(after), n, min(left, maxBlock))
		if err != nil {
			return nil, s.fault(op, err)
		}
		if len(got) == 0 && left > maxBlock {
			continue
		}
		if len(got) == 0 {
			return nil, nil
		}
		want := after + 1
		if first := place(got[0].ID) - 1; first != want {
			h, err := s.Head(ctx, t)
			if err != nil {
				return nil, err
			}
			if first <= h.Trimmed+1 {
				want = first
			}
		}
		facts := make([]writ.StoredFact, 0, len(got))
		for i, m := range got {
			f, err := decodeFact(m)
			if err == nil && f.Commit.Seq != want+int64(i) {
				err = fmt.Errorf("fact %d is missing in the outbox", want+int64(i))
			}
			if err != nil {
				return nil, s.fault(op, err)
			}
			facts = append(facts, f)
		}
		end := facts[len(facts)-1]
		if s.lives.saw(sh, mark{end.Commit.Seq, end.ID, end.Commit.Epoch}) {
			return facts, nil
		}
	}
}

func outboxID(seq int64) string { return strconv.FormatInt(seq+1, 10) + "-0" }

func decodeFact(m redis.XMessage) (writ.StoredFact, error) {
	var bad bool
	text := func(name string) string {
		v, ok := m.Values[name].(string)
		bad = bad || !ok
		return v
	}
	num := func(name string) int64 {
		n, err := strconv.ParseInt(text(name), 10, 64)
		bad = bad || err != nil
		return n
	}
	raw := func(name string) []byte {
		if v := text(name); v != "" {
			return []byte(v)
		}
		return nil
	}
	f := writ.StoredFact{
		Fact:   writ.Fact{ID: writ.ReceiptID(text("i")), Run: writ.RunID(text("r")), KeyID: text("k")},
		Commit: writ.Committed{Epoch: text("p"), Seq: place(m.ID) - 1, RunSeq: num("n"), At: num("a")},
	}
	if _, foreign := m.Values[foreignFields[5]]; foreign {
		f.Head, f.Sig, f.Public = raw("f"), raw("s"), raw("y")
	} else {
		f.Head, f.Tail, f.Evidence = raw("h"), raw("t"), raw("e")
	}
	if bad {
		return f, errReply
	}
	return f, nil
}

// trimStep bounds how long one trimming script holds the server.
const trimStep = 5000

// Trim implements store.Store.
func (s *Store) Trim(ctx context.Context, t writ.Tenant, upto int64) error {
	const op = "redisstore.Trim"
	unopened := 0
	for unopened < reopenings {
		sh, err := s.shardOf(ctx, op, t)
		if err != nil {
			return err
		}
		v, err := s.run(ctx, trimScript, sh.prefix, func(int) []any { return []any{clamp(upto), trimStep, sh.life} })
		if err != nil {
			return s.fault(op, err)
		}
		r := reply{list: v}
		switch more := r.int(); {
		case more == 0 || r.err != nil:
			return s.fault(op, r.err)
		case more < 0:
			s.forget(sh.shard) // the server has begun another life: open it again, or be fenced
			unopened++
		}
	}
	return s.fault(op, errUnstable)
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, t writ.Tenant) (store.Head, error) {
	const op = "redisstore.Head"
	for range reopenings {
		sh, err := s.shardOf(ctx, op, t)
		if err != nil {
			return store.Head{}, err
		}
		var fields []any
		err = s.retry(ctx, func(int) (err error) {
			fields, err = s.rdb.HMGet(ctx, sh.prefix+":h", "epoch", "seq", "trimmed", "at", "last").Result()
			return err
		})
		if err != nil {
			return store.Head{}, s.fault(op, err)
		}
		r := reply{list: fields}
		h := store.Head{Epoch: r.str(), Seq: r.int(), Trimmed: r.int(), At: r.int()}
		h.Backlog = h.Seq - h.Trimmed
		last := r.str()
		if h.Epoch == "" { // emptied under our feet
			h.Seq, r.err = -1, errUnstable
		}
		if h.Seq < sh.known.seq {
			r.err = s.fenced(sh.shard, h.Seq, sh.known.seq)
		}
		if r.err != nil || s.lives.saw(sh, markAt(h.Seq, last)) {
			return h, s.fault(op, r.err)
		}
	}
	return store.Head{}, s.fault(op, errUnstable)
}
