package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// What is wrong with keys is refused with a remedy.
func TestKeysOfOthersAreRefused(t *testing.T) {
	data := t.TempDir()
	d, _, _ := start(t, data)
	stopDaemon(t, d)
	keys := filepath.Join(data, "keys")
	session := filepath.Join(keys, sessionKeyFile)
	for name, c := range map[string]struct {
		path string
		mode os.FileMode
	}{"a directory others can write": {keys, 0o777}, "an open session key": {session, 0o644}, "an open receipt key": {filepath.Join(keys, "receipt.key"), 0o640}} {
		info, err := os.Stat(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		e := writ.AsError("", New(d.cfg, slog.New(slog.DiscardHandler)).Start(t.Context()))
		if e == nil || e.Code != writ.CodeNotReady || !strings.Contains(e.Hint, "chmod") {
			t.Errorf("%s: got %v", name, e)
		}
		if err := os.Chmod(c.path, info.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(session, []byte("half\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := writ.AsError("", New(d.cfg, slog.New(slog.DiscardHandler)).Start(t.Context())); e == nil || e.Code != writ.CodeNotReady || e.Hint == "" {
		t.Errorf("a damaged session key: got %v", e)
	}
}

// A lost session key is said, an open token is closed; neither stops the start.
func TestALostSessionKeyIsSaid(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	d, _, logged := start(t, data)
	stopDaemon(t, d)
	if strings.Contains(logged.String(), "session key") || strings.Contains(logged.String(), "open to others") {
		t.Fatalf("at the first start: %s", logged)
	}
	if err := os.Remove(filepath.Join(data, "keys", sessionKeyFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(OperatorToken(data), 0o644); err != nil {
		t.Fatal(err)
	}
	d, _, logged = start(t, data)
	stopDaemon(t, d)
	if !strings.Contains(logged.String(), "session key was missing") || !strings.Contains(logged.String(), "open to others") {
		t.Errorf("got %s", logged)
	}
	if info, err := os.Stat(OperatorToken(data)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's mode is %v: %v", info.Mode(), err)
	}
}
