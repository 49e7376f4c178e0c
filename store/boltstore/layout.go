package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
)

// The file holds one bucket per shard, named like the tenant, and the bucket
// "/writ" (no tenant) with the format. In a shard's bucket:
//
//	head           → head
//	docs           key → version 8, expiry 8, body
//	ttl            expiry 8, key → ""
//	counters       entity NUL field → value 8; never 0
//	members        index NUL member → score 8
//	scores         index NUL score 8, member → ""
//	versions       index → version 8; versioned indexes that are not empty
//	lanes          lane NUL number 8 → entry
//	facts          ring 8 → bucket of seq 8 → fact
//	calls0, calls1 call id → seq 8, runSeq 8, at 8
//
// Numbers are big endian, so that keys sort by them. Names never hold NUL, so
// a prefix that ends in it belongs to one name.
const (
	formatBucket = "/writ"
	formatKey    = "format"
	format       = "1"
)

var (
	keyHead        = []byte("head")
	bucketDocs     = []byte("docs")
	bucketTTL      = []byte("ttl")
	bucketCounters = []byte("counters")
	bucketMembers  = []byte("members")
	bucketScores   = []byte("scores")
	bucketVersions = []byte("versions")
	bucketLanes    = []byte("lanes")
	bucketFacts    = []byte("facts")
	bucketCalls    = [2][]byte{[]byte("calls0"), []byte("calls1")}
)

// checkFormat marks a new file and refuses one that a newer program wrote.
func (s *Store) checkFormat() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(formatBucket))
		if err != nil {
			return err
		}
		switch have := string(b.Get([]byte(formatKey))); have {
		case format:
			return nil
		case "":
			return b.Put([]byte(formatKey), []byte(format))
		default:
			return &writ.Error{
				Code: writ.CodeUpgrade, Msg: fmt.Sprintf("the store %s has a format this version of writ does not know", s.path),
				Hint: "use the version of writ that wrote it, or a newer one",
			}
		}
	})
}

// buckets of one shard in one bbolt transaction.
type buckets struct {
	root, docs, ttl, counters, members, scores, versions, lanes, facts *bolt.Bucket
}

// bucketsOf opens the shard; root is nil when there is none.
func bucketsOf(tx *bolt.Tx, shard writ.Tenant) buckets {
	b := tx.Bucket([]byte(shard))
	if b == nil {
		return buckets{}
	}
	return buckets{
		root: b, docs: b.Bucket(bucketDocs), ttl: b.Bucket(bucketTTL), counters: b.Bucket(bucketCounters),
		members: b.Bucket(bucketMembers), scores: b.Bucket(bucketScores), versions: b.Bucket(bucketVersions),
		lanes: b.Bucket(bucketLanes), facts: b.Bucket(bucketFacts),
	}
}

func createBuckets(tx *bolt.Tx, shard writ.Tenant) (buckets, error) {
	b, err := tx.CreateBucket([]byte(shard))
	if err != nil {
		return buckets{}, err
	}
	for _, name := range [][]byte{
		bucketDocs, bucketTTL, bucketCounters, bucketMembers, bucketScores, bucketVersions, bucketLanes, bucketFacts,
		bucketCalls[0], bucketCalls[1],
	} {
		if _, err := b.CreateBucket(name); err != nil {
			return buckets{}, err
		}
	}
	return bucketsOf(tx, shard), nil
}

// head is where a shard stands: the one record every commit rewrites.
type head struct {
	seq, trimmed int64 // -1: none
	at           int64 // of the last commit
	commits      int64 // ever; gives versions to indexes, so it only rises
	entries      int64 // ever pushed; gives numbers to lane entries
	calls        int64 // 0 or 1: the bucket that new call ids go to
	callsSince   int64 // when it became that
	epoch        string
}

func (h head) encode() []byte {
	b := make([]byte, 0, 7*8+len(h.epoch))
	for _, n := range []int64{h.seq, h.trimmed, h.at, h.commits, h.entries, h.calls, h.callsSince} {
		b = appendInt(b, n)
	}
	return append(b, h.epoch...)
}

func decodeHead(b []byte) (h head, err error) {
	if len(b) < 7*8 {
		return h, errors.New("the head of the shard is damaged")
	}
	for i, n := range []*int64{&h.seq, &h.trimmed, &h.at, &h.commits, &h.entries, &h.calls, &h.callsSince} {
		*n = intOf(b[8*i:])
	}
	h.epoch = string(b[7*8:])
	return h, nil
}

func appendInt(b []byte, n int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

// intOf reads a number; 0 when there is none, as for an absent key.
func intOf(b []byte) int64 {
	if len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}

// under is the key of part below name; "" gives the prefix of all of them.
func under[N ~string](name N, part ...byte) []byte {
	b := make([]byte, 0, len(name)+1+len(part))
	b = append(b, name...)
	b = append(b, 0)
	return append(b, part...)
}

// after is the first key that is not below name.
func after[N ~string](name N) []byte { return append([]byte(name), 1) }

func counterKey(c writ.Counter) []byte { return under(c.Entity, []byte(c.Field)...) }

func scoreKey(i writ.Index, score int64, member string) []byte {
	return append(appendInt(under(i), score), member...)
}

// scan walks lo <= key < hi, backward when desc, until fn says stop.
func scan(b *bolt.Bucket, lo, hi []byte, desc bool, fn func(k, v []byte) (more bool)) {
	c := b.Cursor()
	if !desc {
		for k, v := c.Seek(lo); k != nil && string(k) < string(hi) && fn(k, v); {
			k, v = c.Next()
		}
		return
	}
	var v []byte
	k, _ := c.Seek(hi)
	if k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	for k != nil && string(k) >= string(lo) && fn(k, v) {
		k, v = c.Prev()
	}
}
