package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
)

// Every command that calls a gateway keeps the checkpoints of its log that replies showed
// until they are proven, and the latest of those, and asks now and then for the proofs
// that the log only grew.

// logNewsKey is under which a command's context has its *logNews.
type logNewsKey struct{}

// logNews is what a command has to say of the log of the gateway when it ends.
type logNews struct {
	found   error            // what is wrong with it
	clients []*client.Client // that may have seen what is not kept
}

// unsaid is what is wrong with the log, unless the error of the command says it.
func (n *logNews) unsaid(said error) error {
	if errors.Is(said, n.found) {
		return nil
	}
	found, _ := errors.AsType[*client.LogError](n.found)
	if is, ok := errors.AsType[*client.LogError](said); ok && is == found {
		return nil
	}
	return n.found
}

// finds notes what is wrong with the log, and which file has the checkpoints that prove it.
func (n *logNews) finds(err error, file string) {
	if e, ok := errors.AsType[*writ.Error](err); ok && file != "" {
		err = e.With("file", file)
	}
	n.found = err
}

// keep has kept what calls could not, which nobody else has, and warns where it cannot be. It
// is no failure of a command that did what it was told: who would send that again does it twice.
func (n *logNews) keep(stderr io.Writer, said error) {
	if errors.Is(said, client.ErrNotKept) {
		return
	}
	for _, c := range n.clients {
		if err := c.KeepLog(context.Background()); err != nil { // also of a command that was interrupted
			fmt.Fprintln(stderr, "writ: warning: "+shown(err.Error())+"; see that the file can be written and that nothing holds its directory, then run writ log check")
		}
	}
}

// seenPath is where what was seen of a gateway's log is kept: beside the data of a gateway
// of this machine, so that it goes where that goes; else in the user's state directory.
func seenPath(url, data string, here bool) string {
	if here {
		return filepath.Join(data, "log-seen.json")
	}
	state := daemon.DefaultData(os.Getenv)
	if state == "" {
		return "" // nowhere to keep it
	}
	name := sha256.Sum256([]byte(url))
	return filepath.Join(state+"-client", "log-"+hex.EncodeToString(name[:8])+".json")
}

// seenFile keeps what was seen in a file of that name, mode 0600, for all commands that run:
// who writes it has locked its directory, and puts a whole new file in its place.
type seenFile string

// damagedFile is such a file that cannot be believed. Nothing is written over it.
type damagedFile struct {
	path string
	err  error
}

func (d damagedFile) Error() string {
	return "what commands saw of the gateway's log cannot be read, and is not added to: move " + d.path +
		" away and keep it; the log may have been changed since that was written, and nobody can tell here: " + d.err.Error()
}

// Load implements client.LogKeeper.
func (f seenFile) Load() (s client.LogSeen, err error) {
	b, err := os.ReadFile(string(f))
	if f == "" || errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err == nil && (!s.Valid() || nothing(s)) {
		err = errors.New("it is damaged")
	}
	if err != nil {
		return client.LogSeen{}, damagedFile{string(f), err}
	}
	return s, nil
}

// Update implements client.LogKeeper.
func (f seenFile) Update(ctx context.Context, change func(client.LogSeen) client.LogSeen) error {
	if f == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return err
	}
	dir, err := lockDir(ctx, filepath.Dir(string(f)))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // and is not locked any more
	kept, err := f.Load()
	if err != nil {
		return err
	}
	next := change(kept)
	if nothing(next) {
		return nil
	}
	b, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	path := string(f) + ".new" // one that is there is of a command that was killed
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
		return err
	}
	return os.Rename(path, string(f))
}

// nothing says whether nothing was seen, as before there is a file: none that is there says so.
func nothing(s client.LogSeen) bool {
	return s.Key+s.Proven+s.Shown == "" && s.Checked == 0 && s.Found == nil
}

// lockDir opens a directory and locks it; the kernel frees it when the command ends,
// however it ends. One that is held for longer than ctx, by a command that was stopped, is
// let be.
func lockDir(ctx context.Context, path string) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	for ; ; time.Sleep(time.Millisecond) {
		if err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return dir, nil
		}
		busy := errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR)
		if !busy || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("%s is locked by another command, or cannot be locked: %w", path, err), dir.Close())
		}
	}
}

// checkVerdict is the report of log check as JSON.
type checkVerdict struct {
	Verdict    string `json:"verdict"`
	Checkpoint string `json:"checkpoint,omitempty"`
	Key        string `json:"verifier_key,omitempty"`
	Kept       string `json:"kept,omitempty"`
	Shown      string `json:"shown,omitempty"`
	Reason     string `json:"reason,omitempty"`

	Dropped client.LogDropped `json:"dropped,omitzero"`
}

func checkLogCommand() *cobra.Command {
	var connect connection
	var format, logKey string
	cmd := &cobra.Command{
		Use: "check", Short: "Have the gateway prove that its log only grew", Args: noArgs, Annotations: verifies,
		Example: "  writ log check\n  writ log check --log-key log.vkey -o json",
		Long: `Ask the gateway to prove that its log begins with everything it has shown to the
commands run here before. They keep the checkpoints that replies carried until each is proven
(log-seen.json in the data directory of a gateway on this machine, or a file per gateway in the
directory writ-client beside it) and do this by themselves every ten minutes.

What is wrong is kept too, and each command says so at its end, until this proves that all is of one log, or
that file is removed: do that after a log was begun anew on purpose, and keep a copy.

Exit codes: 0 the log only grew, 1 it did not, or another key signed it, 3 all that was kept is
proven, but more was shown while the gateway gave no proofs than is kept: ask who runs it why, and
take "dropped" out of the file, 4 there is no proof: the log is written by another replica, the
gateway does not answer, or the file is damaged or cannot be written.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if logKey != "" {
				key, err := readLogKey(logKey)
				if err != nil {
					return err
				}
				connect.logKey = key
			}
			connect.checks = true
			var v checkVerdict
			cl, err := connect.open()
			if err == nil {
				err = cl.CheckLog(c.Context())
				seen := cl.LogSeen()
				if _, found := errors.AsType[*client.LogError](err); err != nil && !found && seen.Wrong() != nil {
					err = seen.Wrong() // whatever else kept it from being proven wrong
				}
				v = checkVerdict{Verdict: "ok", Checkpoint: seen.Proven, Key: seen.Key}
			}
			if e, ok := errors.AsType[*client.LogError](err); ok {
				if news, ok := c.Context().Value(logNewsKey{}).(*logNews); ok {
					news.found = nil // said here
				}
				v.Verdict, v.Kept, v.Shown, v.Reason = "tampered", e.Kept, e.Shown, e.Why
				return conclude(c, format, v, 1)
			}
			if d, ok := errors.AsType[client.LogDropped](err); ok {
				v.Verdict, v.Dropped, v.Reason = "incomplete", d, d.Error()
				return conclude(c, format, v, 3)
			}
			if err != nil {
				return err
			}
			return conclude(c, format, v, 0)
		},
	}
	connect.flags(cmd)
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it, kept from when you had reason to trust it")
	outputFlag(cmd, &format)
	return cmd
}
