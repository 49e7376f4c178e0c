package pack

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Sink takes the files of a pack, each once, in the order a pack has them.
type Sink interface {
	File(name string, text []byte) error
	// Copy is File of what is too large for memory.
	Copy(name string, size int64, text io.Reader) error
	// Close ends the pack. Without it there is none.
	Close() error
}

// Directory puts a pack into a new directory, which nobody else may read where it is
// private.
func Directory(dir string, private bool) (Sink, error) {
	f := &folder{dir: dir, folders: 0o755, files: 0o644, made: map[string]bool{}}
	if private {
		f.folders, f.files = 0o700, 0o600
	}
	if err := os.Mkdir(dir, f.folders); err != nil {
		return nil, err
	}
	return f, nil
}

type folder struct {
	dir            string
	folders, files os.FileMode
	made           map[string]bool
}

func (f *folder) File(name string, text []byte) error {
	return f.Copy(name, int64(len(text)), bytes.NewReader(text))
}

func (f *folder) Copy(name string, _ int64, text io.Reader) error {
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if d := filepath.Dir(path); !f.made[d] {
		if err := os.MkdirAll(d, f.folders); err != nil {
			return err
		}
		f.made[d] = true
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.files)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, text)
	return errors.Join(err, out.Close())
}

func (f *folder) Close() error { return nil }

// Tar writes a pack as an archive that says nothing of who made it, and when.
func Tar(w io.Writer) Sink {
	out := bufio.NewWriterSize(w, 1<<16)
	return &archive{out: out, tar: tar.NewWriter(out)}
}

type archive struct {
	out *bufio.Writer
	tar *tar.Writer
}

func (a *archive) File(name string, text []byte) error {
	return a.Copy(name, int64(len(text)), bytes.NewReader(text))
}

func (a *archive) Copy(name string, size int64, text io.Reader) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(a.tar, text)
	return err
}

func (a *archive) Close() error {
	if err := a.tar.Close(); err != nil {
		return err
	}
	return a.out.Flush()
}

// summed notes the sum of every file, as sha256sum writes it.
type summed struct {
	Sink
	sums *paper
}

func (s *summed) note(name string, sum []byte) error {
	return s.sums.add([]byte(hex.EncodeToString(sum) + "  " + name + "\n"))
}

func (s *summed) File(name string, text []byte) error {
	sum := sha256.Sum256(text)
	if err := s.note(name, sum[:]); err != nil {
		return err
	}
	return s.Sink.File(name, text)
}

func (s *summed) Copy(name string, size int64, text io.Reader) error {
	h := sha256.New()
	if err := s.Sink.Copy(name, size, io.TeeReader(text, h)); err != nil {
		return err
	}
	return s.note(name, h.Sum(nil))
}

// paper is a text that grows with the log: it is on disk.
type paper struct {
	file *os.File
	size int64
}

func (p *paper) add(text []byte) error {
	n, err := p.file.WriteAt(text, p.size)
	p.size += int64(n)
	return err
}

func (p *paper) text() io.Reader { return io.NewSectionReader(p.file, 0, p.size) }
