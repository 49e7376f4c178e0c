package receipts

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"path/filepath"

	"github.com/writ-gateway/writ"
)

// Files of the key that checkpoints of the transparency log are signed with, in the
// key directory. Only the replica that writes the log needs them.
const (
	FileLogKey    = "log.key" // private, Ed25519, PEM, mode 0600, encrypted when there is a password
	FileLogPublic = "log.pub" // public, PEM; written last: from then on the log has this key
)

// OpenLogKey gives the log's key: that of a reference or file in where, or else the one
// in a directory of keys, which is made when there never was one. A key that is gone is not
// replaced, and another one is refused: whoever kept a checkpoint trusts it. published says
// that there are checkpoints already.
//
// The directory keeps the public half only once KeepLogKey is called: of a key that
// checkpoints there are were signed with.
func OpenLogKey(ctx context.Context, dir, where string, o KeyOptions, published bool) (key crypto.Signer, err error) {
	if where == "" {
		key, err = loadLogKey(dir, o, published)
	} else {
		key, err = OpenSigner(ctx, where, o)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return nil, refuse("the log's key", errors.New("is no Ed25519 key"), "checkpoints are signed with Ed25519 only")
	}
	kept, err := exists(filepath.Join(dir, FileLogPublic))
	if err == nil && kept {
		err = sameLogKey(dir, key)
	}
	return key, err
}

// KeepLogKey writes the public half of the log's key down: from then on the log has this
// key and no other.
func KeepLogKey(dir string, key crypto.Signer) error {
	pub, err := PublicPEM(key.Public())
	if err != nil {
		return err
	}
	path := filepath.Join(dir, FileLogPublic)
	if err := createOnce(path, pub, 0o644); err != nil {
		return refuse(path, err, "let the gateway's user write to the directory")
	}
	return sameLogKey(dir, key)
}

func sameLogKey(dir string, key crypto.Signer) error {
	path := filepath.Join(dir, FileLogPublic)
	have, err := readKeyFile(path, false)
	if err != nil {
		return err
	}
	pub, err := PublicPEM(key.Public())
	if err != nil {
		return err
	}
	if !bytes.Equal(have, pub) {
		return refuse(path, errors.New("is of another key than the one given to the log"),
			"a log keeps its key: restore both files from the same backup or name that key, or freeze this log and begin another under another origin (docs/keys.md)")
	}
	return nil
}

func loadLogKey(dir string, o KeyOptions, published bool) (crypto.Signer, error) {
	d := keyDir{dir: dir, password: o.Password}
	kept, err := exists(filepath.Join(dir, FileLogPublic))
	if err != nil {
		return nil, refuse(filepath.Join(dir, FileLogPublic), err, "let the gateway's user read it")
	}
	d.initialised = kept || published
	text, err := d.file(FileLogKey, true, d.generate(writ.KeyLog))
	if err != nil {
		return nil, err
	}
	key, err := d.open(FileLogKey, text)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, d.damaged(FileLogKey, errors.New("is no key that signs"))
	}
	return signer, nil
}

// SignCheckpoint signs a checkpoint with the log's key.
func SignCheckpoint(key crypto.Signer, text []byte) ([]byte, error) { return sign(key, text) }
