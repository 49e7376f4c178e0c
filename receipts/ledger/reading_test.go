package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Reading changes nothing: not a torn end, not an index that is missing, not the lock.
// Meanwhile nobody writes, and others may read.
func TestReadChangesNothing(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, 300)
	for last := int64(-1); last < 9; last += 2 {
		mustAppend(t, l, entries(last+1, last+2))
	}
	if len(l.segs) < 3 {
		t.Fatalf("%d segments: this tests too little", len(l.segs))
	}
	last := filepath.Join(dir, segmentName(l.segs[len(l.segs)-1].first))
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "is held by pid") {
		t.Errorf("beside who writes: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(last, append(whole, "wrcp and no more"...), 0o600), os.Remove(filepath.Join(dir, indexName(0)))); err != nil {
		t.Fatal(err)
	}
	for _, lock := range []bool{true, false} {
		if !lock { // as in a copy that left it out
			if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
				t.Fatal(err)
			}
		}
		before := writtest.Files(t, dir)
		r, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		other, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		holds(t, r, 9)
		holds(t, other, 9)
		if r.Cut() != int64(len("wrcp and no more")) {
			t.Errorf("%d bytes were left out", r.Cut())
		}
		if err := r.Append(entries(10, 10)); !errors.Is(err, ErrReading) {
			t.Errorf("appended: %v", err)
		}
		if lock {
			if _, err := Open(dir); writ.CodeOf(err) != writ.CodeNotReady || !strings.Contains(err.Error(), "a command that reads it") {
				t.Errorf("beside who reads: %v", err)
			}
		}
		if err := errors.Join(other.Close(), r.Close(), r.Close()); err != nil {
			t.Fatal(err)
		}
		writtest.SameFiles(t, dir, before)
	}
	if _, err := Read(filepath.Join(dir, "none")); writ.CodeOf(err) != writ.CodeNotReady {
		t.Errorf("a directory that is not there: %v", err)
	}
	empty := t.TempDir()
	r, err := Read(empty)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, r, -1)
	if err := r.Append(entries(0, 0)); !errors.Is(err, ErrReading) {
		t.Errorf("appended: %v", err)
	}
	if err := r.Close(); err != nil || len(writtest.Files(t, empty)) > 0 {
		t.Errorf("%v, %v", err, writtest.Files(t, empty))
	}
}
