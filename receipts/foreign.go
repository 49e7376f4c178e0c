package receipts

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-gateway/writ"
)

// Foreign is an entry of the log that the gateway did not sign: a verdict, by its
// verifier's own key. It states no sequence, so its place is that before the receipt
// that rests on it, and whose key it is, that receipt says.
type Foreign struct {
	ID     writ.ReceiptID
	Digest string // SHA-256 of the payload, in hex
	KeyID  string // of the key that signed

	payload []byte
}

var ofReceipt = []byte(`"predicateType":"` + TransitionType + `"`)

// IsVerdict says of a payload whether it is a verdict, and so no receipt's.
func IsVerdict(payload []byte) bool {
	if bytes.Contains(payload, ofReceipt) { // no verdict has this member, and no text this form of it
		return false
	}
	_, err := readVerdict(payload)
	return err == nil
}

// Why a foreign entry does not hold, where that is not its signature.
var (
	ErrOtherKey      = errOtherKey
	ErrSignatureForm = errors.New("not the form of a signature")
)

var errForeign = errors.New("what is beside the receipt that rests on it is not a verdict in the form this version logs")

// OpenForeign proves a foreign entry by the key that is with it, and says what a receipt
// must name to rest on it.
func OpenForeign(r writ.Receipt) (Foreign, error) {
	key, id, err := foreignKey(r.Public)
	if err != nil {
		return Foreign{}, err
	}
	if id != r.KeyID {
		return Foreign{}, ErrOtherKey
	}
	if _, is := key.(*ecdsa.PublicKey); is {
		if _, err := oneEncoding(r.Sig); err != nil {
			return Foreign{}, fmt.Errorf("%w: %w", ErrSignatureForm, err)
		}
	}
	if !holds(key, dsse.PAE(PayloadType, r.Payload), r.Sig) {
		return Foreign{}, errSignature
	}
	if _, err := readVerdict(r.Payload); err != nil {
		return Foreign{}, errForeign
	}
	f := Foreign{Digest: digest(r.Payload), KeyID: id, payload: r.Payload}
	if f.ID = writ.VerdictID(f.Digest); r.ID != "" && r.ID != f.ID {
		return Foreign{}, errForeign
	}
	return f, nil
}

// foreignKey reads the key of a foreign entry: of the kinds agents register, in the one
// form of DER.
func foreignKey(der []byte) (crypto.PublicKey, string, error) {
	key, err := publicDER(der)
	if err != nil {
		return nil, "", errForeign
	}
	id, err := dsse.SHA256KeyID(key)
	return key, id, err
}

// NamedBy says whether a receipt rests on the entry.
func (f Foreign) NamedBy(st writ.Statement) bool {
	return st.Verdict != nil && *st.Verdict == writ.VerdictRef{Digest: f.Digest, KeyID: f.KeyID} && RestsOn(st) == f.ID
}

// RestsOn is the foreign entry that a receipt says is directly before it; "" for none.
// Before such entries were logged, receipts named the verdict only.
func RestsOn(st writ.Statement) writ.ReceiptID {
	if st.Verdict == nil {
		return ""
	}
	id := writ.VerdictID(st.Verdict.Digest)
	for _, p := range st.Parents {
		if p == id {
			return id
		}
	}
	return ""
}

// foreignLine is a foreign entry in an export: the key is in nothing else there.
type foreignLine struct {
	Envelope json.RawMessage `json:"envelope"`
	Kind     string          `json:"kind"`
	Public   []byte          `json:"publicKey"`
}

// Line is an entry as exports have it: a receipt by its envelope alone, a foreign one
// with the key that signed it.
func Line(r writ.Receipt) ([]byte, error) {
	env, err := Envelope(r)
	if err != nil || r.Kind() == writ.FactSealed {
		return env, err
	}
	return json.Marshal(foreignLine{Envelope: env, Kind: writ.FactForeign, Public: r.Public})
}

// OpenLine takes a line of an export apart. Of a foreign entry the record is empty, and
// nothing in it says which sequence it has. Nothing is proved by that.
func OpenLine(text []byte) (writ.Receipt, Record, error) {
	if !isForeignLine(text) {
		return OpenEnvelope(text)
	}
	r, err := openForeignLine(text)
	return r, Record{}, err
}

func isForeignLine(text []byte) bool { return bytes.HasPrefix(text, []byte(`{"envelope":`)) }

func openForeignLine(text []byte) (writ.Receipt, error) {
	var l foreignLine
	if err := strict(text, &l); err != nil || l.Kind != writ.FactForeign || len(l.Public) == 0 {
		return writ.Receipt{}, errEnvelope
	}
	o, err := openEnvelope(l.Envelope)
	if err != nil {
		return writ.Receipt{}, err
	}
	r := writ.Receipt{ID: writ.VerdictID(digest(o.payload)), Payload: o.payload, Sig: o.sig, KeyID: o.keyID, Public: l.Public}
	if again, err := Line(r); err != nil || !bytes.Equal(again, text) {
		return writ.Receipt{}, errEnvelope
	}
	return r, nil
}
