package receipts

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// remoteWait is how long a key management service may take for one answer.
const remoteWait = 30 * time.Second

var refPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*://.+$`)

// IsReference says whether a key is named by a reference to a key management service,
// name://…, and not by a file.
func IsReference(s string) bool { return refPattern.MatchString(s) }

// remote is a key that others hold. It signs whole texts: what of them is hashed, and how,
// is for its kind to say.
type remote struct {
	ref string
	sv  kms.SignerVerifier
	pub crypto.PublicKey
}

// OpenRemote gives the key of a reference, name://…, which the program sigstore-kms-name
// on the PATH answers for (sigstore's plugins of key management services). It may be
// Ed25519 or ECDSA P-256, and holds the root or the log's key: never a receipt key, since
// what it signs twice is not the same twice.
func OpenRemote(ctx context.Context, ref string) (crypto.Signer, error) {
	if !IsReference(ref) {
		return nil, refuse("the key", errors.New("is no reference"), "name it name://…, for the program sigstore-kms-name")
	}
	name, _, _ := strings.Cut(ref, "://")
	wrong := func(err error) error {
		return refuse("the key of "+name+"://", err, "see that sigstore-kms-"+name+" is on the PATH of this process and answers for the key; run by hand, it says more")
	}
	sv, err := kms.Get(ctx, ref, crypto.SHA256)
	if err != nil {
		return nil, wrong(errors.New("cannot be reached"))
	}
	ask, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	pub, err := sv.PublicKey(options.WithContext(ask))
	if err != nil {
		return nil, wrong(errors.New("cannot be read")) // what the program says is not for a log: it may name what the reference holds
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, wrong(errors.New("is not of curve P-256"))
		}
	default:
		return nil, wrong(errors.New("is neither an Ed25519 nor a P-256 key"))
	}
	return &remote{ref: name, sv: sv, pub: pub}, nil
}

// Public is the public half.
func (r *remote) Public() crypto.PublicKey { return r.pub }

// Sign is not how a remote key signs: it is asked with the text.
func (r *remote) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a key of a key management service signs whole texts")
}

// text signs one, and believes no signature that does not hold.
func (r *remote) text(pae []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteWait)
	defer cancel()
	sig, err := r.sv.SignMessage(bytes.NewReader(pae), options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("the key of %s:// does not sign", r.ref)
	}
	if !holds(r.pub, pae, sig) {
		return nil, fmt.Errorf("the key of %s:// signed something else than it was asked to", r.ref)
	}
	return sig, nil
}

// OpenSigner opens a key by its reference or its file.
func OpenSigner(ctx context.Context, where string, o KeyOptions) (crypto.Signer, error) {
	if IsReference(where) {
		return OpenRemote(ctx, where)
	}
	return LoadSigner(where, o)
}
