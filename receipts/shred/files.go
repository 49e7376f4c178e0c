package shred

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ/internal/durable"
	"github.com/writ-gateway/writ/receipts/ledger"
)

// fileProcessed says up to which sequence of the ledger shreddings are done.
const fileProcessed = "processed"

// files are the keys of a ledger on disk.
type files struct {
	dir    string
	size   int64 // bytes of the last file
	failed error // a sync failed: nobody knows what the disk holds
}

// open makes the directory if needed, tidies up behind a crash and gives the
// slots of every file, in order. Reading, it gives the slots and no more.
func (f *files) open(reading bool, each func(file int64, slots []slot)) error {
	if !reading {
		if err := os.MkdirAll(f.dir, 0o700); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(f.dir)
	if err != nil && !(reading && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	var numbers []int64
	for _, e := range list {
		var n int64
		if strings.HasSuffix(e.Name(), durable.Temporary) {
			// A replacement that a crash has stopped. It may hold what was to be destroyed.
			if reading {
				continue
			}
			if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil {
				return err
			}
		} else if _, err := fmt.Sscanf(e.Name(), "%d.keys", &n); err == nil && e.Name() == fileName(n) {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	for i, n := range numbers {
		b, err := os.ReadFile(f.path(n))
		if err != nil {
			return err
		}
		slots, cut, err := parseFile(b, n, i == len(numbers)-1)
		if err != nil {
			return err
		}
		if cut < len(b) && !reading {
			if err := truncate(f.path(n), int64(cut)); err != nil {
				return err
			}
		}
		f.size = int64(cut)
		each(n, slots)
	}
	return nil
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

func (f *files) path(file int64) string { return filepath.Join(f.dir, fileName(file)) }

// add puts keys behind those there are (before of them): a group for each file
// it takes, each synced.
func (f *files) add(before int64, made []slot) error {
	for len(made) > 0 {
		file, in := before/perFile, before%perFile
		n := min(int64(len(made)), perFile-in)
		var b []byte
		if in == 0 {
			b = header(file)
		}
		for i, s := range made[:n] {
			s.place = i
			b = s.append(b)
		}
		if in == 0 {
			if err := durable.Replace(f.path(file), b, 0o600); err != nil {
				return err
			}
			f.size = 0
		} else if err := f.extend(file, b); err != nil {
			return err
		}
		f.size += int64(len(b))
		before, made = before+n, made[n:]
	}
	return nil
}

// begin makes a file without keys: no number before it is given to another key.
func (f *files) begin(file int64) error {
	b := header(file)
	if err := durable.Replace(f.path(file), b, 0o600); err != nil {
		return err
	}
	f.size = int64(len(b))
	return nil
}

func (f *files) extend(file int64, b []byte) error {
	w, err := os.OpenFile(f.path(file), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(b, f.size); err != nil {
		// A full disk may have room again later: take back what was written.
		if cut := w.Truncate(f.size); cut != nil {
			f.failed = fmt.Errorf("%w: %w", ledger.ErrFailed, cut)
		}
		return errors.Join(err, w.Close())
	}
	if err := w.Sync(); err != nil {
		f.failed = fmt.Errorf("%w: %w", ledger.ErrFailed, err)
		return errors.Join(f.failed, w.Close())
	}
	return w.Close()
}

// read is one key.
func (f *files) read(n int64) (slot, error) {
	r, err := os.Open(f.path((n - 1) / perFile))
	if err != nil {
		return slot{}, err
	}
	defer r.Close()
	b := make([]byte, slotBytes)
	if _, err := r.ReadAt(b, slotAt(n)); err != nil {
		return slot{}, err
	}
	s, ok := parseSlot(b)
	if !ok {
		return s, damagedKey(n)
	}
	return s, nil
}

// destroy replaces a file by one in which keys of a shredded run are not.
func (f *files) destroy(file int64, keys []int64, o order) error {
	b, err := os.ReadFile(f.path(file))
	if err != nil {
		return err
	}
	for _, n := range keys {
		at := slotAt(n)
		s, ok := parseSlot(b[at:])
		if !ok || s.owner != o.owner {
			return damagedKey(n)
		}
		s.state, s.key = shredded, [nonceBytes + sealedBytes]byte{}
		id := ledger.Binary(string(o.receipt))
		copy(s.key[:], id[:])
		copy(b[at:], s.append(nil))
	}
	return durable.Replace(f.path(file), b, 0o600)
}

func slotAt(n int64) int64 { return fileHead + (n-1)%perFile*slotBytes }

func damagedKey(n int64) error { return fmt.Errorf("key %d is damaged", n) }

// processed is up to which sequence shreddings are done; -1: none is.
func (f *files) processed() (int64, error) {
	text, err := os.ReadFile(filepath.Join(f.dir, fileProcessed))
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	seq, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", fileProcessed, err)
	}
	return seq, nil
}

func (f *files) setProcessed(seq int64) error {
	return durable.Replace(filepath.Join(f.dir, fileProcessed), []byte(strconv.FormatInt(seq, 10)+"\n"), 0o600)
}
