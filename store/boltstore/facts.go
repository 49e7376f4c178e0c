package boltstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
)

// The outbox is a row of buckets of ringFacts facts each. Trim only moves a
// mark, and drops the buckets wholly below it.
const ringFacts = 4096

// factsPage bounds one answer of Facts, so that no read transaction is long.
const (
	factsPage      = 1000
	factsPageBytes = 8 << 20
)

var errDamaged = errors.New("a stored fact is damaged")

// emit appends a fact to the outbox.
func (x *shardTx) emit(f writ.StoredFact) {
	if n := f.Commit.Seq / ringFacts; x.ring == nil || x.nth != n {
		b, err := x.buckets.facts.CreateBucketIfNotExists(appendInt(nil, n))
		if x.must(err); err != nil {
			return
		}
		x.ring, x.nth = b, n
	}
	x.ring.FillPercent = 1 // keys only ever rise
	x.put(x.ring, appendInt(nil, f.Commit.Seq), encodeFact(f))
	x.facts = true
}

// Trim implements store.Store.
func (s *Store) Trim(ctx context.Context, shard writ.Tenant, upto int64) error {
	if _, err := s.shard(ctx, shard); err != nil {
		return err
	}
	_, err := s.submit(ctx, &request{shard: shard, essential: true, apply: func(x *shardTx) (writ.Committed, error) {
		x.trim(upto)
		return writ.Committed{}, nil
	}})
	return err
}

func (x *shardTx) trim(upto int64) {
	upto = min(upto, x.head.seq)
	if upto <= x.head.trimmed {
		return
	}
	for n := (x.head.trimmed + 1) / ringFacts; (n+1)*ringFacts <= upto+1; n++ {
		x.must(x.buckets.facts.DeleteBucket(appendInt(nil, n))) // full, so no longer written
	}
	x.head.trimmed = upto
	x.changed = true
}

// Facts implements store.Store.
func (s *Store) Facts(ctx context.Context, shard writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error) {
	m, err := s.shard(ctx, shard)
	if err != nil {
		return nil, err
	}
	var timeout <-chan time.Time
	for {
		more := m.facts.next()
		out, err := s.factsAfter(shard, after, n)
		if err != nil || len(out) > 0 || n <= 0 || wait <= 0 {
			return out, err
		}
		if timeout == nil {
			t := time.NewTimer(wait)
			defer t.Stop()
			timeout = t.C
		}
		if again, err := s.await(ctx, more, timeout); !again {
			return nil, err
		}
	}
}

// await says whether something happened before the timeout.
func (s *Store) await(ctx context.Context, happened <-chan struct{}, timeout <-chan time.Time) (bool, error) {
	select {
	case <-happened:
		return true, nil
	case <-timeout:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	case <-s.closing:
		return false, s.alive(ctx)
	}
}

func (s *Store) factsAfter(shard writ.Tenant, after int64, n int) (out []writ.StoredFact, err error) {
	n = min(n, factsPage)
	err = s.view(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(shard))
		h, err := decodeHead(root.Get(keyHead))
		if err != nil {
			return err
		}
		facts := root.Bucket(bucketFacts)
		var ring *bolt.Bucket
		nth, size := int64(-1), 0
		for seq := max(after, h.trimmed) + 1; seq <= h.seq && len(out) < n && size < factsPageBytes; seq++ {
			if ring == nil || nth != seq/ringFacts {
				nth = seq / ringFacts
				ring = facts.Bucket(appendInt(nil, nth))
			}
			if ring == nil {
				return fmt.Errorf("%w: sequence %d", errDamaged, seq)
			}
			v := ring.Get(appendInt(nil, seq))
			f, err := decodeFact(v)
			if err != nil {
				return fmt.Errorf("%w: sequence %d", err, seq)
			}
			f.Commit.Epoch, f.Commit.Seq = h.epoch, seq
			size += len(v)
			out = append(out, f)
		}
		return nil
	})
	return out, err
}

// A fact is stored as at, runSeq, then each part with its length before it.
// Sequence and epoch are the key's and the head's. A foreign fact has an empty part
// before the others, for a program that knows none must not take it for another.
func encodeFact(f writ.StoredFact) []byte {
	b := make([]byte, 0, 128+len(f.Head)+len(f.Tail)+len(f.Evidence))
	b = appendInt(appendInt(b, f.Commit.At), f.Commit.RunSeq)
	parts := [][]byte{[]byte(f.ID), []byte(f.Run), []byte(f.KeyID), f.Head, f.Tail, f.Evidence}
	if f.Foreign() {
		parts = [][]byte{nil, []byte(f.ID), []byte(f.Run), []byte(f.KeyID), f.Head, f.Sig, f.Public}
	}
	for _, part := range parts {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

func decodeFact(b []byte) (f writ.StoredFact, err error) {
	if len(b) < 16 {
		return f, errDamaged
	}
	f.Commit.At, f.Commit.RunSeq = intOf(b), intOf(b[8:])
	b = append([]byte(nil), b[16:]...) // one copy out of bbolt's memory for all parts
	var parts [7][]byte
	all := 0
	for ; all < len(parts) && len(b) > 0; all++ {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return f, errDamaged
		}
		if b = b[w:]; n > 0 {
			parts[all] = b[:n:n]
		}
		b = b[n:]
	}
	of := parts[:]
	switch {
	case len(b) > 0:
		return f, errDamaged
	case all == 6:
		f.Head, f.Tail, f.Evidence = of[3], of[4], of[5]
	case all == 7 && of[0] == nil && of[6] != nil:
		of = of[1:]
		f.Head, f.Sig, f.Public = of[3], of[4], of[5]
	default:
		return f, errDamaged
	}
	f.ID, f.Run, f.KeyID = writ.ReceiptID(of[0]), writ.RunID(of[1]), string(of[2])
	return f, nil
}
