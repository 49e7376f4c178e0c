package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/gowebpki/jcs"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	own "github.com/writ-gateway/writ/internal/jcs"

	"github.com/writ-gateway/writ"
)

// CosignType is the payload type of what callers sign. It differs from every
// other text a key of writ signs, so that none of them passes for another.
const CosignType = "application/vnd.writ.cosign.v1+json"

// CosignText is the exact text a caller's key signs: the DSSE pre-authentication
// encoding of CosignType and the canonical JSON of c.
func CosignText(c writ.Cosigned) ([]byte, error) {
	payload, err := own.Marshal(own.Object{
		"args_digest": own.String(c.ArgsDigest), "capability": own.String(c.Capability),
		"idempotency_key": own.String(c.IdempotencyKey), "session": own.String(c.Session), "tenant": own.String(c.Tenant),
	})
	if err != nil {
		return nil, err
	}
	return dsse.PAE(CosignType, payload), nil
}

// ArgsDigest is the SHA-256 in hex of arguments in canonical JSON (RFC 8785);
// nothing stands for {}. Whole numbers a double does not hold exactly have no
// canonical form of their own and are refused.
func ArgsDigest(raw []byte) (string, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", errors.New("the arguments are not JSON")
		}
		if n, ok := token.(json.Number); ok && !exact(n) {
			return "", errors.New("the arguments hold a whole number beyond 2^53")
		}
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return "", errors.New("the arguments have no canonical form")
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:]), nil
}

func exact(n json.Number) bool {
	if strings.ContainsAny(n.String(), ".eE") {
		return true
	}
	i, err := n.Int64()
	return err == nil && i >= -own.MaxInt && i <= own.MaxInt
}

// ParsePublicKey reads a key callers may sign with, in PEM (PKIX): Ed25519 or
// ECDSA P-256. One key has one ID and one PEM.
func ParsePublicKey(text string) (writ.PublicKey, error) {
	pub, err := publicKey(text)
	if err != nil {
		return writ.PublicKey{}, err
	}
	id, err := dsse.SHA256KeyID(pub)
	if err != nil {
		return writ.PublicKey{}, errors.New("is of a kind that cannot be used")
	}
	canonical, err := cryptoutils.MarshalPublicKeyToPEM(pub)
	return writ.PublicKey{ID: id, PEM: string(canonical)}, err
}

// SigningKey is ParsePublicKey of a key that is to sign: one is refused by which no signature holds, as
// every program says it (RFC 8032 leaves open what some of them take).
func SigningKey(text string) (writ.PublicKey, error) {
	k, err := ParsePublicKey(text)
	if err != nil {
		return k, err
	}
	if pub, err := publicKey(text); err != nil {
		return writ.PublicKey{}, err
	} else if ed, ok := pub.(ed25519.PublicKey); ok && !plainPoint(ed) {
		return writ.PublicKey{}, errors.New("is a key by which no signature holds: make another")
	}
	return k, nil
}

// keyForm is a public key in PEM as every reader of writ takes it, those that share no code too: programs differ
// about what PEM may be beside it.
var keyForm = regexp.MustCompile(`^-----BEGIN PUBLIC KEY-----[ \t\r]*\n(?:[^\n:]*:[^\n]*\n)*([A-Za-z0-9+/= \t\r\n]+?)\n-----END PUBLIC KEY-----[ \t\v\f\r\n]*$`)

// publicKey reads the one public key in a text, with or without lines before it and headers in it.
func publicKey(text string) (crypto.PublicKey, error) {
	const begin = "-----BEGIN "
	if !strings.HasPrefix(text, begin) {
		text = text[strings.Index(text, "\n"+begin)+1:]
	}
	m := keyForm.FindStringSubmatch(text)
	if m == nil {
		return nil, errors.New("is not one public key in PEM: give it from BEGIN PUBLIC KEY to END PUBLIC KEY, as openssl pkey -pubout prints it")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(m[1]), ""))
	if err != nil {
		return nil, errors.New("cannot be read as a public key: print it again with openssl pkey -pubout")
	}
	return publicDER(der)
}

// publicDER reads a public key of the kinds callers sign with, in the one DER it has.
func publicDER(der []byte) (crypto.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("cannot be read as a public key: print it again with openssl pkey -pubout")
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, errKind
		}
	default:
		return nil, errKind
	}
	if one, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(one, der) {
		return nil, errors.New("is not in the one DER its key has: print it again with openssl pkey -pubout, from the private key")
	}
	return pub, nil
}

