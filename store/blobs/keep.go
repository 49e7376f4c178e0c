package blobs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
)

// Limit sets how many bytes the directory may hold in all; 0 is no limit. What
// other processes add is known when it is counted again, by Sweep.
func (d *Dir) Limit(total int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.total = total
}

// Used are the bytes of blobs, as last counted, and of bodies being taken in.
func (d *Dir) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kept + d.staged
}

// reserve counts bytes that are about to be written, if there is room for them.
func (d *Dir) reserve(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.total > 0 && d.kept+d.staged+n > d.total {
		return false
	}
	d.staged += n
	return true
}

func (d *Dir) count(staged, kept int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.staged += staged
	d.kept += kept
}

// Examine reads a blob to its end and says how it is.
func (d *Dir) Examine(ctx context.Context, digest string) (writ.BlobState, error) {
	r, err := d.Get(ctx, digest)
	if writ.CodeOf(err) == writ.CodeNotFound {
		return writ.BlobAbsent, nil
	}
	if err != nil {
		return "", err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, whileAlive{ctx, r})
	switch {
	case err == nil:
		return writ.BlobIntact, nil
	case errors.Is(err, ErrDamaged):
		return writ.BlobDamaged, nil
	}
	return "", writ.AsError("blobs.Examine", err)
}

// Sweep removes the blobs nobody wants that are older than age, and counts the
// rest. wanted is asked twice about each that goes. removed counts them. What writers
// left behind that died goes too.
func (d *Dir) Sweep(ctx context.Context, age time.Duration, wanted func(ctx context.Context, digest string) (bool, error)) (removed int, err error) {
	const op = "blobs.Sweep"
	var bytes int64
	now, err := d.clock()
	if err != nil {
		return 0, fault(op, err)
	}
	dirs, err := os.ReadDir(d.path("sha256"))
	if err != nil {
		return 0, fault(op, err)
	}
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue // none of ours
		}
		files, err := os.ReadDir(d.path("sha256", dir.Name()))
		if err != nil {
			return removed, fault(op, err)
		}
		for _, f := range files {
			digest := prefix + dir.Name() + f.Name()
			info, err := f.Info()
			if _, bad := ParseDigest(digest); bad != nil || err != nil {
				continue // none of ours, or gone
			}
			gone := false
			if now.Sub(info.ModTime()) > age {
				if gone, err = d.remove(ctx, digest, now, age, wanted); err != nil {
					return removed, writ.AsError(op, err)
				}
			}
			if gone {
				removed++
			} else {
				bytes += info.Size()
			}
		}
	}
	d.mu.Lock()
	d.kept = bytes
	d.mu.Unlock()
	if err := d.sweep(); err != nil {
		return removed, fault(op, err)
	}
	return removed, nil
}

// taken begins the names of files on their way out: the digest follows, and what
// tells those who take away the same one at a time apart. One that took a file must
// never find another's in its place: that may be newer, and wanted.
const taken = "out-"

func takenName(digits string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails on the platforms Go supports
	return taken + digits + "-" + hex.EncodeToString(b[:])
}

// remove takes a blob away that nobody wants. Somebody may store the same bytes
// and begin to want them at any moment; that is a new file then (Keep), so a file
// that was taken out of its place and is old is not the one they want, unless they
// wanted it before: this is asked once more when it is out of reach.
func (d *Dir) remove(ctx context.Context, digest string, now time.Time, age time.Duration, wanted func(context.Context, string) (bool, error)) (bool, error) {
	if keep, err := wanted(ctx, digest); keep || err != nil {
		return false, err
	}
	digits := strings.TrimPrefix(digest, prefix)
	name, out := d.path("sha256", digits[:2], digits[2:]), d.path("tmp", takenName(digits))
	if err := os.Rename(name, out); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // another replica was first
		}
		return false, err
	}
	info, err := os.Lstat(out)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // a replica that starts has put it back
		}
		return false, err
	}
	keep, err := wanted(ctx, digest)
	if keep || err != nil || now.Sub(info.ModTime()) <= age {
		return false, errors.Join(err, d.putBack(out, digits))
	}
	if err := os.Remove(out); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // a replica that starts has put it back
		}
		return false, err
	}
	return true, nil
}

// putBack gives a file on its way out its place again, if no newer one has it.
func (d *Dir) putBack(out, digits string) error {
	if err := os.Link(out, d.path("sha256", digits[:2], digits[2:])); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := durable.SyncDir(d.path("sha256", digits[:2])); err != nil {
		return err
	}
	if err := os.Remove(out); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// restore puts back what somebody was about to remove who died.
func (d *Dir) restore() error {
	entries, err := os.ReadDir(d.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), taken)
		digits, _, _ = strings.Cut(digits, "-")
		if _, err := ParseDigest(prefix + digits); !ok || err != nil {
			continue
		}
		if err := d.putBack(d.path("tmp", e.Name()), digits); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// clock is the folder's own time: it may be another host's.
func (d *Dir) clock() (time.Time, error) {
	probe, err := os.CreateTemp(d.path("tmp"), "put-")
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(probe.Name())
	info, err := probe.Stat()
	if err := errors.Join(err, probe.Close()); err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}
