package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ/internal/durable"
)

var errCrash = errors.New("the process ends here")

// crashing are files of a process that ends at a write.
type crashing struct {
	Dir
	left int  // writes until then
	kept bool // that last one happens, and nobody is told
	dead bool
	once bool // only that write fails: a disk, and no crash
	err  error
}

func (c *crashing) Read(path string) ([]byte, error) {
	if c.dead {
		return nil, c.err
	}
	return c.Dir.Read(path)
}

func (c *crashing) Swap(path string, old, data []byte) error {
	if c.dead {
		return c.err
	}
	if c.left--; c.left != 0 {
		return c.Dir.Swap(path, old, data)
	}
	c.dead = !c.once
	if c.kept {
		if err := c.Dir.Swap(path, old, data); err != nil {
			return err
		}
		return c.err
	}
	torn := filepath.Join(string(c.Dir), path) + durable.Temporary
	if err := os.MkdirAll(filepath.Dir(torn), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(torn, data[:len(data)/2], 0o644); err != nil {
		return err
	}
	return c.err
}

func (c *crashing) Clear(dir string) error {
	if c.dead {
		return c.err
	}
	return c.Dir.Clear(dir)
}

// history is all checkpoints that were ever there, each of which somebody may have kept.
type history struct{ seen []Checkpoint }

func (h *history) look(t *testing.T, dir string, key *Key) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	cp, err := ParseCheckpoint(text, verifierOf(t, key))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(h.seen); n == 0 || h.seen[n-1].Size != cp.Size {
		h.seen = append(h.seen, cp)
	}
}

