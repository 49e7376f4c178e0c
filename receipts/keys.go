package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/durable"
)

// Files of a key directory.
const (
	FileKey      = "receipt.key"  // private key, PEM, mode 0600, encrypted when there is a password
	FilePublic   = "receipt.pub"  // public key, PEM; written last: the directory is then initialised
	FileEvidence = "evidence.key" // 32 bytes in hex, mode 0600
	FileOrigin   = "origin"       // name of the log
)

// DefaultOrigin names the log of a gateway that was given no name.
const DefaultOrigin = "writ.local"

const maxKeyFile = 64 << 10

// KeyOptions say how keys are made and read. The zero value will do.
type KeyOptions struct {
	// Password protects the private key; nil means a key in clear. It is asked
	// for once per LoadOrCreate at most, and only if needed.
	Password func() ([]byte, error)
	// Origin names the log, a bare host name. Empty: what the directory says,
	// DefaultOrigin for a new one. Another name than the directory's is refused.
	Origin string
	// InForce is the id of the key that signs now, where the caller knows it. Once that
	// is not the first one, receipt.key need not be there any more.
	InForce string
}

// Keys is what a key directory holds.
type Keys struct {
	Private  *ecdsa.PrivateKey   // the one in force, or the first
	Later    []*ecdsa.PrivateKey // what else there is, besides Private
	Evidence [32]byte
	Origin   string
	KeyID    string
	Created  bool // by this call
}

// Sealer makes the sealer of these keys.
func (k *Keys) Sealer() (*Sealer, error) {
	s, err := NewSealer(k.Private, k.Origin, k.Evidence)
	for _, later := range k.Later {
		if err == nil {
			_, err = s.Hold(later)
		}
	}
	return s, err
}

// LoadOrCreate reads the keys of a directory, or makes them when it was never
// initialised. Every receipt ever sealed hangs on these files, so nothing is
// replaced: if receipt.pub is there and another file is missing, unreadable,
// damaged, open to others or of another key, that is an error naming the file.
//
// Making is safe to repeat and to race. Each file is written beside its place,
// synced and linked into it, which fails when somebody was faster; then the
// file is read like any other.
//
//	crash after 1 evidence.key, 2 origin, 3 receipt.key: the next start keeps
//	  what is there and makes the rest; nothing was signed yet.
//	crash after 4 receipt.pub: initialised.
func LoadOrCreate(dir string, o KeyOptions) (*Keys, error) {
	if o.Origin != "" && !ValidOrigin(o.Origin) {
		return nil, refuse("the origin", errors.New("not a bare host name"), "use lower-case letters, digits, dots and hyphens, for example receipts.example.org")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, refuse(dir, err, "choose a directory that can be made")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, refuse(dir, err, "let the gateway's user read it")
	}
	if err := OnlyOwners(dir, info); err != nil {
		return nil, err
	}
	d := keyDir{dir: dir, password: o.Password}
	if d.initialised, err = exists(filepath.Join(dir, FilePublic)); err != nil {
		return nil, refuse(filepath.Join(dir, FilePublic), err, "let the gateway's user read it")
	}
	k := &Keys{Created: !d.initialised}

	text, err := d.file(FileEvidence, true, func() ([]byte, error) {
		b := make([]byte, 32)
		_, err := rand.Read(b)
		return append([]byte(hex.EncodeToString(b)), '\n'), err
	})
	if err != nil {
		return nil, err
	}
	if text = bytes.TrimSpace(text); len(text) != 64 {
		return nil, d.damaged(FileEvidence, errors.New("is not 32 bytes in hex"))
	}
	if _, err := hex.Decode(k.Evidence[:], text); err != nil {
		return nil, d.damaged(FileEvidence, errors.New("is not 32 bytes in hex"))
	}

	name := o.Origin
	if name == "" {
		name = DefaultOrigin
	}
	if text, err = d.file(FileOrigin, false, func() ([]byte, error) { return []byte(name + "\n"), nil }); err != nil {
		return nil, err
	}
	if k.Origin = strings.TrimSpace(string(text)); !ValidOrigin(k.Origin) {
		return nil, d.damaged(FileOrigin, errors.New("is not a bare host name"))
	}
	if o.Origin != "" && o.Origin != k.Origin {
		return nil, refuse(filepath.Join(dir, FileOrigin), errors.New("names another log than the configuration"),
			"a log keeps its name: take the configured origin away, or use another directory")
	}

	if k.Later, err = d.later(); err != nil {
		return nil, err
	}
	if gone, err := d.moved(k, o.InForce); err != nil || gone {
		return k, err
	}
	if text, err = d.file(FileKey, true, d.generate(writ.KeyReceipt)); err != nil {
		return nil, err
	}
	if k.Private, err = d.private(text); err != nil {
		return nil, err
	}
	if k.KeyID, err = KeyIDOf(&k.Private.PublicKey); err != nil {
		return nil, d.damaged(FileKey, err)
	}
	pub, err := cryptoutils.MarshalPublicKeyToPEM(&k.Private.PublicKey)
	if err != nil {
		return nil, d.damaged(FileKey, err)
	}
	if text, err = d.file(FilePublic, false, func() ([]byte, error) { return pub, nil }); err != nil {
		return nil, err
	}
	v, err := NewVerifier(text)
	if err != nil {
		return nil, d.damaged(FilePublic, err)
	}
	if v.keyID != k.KeyID {
		return nil, refuse(filepath.Join(dir, FilePublic), errors.New("is of another key than "+FileKey), "restore both files from the same backup")
	}
	k.prefer(o.InForce)
	return k, nil
}

