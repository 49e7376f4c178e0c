package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
)

// Lanes implements store.Store.
func (s *Store) Lanes(ctx context.Context, t writ.Tenant) ([]writ.LaneCount, error) {
	const op = "redisstore.Lanes"
	sh, err := s.shardOf(ctx, op, t)
	if err != nil {
		return nil, err
	}
	var counts map[string]string
	err = s.retry(ctx, func(int) (err error) {
		counts, err = s.rdb.HGetAll(ctx, sh.prefix+":n").Result()
		return err
	})
	if err != nil {
		return nil, s.fault(op, err)
	}
	out := make([]writ.LaneCount, 0, len(counts))
	for lane, c := range counts {
		n, err := strconv.ParseInt(c, 10, 64)
		if err != nil {
			return nil, s.fault(op, errReply)
		}
		out = append(out, writ.LaneCount{Lane: writ.Lane(lane), Count: n})
	}
	slices.SortFunc(out, func(a, b writ.LaneCount) int { return strings.Compare(string(a.Lane), string(b.Lane)) })
	return out, nil
}

// Receive implements store.Store. When a try breaks off after the server ran
// it, its entries are abandoned and wait for Reclaim.
func (s *Store) Receive(ctx context.Context, t writ.Tenant, lanes []writ.Lane, consumer string, n int) ([]writ.Delivery, error) {
	const op = "redisstore.Receive"
	args := make([]any, 0, 2+len(lanes))
	args = append(args, consumer, n)
	for _, l := range lanes {
		if !writ.ValidName(string(l)) {
			return nil, invalid("a lane's name is not allowed")
		}
		args = append(args, string(l))
	}
	if consumer == "" {
		return nil, invalid("a consumer has no name")
	}
	sh, err := s.shardOf(ctx, op, t)
	if err != nil || n <= 0 || len(lanes) == 0 {
		return nil, err
	}
	v, err := s.run(ctx, receiveScript, sh.prefix, func(int) []any { return args })
	if err != nil || len(v) == 0 {
		return nil, s.fault(op, err)
	}
	r := reply{list: v}
	lane := writ.Lane(r.str())
	out := make([]writ.Delivery, 0, len(r.list)/2)
	for len(r.list) > 0 && r.err == nil {
		out = append(out, writ.Delivery{Lane: lane, ID: r.str(), Entry: r.str()})
	}
	return out, s.fault(op, r.err)
}

// GiveBack implements store.Store.
func (s *Store) GiveBack(ctx context.Context, t writ.Tenant, consumer string, d writ.Delivery) error {
	const op = "redisstore.GiveBack"
	if !writ.ValidName(string(d.Lane)) {
		return invalid("a lane's name is not allowed")
	}
	sh, err := s.shardOf(ctx, op, t)
	if err != nil || !entryID.MatchString(d.ID) {
		return err
	}
	_, err = s.run(ctx, giveBackScript, sh.prefix, func(int) []any {
		return []any{string(d.Lane), d.ID, consumer}
	})
	return s.fault(op, err)
}

// Reclaim implements store.Store.
func (s *Store) Reclaim(ctx context.Context, t writ.Tenant, idle time.Duration, n int) (int, error) {
	const op = "redisstore.Reclaim"
	sh, err := s.shardOf(ctx, op, t)
	if err != nil || n <= 0 {
		return 0, err
	}
	var args []any
	err = s.retry(ctx, func(int) (err error) {
		args, err = s.abandoned(ctx, sh, idle, n)
		return err
	})
	if err != nil || len(args) == 0 {
		return 0, s.fault(op, err)
	}
	v, err := s.run(ctx, giveBackScript, sh.prefix, func(int) []any { return args })
	if err != nil {
		return 0, s.fault(op, err)
	}
	r := reply{list: v}
	given := r.int()
	return int(given), s.fault(op, r.err)
}

