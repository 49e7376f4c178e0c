package writtest

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Files are all files below a directory, by path, with what is in them.
func Files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, rerr := filepath.Rel(dir, path)
		if out[rel] = string(text); err == nil {
			err = rerr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// SameFiles fails the test, and names the files, unless a directory is as Files saw it.
func SameFiles(t testing.TB, dir string, before map[string]string) {
	t.Helper()
	now := Files(t, dir)
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if text, ok := now[path]; !ok || text != before[path] {
			t.Errorf("%s has changed", path)
		}
		delete(now, path)
	}
	for path := range now {
		t.Errorf("%s is new", path)
	}
}
