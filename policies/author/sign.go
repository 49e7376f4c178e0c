package author

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// Scope is what a signature is for. The same key may sign other bundles; none
// of them passes for policies of a gateway.
const Scope = "writ"

var errKey = errors.New("the key is no PEM file with an EC P-256 or Ed25519 private key; make one with: openssl genpkey -algorithm ed25519 -out pack.pem")

// SignBundle adds .signatures.json in OPA's own format, ES256 or EdDSA by the kind
// of key, and replaces one that is there. No error quotes the key. A bundle
// signed with Ed25519 has the same bytes every time.
func SignBundle(archive, keyPEM []byte, keyID string) ([]byte, error) {
	alg, err := privateKind(keyPEM)
	if err != nil {
		return nil, err
	}
	if !keyName(keyID) {
		return nil, errors.New("a key id is 1 to 64 letters, digits, dots, dashes and underscores")
	}
	content, err := readArchive(archive)
	if err != nil {
		return nil, err
	}
	delete(content, signaturesFile)
	hasher, err := bundle.NewSignatureHasher(bundle.SHA256)
	if err != nil {
		return nil, err
	}
	var files []bundle.FileInfo
	for _, name := range slices.Sorted(maps.Keys(content)) {
		var value any = content[name]
		if bundle.IsStructuredDoc(name) { // as OPA hashes it when it verifies
			value = nil
			if err := util.Unmarshal(content[name], &value); err != nil {
				return nil, fmt.Errorf("%s: %s", name, firstLine(err))
			}
		}
		sum, err := hasher.HashFile(value)
		if err != nil {
			return nil, err
		}
		files = append(files, bundle.NewFile(strings.TrimPrefix(name, "/"), hex.EncodeToString(sum), string(bundle.SHA256)))
	}
	token, err := signedToken(files, string(bytes.TrimSpace(keyPEM)), alg, keyID)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(bundle.SignaturesConfig{Signatures: []string{token}})
	if err != nil {
		return nil, err
	}
	content[signaturesFile] = append(b, '\n')
	return writeArchive(content)
}

// signedToken signs with OPA's own signer, which takes claims from a file only.
func signedToken(files []bundle.FileInfo, keyPEM, alg, keyID string) (string, error) {
	claims, err := json.Marshal(map[string]string{"scope": Scope, "keyid": keyID})
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "writ-claims-*.json")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(claims)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	token, err := bundle.GenerateSignedToken(files, bundle.NewSigningConfig(keyPEM, alg, f.Name()), keyID)
	if err != nil {
		return "", errKey // what went wrong may quote the key
	}
	return token, nil
}

// privateKind is the algorithm a private key signs with.
func privateKind(keyPEM []byte) (string, error) {
	block, rest := pem.Decode(keyPEM)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(keyPEM, []byte("-----BEGIN")) {
		return "", errKey
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return "", errKey
	}
	if err != nil {
		return "", errKey
	}
	switch k := key.(type) {
	case ed25519.PrivateKey:
		return "EdDSA", nil
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return "ES256", nil
		}
	}
	return "", errKey
}

// keyName says whether a text can be a key id.
func keyName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	})
}