var errKind = errors.New("is neither an Ed25519 nor a P-256 key: make one with openssl genpkey -algorithm ed25519")

// Cosigner checks what callers sign; it is the door's.
type Cosigner struct{}

// ArgsDigest is the package's ArgsDigest.
func (Cosigner) ArgsDigest(raw []byte) (string, error) { return ArgsDigest(raw) }

// Verify says whether a signature is the key's over a call. Of an ECDSA
// signature exactly one form is taken: ASN.1 DER with the lower s.
func (Cosigner) Verify(key writ.PublicKey, c writ.Cosigned, sig []byte) bool {
	pub, err := publicKey(key.PEM)
	if err != nil {
		return false
	}
	text, err := CosignText(c)
	if err != nil {
		return false
	}
	if _, is := pub.(*ecdsa.PublicKey); is && oneForm(sig) != nil {
		return false
	}
	return holds(pub, text, sig)
}

// holds says whether a signature is a key's over a text. Of an ECDSA signature every
// form is taken.
func holds(pub crypto.PublicKey, text, sig []byte) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return holdsEd25519(k, text, sig)
	case *ecdsa.PublicKey:
		h := sha256.Sum256(text)
		return ecdsa.VerifyASN1(k, h[:], sig)
	}
	return false
}

// CosignKey is a caller's own private key.
type CosignKey struct {
	key   crypto.Signer
	keyID string
}

// LoadCosignKey reads a private key in PEM, Ed25519 or P-256, from a file that
// is its owner's alone.
func LoadCosignKey(path string) (*CosignKey, error) {
	return loadCosignKey(path, "openssl genpkey -algorithm ed25519 -out FILE", nil)
}

// LoadVerdictKey is LoadCosignKey for a key that may be encrypted, as cosign
// generate-key-pair makes them. password is asked only then; it may give none.
func LoadVerdictKey(path string, password func() ([]byte, error)) (*CosignKey, error) {
	return loadCosignKey(path, "cosign generate-key-pair, or openssl genpkey -algorithm ed25519 -out FILE", func(bool) ([]byte, error) {
		pw, err := password()
		return append([]byte{}, pw...), err // nil would say that the key is not encrypted
	})
}

func loadCosignKey(path, how string, password cryptoutils.PassFunc) (*CosignKey, error) {
	text, err := readKeyFile(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		err = refuse(path, errors.New("is missing"), "make it: "+how+", and chmod 600 it")
	}
	if err != nil {
		return nil, err
	}
	return newCosignKey(text, password)
}

// NewCosignKey reads a private key in PEM.
func NewCosignKey(text []byte) (*CosignKey, error) { return newCosignKey(text, nil) }

func newCosignKey(text []byte, password cryptoutils.PassFunc) (*CosignKey, error) {
	wrong := func(err error) (*CosignKey, error) {
		return nil, &writ.Error{
			Code: writ.CodeMalformed, Op: "receipts.NewCosignKey", Msg: "the key cannot be used to sign with", Err: err,
			Hint: "make one: openssl genpkey -algorithm ed25519 -out agent.pem",
		}
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(text, password)
	if err != nil {
		return wrong(err)
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return wrong(errors.New("it does not sign"))
	}
	pub, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return wrong(err)
	}
	parsed, err := ParsePublicKey(string(pub))
	if err != nil {
		return wrong(err)
	}
	return &CosignKey{key: key, keyID: parsed.ID}, nil
}

// KeyID of the key.
func (k *CosignKey) KeyID() string { return k.keyID }

// Header is the value of the header Cosignature for a call: c without the digest
// of its arguments, which are given as they are sent.
func (k *CosignKey) Header(c writ.Cosigned, args []byte) (string, error) {
	const op = "receipts.Cosign"
	var err error
	if c.ArgsDigest, err = ArgsDigest(args); err != nil {
		return "", writ.Refuse(writ.CodeMalformed, op, "the call cannot be signed: "+err.Error(), "send whole numbers as text, or smaller ones")
	}
	text, err := CosignText(c)
	if err != nil {
		return "", writ.Fault(writ.CodeInternal, op, err)
	}
	sig, err := sign(k.key, text)
	if err != nil {
		return "", writ.Fault(writ.CodeInternal, op, err)
	}
	return "v1 " + k.keyID + " " + base64.StdEncoding.EncodeToString(sig), nil
}
