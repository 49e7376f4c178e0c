package tlog

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// written is a log of n receipts signed with a key of its own.
func written(t testing.TB, n int) (dir string, trust Trust) {
	t.Helper()
	key := testKey(t)
	dir = t.TempDir()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := PublicDER(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for i := range n {
		r := writ.Receipt{Payload: fmt.Append(nil, "receipt ", i)}
		digest := receipts.SignedDigest(r)
		if r.Sig, err = ecdsa.SignASN1(rand.Reader, priv, digest[:]); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, Leaf(r, der))
	}
	if err := l.Append(leaves); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	return dir, Trust{Log: verifierOf(t, key), Keys: ringOf(t, &priv.PublicKey)}
}

// ringOf is the ring of one key.
func ringOf(t testing.TB, pub *ecdsa.PublicKey) *receipts.Ring {
	t.Helper()
	text, err := receipts.PublicPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	v, err := receipts.NewVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	r, err := receipts.NewRing(v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A log that was changed anywhere, or was signed by others, does not verify.
func TestVerifyNoticesEveryFile(t *testing.T) {
	const n = 600
	dir, trust := written(t, n)
	told := int64(0)
	verify := func(trust Trust) error {
		cp, err := Verify(context.Background(), dir, trust, func(done, of int64) { told = max(told, done) })
		if err == nil && cp.Size != n {
			t.Errorf("verified %d", cp.Size)
		}
		return err
	}
	if err := verify(trust); err != nil || told != n {
		t.Fatalf("%v, told %d", err, told)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		bad := [][]byte{good[:len(good)-1], nil, append(append([]byte{}, good...), make([]byte, 64)...)}
		for _, at := range []int{0, len(good) / 2, len(good) - 2} {
			b := append([]byte{}, good...)
			b[at] ^= 1
			bad = append(bad, b)
		}
		for i, b := range bad {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				return err
			}
			if err := verify(trust); err == nil {
				t.Errorf("%s, change %d: it verifies", path, i)
			}
		}
		return os.WriteFile(path, good, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(Trust{Log: trust.Log, Keys: ringOf(t, &other.PublicKey)}); !errors.Is(err, ErrDamaged) {
		t.Errorf("signed by another key: %v", err)
	}
	if err := verify(Trust{Log: trust.Log}); err != nil {
		t.Errorf("without signatures: %v", err)
	}
	if err := verify(Trust{Log: verifierOf(t, NewKey("other.example.org", testKey(t).key))}); err == nil {
		t.Error("as another log it verifies")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, dir, trust, nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
		t.Errorf("stopped: %v", err)
	}
}

// Only the one form of a leaf is one.
func FuzzParseLeaf(f *testing.F) {
	leaf := Leaf(writ.Receipt{Payload: []byte("x"), Sig: []byte("sig")}, []byte("der"))
	f.Add(leaf)
	f.Fuzz(func(t *testing.T, text []byte) {
		digest, sig, public, err := parseLeaf(text)
		if err == nil && string(render(digest, sig, public)) != string(text) {
			t.Errorf("%q has another form", text)
		}
	})
}

// How fast a log is read again, signatures included.
func BenchmarkVerify(b *testing.B) {
	const n = 10_000
	dir, trust := written(b, n)
	b.ResetTimer()
	for b.Loop() {
		if _, err := Verify(context.Background(), dir, trust, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "receipts/s")
}

// How fast a backlog is published.
func BenchmarkAppend(b *testing.B) {
	key, dir := testKey(b), b.TempDir()
	l, err := Open(dir, key)
	if err != nil {
		b.Fatal(err)
	}
	r := writ.Receipt{Payload: make([]byte, 1100), Sig: make([]byte, 70)}
	b.ResetTimer()
	n := 0
	for b.Loop() {
		leaves := make([][]byte, 1024)
		for i := range leaves {
			leaves[i] = Leaf(r, make([]byte, 91))
		}
		if err := l.Append(leaves); err != nil {
			b.Fatal(err)
		}
		n += len(leaves)
	}
	if _, err := l.Publish(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "receipts/s")
}
