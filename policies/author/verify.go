package author

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
)

var errPublicKey = errors.New("the key is no PEM file with an EC P-256 or Ed25519 public key; make it with: openssl pkey -in pack.pem -pubout")

// Verify checks a signed bundle against one key: form, signature, scope,
// digests, and that its packs load. KeyID, when given, is the only one that is
// accepted.
func Verify(ctx context.Context, archive, publicPEM []byte, keyID string) (Contents, error) {
	if keyID == "" {
		named, err := signer(archive)
		if err != nil {
			return Contents{}, err
		}
		keyID = named
	}
	return verify(ctx, archive, publicPEM, keyID, nil)
}

// warmUp bounds how long a pack of a bundle may think about an empty call.
const warmUp = 10 * time.Second

// verify looks at the packs, which evaluates them, only after the signature and
// after every pack was found to be one of those allowed; nil allows all.
func verify(ctx context.Context, archive, publicPEM []byte, keyID string, allowed []string) (Contents, error) {
	content, err := readArchive(archive)
	if err != nil {
		return Contents{}, err
	}
	if err := signature(archive, content, publicPEM, keyID); err != nil {
		return Contents{}, err
	}
	for name := range content {
		id, _, deeper := strings.Cut(name[1:], "/")
		if deeper && allowed != nil && !slices.Contains(allowed, id) {
			return Contents{}, fmt.Errorf("key %q may not ship the pack %s, only %s", keyID, id, strings.Join(allowed, ", "))
		}
	}
	out, err := inspect(ctx, content, warmUp)
	out.KeyID = keyID
	return out, err
}

// signature lets OPA read and verify the bundle. Nothing in the bundle chooses
// how: the default verifier, one key, its algorithm and the scope are given.
func signature(archive []byte, content map[string][]byte, publicPEM []byte, keyID string) error {
	alg, err := publicKind(publicPEM)
	if err != nil {
		return err
	}
	sc, err := signaturesOf(content)
	if err != nil {
		return err
	}
	if sc.Plugin != "" {
		return errors.New("the bundle names the plugin that is to verify it, which is not its to choose; sign it with 'writ policy sign'")
	}
	if named, err := namedKey(sc); err != nil {
		return err
	} else if named != keyID {
		return fmt.Errorf("the bundle is signed with key %q, not with %q", named, keyID)
	}
	keys := map[string]*bundle.KeyConfig{keyID: {Key: string(publicPEM), Algorithm: alg}}
	_, err = bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(archive), "")).
		WithBundleVerificationConfig(bundle.NewVerificationConfig(keys, keyID, Scope, nil)).
		WithSizeLimitBytes(maxFile).WithProcessAnnotations(true).Read()
	if err == nil {
		return nil
	}
	switch text := err.Error(); {
	case strings.Contains(text, "scope mismatch"):
		return fmt.Errorf("the signature is for another purpose than %q; sign the bundle with 'writ policy sign'", Scope)
	case strings.Contains(text, "failed to verify JWT signature"):
		return fmt.Errorf("the signature is not by key %q: the wrong key, or the bundle was changed", keyID)
	default:
		return fmt.Errorf("the bundle is not what was signed, or does not load: %s", firstLine(err))
	}
}

func signaturesOf(content map[string][]byte) (bundle.SignaturesConfig, error) {
	var sc bundle.SignaturesConfig
	b, ok := content[signaturesFile]
	if !ok {
		return sc, errors.New("the bundle is not signed; sign it with 'writ policy sign --key pack.pem'")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&sc); err != nil || len(sc.Signatures) != 1 {
		return sc, errors.New("/.signatures.json must hold exactly one signature")
	}
	return sc, nil
}

// signer is the id of the key a bundle says it is signed with. Nothing is
// verified: it only picks the key to verify with.
func signer(archive []byte) (string, error) {
	content, err := readArchive(archive)
	if err != nil {
		return "", err
	}
	sc, err := signaturesOf(content)
	if err != nil {
		return "", err
	}
	return namedKey(sc)
}

func namedKey(sc bundle.SignaturesConfig) (string, error) {
	head, _, _ := strings.Cut(sc.Signatures[0], ".")
	b, err := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		KeyID string `json:"kid"`
	}
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil || !keyName(h.KeyID) {
		return "", errors.New("/.signatures.json does not say which key signed it")
	}
	return h.KeyID, nil
}

// publicKind is the algorithm a public key verifies. A private key is refused,
// so that none is handed out by mistake.
func publicKind(publicPEM []byte) (string, error) {
	block, _ := pem.Decode(publicPEM)
	if block == nil || block.Type != "PUBLIC KEY" {
		return "", errPublicKey
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return "", errPublicKey
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return "EdDSA", nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return "ES256", nil
		}
	}
	return "", errPublicKey
}
