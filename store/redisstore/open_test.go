package redisstore_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

func TestOpenRefusesEviction(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "maxmemory-policy allkeys-lru")
	s, err := redisstore.Open(t.Context(), redisstore.Options{URL: srv.URL()})
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != writ.CodeStore || !strings.Contains(e.Hint, "maxmemory-policy noeviction") {
		t.Fatalf("Open = %v, %v, want a refusal with the remedy", s, err)
	}
	srv.Command("CONFIG", "SET", "maxmemory-policy", "noeviction")
	open(t, srv)
}

func TestOpenRefusesReplica(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "replicaof 127.0.0.1 1")
	_, err := redisstore.Open(t.Context(), redisstore.Options{URL: srv.URL()})
	if e, ok := errors.AsType[*writ.Error](err); !ok || !strings.Contains(e.Msg, "replica") {
		t.Fatalf("Open = %v, want a refusal that names the replica", err)
	}
}

func TestOpenRefusesOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]redisstore.Options{
		"nothing":       {},
		"scheme":        {URL: "http://secret@localhost"},
		"nobody there":  {Addr: "/nonexistent/socket"},
		"prefix braces": {Addr: "/nonexistent/socket", Prefix: "a{b}"},
	} {
		_, err := redisstore.Open(t.Context(), o)
		if writ.CodeOf(err) != writ.CodeStore || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: Open = %v, want %s without the URL in it", name, err, writ.CodeStore)
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "maxmemory 100mb")
	s := open(t, srv)
	for _, c := range []struct {
		set  []string
		want store.Durability
	}{
		{nil, store.DurabilityCommitted},
		{[]string{"appendfsync", "everysec"}, store.DurabilityBuffered},
		{[]string{"appendfsync", "always"}, store.DurabilityCommitted},
		{[]string{"no-appendfsync-on-rewrite", "yes"}, store.DurabilityBuffered},
		{[]string{"no-appendfsync-on-rewrite", "no"}, store.DurabilityCommitted},
		{[]string{"appendonly", "no"}, store.DurabilityBuffered},
	} {
		if c.set != nil {
			srv.Command(append([]string{"CONFIG", "SET"}, c.set...)...)
		}
		i, err := s.Info(t.Context())
		if err != nil || i.Durability != c.want || i.Kind != "redis" || i.MemoryMax != 100<<20 || i.MemoryUsed == 0 {
			t.Errorf("after %v: Info = %+v, %v, want durability %s", c.set, i, err, c.want)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	s := open(t, redistest.Start(t))
	if _, err := s.Read(t.Context(), shard, writ.ReadSet{}); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, _, err := s.Wake(t.Context(), shard, "", maxWait)
		waiting <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, store.ErrClosed) {
		t.Errorf("Wake = %v, want ErrClosed", err)
	}
	if _, err := s.Commit(t.Context(), shard, factTx()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Commit = %v, want ErrClosed", err)
	}
	if _, err := s.Info(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Info = %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
}

// The scripts say what they take and return, forbid foreign slots by their
// first line, and know nothing of the domain.
func TestScriptHeaders(t *testing.T) {
	files, err := os.ReadDir("lua")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	domain := regexp.MustCompile(`(?i)\b(runs?|tasks?|agents?|sessions?|leases?|fences?|receipts?|packs?|approvals?|budgets?|tenants?)\b`)
	for _, f := range files {
		b, err := os.ReadFile("lua/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		src := string(b)
		if !strings.HasPrefix(src, "#!lua") {
			t.Errorf("%s: the first line must be #!lua", f.Name())
		}
		for _, part := range []string{"-- KEYS[1]", "-- ARGV", "-- Returns"} {
			if !strings.Contains(src, part) {
				t.Errorf("%s: the header has no %q", f.Name(), part)
			}
		}
		if w := domain.FindString(src); w != "" {
			t.Errorf("%s: the script speaks of %q", f.Name(), w)
		}
	}
}
