// Package redisstore keeps shards on a Redis server (7.0 or newer), so that
// several gateways can share them. It is the host that scales out; it is not a
// cache, and it never reads from a replica.
//
// All keys of a shard carry one hash tag, so that one script (lua/commit.lua)
// checks and changes it atomically. Its invariant: no commit takes effect on a
// server that has lost one this process saw acknowledged, and none takes
// effect twice under one call id.
package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Options say where the server is and how to use it. Either URL or Addr is
// required.
type Options struct {
	// URL as redis://user:password@host:port/db, rediss://… for TLS, or
	// unix:///path/to/socket?db=0.
	URL string
	// Addr is host:port, or the path of a unix socket when it begins with "/".
	Addr               string
	Username, Password string
	TLS                *tls.Config

	// Prefix begins every key, default "writ": shards of gateways that share
	// a server without sharing state must differ in it.
	Prefix string
	// Timeout of one try to reach the server, default 3 s. A commit tries up
	// to three times under its call id.
	Timeout time.Duration
	// PoolSize is how many connections are kept for short commands, default 64.
	PoolSize int
}

// maxBlock bounds how long the server is told to wait: cancelling a context
// does not interrupt it.
const maxBlock = 2 * time.Second

var prefixPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Store is a Redis host. It implements store.Store.
type Store struct {
	prefix string
	rdb    *redis.Client // short commands
	wait   *redis.Client // blocking reads, on connections of their own
	conns  conns         // of both

	lives lives // which life of the server the shards were opened on

	closing context.CancelFunc
	closed  context.Context
	reads   sync.WaitGroup // blocking reads under way
}

var _ store.Store = (*Store)(nil)

var quiet sync.Once

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Open connects to the server and checks that it can be trusted with state: a
// master of version 7 or newer that does not evict keys. It returns
// *writ.Error with CodeStore and a remedy when not.
func Open(ctx context.Context, o Options) (*Store, error) {
	// The client library reports every failed dial to standard error.
	quiet.Do(func() { redis.SetLogger(silence{}) })
	ro, err := o.redis()
	if err != nil {
		return nil, err
	}
	s := &Store{prefix: o.Prefix}
	if s.prefix == "" {
		s.prefix = "writ"
	}
	if !prefixPattern.MatchString(s.prefix) {
		return nil, writ.Refuse(writ.CodeStore, "redisstore.Open", "the key prefix is not allowed", "use 1 to 32 of a-z, 0-9 and -, beginning with a letter")
	}
	s.lives.shards = map[writ.Tenant]*shard{}
	s.closed, s.closing = context.WithCancel(context.Background())
	ro.OnConnect = s.connected
	ro.Dialer = s.conns.dial(ro.NewDialer())
	s.rdb = redis.NewClient(ro)
	bo := *ro
	bo.PoolSize, bo.MaxIdleConns = 256, 8
	bo.ConnMaxIdleTime = time.Minute
	s.wait = redis.NewClient(&bo)
	if err := s.check(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (o Options) redis() (*redis.Options, error) {
	ro := &redis.Options{Addr: o.Addr}
	switch {
	case o.URL != "":
		var err error
		if ro, err = redis.ParseURL(o.URL); err != nil {
			// The cause may quote the URL, which may hold a password.
			return nil, writ.Refuse(writ.CodeStore, "redisstore.Open", "the URL of the redis server is not well formed", "use redis://host:port or unix:///path/to/socket")
		}
	case o.Addr == "":
		return nil, writ.Refuse(writ.CodeStore, "redisstore.Open", "no redis server is named", "set its URL, or its address")
	case o.Addr[0] == '/':
		ro.Network = "unix"
	}
	if o.Username != "" {
		ro.Username = o.Username
	}
	if o.Password != "" {
		ro.Password = o.Password
	}
	if o.TLS != nil {
		ro.TLSConfig = o.TLS
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.PoolSize <= 0 {
		o.PoolSize = 64
	}
	ro.Protocol = 2
	ro.MaxRetries = -1 // a repeated command is executed again: see Store.run
	ro.DialTimeout, ro.ReadTimeout, ro.WriteTimeout = o.Timeout, o.Timeout, o.Timeout
	ro.DialerRetries = 1
	ro.PoolTimeout = o.Timeout
	ro.PoolSize, ro.PipelinePoolSize = o.PoolSize, -1
	ro.ContextTimeoutEnabled = true
	ro.DisableIdentity = true
	ro.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return ro, nil
}

// Close ends every connection and waits for the reads under way.
func (s *Store) Close() error {
	if s.closed.Err() != nil {
		return nil
	}
	s.closing()
	err := errors.Join(s.rdb.Close(), s.wait.Close())
	s.reads.Wait()
	return err
}

// shardOf is the opened shard, or why it cannot be used.
func (s *Store) shardOf(ctx context.Context, op string, t writ.Tenant) (opened, error) {
	if s.closed.Err() != nil {
		return opened{}, store.ErrClosed
	}
	if !t.Valid() {
		return opened{}, invalid("the shard's name is not allowed")
	}
	sh, err := s.lives.open(ctx, s, t)
	return sh, s.fault(op, err)
}

func (s *Store) shardPrefix(t writ.Tenant) string { return s.prefix + ":{" + string(t) + "}" }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrInvalid, fmt.Sprintf(format, args...))
}
