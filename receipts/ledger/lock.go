package ledger

import (
	"errors"
	"fmt"
	"io"
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
		owner, readErr := io.ReadAll(io.LimitReader(f, 64))
		who := strings.TrimSpace(string(owner))
		if readErr != nil || who == "" {
			who = "another process"
		}
		return nil, errors.Join(&writ.Error{
			Code: writ.CodeNotReady, Op: op, Msg: "the ledger " + path + " is held by " + who,
			Hint: "one process at a time: stop it, or use another directory",
		}, f.Close())
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
