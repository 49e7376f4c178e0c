package blobs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store/blobs"
)

func stage(t *testing.T, d *blobs.Dir, body string) *blobs.Staged {
	t.Helper()
	s, err := d.Stage(t.Context(), strings.NewReader(body), blobs.MaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func age(t *testing.T, d *blobs.Dir, root, digest string) string {
	t.Helper()
	name := filepath.Join(root, "sha256", digest[7:9], digest[9:])
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	return name
}

// What is staged is nobody's until it is kept, and counts against the limit all the
// while.
func TestStaged(t *testing.T) {
	d, root := openDir(t, 0)
	d.Limit(10)
	s := stage(t, d, "123456")
	if has, err := d.Has(t.Context(), s.Digest()); has || err != nil {
		t.Errorf("it is a blob already: %v %v", has, err)
	}
	if s.Digest() != digestOf([]byte("123456")) || s.Size() != 6 || string(s.Small()) != "123456" || d.Used() != 6 {
		t.Errorf("got %s %d %q, used %d", s.Digest(), s.Size(), s.Small(), d.Used())
	}
	if _, err := d.Stage(t.Context(), strings.NewReader("12345"), 5); writ.CodeOf(err) != writ.CodeQuota {
		t.Errorf("over the limit of the directory: %v", err)
	}
	if _, err := d.Stage(t.Context(), strings.NewReader("1234"), 3); writ.CodeOf(err) != writ.CodeTooLarge {
		t.Errorf("over the limit of the body: %v", err)
	}
	for range 2 {
		if err := s.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.Discard()
	if got, err := get(t, d, s.Digest()); string(got) != "123456" || err != nil {
		t.Errorf("kept %q, %v", got, err)
	}
	stage(t, d, "1234").Discard()
	again := stage(t, d, "1234")
	again.Discard()
	again.Discard()
	if left := files(t, root); len(left) != 1 || d.Used() != 6 {
		t.Errorf("left %v, used %d", left, d.Used())
	}
	large := strings.Repeat("x", writ.MaxCheckedBytes+1)
	d.Limit(0)
	if s := stage(t, d, large); s.Small() != nil {
		t.Error("a large body is held in memory")
	}
}

func TestExamine(t *testing.T) {
	d, root := openDir(t, 0)
	s := stage(t, d, "site")
	want := func(state writ.BlobState) {
		t.Helper()
		if got, err := d.Examine(t.Context(), s.Digest()); got != state || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, state)
		}
	}
	want(writ.BlobAbsent)
	if err := s.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(writ.BlobIntact)
	if err := os.WriteFile(files(t, root)[0], []byte("sits"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(writ.BlobDamaged)
}

// Sweep takes what is old and not wanted, and nothing somebody begins to want or to
// store while it looks.
func TestSweep(t *testing.T) {
	for name, c := range map[string]struct {
		old     bool
		wanted  []bool // asked for the first time, and for the second
		before  bool   // somebody stores the same bytes while it is asked for the first time
		between bool   // or for the second
		gone    bool
	}{
		"old":                 {old: true, wanted: []bool{false, false}, gone: true},
		"young":               {},
		"wanted":              {old: true, wanted: []bool{true}},
		"wanted meanwhile":    {old: true, wanted: []bool{false, true}},
		"stored meanwhile":    {old: true, wanted: []bool{false, false}, between: true},
		"stored just before":  {old: true, wanted: []bool{false, false}, before: true},
		"both, one after the": {old: true, wanted: []bool{false, true}, between: true},
	} {
		d, root := openDir(t, 0)
		s := stage(t, d, "site")
		if err := s.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.old {
			age(t, d, root, s.Digest())
		}
		asked := 0
		n, err := d.Sweep(t.Context(), 24*time.Hour, func(context.Context, string) (bool, error) {
			asked++
			if asked == 1 && c.before || asked == 2 && c.between {
				if err := stage(t, d, "site").Keep(t.Context()); err != nil {
					t.Error(err)
				}
			}
			return c.wanted[asked-1], nil
		})
		if err != nil || asked != len(c.wanted) {
			t.Errorf("%s: asked %d times, %v", name, asked, err)
		}
		there := !c.gone || c.between || c.before
		if has, err := d.Has(t.Context(), s.Digest()); has != there || err != nil {
			t.Errorf("%s: stored: %v, %v", name, has, err)
		}
		if (n == 1) != (len(c.wanted) == 2 && !c.wanted[1] && !c.before) {
			t.Errorf("%s: removed %d", name, n)
		}
		if left := files(t, root); len(left) > 1 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// A sweep that died with a blob in its hands gives it back at the next start.
func TestASweepThatDied(t *testing.T) {
	d, root := openDir(t, 0)
	s := stage(t, d, "site")
	if err := s.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := age(t, d, root, s.Digest())
	if err := os.Rename(name, filepath.Join(root, "tmp", "out-"+s.Digest()[7:]+"-0123456789abcdef")); err != nil {
		t.Fatal(err)
	}
	d, err := blobs.OpenDir(root, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := get(t, d, s.Digest()); string(got) != "site" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if left := files(t, root); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// Of two who take away the same blob neither takes what the other has: between them
// somebody may have stored it anew, and want it.
func TestTwoSweeps(t *testing.T) {
	one, root := openDir(t, 0)
	two, err := blobs.OpenDir(root, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := stage(t, one, "site")
	if err := s.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	age(t, one, root, s.Digest())

	taken, goOn, gone := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first := func() {
		asked := 0
		_, err := one.Sweep(t.Context(), 24*time.Hour, func(context.Context, string) (bool, error) {
			if asked++; asked == 2 { // it has the old file
				close(taken)
				<-goOn
			}
			return false, nil
		})
		gone <- err
	}
	asked := 0
	_, err = two.Sweep(t.Context(), 24*time.Hour, func(context.Context, string) (bool, error) {
		if asked++; asked == 1 { // it has seen the old file, and will take the new one
			go first()
			<-taken
			if err := stage(t, one, "site").Keep(t.Context()); err != nil {
				t.Error(err)
			}
			return false, nil
		}
		close(goOn)
		return true, <-gone
	})
	if err != nil || asked != 2 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	if got, err := get(t, one, s.Digest()); string(got) != "site" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if left := files(t, root); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// A sweep takes what writers left that died, and leaves what is none of ours.
func TestSweepOfLeftovers(t *testing.T) {
	d, root := openDir(t, 0)
	s := stage(t, d, "half")
	left := files(t, root)
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(left[0], old, old); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(root, "sha256", "notes")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sweep(t.Context(), time.Hour, nil); err != nil {
		t.Fatal(err)
	}
	if left := files(t, root); len(left) != 1 || left[0] != other {
		t.Errorf("left %v", left)
	}
	if err := s.Keep(t.Context()); err == nil {
		t.Error("what is gone was kept")
	}
}

// However many store the same bytes at once, they are counted once.
func TestTheSameBytesCountOnce(t *testing.T) {
	d, _ := openDir(t, 0)
	for i := range 50 {
		body := fmt.Sprint("site ", i)
		all := []*blobs.Staged{stage(t, d, body), stage(t, d, body), stage(t, d, body)}
		before := d.Used() - 3*int64(len(body))
		var wg sync.WaitGroup
		for _, s := range all {
			wg.Go(func() {
				if err := s.Keep(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := d.Used() - before; got != int64(len(body)) {
			t.Fatalf("%d bytes are counted, want %d", got, len(body))
		}
	}
}

// A directory gets its name once.
func TestMark(t *testing.T) {
	d, root := openDir(t, 0)
	if id, err := d.Mark(); id != "" || err != nil {
		t.Errorf("got %q, %v", id, err)
	}
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	for _, id := range []string{one, two} {
		if got, err := d.SetMark(id); got != one || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if _, err := d.SetMark("../x"); err == nil {
		t.Error("a name that is none was taken")
	}
	if err := os.WriteFile(filepath.Join(root, "id"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Mark(); err == nil {
		t.Error("a name that is none was read")
	}
}
