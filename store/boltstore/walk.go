package boltstore

import (
	"context"
	"encoding/hex"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// walkPage is how many names or entries one call gives: no read transaction is
// longer than a page.
const walkPage = 1000

// Names implements store.Store. The cursor is the last name.
func (s *Store) Names(ctx context.Context, shard writ.Tenant, prefix, cursor string) (out []writ.Key, next string, err error) {
	if !writ.ValidName(prefix) || cursor != "" && !writ.ValidName(cursor) {
		return nil, "", fmt.Errorf("%w: a document's name is not allowed", store.ErrInvalid)
	}
	if _, err := s.shard(ctx, shard); err != nil {
		return nil, "", err
	}
	now := s.opts.Now()
	err = s.view(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(shard))
		h, err := decodeHead(root.Get(keyHead))
		if err != nil {
			return err
		}
		met := 0
		scan(root.Bucket(bucketDocs), []byte(max(prefix, cursor+"\x00")), []byte(prefix+"\xff"), false, func(k, v []byte) bool {
			if version, _, _ := liveDoc(v, max(now, h.at)); version != 0 {
				out = append(out, writ.Key(k))
			}
			if met++; met == walkPage {
				next = string(k)
			}
			return met < walkPage
		})
		return nil
	})
	return out, next, err
}

// Entries implements store.Store. The cursor is the place of the last entry.
func (s *Store) Entries(ctx context.Context, shard writ.Tenant, lane writ.Lane, cursor string) (out []string, next string, err error) {
	after, err := hex.DecodeString(cursor)
	if err != nil || !writ.ValidName(string(lane)) {
		return nil, "", fmt.Errorf("%w: a lane's name or a cursor is not allowed", store.ErrInvalid)
	}
	if _, err := s.shard(ctx, shard); err != nil {
		return nil, "", err
	}
	from := under(lane)
	if len(after) > 0 {
		from = append(under(lane, after...), 0)
	}
	err = s.view(func(tx *bolt.Tx) error {
		scan(tx.Bucket([]byte(shard)).Bucket(bucketLanes), from, []byte(string(lane)+"\x01"), false, func(k, v []byte) bool {
			if out = append(out, string(v)); len(out) == walkPage {
				next = hex.EncodeToString(k[len(lane)+1:])
			}
			return len(out) < walkPage
		})
		return nil
	})
	return out, next, err
}
