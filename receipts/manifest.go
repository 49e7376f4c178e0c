package receipts

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/jcs"
)

// A key manifest lists the keys of a log and what each may sign: an in-toto statement in
// a DSSE envelope. It follows from the receipts of keys, byte by byte: who has those needs
// no manifest, and believes none that says otherwise. What it adds are the public halves,
// which receipts name by their digest, and the word of a root.
type (
	manifestStatement struct {
		Type          string            `json:"_type"`
		Predicate     manifestPredicate `json:"predicate"`
		PredicateType string            `json:"predicateType"`
		Subject       []subject         `json:"subject"`
	}
	manifestPredicate struct {
		Keys   []ManifestKey `json:"keys"`
		Log    origin        `json:"log"`
		Size   int64         `json:"size"` // it covers the receipts of keys before this index
		Tenant string        `json:"tenant"`
	}
)

// ManifestKey is a key in a manifest. Of keys that sign no receipts only id, purpose,
// state and the key itself are there.
type ManifestKey struct {
	Activated   string `json:"activated,omitempty" doc:"Receipt that made it the signing one; none of the key the log began with."`
	From        *int64 `json:"from,omitempty" doc:"First index of the log it may sign."`
	Introduced  string `json:"introduced,omitempty" doc:"Receipt that introduced it."`
	KeyID       string `json:"keyId" doc:"Fingerprint, as receipts name it."`
	PEM         string `json:"pem" doc:"Public key."`
	Purpose     string `json:"purpose" doc:"What it signs." enum:"receipt,log,root"`
	Retired     string `json:"retired,omitempty" doc:"Receipt that retired it."`
	Revoked     string `json:"revoked,omitempty" doc:"Receipt that revoked it."`
	RevokedFrom *int64 `json:"revokedFrom,omitempty" doc:"From this index on nothing it signed is to be believed; what was logged before stays valid."`
	SPKI        string `json:"spki" doc:"SHA-256 of the public key (DER, PKIX), hex."`
	State       string `json:"state" doc:"State." enum:"introduced,active,retired,revoked"`
	Until       *int64 `json:"until,omitempty" doc:"Last index of the log it may sign; absent while it signs."`
}

// Other is a key of the manifest that signs no receipts: the log's, and the root.
type Other struct {
	Purpose writ.KeyPurpose
	Public  crypto.PublicKey
}

// Manifest renders the statement of a ring's keys, deterministically.
func Manifest(r *Ring, log string, tenant writ.Tenant, others ...Other) ([]byte, error) {
	if !ValidOrigin(log) || !tenant.Valid() || len(r.events) > 0 && (log != r.log || tenant != r.tenant) {
		return nil, errors.New("the manifest is of another log or tenant than its receipts")
	}
	p := manifestPredicate{Log: origin{log}, Tenant: string(tenant), Keys: []ManifestKey{}}
	if n := len(r.events); n > 0 {
		p.Size = r.events[n-1].Seq + 1
	}
	at := func(i int64) *int64 {
		if i < 0 {
			return nil
		}
		return &i
	}
	for _, k := range r.keys {
		if k.PEM == "" {
			return nil, fmt.Errorf("the public half of %s is not at hand", k.KeyID)
		}
		p.Keys = append(p.Keys, ManifestKey{
			Activated: string(k.Activated), From: at(k.From), Introduced: string(k.Introduced), KeyID: k.KeyID, PEM: k.PEM,
			Purpose: string(writ.KeyReceipt), Retired: string(k.Retired), Revoked: string(k.Revoked), RevokedFrom: at(k.RevokedFrom),
			SPKI: k.SPKI, State: string(k.State), Until: at(k.Until),
		})
	}
	for _, o := range others {
		id, err := dsse.SHA256KeyID(o.Public)
		if err != nil {
			return nil, err
		}
		spki, text, err := SPKIOf(o.Public)
		if err != nil {
			return nil, err
		}
		p.Keys = append(p.Keys, ManifestKey{KeyID: id, PEM: string(text), Purpose: string(o.Purpose), SPKI: spki, State: string(writ.KeyActive)})
	}
	return renderManifest(p, r.chain)
}

