package pack

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Sink takes the files of a pack, each once, in the order a pack has them.
type Sink interface {
	File(name string, text []byte) error
	// Close ends the pack. Without it there is none.
	Close() error
}

// Directory puts a pack into a new directory.
func Directory(dir string) (Sink, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return &folder{dir: dir, made: map[string]bool{}}, nil
}

type folder struct {
	dir  string
	made map[string]bool
}

func (f *folder) File(name string, text []byte) error {
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if d := filepath.Dir(path); !f.made[d] {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		f.made[d] = true
	}
	return os.WriteFile(path, text, 0o644)
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
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	if err := a.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.tar.Write(text)
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
	sums strings.Builder
}

func (s *summed) File(name string, text []byte) error {
	sum := sha256.Sum256(text)
	s.sums.WriteString(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	return s.Sink.File(name, text)
}
