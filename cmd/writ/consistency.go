package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/receipts/pack"
	"github.com/writ-gateway/writ/receipts/tlog"
)

func logConsistencyCommand() *cobra.Command {
	var logKey, proof, format string
	cmd := &cobra.Command{
		Use: "consistency OLD NEW", Short: "Prove offline that a log only grew", Args: twoArgs, Annotations: verifies,
		Example: `  writ log consistency kept.checkpoint pack.tar --log-key log.vkey
  writ log consistency old.checkpoint new.checkpoint --log-key log.vkey --proof head.json`,
		Long: `Prove that a log begins with what an earlier checkpoint of it covers. OLD is that checkpoint: a file, also
what 'writ log head -o json' printed, or an evidence pack with it.
NEW is a later one with --proof, a file that has the hashes (what 'writ log head --since SIZE -o json' prints, or
earlier/consistency of a pack), or an evidence pack: the proof in it is taken, or worked out from its
receipts if it has all of the log. Two checkpoints of one size need no proof: with two roots they prove that the
log's key signed two logs.

Both checkpoints must be signed by --log-key. It says nothing of receipts: 'writ pack verify' does.

Exit codes: 0 the log only grew, 1 it did not, or a checkpoint is of another key, 3 there is no proof, 4
could not verify.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			key, err := readLogKey(logKey)
			if err != nil {
				return err
			}
			v, code, err := grew(args[0], args[1], key, proof)
			if err != nil {
				return err
			}
			return conclude(c, format, v, code)
		},
	}
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it (required)")
	cmd.Flags().StringVar(&proof, "proof", "", "file with the hashes that prove it")
	_ = cmd.MarkFlagRequired("log-key")
	outputFlag(cmd, &format)
	return cmd
}

// consistencyVerdict is the report of log consistency as JSON.
type consistencyVerdict struct {
	Verdict string `json:"verdict"`
	Old     int64  `json:"old_size"`
	New     int64  `json:"new_size"`
	Reason  string `json:"reason,omitempty"`
}

// grew works out whether a log only grew, and what to exit with.
func grew(old, now, key, proof string) (v consistencyVerdict, code int, err error) {
	tampered := func(why string) (consistencyVerdict, int, error) {
		v.Verdict, v.Reason = "tampered", why
		return v, 1, nil
	}
	text, err := readCheckpoint(old)
	if err != nil {
		return v, 0, err
	}
	before, err := tlog.ParseCheckpoint(text, key)
	if err != nil {
		return tampered("the earlier checkpoint is not signed by the log's key")
	}
	v.Old = before.Size
	later, p, err := checkpointIn(now)
	if p != nil {
		defer func() { _ = p.Close() }()
	}
	if err != nil {
		return v, 0, err
	}
	after, err := tlog.ParseCheckpoint(later, key)
	if err != nil {
		return tampered("the later checkpoint is not signed by the log's key")
	}
	v.New = after.Size
	hashes, ok, err := proofOf(proof, p, before)
	switch {
	case err != nil:
		return v, 0, err
	case before.Size > after.Size:
		return tampered("the later one covers less: the log went back")
	case before.Size == after.Size && before.Root != after.Root:
		return tampered("the log's key signed two logs of one size: keep both checkpoints, they prove it")
	case before.Size == after.Size, before.Size == 0: // every log begins with the empty one
		v.Verdict = "ok"
		return v, 0, nil
	case ok && !pack.Consistent(before, after, hashes):
		return tampered("the log does not begin with what the earlier checkpoint covers")
	case !ok && p != nil:
		root, whole, err := pack.Root(p, before.Size)
		if err != nil {
			return v, 0, err
		}
		all, entire, err := pack.Root(p, after.Size)
		switch {
		case err != nil:
			return v, 0, err
		case !whole || !entire:
			ok = false
		case root != before.Root || all != after.Root:
			return tampered("the log does not begin with what the earlier checkpoint covers")
		default:
			ok = true
		}
	}
	if !ok {
		v.Verdict, v.Reason = "incomplete", "there is no proof: give --proof, or a pack made with --since"
		return v, 3, nil
	}
	v.Verdict = "ok"
	return v, 0, nil
}

// checkpointIn reads a checkpoint: as it was published, as 'writ log head -o json' printed it, or that of a pack,
// which is given too. Empty lines that programs like to end a file with are none of it.
func checkpointIn(path string) (text []byte, p *pack.Pack, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() || strings.HasSuffix(path, ".tar") {
		if p, err = pack.Open(path); err != nil {
			return nil, nil, err
		}
		if text, err = p.Read(pack.FileCheckpoint); err != nil {
			_ = p.Close()
			return nil, nil, fmt.Errorf("%s has no checkpoint: give a pack, or a checkpoint", path)
		}
		return text, p, nil
	}
	if text, err = os.ReadFile(path); err != nil {
		return nil, nil, err
	}
	var head struct {
		Checkpoint string `json:"checkpoint"`
	}
	if json.Unmarshal(text, &head) == nil {
		text = []byte(head.Checkpoint)
	}
	text = append(bytes.TrimRight(text, "\n"), '\n')
	if _, err := note.Open(text, note.VerifierList()); !isNote(err) {
		return nil, nil, fmt.Errorf("%s is no checkpoint: give what 'writ log head -o json' printed, the checkpoint of a log, or a pack", path)
	}
	return text, nil, nil
}

// readCheckpoint reads a checkpoint, of a pack too.
func readCheckpoint(path string) ([]byte, error) {
	text, p, err := checkpointIn(path)
	if p != nil {
		_ = p.Close()
	}
	return text, err
}

// isNote says of what a note was opened with, by nobody's key, whether it is one.
func isNote(err error) bool {
	_, ok := errors.AsType[*note.UnverifiedNoteError](err)
	return ok
}

// proofOf finds the hashes that prove it: in a file, or in a pack that has them for this
// earlier checkpoint.
func proofOf(path string, p *pack.Pack, before tlog.Checkpoint) ([]byte, bool, error) {
	if path == "" {
		if p == nil {
			return nil, false, nil
		}
		earlier, err := p.Read(pack.FileEarlier)
		if err != nil || string(earlier) != string(before.Text) {
			return nil, false, nil
		}
		text, err := p.Read(pack.FileConsistency)
		return text, err == nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, false, err
	}
	var head struct {
		Hashes []string `json:"consistency"`
	}
	if json.Unmarshal(text, &head) == nil {
		text = nil
		for _, h := range head.Hashes {
			text = append(text, h+"\n"...)
		}
	}
	for line := range bytes.Lines(text) {
		if hash, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(string(line), "\n")); err != nil || len(hash) != sha256.Size {
			return nil, false, fmt.Errorf("%s holds no hashes: give what 'writ log head --since SIZE -o json' printed, or earlier/consistency of a pack", path)
		}
	}
	return text, len(text) > 0, nil
}
