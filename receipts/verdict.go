package receipts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/writ-gateway/writ"
	own "github.com/writ-gateway/writ/internal/jcs"
)

// A signed verdict is an in-toto statement (v1, or v0.1 as cosign writes it) with the
// predicate writ.VerdictType, in a DSSE envelope with one signature, bare or in a
// Sigstore bundle v0.3. What is not known here is refused, so that a verdict says
// nothing that is not looked at.
type (
	verdictBundle struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			PublicKey struct {
				Hint *string `json:"hint,omitempty"`
			} `json:"publicKey"`
			// Of other logs and clocks, which nobody here relies on.
			Entries    json.RawMessage `json:"tlogEntries,omitempty"`
			Timestamps json.RawMessage `json:"timestampVerificationData,omitempty"`
		} `json:"verificationMaterial"`
		Envelope verdictEnvelope `json:"dsseEnvelope"`
	}
	verdictEnvelope struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig   string  `json:"sig"`
			KeyID *string `json:"keyid,omitempty"`
		} `json:"signatures"`
	}
	verdictStatement struct {
		Type          string           `json:"_type"`
		Subject       []verdictSubject `json:"subject"`
		PredicateType string           `json:"predicateType"`
		Predicate     struct {
			Verifier struct {
				ID       string           `json:"id"`
				Policies []verdictSubject `json:"policies"`
			} `json:"verifier"`
			TimeCreated string   `json:"timeCreated"`
			Properties  []string `json:"properties"`
		} `json:"predicate"`
	}
	// verdictSubject is a resource descriptor of which only the digest counts.
	verdictSubject struct {
		Name   *string `json:"name,omitempty"`
		URI    *string `json:"uri,omitempty"`
		Digest struct {
			SHA256 string `json:"sha256"`
		} `json:"digest"`
	}
)

// statementV01 is what cosign attest-blob --predicate writes.
const statementV01 = "https://in-toto.io/Statement/v0.1"

const sigstoreBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"

const opVerdict = "receipts.CheckVerdict"

// Verdicts checks what verifiers sign; it is the rooms'.
type Verdicts struct{}

// Digest names a verdict.
func (Verdicts) Digest(text string) (string, error) {
	o, err := openVerdict([]byte(text))
	return digest(o.payload), err
}

