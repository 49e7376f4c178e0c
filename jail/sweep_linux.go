package jail

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// Whose a control group is. Gateways in containers can have one place for their groups, and each the
// number 1: so a group is locked by who made it, and who sweeps takes away what nobody holds.

// mark is in the names of all groups of this process, and of no other: gateways whose processes
// are numbered apart can make theirs in one place.
var mark = func() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails on Linux
	return hex.EncodeToString(b[:])
}()

// ours is how the groups of gateways are named.
var ours = regexp.MustCompile("^jail-[0-9a-f]{16}-")

func nameOf(id string) string { return "jail-" + mark + "-" + id }

// hold makes a directory and locks it for as long as this process lives. It ends with the process
// however that ends, and is seen by processes that know no number of it.
func hold(dir string) (*os.File, error) {
	for {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		f, err := lock(dir, 0)
		if !errors.Is(err, fs.ErrNotExist) { // else somebody swept it away before it was locked
			return f, err
		}
	}
}

// flock locks a file; how may be LOCK_NB.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// lock opens a directory and locks it; how may be LOCK_NB. What it gives is what has the name now:
// nobody takes that away, or puts another in its place, who has not locked it.
func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	err = flock(f, how)
	var mine, there os.FileInfo
	if err == nil {
		mine, err = f.Stat()
	}
	if err == nil {
		there, err = os.Stat(dir)
	}
	if err == nil && !os.SameFile(mine, there) {
		err = fs.ErrNotExist
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes groups that gateways left which ended without a chance to: their processes died with them.
func (c *cgroups) sweep() (removed int) {
	for _, parent := range c.parents {
		entries, _ := os.ReadDir(parent)
		for _, e := range entries {
			if !ours.MatchString(e.Name()) || !e.IsDir() {
				continue
			}
			dir := filepath.Join(parent, e.Name())
			f, err := lock(dir, unix.LOCK_NB)
			if err != nil { // somebody's
				continue
			}
			if removeGroup(dir, time.Second/8) == nil { // a group with a process in it cannot be
				removed++
			}
			_ = f.Close()
		}
	}
	return removed
}
