package redisstore

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var errVoid = errors.New("this attempt was given up")

// attempts numbers commits, rising also over restarts: after a refusal a
// script ignores late arrivals of attempts up to that one.
var attempts atomic.Int64

func nextAttempt() int64 {
	for {
		old := attempts.Load()
		n := max(old+1, time.Now().UnixMicro())
		if attempts.CompareAndSwap(old, n) {
			return n
		}
	}
}

// Commit implements store.Store. When the outcome of a try is unknown it tries
// again, under the same call id and twice at most.
func (s *Store) Commit(ctx context.Context, t writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	const op = "redisstore.Commit"
	none := writ.Committed{}
	if err := check(&tx); err != nil {
		return none, err
	}
	for range reopenings {
		sh, err := s.shardOf(ctx, op, t)
		if err != nil {
			return none, err
		}
		v, err := s.send(ctx, sh, &tx)
		if err != nil {
			return none, s.fault(op, err)
		}
		r := reply{list: v}
		switch what := r.str(); what {
		case "done", "again":
			c := writ.Committed{Seq: r.int(), RunSeq: r.int(), At: r.int(), Epoch: r.str()}
			if r.err != nil {
				return none, s.fault(op, r.err)
			}
			if what == "done" && tx.Fact != nil && c.Seq <= sh.known.seq {
				return none, s.fault(op, s.fenced(sh.shard, c.Seq, sh.known.seq))
			}
			m := mark{seq: c.Seq, epoch: c.Epoch}
			if what == "done" && tx.Fact != nil { // the first time it may have had another id
				m.id = tx.Fact.ID
			}
			s.lives.acknowledged(sh, m)
			return c, nil
		case "guard":
			i, member := r.int(), r.str()
			if r.err != nil || i < 0 || i >= int64(len(tx.Guards)) {
				return none, s.fault(op, errReply)
			}
			return none, conflict(tx.Guards[i], member)
		case "limit":
			i := r.int()
			if r.err != nil || i < 0 || i >= int64(len(tx.Ops)) {
				return none, s.fault(op, errReply)
			}
			return none, &store.Limit{Counter: tx.Ops[i].Counter}
		case "unopened":
			s.forget(sh.shard) // the server has begun another life: open it again, or be fenced
		case "void":
			return none, s.fault(op, errVoid)
		default:
			return none, s.fault(op, errReply)
		}
	}
	return none, s.fault(op, errUnstable)
}

func (s *Store) send(ctx context.Context, sh opened, tx *writ.Tx) ([]any, error) {
	sc := commitScript
	if tx.Mandate {
		sc = mandateScript
	}
	args := encode(tx, sh.life)
	f := func(try int) []any {
		if try > 0 {
			args[2] = "1"
		}
		return args
	}
	if tx.Call == "" {
		v, err := sc.once(ctx, s.rdb, sh.prefix, args) // nothing would tell a repetition
		s.noticed(err)
		return v, err
	}
	return s.run(ctx, sc, sh.prefix, f)
}

// check refuses what the script must not see.
func check(tx *writ.Tx) error {
	if err := tx.Check(); err != nil {
		return invalid("%v", err)
	}
	if tx.Call != "" && !writ.ValidName(string(tx.Call)) {
		return invalid("the call id is not allowed")
	}
	if tx.Fact != nil && tx.Fact.Run != "" && !writ.ValidName(writ.RunSequence(tx.Fact.Run).Entity) {
		return invalid("the fact's run id is not allowed")
	}
	return nil
}

func conflict(g writ.Guard, member string) error {
	c := &store.Conflict{Guard: g.Kind, Member: member}
	switch g.Kind {
	case writ.GuardEpoch:
		return store.ErrFenced
	case writ.GuardExpect:
		c.Name = string(g.Key)
	case writ.GuardRange, writ.GuardFree:
		c.Name = string(g.Index)
	case writ.GuardWithin:
		c.Name = g.Counter.Entity + "#" + g.Counter.Field
	case writ.GuardNotAfter:
	}
	return c
}

// clamp brings a bound into what a script computes exactly. Counters and
// times lie within, so no comparison changes.
func clamp(n int64) string {
	const far = 4 * writ.MaxAmount
	return strconv.FormatInt(min(max(n, -far), far), 10)
}

var entryID = regexp.MustCompile(`^[0-9]{1,18}-[0-9]{1,18}$`)

// encode makes the arguments of commit.lua.
func encode(tx *writ.Tx, life string) []any {
	args := make([]any, 0, 7+14+5*(len(tx.Guards)+len(tx.Ops)))
	add := func(a ...any) { args = append(args, a...) }
	addFact := func(f *writ.Fact) {
		fields, parts := partsOf(f)
		for i := range fields {
			add(fields[i], parts[i])
		}
	}
	add(string(tx.Call), nextAttempt(), "", len(tx.Guards), len(tx.Ops), life)
	if f := tx.Fact; f == nil {
		add(0)
	} else {
		var series writ.Counter
		if f.Run != "" {
			series = writ.RunSequence(f.Run)
		}
		add(2 + 2*len(factFields))
		add(series.Entity, series.Field)
		addFact(f)
	}
	for _, g := range tx.Guards {
		switch g.Kind {
		case writ.GuardExpect:
			kind := "expect"
			if writes(tx, g.Key) {
				kind = "own"
			}
			add(kind, string(g.Key), g.Version)
		case writ.GuardRange:
			add("range", string(g.Index), g.Version)
		case writ.GuardFree:
			add("free", string(g.Index), g.From, g.To, g.Except)
		case writ.GuardWithin:
			add("within", g.Counter.Entity, g.Counter.Field, clamp(g.Lo), clamp(g.Hi))
		case writ.GuardNotAfter:
			add("before", clamp(g.Hi))
		case writ.GuardEpoch:
			add("epoch", g.From)
		}
	}
	for _, o := range tx.Ops {
		switch o.Kind {
		case writ.OpPut:
			ttl := ""
			if o.TTLMs > 0 {
				ttl = strconv.FormatInt(min(o.TTLMs, writ.MaxAmount), 10)
			}
			add("put", string(o.Key), o.Body, ttl)
		case writ.OpDelete:
			add("del", string(o.Key))
		case writ.OpIndex:
			add("set", string(o.Index), o.Member, o.Score)
		case writ.OpUnindex:
			score := ""
			if o.IfScore {
				score = strconv.FormatInt(o.Score, 10)
			}
			add("rem", string(o.Index), o.Member, score)
		case writ.OpAdd:
			limit := ""
			if o.HasLimit {
				limit = clamp(o.Limit)
			}
			add("add", o.Counter.Entity, o.Counter.Field, o.Delta, limit)
		case writ.OpPush:
			add("push", string(o.Lane), o.Entry)
		case writ.OpAck:
			id := o.ID
			if !entryID.MatchString(id) {
				id = "0-0" // no entry has it
			}
			add("ack", string(o.Lane), id)
		}
	}
	if tx.Before != nil {
		addFact(tx.Before)
	}
	return args
}

// writes says whether the transaction puts or deletes a document.
func writes(tx *writ.Tx, k writ.Key) bool {
	return slices.ContainsFunc(tx.Ops, func(o writ.Op) bool {
		return (o.Kind == writ.OpPut || o.Kind == writ.OpDelete) && o.Key == k
	})
}
