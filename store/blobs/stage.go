package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
)

// Staged is a body that was taken in and is no blob yet: nobody can read it, and
// it is gone with Discard unless it was kept.
type Staged struct {
	d      *Dir
	name   string
	digits string
	size   int64
	small  []byte
	moved  bool // to its place, though perhaps not durably
}

// Digest of the bytes, in the form of Put.
func (s *Staged) Digest() string { return prefix + s.digits }

// Size is how many bytes there are.
func (s *Staged) Size() int64 { return s.size }

// Small are the bytes, if there are at most writ.MaxCheckedBytes; else nil.
func (s *Staged) Small() []byte { return s.small }

// Stage takes in what r gives, at most max bytes: more are CodeTooLarge, and
// CodeQuota is what would take the directory over its limit. The bytes are on
// disk when it returns. The caller calls Discard.
func (d *Dir) Stage(ctx context.Context, r io.Reader, max int64) (*Staged, error) {
	const op = "blobs.Stage"
	max = min(max, d.max)
	f, err := os.CreateTemp(d.path("tmp"), "put-") // mode 0600
	if err != nil {
		return nil, fault(op, err)
	}
	s := &Staged{d: d, name: f.Name()}
	defer f.Close()
	w := &intake{f: f, s: s, hash: sha256.New()}
	n, err := io.Copy(w, io.LimitReader(whileAlive{ctx, r}, max+1))
	if err == nil && n > max {
		err = writ.Refuse(writ.CodeTooLarge, op, fmt.Sprintf("it has more than %d bytes", max), "split it, or store it elsewhere and refer to it")
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		s.Discard()
		if e, ok := errors.AsType[*writ.Error](err); ok {
			return nil, e
		}
		return nil, fault(op, err)
	}
	s.digits, s.small = hex.EncodeToString(w.hash.Sum(nil)), w.small.Bytes()
	if n > writ.MaxCheckedBytes {
		s.small = nil
	}
	return s, nil
}

// intake writes a temporary file and counts it.
type intake struct {
	f     *os.File
	s     *Staged
	hash  hash.Hash
	small bytes.Buffer
}

func (w *intake) Write(p []byte) (int, error) {
	if !w.s.d.reserve(int64(len(p))) {
		return 0, writ.Refuse(writ.CodeQuota, "blobs.Stage", "the gateway keeps as many bytes of artifacts as it may", "operators: raise artifact_total_mb, or let artifacts go earlier")
	}
	w.s.size += int64(len(p))
	n, err := w.f.Write(p)
	w.hash.Write(p[:n])
	if room := writ.MaxCheckedBytes - w.small.Len(); room > 0 {
		w.small.Write(p[:min(n, room)])
	}
	return n, err
}

// Keep makes it a blob. It is durable when Keep returns; keeping it again, or
// bytes that are stored already, changes nothing but that the file is a new one:
// who removes old files leaves it alone.
func (s *Staged) Keep(ctx context.Context) error {
	const op = "blobs.Keep"
	d := s.d
	if s.name == "" {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return fault(op, err)
	}
	dir, name := d.path("sha256", s.digits[:2]), d.path("sha256", s.digits[:2], s.digits[2:])
	if err := d.folder(s.digits[:2]); err != nil {
		return fault(op, err)
	}
	if !s.moved {
		if err := d.move(s, name); err != nil {
			return fault(op, err)
		}
	}
	if err := durable.SyncDir(dir); err != nil {
		return fault(op, err)
	}
	s.name = ""
	return nil
}

// folder makes the folder of the blobs that begin with two digits, durably. That it
// is there says nothing of that: who made it may not have come further.
func (d *Dir) folder(digits string) error {
	raw, err := hex.DecodeString(digits)
	if err != nil {
		return err
	}
	d.keeping.Lock()
	defer d.keeping.Unlock()
	switch err := os.Mkdir(d.path("sha256", digits), 0o700); {
	case err == nil:
	case !errors.Is(err, fs.ErrExist):
		return err
	case d.synced[raw[0]]:
		return nil
	}
	if err := durable.SyncDir(d.path("sha256")); err != nil {
		return err
	}
	d.synced[raw[0]] = true
	return nil
}

// move puts it in its place, also over an old file: that has the same bytes, or was
// damaged. One at a time, so that no file is counted twice.
func (d *Dir) move(s *Staged, name string) error {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	var before int64
	if info, err := os.Lstat(name); err == nil {
		before = info.Size()
	}
	if err := os.Rename(s.name, name); err != nil {
		return err
	}
	s.moved = true
	d.count(-s.size, s.size-before)
	return nil
}

// Discard removes what was not kept. It may be called again.
func (s *Staged) Discard() {
	if s.name == "" || s.moved {
		return
	}
	_ = os.Remove(s.name) // else OpenDir does it, a day later
	s.name = ""
	s.d.count(-s.size, 0)
}
