package tlog

import (
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/tlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files")

func testKey(t testing.TB) *Key {
	t.Helper()
	return NewKey("log.example.org", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
}

func verifierOf(t testing.TB, k *Key) string {
	t.Helper()
	v, err := k.Verifier()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// plain is the tree as the reference package keeps it, all hashes in memory.
type plain struct{ hashes []tlog.Hash }

func (p *plain) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	for _, i := range indexes {
		out = append(out, p.hashes[i])
	}
	return out, nil
}

func (p *plain) add(t testing.TB, n int64, leaf []byte) {
	t.Helper()
	h, err := tlog.StoredHashes(n, leaf, p)
	if err != nil {
		t.Fatal(err)
	}
	p.hashes = append(p.hashes, h...)
}

func leafOf(i int64) []byte {
	return []byte(strings.Repeat("x", int(i%7)) + fmt.Sprint("leaf ", i))
}

// Whatever is appended and published in whatever portions, closed and opened again,
// roots and proofs are those of the reference, and every file of every checkpoint is
// there.
func TestTheLogIsTheTree(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	key, dir, ref := testKey(t), t.TempDir(), &plain{}
	l, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	var published []Checkpoint
	for n < 66_500 { // three levels
		step := 1 + rng.Int64N([]int64{3, 300, 5000}[rng.IntN(3)])
		var leaves [][]byte
		for range step {
			leaves = append(leaves, leafOf(n))
			ref.add(t, n, leafOf(n))
			n++
		}
		if err := l.Append(leaves); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(4) == 0 { // a crash: what was not published is written again
			if l, err = Open(dir, key); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			var again [][]byte
			for i := l.Size(); i < n; i++ {
				again = append(again, leafOf(i))
			}
			if err := l.Append(again); err != nil {
				t.Fatal(err)
			}
		}
		cp, err := l.Publish()
		if err != nil {
			t.Fatal(err)
		}
		want, err := tlog.TreeHash(n, ref)
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size != n || cp.Root != want {
			t.Fatalf("seed %d: %d leaves, root %v, want %d, %v", seed, cp.Size, cp.Root, n, want)
		}
		if read, err := ParseCheckpoint(cp.Text, verifierOf(t, key)); err != nil || read.Size != n || read.Root != want {
			t.Fatalf("seed %d: %+v, %v", seed, read, err)
		}
		published = append(published, cp)
		for range 5 {
			i := rng.Int64N(n)
			p, ok, err := l.Include(i)
			if err != nil || !ok || string(p.Leaf) != string(leafOf(i)) {
				t.Fatalf("seed %d: leaf %d of %d: %q, %v, %v", seed, i, n, p.Leaf, ok, err)
			}
			if err := p.Check(); err != nil {
				t.Fatalf("seed %d: leaf %d of %d: %v", seed, i, n, err)
			}
			old := published[rng.IntN(len(published))]
			proof, latest, err := l.Consistent(old.Size, 0)
			if err == nil {
				err = tlog.CheckTree(proof, latest.Size, latest.Root, old.Size, old.Root)
			}
			if err != nil {
				t.Fatalf("seed %d: %d after %d: %v", seed, n, old.Size, err)
			}
		}
	}
	// What other tools read: every tile by its path, and a tree out of them alone.
	reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, i := range indexes {
			tile := tileOf(i, n)
			data, err := os.ReadFile(filepath.Join(dir, tilePath(tile.L, tile.N, tile.W)))
			if err != nil {
				return nil, err
			}
			h, err := tlog.HashFromTile(tile, data, i)
			if err != nil {
				return nil, err
			}
			out = append(out, h)
		}
		return out, nil
	})
	if root, err := tlog.TreeHash(n, reader); err != nil || root != published[len(published)-1].Root {
		t.Errorf("the files give %v, %v", root, err)
	}
}