// Check is CheckVerdict, of one that is to be logged as it is: what nobody checks in it must
// not carry text into the log that is never shredded.
func (Verdicts) Check(text string, want writ.VerdictWant) (writ.SignedVerdict, error) {
	v, err := CheckVerdict([]byte(text), want)
	if err != nil {
		return v, err
	}
	s, err := readVerdict(v.Payload)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	for _, r := range slices.Concat(s.Subject, s.Predicate.Verifier.Policies) {
		if r.URI != nil || r.Name != nil && !fileName.MatchString(*r.Name) {
			return writ.SignedVerdict{}, writ.RefuseVerdict(opVerdict, writ.BadVerdictStatement, "a subject or policy of the signed verdict has a uri, or a name that is none of a file",
				"names are at most 128 letters, digits and . _ - /, or are left out: what is signed is logged for good")
		}
	}
	return v, nil
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,128}$`)

// openedVerdict is a verdict taken apart, nothing in it proved yet.
type openedVerdict struct {
	payload, sig []byte
	names        []string // of the key, as far as it is named
}

// CheckVerdict says whether a signed verdict, as the verifier sent it, says what is
// wanted and nothing else, and by whose key. It is pure: with the bytes, the keys and
// the time it was used it can be asked again anywhere. That it was used once only,
// its caller must know.
func CheckVerdict(text []byte, want writ.VerdictWant) (writ.SignedVerdict, error) {
	o, err := openVerdict(text)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	key, err := o.key(want.Keys)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	s, err := readVerdict(o.payload)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	at, err := s.says(want)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	env, err := Envelope(writ.Receipt{Payload: o.payload, Sig: o.sig, KeyID: key.ID})
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	der, err := derOf(key)
	if err != nil {
		return writ.SignedVerdict{}, err
	}
	return writ.SignedVerdict{Digest: digest(o.payload), Key: key, At: at, Envelope: env, Payload: o.payload, Sig: o.sig, Public: der}, nil
}

// derOf is a key as the log has it.
func derOf(key writ.PublicKey) ([]byte, error) {
	pub, err := publicKey(key.PEM)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, opVerdict, err)
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// OpenVerdict is a signed verdict in the shape of a receipt, which Envelope and
// tlog.Bundle write, if it holds for the key. What it says is not looked at.
func OpenVerdict(text []byte, key writ.PublicKey) (writ.Receipt, error) {
	o, err := openVerdict(text)
	if err != nil {
		return writ.Receipt{}, err
	}
	if key, err = o.key([]writ.PublicKey{key}); err != nil {
		return writ.Receipt{}, err
	}
	return writ.Receipt{Payload: o.payload, Sig: o.sig, KeyID: key.ID}, nil
}

// openVerdict takes an envelope, or a bundle with one, apart: known members only, each
// once and in its own spelling, strict base64, one signature.
func openVerdict(text []byte) (o openedVerdict, err error) {
	bad := writ.RefuseVerdict(opVerdict, writ.BadVerdictForm, "the signed verdict is not one DSSE envelope, or one Sigstore bundle v0.3 with a public key, with exactly one signature",
		"send what writ verdict sign or cosign attest-blob wrote, as it was written")
	if len(text) > writ.MaxVerdictBytes {
		return o, bad
	}
	var e verdictEnvelope
	if exactly(text, &e) != nil {
		var b verdictBundle
		if exactly(text, &b) != nil || b.MediaType != sigstoreBundle {
			return o, bad
		}
		e = b.Envelope
		o.named(b.Material.PublicKey.Hint)
	}
	if e.PayloadType != PayloadType || len(e.Signatures) != 1 {
		return o, bad
	}
	o.named(e.Signatures[0].KeyID)
	if o.payload, err = oneBase64(e.Payload); err != nil {
		return o, bad
	}
	if o.sig, err = oneBase64(e.Signatures[0].Sig); err != nil {
		return o, bad
	}
	return o, nil
}

func (o *openedVerdict) named(key *string) {
	if key != nil && *key != "" {
		o.names = append(o.names, *key)
	}
}

// exactly decodes JSON into v and refuses whatever encoding v again does not give: in
// canonical form, so that spaces and the order of members are all that is free.
func exactly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errForm
	}
	sent, err := jcs.Transform(text) // refuses members that are there twice
	if err != nil {
		return err
	}
	read, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if read, err = jcs.Transform(read); err != nil {
		return err
	}
	if !bytes.Equal(sent, read) {
		return errForm
	}
	return nil
}

func oneBase64(s string) ([]byte, error) {
	out, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(out) == 0 || base64.StdEncoding.EncodeToString(out) != s {
		return nil, errForm
	}
	return out, nil
}

// key finds the key that signed, among those that may have. Keys are named by the
// OpenSSH fingerprint, as writ does, or by the SHA-256 of the key as DER (PKIX), as
// cosign does; a verdict that names none is tried with each.
func (o openedVerdict) key(keys []writ.PublicKey) (writ.PublicKey, error) {
	found := false
	for _, k := range keys {
		pub, err := publicKey(k.PEM)
		if err != nil {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			continue
		}
		sum := sha256.Sum256(der)
		id := []string{k.ID, base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(sum[:])}
		if slices.ContainsFunc(o.names, func(n string) bool { return !slices.Contains(id, n) }) {
			continue
		}
		found = true
		if _, is := pub.(*ecdsa.PublicKey); is {
			if _, err := oneEncoding(o.sig); err != nil {
				continue
			}
		}
		if holds(pub, dsse.PAE(PayloadType, o.payload), o.sig) {
			return k, nil
		}
	}
	if !found {
		return writ.PublicKey{}, writ.RefuseVerdict(opVerdict, writ.BadVerdictKey, "the verdict is signed with a key its verifier's agent has not registered, or has no more",
			"sign with one of keys in agent.info, or have it registered")
	}
	return writ.PublicKey{}, writ.RefuseVerdict(opVerdict, writ.BadVerdictSignature, "the signature of the verdict does not hold", "sign it anew, and send it as it was written")
}

// readVerdict reads the statement, once it is known who signed it.
func readVerdict(payload []byte) (s verdictStatement, err error) {
	err = exactly(payload, &s)
	lists := s.Subject != nil && s.Predicate.Verifier.Policies != nil && s.Predicate.Properties != nil // null is none
	if err != nil || !lists || (s.Type != StatementType && s.Type != statementV01) || s.PredicateType != writ.VerdictType {
		return s, writ.RefuseVerdict(opVerdict, writ.BadVerdictStatement, "what was signed is not one in-toto statement with the predicate of a verdict and nothing else",
			"the predicate type is "+writ.VerdictType+", with verifier, timeCreated and properties; see docs/verdicts.md")
	}
	return s, nil
}

// says holds a statement to what it must say, and gives its time.
func (s verdictStatement) says(want writ.VerdictWant) (at int64, err error) {
	refuse := func(reason, msg, hint string) (int64, error) {
		return 0, writ.RefuseVerdict(opVerdict, reason, msg, hint)
	}
	p := s.Predicate
	if p.Verifier.ID != writ.VerifierID(want.Agent) {
		return refuse(writ.BadVerdictVerifier, "the signed verdict is another verifier's", "verifier.id is agent: and the id of the agent that judges")
	}
	policy := digestsOf(p.Verifier.Policies)
	if len(policy) != 1 || "sha256:"+policy[0] != want.Policy {
		return refuse(writ.BadVerdictPolicy, "the signed verdict was made under other policies than are in force", "verifier.policies holds one digest: policy_revision of policy.info")
	}
	properties := slices.Sorted(slices.Values(p.Properties))
	if len(want.Properties) == 0 || !slices.Equal(properties, want.Properties) {
		return refuse(writ.BadVerdictSaid, "the signed verdict says something else than the call", "properties name the verdict, what every check gave and the reasons, as the call does")
	}
	if about := digestsOf(s.Subject); len(want.Subjects) == 0 || !slices.Equal(about, want.Subjects) {
		return refuse(writ.BadVerdictSubjects, "the signed verdict is about something else than there is now", "its subjects are the payload of the receipt that is judged and every artifact, each once and nothing else: read them again, and judge what is there")
	}
	at, err = verdictTime(p.TimeCreated)
	if err != nil || at > want.Now+writ.VerdictAheadMs || at < want.Now-writ.VerdictFreshMs {
		return refuse(writ.BadVerdictTime, "the signed verdict is older than an hour, or of a time to come", "set the clock, judge what is there now, and sign anew; timeCreated is RFC 3339 in UTC")
	}
	return at, nil
}

// digestsOf lists digests, sorted; one that is there twice stays twice.
func digestsOf(in []verdictSubject) []string {
	out := make([]string, 0, len(in))
	for _, r := range in {
		if !hexDigest(r.Digest.SHA256) {
			return nil
		}
		out = append(out, r.Digest.SHA256)
	}
	slices.Sort(out)
	return out
}

// verdictTime takes the two forms of a time that verdicts have: whole seconds, and
// milliseconds as receipts have them.
func verdictTime(s string) (int64, error) {
	const seconds = "2006-01-02T15:04:05Z"
	if t, err := time.Parse(seconds, s); err == nil && t.Format(seconds) == s {
		return t.UnixMilli(), nil
	}
	return parseTime(s)
}

// VerdictStatement renders what a verifier signs, canonically: whatever CheckVerdict
// wants of it. names say what the subjects are, by their digests; "" is left out.
func VerdictStatement(want writ.VerdictWant, names map[string]string) ([]byte, error) {
	resource := func(name, sum string) own.Object {
		r := own.Object{"digest": own.Object{"sha256": own.String(sum)}}
		if name != "" {
			r["name"] = own.String(name)
		}
		return r
	}
	subject, properties := own.Array{}, own.Array{}
	for _, sum := range want.Subjects {
		subject = append(subject, resource(names[sum], sum))
	}
	for _, p := range want.Properties {
		properties = append(properties, own.String(p))
	}
	text, err := own.Marshal(own.Object{
		"_type": own.String(StatementType), "subject": subject, "predicateType": own.String(writ.VerdictType),
		"predicate": own.Object{
			"verifier": own.Object{
				"id": own.String(writ.VerifierID(want.Agent)), "policies": own.Array{resource("", strings.TrimPrefix(want.Policy, "sha256:"))},
			},
			"timeCreated": own.String(writ.FormatTime(want.Now)), "properties": properties,
		},
	})
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, "receipts.VerdictStatement", err)
	}
	return text, nil
}

// SignVerdict signs a statement with the key and gives it in the shape of a receipt, which
// Envelope and tlog.Bundle write.
func (k *CosignKey) SignVerdict(statement []byte) (writ.Receipt, error) {
	sig, err := sign(k.key, dsse.PAE(PayloadType, statement))
	if err != nil {
		return writ.Receipt{}, writ.Fault(writ.CodeInternal, "receipts.SignVerdict", err)
	}
	return writ.Receipt{Payload: statement, KeyID: k.keyID, Sig: sig}, nil
}
