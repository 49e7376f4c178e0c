package author

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/policies"
	"go.yaml.in/yaml/v3"
)

// Trust says which key may ship which packs, so that the key of one team
// cannot ship the pack of another.
type Trust struct {
	Keys map[string]TrustedKey `yaml:"keys"` // by key id
}

// TrustedKey is one team's key.
type TrustedKey struct {
	PublicKey string   `yaml:"public_key"` // PEM, or the name of a file beside trust.yaml
	Packs     []string `yaml:"packs"`      // ids this key may ship
	pem       []byte
}

// Here says whether the key itself is in the trust file, and not in one beside it.
func (k TrustedKey) Here() bool { return strings.HasPrefix(k.PublicKey, "-----BEGIN") }

// ReadTrust reads a trust file; key files are looked for in dir.
func ReadTrust(b []byte, dir fs.FS) (Trust, error) {
	var t Trust
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("the trust file: %w", policies.PlainYAML(err))
	}
	if len(t.Keys) == 0 {
		return t, fmt.Errorf("the trust file has no keys; it looks like this: {keys: {team-a: {public_key: team-a.pub, packs: [protected_paths]}}}")
	}
	for _, id := range slices.Sorted(maps.Keys(t.Keys)) {
		k := t.Keys[id]
		k.pem = []byte(k.PublicKey)
		if !k.Here() {
			pem, err := fs.ReadFile(dir, k.PublicKey)
			if err != nil {
				return t, fmt.Errorf("the trust file: key %q: public_key is neither PEM nor a file beside it: %w", id, err)
			}
			k.pem = pem
		}
		switch {
		case !keyName(id):
			return t, fmt.Errorf("the trust file: %q is not a key id", id)
		case len(k.Packs) == 0:
			return t, fmt.Errorf("the trust file: key %q may ship no pack; list their ids under packs", id)
		}
		for _, p := range k.Packs {
			if !packDir.MatchString(p) {
				return t, fmt.Errorf("the trust file: key %q: %q is not a pack id; patterns are not allowed", id, p)
			}
		}
		if _, err := publicKind(k.pem); err != nil {
			return t, fmt.Errorf("the trust file: key %q: %w", id, err)
		}
		t.Keys[id] = k
	}
	return t, nil
}

// Verify is Verify with the key the bundle names, if it is trusted, and
// refuses packs that are not that key's to ship.
func (t Trust) Verify(ctx context.Context, archive []byte) (Contents, error) {
	id, err := signer(archive)
	if err != nil {
		return Contents{}, err
	}
	k, ok := t.Keys[id]
	if !ok {
		return Contents{}, fmt.Errorf("key %q is not in the trust file", id)
	}
	return verify(ctx, archive, k.pem, id, k.Packs)
}
