// Package filestest is what all files of a log must do, wherever they are.
package filestest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/writ-gateway/writ/receipts/tlog"
)

// Conform holds files to the contract of tlog.Files. open gives the same, empty, files
// each time it is called, as several processes would have them.
func Conform(t *testing.T, open func(t *testing.T) func() tlog.Files) {
	reads := func(t *testing.T, f tlog.Files, path, want string) {
		t.Helper()
		got, err := f.Read(path)
		if want == "" && !errors.Is(err, fs.ErrNotExist) || want != "" && (err != nil || string(got) != want) {
			t.Errorf("%s holds %q, %v, want %q", path, got, err, want)
		}
	}
	t.Run("there is nothing at first", func(t *testing.T) {
		f := open(t)()
		reads(t, f, "checkpoint", "")
		reads(t, f, "tile/0/000.p/7", "")
		if err := f.Clear("tile/0/000.p"); err != nil {
			t.Error(err)
		}
		if f.String() == "" {
			t.Error("nobody can tell where it is")
		}
	})
	t.Run("a file is what was written, for everybody", func(t *testing.T) {
		files := open(t)
		one, two := files(), files()
		big := strings.Repeat("\x00\xff\r\nx", 60_000)
		for _, path := range []string{"checkpoint", "tile/0/x001/234", "tile/entries/000.p/255"} {
			if err := one.Swap(path, nil, []byte(path+big)); err != nil {
				t.Fatal(err)
			}
			reads(t, two, path, path+big)
		}
	})
	t.Run("a file is written over only by who knows what it holds", func(t *testing.T) {
		files := open(t)
		one, two := files(), files()
		taken := func(err error) {
			t.Helper()
			if !errors.Is(err, tlog.ErrTaken) {
				t.Errorf("it says %v", err)
			}
		}
		taken(one.Swap("checkpoint", []byte("0"), []byte("1"))) // there is none
		reads(t, one, "checkpoint", "")
		if err := one.Swap("checkpoint", nil, []byte("1")); err != nil {
			t.Fatal(err)
		}
		taken(two.Swap("checkpoint", nil, []byte("2")))
		taken(two.Swap("checkpoint", []byte("0"), []byte("2")))
		reads(t, two, "checkpoint", "1")
		if err := two.Swap("checkpoint", []byte("1"), []byte("2")); err != nil {
			t.Fatal(err)
		}
		taken(one.Swap("checkpoint", []byte("1"), []byte("3")))
		reads(t, one, "checkpoint", "2")
	})
	t.Run("what was written may be written again", func(t *testing.T) {
		f := open(t)()
		for range 2 {
			if err := f.Swap("checkpoint", nil, []byte("1")); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := f.Swap("checkpoint", []byte("1"), []byte("2")); err != nil {
				t.Fatal(err)
			}
		}
		reads(t, f, "checkpoint", "2")
	})
	t.Run("clearing takes what is below, and nothing else", func(t *testing.T) {
		f := open(t)()
		for _, path := range []string{"tile/0/000.p/1", "tile/0/000.p/2", "tile/0/000", "tile/0/0001.p/1", "tile/0/000.px"} {
			if err := f.Swap(path, nil, []byte(path)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := f.Clear("tile/0/000.p"); err != nil {
				t.Fatal(err)
			}
		}
		reads(t, f, "tile/0/000.p/1", "")
		reads(t, f, "tile/0/000.p/2", "")
		for _, path := range []string{"tile/0/000", "tile/0/0001.p/1", "tile/0/000.px"} {
			reads(t, f, path, path)
		}
	})
}

// Race holds files that several processes may write to more: of those that replace a file
// at once one does.
func Race(t *testing.T, open func() tlog.Files) {
	before := []byte(nil)
	for round := range 20 {
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			f := open()
			wg.Go(func() { errs[i] = f.Swap("checkpoint", before, fmt.Appendf(nil, "%d by %d", round, i)) })
		}
		wg.Wait()
		now, err := open().Read("checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range errs {
			mine := bytes.Equal(now, fmt.Appendf(nil, "%d by %d", round, i))
			if mine != (err == nil) || err != nil && !errors.Is(err, tlog.ErrTaken) {
				t.Fatalf("round %d: %d was told %v, and there is %q", round, i, err, now)
			}
		}
		before = now
	}
}
