package boltstore

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/writ-gateway/writ"
)

// owner is the lock on <path>.owner. It is held for as long as the store is
// open, also while the file itself is closed and opened again, and its content
// tells the next opener who holds it.
type owner struct{ file *os.File }

// takeOwnership locks the owner file, waiting at most timeout for another
// holder to go.
func takeOwnership(path string, timeout time.Duration) (*owner, error) {
	f, err := os.OpenFile(path+".owner", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &writ.Error{
			Code: writ.CodeStore, Err: err, Msg: fmt.Sprintf("cannot open the store %s", path),
			Hint: "check that its folder exists and that this user may write there",
		}
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if time.Now().After(deadline) {
			said, _ := io.ReadAll(io.LimitReader(f, 512))
			_ = f.Close()
			who := strings.Join(strings.Fields(string(said)), " ")
			if who == "" {
				who = "another process"
			}
			return nil, inUse(path, who)
		}
	}
	host, _ := os.Hostname()
	note := fmt.Sprintf("pid %d on %s since %s\n", os.Getpid(), host, writ.FormatTime(time.Now().UnixMilli()))
	o := &owner{file: f}
	if err := f.Truncate(0); err != nil {
		o.release()
		return nil, err
	}
	if _, err := f.WriteAt([]byte(note), 0); err != nil {
		o.release()
		return nil, err
	}
	return o, nil
}

// release empties the file and lets it go. The file stays: removing it would
// let two openers lock two files of one name.
func (o *owner) release() {
	_ = o.file.Truncate(0)
	_ = o.file.Close()
}

func inUse(path, who string) *writ.Error {
	return &writ.Error{
		Code: writ.CodeStore, Msg: fmt.Sprintf("the store %s is in use by %s", path, who),
		Hint: "stop that process, use another data folder, or talk to the running gateway over HTTP",
	}
}
