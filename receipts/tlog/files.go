package tlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-gateway/writ/internal/durable"
)

// Files are where a log is kept, each under its path (C2SP tlog-tiles). Each is
// whatever it was or what it becomes, whole, also after a crash.
type Files interface {
	// Read gives a file, and fs.ErrNotExist where there is none.
	Read(path string) ([]byte, error)
	// Swap writes a file durably in the place of one that holds old, nil: of none. It is
	// ErrTaken, and nothing is written, when something else is there. It may be said again
	// of what was written and not answered.
	Swap(path string, old, data []byte) error
	// Clear removes all files below a directory.
	Clear(dir string) error
	// String says where they are.
	String() string
}

// ErrTaken: somebody else has written a file meanwhile.
var ErrTaken = errors.New("another writer has changed the files of the log")

// Dir are files in a directory. One process writes to it: whoever holds the ledger.
type Dir string

func (d Dir) String() string { return string(d) }

// Read implements Files.
func (d Dir) Read(path string) ([]byte, error) { return os.ReadFile(filepath.Join(string(d), path)) }

// Swap implements Files.
func (d Dir) Swap(path string, old, data []byte) error {
	have, err := d.Read(path)
	switch {
	case err == nil && bytes.Equal(have, data):
		return nil
	case err == nil && (old == nil || !bytes.Equal(have, old)), errors.Is(err, fs.ErrNotExist) && old != nil:
		return fmt.Errorf("%w: %s", ErrTaken, path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	path = filepath.Join(string(d), path)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	return durable.Replace(path, data, 0o644)
}

// Clear implements Files.
func (d Dir) Clear(dir string) error { return os.RemoveAll(filepath.Join(string(d), dir)) }

// makeDir makes a directory and those above it, each synced into its parent.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}
