package boltstore

import (
	"bytes"
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Read implements store.Store with one short read transaction.
func (s *Store) Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if _, err := s.shard(ctx, shard); err != nil {
		return writ.Snapshot{}, err
	}
	if err := checkRead(rs); err != nil {
		return writ.Snapshot{}, err
	}
	out := writ.Snapshot{
		Docs:     make(map[writ.Key]writ.Doc, len(rs.Docs)),
		Counters: make(map[writ.Counter]int64, len(rs.Counters)),
		Ranges:   make(map[writ.Range]writ.RangeResult, len(rs.Ranges)),
	}
	now := s.opts.Now()
	err := s.view(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(shard))
		h, err := decodeHead(root.Get(keyHead))
		if err != nil {
			return err
		}
		out.Now, out.Epoch = max(now, h.at), h.epoch
		if len(rs.Docs) > 0 {
			docs := root.Bucket(bucketDocs)
			for _, k := range rs.Docs {
				version, _, body := liveDoc(docs.Get([]byte(k)), out.Now)
				out.Docs[k] = writ.Doc{Version: version, Body: bytes.Clone(body)}
			}
		}
		if len(rs.Counters) > 0 {
			counters := root.Bucket(bucketCounters)
			for _, c := range rs.Counters {
				out.Counters[c] = intOf(counters.Get(counterKey(c)))
			}
		}
		for _, r := range rs.Ranges {
			out.Ranges[r] = find(root, r)
		}
		return nil
	})
	if err != nil {
		return writ.Snapshot{}, err
	}
	return out, nil
}

func checkRead(rs writ.ReadSet) error {
	for _, k := range rs.Docs {
		if !writ.ValidName(string(k)) {
			return fmt.Errorf("%w: document name %q is not allowed", store.ErrInvalid, k)
		}
	}
	for _, c := range rs.Counters {
		if !writ.ValidName(c.Entity) || !writ.ValidName(c.Field) {
			return fmt.Errorf("%w: counter name %q is not allowed", store.ErrInvalid, c.Entity+"#"+c.Field)
		}
	}
	for _, r := range rs.Ranges {
		if !writ.ValidName(string(r.Index)) {
			return fmt.Errorf("%w: index name %q is not allowed", store.ErrInvalid, r.Index)
		}
		if r.Limit < 1 || r.Limit > 1000 {
			return fmt.Errorf("%w: the limit of a range of %s must be 1 to 1000", store.ErrInvalid, r.Index)
		}
	}
	return nil
}

// find reads part of an index, by score or by member.
func find(root *bolt.Bucket, r writ.Range) (out writ.RangeResult) {
	if r.Index.Versioned() {
		out.Version = intOf(root.Bucket(bucketVersions).Get([]byte(r.Index)))
	}
	prefix := len(under(r.Index))
	if r.Member != "" {
		if v := root.Bucket(bucketMembers).Get(under(r.Index, []byte(r.Member)...)); v != nil {
			out.Members = []writ.Member{{Name: r.Member, Score: intOf(v)}}
		}
		return out
	}
	if r.ByScore {
		from, to := max(r.Min, 0), min(r.Max, writ.MaxAmount)
		if from > to {
			return out
		}
		scan(root.Bucket(bucketScores), scoreKey(r.Index, from, ""), scoreKey(r.Index, to+1, ""), r.Desc, func(k, _ []byte) bool {
			out.Members = append(out.Members, writ.Member{Name: string(k[prefix+8:]), Score: intOf(k[prefix:])})
			return len(out.Members) < r.Limit
		})
		return out
	}
	to := after(r.Index)
	if r.To != "" {
		to = under(r.Index, []byte(r.To)...)
	}
	scan(root.Bucket(bucketMembers), under(r.Index, []byte(r.From)...), to, r.Desc, func(k, v []byte) bool {
		out.Members = append(out.Members, writ.Member{Name: string(k[prefix:]), Score: intOf(v)})
		return len(out.Members) < r.Limit
	})
	return out
}

// Head implements store.Store.
func (s *Store) Head(ctx context.Context, shard writ.Tenant) (out store.Head, err error) {
	if _, err := s.shard(ctx, shard); err != nil {
		return out, err
	}
	err = s.view(func(tx *bolt.Tx) error {
		h, err := decodeHead(tx.Bucket([]byte(shard)).Get(keyHead))
		out = store.Head{Epoch: h.epoch, Seq: h.seq, Trimmed: h.trimmed, At: h.at, Backlog: h.seq - h.trimmed}
		return err
	})
	return out, err
}
