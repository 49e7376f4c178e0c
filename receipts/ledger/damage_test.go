package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/writ-gateway/writ"
)

// unsynced is a disk for tests that do not crash for real.
type unsynced struct{ disk }

func (unsynced) Sync() error { return nil }

// A crash can end the file anywhere within the last group. Whatever is left of
// it, the ledger is a prefix, and goes on.
func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, SegmentBytes)
	mustAppend(t, l, entries(0, 3))
	mustAppend(t, l, entries(4, 6)) // the group that is torn
	seg := filepath.Join(dir, segmentName(0))
	whole, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	var ends []int // of each record
	for _, x := range l.segs[0].entries[1:] {
		ends = append(ends, int(x.off))
	}
	ends = append(ends, len(whole))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	synced := ends[3]
	check := func(name string, text []byte) {
		t.Helper()
		last := int64(3)
		for last < 6 && bytes.HasPrefix(text, whole[:ends[last+1]]) {
			last++
		}
		if err := os.WriteFile(seg, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := open(dir, SegmentBytes, func(d disk) disk { return unsynced{d} })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer l.Close()
		if want := int64(len(text) - ends[last]); l.Cut() != want {
			t.Fatalf("%s: cut %d bytes, want %d", name, l.Cut(), want)
		}
		holds(t, l, last)
		mustAppend(t, l, entries(last+1, last+2))
		holds(t, l, last+2)
	}
	for n := synced; n <= len(whole); n++ {
		check(fmt.Sprintf("cut at %d", n), whole[:n])
		// The file system may have given the file its length and not its bytes.
		check(fmt.Sprintf("zeros from %d", n), append(slices.Clone(whole[:n]), make([]byte, len(whole)-n+40)...))
	}
	// Blocks can reach the disk in any order: the end of the group without its
	// beginning is a torn group too.
	for n := synced; n < ends[4]; n++ {
		torn := slices.Clone(whole)
		torn[n] ^= 0x5a
		check(fmt.Sprintf("byte %d of the group lost", n), torn)
	}
}

// Damage to what was synced long ago is never mistaken for a torn end.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, 500)
	for last := int64(-1); last < 15; last += 2 {
		mustAppend(t, l, entries(last+1, last+2))
	}
	n := len(l.segs)
	firsts := []int64{l.segs[0].first, l.segs[n-2].first, l.segs[n-1].first}
	secondGroup := l.segs[n-1].entries
	if n < 3 || len(secondGroup) < 4 {
		t.Fatalf("%d segments, %d in the last: the test wants more", n, len(secondGroup))
	}
	end := secondGroup[2].off // of the first group of the last segment
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	refused := func(name string, want error) {
		t.Helper()
		l, err := Open(dir)
		if err == nil {
			l.Close()
		}
		if want != nil && !errors.Is(err, want) || err == nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e, ok := errors.AsType[*writ.Error](err); !ok || e.Hint == "" {
			t.Errorf("%s: no hint: %v", name, err)
		}
	}
	for i, first := range firsts {
		path := filepath.Join(dir, segmentName(first))
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		upto := int64(len(whole))
		if i == 2 {
			upto = end
		}
		index, indexErr := os.ReadFile(filepath.Join(dir, indexName(first)))
		for at := range upto {
			bad := slices.Clone(whole)
			bad[at] ^= 0x10
			if err := errors.Join(os.WriteFile(path, bad, 0o600), remove(filepath.Join(dir, indexName(first)))); err != nil {
				t.Fatal(err)
			}
			refused(fmt.Sprintf("segment %d, byte %d", first, at), ErrCorrupt)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if indexErr != nil {
			continue
		}
		// With an index the segment is not read at the start; reading is what notices.
		bad := slices.Clone(whole)
		bad[20] ^= 1
		if err := errors.Join(os.WriteFile(filepath.Join(dir, indexName(first)), index, 0o600), os.WriteFile(path, bad, 0o600)); err != nil {
			t.Fatal(err)
		}
		l := mustOpen(t, dir, 500)
		if _, _, err := l.Get(first); !errors.Is(err, ErrCorrupt) {
			t.Errorf("segment %d: read a damaged receipt: %v", first, err)
		}
		if _, err := l.Range(-1, 99, ""); !errors.Is(err, ErrCorrupt) {
			t.Errorf("segment %d: read a damaged page: %v", first, err)
		}
		if err := l.Check(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("segment %d: Check is content: %v", first, err)
		}
		if err := errors.Join(l.Close(), os.WriteFile(path, whole, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	middle := filepath.Join(dir, segmentName(firsts[1]))
	if err := os.Rename(middle, middle+".away"); err != nil {
		t.Fatal(err)
	}
	refused("a segment is missing", ErrCorrupt)
	if err := errors.Join(os.Rename(middle+".away", middle), os.Mkdir(filepath.Join(dir, segmentName(99)), 0o700)); err != nil {
		t.Fatal(err)
	}
	refused("a directory as a segment", nil)
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// faulty is a disk that does, of one write, what fault says.
type faulty struct {
	disk
	fault *fault
}

type fault struct {
	write, sync, truncate error
	keep                  int // bytes of the failing write that reach the disk
}

func (f faulty) WriteAt(b []byte, off int64) (int, error) {
	if f.fault.write == nil {
		return f.disk.WriteAt(b, off)
	}
	n, err := f.disk.WriteAt(b[:min(f.fault.keep, len(b))], off)
	return n, errors.Join(err, f.fault.write)
}

func (f faulty) Sync() error { return errors.Join(f.fault.sync, f.disk.Sync()) }

func (f faulty) Truncate(n int64) error {
	if f.fault.truncate != nil {
		return f.fault.truncate
	}
	return f.disk.Truncate(n)
}

func TestFailingDisk(t *testing.T) {
	dir := t.TempDir()
	var now fault
	l, err := open(dir, SegmentBytes, func(d disk) disk { return faulty{d, &now} })
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, entries(0, 2))
	for _, keep := range []int{0, 1, 60, 1 << 20} {
		now = fault{write: syscall.ENOSPC, keep: keep}
		if err := l.Append(entries(3, 5)); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrFailed) {
			t.Errorf("full disk after %d bytes: %v", keep, err)
		}
		holds(t, l, 2)
	}
	now = fault{}
	mustAppend(t, l, entries(3, 4)) // there is room again
	holds(t, l, 4)

	now = fault{sync: syscall.EIO}
	if err := l.Append(entries(5, 6)); !errors.Is(err, ErrFailed) {
		t.Errorf("failed sync: %v", err)
	}
	now = fault{}
	if err := l.Append(entries(5, 6)); !errors.Is(err, ErrFailed) {
		t.Errorf("after a failed sync: %v", err)
	}
	holds(t, l, 4) // still readable
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, SegmentBytes) // here the bytes did reach the disk
	holds(t, l, 6)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	now = fault{write: syscall.EIO, truncate: syscall.EIO, keep: 30}
	if l, err = open(dir, SegmentBytes, func(d disk) disk { return faulty{d, &now} }); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(entries(7, 8)); !errors.Is(err, syscall.EIO) {
		t.Errorf("failed write: %v", err)
	}
	now = fault{}
	if err := l.Append(entries(7, 8)); !errors.Is(err, ErrFailed) {
		t.Errorf("after a write that could not be taken back: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, SegmentBytes)
	if l.Cut() != 30 {
		t.Errorf("cut %d bytes, want 30", l.Cut())
	}
	holds(t, l, 6)
}
