package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// The names random operations use: few, so that operations meet.
var (
	genDocs     = []writ.Key{"gate", "doc/a", "doc/b", "doc/c", "doc/d", "doc/e", "task/1", "task/2"}
	genCounters = []writ.Counter{{Entity: "run/a", Field: "open"}, {Entity: "run/a", Field: "steps"}, {Entity: "run/b", Field: "open"}, {Entity: "x", Field: "y"}}
	genLexical  = []writ.Index{"list/x", "v/held", "scope/x"} // one score only
	genScored   = []writ.Index{"due/x", "due/y", "v/waiting"}
	genIndexes  = append(slices.Clone(genLexical), genScored...)
	genMembers  = []string{"a", "b", "b tsk_1", "b tsk_2", "c/d tsk_1", "z", "\x00\xff", "ä"}
	genLanes    = []writ.Lane{"9/a.b/c", "5/a.b/c", "5/a.b/c/@agent", "0/x.y/z"}
	genRuns     = []writ.RunID{"", "", "run_a", "run_b"}
	genBounds   = []string{"", "a", "b", "b tsk_1", "b\x00", "c", "\xff"}
)

func pick[T any](d *differential, from []T) T { return from[d.rng.IntN(len(from))] }

func (d *differential) lexicalOrScored() (writ.Index, int64) {
	if d.rng.IntN(2) == 0 {
		return pick(d, genLexical), 0
	}
	return pick(d, genScored), int64(d.rng.IntN(4)) * 1000
}

func (d *differential) readSet() (rs writ.ReadSet) {
	for range d.rng.IntN(4) {
		rs.Docs = append(rs.Docs, pick(d, genDocs))
	}
	for range d.rng.IntN(3) {
		rs.Counters = append(rs.Counters, pick(d, genCounters))
	}
	for range d.rng.IntN(4) {
		r := writ.Range{Limit: 1 + d.rng.IntN(6), Desc: d.rng.IntN(2) == 0}
		if n := d.rng.IntN(5); n == 0 {
			r.Index, r.Member = pick(d, genIndexes), pick(d, genMembers)
		} else if n < 3 {
			r.Index, r.From, r.To = pick(d, genLexical), pick(d, genBounds), pick(d, genBounds)
		} else {
			r.Index, r.ByScore = pick(d, genIndexes), true
			r.Min, r.Max = int64(d.rng.IntN(5)-1)*1000, int64(d.rng.IntN(5)-1)*1000
		}
		rs.Ranges = append(rs.Ranges, r)
	}
	if d.rng.IntN(50) == 0 {
		rs.Ranges = append(rs.Ranges, writ.Range{Index: "list/x", Limit: 1001 * d.rng.IntN(2)})
	}
	return rs
}

// binding fills in what is each side's own: versions of indexes, epochs,
// times, delivery ids.
type binding func(*side, *writ.Tx)

// tx is a random transaction, one in twenty of them invalid.
func (d *differential) tx() (writ.Tx, []binding) {
	tx, bind := d.validTx()
	if d.rng.IntN(20) == 0 {
		spoil := invalidTxs()
		names := slices.Sorted(maps.Keys(spoil))
		tx = writ.Tx{Call: tx.Call, Fact: &writ.Fact{}}
		tx.Put(pick(d, genDocs), []byte("invalid"))
		spoil[names[d.rng.IntN(len(names))]](&tx)
		return tx, nil
	}
	return tx, bind
}

func (d *differential) validTx() (tx writ.Tx, bind []binding) {
	tx.Call = writ.CallID(fmt.Sprintf("cll_%026d", d.step))
	tx.Mandate = d.rng.IntN(10) == 0
	if d.rng.IntN(4) > 0 {
		tx.Fact = &writ.Fact{
			ID: writ.ReceiptID(fmt.Sprintf("rcp_%026d", d.step)), Run: pick(d, genRuns), KeyID: "SHA256:k",
			Head: fmt.Appendf(nil, `{"n":%d,"commit":`, d.step), Tail: []byte{'}', byte(d.step)},
		}
		if d.rng.IntN(3) == 0 {
			tx.Fact.Evidence = []byte{0, byte(d.step), 0xff}
		}
		if d.rng.IntN(5) == 0 {
			tx.Before = foreign(tx.Fact.Run, fmt.Sprintf("rcp_theirs%020d", d.step))
		}
	}
	for range d.rng.IntN(4) {
		if b := d.guard(&tx); b != nil {
			bind = append(bind, b)
		}
	}
	for range d.rng.IntN(7) {
		if b := d.op(&tx); b != nil {
			bind = append(bind, b)
		}
	}
	return tx, bind
}

