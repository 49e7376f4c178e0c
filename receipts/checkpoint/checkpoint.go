// Package checkpoint reads and proves checkpoints of a transparency log (C2SP
// tlog-checkpoint). It signs nothing and needs nothing but the key of the log, so that
// whoever calls a gateway can hold it to what it showed before.
package checkpoint

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint says how many receipts a log has, and the hash of all of them.
type Checkpoint struct {
	Size int64
	Root tlog.Hash
	Text []byte // as signed and published
}

// Err: a text is no checkpoint that the log's key signed.
var Err = errors.New("not a checkpoint of this log")

// Parse checks the signature of a checkpoint against a note verifier key, and reads it.
// Lines after the third, and signatures by others, are left alone.
func Parse(text []byte, verifier string) (Checkpoint, error) {
	v, err := note.NewVerifier(verifier)
	if err != nil {
		return Checkpoint{}, err
	}
	n, err := open(text, v)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %w", Err, err)
	}
	origin, c, err := read(n.Text)
	if err != nil || origin != v.Name() {
		return Checkpoint{}, Err
	}
	c.Text = text
	return c, nil
}

// open reads a note that is in the one form all verifiers read alike: not too long, and every signature in the one
// base64 there is of it, whoever made it. None of that is covered by a signature.
func open(text []byte, by note.Verifier) (*note.Note, error) {
	if len(text) > MaxText {
		return nil, errors.New("it is too long")
	}
	n, err := note.Open(text, note.VerifierList(by))
	if unverified := new(note.UnverifiedNoteError); err != nil && !errors.As(err, &unverified) {
		return nil, err
	}
	for line := range strings.Lines(string(text[bytes.LastIndex(text, []byte("\n\n"))+2:])) {
		sig := strings.TrimSuffix(line[strings.LastIndexByte(line, ' ')+1:], "\n")
		raw, err := base64.StdEncoding.Strict().DecodeString(sig)
		if err != nil || base64.StdEncoding.EncodeToString(raw) != sig {
			return nil, errors.New("a signature is in no base64 of its own")
		}
	}
	return n, err
}

// Unverified reads what a checkpoint says, whoever signed it: the name of the log, and
// its state. Believe none of it before Parse.
func Unverified(text []byte) (origin string, c Checkpoint, err error) {
	body, _, ok := bytes.Cut(text, []byte("\n\n"))
	if !ok || len(text) > MaxText {
		return "", c, Err
	}
	origin, c, err = read(string(body) + "\n")
	c.Text = text
	return origin, c, err
}

func read(body string) (origin string, c Checkpoint, err error) {
	lines := strings.SplitN(body, "\n", 4)
	if len(lines) < 4 || lines[0] == "" {
		return "", c, Err
	}
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return "", c, Err
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return "", c, Err
	}
	c.Root = tlog.Hash(root)
	return lines[0], c, nil
}

// MaxText is the longest checkpoint that is read.
const MaxText = 16 << 10

// Compact is a checkpoint for a header: base64 of the note with the signature of the log
// alone, which is its first one.
func (c Checkpoint) Compact() string {
	text := c.Text
	if i := bytes.Index(text, []byte("\n\n")); i >= 0 {
		if j := bytes.IndexByte(text[i+2:], '\n'); j >= 0 {
			text = text[:i+2+j+1]
		}
	}
	return base64.StdEncoding.EncodeToString(text)
}

// FromCompact is the text of what Compact made.
func FromCompact(s string) ([]byte, error) {
	if len(s) > MaxText {
		return nil, Err
	}
	text, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, Err
	}
	return text, nil
}

// Consistent says whether hashes prove that the log of the newer checkpoint begins with
// that of the older one (RFC 6962, 2.1.2). Of the same size they must be the same, and
// need no proof.
func Consistent(older, newer Checkpoint, hashes []tlog.Hash) bool {
	switch {
	case older.Size > newer.Size:
		return false
	case older.Size == newer.Size:
		return older.Root == newer.Root
	case older.Size == 0:
		return true
	}
	return tlog.CheckTree(hashes, newer.Size, newer.Root, older.Size, older.Root) == nil
}

// String names a checkpoint in a message: how many receipts, and their hash.
func (c Checkpoint) String() string {
	return fmt.Sprintf("%d receipts, root %s", c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}
