package blobs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/blobs"
)

func openDir(t *testing.T, max int64) (*blobs.Dir, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "blobs")
	d, err := blobs.OpenDir(root, max)
	if err != nil {
		t.Fatal(err)
	}
	return d, root
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func get(t *testing.T, d *blobs.Dir, digest string) ([]byte, error) {
	t.Helper()
	r, err := d.Get(t.Context(), digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// files lists the regular files below root.
func files(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		} else {
			names = append(names, path)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestPutGetHas(t *testing.T) {
	d, root := openDir(t, 0)
	for _, body := range [][]byte{{}, []byte("a"), []byte("hello"), bytes.Repeat([]byte("x"), 1<<20)} {
		want := digestOf(body)
		if has, err := d.Has(t.Context(), want); has || err != nil {
			t.Errorf("before: has %v, %v", has, err)
		}
		for range 2 {
			if digest, err := d.Put(t.Context(), iotest.HalfReader(bytes.NewReader(body))); digest != want || err != nil {
				t.Errorf("put gave %q, %v, want %q", digest, err, want)
			}
		}
		if has, err := d.Has(t.Context(), want); !has || err != nil {
			t.Errorf("after: has %v, %v", has, err)
		}
		if got, err := get(t, d, want); !bytes.Equal(got, body) || err != nil {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(body))
		}
	}
	if n := len(files(t, root)); n != 4 {
		t.Errorf("%d files, want 4", n)
	}
}

func TestAbsent(t *testing.T) {
	d, _ := openDir(t, 0)
	if _, err := d.Get(t.Context(), digestOf(nil)); writ.CodeOf(err) != writ.CodeNotFound {
		t.Errorf("got %v", err)
	}
}

func TestMalformedDigests(t *testing.T) {
	d, _ := openDir(t, 0)
	good := digestOf(nil)
	for _, bad := range []string{
		"", "sha256:", strings.TrimPrefix(good, "sha256:"), good + "0", good[:len(good)-1], good + " ", " " + good,
		strings.ToUpper(good), "sha512" + good[6:], "sha256:" + strings.ToUpper(good[7:]),
		"sha256:../../../etc/passwd", "sha256:" + strings.Repeat("/", 64), "sha256:" + strings.Repeat("g", 64), good[:7] + ".." + good[9:],
	} {
		_, getErr := d.Get(t.Context(), bad)
		_, hasErr := d.Has(t.Context(), bad)
		if writ.CodeOf(getErr) != writ.CodeMalformed || writ.CodeOf(hasErr) != writ.CodeMalformed {
			t.Errorf("%q: get %v, has %v", bad, getErr, hasErr)
		}
		if len(bad) > 10 && strings.Contains(getErr.Error(), bad) {
			t.Errorf("the error repeats %q", bad)
		}
	}
}

func TestSizeLimit(t *testing.T) {
	d, root := openDir(t, 10)
	if _, err := d.Put(t.Context(), strings.NewReader("0123456789")); err != nil {
		t.Error(err)
	}
	if _, err := d.Put(t.Context(), strings.NewReader("0123456789a")); writ.CodeOf(err) != writ.CodeTooLarge {
		t.Errorf("got %v", err)
	}
	if n := len(files(t, root)); n != 1 {
		t.Errorf("%d files, want 1", n)
	}
}

func TestFailedPutLeavesNothing(t *testing.T) {
	d, root := openDir(t, 0)
	broken := errors.New("broken")
	if _, err := d.Put(t.Context(), io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Put(ctx, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := files(t, root); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// Every damage is noticed before the end, and Put repairs it.
func TestDamageIsNoticed(t *testing.T) {
	d, root := openDir(t, 0)
	body := []byte("the quick brown fox")
	digest, err := d.Put(t.Context(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	name := files(t, root)[0]
	damages := [][]byte{{}, body[:5], append(bytes.Clone(body), 'x')}
	for i := range body {
		flipped := bytes.Clone(body)
		flipped[i] ^= 1
		damages = append(damages, flipped)
	}
	for _, damaged := range damages {
		if err := os.WriteFile(name, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, d, digest); writ.CodeOf(err) != writ.CodeStore {
			t.Errorf("%q: got %v", damaged, err)
		}
		r, err := d.Get(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(iotest.OneByteReader(r)); writ.CodeOf(err) != writ.CodeStore {
			t.Errorf("byte by byte, %q: got %v", damaged, err)
		}
		if _, err := r.Read(make([]byte, 1)); writ.CodeOf(err) != writ.CodeStore {
			t.Errorf("after the end, %q: got %v", damaged, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := d.Put(t.Context(), bytes.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		if got, err := get(t, d, digest); !bytes.Equal(got, body) || err != nil {
			t.Errorf("after another Put: %q, %v", got, err)
		}
	}
}

func TestTogether(t *testing.T) {
	d, root := openDir(t, 0)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			body := bytes.Repeat([]byte{byte(i % 4)}, 10_000)
			digest, err := d.Put(t.Context(), bytes.NewReader(body))
			if err != nil || digest != digestOf(body) {
				t.Errorf("put: %s, %v", digest, err)
				return
			}
			r, err := d.Get(t.Context(), digest)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
				t.Errorf("get: %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := len(files(t, root)); n != 4 {
		t.Errorf("%d files, want 4", n)
	}
}

// What a writer that died left behind is removed, what one still writes is not.
func TestLeftoversAreSwept(t *testing.T) {
	_, root := openDir(t, 0)
	old, fresh := filepath.Join(root, "tmp", "put-1"), filepath.Join(root, "tmp", "put-2")
	for _, name := range []string{old, fresh} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dayAgo := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, dayAgo, dayAgo); err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.OpenDir(root, 0); err != nil {
		t.Fatal(err)
	}
	if left := files(t, root); len(left) != 1 || left[0] != fresh {
		t.Errorf("left %v, want %s", left, fresh)
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.OpenDir(name, 0); writ.CodeOf(err) != writ.CodeStore {
		t.Errorf("got %v", err)
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add(digestOf(nil))
	f.Add("sha256:../..")
	f.Fuzz(func(t *testing.T, s string) {
		digits, err := blobs.ParseDigest(s)
		if err == nil && ("sha256:"+digits != s || len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "") {
			t.Fatalf("%q gave %q", s, digits)
		}
	})
}
