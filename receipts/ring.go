package receipts

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
)

// Why a signature is not to be believed although it holds.
var (
	ErrKeyUnknown = errors.New("signed by a key that was never introduced")
	ErrKeyEarly   = errors.New("signed before its key was the signing one")
	ErrKeyLate    = errors.New("signed after its key was retired")
	ErrKeyRevoked = errors.New("signed by a revoked key")
	// ErrKeyEvent: a receipt says of a key what cannot be.
	ErrKeyEvent = errors.New("what it says of a key cannot be")
)

// Ring says which receipt keys there were and at which indexes of the log each may have
// signed. It begins with the one key that is trusted, and learns of others from receipts
// only: nothing is believed because a file says so.
type Ring struct {
	keys   []*Life           // in the order they were introduced
	halves map[string][]byte // public halves by SPKI digest, PEM: content by its digest
	now    *Life             // the signing one
	events []writ.Receipt    // receipts of keys, in order
	chain  chain             // over them
	log    string            // origin all of them name
	tenant writ.Tenant
	rooted map[string]bool // SPKI digests a root vouches for
}

// Life is the life of one receipt key. Indexes that are not there are -1.
type Life struct {
	KeyID, SPKI string
	State       writ.KeyState
	Public      *ecdsa.PublicKey // nil: nobody has shown it
	PEM         string

	From, Until int64 // first and last index it may have signed
	RevokedFrom int64 // first index at which nothing it signed is believed

	Introduced, Activated, Retired, Revoked writ.ReceiptID

	v            *Verifier // of Public
	introducedAt int64
	rests        []rest // what its right to sign rests on
	fallen       error  // why that holds no more
}

// rest is a receipt and who signed it.
type rest struct {
	signer *Life
	seq    int64
}

// NewRing begins with the key a log begins with.
func NewRing(first *Verifier) (*Ring, error) {
	l, err := lifeOf(first)
	if err != nil {
		return nil, err
	}
	l.State, l.From = writ.KeyActive, 0
	return &Ring{keys: []*Life{l}, halves: map[string][]byte{}, now: l}, nil
}

func lifeOf(v *Verifier) (*Life, error) {
	spki, text, err := SPKIOf(v.Public())
	if err != nil {
		return nil, err
	}
	return &Life{KeyID: v.KeyID(), SPKI: spki, Public: v.Public(), v: v, PEM: string(text), From: -1, Until: -1, RevokedFrom: -1, introducedAt: -1}, nil
}

// SPKIOf is the SHA-256 of a public key in DER (PKIX), in hex, and the key in PEM.
func SPKIOf(pub any) (digest string, text []byte, err error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(der)
	text, err = cryptoutils.MarshalPublicKeyToPEM(pub)
	return hex.EncodeToString(sum[:]), text, err
}

// Show gives the ring a public half, which it uses once a receipt introduces it.
func (r *Ring) Show(pubPEM []byte) error {
	v, err := NewVerifier(pubPEM)
	if err != nil {
		return err
	}
	l, err := lifeOf(v)
	if err != nil {
		return err
	}
	r.halves[l.SPKI] = []byte(l.PEM)
	if k := r.bySPKI(l.SPKI); k != nil {
		k.Public, k.v, k.PEM = v.Public(), v, l.PEM
	}
	return nil
}

