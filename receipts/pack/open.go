package pack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of what is read of a pack: whoever made it may be hostile.
const (
	maxFile  = 1 << 30 // of one file; receipts.jsonl and SHA256SUMS have some 150 to 250 bytes a receipt
	maxFiles = 4 << 20
)

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
		case !d.Type().IsRegular():
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
		return all(f)
	}
	return p, nil
}

func all(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errTooLarge
	}
	return b, err
}

// counted says how far a reader has got. It cannot seek, so the archive is read block by
// block, and the count is where a file begins.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

func openArchive(path string) (*Pack, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p := &Pack{close: f.Close}
	type place struct{ at, size int64 }
	places := map[string]place{}
	in := &counted{r: f}
	for t := tar.NewReader(in); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.bad = append(p.bad, PackMalformed)
			break
		}
		name := strings.TrimPrefix(h.Name, "./")
		_, twice := places[name]
		switch {
		case h.Typeflag == tar.TypeDir:
		case h.Typeflag != tar.TypeReg || h.Size > maxFile:
			p.bad = append(p.bad, PackMalformed)
		case twice:
			p.bad = append(p.bad, FileTwice)
		case len(places) == maxFiles:
			return nil, errors.Join(errors.New("more files than any pack has"), f.Close())
		default:
			places[name] = place{in.n, h.Size}
			p.names = append(p.names, name)
		}
	}
	slices.Sort(p.names)
	p.read = func(name string) ([]byte, error) {
		at, ok := places[name]
		if !ok {
			return nil, fmt.Errorf("%w: in the archive", fs.ErrNotExist)
		}
		return all(io.NewSectionReader(f, at.at, at.size))
	}
	return p, nil
}

// Read gives a file of the pack.
func (p *Pack) Read(name string) ([]byte, error) { return p.read(name) }