// Nothing is published by reading, and what is not published is not proved.
func TestWhatIsNotPublishedIsNotProved(t *testing.T) {
	dir, key := t.TempDir(), testKey(t)
	l, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	if cp, err := l.Publish(); err != nil || cp.Size != 0 || cp.Text != nil {
		t.Errorf("an empty log has a checkpoint: %+v, %v", cp, err)
	}
	if err := l.Append([][]byte{leafOf(0), leafOf(1)}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := l.Include(0); ok || err != nil {
		t.Errorf("proved before it was published: %v, %v", ok, err)
	}
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int64]bool{-1: false, 0: true, 1: true, 2: false} {
		if _, ok, err := l.Include(i); ok != want || err != nil {
			t.Errorf("leaf %d: %v, %v", i, ok, err)
		}
	}
	for _, n := range []int64{-1, 0, 3} {
		if _, _, err := l.Consistent(n, 0); err == nil {
			t.Errorf("consistent with %d", n)
		}
	}
	if err := l.Append([][]byte{make([]byte, maxLeaf+1)}); err == nil || l.Size() != 2 {
		t.Errorf("a leaf too long: %v, %d leaves", err, l.Size())
	}
}

// A changed file is never passed off as the log: it does not open, or its proofs do
// not hold.
func TestDamageShows(t *testing.T) {
	dir, key := t.TempDir(), testKey(t)
	l, err := Open(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	const n = 600
	var leaves [][]byte
	for i := range int64(n) {
		leaves = append(leaves, leafOf(i))
	}
	if err := l.Append(leaves); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Publish(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, bad := range map[string][]byte{
			"flipped at the start": append([]byte{good[0] ^ 1}, good[1:]...),
			"flipped at the end":   append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]^1),
			"cut":                  good[:len(good)-1],
			"empty":                {},
		} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				return err
			}
			if !shows(t, dir, key, n) {
				t.Errorf("%s %s: nothing shows", path, name)
			}
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if filepath.Base(path) != CheckpointPath && !shows(t, dir, key, n) {
			t.Errorf("%s is gone: nothing shows", path)
		}
		return os.WriteFile(path, good, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if files != 8 { // checkpoint, 2+1 of level 0, 1 of level 1, 2+1 of entries … and no others
		t.Logf("%d files", files)
	}
	other := NewKey(key.Name(), ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize))))
	if _, err := Open(dir, other); err == nil {
		t.Error("it opens with another key")
	}
	if _, err := Open(dir, NewKey("other.example.org", key.key)); err == nil {
		t.Error("it opens under another name")
	}
	if shows(t, dir, key, n) {
		t.Error("the log as it was does not hold")
	}
}

func shows(t *testing.T, dir string, key *Key, n int64) bool {
	t.Helper()
	l, err := Open(dir, key)
	if err != nil {
		return true
	}
	if l.Latest().Size != n {
		return true
	}
	for i := range n {
		p, ok, err := l.Include(i)
		if err != nil || !ok || p.Check() != nil || string(p.Leaf) != string(leafOf(i)) {
			return true
		}
	}
	return false
}

