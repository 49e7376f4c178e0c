package receipts

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
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
	private, public, err := logKeyFiles(dir)
	if err != nil {
		return nil, err
	}
	kept, err := exists(filepath.Join(dir, public))
	if err != nil {
		return nil, refuse(filepath.Join(dir, public), err, "let the gateway's user read it")
	}
	if key, err = openLogKey(ctx, dir, private, where, o, kept || published); err == nil && kept {
		err = sameLogKey(filepath.Join(dir, public), key)
	}
	return key, err
}

// KeepLogKey writes the public half of the log's key down: from then on the log has this
// key and no other.
func KeepLogKey(dir string, key crypto.Signer) error {
	_, public, err := logKeyFiles(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, public)
	pub, err := PublicPEM(key.Public())
	if err != nil {
		return err
	}
	if err := createOnce(path, pub, 0o644); err != nil {
		return refuse(path, err, "let the gateway's user write to the directory")
	}
	return sameLogKey(path, key)
}

func sameLogKey(path string, key crypto.Signer) error {
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
			"a log keeps its key: restore both files from the same backup or name that key; where it is lost, or is to be another one, see 'writ log next --new-key'")
	}
	return nil
}

// NewLogKey gives shard n, which is not begun, a key of its own: that of a reference or
// file in where, which must be another than the one before, or else one that is made.
func NewLogKey(ctx context.Context, dir, where string, o KeyOptions, n int) (crypto.Signer, error) {
	private, public := shardKeyFiles(n)
	key, err := openLogKey(ctx, dir, private, where, o, false)
	if err != nil {
		return nil, err
	}
	before, _, err := ReadLogPublic(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	pub, err := PublicPEM(key.Public())
	if err != nil {
		return nil, err
	}
	if bytes.Equal(before, pub) {
		return nil, refuse("the log's key", errors.New("is the one the log has"), "name the new key with log_key, or leave that out to have one made")
	}
	path := filepath.Join(dir, public)
	if err := durable.Replace(path, pub, 0o644); err != nil { // what is there has signed nothing
		return nil, refuse(path, err, "let the gateway's user write to the directory")
	}
	return key, nil
}

// NoLogKey takes back a key that NewLogKey gave a shard, which is not begun.
func NoLogKey(dir string, n int) error {
	private, public := shardKeyFiles(n)
	for _, name := range []string{public, private} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return refuse(filepath.Join(dir, name), err, "let the gateway's user write to the directory")
		}
	}
	return nil
}

// openLogKey opens the key of a reference or file in where, or else that of a file in a
// directory of keys, which is made unless there was one.
func openLogKey(ctx context.Context, dir, name, where string, o KeyOptions, was bool) (key crypto.Signer, err error) {
	if where == "" {
		key, err = loadLogKey(dir, name, o, was)
	} else {
		key, err = OpenSigner(ctx, where, o)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := key.Public().(ed25519.PublicKey); !ok {
		return nil, refuse("the log's key", errors.New("is no Ed25519 key"), "checkpoints are signed with Ed25519 only")
	}
	return key, nil
}

func loadLogKey(dir, name string, o KeyOptions, was bool) (crypto.Signer, error) {
	d := keyDir{dir: dir, password: o.Password}
	if was {
		if there, err := exists(filepath.Join(dir, name)); err == nil && !there {
			return nil, refuse(filepath.Join(dir, name), errors.New("is missing, and the log was signed with it"),
				"restore it from a backup, or name it with log_key where it is elsewhere; if it is lost, 'writ log next --new-key' freezes the log and has it go on with another key")
		}
	}
	text, err := d.file(name, true, d.generate(writ.KeyLog))
	if err != nil {
		return nil, err
	}
	key, err := d.open(name, text)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, d.damaged(name, errors.New("is no key that signs"))
	}
	return signer, nil
}

// SignCheckpoint signs a checkpoint with the log's key.
func SignCheckpoint(key crypto.Signer, text []byte) ([]byte, error) { return sign(key, text) }

// LogKeyLost says whether the private half of the log's key is not in the directory, nor
// elsewhere: where names another place.
func LogKeyLost(dir, where string) (bool, error) {
	if where != "" {
		return false, nil
	}
	private, _, err := logKeyFiles(dir)
	if err != nil {
		return false, err
	}
	there, err := exists(filepath.Join(dir, private))
	return !there, err
}
