package redisstore

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

const mayEvict = "the redis server may evict keys: leases and receipts would vanish"

// check refuses a server that cannot be trusted with state.
func (s *Store) check(ctx context.Context) error {
	const op = "redisstore.Open"
	info, err := s.info(ctx)
	if err != nil {
		return s.fault(op, err)
	}
	major, _, _ := strings.Cut(field(info, "redis_version"), ".")
	if v, err := strconv.Atoi(major); err != nil || v < 7 {
		return writ.Refuse(writ.CodeStore, op, "the redis server is too old", "use redis 7.0 or newer")
	}
	if field(info, "maxmemory_policy") != "noeviction" {
		return writ.Refuse(writ.CodeStore, op, mayEvict,
			"set `maxmemory-policy noeviction` in redis.conf, or run: redis-cli CONFIG SET maxmemory-policy noeviction")
	}
	return nil
}

func (s *Store) info(ctx context.Context) (string, error) {
	var all strings.Builder
	err := s.retry(ctx, func(int) error {
		all.Reset()
		cmds, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, section := range []string{"server", "memory", "persistence", "replication"} {
				p.Info(ctx, section)
			}
			return nil
		})
		for _, c := range cmds {
			all.WriteString(c.(*redis.StringCmd).Val())
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if err := isMaster(all.String()); err != nil {
		s.demoted() // it was one when the connection was made
		return "", err
	}
	return all.String(), nil
}

// Info implements store.Store. It is asked for regularly, and notices a server
// that is no longer the master also when nothing is written. Durability is "committed" only when the server
// says that it syncs every command before it answers.
func (s *Store) Info(ctx context.Context) (store.Info, error) {
	const op = "redisstore.Info"
	if s.closed.Err() != nil {
		return store.Info{}, store.ErrClosed
	}
	info, err := s.info(ctx)
	if err != nil {
		return store.Info{}, s.fault(op, err)
	}
	out := store.Info{
		Kind: "redis", Durability: store.DurabilityBuffered,
		MemoryUsed: number(info, "used_memory"), MemoryMax: number(info, "maxmemory"),
	}
	if field(info, "maxmemory_policy") != "noeviction" {
		out.Trouble = mayEvict // it did not when the store was opened
	}
	if field(info, "aof_enabled") != "1" {
		return out, nil
	}
	for name, want := range map[string]string{"appendfsync": "always", "no-appendfsync-on-rewrite": "no"} {
		got, err := s.rdb.ConfigGet(ctx, name).Result()
		if _, refused := err.(redis.Error); refused {
			return out, nil // hosted servers hide their configuration: assume the less
		}
		if err != nil {
			return store.Info{}, s.fault(op, err)
		}
		if got[name] != want {
			return out, nil
		}
	}
	out.Durability = store.DurabilityCommitted
	return out, nil
}
