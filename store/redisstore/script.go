package redisstore

import (
	"context"
	"crypto/sha1" //nolint:gosec // what EVALSHA names scripts by
	_ "embed"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

var (
	//go:embed lua/commit.lua
	commitSource string
	//go:embed lua/read.lua
	readSource string
	//go:embed lua/open.lua
	openSource string
	//go:embed lua/receive.lua
	receiveSource string
	//go:embed lua/giveback.lua
	giveBackSource string
	//go:embed lua/trim.lua
	trimSource string

	commitScript = newScript(commitSource)
	// The same body with leave to run when the server is out of memory.
	mandateScript  = newScript("#!lua flags=allow-oom" + strings.TrimPrefix(commitSource, "#!lua"))
	readScript     = newScript(readSource)
	openScript     = newScript(openSource)
	receiveScript  = newScript(receiveSource)
	giveBackScript = newScript(giveBackSource)
	trimScript     = newScript(trimSource)
)

type script struct{ source, sha string }

func newScript(source string) script {
	h := sha1.Sum([]byte(source)) //nolint:gosec // see the import
	return script{source, hex.EncodeToString(h[:])}
}

// scripter is a client or one connection.
type scripter interface {
	EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd
	ScriptLoad(ctx context.Context, script string) *redis.StringCmd
}

// once runs a script one time. A server that does not know it has done
// nothing: it is loaded and run again.
func (sc script) once(ctx context.Context, c scripter, prefix string, args []any) ([]any, error) {
	keys := []string{prefix}
	v, err := c.EvalSha(ctx, sc.sha, keys, args...).Result()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = c.ScriptLoad(ctx, sc.source).Err(); err == nil {
			v, err = c.EvalSha(ctx, sc.sha, keys, args...).Result()
		}
	}
	if err != nil {
		return nil, err
	}
	if list, ok := v.([]any); ok {
		return list, nil
	}
	return []any{v}, nil
}

// tries of one command when the connection breaks or stays silent.
const tries = 3

// run runs a script, and again when it is unknown whether the server did. The
// caller sees to it that a second run does no harm; args gets the number of
// the try, from 0.
func (s *Store) run(ctx context.Context, sc script, prefix string, args func(try int) []any) ([]any, error) {
	var v []any
	err := s.retry(ctx, func(try int) (err error) {
		v, err = sc.once(ctx, s.rdb, prefix, args(try))
		return err
	})
	return v, err
}

// retry calls f until it succeeds, or fails for a reason that another try
// would not change.
func (s *Store) retry(ctx context.Context, f func(try int) error) error {
	for try := 0; ; try++ {
		err := f(try)
		s.noticed(err)
		if err == nil || try == tries-1 || !transient(err) || ctx.Err() != nil {
			return err
		}
		pause := time.NewTimer(time.Duration(2+rand.IntN(10<<(2*try))) * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
		case <-s.closed.Done():
		}
		pause.Stop()
		if ctx.Err() != nil || s.closed.Err() != nil {
			return err
		}
	}
}

// transient says whether err is about the connection, or about a server that
// is just starting, rather than the server's answer.
func transient(err error) bool {
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, context.Canceled) {
		return false
	}
	if redis.IsLoadingError(err) {
		return true
	}
	if _, answered := errors.AsType[redis.Error](err); answered {
		return false
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, redis.ErrPoolTimeout)
}

// fault turns what the client library says into what package store promises.
func (s *Store) fault(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case s.closed.Err() != nil || errors.Is(err, redis.ErrClosed):
		return store.ErrClosed
	case redis.IsOOMError(err), redis.HasErrorPrefix(err, "MISCONF"):
		return store.ErrFull
	}
	if e, ok := errors.AsType[*writ.Error](err); ok {
		return e
	}
	return writ.Fault(writ.CodeStore, op, err)
}
