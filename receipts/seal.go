package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/writ-gateway/writ"
)

// sign is the one place where a key signs: the gateway's its receipts, a
// caller's its calls. Ed25519 is deterministic by itself. The nil reader makes
// ECDSA so (RFC 6979): the same key and text always give the same bytes.
// ecdsa.SignASN1 and sigstore's signers do not promise that. Of the two values s
// that hold for one r, n−s is as good as s, the lower is taken: so nobody can
// make a second signature of a first, and one receipt has one envelope.
func sign(priv crypto.Signer, pae []byte) ([]byte, error) {
	if r, ok := priv.(*remote); ok { // in whatever form it likes: a manifest or checkpoint is no receipt
		return r.text(pae)
	}
	h := sha256.Sum256(pae)
	text, hash := h[:], crypto.SHA256
	_, digested := priv.Public().(*ecdsa.PublicKey)
	whole := !digested // Ed25519 and ML-DSA sign the text itself
	if whole {
		text, hash = pae, crypto.Hash(0)
	}
	sig, err := priv.Sign(nil, text, hash)
	if err != nil || whole {
		return sig, err
	}
	var rs signatureValues
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		return nil, err
	}
	if !rs.high() {
		return sig, nil
	}
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	return asn1.Marshal(rs)
}

// signatureValues is a signature as ASN.1 has it.
type signatureValues struct{ R, S *big.Int }

var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// oneForm says why an ECDSA signature is not in the one form it may have. One
// signature shall have one encoding: others are lenient ASN.1, or IEEE P1363.
func oneForm(sig []byte) error {
	rs, err := oneEncoding(sig)
	if err == nil && rs.high() {
		err = fmt.Errorf("%w: of its two forms it is the one this program never makes (high s)", errSignature)
	}
	return err
}

// oneEncoding reads an ECDSA signature in the one encoding it may have, DER, whichever
// of the two values of s it holds: other programs make both.
func oneEncoding(sig []byte) (rs signatureValues, err error) {
	if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) > 0 {
		return rs, fmt.Errorf("%w: not in ASN.1 form", errSignature)
	}
	if der, err := asn1.Marshal(rs); err != nil || !bytes.Equal(der, sig) {
		return rs, fmt.Errorf("%w: not in ASN.1 form", errSignature)
	}
	return rs, nil
}

// high says whether s is the greater of the two values that hold.
func (rs signatureValues) high() bool { return rs.S.Cmp(halfOrder) > 0 }

// KeyIDOf is the OpenSSH fingerprint of a public key, "SHA256:…": the only
// key id besides the empty one that cosign accepts in a DSSE envelope.
func KeyIDOf(pub *ecdsa.PublicKey) (string, error) { return dsse.SHA256KeyID(pub) }

// Sealer holds the receipt keys and the evidence key. It is safe for
// concurrent use. What it gives never depends on what it gave before.
type Sealer struct {
	origin   string
	evidence *evidenceKey
	fresh    signatures

	mu      sync.RWMutex // guards what is below
	keys    map[string]*ecdsa.PrivateKey
	keyID   string // of the signing one
	version int64  // of the gate that said so

	born   time.Time
	signed atomic.Int64 // nanoseconds since born when the signing key last signed; 0: it did not, or failed since
}

// ErrNotHeld: a receipt key is not among those this process holds. It may come yet.
var ErrNotHeld = errors.New("this process does not hold the receipt key")

// signatures are those made a moment ago. A fact is sealed twice in one
// process, for the reply and for the ledger, and what is signed decides the
// signature: the second time it need not be made again. Each is handed out
// once, and forgotten when many others follow.
type signatures struct {
	mu    sync.Mutex
	by    map[[sha256.Size]byte][]byte // digest of the signed text → signature
	order [4096][sha256.Size]byte      // digests as they came, a ring
	next  int
}

func (s *signatures) keep(digest [sha256.Size]byte, sig []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil {
		s.by = map[[sha256.Size]byte][]byte{}
	}
	delete(s.by, s.order[s.next])
	s.order[s.next], s.by[digest] = digest, slices.Clone(sig)
	s.next = (s.next + 1) % len(s.order)
}

// take gives nil when there is none.
func (s *signatures) take(digest [sha256.Size]byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	sig := s.by[digest]
	delete(s.by, digest)
	return sig
}

// NewSealer makes a Sealer of a P-256 key for the log named origin, a bare
// host name, and the secret that evidence is encrypted under.
func NewSealer(key *ecdsa.PrivateKey, origin string, secret [32]byte) (*Sealer, error) {
	const op = "receipts.NewSealer"
	if !ValidOrigin(origin) {
		return nil, writ.Fault(writ.CodeInternal, op, errors.New("the origin must be a bare host name"))
	}
	ev, err := newEvidenceKey(secret)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	s := &Sealer{keys: map[string]*ecdsa.PrivateKey{}, origin: origin, evidence: ev, born: time.Now()}
	if s.keyID, err = s.Hold(key); err != nil {
		return nil, err
	}
	return s, nil
}

