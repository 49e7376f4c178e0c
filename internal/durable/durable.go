// Package durable writes files so that a crash leaves them whole, the old one or
// the new one, and what was written is still there after it.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Temporary is how the name of a file ends that Replace has not put in its place.
// A crash may leave one.
const Temporary = ".tmp"

// Replace puts text at path, synced, in one step: who reads it finds the old text
// or the new one, whole, and the old one is gone from the directory when it
// returns. One file is replaced by one at a time.
func Replace(path string, text []byte, mode fs.FileMode) error {
	tmp := path + Temporary
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