// prefer makes the key in force the private one, if it is here.
func (k *Keys) prefer(keyID string) bool {
	for i, later := range k.Later {
		if id, err := KeyIDOf(&later.PublicKey); err != nil || id != keyID {
			continue
		}
		first := k.Private
		k.Private, k.KeyID = later, keyID
		if first == nil {
			k.Later = slices.Delete(k.Later, i, i+1)
		} else {
			k.Later[i] = first
		}
		return true
	}
	return false
}

// moved says whether the first key was taken away for good, since a later one is in force
// and is here. What it has signed is checked with its public half.
func (d *keyDir) moved(k *Keys, inForce string) (bool, error) {
	there, err := exists(filepath.Join(d.dir, FileKey))
	if err != nil || there || !d.initialised || !k.prefer(inForce) {
		return false, err
	}
	text, err := readKeyFile(filepath.Join(d.dir, FilePublic), false)
	if err != nil {
		return false, err
	}
	if _, err := NewVerifier(text); err != nil {
		return false, d.damaged(FilePublic, err)
	}
	return true, nil
}

// OriginOf is the name that the receipts of a directory of keys give their log.
func OriginOf(dir string) (string, error) {
	path := filepath.Join(dir, FileOrigin)
	text, err := readKeyFile(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		err = refuse(path, errors.New("is missing"), "name the directory of keys of the gateway")
	}
	if name := strings.TrimSpace(string(text)); err != nil || ValidOrigin(name) {
		return name, err
	}
	return "", refuse(path, errors.New("is not a bare host name"), "restore it from a backup")
}

// OnlyOwners refuses a key directory that others can write to.
func OnlyOwners(dir string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	return refuse(dir, fmt.Errorf("has mode %04o: others can put keys of theirs in place", info.Mode().Perm()), "chmod 700 it, and check that the keys are still yours")
}

// keyDir reads and makes the files of one directory.
type keyDir struct {
	dir         string
	initialised bool
	password    func() ([]byte, error)
	asked       []byte
}

// file reads a file. If it is missing and the directory was never initialised,
// make's bytes are put in its place first.
func (d *keyDir) file(name string, secret bool, make func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(d.dir, name)
	text, err := readKeyFile(path, secret)
	if !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if d.initialised {
		return nil, refuse(path, errors.New("is missing, and this directory was initialised before"),
			"restore it from a backup; without it nothing new can be sealed here (start with an empty directory to begin a new log)")
	}
	if text, err = make(); err != nil {
		return nil, refuse(path, err, "the file could not be made")
	}
	mode := fs.FileMode(0o644)
	if secret {
		mode = 0o600
	}
	if err := createOnce(path, text, mode); err != nil {
		return nil, refuse(path, err, "let the gateway's user write to the directory")
	}
	return readKeyFile(path, secret)
}

