package redisstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
)

// walkPage is how many keys, or entries, the server looks at in one call.
const walkPage = 1000

// Names implements store.Store. The cursor is the server's own, which promises
// as much: what is there from the first call to the last is met.
func (s *Store) Names(ctx context.Context, t writ.Tenant, prefix, cursor string) (out []writ.Key, next string, err error) {
	const op = "redisstore.Names"
	if !writ.ValidName(prefix) {
		return nil, "", invalid("a document's name is not allowed")
	}
	at := uint64(0)
	if cursor != "" {
		if at, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return nil, "", invalid("a cursor is not allowed")
		}
	}
	sh, err := s.shardOf(ctx, op, t)
	if err != nil {
		return nil, "", err
	}
	var keys []string
	err = s.retry(ctx, func(int) error {
		found, then, err := s.rdb.Scan(ctx, at, sh.prefix+":d:"+prefix+"*", walkPage).Result()
		if err == nil {
			keys, next = found, ""
			if then != 0 {
				next = strconv.FormatUint(then, 10)
			}
		}
		return err
	})
	for _, k := range keys {
		out = append(out, writ.Key(strings.TrimPrefix(k, sh.prefix+":d:")))
	}
	return out, next, s.fault(op, err)
}

// Entries implements store.Store. The cursor is the place of the last entry in
// the stream: one that is given back moves to the end and is met there.
func (s *Store) Entries(ctx context.Context, t writ.Tenant, lane writ.Lane, cursor string) (out []string, next string, err error) {
	const op = "redisstore.Entries"
	from := "-"
	switch {
	case !writ.ValidName(string(lane)):
		return nil, "", invalid("a lane's name is not allowed")
	case cursor != "" && !entryID.MatchString(cursor):
		return nil, "", invalid("a cursor is not allowed")
	case cursor != "":
		from = "(" + cursor
	}
	sh, err := s.shardOf(ctx, op, t)
	if err != nil {
		return nil, "", err
	}
	var found []redis.XMessage
	err = s.retry(ctx, func(int) (err error) {
		found, err = s.rdb.XRangeN(ctx, sh.prefix+":l:"+string(lane), from, "+", walkPage).Result()
		return err
	})
	for _, m := range found {
		text, ok := m.Values["e"].(string)
		if !ok {
			return nil, "", s.fault(op, errReply)
		}
		out = append(out, text)
	}
	if len(found) == walkPage {
		next = found[len(found)-1].ID
	}
	return out, next, s.fault(op, err)
}
