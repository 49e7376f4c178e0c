package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/writ-gateway/writ"
)

const lockName = "lock"

// lockDir takes the directory for the life of the returned file. The kernel
// frees the lock when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	const op = "ledger.Open"
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, notReady(op, "the ledger's lock cannot be opened", "let the gateway's user write to its directory", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
			return nil, errors.Join(held(path, "a command that reads it"), f.Close())
		}
		return nil, errors.Join(held(path, owner(f)), f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "pid %d\n", os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(notReady(op, "the ledger's lock cannot be taken", "its file system must support flock", err), f.Close())
	}
	return f, nil
}

// owner is who has written itself into the lock.
func owner(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if who := strings.TrimSpace(string(text)); err == nil && who != "" {
		return who
	}
	return "another process"
}

func held(path, who string) error {
	return &writ.Error{
		Code: writ.CodeNotReady, Op: "ledger.Open", Msg: "the ledger " + path + " is held by " + who,
		Hint: "one process at a time: stop it, or use another directory",
	}
}

// shareDir keeps who would write to the directory away for the life of the returned
// file, and writes nothing. A copy may have no lock, and then there is no file.
func shareDir(dir string) (*os.File, error) {
	const op = "ledger.Read"
	path := filepath.Join(dir, lockName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, notReady(op, "the ledger's lock cannot be opened", "run this as the gateway's user", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(held(path, owner(f)), f.Close())
	}
	if err != nil {
		return nil, errors.Join(notReady(op, "the ledger's lock cannot be taken", "its file system must support flock", err), f.Close())
	}
	return f, nil
}
