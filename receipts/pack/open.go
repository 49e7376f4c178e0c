package pack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Limits of what is read of a pack: whoever made it may be hostile.
const (
	maxList   = 400 << 20 // receipts.jsonl and SHA256SUMS have some 130 to 200 bytes a receipt
	maxBundle = 32 << 20  // of policies
	maxFile   = 1 << 20   // of any other file
	maxFiles  = 4 << 20

	maxReceipts = 2_000_000 // with them, and the evidence of each, none of these is reached
)

// limit is how large a file may be.
func limit(name string) int64 {
	switch {
	case name == FileList, name == FileSums:
		return maxList
	case policyPath.MatchString(name):
		return maxBundle
	}
	return maxFile
}

// Pack is a pack to be read: a directory, or an archive.
type Pack struct {
	names []string // sorted
	read  func(name string) ([]byte, error)
	close func() error
	bad   []Code // what is wrong with its outside
}

// errTooLarge is of a file no pack has.
var errTooLarge = errors.New("a file is larger than any in a pack")

// Open opens a pack. The error is for what cannot be read at all.
func Open(path string) (*Pack, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return openFolder(path)
	}
	return openArchive(path)
}

// Close ends reading.
func (p *Pack) Close() error { return p.close() }

func (p *Pack) has(name string) bool {
	_, found := slices.BinarySearch(p.names, name)
	return found
}

func openFolder(dir string) (*Pack, error) {
	root, err := os.OpenRoot(dir) // links lead nowhere else
	if err != nil {
		return nil, err
	}
	p := &Pack{close: root.Close}
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
		case !d.Type().IsRegular() || !fits(path, d):
			p.bad = append(p.bad, PackMalformed)
		case len(p.names) == maxFiles:
			return errors.New("more files than any pack has")
		default:
			p.names = append(p.names, filepath.ToSlash(path))
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	slices.Sort(p.names)
	p.read = func(name string) ([]byte, error) {
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		return all(f, limit(name))
	}
	return p, nil
}

func fits(path string, d fs.DirEntry) bool {
	info, err := d.Info()
	return err == nil && info.Size() <= limit(filepath.ToSlash(path))
}

// all reads a file, which may have grown since it was listed.
func all(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge
	}
	return b, err
}

func openArchive(path string) (*Pack, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p, err := archiveIn(f, info.Size())
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.close = f.Close
	return p, nil
}

func archiveIn(f io.ReaderAt, size int64) (*Pack, error) {
	names, places, bad, err := placesIn(f, size)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	read := func(name string) ([]byte, error) {
		at, ok := places[name]
		if !ok {
			return nil, fmt.Errorf("%w: in the archive", fs.ErrNotExist)
		}
		return all(io.NewSectionReader(f, at.at, at.size), limit(name))
	}
	return &Pack{names: names, read: read, close: func() error { return nil }, bad: bad}, nil
}

// Read gives a file of the pack.
func (p *Pack) Read(name string) ([]byte, error) { return p.read(name) }