// whole checks that the log is the receipts of a ledger, one by one, and goes on from
// all that was ever published.
func (h *history) whole(t *testing.T, dir string, m *memory) {
	t.Helper()
	l, err := Open(dir, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	ref := &plain{}
	for i, r := range m.list {
		want := Leaf(r, []byte("der"))
		ref.add(t, int64(i), want)
		if leaf, err := l.Entry(int64(i)); err != nil || !bytes.Equal(leaf, want) {
			t.Fatalf("leaf %d is %s, %v", i, leaf, err)
		}
	}
	cp := l.Latest()
	if root, err := tlog.TreeHash(int64(len(m.list)), ref); err != nil || cp.Size != int64(len(m.list)) || cp.Root != root {
		t.Fatalf("the log is %v of %d receipts, %v", cp, len(m.list), err)
	}
	for _, old := range h.seen {
		root, err := tlog.TreeHash(old.Size, ref)
		if err != nil || root != old.Root {
			t.Fatalf("what was published at %d is of another history: %v", old.Size, err)
		}
	}
	if _, err := Verify(t.Context(), dir, Trust{Log: verifierOf(t, testKey(t))}, nil); err != nil {
		t.Fatal(err)
	}
}

// publishing follows a ledger that grows, on files that may fail, until its end or its
// own. Some of what comes makes tiles full, some ends exactly with one.
func publishing(t *testing.T, files Files, m *memory, h *history, again bool) error {
	t.Helper()
	l, err := OpenFiles(files, testKey(t))
	if err != nil {
		return err
	}
	f := NewFollower(l, m, func(string) ([]byte, bool) { return []byte("der"), true }, MinEvery)
	if err := f.compare(); err != nil {
		return err
	}
	for {
		err := f.round(t.Context())
		if err != nil && again && !errors.Is(err, ErrFork) && !errors.Is(err, ErrDamaged) {
			err = f.round(t.Context())
		}
		if err != nil {
			return err
		}
		h.look(t, string(dirOf(files)), testKey(t))
		switch n := len(m.list); {
		case n < 3:
			m.add(3, "a")
		case n < 256:
			m.add(256-n, "a")
		case n < 300:
			m.add(44, "a")
		case n < 700:
			m.add(400, "a")
		default:
			return nil
		}
	}
}

func dirOf(f Files) Dir {
	if c, ok := f.(*crashing); ok {
		return c.Dir
	}
	return f.(Dir)
}

// Ended between any two writes of tiles and checkpoints, with the last one done, torn or
// not begun, the log goes on with the next start: it is the ledger's at every index, and
// nothing that was published is taken back.
func TestCrashBetweenAnyTwoFiles(t *testing.T) {
	for _, kept := range []bool{false, true} {
		writes := 1
		for ; ; writes++ {
			dir, m, h := t.TempDir(), newMemory(), &history{}
			c := &crashing{Dir: Dir(dir), left: writes, kept: kept, err: errCrash}
			err := publishing(t, c, m, h, false)
			if c.left > 0 { // it came to its end
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("write %d: %v", writes, err)
			}
			h.look(t, dir, testKey(t))
			if err := publishing(t, Dir(dir), m, h, false); err != nil {
				t.Fatalf("after a crash at write %d, kept %v: %v", writes, kept, err)
			}
			h.whole(t, dir, m)
		}
		if writes < 15 {
			t.Errorf("only %d writes: this tested nothing", writes)
		}
	}
}

// A write that a full disk refuses, or of which nobody knows whether it took place, is
// made again by the same process, and changes nothing.
func TestAnyWriteMayFail(t *testing.T) {
	for _, kept := range []bool{false, true} {
		for writes := 1; ; writes++ {
			dir, m, h := t.TempDir(), newMemory(), &history{}
			c := &crashing{Dir: Dir(dir), left: writes, kept: kept, once: true, err: fmt.Errorf("write: %w", syscall.ENOSPC)}
			if err := publishing(t, c, m, h, true); err != nil {
				t.Fatalf("write %d, kept %v: %v", writes, kept, err)
			}
			h.whole(t, dir, m)
			if c.left > 0 {
				break
			}
		}
	}
}

// The log heeds no clock: with its files an hour ahead or behind, as after the clock of
// the machine was set, a checkpoint comes as ever.
func TestFilesOfAnotherHour(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, time.Hour} {
		dir, m, h := t.TempDir(), newMemory(), &history{}
		m.add(300, "a")
		f, _, err := follow(t, dir, m)
		if err != nil {
			t.Fatal(err)
		}
		shift := func() {
			t.Helper()
			at := time.Now().Add(off)
			err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					err = os.Chtimes(path, at, at)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if err := f.Wait(t.Context(), m.Last()); err != nil {
				t.Fatal(err)
			}
			h.look(t, dir, testKey(t))
			shift()
			m.add(50, "a")
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		shift()
		if f, _, err = follow(t, dir, m); err != nil {
			t.Fatal(err)
		}
		m.add(1, "a")
		if err := f.Wait(t.Context(), m.Last()); err != nil {
			t.Fatal(err)
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.whole(t, dir, m)
	}
}

// Tiles that were written and never published, of receipts that are none any more, are
// replaced.
func TestTilesOfNothingPublished(t *testing.T) {
	dir, m, h := t.TempDir(), newMemory(), &history{}
	m.add(200, "a")
	l, err := Open(dir, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	f := NewFollower(l, m, func(string) ([]byte, bool) { return []byte("der"), true }, MinEvery)
	if err := f.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.look(t, dir, testKey(t))
	for i := range 400 { // full tiles, and no checkpoint
		if err := l.Append([][]byte{leafOf(int64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := publishing(t, Dir(dir), m, h, false); err != nil {
		t.Fatal(err)
	}
	h.whole(t, dir, m)
}

// What another writer published is not taken back: who finds it stops for good.
func TestTwoWritersOfOneLog(t *testing.T) {
	dir, one, two := t.TempDir(), newMemory(), newMemory()
	one.add(100, "a")
	two.add(100, "a")
	first, a, err := follow(t, dir, one)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(t.Context(), 99); err != nil {
		t.Fatal(err)
	}
	second, b, err := follow(t, dir, two)
	if err != nil {
		t.Fatal(err)
	}
	one.add(50, "a")
	if err := first.Wait(t.Context(), 149); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, CheckpointPath))
	if err != nil {
		t.Fatal(err)
	}
	two.add(50, "b") // the same places, of another history
	select {
	case <-second.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if !errors.Is(second.Err(), ErrFork) || !strings.Contains(second.Err().Error(), "another writer") {
		t.Errorf("it says %v", second.Err())
	}
	after, err := os.ReadFile(filepath.Join(dir, CheckpointPath))
	if err != nil || !bytes.Equal(before, after) || b.Latest().Size != 100 {
		t.Errorf("it has published: %s, %v", after, err)
	}
	if err := first.Stop(t.Context()); err != nil || a.Latest().Size != 150 {
		t.Errorf("%d, %v", a.Latest().Size, err)
	}
	(&history{}).whole(t, dir, one)
}