// clone is a ring that learns the same again.
func (r *Ring) clone() (*Ring, error) {
	out, err := NewRing(r.keys[0].v)
	if err != nil {
		return nil, err
	}
	out.halves, out.rooted = maps.Clone(r.halves), r.rooted
	for _, e := range r.events {
		rec, err := Decode(e.Payload)
		if err == nil {
			err = out.Learn(rec, e)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *Ring) bySPKI(spki string) *Life {
	for _, k := range r.keys {
		if k.SPKI == spki {
			return k
		}
	}
	return nil
}

// Get is the life of a key by its id; nil when no receipt introduced it.
func (r *Ring) Get(keyID string) *Life {
	for _, k := range r.keys {
		if k.KeyID == keyID {
			return k
		}
	}
	return nil
}

// First is the key the log begins with, Signing the one that signs now.
func (r *Ring) First() *Life   { return r.keys[0] }
func (r *Ring) Signing() *Life { return r.now }

// Lives lists the keys in the order they were introduced.
func (r *Ring) Lives() []Life {
	out := make([]Life, 0, len(r.keys))
	for _, k := range r.keys {
		out = append(out, *k)
	}
	return out
}

// Events are the receipts of keys, in order.
func (r *Ring) Events() []writ.Receipt { return slices.Clone(r.events) }

// signs says whether a key was the signing one at an index; if not, why. Whether what it
// signed is to be believed is another matter: May.
func (r *Ring) signs(keyID string, seq int64) error {
	k := r.Get(keyID)
	switch {
	case k == nil:
		return fmt.Errorf("%w: %s", ErrKeyUnknown, known(keyID))
	case seq < k.introducedAt:
		return fmt.Errorf("%w: %s was introduced at %d, by receipt %s", ErrKeyEarly, k.KeyID, k.introducedAt, k.Introduced)
	case k.From < 0:
		return fmt.Errorf("%w: %s was introduced at %d and never made the signing one", ErrKeyEarly, k.KeyID, k.introducedAt)
	case seq < k.From:
		return fmt.Errorf("%w: %s signs from %d on, by receipt %s", ErrKeyEarly, k.KeyID, k.From, k.Activated)
	case k.Until >= 0 && seq > k.Until:
		return fmt.Errorf("%w: %s signed up to %d, and was retired by receipt %s", ErrKeyLate, k.KeyID, k.Until, k.Retired)
	}
	return nil
}

// May says whether what a key signed at an index is to be believed; if not, why.
func (r *Ring) May(keyID string, seq int64) error {
	k := r.Get(keyID)
	if k != nil && k.RevokedFrom >= 0 && seq >= max(k.From, k.RevokedFrom) {
		return fmt.Errorf("%w: of %s nothing is to be believed from %d on, by receipt %s; what was logged before stays valid", ErrKeyRevoked, k.KeyID, k.RevokedFrom, k.Revoked)
	}
	if err := r.signs(keyID, seq); err != nil {
		return err
	}
	return k.fallen
}

// settle works out which keys fall with another. Who made a key the signing one must be
// believed there, and so must who made that one: else two rotations would wash a stolen
// key clean. A key a root vouches for rests on nothing else.
func (r *Ring) settle() {
	for _, k := range r.keys {
		k.fallen = nil
	}
	for again := true; again; {
		again = false
		for _, k := range r.keys {
			if k.fallen != nil || r.rooted[k.SPKI] {
				continue
			}
			for _, on := range k.rests {
				switch {
				case on.signer.RevokedFrom >= 0 && on.seq >= on.signer.RevokedFrom:
					k.fallen = fmt.Errorf("%w: %s itself is good, but was introduced at %d by %s, of which nothing is to be believed from %d on; a manifest signed by the root would vouch for it",
						ErrKeyRevoked, k.KeyID, on.seq, on.signer.KeyID, on.signer.RevokedFrom)
				case on.signer.fallen != nil:
					k.fallen = on.signer.fallen
				default:
					continue
				}
				again = true
				break
			}
		}
	}
}

// known is a key id that may be shown: one in the form this program gives.
func known(keyID string) string {
	if keyIDPattern.MatchString(keyID) {
		return keyID
	}
	return "its id has not the form of one"
}

// IsKeyEvent says whether a receipt says something of a key.
func IsKeyEvent(rec Record) bool { return rec.Statement.Key != writ.KeyFact{} }

// Learn adds what a receipt says of a key. Its signature was checked; whether its key was
// the signing one is checked here. Receipts come in the order of the log. What is not
// believed any more is learned all the same: May believes nothing that rests on it, and a
// root can vouch only for a history that is told to its end.
func (r *Ring) Learn(rec Record, signed writ.Receipt) error {
	st, seq := rec.Statement, rec.Commit.Seq
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrKeyEvent, fmt.Sprintf(format, args...))
	}
	signer := r.Get(st.KeyID)
	switch {
	case !IsKeyEvent(rec):
		return wrong("it says nothing of a key")
	case len(r.events) > 0 && seq <= r.events[len(r.events)-1].Seq:
		return wrong("it is out of order")
	case len(r.events) > 0 && (st.Log != r.log || st.Tenant != r.tenant):
		return wrong("it is of another log or tenant")
	}
	moves := func(k *Life, from, to writ.KeyState) bool {
		return slices.Contains(st.Changes, writ.Change{Kind: writ.ObjectKey, ID: k.SPKI, From: string(from), To: string(to)})
	}
	if err := r.signs(st.KeyID, seq); err != nil {
		return err
	}
	k := r.bySPKI(st.Key.SPKI)
	if k != nil && k.KeyID != st.Key.ID || k == nil && r.Get(st.Key.ID) != nil {
		return wrong("one key has two ids")
	}
	switch st.Transition {
	case writ.KeyIntroduce:
		if k != nil || len(r.keys) >= writ.MaxKeys {
			return wrong("it introduces a key a second time, or one too many")
		}
		k = &Life{KeyID: st.Key.ID, SPKI: st.Key.SPKI, State: writ.KeyIntroduced, Introduced: st.Receipt, introducedAt: seq, From: -1, Until: -1, RevokedFrom: -1}
		if text, ok := r.halves[k.SPKI]; ok {
			v, err := NewVerifier(text)
			if err != nil || v.KeyID() != k.KeyID {
				return wrong("the id it names is not that of the key")
			}
			k.Public, k.v, k.PEM = v.Public(), v, string(text)
		}
		k.rests = append(k.rests, rest{signer, seq})
		r.keys = append(r.keys, k)
	case writ.KeyActivate:
		if k == nil || k.State != writ.KeyIntroduced {
			return wrong("it makes a key the signing one that was not introduced, or was retired")
		}
		old := r.now
		if !moves(k, writ.KeyIntroduced, writ.KeyActive) || !moves(old, writ.KeyActive, writ.KeyRetired) {
			return wrong("it makes a key the signing one without retiring the one before")
		}
		old.State, old.Until, old.Retired = writ.KeyRetired, seq, st.Receipt
		k.State, k.From, k.Activated = writ.KeyActive, seq+1, st.Receipt
		k.rests = append(k.rests, rest{signer, seq})
		r.now = k
	case writ.KeyRetire:
		if k == nil || k.State != writ.KeyIntroduced {
			return wrong("it retires a key that was not waiting")
		}
		k.State, k.Retired = writ.KeyRetired, st.Receipt
	case writ.KeyRevoke:
		if k == nil || k.State != writ.KeyRetired {
			return wrong("it revokes a key that was not retired")
		}
		k.State, k.Revoked, k.RevokedFrom = writ.KeyRevoked, st.Receipt, seq
		if st.Key.Since > 0 {
			k.RevokedFrom = min(seq, st.Key.Since)
		}
	default:
		return wrong("it makes a move keys do not have")
	}
	signed.Evidence, signed.Inclusion = nil, nil
	r.events = append(r.events, signed)
	r.chain.add(signed.Payload)
	r.log, r.tenant = st.Log, st.Tenant
	r.settle()
	return nil
}

// Verifier of a key the ring knows, for checking its signatures.
func (r *Ring) verifier(keyID string) (*Verifier, error) {
	k := r.Get(keyID)
	if k == nil {
		return nil, fmt.Errorf("%w: %s", ErrKeyUnknown, known(keyID))
	}
	if k.Public == nil {
		return nil, fmt.Errorf("%w: %s was introduced by receipt %s, and its public half is not at hand", ErrKeyUnknown, k.KeyID, k.Introduced)
	}
	return k.v, nil
}

// Take learns of a receipt of keys whose signature it checks first.
func (r *Ring) Take(signed writ.Receipt) error {
	v, err := r.verifier(signed.KeyID)
	if err != nil {
		return err
	}
	rec, err := v.Receipt(signed)
	if err != nil {
		return err
	}
	return r.Learn(rec, signed)
}
