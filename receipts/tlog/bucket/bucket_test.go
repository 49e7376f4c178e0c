package bucket_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ/internal/s3"
	"github.com/writ-gateway/writ/internal/s3/s3test"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/receipts/tlog/bucket"
	"github.com/writ-gateway/writ/receipts/tlog/filestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files gives the same files each time it is called.
func files(t *testing.T, s *s3test.Server) func() tlog.Files {
	t.Helper()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return func() tlog.Files {
		b, err := s3.Open(s3.Config{Endpoint: srv.URL, Region: s.Region, Bucket: s.Bucket, Credentials: s.Credentials})
		if err != nil {
			t.Error(err)
			return nil
		}
		f, err := bucket.Open(context.Background(), b, "s3://tiles/of/one", "of/one/")
		if err != nil {
			t.Error(err)
		}
		return f
	}
}

func TestConform(t *testing.T) {
	t.Run("dir", func(t *testing.T) {
		filestest.Conform(t, func(t *testing.T) func() tlog.Files {
			dir := t.TempDir()
			return func() tlog.Files { return tlog.Dir(dir) }
		})
	})
	t.Run("below", func(t *testing.T) {
		filestest.Conform(t, func(t *testing.T) func() tlog.Files {
			all := files(t, s3test.New())
			return func() tlog.Files { return tlog.Below(all(), "s2") }
		})
	})
	t.Run("s3", func(t *testing.T) {
		filestest.Conform(t, func(t *testing.T) func() tlog.Files {
			s := s3test.New()
			s.Page = 1
			return files(t, s)
		})
		filestest.Race(t, files(t, s3test.New()))
	})
}

func key() *tlog.Key {
	return tlog.NewKey("log.example.org", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
}

// grow adds leaves of a kind up to a size and publishes them, as often as it takes.
func grow(t *testing.T, l *tlog.Log, kind string, size int64) error {
	t.Helper()
	for l.Latest().Size < size {
		var leaves [][]byte
		for i := l.Size(); i < size; i++ {
			leaves = append(leaves, fmt.Appendf(nil, "%s %d", kind, i))
		}
		err := l.Append(leaves)
		if err == nil {
			_, err = l.Publish()
		}
		if errors.Is(err, tlog.ErrFork) {
			return err
		}
	}
	return nil
}

// A log in a bucket has the files of one in a directory, byte for byte, also when the
// store fails at every fourth request, and does some of those all the same.
func TestALogInABucket(t *testing.T) {
	s := s3test.New()
	open := files(t, s)
	first := open()
	random := rand.New(rand.NewPCG(1, 2))
	s.Fail(func(method, _ string) (int, bool) {
		if random.IntN(4) == 0 {
			return http.StatusServiceUnavailable, random.IntN(2) == 0 && method != http.MethodGet
		}
		return 0, false
	})
	dir := t.TempDir()
	want, err := tlog.Open(dir, key())
	if err != nil {
		t.Fatal(err)
	}
	l, err := tlog.OpenFiles(first, key())
	for err != nil {
		l, err = tlog.OpenFiles(first, key())
	}
	for _, size := range []int64{1, 3, 255, 256, 257, 700, 1024} {
		if err := errors.Join(grow(t, l, "a", size), grow(t, want, "a", size)); err != nil {
			t.Fatal(err)
		}
		if l.Latest().Root != want.Latest().Root {
			t.Fatalf("%d: another tree", size)
		}
	}
	s.Fail(nil)
	if l, err = tlog.OpenFiles(open(), key()); err != nil || l.Latest().Root != want.Latest().Root {
		t.Fatalf("opened again: %v", err)
	}
	if err := errors.Join(grow(t, l, "a", 1030), grow(t, want, "a", 1030)); err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	for _, key := range s.Keys() {
		path, mine := strings.CutPrefix(key, "of/one/")
		body, _ := s.Object(key)
		if !mine {
			t.Errorf("there is %s", key)
		}
		if path == ".writ-probe" {
			continue
		}
		there, err := os.ReadFile(filepath.Join(dir, path))
		if strings.Contains(path, ".p/") && errors.Is(err, os.ErrNotExist) {
			continue // a part that was cleared there and not here: it failed
		}
		if err != nil || string(there) != string(body) {
			t.Errorf("%s is another file: %v", path, err)
		}
		to := filepath.Join(copied, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, body, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	verifier, err := key().Verifier()
	if err != nil {
		t.Fatal(err)
	}
	if cp, err := tlog.Verify(t.Context(), copied, tlog.Trust{Log: verifier}, nil); err != nil || cp.Size != 1030 {
		t.Errorf("%d, %v", cp.Size, err)
	}
}

// Two gateways that write one log: who comes second finds out, and what the first
// published stands.
func TestTwoWritersOfABucket(t *testing.T) {
	open := files(t, s3test.New())
	one, err := tlog.OpenFiles(open(), key())
	if err != nil {
		t.Fatal(err)
	}
	if err := grow(t, one, "a", 200); err != nil {
		t.Fatal(err)
	}
	two, err := tlog.OpenFiles(open(), key())
	if err != nil {
		t.Fatal(err)
	}
	if err := grow(t, one, "a", 600); err != nil {
		t.Fatal(err)
	}
	if err := grow(t, two, "b", 600); !errors.Is(err, tlog.ErrFork) || !errors.Is(err, tlog.ErrTaken) {
		t.Errorf("it says %v", err)
	}
	if again, err := tlog.OpenFiles(open(), key()); err != nil || again.Latest().Root != one.Latest().Root {
		t.Errorf("what was published is another: %v", err)
	}
	// And a store that heeds no conditions is none.
	s := s3test.New()
	s.Careless = true
	srv := httptest.NewServer(s)
	defer srv.Close()
	b, err := s3.Open(s3.Config{Endpoint: srv.URL, Region: s.Region, Bucket: s.Bucket, Credentials: s.Credentials})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Open(t.Context(), b, "x", ""); err == nil {
		t.Error("it is used")
	}
}
