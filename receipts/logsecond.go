package receipts

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"

	"filippo.io/mldsa"
)

// SecondLogKey is the ML-DSA-44 key of a log whose Ed25519 key this is. It follows from
// the seed of that one, which nobody learns who works out the scalar from the public key:
// so there is no other file to keep, and a forged Ed25519 signature comes without this
// one. Of a key in a key management service nobody has the seed, and there is none.
func SecondLogKey(key crypto.Signer, origin string) (*mldsa.PrivateKey, error) {
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse("the log's second key", errors.New("does not follow from a key in a key management service"), "keep log_key in a file, or leave log_mldsa out")
	}
	seed, err := hkdf.Key(sha256.New, private.Seed(), nil, "writ log ML-DSA-44 "+origin, mldsa.PrivateKeySize)
	if err != nil {
		return nil, err
	}
	return mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
}
