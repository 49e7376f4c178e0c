package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
)

// Beside the key a log began with (FileKey, FilePublic), a directory of keys holds those
// that came later, each named after its SPKI digest. The public halves stay for good.
const (
	keyPrefix    = "receipt-"
	privateFiles = keyPrefix + "*.key"
	publicFiles  = "receipt*.pub"
)

// FilesOf are the names of a later receipt key's files.
func FilesOf(spki string) (private, public string) {
	return keyPrefix + spki[:16] + ".key", keyPrefix + spki[:16] + ".pub"
}

// LaterKeys reads the receipt keys of a directory that came after its first. A file that
// cannot be used is refused by its name: a key that is there and does not sign would be
// missed when it is needed.
func LaterKeys(dir string, o KeyOptions) ([]*ecdsa.PrivateKey, error) {
	d := keyDir{dir: dir, password: o.Password}
	return d.later()
}

func (d *keyDir) later() ([]*ecdsa.PrivateKey, error) {
	files, err := named(d.dir, privateFiles)
	if err != nil {
		return nil, err
	}
	var out []*ecdsa.PrivateKey
	for _, path := range files {
		text, err := readKeyFile(path, true)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was taken away just now
		}
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		key, err := d.open(name, text)
		if err != nil {
			return nil, err
		}
		priv, ok := key.(*ecdsa.PrivateKey)
		if !ok || priv.Curve != elliptic.P256() {
			return nil, refuse(path, errors.New("is not a P-256 key"), "receipts are signed with ECDSA P-256 only")
		}
		out = append(out, priv)
	}
	return out, nil
}

// named are the files of a directory whose names have a form. The directory's own name is
// none, whatever characters it has.
func named(dir, form string) (paths []string, err error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range list {
		if ok, _ := filepath.Match(form, e.Name()); ok {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, err
}

// PublicKeys reads the public halves of a directory, by key id, in PEM.
func PublicKeys(dir string) (map[string][]byte, error) {
	files, err := named(dir, publicFiles)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, path := range files {
		text, err := readKeyFile(path, false)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := NewVerifier(text)
		if err != nil {
			return nil, refuse(path, errors.New("is not a P-256 public key"), "restore it from a backup")
		}
		out[v.KeyID()] = text
	}
	return out, nil
}

// Generated is a key pair as files have it.
type Generated struct {
	Private, Public []byte // PEM; PKCS #8, or encrypted as cosign does it
	KeyID, SPKI     string
}

// Generate makes a key pair for a purpose: ECDSA P-256 for receipts and verdicts, as cosign makes
// them, Ed25519 for the log, a root and a witness. password may be nil: the private half is in clear then.
func Generate(purpose writ.KeyPurpose, password []byte) (g Generated, err error) {
	var priv crypto.Signer
	switch purpose {
	case writ.KeyReceipt, writ.KeyVerifier:
		priv, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case writ.KeyLog, writ.KeyRoot, writ.KeyWitness:
		_, priv, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = errors.New("a key is for one of receipt, log, root, verifier and witness")
	}
	if err != nil {
		return g, err
	}
	if password == nil {
		g.Private, err = cryptoutils.MarshalPrivateKeyToPEM(priv)
	} else {
		var der []byte
		if der, err = cryptoutils.MarshalPrivateKeyToEncryptedDER(priv, cryptoutils.StaticPasswordFunc(password)); err == nil {
			g.Private = cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der)
		}
	}
	if err != nil {
		return g, err
	}
	if g.SPKI, g.Public, err = SPKIOf(priv.Public()); err != nil {
		return g, err
	}
	pub, err := ParsePublicKey(string(g.Public))
	g.KeyID = pub.ID
	return g, err
}

// Keep puts a receipt key pair into a directory of keys. The private half comes first: a
// public one says that there is one.
func Keep(dir string, g Generated) error {
	private, public := FilesOf(g.SPKI)
	if err := Write(filepath.Join(dir, private), g.Private, true); err != nil {
		return err
	}
	return Write(filepath.Join(dir, public), g.Public, false)
}

// Write puts a key in a new file, whole and synced. What is there already is not replaced.
func Write(path string, text []byte, secret bool) error {
	mode := fs.FileMode(0o644)
	if secret {
		mode = 0o600
	}
	if err := createOnce(path, text, mode); err != nil {
		return refuse(path, err, "choose a directory that you can write to")
	}
	have, err := os.ReadFile(path)
	if err != nil {
		return refuse(path, err, "choose a directory that you can read")
	}
	if !bytes.Equal(have, text) {
		return refuse(path, errors.New("is there already, and is another key"), "choose another name, or move it away")
	}
	return nil
}

// LoadSigner reads a private key in PEM, of any kind writ signs with, from a file that is
// its owner's alone.
func LoadSigner(path string, o KeyOptions) (crypto.Signer, error) {
	text, err := readKeyFile(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		err = refuse(path, errors.New("is missing"), "make it: writ key generate")
	}
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(path)
	d := keyDir{dir: dir, password: o.Password}
	key, err := d.open(name, text)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, refuse(path, errors.New("does not sign"), "use an Ed25519 or P-256 key")
	}
	if _, text, err := SPKIOf(signer.Public()); err != nil {
		return nil, refuse(path, err, "use an Ed25519 or P-256 key")
	} else if _, err := publicKey(string(text)); err != nil {
		return nil, refuse(path, err, "use an Ed25519 or P-256 key")
	}
	return signer, nil
}

// ParseReceiptKey reads a public key that may sign receipts.
func ParseReceiptKey(text string) (spki, keyID, canonical string, err error) {
	v, err := NewVerifier([]byte(text))
	if err != nil {
		return "", "", "", err
	}
	l, err := lifeOf(v)
	if err != nil {
		return "", "", "", err
	}
	return l.SPKI, l.KeyID, l.PEM, nil
}
