package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/writ-gateway/writ"
)

// Envelope is the receipt as a DSSE envelope in JSON, the form clients get:
// {"payloadType","payload","signatures":[{"keyid","sig"}]}.
func Envelope(r writ.Receipt) ([]byte, error) {
	b64 := base64.StdEncoding.EncodeToString
	out, err := json.Marshal(dsse.Envelope{
		PayloadType: PayloadType, Payload: b64(r.Payload),
		Signatures: []dsse.Signature{{KeyID: r.KeyID, Sig: b64(r.Sig)}},
	})
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "receipts.Envelope", err)
	}
	return out, nil
}

// opened is an envelope taken apart, nothing in it proved yet.
type opened struct {
	payload, sig []byte
	keyID        string
}

var (
	errEnvelope  = errors.New("not an envelope in the form this version writes")
	errSignature = errors.New("the signature does not hold")
	errOtherKey  = errors.New("signed by another key")
)

// openEnvelope decodes strictly: one signature, known fields, strict base64,
// and encoding again gives the same bytes.
func openEnvelope(text []byte) (opened, error) {
	var e dsse.Envelope
	if err := strict(text, &e); err != nil || e.PayloadType != PayloadType || len(e.Signatures) != 1 {
		return opened{}, errEnvelope
	}
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	if err != nil {
		return opened{}, errEnvelope
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(e.Signatures[0].Sig)
	if err != nil {
		return opened{}, errEnvelope
	}
	o := opened{payload: payload, sig: sig, keyID: e.Signatures[0].KeyID}
	again, err := Envelope(writ.Receipt{Payload: payload, Sig: sig, KeyID: o.keyID})
	if err != nil || !bytes.Equal(again, text) {
		return opened{}, errEnvelope
	}
	return o, nil
}

// OpenEnvelope takes the envelope of a receipt apart, and what it states, strictly.
// Nothing of it is proved by that.
func OpenEnvelope(text []byte) (writ.Receipt, Record, error) {
	o, err := openEnvelope(text)
	if err != nil {
		return writ.Receipt{}, Record{}, err
	}
	rec, err := Decode(o.payload)
	return writ.Receipt{ID: rec.Statement.Receipt, Seq: rec.Commit.Seq, Payload: o.payload, Sig: o.sig, KeyID: o.keyID}, rec, err
}

// SignatureForm says why a signature is not in the one form it may have.
func SignatureForm(sig []byte) error { return oneForm(sig) }

// Signed says whether the trusted key signed a payload.
func (v *Verifier) Signed(payload, sig []byte) error {
	return v.signed(opened{payload: payload, sig: sig, keyID: v.keyID})
}

// SignedText is what the signature of a receipt is over, SignedDigest its digest.
func SignedText(r writ.Receipt) []byte { return dsse.PAE(PayloadType, r.Payload) }

func SignedDigest(r writ.Receipt) [sha256.Size]byte { return sha256.Sum256(SignedText(r)) }

// Verifier holds the one public key that is trusted.
type Verifier struct {
	keyID string
	pub   *ecdsa.PublicKey
	v     signature.Verifier
}

// NewVerifier reads a P-256 public key in PEM (PKIX), as receipt.pub holds it.
func NewVerifier(pubPEM []byte) (*Verifier, error) {
	wrong := func(err error) (*Verifier, error) {
		return nil, &writ.Error{
			Code: writ.CodeMalformed, Op: "receipts.NewVerifier", Msg: "the public key cannot be used",
			Hint: "pass the receipt.pub of the gateway: a P-256 public key in PEM", Err: err,
		}
	}
	any, err := publicKey(string(pubPEM))
	if err != nil {
		return wrong(err)
	}
	pub, ok := any.(*ecdsa.PublicKey)
	if !ok {
		return wrong(errors.New("not a P-256 key"))
	}
	id, err := KeyIDOf(pub)
	if err != nil {
		return wrong(err)
	}
	v, err := signature.LoadVerifier(pub, crypto.SHA256)
	if err != nil {
		return wrong(err)
	}
	return &Verifier{keyID: id, pub: pub, v: v}, nil
}

// Public is the trusted key.
func (v *Verifier) Public() *ecdsa.PublicKey { return v.pub }

// KeyID of the trusted key.
func (v *Verifier) KeyID() string { return v.keyID }

// Receipt proves one receipt: signature, form, and that its columns say what
// its payload says.
func (v *Verifier) Receipt(r writ.Receipt) (Record, error) {
	const op = "receipts.Verify"
	if err := v.signed(opened{payload: r.Payload, sig: r.Sig, keyID: r.KeyID}); err != nil {
		return Record{}, writ.Fault(writ.CodeMalformed, op, err)
	}
	rec, err := Decode(r.Payload)
	if err != nil {
		return Record{}, writ.Fault(writ.CodeMalformed, op, err)
	}
	if rec.Statement.Receipt != r.ID || rec.Commit.Seq != r.Seq || rec.Statement.KeyID != v.keyID {
		return Record{}, writ.Fault(writ.CodeMalformed, op, errors.New("the receipt is filed under another id, sequence or key"))
	}
	return rec, nil
}

// Envelope proves one receipt in the form clients get.
func (v *Verifier) Envelope(text []byte) (Record, error) {
	const op = "receipts.Verify"
	o, err := openEnvelope(text)
	if err != nil {
		return Record{}, writ.Fault(writ.CodeMalformed, op, err)
	}
	if err := v.signed(o); err != nil {
		return Record{}, writ.Fault(writ.CodeMalformed, op, err)
	}
	rec, err := Decode(o.payload)
	if err != nil {
		return Record{}, writ.Fault(writ.CodeMalformed, op, err)
	}
	if rec.Statement.KeyID != v.keyID {
		return Record{}, writ.Fault(writ.CodeMalformed, op, errOtherKey)
	}
	return rec, nil
}

// signed checks key id and signature, before anything reads the payload.
func (v *Verifier) signed(o opened) error {
	if o.keyID != v.keyID {
		return errOtherKey
	}
	if err := oneForm(o.sig); err != nil { // sigstore takes others too
		return err
	}
	pae := dsse.PAE(PayloadType, o.payload)
	if err := v.v.VerifySignature(bytes.NewReader(o.sig), bytes.NewReader(pae)); err != nil {
		return errSignature
	}
	return nil
}
