package receipts

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// FileLogKey is the private key that checkpoints of the transparency log are signed
// with: Ed25519, PEM, mode 0600, encrypted when there is a password. Only the replica
// that writes the log needs it.
const FileLogKey = "log.key"

// LoadLogKey reads the log's key out of a key directory, or makes it as long as there is
// no log that was signed with it: published says that there is one.
func LoadLogKey(dir string, o KeyOptions, published bool) (ed25519.PrivateKey, error) {
	d := keyDir{dir: dir, password: o.Password, initialised: published}
	text, err := d.file(FileLogKey, true, d.generateLogKey)
	if err != nil {
		return nil, err
	}
	key, err := d.open(FileLogKey, text)
	if err != nil {
		return nil, err
	}
	priv, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse(filepath.Join(dir, FileLogKey), errors.New("is no Ed25519 key"), "checkpoints are signed with Ed25519 only")
	}
	return priv, nil
}

func (d *keyDir) generateLogKey() ([]byte, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if d.password == nil {
		return cryptoutils.MarshalPrivateKeyToPEM(priv)
	}
	der, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(priv, func(bool) ([]byte, error) { return d.pass() })
	if err != nil {
		return nil, err
	}
	return cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der), nil
}

// SignCheckpoint signs a checkpoint with the log's key.
func SignCheckpoint(key ed25519.PrivateKey, text []byte) ([]byte, error) { return sign(key, text) }
