package receipts

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/writ-gateway/writ"
)

// Files of the key that checkpoints of the transparency log are signed with, in the
// key directory. Only the replica that writes the log needs them.
const (
	FileLogKey    = "log.key" // private, Ed25519, PEM, mode 0600, encrypted when there is a password
	FileLogPublic = "log.pub" // public, PEM; written last: from then on the log has this key
)

// LoadLogKey reads the log's key out of a key directory, or makes it when there never
// was one. A key that is gone is not replaced: whoever kept a checkpoint trusts it.
func LoadLogKey(dir string, o KeyOptions) (ed25519.PrivateKey, error) {
	d := keyDir{dir: dir, password: o.Password}
	var err error
	if d.initialised, err = exists(filepath.Join(dir, FileLogPublic)); err != nil {
		return nil, refuse(filepath.Join(dir, FileLogPublic), err, "let the gateway's user read it")
	}
	text, err := d.file(FileLogKey, true, d.generate(writ.KeyLog))
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
	pub, err := cryptoutils.MarshalPublicKeyToPEM(priv.Public())
	if err != nil {
		return nil, d.damaged(FileLogKey, err)
	}
	if text, err = d.file(FileLogPublic, false, func() ([]byte, error) { return pub, nil }); err != nil {
		return nil, err
	}
	if !bytes.Equal(text, pub) {
		return nil, refuse(filepath.Join(dir, FileLogPublic), errors.New("is of another key than "+FileLogKey), "restore both files from the same backup")
	}
	return priv, nil
}

// SignCheckpoint signs a checkpoint with the log's key.
func SignCheckpoint(key crypto.Signer, text []byte) ([]byte, error) { return sign(key, text) }
