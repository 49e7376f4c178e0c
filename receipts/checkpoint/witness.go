package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// cosignature is Ed25519 cosignature/v1 among the kinds of note keys (C2SP
// tlog-cosignature).
const cosignature = 4

// Witness is the key of somebody who signs only checkpoints that go on from the ones it
// signed before, with the time.
type Witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// NewWitness reads the verifier key of a witness: name+hash+key, of kind cosignature/v1.
func NewWitness(key string) (*Witness, error) {
	bad := errors.New("not the key of a witness, like witness.example.org+1a2b3c4d+BAbCd… (C2SP tlog-cosignature, Ed25519)")
	parts := strings.SplitN(key, "+", 3)
	if len(parts) != 3 || parts[0] == "" || strings.ContainsAny(parts[0], " \t\r\n") || len(parts[1]) != 8 {
		return nil, bad
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, bad
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != cosignature {
		return nil, bad
	}
	w := &Witness{name: parts[0], hash: uint32(hash), key: ed25519.PublicKey(raw[1:])}
	if WitnessHash(w.name, w.key) != w.hash {
		return nil, bad
	}
	return w, nil
}

// WitnessHash is the short id of a witness key in a note.
func WitnessHash(name string, key ed25519.PublicKey) uint32 {
	h := sha256.Sum256([]byte(name + "\n" + string([]byte{cosignature}) + string(key)))
	return binary.BigEndian.Uint32(h[:])
}

// Name of the witness.
func (w *Witness) Name() string { return w.name }

// KeyHash implements note.Verifier.
func (w *Witness) KeyHash() uint32 { return w.hash }

// Verify implements note.Verifier.
func (w *Witness) Verify(body, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(w.key, Cosigned(int64(binary.BigEndian.Uint64(sig)), body), sig[8:])
}

// String is the verifier key.
func (w *Witness) String() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.hash, base64.StdEncoding.EncodeToString(append([]byte{cosignature}, w.key...)))
}

// Cosigned is what a witness signs of a checkpoint at a time, in seconds.
func Cosigned(at int64, body []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatInt(at, 10)+"\n"), body...)
}

// ErrNotCosigned: a witness has not signed a checkpoint.
var ErrNotCosigned = errors.New("not cosigned by the witness")

// At is when the witness signed a checkpoint, by its own clock. A line that names its key
// and is not by it is Err.
func (w *Witness) At(text []byte) (time.Time, error) {
	n, err := note.Open(text, note.VerifierList(w))
	if unverified := new(note.UnverifiedNoteError); errors.As(err, &unverified) {
		return time.Time{}, fmt.Errorf("%w %s", ErrNotCosigned, w.name)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", Err, err)
	}
	raw, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil || len(raw) < 12 {
		return time.Time{}, Err
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0), nil
}

// Keep adds to a checkpoint the lines among some that are by the witness.
func (w *Witness) Keep(text, lines []byte) ([]byte, error) {
	for line := range bytes.Lines(lines) {
		if !bytes.HasSuffix(line, []byte("\n")) || bytes.Count(text, line) > 0 {
			continue
		}
		body, _, _ := bytes.Cut(text, []byte("\n\n"))
		alone := append(append(bytes.Clone(body), "\n\n"...), line...)
		if _, err := w.At(alone); err == nil {
			return append(bytes.Clone(text), line...), nil
		}
	}
	return nil, fmt.Errorf("%w %s: there is no signature of its key in what it answered", ErrNotCosigned, w.name)
}