func (d *keyDir) damaged(name string, err error) error {
	return refuse(filepath.Join(d.dir, name), err, "restore it from a backup")
}

// pass asks for the password, once.
func (d *keyDir) pass() ([]byte, error) {
	if d.asked == nil {
		pw, err := d.password()
		if err != nil {
			return nil, err
		}
		if len(pw) == 0 {
			return nil, errors.New("the password is empty")
		}
		d.asked = pw
	}
	return d.asked, nil
}

// generate makes the text of a new private key, encrypted when there is a password.
func (d *keyDir) generate(purpose writ.KeyPurpose) func() ([]byte, error) {
	return func() (text []byte, err error) {
		var pw []byte
		if d.password != nil {
			if pw, err = d.pass(); err != nil {
				return nil, err
			}
		}
		g, err := Generate(purpose, pw)
		return g.Private, err
	}
}

func (d *keyDir) private(text []byte) (*ecdsa.PrivateKey, error) {
	key, err := d.open(FileKey, text)
	if err != nil {
		return nil, err
	}
	priv, ok := key.(*ecdsa.PrivateKey)
	if !ok || priv.Curve != elliptic.P256() {
		return nil, refuse(filepath.Join(d.dir, FileKey), errors.New("is not a P-256 key"), "receipts are signed with ECDSA P-256 only")
	}
	return priv, nil
}

// open reads a private key out of a file's text, with the password if it needs one.
func (d *keyDir) open(name string, text []byte) (crypto.PrivateKey, error) {
	path := filepath.Join(d.dir, name)
	block, rest := pem.Decode(text)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, d.damaged(name, errors.New("is not one PEM block"))
	}
	var pf cryptoutils.PassFunc
	if strings.HasPrefix(block.Type, "ENCRYPTED ") {
		if d.password == nil {
			return nil, refuse(path, errors.New("is encrypted, and no password was given"), "give the password of the receipt key")
		}
		pw, err := d.pass()
		if err != nil {
			return nil, refuse(path, err, "give the password of the receipt key")
		}
		pf = cryptoutils.StaticPasswordFunc(pw)
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(text, pf)
	if err != nil {
		if pf != nil {
			return nil, refuse(path, errors.New("does not open with this password"), "give the password of the receipt key")
		}
		return nil, d.damaged(name, err)
	}
	return key, nil
}

// readKeyFile reads a small regular file; a secret one must be its owner's
// alone. The error is fs.ErrNotExist when there is none.
func readKeyFile(path string, secret bool) ([]byte, error) {
	// Non-blocking, so that a pipe in the file's place cannot hold the start up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, refuse(path, errors.New("cannot be opened"), "let the gateway's user read it")
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, refuse(path, err, "let the gateway's user read it")
	case !info.Mode().IsRegular():
		return nil, refuse(path, errors.New("is not a regular file"), "move away what stands in its place")
	case secret && info.Mode().Perm()&0o077 != 0:
		return nil, refuse(path, fmt.Errorf("has mode %04o: others can use it", info.Mode().Perm()), "chmod 600 it, and consider whether the key is still secret")
	case info.Size() > maxKeyFile:
		return nil, refuse(path, errors.New("is too large to be a key"), "move away what stands in its place")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, refuse(path, errors.New("cannot be read"), "let the gateway's user read it")
	}
	return text, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// createOnce puts text at path, whole and synced, unless something is there.
func createOnce(path string, text []byte, mode fs.FileMode) (err error) {
	dir, base := filepath.Dir(path), filepath.Base(path)
	f, err := os.CreateTemp(dir, "."+base+".*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(dir)
}

// refuse says which file is in the way of starting.
func refuse(what string, err error, hint string) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: "receipts.LoadOrCreate", Msg: what + " " + err.Error(), Hint: hint}
}

var originPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

// ValidOrigin says whether s is a bare host name: what stock verifiers expect
// as the origin of a log.
func ValidOrigin(s string) bool { return len(s) <= MaxWord && originPattern.MatchString(s) }
