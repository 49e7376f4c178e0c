// Package vault seals the values of secrets and puts them into requests. It alone opens
// them, and only for a request of an effect whose intent states the use.
package vault

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/writ-gateway/writ"
)

// Store is where secrets lie.
type Store interface {
	Read(ctx context.Context, shard writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error)
}

// Vault seals and opens with one key. It is safe for concurrent use.
type Vault struct {
	id    string
	aead  cipher.AEAD
	nonce []byte
	store Store
	shard writ.Tenant
}

// New makes a Vault of a key of 32 bytes. Without one (nil) it refuses everything clearly.
func New(key []byte, store Store, shard writ.Tenant) (*Vault, error) {
	v := &Vault{store: store, shard: shard}
	if key == nil {
		return v, nil
	}
	if len(key) != 32 {
		return nil, errors.New("vault.New: a key has 32 bytes")
	}
	block, err := aes.NewCipher(derive(key, "encrypt"))
	if err != nil {
		return nil, err
	}
	if v.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	v.nonce, v.id = derive(key, "nonce"), hex.EncodeToString(derive(key, "id")[:8])
	return v, nil
}

// derive makes a key for one use out of the one in the file.
func derive(key []byte, use string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("writ secrets v1 " + use))
	return h.Sum(nil)
}

// KeyID names the key; "" when there is none.
func (v *Vault) KeyID() string { return v.id }

func (v *Vault) missing(op string) error {
	return writ.Refuse(writ.CodeUnavailable, op, "this replica has no key for secrets", "operators: copy secrets.key into the directory of its keys, mode 0600, and start it again")
}

// Seal encrypts a value with AES-256-GCM, bound to what it is about. The nonce is a MAC of
// both: the same value about the same thing is sealed to the same text, so that a call
// that is made again is the same call; and no nonce is used for two texts. What this
// vault has sealed about the same thing is left as it is.
func (v *Vault) Seal(about, value string) (string, error) {
	if v.aead == nil {
		return "", v.missing("vault.Seal")
	}
	if _, err := v.Open(about, value); err == nil {
		return value, nil
	}
	mac := hmac.New(sha256.New, v.nonce)
	mac.Write([]byte(about))
	mac.Write([]byte{0})
	mac.Write([]byte(value))
	nonce := mac.Sum(nil)[:v.aead.NonceSize()]
	sealed := v.aead.Seal(nonce, nonce, []byte(value), []byte(about))
	return writ.SealedPrefix + v.id + ":" + base64.RawURLEncoding.EncodeToString(sealed), nil
}

// Open gives the value back. Its errors hold nothing of it.
func (v *Vault) Open(about, sealed string) (string, error) {
	const op = "vault.Open"
	if v.aead == nil {
		return "", v.missing(op)
	}
	if writ.SealedUnder(sealed) != v.id {
		return "", writ.Refuse(writ.CodeUnavailable, op, "the secret is sealed under another key than this replica has", "operators: give each replica the same secrets.key")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(sealed, writ.SealedPrefix+v.id+":"))
	n := v.aead.NonceSize()
	if err != nil || len(b) < n {
		return "", damaged(op)
	}
	value, err := v.aead.Open(nil, b[:n], b[n:], []byte(about))
	if err != nil {
		return "", damaged(op)
	}
	return string(value), nil
}

func damaged(op string) error {
	return writ.Refuse(writ.CodeUnavailable, op, "the secret in the store is damaged, or was put in the place of another", "operators: store it again with secret.put")
}

// Inject puts a secret into the header of a request to a host, and says which version. ctx
// is that of an effect: the intent must state this use. The header is set whatever it was;
// on an error nothing of it is left.
func (v *Vault) Inject(ctx context.Context, name, host string, header http.Header) (writ.SecretUse, error) {
	const op = "vault.Inject"
	x, err := v.find(ctx, name)
	if err != nil {
		return writ.SecretUse{}, err
	}
	header.Del(x.Header)
	use := writ.SecretUse{ID: x.ID, Version: x.Version}
	switch {
	case x.Host != host:
		return writ.SecretUse{}, writ.Refuse(writ.CodeEgress, op, "the secret is for another host, so it is not sent to this one", "operators: secret.list shows which host each is for")
	case !writ.ActingIn(ctx).MayUse(use):
		return writ.SecretUse{}, writ.Refuse(writ.CodeUnavailable, op, "the secret was changed since the call was judged, or the call did not ask for it", "repeat the call with another key")
	}
	value, err := v.Open(writ.SecretAbout(x.Name, x.Host, x.Header, x.Template), x.Sealed)
	if err != nil {
		return writ.SecretUse{}, err
	}
	header.Set(x.Header, strings.Replace(x.Template, writ.SecretMark, value, 1))
	return use, nil
}

// find reads a secret as it is now.
func (v *Vault) find(ctx context.Context, name string) (x writ.Secret, err error) {
	const op = "vault.Inject"
	none := writ.Refuse(writ.CodeUnavailable, op, "there is no such secret", "operators: store it with secret.put")
	if !writ.ValidSlug(name) {
		return x, none
	}
	key := writ.SecretNameKey(name)
	s, err := v.store.Read(ctx, v.shard, writ.ReadSet{Docs: []writ.Key{key}})
	if err != nil {
		return x, writ.Fault(writ.CodeStore, op, err)
	}
	n, _, ok, err := writ.Get[writ.SecretName](s, key)
	if err != nil || !ok {
		return x, cmp.Or[error](err, none)
	}
	if s, err = v.store.Read(ctx, v.shard, writ.ReadSet{Docs: []writ.Key{writ.SecretKey(n.ID)}}); err != nil {
		return x, writ.Fault(writ.CodeStore, op, err)
	}
	if x, _, ok, err = writ.Get[writ.Secret](s, writ.SecretKey(n.ID)); err != nil || !ok || x.State != writ.SecretStored || x.Name != name {
		return x, cmp.Or[error](err, none)
	}
	return x, nil
}
