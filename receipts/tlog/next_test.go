package tlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ/writtest"
)

// Where a log and its ledger part is found entry by entry, whether the ledger is shorter,
// of another history from some receipt on, or from the first.
func TestWhereLogAndLedgerPart(t *testing.T) {
	public := func(string) ([]byte, bool) { return []byte("der"), true }
	dir, m := t.TempDir(), newMemory()
	theirs := func(m *memory) { // a verdict is the last entry of a file
		if len(m.list) > width {
			m.list[width-1].Public = []byte("a key that nobody else knows")
		}
	}
	m.add(600, "a")
	theirs(m)
	l, err := Open(dir, testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := NewFollower(l, m, public, MinEvery).round(t.Context()); err != nil {
		t.Fatal(err)
	}
	cp := l.Latest()
	ref := &plain{}
	roots := []tlog.Hash{{}}
	for i, r := range m.list {
		ref.add(t, int64(i), Leaf(r, []byte("der")))
		root, err := tlog.TreeHash(int64(i+1), ref)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	of := func(same, other int) *memory {
		n := newMemory()
		n.add(same, "a")
		n.add(other, "b")
		theirs(n)
		return n
	}
	for name, c := range map[string]struct {
		ledger *memory
		common int64
		other  int // of the orphans the ledger has another of so many
	}{
		"the same":             {of(600, 0), 600, 0},
		"longer":               {of(700, 0), 600, 0},
		"empty":                {of(0, 0), 0, 0},
		"one":                  {of(1, 0), 1, 0},
		"shorter":              {of(300, 0), 300, 0},
		"shorter by a tile":    {of(512, 0), 512, 0},
		"gone on":              {of(300, 100), 300, 100},
		"gone on, and beyond":  {of(256, 600), 256, 344},
		"another":              {of(0, 50), 0, 50},
		"another, and as long": {of(0, 600), 0, 600},
	} {
		p, err := Part(t.Context(), Dir(dir), cp, c.ledger, public)
		if err != nil || p.Incomplete != nil {
			t.Fatalf("%s: %v, %v", name, err, p.Incomplete)
		}
		if p.Common != c.common || p.CommonRoot != roots[c.common] || int64(len(p.Orphans)) != cp.Size-c.common {
			t.Errorf("%s: %d in common, root %v, %d orphans", name, p.Common, p.CommonRoot, len(p.Orphans))
		}
		for i, o := range p.Orphans {
			digest, _, _, err := parseLeaf(Leaf(m.list[c.common+int64(i)], []byte("der")))
			if err != nil || o.Index != c.common+int64(i) || o.Digest != fmt.Sprintf("%x", digest) || o.Other != (i < c.other) {
				t.Fatalf("%s: orphan %d is %+v, %v", name, i, o, err)
			}
		}
	}
	// What its files do not show is said.
	short := of(10, 0)
	path := filepath.Join(dir, tilePath(entriesLevel, 1, width))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if p, err := Part(t.Context(), Dir(dir), cp, short, public); err != nil || p.Incomplete == nil || p.Common != 10 || len(p.Orphans) != 246 {
		t.Errorf("a file is gone: %+v, %v", p, err)
	}
	text[500] ^= 1
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := Part(t.Context(), Dir(dir), cp, short, public); err != nil || !errors.Is(p.Incomplete, ErrDamaged) || len(p.Orphans) != 590 {
		t.Errorf("a file is damaged: %+v, %v", p.Incomplete, err)
	}
	// Nor is it an orphan, where the ledger has what was published.
	whole := of(600, 50)
	for _, how := range []string{"damaged", "gone"} {
		if p, err := Part(t.Context(), Dir(dir), cp, whole, public); err != nil || p.Incomplete == nil || p.Common != cp.Size || p.CommonRoot != cp.Root || len(p.Orphans) > 0 {
			t.Errorf("a file is %s, and the ledger is whole: %d in common, %d orphans, %v, %v", how, p.Common, len(p.Orphans), p.Incomplete, err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, text[:500], 0o644); err != nil {
		t.Fatal(err)
	}
	if p, err := Part(t.Context(), Dir(dir), cp, short, public); err != nil || !errors.Is(p.Incomplete, ErrDamaged) || p.Common != 10 || len(p.Orphans) != 246 {
		t.Errorf("a file is cut off: %+v, %v", p.Incomplete, err)
	}
	if _, err := Part(t.Context(), Dir(dir), cp, short, func(string) ([]byte, bool) { return nil, false }); err == nil {
		t.Error("of a key that is not there it says what the ledger has")
	}
}

// What a shard says of the one before it, as it is stored: the list first, so that what
// freezes the one before is never without it.
func TestFreeze(t *testing.T) {
	dir := t.TempDir()
	next := Below(Dir(dir), "s2")
	if _, is, err := Frozen(next); is || err != nil {
		t.Fatal(is, err)
	}
	key := testKey(t)
	cp, err := key.checkpoint(3, tlog.Hash{1})
	if err != nil {
		t.Fatal(err)
	}
	p := Previous{Log: "s2.writ.local", Before: "writ.local", Key: verifierOf(t, key), Checkpoint: string(cp.Text), Common: 1, CommonRoot: make([]byte, 32), Incomplete: "why"}
	orphans := []Orphan{{Index: 1, Digest: fmt.Sprintf("%x", make([]byte, 32)), Other: true}, {Index: 2}}
	failing := &crashing{Dir: Dir(filepath.Join(dir, "s2")), left: 2, err: errCrash}
	if err := Freeze(failing, p, orphans); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	if _, is, err := Frozen(next); is || err != nil {
		t.Errorf("half begun: %v, %v", is, err)
	}
	if err := Freeze(next, Previous{Log: "s2.writ.local"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := Freeze(next, p, orphans); err != nil { // again, and something else
		t.Fatal(err)
	}
	got, is, err := Frozen(next)
	if p.Format, p.Orphans = PreviousFormat, 2; !is || err != nil || got.Checkpoint != p.Checkpoint || got.Orphans != 2 || got.Format != PreviousFormat {
		t.Errorf("%+v, %v, %v", got, is, err)
	}
	for _, name := range []string{PreviousPath, OrphansPath} {
		text, err := os.ReadFile(filepath.Join(dir, "s2", name))
		if err != nil {
			t.Fatal(err)
		}
		writtest.GoldenFile(t, *update, filepath.Join("testdata", name), text)
	}
	for _, bad := range []string{"", "{}", `{"format":"writ-log-previous/v2"}`} {
		if err := os.WriteFile(filepath.Join(dir, "s2", PreviousPath), []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, is, err := Frozen(next); !is || err == nil {
			t.Errorf("%q: %v, %v", bad, is, err)
		}
	}
}

// silent are files of a store that does not answer.
type silent struct{ Files }

func (silent) Read(string) ([]byte, error) { return nil, errors.New("503") }

// A store that does not answer says nothing of what the log has.
func TestWhereTheyPartIsNotGuessed(t *testing.T) {
	public := func(string) ([]byte, bool) { return []byte("der"), true }
	if p, err := Part(t.Context(), silent{}, Checkpoint{Size: 3}, newMemory(), public); err == nil || p.Incomplete != nil {
		t.Errorf("%+v, %v", p, err)
	}
}
