package redisstore

import (
	"context"
	"strconv"

	"github.com/writ-gateway/writ"
)

// Read implements store.Store: one read-only script.
func (s *Store) Read(ctx context.Context, t writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	const op = "redisstore.Read"
	args, err := encodeRead(rs)
	if err != nil {
		return writ.Snapshot{}, err
	}
	for range reopenings {
		sh, err := s.shardOf(ctx, op, t)
		if err != nil {
			return writ.Snapshot{}, err
		}
		v, err := s.run(ctx, readScript, sh.prefix, func(int) []any { return args })
		if err != nil {
			return writ.Snapshot{}, s.fault(op, err)
		}
		r := reply{list: v}
		snap := writ.Snapshot{Now: r.int(), Epoch: r.str()}
		seq, last := r.int(), r.str()
		if snap.Epoch == "" {
			s.forget(sh.shard) // emptied under our feet: open it again, or be fenced
			continue
		}
		if seq < sh.known.seq {
			return writ.Snapshot{}, s.fault(op, s.fenced(sh.shard, seq, sh.known.seq))
		}
		if err := decodeRead(&r, rs, &snap); err != nil {
			return writ.Snapshot{}, s.fault(op, err)
		}
		if s.lives.saw(sh, markAt(seq, last)) {
			return snap, nil
		}
	}
	return writ.Snapshot{}, s.fault(op, errUnstable)
}

func encodeRead(rs writ.ReadSet) ([]any, error) {
	args := make([]any, 0, 3+len(rs.Docs)+2*len(rs.Counters)+7*len(rs.Ranges))
	args = append(args, len(rs.Docs))
	for _, k := range rs.Docs {
		if !writ.ValidName(string(k)) {
			return nil, invalid("a document's name is not allowed")
		}
		args = append(args, string(k))
	}
	args = append(args, len(rs.Counters))
	for _, c := range rs.Counters {
		if !writ.ValidName(c.Entity) || !writ.ValidName(c.Field) {
			return nil, invalid("a counter's name is not allowed")
		}
		args = append(args, c.Entity, c.Field)
	}
	args = append(args, len(rs.Ranges))
	for _, r := range rs.Ranges {
		if !writ.ValidName(string(r.Index)) {
			return nil, invalid("an index's name is not allowed")
		}
		if r.Limit < 1 || r.Limit > 1000 {
			return nil, invalid("a range's limit must be 1 to 1000")
		}
		how, low, high := "lex", "-", "+"
		switch {
		case r.Member != "":
			how, low = "member", r.Member
		case r.ByScore:
			how, low, high = "score", clamp(r.Min), clamp(r.Max)
		default:
			if r.From != "" {
				low = "[" + r.From
			}
			if r.To != "" {
				high = "(" + r.To
			}
		}
		order, versioned := "asc", ""
		if r.Desc {
			order = "desc"
		}
		if r.Index.Versioned() {
			versioned = "1"
		}
		args = append(args, string(r.Index), how, low, high, r.Limit, order, versioned)
	}
	return args, nil
}

func decodeRead(r *reply, rs writ.ReadSet, snap *writ.Snapshot) error {
	docs, counters, ranges := r.sub(), r.sub(), r.sub()
	snap.Docs = make(map[writ.Key]writ.Doc, len(rs.Docs))
	for _, k := range rs.Docs {
		d := docs.sub()
		doc := writ.Doc{Version: d.int()}
		if body := d.str(); doc.Version != 0 {
			doc.Body = []byte(body)
		}
		snap.Docs[k] = doc
		if d.err != nil {
			return d.err
		}
	}
	snap.Counters = make(map[writ.Counter]int64, len(rs.Counters))
	for _, c := range rs.Counters {
		snap.Counters[c] = counters.int()
	}
	snap.Ranges = make(map[writ.Range]writ.RangeResult, len(rs.Ranges))
	for _, rg := range rs.Ranges {
		found := ranges.sub()
		res := writ.RangeResult{Version: found.int()}
		for len(found.list) > 0 && found.err == nil {
			name := found.str()
			score, err := strconv.ParseFloat(found.str(), 64) // integers below 2^53
			if err != nil {
				return errReply
			}
			res.Members = append(res.Members, writ.Member{Name: name, Score: int64(score)})
		}
		snap.Ranges[rg] = res
		if found.err != nil {
			return found.err
		}
	}
	for _, err := range []error{r.err, docs.err, counters.err, ranges.err} {
		if err != nil {
			return err
		}
	}
	return nil
}
