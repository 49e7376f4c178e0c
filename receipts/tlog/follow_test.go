package tlog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// memory is a ledger in memory.
type memory struct {
	mu    sync.Mutex
	list  []writ.Receipt
	grown chan struct{}
	fails error
}

func newMemory() *memory { return &memory{grown: make(chan struct{})} }

func (m *memory) Last() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.list)) - 1
}

func (m *memory) Range(after int64, n int, _ writ.RunID) ([]writ.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := min(after+1, int64(len(m.list)))
	return m.list[from:min(from+int64(n), int64(len(m.list)))], m.fails
}

func (m *memory) Grown() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grown
}

func (m *memory) add(n int, word string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		seq := int64(len(m.list))
		m.list = append(m.list, writ.Receipt{Seq: seq, KeyID: "SHA256:k", Payload: fmt.Appendf(nil, "%s %d", word, seq), Sig: []byte("sig")})
	}
	close(m.grown)
	m.grown = make(chan struct{})
}

func follow(t *testing.T, dir string, m *memory) (*Follower, *Log, error) {
	t.Helper()
	l, err := Open(dir, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	f := NewFollower(l, m, func(id string) ([]byte, bool) { return []byte("der"), id == "SHA256:k" }, MinEvery)
	err = f.Start(t.Context())
	return f, l, err
}

// Whatever comes is published, in the order of the ledger, and again nothing when
// nothing comes; what a stop or a crash leaves is published by the next.
func TestWhatComesIsPublished(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	m.add(3000, "a") // a backlog of more than one batch
	f, l, err := follow(t, dir, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(t.Context(), 2999); err != nil {
		t.Fatal(err)
	}
	m.add(1, "a")
	if err := f.Wait(t.Context(), 3000); err != nil {
		t.Fatal(err)
	}
	if n, since := f.Lag(); n != 0 || since != 0 {
		t.Errorf("%d behind for %v", n, since)
	}
	for i := range int64(3001) {
		leaf, err := l.Entry(i)
		if err != nil || string(leaf) != string(Leaf(m.list[i], []byte("der"))) {
			t.Fatalf("leaf %d: %s, %v", i, leaf, err)
		}
	}
	m.add(5, "a")
	if err := f.Stop(t.Context()); err != nil { // what came last too
		t.Fatal(err)
	}
	if got := l.Latest().Size; got != 3006 {
		t.Errorf("%d published when it stopped", got)
	}
	m.add(5, "a")
	if n, _ := f.Lag(); n != 5 {
		t.Errorf("%d behind", n)
	}
	if err := f.Wait(t.Context(), 3010); err == nil {
		t.Error("waited for a log nobody writes")
	}
	f, l, err = follow(t, dir, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(t.Context(), 3010); err != nil || l.Latest().Size != 3011 {
		t.Errorf("%d, %v", l.Latest().Size, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Wait(ctx, 9999); !errors.Is(err, context.Canceled) {
		t.Errorf("waited for ever: %v", err)
	}
	_ = f.Stop(t.Context())
}

// A log is not continued with another history.
func TestAnotherHistoryIsRefused(t *testing.T) {
	dir, m := t.TempDir(), newMemory()
	m.add(10, "a")
	f, _, err := follow(t, dir, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	behind, other, damaged := newMemory(), newMemory(), newMemory()
	behind.add(9, "a")
	other.add(20, "b")
	damaged.add(9, "a")
	damaged.list = append(damaged.list, writ.Receipt{Seq: 11, KeyID: "SHA256:k"})
	for name, m := range map[string]*memory{"behind": behind, "other": other, "damaged": damaged} {
		if _, _, err := follow(t, dir, m); writ.CodeOf(err) != writ.CodeNotReady || writ.AsError("", err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, l, err := follow(t, dir, m)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.list = append(m.list, writ.Receipt{Seq: 11, KeyID: "SHA256:k"})
	m.mu.Unlock()
	m.add(0, "a")
	select {
	case <-f.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on with a receipt out of order")
	}
	if !errors.Is(f.Err(), ErrFork) || l.Latest().Size != 10 {
		t.Errorf("%v, %d published", f.Err(), l.Latest().Size)
	}
}

// An outage is waited out.
func TestAnOutageIsWaitedOut(t *testing.T) {
	m := newMemory()
	m.fails = errors.New("no disk")
	m.add(1, "a")
	f, l, err := follow(t, t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	for f.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	m.mu.Lock()
	m.fails = nil
	m.mu.Unlock()
	if err := f.Wait(t.Context(), 0); err != nil || l.Latest().Size != 1 {
		t.Fatal(err)
	}
	_ = f.Stop(t.Context())
	if f.Err() != nil {
		t.Error(f.Err())
	}
}

// How long it has been behind counts in an outage that was there at the start, too, and ends with it.
func TestAnOutageFromTheStartIsCounted(t *testing.T) {
	m := newMemory()
	m.add(3, "a")
	l, err := Open(t.TempDir(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	var here atomic.Bool
	f := NewFollower(l, m, func(string) ([]byte, bool) { return []byte("der"), here.Load() }, MinEvery)
	begun := time.Now()
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var since time.Duration
	for n := int64(0); since < 3*backoff; n, since = f.Lag() { // over several tries
		if n > 0 && n != 3 || time.Since(begun) > time.Minute {
			t.Fatalf("%d receipts behind for %v", n, since)
		}
		time.Sleep(time.Millisecond)
	}
	if since > time.Since(begun) {
		t.Errorf("behind for %v, in %v", since, time.Since(begun))
	}
	here.Store(true)
	if err := f.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	_ = f.Stop(t.Context())
	if n, since := f.Lag(); n != 0 || since != 0 {
		t.Errorf("%d receipts behind for %v, when all are published", n, since)
	}
}

// A receipt of a key whose public half is not here yet is waited for.
func TestAKeyThatComesLaterIsWaitedFor(t *testing.T) {
	m := newMemory()
	m.add(1, "a")
	m.list[0].KeyID = "SHA256:later"
	l, err := Open(t.TempDir(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	var here atomic.Bool
	f := NewFollower(l, m, func(string) ([]byte, bool) { return []byte("der"), here.Load() }, MinEvery)
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for f.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-f.Done():
		t.Fatal("it stopped")
	default:
	}
	if l.Latest().Size != 0 {
		t.Fatal("it went on without the key")
	}
	here.Store(true)
	if err := f.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	_ = f.Stop(t.Context())
}

// The bytes of a leaf are the canonical form of a Rekor v2 entry: changed, no other
// tool finds it.
func TestTheLeafIsPinned(t *testing.T) {
	der, err := base64.StdEncoding.DecodeString("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==")
	if err != nil {
		t.Fatal(err)
	}
	r := writ.Receipt{Payload: []byte(`{"a":1}`), Sig: []byte(strings.Repeat("s", 70))}
	writtest.GoldenFile(t, *update, "testdata/leaf.json", Leaf(r, der))
	key, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(make([]byte, 32)).Public())
	if err != nil {
		t.Fatal(err)
	}
	r.Public = key
	writtest.GoldenFile(t, *update, "testdata/leaf-ed25519.json", Leaf(r, der))
	if digest, _, public, err := parseLeaf(Leaf(r, der)); err != nil || len(digest) != 64 || !bytes.Equal(public, key) {
		t.Errorf("got %x, %x, %v", digest, public, err)
	}
}

// No checkpoint ends with a verdict whose receipt is not there yet: it is in the log with it.
func TestForeignArePublishedWithTheirReceipt(t *testing.T) {
	m := newMemory()
	m.add(2, "a")
	m.list[1].Public = []byte("a key that nobody else knows")
	m.list[1].KeyID = "SHA256:other"
	f, l, err := follow(t, t.TempDir(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(t.Context(), 0); err != nil || l.Latest().Size != 1 {
		t.Fatalf("got %d, %v", l.Latest().Size, err)
	}
	m.add(1, "a")
	if err := f.Wait(t.Context(), 2); err != nil || l.Latest().Size != 3 {
		t.Fatalf("got %d, %v", l.Latest().Size, err)
	}
	if leaf, err := l.Entry(1); err != nil || !bytes.Equal(leaf, Leaf(m.list[1], nil)) {
		t.Errorf("got %s, %v", leaf, err)
	}
	_ = f.Stop(t.Context())
}

// A backlog is published whole also where a batch of it ends with a foreign one.
func TestABatchThatEndsWithAForeignOneIsNotTheLast(t *testing.T) {
	m := newMemory()
	m.add(batch+10, "a")
	m.list[batch-1].Public = []byte("a key that nobody else knows")
	l, err := Open(t.TempDir(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	f := NewFollower(l, m, func(string) ([]byte, bool) { return []byte("der"), true }, MinEvery)
	if err := f.round(t.Context()); err != nil || l.Latest().Size != batch+10 {
		t.Errorf("got %d, %v", l.Latest().Size, err)
	}
}
