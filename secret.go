package writ

import "strings"

// SecretState is where a secret stands.
type SecretState string

const (
	SecretStored  SecretState = "stored"  // by secret.put; again for each version
	SecretDeleted SecretState = "deleted" // by secret.delete. Terminal; its name may be used again
)

// SecretMoves are the legal moves of a secret.
var SecretMoves = Table[SecretState]{
	"":            {SecretStored},
	SecretStored:  {SecretStored, SecretDeleted},
	SecretDeleted: {},
}

// Secret is a value that the gateway puts into what it sends, and shows to nobody.
type Secret struct {
	ID        SecretID    `json:"id"`
	Name      string      `json:"name"` // a slug
	State     SecretState `json:"state"`
	Version   int64       `json:"version"` // from 1
	Host      string      `json:"host"`    // it goes to this host and no other, in the one spelling of egress: lower case, with a port unless that is 443
	Header    string      `json:"header"`  // in canonical form
	Template  string      `json:"template"`
	Sealed    string      `json:"sealed"` // the value, as Sealed… below
	SetBy     PrincipalID `json:"set_by"`
	CreatedAt int64       `json:"created_at"`
	UpdatedAt int64       `json:"updated_at"`
	Receipt   ReceiptID   `json:"receipt"`
}

// SecretKey is the document of a secret, SecretNameKey says which one has a name. People
// choose names, so they are not in receipts.
func SecretKey(id SecretID) Key     { return Key(ObjectSecret + "/" + string(id)) }
func SecretNameKey(name string) Key { return Key("secretname/" + name) }

// SecretName is the document of a name.
type SecretName struct {
	ID SecretID `json:"id"`
}

// IndexSecrets lists secrets by name: "<name> <id>".
const IndexSecrets Index = "list/secrets"

// SecretReads names what UseSecret must see, given what was read.
func SecretReads(name string, s Snapshot) (rs ReadSet) {
	if !ValidSlug(name) {
		return rs
	}
	key := SecretNameKey(name)
	rs.Docs = []Key{key}
	if s.Has(key) {
		if n, _, ok, err := Get[SecretName](s, key); err == nil && ok {
			rs.Docs = append(rs.Docs, SecretKey(n.ID))
		}
	}
	return rs
}

// UseSecret says which version of a secret would be put into a request to a host, for the
// errand of an effect. It refuses where there is no such secret, or it is for another host.
func UseSecret(s Snapshot, name, host string) (SecretUse, error) {
	const op = "writ.UseSecret"
	doc, err := secretNamed(s, name)
	if err != nil {
		return SecretUse{}, err
	}
	switch {
	case doc == nil:
		return SecretUse{}, Refuse(CodeUnavailable, op, "there is no such secret", "operators: store it with secret.put")
	case doc.Host != host:
		return SecretUse{}, Refuse(CodeEgress, op, "the secret is for another host, so it is not sent to this one", "operators: secret.list shows which host each is for")
	}
	return SecretUse{ID: doc.ID, Version: doc.Version}, nil
}

// secretNamed is the secret of a name; nil when there is none.
func secretNamed(s Snapshot, name string) (*Secret, error) {
	if !ValidSlug(name) {
		return nil, nil
	}
	n, _, ok, err := Get[SecretName](s, SecretNameKey(name))
	if err != nil || !ok {
		return nil, err
	}
	doc, _, ok, err := Get[Secret](s, SecretKey(n.ID))
	if err != nil || !ok || doc.State != SecretStored {
		return nil, err
	}
	return &doc, nil
}

// SealedPrefix is how a value begins that the door has sealed: what follows names the key
// and is the value, encrypted: "sealed:<key id>:<base64>".
const SealedPrefix = "sealed:"

// SealedUnder is the id of the key a value is sealed under; "" when it is not sealed.
func SealedUnder(sealed string) string {
	rest, ok := strings.CutPrefix(sealed, SealedPrefix)
	key, _, cut := strings.Cut(rest, ":")
	if !ok || !cut {
		return ""
	}
	return key
}

// SecretAbout is what a sealed value is bound to: under another name, for another host or
// in another place of a request it does not open.
func SecretAbout(name, host, header, template string) string {
	return strings.Join([]string{name, host, header, template}, "\x00")
}

// Concealing is implemented by arguments with a value nobody may see. The door has it
// sealed as soon as they are decoded: what is judged, digested, kept as evidence or shown to
// people who are to agree has the sealed value.
type Concealing interface {
	// Conceal puts the sealed value in the place of the value, or refuses.
	Conceal(seal func(about, value string) (sealed string, err error)) error
}

// SecretMark stands for the value in the template of a header.
const SecretMark = "{{secret}}"
