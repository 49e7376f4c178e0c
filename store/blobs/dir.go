package blobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
)

// Dir keeps blobs as files <root>/sha256/<first two digits>/<the others>,
// folders 0700, files 0600. Several processes may share it.
//
// A blob is written in these steps; what a crash leaves after each:
//  1. temporary file in <root>/tmp   a file nobody looks at, removed by OpenDir and Sweep
//  2. sync of the file               the same
//  3. rename to its final name       a whole blob, or still the temporary one
//  4. sync of the folder             the blob
type Dir struct {
	root string
	max  int64

	mu     sync.Mutex
	staged int64 // bytes of temporary files of this process
	kept   int64 // bytes of blobs, as last counted and added to since
	total  int64 // the most of both; 0: no limit

	keeping sync.Mutex
	synced  [256]bool // folders whose names are known to be on disk
}

var _ Blobs = (*Dir)(nil)

// MaxBytes is the size limit of a blob when OpenDir is given none.
const MaxBytes = 64 << 20

// staleAfter is the age at which a temporary file has no writer any more: nobody
// writes one for longer than some minutes.
const staleAfter = 3600 // seconds

// OpenDir opens or creates a directory of blobs of at most max bytes each;
// MaxBytes when max is 0.
func OpenDir(root string, max int64) (*Dir, error) {
	const op = "blobs.OpenDir"
	if max <= 0 {
		max = MaxBytes
	}
	d := &Dir{root: root, max: max}
	for _, dir := range []string{d.path("tmp"), d.path("sha256")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault(op, err)
		}
	}
	if err := durable.SyncDir(root); err != nil {
		return nil, fault(op, err)
	}
	if err := d.restore(); err != nil {
		return nil, fault(op, err)
	}
	if err := d.sweep(); err != nil {
		return nil, fault(op, err)
	}
	return d, nil
}

// ReadDir gives the blobs in a directory that is only read, and so need not be writable: nothing in it is
// made, mended or removed. In one that is not there is none.
func ReadDir(root string) *Dir { return &Dir{root: root, max: MaxBytes} }

func (d *Dir) path(parts ...string) string {
	return filepath.Join(append([]string{d.root}, parts...)...)
}

// sweep removes what writers left behind that died some time ago.
func (d *Dir) sweep() error {
	entries, err := os.ReadDir(d.path("tmp"))
	if err != nil {
		return err
	}
	now, err := d.clock()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), taken) {
			continue // somebody else has just taken it: see Remove
		}
		info, err := e.Info()
		if err == nil && now.Unix()-info.ModTime().Unix() > staleAfter {
			err = os.Remove(d.path("tmp", e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Put implements Blobs.
func (d *Dir) Put(ctx context.Context, r io.Reader) (string, error) {
	st, err := d.Stage(ctx, r, d.max)
	if err != nil {
		return "", err
	}
	defer st.Discard()
	return st.Digest(), st.Keep(ctx)
}

// Get implements Blobs.
func (d *Dir) Get(ctx context.Context, digest string) (io.ReadCloser, error) {
	r, _, err := d.Open(ctx, digest)
	return r, err
}

// Open is Get, with how many bytes there are.
func (d *Dir) Open(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	const op = "blobs.Get"
	name, err := d.find(ctx, digest)
	if err != nil {
		return nil, 0, writ.AsError(op, err)
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, writ.Refuse(writ.CodeNotFound, op, "there is no such blob", "check the digest, or put the blob first")
	}
	if err != nil {
		return nil, 0, fault(op, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fault(op, errors.Join(err, f.Close()))
	}
	return &verified{f: f, hash: sha256.New(), want: digest}, info.Size(), nil
}

// Has implements Blobs.
func (d *Dir) Has(ctx context.Context, digest string) (bool, error) {
	const op = "blobs.Has"
	name, err := d.find(ctx, digest)
	if err != nil {
		return false, writ.AsError(op, err)
	}
	switch info, err := os.Lstat(name); {
	case err == nil:
		return info.Mode().IsRegular(), nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fault(op, err)
	}
}

func (d *Dir) find(ctx context.Context, digest string) (string, error) {
	digits, err := ParseDigest(digest)
	if err != nil {
		return "", err
	}
	return d.path("sha256", digits[:2], digits[2:]), ctx.Err()
}

// ErrDamaged is in the error of who reads a blob whose bytes have another digest.
var ErrDamaged = errors.New("damaged")

// verified reads a blob and compares its digest before it lets io.EOF through.
type verified struct {
	f    *os.File
	hash hash.Hash
	want string
	err  error // sticks
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.f.Read(p)
	v.hash.Write(p[:n])
	switch {
	case errors.Is(err, io.EOF):
		if v.err = io.EOF; prefix+hex.EncodeToString(v.hash.Sum(nil)) != v.want {
			v.err = &writ.Error{
				Code: writ.CodeStore, Op: "blobs.Get", Err: ErrDamaged, Msg: "the stored blob is damaged: its bytes have another digest",
				Hint: "put the blob again, or restore it from a backup",
			}
		}
	case err != nil:
		v.err = fault("blobs.Get", err)
	}
	return n, v.err
}

func (v *verified) Close() error { return v.f.Close() }

// whileAlive ends reading when the caller has gone.
type whileAlive struct {
	ctx context.Context
	r   io.Reader
}

func (w whileAlive) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

func fault(op string, err error) *writ.Error { return writ.Fault(writ.CodeStore, op, err) }
