package redisstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
	"github.com/writ-gateway/writ/store/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	contract(t, redistest.Start)
}

// A server in cluster mode refuses scripts that leave the shard's slot.
func TestContractOnCluster(t *testing.T) {
	t.Parallel()
	contract(t, redistest.StartCluster)
}

// contract runs the suite. A real server's clock cannot be moved: what the cases
// that move it promise is tested in clock_test.go. Cases share a server, on shards of their own; those
// that crash it get one to themselves.
func contract(t *testing.T, start func(testing.TB, ...string) *redistest.Server) {
	shared := start(t)
	storetest.Run(t, func(t testing.TB) storetest.Opened {
		srv := shared
		if strings.Contains(t.Name(), "/crash/") {
			srv = start(t)
		}
		s := openWith(t, redisstore.Options{URL: srv.URL()})
		again := func(t testing.TB) store.Store { return openWith(t, redisstore.Options{URL: srv.URL()}) }
		return storetest.Opened{
			Store: s,
			Peer:  again,
			Reopen: func(t testing.TB) store.Store {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				return again(t)
			},
			Crash: func(t testing.TB) store.Store {
				if srv == shared {
					t.Fatal("this case would crash the others' server")
				}
				srv.Restart()
				_ = s.Close()
				return again(t)
			},
		}
	})
}

// The same random operations on both hosts and on the model of the contract.
func TestDifferential(t *testing.T) {
	t.Parallel()
	n := 20_000
	if os.Getenv("WRIT_SOAK") != "" {
		n = 1_000_000
	}
	bolt, err := boltstore.Open(filepath.Join(t.TempDir(), "bolt.db"), boltstore.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bolt.Close() })
	storetest.Differential(t, storetest.Seed(t), n, open(t, redistest.Start(t, "appendfsync everysec")), bolt)
}