// guard adds a random guard that holds more often than not.
func (d *differential) guard(tx *writ.Tx) binding {
	at := len(tx.Guards)
	luck := d.rng.IntN(4) > 0
	snap := func(s *side, rs writ.ReadSet) writ.Snapshot {
		out, err := s.store.Read(d.ctx, d.shard, rs)
		if err != nil {
			d.fail(s, "read: %v", err)
		}
		return out
	}
	model := d.sides[0]
	switch d.rng.IntN(6) {
	case 0:
		k := pick(d, genDocs)
		version := int64(d.rng.IntN(5))
		if luck {
			version = snap(model, writ.ReadSet{Docs: []writ.Key{k}}).Docs[k].Version
		}
		tx.Expect(k, version)
	case 1:
		i := pick(d, []writ.Index{"v/held", "v/waiting"})
		r := writ.Range{Index: i, Limit: 1}
		tx.ExpectRange(i, 0)
		if luck {
			return func(s *side, tx *writ.Tx) {
				tx.Guards[at].Version = snap(s, writ.ReadSet{Ranges: []writ.Range{r}}).Ranges[r].Version
			}
		}
		return d.stale(at, i, snap(model, writ.ReadSet{Ranges: []writ.Range{r}}).Ranges[r].Version)
	case 2:
		from, to := pick(d, genBounds[1:]), pick(d, genBounds[1:])
		if from > to {
			from, to = to, from
		}
		if from == to {
			to += "\xff"
		}
		tx.Free(pick(d, genLexical), from, to, pick(d, []string{"", "tsk_1", "tsk_2"}))
	case 3:
		c := pick(d, genCounters)
		lo := int64(d.rng.IntN(9) - 4)
		if luck {
			lo = snap(model, writ.ReadSet{Counters: []writ.Counter{c}}).Counters[c]
		}
		tx.Within(c, lo, lo+int64(d.rng.IntN(3)))
	case 4:
		tx.Guards = append(tx.Guards, writ.Guard{Kind: writ.GuardNotAfter}) // another one, where there is one
		return func(s *side, tx *writ.Tx) {
			if luck {
				tx.Guards[at].Hi = snap(s, writ.ReadSet{}).Now + time.Hour.Milliseconds()
			}
		}
	case 5:
		tx.Guards = append(tx.Guards, writ.Guard{Kind: writ.GuardEpoch, From: "0.0"})
		return func(s *side, tx *writ.Tx) {
			if luck {
				tx.Guards[at].From = s.epoch
			}
		}
	}
	return nil
}

// notePast remembers the versions of an index that a commit may have changed.
func (d *differential) notePast(tx writ.Tx) {
	now := map[writ.Index]rangeVersions{}
	for _, o := range tx.Ops {
		if o.Index.Versioned() && now[o.Index] == nil {
			r := writ.Range{Index: o.Index, Limit: 1}
			for _, s := range d.sides {
				snap, err := s.store.Read(d.ctx, d.shard, writ.ReadSet{Ranges: []writ.Range{r}})
				if err != nil {
					d.fail(s, "read: %v", err)
				}
				now[o.Index] = append(now[o.Index], snap.Ranges[r].Version)
			}
		}
	}
	if len(now) > 0 {
		d.past = append(d.past, now)
	}
}

// stale binds a range guard to a version that the index no longer has.
func (d *differential) stale(at int, i writ.Index, current int64) binding {
	for n := len(d.past) - 1; n >= max(0, len(d.past)-50); n-- {
		if v := d.past[n][i]; v != nil && v[0] != current {
			return func(s *side, tx *writ.Tx) { tx.Guards[at].Version = v[slices.Index(d.sides, s)] }
		}
	}
	return nil
}

// op adds a random operation.
func (d *differential) op(tx *writ.Tx) binding {
	switch p := d.rng.IntN(12); {
	case p < 3 && tx.Fact != nil:
		k, body := pick(d, genDocs), fmt.Appendf(nil, "%d/%d", d.step, d.rng.IntN(1000))
		if d.rng.IntN(6) == 0 {
			tx.PutFor(k, body, 24*time.Hour.Milliseconds())
		} else {
			tx.Put(k, body)
		}
	case p < 4 && tx.Fact != nil:
		tx.Delete(pick(d, genDocs))
	case p < 6:
		i, score := d.lexicalOrScored()
		tx.Index(i, pick(d, genMembers), score)
	case p < 8:
		i, score := d.lexicalOrScored()
		if d.rng.IntN(2) == 0 {
			tx.Unindex(i, pick(d, genMembers))
		} else {
			tx.UnindexAt(i, pick(d, genMembers), score)
		}
	case p < 10:
		c, delta := pick(d, genCounters), int64(d.rng.IntN(7)-3)
		if d.rng.IntN(2) == 0 {
			tx.Add(c, delta)
		} else {
			tx.AddUpTo(c, delta, int64(d.rng.IntN(8)))
		}
	case p < 11:
		tx.Push(pick(d, genLanes), fmt.Sprintf("%d.%d", d.step, d.rng.IntN(100)))
	default:
		n, ok := d.pick()
		if !ok {
			return nil
		}
		at := len(tx.Ops)
		tx.Ack(writ.Delivery{Lane: d.acks[n], ID: fmt.Sprint(n)})
		return func(s *side, tx *writ.Tx) { tx.Ops[at].ID = s.held[n].ID }
	}
	return nil
}

// describe puts a transaction into one line of the trace.
func describe(tx writ.Tx) string {
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s", strings.TrimLeft(strings.TrimPrefix(string(tx.Call), "cll_"), "0"))
	if tx.Fact != nil {
		fmt.Fprintf(&b, " fact %s", tx.Fact.Run)
	}
	if tx.Before != nil {
		b.WriteString(" behind a foreign one")
	}
	for _, g := range tx.Guards {
		fmt.Fprintf(&b, " | if %s %s%s%s v%d [%q %q) except %q %d..%d", g.Kind, g.Key, g.Index, g.Counter.Entity, g.Version, g.From, g.To, g.Except, g.Lo, g.Hi)
	}
	for _, o := range tx.Ops {
		fmt.Fprintf(&b, " | %s %s%s%s%s", o.Kind, o.Key, o.Index, o.Counter, o.Lane)
		switch o.Kind {
		case writ.OpPut:
			fmt.Fprintf(&b, " %.20q ttl %d", o.Body, o.TTLMs)
		case writ.OpIndex, writ.OpUnindex:
			fmt.Fprintf(&b, " %.40q %d if %v", o.Member, o.Score, o.IfScore)
		case writ.OpAdd:
			fmt.Fprintf(&b, " %+d limit %d %v", o.Delta, o.Limit, o.HasLimit)
		case writ.OpPush, writ.OpAck:
			fmt.Fprintf(&b, " %.40q", o.Entry+o.ID)
		}
	}
	return b.String()
}
