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

	"filippo.io/mldsa"
	"golang.org/x/mod/sumdb/note"
)

// Kinds of cosignatures among those of note keys (C2SP tlog-cosignature): Ed25519
// cosignature/v1, and ML-DSA-44 over a subtree, which computers to come do not forge
// either.
const (
	cosignature = 4
	mldsa44     = 6
)

// Witness is the key of somebody who signs only checkpoints that go on from the ones it
// signed before, with the time. The second key of a log is of this kind, too.
type Witness struct {
	name   string
	hash   uint32
	raw    []byte // kind and public key
	length int    // of a signature without the time
	verify func(at int64, body, sig []byte) bool
}

// NewWitness reads the verifier key of a witness: name+hash+key, of a kind of cosignatures.
func NewWitness(key string) (*Witness, error) {
	bad := errors.New("not the key of a witness, like witness.example.org+1a2b3c4d+BAbCd… (C2SP tlog-cosignature)")
	parts := strings.SplitN(key, "+", 3)
	if len(parts) != 3 || parts[0] == "" || strings.ContainsAny(parts[0], " \t\r\n") || len(parts[1]) != 8 {
		return nil, bad
	}
	hash, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return nil, bad
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil || len(raw) == 0 {
		return nil, bad
	}
	w := newWitness(parts[0], raw[0], raw[1:])
	if w == nil || w.hash != uint32(hash) {
		return nil, bad
	}
	return w, nil
}

// newWitness makes a Witness of a kind; nil of a key that is none.
func newWitness(name string, kind byte, key []byte) *Witness {
	w := &Witness{name: name, raw: append([]byte{kind}, key...)}
	h := sha256.Sum256([]byte(name + "\n" + string(w.raw)))
	w.hash = binary.BigEndian.Uint32(h[:])
	switch kind {
	case cosignature:
		if len(key) != ed25519.PublicKeySize {
			return nil
		}
		w.length = ed25519.SignatureSize
		w.verify = func(at int64, body, sig []byte) bool {
			return ed25519.Verify(ed25519.PublicKey(key), Cosigned(at, body), sig)
		}
	case mldsa44:
		public, err := mldsa.NewPublicKey(mldsa.MLDSA44(), key)
		if err != nil {
			return nil
		}
		w.length = mldsa.MLDSA44SignatureSize
		w.verify = func(at int64, body, sig []byte) bool {
			text, err := cosignedSubtree(name, at, body)
			return err == nil && mldsa.Verify(public, text, sig, nil) == nil
		}
	default:
		return nil
	}
	return w
}

// NewEd25519Witness is the key of a witness.
func NewEd25519Witness(name string, key ed25519.PublicKey) *Witness {
	return newWitness(name, cosignature, key)
}

// Name of the witness.
func (w *Witness) Name() string { return w.name }

// KeyHash implements note.Verifier.
func (w *Witness) KeyHash() uint32 { return w.hash }

// Verify implements note.Verifier.
func (w *Witness) Verify(body, sig []byte) bool {
	if len(sig) != 8+w.length {
		return false
	}
	return w.verify(int64(binary.BigEndian.Uint64(sig)), body, sig[8:])
}

// String is the verifier key.
func (w *Witness) String() string {
	return fmt.Sprintf("%s+%08x+%s", w.name, w.hash, base64.StdEncoding.EncodeToString(w.raw))
}

// Cosigned is what a witness signs of a checkpoint at a time, in seconds.
func Cosigned(at int64, body []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatInt(at, 10)+"\n"), body...)
}

// cosignedSubtree is what a cosigner signs with ML-DSA-44: the state a checkpoint is of.
func cosignedSubtree(name string, at int64, body []byte) ([]byte, error) {
	origin, cp, err := read(string(body))
	if err != nil || len(name) > 255 || len(origin) > 255 {
		return nil, Err
	}
	out := append([]byte("subtree/v1\n\x00"), byte(len(name)))
	out = binary.BigEndian.AppendUint64(append(out, name...), uint64(at))
	out = append(append(out, byte(len(origin))), origin...)
	out = binary.BigEndian.AppendUint64(out, 0)
	out = binary.BigEndian.AppendUint64(out, uint64(cp.Size))
	return append(out, cp.Root[:]...), nil
}

// Second is the second key of a log: it cosigns the log's checkpoints with ML-DSA-44, for
// the time when Ed25519 can be forged.
type Second struct {
	*Witness
	sign func(text []byte) ([]byte, error)
}

// NewSecond makes a Second from its public key and what signs with the other half.
func NewSecond(origin string, public *mldsa.PublicKey, sign func(text []byte) ([]byte, error)) *Second {
	return &Second{newWitness(origin, mldsa44, public.Bytes()), sign}
}

// Line is the line that cosigns a checkpoint at a time.
func (s *Second) Line(text []byte, at time.Time) ([]byte, error) {
	body, _, _ := bytes.Cut(text, []byte("\n\n"))
	signed, err := cosignedSubtree(s.name, at.Unix(), append(bytes.Clone(body), '\n'))
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(signed)
	if err != nil {
		return nil, err
	}
	raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, s.hash), uint64(at.Unix()))
	return fmt.Appendf(nil, "— %s %s\n", s.name, base64.StdEncoding.EncodeToString(append(raw, sig...))), nil
}

// ErrNotCosigned: a witness has not signed a checkpoint.
var ErrNotCosigned = errors.New("not cosigned by the witness")

// At is when the witness signed a checkpoint, by its own clock. A line that names its key
// and is not by it is Err.
func (w *Witness) At(text []byte) (time.Time, error) {
	n, err := open(text, w)
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
	at := time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0)
	if at.Unix() < 0 || at.Year() > 9999 { // no time anybody can write down
		return time.Time{}, Err
	}
	return at, nil
}

// Cosignature is who cosigned a checkpoint, and when.
type Cosignature struct {
	Name string
	At   time.Time
}

// Cosignatures are those of some witnesses on a checkpoint. Of them need must be there (0:
// all), else it is ErrNotCosigned, which names who did not sign; with one that does not hold
// it is Err. A witness that is named twice counts once.
func Cosignatures(text []byte, by []*Witness, need int) (out []Cosignature, err error) {
	var missing []string
	seen := map[string]bool{}
	for _, w := range by {
		if seen[w.String()] {
			continue
		}
		seen[w.String()] = true
		switch at, err := w.At(text); {
		case errors.Is(err, ErrNotCosigned):
			missing = append(missing, w.name)
		case err != nil:
			return nil, err
		default:
			out = append(out, Cosignature{w.name, at})
		}
	}
	if need == 0 {
		need = len(seen)
	}
	if len(out) < need {
		return out, fmt.Errorf("%w %s: %d of %d have signed", ErrNotCosigned, strings.Join(missing, ", "), len(out), need)
	}
	return out, nil
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
