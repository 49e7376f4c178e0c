package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The data directory is its owner's alone, or there is no start.
func TestDataIsTheOwnersAlone(t *testing.T) {
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	dir := func(name string, mode os.FileMode, files ...string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(path, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	for _, path := range []string{filepath.Join(t.TempDir(), "new"), dir("closed", 0o700, "notes"), dir("empty", 0o755), dir("ours", 0o750, "writ.db")} {
		if err := makeData(path, log); err != nil || mode(path) != 0o700 {
			t.Errorf("%s: %v, mode %o", path, err, mode(path))
		}
	}
	if strings.Count(logged.String(), "open to others") != 2 {
		t.Errorf("logged: %s", logged.String())
	}
	for _, path := range []string{dir("shared", 0o755, "notes"), dir("sticky", 0o777|os.ModeSticky)} {
		before := mode(path)
		if err := makeData(path, log); err == nil || !strings.Contains(err.Error(), "open to others") || mode(path) != before {
			t.Errorf("%s: %v, mode %o", path, err, mode(path))
		}
	}
}