// A disk that does not take a file leaves the log as it was; once it does, it goes on
// as if nothing had been.
func TestADiskThatRefuses(t *testing.T) {
	const n = 70_000
	for _, inTheWay := range []string{"tile/0/001", "tile/entries/200", "tile/1/000", "tile/2"} { // files where directories must be, and the other way round
		dir, key, ref := t.TempDir(), testKey(t), &plain{}
		l, err := Open(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, inTheWay)
		if inTheWay == "tile/2" {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644))
		} else {
			err = os.MkdirAll(filepath.Join(path, "x"), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		refused := 0
		for l.Size() < n {
			var leaves [][]byte
			for i := l.Size(); i < min(l.Size()+1000, n); i++ {
				leaves = append(leaves, leafOf(i))
			}
			if err = l.Append(leaves); err == nil {
				_, err = l.Publish()
			}
			if err == nil {
				continue
			}
			before := l.Latest()
			if refused++; refused > 3 {
				if again, err := Open(dir, key); err != nil || again.Latest().Root != before.Root {
					t.Fatalf("%s: what was published is gone: %v", inTheWay, err)
				}
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
		}
		if refused != 4 {
			t.Errorf("%s: refused %d times", inTheWay, refused)
		}
		for i := range int64(n) {
			ref.add(t, i, leafOf(i))
		}
		cp, err := l.Publish()
		want, werr := tlog.TreeHash(n, ref)
		if err != nil || werr != nil || cp.Root != want {
			t.Errorf("%s: %v, %v", inTheWay, cp.Root, err)
		}
		if _, err := Verify(t.Context(), dir, Trust{Log: verifierOf(t, key)}, nil); err != nil {
			t.Errorf("%s: %v", inTheWay, err)
		}
	}
}

func TestTilePaths(t *testing.T) {
	for _, c := range []struct {
		level int
		n     int64
		w     int
		want  string
	}{
		{0, 0, 256, "tile/0/000"},
		{0, 0, 1, "tile/0/000.p/1"},
		{1, 999, 256, "tile/1/999"},
		{0, 1000, 256, "tile/0/x001/000"},
		{2, 1234067, 112, "tile/2/x001/x234/067.p/112"},
		{entriesLevel, 1234067, 256, "tile/entries/x001/x234/067"},
	} {
		if got := tilePath(c.level, c.n, c.w); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// Checkpoints of others, or in another form, are none.
func TestOtherCheckpoints(t *testing.T) {
	key := testKey(t)
	cp, err := key.checkpoint(5, tlog.RecordHash([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	want := "log.example.org\n5\nU8zxWs/47Z8QnOmzbYPPZPxsrcaQ/AAsCYI9LF4hyVk=\n\n— log.example.org "
	if got := string(cp.Text); !strings.HasPrefix(got, want[:18]) || strings.Count(got, "\n") != 5 {
		t.Errorf("%q", got)
	}
	v := verifierOf(t, key)
	if _, err := ParseCheckpoint(cp.Text, v); err != nil {
		t.Fatal(err)
	}
	other := NewKey("other.example.org", key.key)
	for name, text := range map[string]string{
		"changed":   strings.Replace(string(cp.Text), "\n5\n", "\n6\n", 1),
		"cut":       string(cp.Text[:len(cp.Text)-1]),
		"unsigned":  strings.SplitAfter(string(cp.Text), "\n\n")[0],
		"empty":     "",
		"not ASCII": "é",
	} {
		if _, err := ParseCheckpoint([]byte(text), v); err == nil {
			t.Errorf("%s: it is one", name)
		}
	}
	if _, err := ParseCheckpoint(cp.Text, verifierOf(t, other)); err == nil {
		t.Error("of another log: it is one")
	}
	if _, err := ParseCheckpoint(cp.Text, "x"); err == nil {
		t.Error("without a key: it is one")
	}
}

func FuzzParseCheckpoint(f *testing.F) {
	key := testKey(f)
	cp, err := key.checkpoint(5, tlog.RecordHash([]byte("x")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cp.Text)
	v := verifierOf(f, key)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseCheckpoint(text, v)
		if err == nil && (got.Size != 5 || got.Root != cp.Root) {
			t.Errorf("%q was never signed", text)
		}
	})
}

func FuzzFirstEntries(f *testing.F) {
	f.Add([]byte{0, 1, 'a', 0, 0}, 2)
	f.Fuzz(func(t *testing.T, data []byte, w int) {
		if w = min(max(w, 0), width); w == 0 {
			return
		}
		if got, err := firstEntries(data, w); err == nil && len(got) < 2*w || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// What replies carry is pinned: clients that are out there read it.
func TestWhatRepliesCarryIsPinned(t *testing.T) {
	cp, err := testKey(t).checkpoint(3, tlog.Hash([]byte(strings.Repeat("\x03", tlog.HashSize))))
	if err != nil {
		t.Fatal(err)
	}
	const want = "bG9nLmV4YW1wbGUub3JnCjMKQXdNREF3TURBd01EQXdNREF3TURBd01EQXdNREF3TURBd01EQXdNREF3TT0KCuKAlCBsb2cuZXhhbXBsZS5vcmcgVjQrT2Z4UWJRUm8xUGR6bURzZkRRU3VGMEtCdlBzZDREZW1qYnlLQzh5U3ltbE04djQwWUNiWFcwK0xvL0UxbElOWDRZYUhFdnFEWGMvT29wZE9JMVEzK1p3Zz0K"
	if got := cp.Compact(); got != want {
		t.Errorf("got %s", got)
	}
}
