package receipts

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/writ-gateway/writ"
)

// MaxEvidence is how many bytes one evidence object may have.
const MaxEvidence = 64 << 10

// evidence is what a receipt's digest stands for. The salt makes the digest of
// a guessable object unguessable; names and free text may stand in here.
type evidence struct {
	Object  any            `json:"object"`
	Receipt writ.ReceiptID `json:"receipt"`
	Salt    string         `json:"salt"`
}

// Evidence renders {object, receipt, salt} as compact JSON and returns the
// SHA-256 of those bytes in hex, which goes into the statement, with the same
// bytes encrypted, which go into the fact. An object over MaxEvidence bytes is
// too_large. The same arguments always give the same result.
func (s *Sealer) Evidence(salt [16]byte, receipt writ.ReceiptID, object any) (sum string, sealed []byte, err error) {
	const op = "receipts.Evidence"
	plain, err := json.Marshal(evidence{Object: object, Receipt: receipt, Salt: hex.EncodeToString(salt[:])})
	if err != nil {
		return "", nil, writ.Fault(writ.CodeInternal, op, err)
	}
	if len(plain) > MaxEvidence {
		return "", nil, writ.Refuse(writ.CodeTooLarge, op, "the evidence of this call is over 64 KiB", "send less in one call")
	}
	if sealed, err = s.evidence.seal(receipt, plain); err != nil {
		return "", nil, writ.Fault(writ.CodeInternal, op, err)
	}
	return digest(plain), sealed, nil
}

// SealEvidence encrypts the evidence of a receipt under a key, which
// OpenEvidence undoes. The same arguments always give the same bytes.
func SealEvidence(key [32]byte, receipt writ.ReceiptID, text []byte) ([]byte, error) {
	ev, err := newEvidenceKey(key)
	if err != nil {
		return nil, err
	}
	return ev.seal(receipt, text)
}

func (k *evidenceKey) seal(receipt writ.ReceiptID, text []byte) ([]byte, error) {
	aead, mac, err := k.of(receipt)
	if err != nil {
		return nil, err
	}
	// Each receipt has keys of its own, and the nonce depends on the text too:
	// a call planned twice may seal two objects under one receipt id.
	h := hmac.New(sha256.New, mac)
	h.Write(text)
	nonce := h.Sum(nil)[:aead.NonceSize()]
	return aead.Seal(nonce, nonce, text, []byte(receipt)), nil
}

var errEvidence = errors.New("the evidence does not open with this key and receipt")

// OpenEvidence decrypts what Evidence sealed: the bytes whose SHA-256 the
// receipt states. It fails when key, receipt or bytes are not the ones used.
func OpenEvidence(key [32]byte, receipt writ.ReceiptID, sealed []byte) ([]byte, error) {
	const op = "receipts.OpenEvidence"
	ev, err := newEvidenceKey(key)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	aead, _, err := ev.of(receipt)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	if len(sealed) < aead.NonceSize() {
		return nil, writ.Fault(writ.CodeInternal, op, errEvidence)
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(receipt))
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, errEvidence)
	}
	return plain, nil
}

// evidenceKey gives every receipt keys of its own. It holds the part of their
// derivation (RFC 5869) that is the same for all of them.
type evidenceKey struct{ prk []byte }

func newEvidenceKey(secret [32]byte) (*evidenceKey, error) {
	prk, err := hkdf.Extract(sha256.New, secret[:], nil)
	return &evidenceKey{prk}, err
}

// of derives a receipt's encryption and nonce keys.
func (k *evidenceKey) of(receipt writ.ReceiptID) (aead cipher.AEAD, mac []byte, err error) {
	keys, err := hkdf.Expand(sha256.New, k.prk, "writ evidence v1 "+string(receipt), 64)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(keys[:32])
	if err != nil {
		return nil, nil, err
	}
	aead, err = cipher.NewGCM(block)
	return aead, keys[32:], err
}