// abandoned finds up to n entries held for longer than idle: lane, id and
// consumer of each. What happens to one afterwards giveback.lua notices.
func (s *Store) abandoned(ctx context.Context, sh opened, idle time.Duration, n int) ([]any, error) {
	lanes, err := s.rdb.HKeys(ctx, sh.prefix+":p").Result()
	if err != nil {
		return nil, err
	}
	slices.Sort(lanes)
	idle += time.Millisecond // the server finds those held for at least that long
	var args []any
	for batch := range slices.Chunk(lanes, 64) {
		found := make([]*redis.XPendingExtCmd, len(batch))
		_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, lane := range batch {
				found[i] = p.XPendingExt(ctx, &redis.XPendingExtArgs{
					Stream: sh.prefix + ":l:" + lane, Group: "g", Idle: idle, Start: "-", End: "+", Count: int64(n),
				})
			}
			return nil
		})
		if err != nil && !redis.HasErrorPrefix(err, "NOGROUP") {
			return nil, err
		}
		for i, cmd := range found {
			entries, err := cmd.Result()
			if redis.HasErrorPrefix(err, "NOGROUP") {
				continue // the lane has just become empty
			}
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if args = append(args, batch[i], e.ID, e.Consumer); len(args) == 3*n {
					return args, nil
				}
			}
		}
	}
	return args, nil
}

// Wake implements store.Store: the cursor is a place in the wake stream.
func (s *Store) Wake(ctx context.Context, t writ.Tenant, cursor string, wait time.Duration) (string, []writ.Lane, error) {
	const op = "redisstore.Wake"
	sh, err := s.shardOf(ctx, op, t)
	if err != nil {
		return cursor, nil, err
	}
	if cursor != "" && !entryID.MatchString(cursor) {
		return cursor, nil, invalid("the cursor is not one of ours")
	}
	if cursor == "" {
		err := s.retry(ctx, func(int) error {
			last, err := s.rdb.HGet(ctx, sh.prefix+":h", "w").Result()
			cursor = last + "-0"
			return err
		})
		if err != nil {
			return "", nil, s.fault(op, err)
		}
	}
	got, err := s.follow(ctx, sh.prefix+":w", cursor, 1000, min(wait, maxBlock))
	if err != nil || len(got) == 0 {
		return cursor, nil, s.fault(op, err)
	}
	seen := make(map[writ.Lane]bool, len(got))
	var lanes []writ.Lane
	note := func(l writ.Lane) {
		if !seen[l] {
			seen[l] = true
			lanes = append(lanes, l)
		}
	}
	if place(got[0].ID) != place(cursor)+1 {
		// The stream is cut at some length: who fell behind looks everywhere.
		all, err := s.Lanes(ctx, t)
		if err != nil {
			return cursor, nil, err
		}
		for _, l := range all {
			note(l.Lane)
		}
	}
	for _, e := range got {
		lane, _ := e.Values["l"].(string)
		note(writ.Lane(lane))
	}
	return got[len(got)-1].ID, lanes, nil
}

// place is the number in a stream id of ours.
func place(id string) int64 {
	n, _, _ := strings.Cut(id, "-")
	v, _ := strconv.ParseInt(n, 10, 64)
	return v
}

// follow reads a stream after a place, waiting at most wait for something to
// come, or until the context ends.
func (s *Store) follow(ctx context.Context, key, after string, n int, wait time.Duration) ([]redis.XMessage, error) {
	var got []redis.XMessage
	read := func(ctx context.Context, c *redis.Client, block time.Duration) error {
		got = nil
		v, err := c.XRead(ctx, &redis.XReadArgs{Streams: []string{key, after}, Count: int64(n), Block: block}).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if err == nil {
			got = v[0].Messages
		}
		return err
	}
	err := s.retry(ctx, func(int) error { return read(ctx, s.rdb, -1) })
	if err != nil || len(got) > 0 || wait < time.Millisecond {
		return got, err
	}
	// The library does not interrupt a blocked read when its context ends: it
	// runs aside, and is left to end by itself.
	done := make(chan error, 1)
	s.reads.Add(1)
	go func() {
		defer s.reads.Done()
		done <- s.retry(s.closed, func(int) error { return read(s.closed, s.wait, min(wait, maxBlock)) })
	}()
	select {
	case err := <-done:
		return got, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