func renderManifest(p manifestPredicate, c chain) ([]byte, error) {
	about := subject{Name: "keys/" + p.Log.Origin}
	about.Digest.SHA256 = hex.EncodeToString(c[:])
	return json.Marshal(manifestStatement{Type: StatementType, Predicate: p, PredicateType: ManifestType, Subject: []subject{about}})
}

// decodeManifest reads a manifest's payload strictly: rendered again it is the same.
func decodeManifest(payload []byte) (p manifestPredicate, err error) {
	if err := jcs.Check(payload); err != nil {
		return p, err
	}
	var s manifestStatement
	if err := strict(payload, &s); err != nil || len(s.Subject) != 1 || !hexDigest(s.Subject[0].Digest.SHA256) {
		return p, errForm
	}
	var c chain
	if _, err := hex.Decode(c[:], []byte(s.Subject[0].Digest.SHA256)); err != nil {
		return p, errForm
	}
	if again, err := renderManifest(s.Predicate, c); err != nil || !bytes.Equal(again, payload) {
		return p, errForm
	}
	return s.Predicate, nil
}

// KeysFormat names a file of keys: a manifest with the receipts it follows from.
const KeysFormat = "writ-keys/v1"

// KeysFile is such a file.
type KeysFile struct {
	Format   string            `json:"format"`
	Manifest json.RawMessage   `json:"manifest"` // DSSE envelope
	Receipts []json.RawMessage `json:"receipts"` // of keys, DSSE envelopes, in order
}

// MaxKeysFile bounds a file of keys.
const MaxKeysFile = 8 << 20

// Trusted is what a file of keys is held to. One of the two is enough.
type Trusted struct {
	Key  []byte // the receipt key the log begins with, PEM
	Root []byte // the key that must have signed the manifest, PEM: Ed25519 or P-256
}

// ErrManifest: a manifest does not follow from the receipts that come with it, or is not
// signed by whom it must be.
var ErrManifest = errors.New("the key manifest is not to be believed")

// ReadRing makes the ring of a file of keys. Nothing in the file is trusted: each receipt
// must be signed by a key that might sign it, the manifest must be what follows from
// them, and it must be signed by the root that is trusted, or else by the key that signs
// receipts now.
func ReadRing(text []byte, trust Trusted) (*Ring, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrManifest}, args...)...)
	}
	var f KeysFile
	if len(text) > MaxKeysFile || strict(text, &f) != nil || f.Format != KeysFormat || !f.wrote(text) {
		return nil, bad("not a file of keys this version knows")
	}
	o, err := openCompact(f.Manifest)
	if err != nil {
		return nil, bad("%v", err)
	}
	if !keyIDPattern.MatchString(o.keyID) || len(o.sig) == 0 {
		return nil, bad("its manifest is not signed")
	}
	p, err := decodeManifest(o.payload)
	if err != nil || len(p.Keys) == 0 || p.Keys[0].Purpose != string(writ.KeyReceipt) {
		return nil, bad("its manifest is not in the form this version writes")
	}
	if len(trust.Root) > 0 {
		if err := verifyAny(trust.Root, o); err != nil {
			return nil, bad("its manifest is not signed by the root: %v", err)
		}
	}
	first := trust.Key
	switch {
	case len(first) > 0:
	case len(trust.Root) > 0:
		first = []byte(p.Keys[0].PEM)
	default:
		return nil, bad("say which key to trust: the receipt key the log began with, or a root")
	}
	v, err := NewVerifier(first)
	if err != nil {
		return nil, err
	}
	if v.KeyID() != p.Keys[0].KeyID {
		return nil, bad("the log it is of begins with the key %s, and %s is trusted: trust the first receipt key, or a root", known(p.Keys[0].KeyID), v.KeyID())
	}
	r, err := NewRing(v)
	if err != nil {
		return nil, err
	}
	var others []Other
	for _, k := range p.Keys {
		if k.Purpose == string(writ.KeyReceipt) {
			if err := r.Show([]byte(k.PEM)); err != nil {
				return nil, bad("a receipt key in it cannot be read")
			}
			continue
		}
		pub, err := publicKey(k.PEM)
		if err != nil {
			return nil, bad("a key in it %v", err)
		}
		if k.Purpose != string(writ.KeyLog) && k.Purpose != string(writ.KeyRoot) {
			return nil, bad("a key in it is for what this version does not know")
		}
		others = append(others, Other{writ.KeyPurpose(k.Purpose), pub})
	}
	for i, raw := range f.Receipts {
		if err := r.learnEnvelope(raw); err != nil {
			return nil, bad("receipt %d in it: %w", i+1, err)
		}
	}
	want, err := Manifest(r, p.Log.Origin, writ.Tenant(p.Tenant), others...)
	if err != nil || !bytes.Equal(want, o.payload) {
		return nil, bad("it states other keys, or another life of them, than its receipts do")
	}
	if len(trust.Root) > 0 {
		r.vouch()
		return r, nil
	}
	// Without a root nobody's word is taken for the manifest; that it belongs to what the
	// gateway signs is checked where its signer is a receipt key.
	if k := r.Get(o.keyID); k != nil {
		if k != r.now {
			return nil, bad("it is signed by a receipt key that is not the signing one")
		}
		if err := verifyAny([]byte(k.PEM), o); err != nil {
			return nil, bad("%v", err)
		}
	}
	return r, nil
}

