package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/keys"
	"github.com/writ-gateway/writ"
	"go.yaml.in/yaml/v3"
)

// signaturesFile is where `opa sign` puts its signature.
const signaturesFile = ".signatures.json"

// Trust says whose bundles are taken: keys, and what each of them may change.
type Trust struct {
	Keys map[string]TrustedKey `yaml:"keys"` // by id
}

// TrustedKey may sign bundles. Packs it does not name, and roles unless it may
// change them, must be as they are in force.
type TrustedKey struct {
	PublicKey string   `yaml:"public_key"` // PEM
	Algorithm string   `yaml:"algorithm"`  // ES256 when left out
	Packs     []string `yaml:"packs"`      // ids, or "*"
	Roles     bool     `yaml:"roles"`
}

// LoadTrust reads a trust file.
func LoadTrust(path string) (*Trust, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var t Trust
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&t); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(t.Keys) == 0 {
		return nil, fmt.Errorf("%s: no keys, so nothing could ever be staged", path)
	}
	for id, k := range t.Keys {
		if k.Algorithm == "" {
			k.Algorithm = "ES256"
		}
		if !slices.Contains([]string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, k.Algorithm) {
			return nil, fmt.Errorf("%s: key %s: algorithm must be a public key algorithm such as ES256", path, id)
		}
		if _, err := keys.NewKeyConfig(k.PublicKey, k.Algorithm, ""); err != nil || !strings.Contains(k.PublicKey, "PUBLIC KEY") {
			return nil, fmt.Errorf("%s: key %s: public_key must be a public key in PEM", path, id)
		}
		if len(k.Packs) == 0 && !k.Roles {
			return nil, fmt.Errorf("%s: key %s may change nothing: give it packs or roles", path, id)
		}
		t.Keys[id] = k
	}
	return &t, nil
}

func untrusted(why string) *writ.Error {
	return writ.Refuse(writ.CodePolicy, "policies.Vet", why, "sign it in its directory with `opa sign -b .`, with a key of the gateway's policy_trust file that may change these packs")
}

// Vet says who signed a bundle that somebody sent, and refuses it when that is
// nobody it trusts, when something in it is not what was signed, or when it
// changes or leaves out what the key may not change. inForce is canonical.
func (t *Trust) Vet(sent, inForce []byte) (signer string, err error) {
	plain, err := inflate(sent)
	if err != nil {
		return "", err
	}
	f, signature, err := readUpload(plain)
	if err != nil {
		return "", err
	}
	if signature == nil {
		return "", untrusted("the bundle is not signed")
	}
	var sc bundle.SignaturesConfig
	if err := json.Unmarshal(signature, &sc); err != nil {
		return "", untrusted("the signature of the bundle cannot be read")
	}
	sc.Plugin = "" // OPA's own
	for _, id := range slices.Sorted(maps.Keys(t.Keys)) {
		k := t.Keys[id]
		public := map[string]*bundle.KeyConfig{id: {Key: k.PublicKey, Algorithm: k.Algorithm}}
		signed, err := bundle.VerifyBundleSignature(sc, bundle.NewVerificationConfig(public, id, "", nil))
		if err != nil {
			continue
		}
		if err := asSigned(f, signed); err != nil {
			return "", err
		}
		return id, k.within(f, inForce)
	}
	return "", untrusted("no key this gateway trusts has signed the bundle")
}

// asSigned holds what decides to the signature, both ways.
func asSigned(f files, signed map[string]bundle.FileInfo) error {
	names := map[string]bundle.FileInfo{}
	for name, info := range signed {
		name = strings.TrimPrefix(strings.TrimPrefix(name, "./"), "/")
		info.Name = name
		names[name] = info
		if keep, err := wanted(name); err == nil && keep && f[name] == nil {
			return untrusted("the bundle lacks a file that was signed")
		}
	}
	for name, b := range f {
		if err := bundle.VerifyBundleFile(name, *bytes.NewBuffer(b), names); err != nil {
			return untrusted("the bundle holds a file that is not what was signed")
		}
	}
	return nil
}

// within refuses what a key may not change.
func (k TrustedKey) within(f files, inForce []byte) error {
	old := files{}
	if len(inForce) > 0 {
		var err error
		if old, err = readBundle(inForce); err != nil {
			return writ.Fault(writ.CodeInternal, "policies.Vet", err)
		}
	}
	before, after := packFiles(old), packFiles(f)
	for _, packs := range []map[string]files{before, after} {
		for id := range packs {
			if slices.Contains(k.Packs, "*") || slices.Contains(k.Packs, id) {
				continue
			}
			if before[id] == nil || after[id] == nil || before[id].digest() != after[id].digest() {
				return untrusted("the key that signed the bundle may not change the pack " + id)
			}
		}
	}
	for _, name := range []string{modelFile, rowsFile} {
		if !k.Roles && f[name] != nil && !bytes.Equal(f[name], old[name]) {
			return untrusted("the key that signed the bundle may not change roles")
		}
	}
	return nil
}
