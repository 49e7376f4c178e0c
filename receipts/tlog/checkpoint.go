package tlog

import (
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"filippo.io/mldsa"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/checkpoint"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint says how many receipts the log has, and the hash of all of them.
type Checkpoint = checkpoint.Checkpoint

// algorithm is Ed25519 among the kinds of note keys (C2SP signed-note).
const algorithm = 1

// Key signs checkpoints. It is no receipt key.
type Key struct {
	origin string
	key    crypto.Signer
	public ed25519.PublicKey
	second *checkpoint.Second // nil: there is none
}

// NewKey makes a Key of the log named origin, a bare host name.
func NewKey(origin string, key crypto.Signer) *Key {
	public, _ := key.Public().(ed25519.PublicKey) // who opened it saw to its kind
	return &Key{origin: origin, key: key, public: public}
}

// Name of the log.
func (k *Key) Name() string { return k.origin }

// KeyHash is the short id of the key in a note.
func (k *Key) KeyHash() uint32 { return binary.BigEndian.Uint32(k.id()) }

// Second gives the log a second key, of ML-DSA-44, that cosigns what the first one signs.
func (k *Key) Second(key *mldsa.PrivateKey) {
	k.second = checkpoint.NewSecond(k.origin, key.PublicKey(), func(text []byte) ([]byte, error) { return receipts.SignCheckpoint(key, text) })
}

// SecondVerifier is the verifier key of the second key, for whoever verifies to take like
// that of a witness; nil: there is none.
func (k *Key) SecondVerifier() *WitnessKey {
	if k.second == nil {
		return nil
	}
	return k.second.Witness
}

// Sign signs the text of a note.
func (k *Key) Sign(msg []byte) ([]byte, error) { return receipts.SignCheckpoint(k.key, msg) }

// Public is the public half.
func (k *Key) Public() ed25519.PublicKey { return k.public }

func (k *Key) id() []byte { return LogID(k.origin, k.Public()) }

// LogID is the whole hash that the short id of a key is the beginning of. Sigstore names
// a log by it.
func LogID(origin string, key ed25519.PublicKey) []byte {
	h := sha256.Sum256([]byte(origin + "\n" + string([]byte{algorithm}) + string(key)))
	return h[:]
}

// Verifier is the key as tools that check the log want it: a note verifier key.
func (k *Key) Verifier() (string, error) { return note.NewEd25519VerifierKey(k.origin, k.Public()) }

// checkpoint signs a tree.
func (k *Key) checkpoint(size int64, root tlog.Hash) (Checkpoint, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", k.origin, size, base64.StdEncoding.EncodeToString(root[:]))
	signed, err := note.Sign(&note.Note{Text: text}, k)
	return Checkpoint{Size: size, Root: root, Text: signed}, err
}

// ErrCheckpoint: a text is no checkpoint that the log's key signed.
var ErrCheckpoint = checkpoint.Err

// ParseCheckpoint checks the signature of a checkpoint against a note verifier key, and
// reads it.
func ParseCheckpoint(text []byte, verifier string) (Checkpoint, error) {
	return checkpoint.Parse(text, verifier)
}

// Unverified reads what a checkpoint says, whoever signed it: the name of the log, and its state. Believe none of it.
func Unverified(text []byte) (origin string, c Checkpoint, err error) {
	return checkpoint.Unverified(text)
}

// WitnessKey is the verifier key of a witness.
type WitnessKey = checkpoint.Witness

// ErrNotCosigned: a witness has not signed a checkpoint.
var ErrNotCosigned = checkpoint.ErrNotCosigned

// Cosignature is who cosigned a checkpoint, and when.
type Cosignature = checkpoint.Cosignature

// Cosignatures are those of some witnesses on a checkpoint, of which need must be there; 0: all.
func Cosignatures(text []byte, by []*WitnessKey, need int) ([]Cosignature, error) {
	return checkpoint.Cosignatures(text, by, need)
}

// NewEd25519Witness is the verifier key of a witness by its public key.
func NewEd25519Witness(name string, key ed25519.PublicKey) *WitnessKey {
	return checkpoint.NewEd25519Witness(name, key)
}

// NewWitnessKey reads the verifier key of a witness.
func NewWitnessKey(key string) (*WitnessKey, error) { return checkpoint.NewWitness(key) }
