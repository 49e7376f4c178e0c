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

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// hasKeys refuses a keys directory without keys when the store has receipts
// signed with some: new ones would be made, and be of no use.
func hasKeys(cfg Config, want string) error {
	if _, err := os.Lstat(filepath.Join(cfg.Keys, receipts.FilePublic)); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is there is judged when it is loaded
	}
	return otherKey(cfg, want, "holds no keys")
}

// otherKey refuses keys other than those a store was made with.
func otherKey(cfg Config, want, found string) error {
	return keyError("this store's receipts are signed with key "+want+", and "+cfg.Keys+" "+found,
		"give it the keys directory it was made with (--keys), or restore that from a backup")
}

func keyError(msg, hint string) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: "daemon.keys", Msg: msg, Hint: hint}
}

// loadSecret reads the session key, or makes it.
func loadSecret(path string) (key []byte, made bool, err error) {
	return loadKey("session key", path)
}

// loadKey reads a 32-byte key in hex from a file of mode 0600, or makes it.
func loadKey(what, path string) (key []byte, made bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		if _, err := rand.Read(key); err != nil {
			return nil, false, err
		}
		if err := writeFile(path, hex.EncodeToString(key)+"\n"); err != nil {
			return nil, false, keyError(what+" "+path+" cannot be made: "+err.Error(), "let the gateway's user write to the directory")
		}
		return key, true, nil
	}
	if err != nil {
		return nil, false, keyError(what+" "+path+" cannot be read", "let the gateway's user read it")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, false, keyError(fmt.Sprintf("%s %s is open to others (mode %04o)", what, path, info.Mode().Perm()),
			"chmod 600 it, and consider whether the key is still secret")
	}
	key, err = hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, false, keyError(what+" "+path+" is damaged: want 64 hexadecimal digits", "restore it from a backup, or remove it to have one made")
	}
	return key, false, nil
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
	secretsKeyFile = "secrets.key" // the same: what secrets are sealed under
	urlFile        = "gateway.url" // where the gateway of this directory answers
	boltFile       = "writ.db"     // the embedded store
	ledgerDir      = "ledger"
	keptDir        = "blobs" // policy bundles this replica has compiled
	logDir         = "log"   // of the transparency log: tiles and checkpoint
)
