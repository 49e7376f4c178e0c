package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// loadSecret reads a 32-byte key in hex from a file of mode 0600, or makes it.
func loadSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return nil, err
		}
		return key, writeFile(path, hex.EncodeToString(key)+"\n")
	}
	if err != nil {
		return nil, fmt.Errorf("session key %s cannot be read: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("session key %s is open to others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("session key %s is damaged: want 64 hexadecimal digits", path)
	}
	return key, nil
}

// makeData makes the data directory, readable by its owner alone. One that is
// open to others is closed to them if it is empty or holds writ's data; anything
// else is not ours to close.
func makeData(path string, log *slog.Logger) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	ours := len(entries) == 0 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return slices.Contains([]string{"keys", "writ.db", "ledger", urlFile}, e.Name())
	})
	if !ours || info.Mode()&fs.ModeSticky != 0 {
		return fmt.Errorf("data directory %s is open to others (mode %04o) and holds other files: give writ a directory of its own", path, mode)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("data directory %s is open to others (mode %04o), and that cannot be changed: %w", path, mode, err)
	}
	log.Warn("the data directory was open to others and is not any more", "path", path, "mode", fmt.Sprintf("%04o", mode))
	return nil
}

// writeFile puts a file of mode 0600 in place, whole or not at all.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err = f.WriteString(text); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Files of the data and key directories that are the daemon's own.
const (
	sessionKeyFile = "session.key" // 32 bytes in hex, mode 0600
	urlFile        = "gateway.url" // where the gateway of this directory answers
)