// Hold takes one more key, and says which. It signs nothing new before Use says so.
func (s *Sealer) Hold(key *ecdsa.PrivateKey) (keyID string, err error) {
	const op = "receipts.Hold"
	if key == nil || key.Curve != elliptic.P256() {
		return "", writ.Fault(writ.CodeInternal, op, errors.New("the receipt key must be of curve P-256"))
	}
	if keyID, err = KeyIDOf(&key.PublicKey); err != nil {
		return "", writ.Fault(writ.CodeInternal, op, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[keyID] = key
	return keyID, nil
}

// Use makes a key the signing one because a gate of a version names it, and says
// whether it is held. What an older gate said changes nothing any more.
func (s *Sealer) Use(keyID string, version int64) bool {
	s.mu.RLock()
	held, done := s.keys[keyID] != nil, version <= s.version
	s.mu.RUnlock()
	if !held || done {
		return held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if version > s.version {
		if s.keyID != keyID {
			s.signed.Store(0)
		}
		s.keyID, s.version = keyID, version
	}
	return true
}

// held is a key, nil when it is none of those held; the signing one for "".
func (s *Sealer) held(keyID string) (*ecdsa.PrivateKey, string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if keyID == "" {
		keyID = s.keyID
	}
	return s.keys[keyID], keyID
}

// Holds says whether a key is among those held.
func (s *Sealer) Holds(keyID string) bool { k, _ := s.held(keyID); return k != nil }

// KeyID of the signing key.
func (s *Sealer) KeyID() string { _, id := s.held(""); return id }

// Origin of the log the sealer signs for.
func (s *Sealer) Origin() string { return s.origin }

// Public is the signing key's public half.
func (s *Sealer) Public() *ecdsa.PublicKey { return s.PublicOf("") }

// PublicOf is the public half of a key that is held, else nil.
func (s *Sealer) PublicOf(keyID string) *ecdsa.PublicKey {
	if k, _ := s.held(keyID); k != nil {
		return &k.PublicKey
	}
	return nil
}

// SignManifest puts a key manifest in its envelope with a key that is held.
func (s *Sealer) SignManifest(payload []byte, keyID string) ([]byte, error) {
	key, _ := s.held(keyID)
	if key == nil {
		return nil, writ.Fault(writ.CodeNotReady, "receipts.SignManifest", ErrNotHeld)
	}
	return SignManifest(payload, key)
}

// Draft is the package's Draft, with the log and the signing key filled in where
// the statement leaves them empty. It refuses a statement for another log, or a
// key that is not held: this sealer could not sign it.
func (s *Sealer) Draft(st writ.Statement) (head, tail []byte, err error) {
	if st.Log == "" {
		st.Log = s.origin
	}
	key, id := s.held(st.KeyID)
	st.KeyID = id
	if st.Log != s.origin || key == nil {
		return nil, nil, writ.Fault(writ.CodeInternal, "receipts.Draft", errors.New("the statement names another log or key"))
	}
	return Draft(st)
}

// proven is how long one good signature vouches for the key.
const proven = time.Second

// Ready says whether the key can sign, before something is committed that needs
// a receipt. While receipts are sealed it costs reading a clock: a signature of
// the last second is proof enough. Otherwise it signs a text of its own, which
// nobody sees, and verifies that.
func (s *Sealer) Ready() error {
	if at := s.signed.Load(); at > 0 && time.Since(s.born)-time.Duration(at) < proven {
		return nil
	}
	const op = "receipts.Ready"
	key, id := s.held("")
	pae := dsse.PAE("application/vnd.writ.probe", []byte(id))
	sig, err := sign(key, pae)
	if err != nil {
		return writ.Fault(writ.CodeNotReady, op, err)
	}
	if h := sha256.Sum256(pae); !ecdsa.VerifyASN1(&key.PublicKey, h[:], sig) {
		return writ.Fault(writ.CodeNotReady, op, errors.New("the receipt key does not sign for "+id))
	}
	s.vouch(nil)
	return nil
}

// vouch notes what became of a signature.
func (s *Sealer) vouch(err error) {
	if err != nil {
		s.signed.Store(0)
		return
	}
	s.signed.Store(max(1, int64(time.Since(s.born))))
}

// Seal signs a stored fact. It renders nothing: the payload is head, commit
// and tail as stored, so the same fact always gives the same receipt. A foreign one is
// signed already, and must be.
func (s *Sealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	const op = "receipts.Seal"
	if f.Foreign() {
		r := writ.Receipt{ID: f.ID, Seq: f.Commit.Seq, Payload: f.Payload(), KeyID: f.KeyID, Sig: f.Sig, Public: f.Public}
		if _, err := OpenForeign(r); err != nil {
			return writ.Receipt{}, writ.Fault(writ.CodeInternal, op, err)
		}
		return r, nil
	}
	key, id := s.held(f.KeyID)
	if key == nil || f.KeyID == "" {
		return writ.Receipt{}, writ.Fault(writ.CodeNotReady, op, fmt.Errorf("the fact names another receipt key: %w", ErrNotHeld))
	}
	if f.Commit.Seq < 0 || f.Commit.Epoch == "" || !word(f.Commit.Epoch) || (f.Run != "") != (f.Commit.RunSeq > 0) {
		return writ.Receipt{}, writ.Fault(writ.CodeInternal, op, errors.New("the fact's commit cannot be stated"))
	}
	payload := f.Payload()
	pae := dsse.PAE(PayloadType, payload)
	digest := sha256.Sum256(pae)
	sig := s.fresh.take(digest)
	if sig == nil {
		var err error
		sig, err = sign(key, pae)
		s.vouch(err)
		if err != nil {
			return writ.Receipt{}, writ.Fault(writ.CodeInternal, op, err)
		}
		s.fresh.keep(digest, sig)
	}
	return writ.Receipt{ID: f.ID, Seq: f.Commit.Seq, Payload: payload, KeyID: id, Sig: sig, Evidence: f.Evidence}, nil
}