// wrote says whether a text is the file as this program writes it, but for how it is laid out.
func (f KeysFile) wrote(text []byte) bool {
	var laid bytes.Buffer
	again, err := json.Marshal(f)
	return err == nil && f.Receipts != nil && json.Compact(&laid, text) == nil && bytes.Equal(laid.Bytes(), again)
}

// learnEnvelope takes a receipt of a key as an envelope.
func (r *Ring) learnEnvelope(raw []byte) error {
	o, err := openCompact(raw)
	if err != nil {
		return err
	}
	rec, err := Decode(o.payload)
	if err != nil {
		return err
	}
	return r.Take(writ.Receipt{ID: rec.Statement.Receipt, Seq: rec.Commit.Seq, Payload: o.payload, KeyID: o.keyID, Sig: o.sig})
}

// openCompact opens an envelope that may have been laid out anew.
func openCompact(raw []byte) (opened, error) {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return opened{}, errEnvelope
	}
	return openEnvelope(b.Bytes())
}

// verifyAny checks an envelope with any kind of key writ signs with.
func verifyAny(pubPEM []byte, o opened) error {
	pub, err := publicKey(string(pubPEM))
	if err != nil {
		return err
	}
	id, err := dsse.SHA256KeyID(pub)
	if err != nil {
		return err
	}
	if o.keyID != id {
		return errOtherKey
	}
	if !holds(pub, dsse.PAE(PayloadType, o.payload), o.sig) { // a key management service chooses the form of its own
		return errSignature
	}
	return nil
}

// vouch notes that a root stands for every key there is.
func (r *Ring) vouch() {
	r.rooted = map[string]bool{}
	for _, k := range r.keys {
		r.rooted[k.SPKI] = true
	}
	r.settle()
}

// SignManifest puts a manifest in its envelope. signer is a root, in a file or with a key
// management service, or a receipt key.
func SignManifest(payload []byte, signer crypto.Signer) ([]byte, error) {
	if _, err := decodeManifest(payload); err != nil {
		return nil, fmt.Errorf("not a key manifest: %w", err)
	}
	id, err := dsse.SHA256KeyID(signer.Public())
	if err != nil {
		return nil, err
	}
	sig, err := sign(signer, dsse.PAE(PayloadType, payload))
	if err != nil {
		return nil, err
	}
	return Envelope(writ.Receipt{Payload: payload, KeyID: id, Sig: sig})
}

// Envelopes are the receipts of keys as a file of keys has them.
func (r *Ring) Envelopes() (out []json.RawMessage, err error) {
	out = []json.RawMessage{}
	for _, e := range r.events {
		text, err := Envelope(e)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// ParsePublic reads a public key of any kind writ signs with, in PEM.
func ParsePublic(text string) (crypto.PublicKey, error) { return publicKey(text) }

// PublicPEM is a public key as files have it.
func PublicPEM(pub crypto.PublicKey) ([]byte, error) { return cryptoutils.MarshalPublicKeyToPEM(pub) }
