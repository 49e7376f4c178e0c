package receipts

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/writ-gateway/writ"
)

const verdictVectors = "../testdata/vectors/verdicts"

// verdictNow is when the vectors were signed, as they say: 2026-01-01T00:00:00Z.
const verdictNow = 1_767_225_600_000

func vector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(verdictVectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verdictKey(t testing.TB, pem string) writ.PublicKey {
	t.Helper()
	k, err := ParsePublicKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verdictSigner(t testing.TB) (*CosignKey, writ.PublicKey) {
	t.Helper()
	k, err := NewCosignKey(cosignKeys(t)["p256"])
	if err != nil {
		t.Fatal(err)
	}
	return k, verdictKey(t, publicPEM(t, k.key.Public()))
}

// wanted is what the vectors say.
func wanted(keys ...writ.PublicKey) writ.VerdictWant {
	hello := sha256.Sum256([]byte("hello"))
	return writ.VerdictWant{
		Agent: "checker", Keys: keys, Now: verdictNow, Policy: "sha256:" + strings.Repeat("a", 64),
		Properties: writ.VerdictProperties("", writ.VerdictAccept, map[string]bool{"tests": true}, nil),
		Subjects:   writ.VerdictSubjects(writ.Receipt{Payload: []byte(`{"what was signed":"of the receipt that is judged"}`)}, []string{"sha256:" + hex.EncodeToString(hello[:])}),
	}
}

// signedText is a statement, signed and in its envelope.
func signedText(t testing.TB, k *CosignKey, statement []byte) string {
	t.Helper()
	r, err := k.SignVerdict(statement)
	if err != nil {
		t.Fatal(err)
	}
	env, err := Envelope(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(env)
}

func verdictReason(err error) string {
	if writ.CodeOf(err) != writ.CodeVerdict {
		return "no refusal of a verdict"
	}
	return writ.AsError("", err).Details["reason"]
}

// In a receipt its fields stand in the order of their names, too.
func TestVerdictShapeIsSorted(t *testing.T) {
	if f := reflect.TypeFor[verdict](); f.Field(0).Tag != `json:"digest"` || f.Field(1).Tag != `json:"keyId"` || f.NumField() != 2 {
		t.Error("they do not")
	}
}

// What writ signs, byte by byte.
func TestVerdictVector(t *testing.T) {
	k, public := verdictSigner(t)
	want := wanted(public)
	text, err := VerdictStatement(want, map[string]string{want.Subjects[0]: "artifact/hello", want.Subjects[1]: "receipt/rcp_01ARYZ6S410000000000000000"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "../verdicts/writ.statement.json", text)
	env := signedText(t, k, text)
	golden(t, "../verdicts/writ.dsse.json", []byte(env))
	got, err := CheckVerdict([]byte(env), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != digest(text) || got.Key != public || got.At != verdictNow || string(got.Envelope) != env {
		t.Errorf("got %+v", got)
	}
	if name, err := (Verdicts{}).Digest(env); err != nil || name != got.Digest {
		t.Errorf("named %s, %v", name, err)
	}
}

// Bundles stock cosign v3.1.3 made, of a statement and of a predicate with one blob; its
// key has the empty password.
func TestVerdictsMadeByCosign(t *testing.T) {
	public := verdictKey(t, string(vector(t, "cosign.pub")))
	want := wanted(public)
	got, err := CheckVerdict(vector(t, "cosign-statement.sigstore.json"), want)
	if err != nil {
		t.Fatal(err)
	}
	if got.Key != public {
		t.Errorf("got %+v", got)
	}
	// Kept as an envelope of our own form, it holds as well.
	if again, err := CheckVerdict(got.Envelope, want); err != nil || again.Digest != got.Digest {
		t.Errorf("got %+v, %v", again, err)
	}
	want.Properties = writ.VerdictProperties("", writ.VerdictAccept, nil, nil)
	want.Subjects = writ.VerdictSubjects(writ.Receipt{Payload: vector(t, "receipt-payload.json")}, nil)
	if _, err := CheckVerdict(vector(t, "cosign-predicate.sigstore.json"), want); err != nil {
		t.Error(err)
	}
	// And its key signs for us.
	path := filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(path, vector(t, "cosign.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := LoadVerdictKey(path, func() ([]byte, error) { return nil, nil })
	if err != nil || k.KeyID() != public.ID {
		t.Fatal(err)
	}
	if _, err := LoadVerdictKey(path, func() ([]byte, error) { return []byte("wrong"), nil }); err == nil {
		t.Error("opens with any password")
	}
	text, err := VerdictStatement(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckVerdict([]byte(signedText(t, k, text)), want); err != nil {
		t.Error(err)
	}
}

// Whatever a verdict says otherwise than it must is refused, by its own reason.
func TestVerdictsThatSayOtherwise(t *testing.T) {
	k, public := verdictSigner(t)
	ed, err := NewCosignKey(cosignKeys(t)["ed25519"])
	if err != nil {
		t.Fatal(err)
	}
	other := verdictKey(t, publicPEM(t, ed.key.Public()))
	const sum = "00000000000000000000000000000000000000000000000000000000000000ff"
	replace := func(old, with string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("the statement has no %s", old)
			}
			return strings.Replace(s, old, with, 1)
		}
	}
	first := wanted().Subjects[0]
	for name, c := range map[string]struct {
		reason string // "": it counts
		change func(string) string
		want   func(*writ.VerdictWant)
	}{
		"as it must be":      {},
		"spaces":             {change: replace(`{"_type"`, "\n{ \"_type\"")},
		"whole seconds":      {change: replace(`00:00:00.000Z`, `00:00:00Z`)},
		"a uri":              {change: replace(`"policies":[{`, `"policies":[{"uri":"policy:in-force",`)},
		"v0.1":               {change: replace(`Statement/v1"`, `Statement/v0.1"`)},
		"an hour old":        {want: func(w *writ.VerdictWant) { w.Now += writ.VerdictFreshMs }},
		"a minute ahead":     {want: func(w *writ.VerdictWant) { w.Now -= writ.VerdictAheadMs }},
		"one key of several": {want: func(w *writ.VerdictWant) { w.Keys = []writ.PublicKey{other, public} }},

		"no statement":         {reason: "statement", change: func(string) string { return "hello" }},
		"another type":         {reason: "statement", change: replace(`Statement/v1"`, `Statement/v2"`)},
		"another predicate":    {reason: "statement", change: replace(`svr/v0.2`, `svr/v0.1`)},
		"an unknown member":    {reason: "statement", change: replace(`"timeCreated"`, `"more":1,"timeCreated"`)},
		"a member twice":       {reason: "statement", change: replace(`"timeCreated"`, `"timeCreated":"2026-01-01T00:00:00.000Z","timeCreated"`)},
		"a case variant":       {reason: "statement", change: replace(`"timeCreated"`, `"TimeCreated"`)},
		"a member left out":    {reason: "statement", change: replace(`,"timeCreated":"2026-01-01T00:00:00.000Z"`, "")},
		"null":                 {reason: "statement", change: replace(`"subject":[`, `"subject":null,"s":[`)},
		"no list":              {reason: "statement", change: replace(`"policies":[{"digest":{"sha256":"`+strings.Repeat("a", 64)+`"}}]`, `"policies":null`)},
		"something after it":   {reason: "statement", change: func(s string) string { return s + "{}" }},
		"no UTF-8":             {reason: "statement", change: replace(`WRIT_GATE_PASS`, "WRIT_\xff")},
		"another digest kind":  {reason: "statement", change: replace(`"sha256"`, `"sha512"`)},
		"another verifier":     {reason: "verifier", change: replace(`agent:checker`, `agent:chucker`)},
		"other policies":       {reason: "policy", change: replace(strings.Repeat("a", 64), sum)},
		"two policies":         {reason: "policy", change: replace(`"policies":[`, `"policies":[{"digest":{"sha256":"`+sum+`"}},`)},
		"a policy behind it":   {reason: "policy", change: replace(`"policies":[`, `"policies":[{"digest":{"sha256":"`+strings.Repeat("f", 64)+`"}},`)},
		"no policy":            {reason: "policy", change: replace(`"policies":[{"digest":{"sha256":"`+strings.Repeat("a", 64)+`"}}]`, `"policies":[]`)},
		"rejects":              {reason: "verdict", change: replace(`VERDICT_ACCEPT`, `VERDICT_REJECT`)},
		"a check failed":       {reason: "verdict", change: replace(`GATE_PASS`, `GATE_FAIL`)},
		"says more":            {reason: "verdict", change: replace(`"properties":[`, `"properties":["WRIT_REASON:late",`)},
		"says less":            {reason: "verdict", change: replace(`"WRIT_GATE_PASS:tests",`, "")},
		"says it twice":        {reason: "verdict", change: replace(`"WRIT_GATE_PASS:tests",`, `"WRIT_GATE_PASS:tests","WRIT_GATE_PASS:tests",`)},
		"another artifact":     {reason: "subjects", change: replace(first, sum)},
		"one artifact more":    {reason: "subjects", change: replace(`"subject":[`, `"subject":[{"digest":{"sha256":"`+sum+`"}},`)},
		"an artifact twice":    {reason: "subjects", change: replace(`"subject":[`, `"subject":[{"digest":{"sha256":"`+first+`"}},`)},
		"one artifact less":    {reason: "subjects", change: replace(`{"digest":{"sha256":"`+first+`"}},`, "")},
		"capital digits":       {reason: "subjects", change: replace(first, strings.ToUpper(first))},
		"nothing":              {reason: "subjects", want: func(w *writ.VerdictWant) { w.Subjects = nil }, change: func(s string) string { return s }},
		"nothing that is said": {reason: "verdict", want: func(w *writ.VerdictWant) { w.Properties = nil }},
		"too old":              {reason: "time", want: func(w *writ.VerdictWant) { w.Now += writ.VerdictFreshMs + 1 }},
		"too early":            {reason: "time", want: func(w *writ.VerdictWant) { w.Now -= writ.VerdictAheadMs + 1 }},
		"another time zone":    {reason: "time", change: replace(`00:00:00.000Z`, `01:00:00+01:00`)},
		"tenths of seconds":    {reason: "time", change: replace(`00:00:00.000Z`, `00:00:00.0Z`)},
		"a comma":              {reason: "time", change: replace(`00:00:00.000Z`, `00:00:00,000Z`)},
		"no time":              {reason: "time", change: replace(`2026-01-01T00:00:00.000Z`, ``)},
		"no key":               {reason: "key", want: func(w *writ.VerdictWant) { w.Keys = nil }},
		"another's key":        {reason: "key", want: func(w *writ.VerdictWant) { w.Keys = []writ.PublicKey{other} }},
		"a key that is none":   {reason: "key", want: func(w *writ.VerdictWant) { w.Keys = []writ.PublicKey{{ID: public.ID, PEM: "x"}} }},
	} {
		want := wanted(public)
		text, err := VerdictStatement(want, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.change != nil {
			text = []byte(c.change(string(text)))
		}
		if c.want != nil {
			c.want(&want)
		}
		_, err = CheckVerdict([]byte(signedText(t, k, text)), want)
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.reason != "" && verdictReason(err) != c.reason:
			t.Errorf("%s: refused for %q (%v), want %q", name, verdictReason(err), err, c.reason)
		}
	}
}

// A caller that wants nothing in particular gets no verdict that says nothing.
func TestAVerdictOnNothing(t *testing.T) {
	k, public := verdictSigner(t)
	for reason, spoil := range map[string]func(*writ.VerdictWant){
		"subjects": func(v *writ.VerdictWant) { v.Subjects = nil },
		"verdict":  func(v *writ.VerdictWant) { v.Properties = nil },
		"policy":   func(v *writ.VerdictWant) { v.Policy = "" },
	} {
		want := wanted(public)
		spoil(&want)
		text, err := VerdictStatement(want, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CheckVerdict([]byte(signedText(t, k, text)), want); verdictReason(err) != reason {
			t.Errorf("%s: %v", reason, err)
		}
	}
}

// What is logged for good has no words in it: names are those of files, and nobody looks at
// an address. Verdicts of before are verified as they are.
func TestNamesInVerdictsAreOfFiles(t *testing.T) {
	k, public := verdictSigner(t)
	want := wanted(public)
	for name, ok := range map[string]bool{
		"artifact/hello": true, "./out/Report_2.tar.gz": true, strings.Repeat("a", 128): true,
		"": false, "Jane Doe was here": false, "jane@example.org": false, "a\nb": false, "grün": false, strings.Repeat("a", 129): false,
	} {
		text, err := VerdictStatement(want, map[string]string{want.Subjects[0]: name})
		if err != nil {
			t.Fatal(err)
		}
		if name == "" { // which writ leaves out
			text = []byte(strings.Replace(string(text), `"subject":[{`, `"subject":[{"name":"",`, 1))
		}
		env := signedText(t, k, text)
		if _, err := CheckVerdict([]byte(env), want); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := (Verdicts{}).Check(env, want); ok != (err == nil) || !ok && verdictReason(err) != writ.BadVerdictStatement {
			t.Errorf("%q: %v", name, err)
		}
	}
	text, err := VerdictStatement(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{`"subject":[{`, `"policies":[{`} {
		env := signedText(t, k, []byte(strings.Replace(string(text), at, at+`"uri":"https://example.org/jane",`, 1)))
		if _, err := CheckVerdict([]byte(env), want); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if _, err := (Verdicts{}).Check(env, want); verdictReason(err) != writ.BadVerdictStatement {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// An envelope or a bundle has few forms, and one signature by the key it names.
func TestFormsOfSignedVerdicts(t *testing.T) {
	k, public := verdictSigner(t)
	want := wanted(public)
	text, err := VerdictStatement(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := signedText(t, k, text)
	der, err := x509.MarshalPKIXPublicKey(k.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	spki := sha256.Sum256(der)
	bundle := func(hint string) string {
		return `{"mediaType":"` + sigstoreBundle + `","verificationMaterial":{"publicKey":{"hint":"` + hint + `"}},"dsseEnvelope":` + env + `}`
	}
	in := func(s, old, with string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("there is no %s", old)
		}
		return strings.Replace(s, old, with, 1)
	}
	var e struct{ Payload, Sig string }
	e.Payload = base64.StdEncoding.EncodeToString(text)
	r, err := k.SignVerdict(text)
	if err != nil {
		t.Fatal(err)
	}
	e.Sig = base64.StdEncoding.EncodeToString(r.Sig)
	keyid := `"keyid":"` + public.ID + `"`
	var rs signatureValues
	if _, err := asn1.Unmarshal(r.Sig, &rs); err != nil {
		t.Fatal(err)
	}
	high, err := asn1.Marshal(signatureValues{rs.R, new(big.Int).Sub(elliptic.P256().Params().N, rs.S)})
	if err != nil {
		t.Fatal(err)
	}
	loose := append(slices.Clone(r.Sig), 0)
	for name, c := range map[string]struct{ reason, text string }{
		"an envelope":               {"", env},
		"without a key id":          {"", in(env, keyid+",", "")},
		"with an empty key id":      {"", in(env, keyid, `"keyid":""`)},
		"a key id as cosign has it": {"", in(env, keyid, `"keyid":"`+base64.StdEncoding.EncodeToString(spki[:])+`"`)},
		"the higher s":              {"", in(env, e.Sig, base64.StdEncoding.EncodeToString(high))},
		"a bundle":                  {"", bundle(public.ID)},
		"a bundle, hint by SPKI":    {"", bundle(base64.StdEncoding.EncodeToString(spki[:]))},
		"a bundle, hint in hex":     {"", bundle(hex.EncodeToString(spki[:]))},
		"a bundle without a hint":   {"", in(bundle("x"), `"hint":"x"`, "")},
		"of some other log":         {"", in(bundle(public.ID), `"verificationMaterial":{`, `"verificationMaterial":{"tlogEntries":[{"logIndex":"1"}],`)},

		"nothing":              {"form", ""},
		"no JSON":              {"form", "hello"},
		"too long":             {"form", env + strings.Repeat(" ", writ.MaxVerdictBytes)},
		"twice":                {"form", env + env},
		"an unknown member":    {"form", in(env, `{"payload`, `{"x":1,"payload`)},
		"a member twice":       {"form", in(env, `"payloadType"`, `"payloadType":"application/vnd.in-toto+json","payloadType"`)},
		"a case variant":       {"form", in(env, `"payloadType"`, `"PayloadType"`)},
		"another payload type": {"form", in(env, `application/vnd.in-toto+json`, `application/vnd.writ.cosign.v1+json`)},
		"no signature":         {"form", in(env, `[{`, `[],"x":[{`)},
		"no signatures at all": {"form", env[:strings.Index(env, `,"signatures"`)] + `,"signatures":[]}`},
		"two signatures":       {"form", in(env, `"signatures":[`, `"signatures":[{`+keyid+`,"sig":"`+e.Sig+`"},`)},
		"url base64":           {"form", in(env, e.Payload, strings.TrimRight(e.Payload, "=")+"-")},
		"base64 in lines":      {"form", in(env, e.Payload, e.Payload[:4]+`\n`+e.Payload[4:])},
		"an empty payload":     {"form", in(env, e.Payload, "")},
		"another bundle":       {"form", in(bundle(public.ID), "v0.3", "v0.4")},
		"a certificate":        {"form", in(bundle("x"), `"publicKey":{"hint":"x"}`, `"certificate":{"rawBytes":"AA=="}`)},
		"twice in an entry":    {"form", in(bundle(public.ID), `"verificationMaterial":{`, `"verificationMaterial":{"tlogEntries":[{"a":"1","a":"2"}],`)},

		"another key id":   {"key", in(env, public.ID, "SHA256:"+strings.Repeat("A", 43))},
		"another hint":     {"key", bundle("SHA256:" + strings.Repeat("A", 43))},
		"a trailing byte":  {"signature", in(env, e.Sig, base64.StdEncoding.EncodeToString(loose))},
		"no such point":    {"signature", in(env, e.Sig, base64.StdEncoding.EncodeToString([]byte("hello")))},
		"another payload":  {"signature", in(env, e.Payload, base64.StdEncoding.EncodeToString(append([]byte(" "), text...)))},
		"signed otherwise": {"signature", in(env, e.Sig, base64.StdEncoding.EncodeToString(rawSigned(t, k, text)))},
	} {
		_, err := CheckVerdict([]byte(c.text), want)
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.reason != "" && verdictReason(err) != c.reason:
			t.Errorf("%s: refused for %q (%v), want %q", name, verdictReason(err), err, c.reason)
		}
	}
}

// rawSigned signs the text itself, and not that it is an in-toto statement.
func rawSigned(t testing.TB, k *CosignKey, text []byte) []byte {
	t.Helper()
	sig, err := sign(k.key, dsse.PAE(CosignType, text))
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// What a verifier signs is no call it cosigns, and the other way round.
func TestEd25519Verdict(t *testing.T) {
	k, err := NewCosignKey(cosignKeys(t)["ed25519"])
	if err != nil {
		t.Fatal(err)
	}
	want := wanted(verdictKey(t, publicPEM(t, k.key.Public())))
	text, err := VerdictStatement(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := signedText(t, k, text)
	if _, err := CheckVerdict([]byte(env), want); err != nil {
		t.Error(err)
	}
	sig := base64.StdEncoding.EncodeToString(rawSigned(t, k, text))
	var e struct{ Signatures []struct{ Sig string } }
	if err := json.Unmarshal([]byte(env), &e); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckVerdict([]byte(strings.Replace(env, e.Signatures[0].Sig, sig, 1)), want); verdictReason(err) != "signature" {
		t.Errorf("signed as something else: %v", err)
	}
	want.Keys = []writ.PublicKey{verdictKey(t, publicPEM(t, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)).Public()))}
	if _, err := CheckVerdict([]byte(env), want); verdictReason(err) != "key" {
		t.Error(err)
	}
}

// An export in which one signed verdict was used twice is none an honest gateway made.
func TestAVerdictTwiceInALog(t *testing.T) {
	s := testSealer(t)
	h := newHistory()
	for i, want := range []bool{true, false} {
		st := judged()
		st.Receipt, st.Parents, st.Changes, st.KeyID = rcp(20+i), nil, nil, s.KeyID()
		p := h.add(Record{Statement: st, Commit: writ.Committed{Epoch: "e", Seq: int64(i), RunSeq: int64(i + 1), At: 1}})
		if (p == nil) != want {
			t.Errorf("receipt %d: %v", i, p)
		}
	}
}

// No text makes the parser fail otherwise than by a refusal, none that was refused has a
// name, and what counts is in one form.
func FuzzCheckVerdict(f *testing.F) {
	for _, name := range []string{"cosign-statement.sigstore.json", "cosign-predicate.sigstore.json", "writ.dsse.json"} {
		f.Add(vector(f, name))
	}
	public := verdictKey(f, string(vector(f, "cosign.pub")))
	_, mine := verdictSigner(f)
	want := wanted(public, mine)
	known := map[string]bool{}
	for _, name := range []string{"cosign-statement.sigstore.json", "writ.dsse.json"} {
		got, err := CheckVerdict(vector(f, name), want)
		if err != nil {
			f.Fatal(err)
		}
		known[got.Digest] = true
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		name, nerr := (Verdicts{}).Digest(string(text))
		got, err := CheckVerdict(text, want)
		if err != nil {
			if writ.CodeOf(err) != writ.CodeVerdict || verdictReason(err) == "" {
				t.Fatalf("%v", err)
			}
			return
		}
		if nerr != nil || name != got.Digest || !known[got.Digest] {
			t.Fatalf("a verdict nobody signed: %+v", got)
		}
		if !json.Valid(got.Envelope) {
			t.Fatalf("kept %s", got.Envelope)
		}
	})
}

// FuzzVerdictStatement looks at statements as if they had been signed.
func FuzzVerdictStatement(f *testing.F) {
	f.Add(vector(f, "statement.json"))
	f.Add(vector(f, "writ.statement.json"))
	want := wanted(writ.PublicKey{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		s, err := readVerdict(payload)
		if err != nil {
			return
		}
		if _, err := s.says(want); err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := readVerdict(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		} else if _, err := r.says(want); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

// A verdict on a run of as many artifacts as there may be fits, in its envelope and in
// the evidence.
func TestTheLargestVerdictFits(t *testing.T) {
	k, public := verdictSigner(t)
	want := wanted(public)
	var all []string
	for i := range writ.MaxRunArtifacts {
		all = append(all, digest([]byte{byte(i), byte(i >> 8)}))
	}
	want.Subjects = writ.VerdictSubjects(writ.Receipt{}, all)
	var reasons []string
	gates := map[string]bool{}
	for i := range 16 {
		gates[strings.Repeat("g", 63)+string(rune('a'+i))] = true
		if i < 8 {
			reasons = append(reasons, strings.Repeat("r", 63)+string(rune('a'+i)))
		}
	}
	want.Properties = writ.VerdictProperties("", writ.VerdictAccept, gates, reasons)
	text, err := VerdictStatement(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	env := signedText(t, k, text)
	if _, err := CheckVerdict([]byte(env), want); err != nil || len(env) > writ.MaxVerdictBytes-2<<10 {
		t.Errorf("%d bytes: %v", len(env), err)
	}
}
