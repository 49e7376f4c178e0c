package redisstore_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shard writ.Tenant = "default"

func open(t testing.TB, srv *redistest.Server) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{URL: srv.URL()})
}

func openWith(t testing.TB, o redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var calls atomic.Int64

func newCall() writ.CallID { return writ.CallID(fmt.Sprintf("cll_%d", calls.Add(1))) }

// factTx is a transaction with a fact and nothing else yet.
func factTx() writ.Tx {
	c := newCall()
	return writ.Tx{Call: c, Fact: &writ.Fact{
		ID: writ.ReceiptID("rcp_" + c), KeyID: "key", Head: []byte(`{"commit":`), Tail: []byte("}"),
	}}
}

func commit(t testing.TB, s *redisstore.Store, tx writ.Tx) writ.Committed {
	t.Helper()
	c, err := s.Commit(t.Context(), shard, tx)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return c
}

func read(t testing.TB, s *redisstore.Store, rs writ.ReadSet) writ.Snapshot {
	t.Helper()
	snap, err := s.Read(t.Context(), shard, rs)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return snap
}

func docs(keys ...writ.Key) writ.ReadSet { return writ.ReadSet{Docs: keys} }

// allFacts reads the outbox from its start.
func allFacts(t testing.TB, s *redisstore.Store) []writ.StoredFact {
	t.Helper()
	var out []writ.StoredFact
	for {
		fs, err := s.Facts(t.Context(), shard, int64(len(out))-1, 500, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(fs) == 0 {
			return out
		}
		out = append(out, fs...)
	}
}

// eventually waits for a condition of the server that gives no signal.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func infoField(srv *redistest.Server, section, name string) string {
	for line := range strings.Lines(srv.Command("INFO", section)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
