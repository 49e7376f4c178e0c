package receipts

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// cosignedCall and its arguments are those of the vectors.
var cosignedCall = writ.Cosigned{
	Capability: "task.complete", IdempotencyKey: "key-1", Session: "ses_01ARYZ6S410000000000000000", Tenant: "default",
}

const cosignedArgs = ` { "task_id" : "tsk_01ARYZ6S410000000000000000", "fence": 7, "result": {"ratio": 5e-1, "ok": true, "euro": "\u20ac"} } `

func cosignKeys(t testing.TB) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for name, key := range map[string]any{"ed25519": ed25519.NewKeyFromSeed(make([]byte, 32)), "p256": rfcKey(t)} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	return out
}

// publicPEM is the public half as openssl writes it.
func publicPEM(t testing.TB, pub any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// What is signed, byte by byte, and what the two kinds of keys make of it.
func TestCosignVectors(t *testing.T) {
	what := cosignedCall
	var err error
	if what.ArgsDigest, err = ArgsDigest([]byte(cosignedArgs)); err != nil {
		t.Fatal(err)
	}
	text, err := CosignText(what)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cosign.pae", text)
	for name, private := range cosignKeys(t) {
		key, err := NewCosignKey(private)
		if err != nil {
			t.Fatal(err)
		}
		header, err := key.Header(cosignedCall, []byte(cosignedArgs))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "cosign."+name, []byte(header+"\n"))
		parts := strings.Split(header, " ")
		sig, err := base64.StdEncoding.Strict().DecodeString(parts[2])
		if err != nil || len(parts) != 3 || parts[0] != "v1" || parts[1] != key.KeyID() {
			t.Fatalf("header %q: %v", header, err)
		}
		public, err := ParsePublicKey(publicPEM(t, key.key.Public()))
		if err != nil || public.ID != key.KeyID() || !keyIDPattern.MatchString(public.ID) {
			t.Fatalf("%+v, %v, want id %s", public, err, key.KeyID())
		}
		if !(Cosigner{}).Verify(public, what, sig) {
			t.Errorf("%s: its own signature does not hold", name)
		}
		for field, change := range map[string]func(*writ.Cosigned){
			"digest":     func(c *writ.Cosigned) { c.ArgsDigest = strings.Repeat("0", 64) },
			"capability": func(c *writ.Cosigned) { c.Capability = "task.fail" },
			"key":        func(c *writ.Cosigned) { c.IdempotencyKey = "key-2" },
			"session":    func(c *writ.Cosigned) { c.Session = "ses_01ARYZ6S410000000000000001" },
			"tenant":     func(c *writ.Cosigned) { c.Tenant = "other" },
		} {
			other := what
			if change(&other); (Cosigner{}).Verify(public, other, sig) {
				t.Errorf("%s: holds of another %s", name, field)
			}
		}
	}
}

// A signature has one form, and holds for the key it was made with.
func TestCosignatureForms(t *testing.T) {
	priv := rfcKey(t)
	public, err := ParsePublicKey(publicPEM(t, &priv.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	text, err := CosignText(cosignedCall)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := sign(priv, text)
	if err != nil || !(Cosigner{}).Verify(public, cosignedCall, sig) {
		t.Fatal(err)
	}
	var rs signatureValues
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		t.Fatal(err)
	}
	high, err := asn1.Marshal(signatureValues{rs.R, new(big.Int).Sub(elliptic.P256().Params().N, rs.S)})
	if err != nil {
		t.Fatal(err)
	}
	if h := sha256.Sum256(text); !ecdsa.VerifyASN1(&priv.PublicKey, h[:], high) {
		t.Fatal("the other form is no signature at all")
	}
	raw := append(rs.R.FillBytes(make([]byte, 32)), rs.S.FillBytes(make([]byte, 32))...)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := sign(other, text)
	if err != nil {
		t.Fatal(err)
	}
	// What the same key signs as a receipt is no signature of a call.
	receipt, err := sign(priv, []byte(strings.Replace(string(text), CosignType, PayloadType, 1)))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"high s": high, "P1363": raw, "something behind": append(sig[:len(sig):len(sig)], 0), "cut": sig[:len(sig)-1], "nothing": nil,
		"another key's": foreign, "another text's": receipt,
	} {
		if (Cosigner{}).Verify(public, cosignedCall, bad) {
			t.Errorf("%s: holds", name)
		}
	}
	if (Cosigner{}).Verify(writ.PublicKey{ID: public.ID, PEM: "no key"}, cosignedCall, sig) {
		t.Error("no key: holds")
	}
}

func TestParsePublicKey(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256 := &rfcKey(t).PublicKey
	for _, pub := range []any{ed, p256} {
		text := publicPEM(t, pub)
		one, err := ParsePublicKey(text)
		if err != nil || one.PEM != text {
			t.Fatalf("got %+v, %v, want %s", one, err, text)
		}
		// However it is wrapped, one key is one key.
		again, err := ParsePublicKey("\n" + strings.Replace(text, "\n-----END", "\n\n-----END", 1) + "\n\n")
		if err != nil || again != one {
			t.Errorf("got %+v, %v, want %+v", again, err, one)
		}
		// One that is spelled in another DER, which a verifier need not read, is none.
		block, _ := pem.Decode([]byte(text))
		block.Bytes = append(block.Bytes, 5, 0)
		block.Bytes[1] += 2
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePublicKey(string(pem.EncodeToMemory(block))); err == nil || !strings.Contains(err.Error(), "print it again with openssl pkey -pubout") {
			t.Errorf("another DER: got %v", err)
		}
	}
	// One by which no signature holds is read, since it may be registered already, and not registered.
	for _, y := range []*big.Int{big.NewInt(1), prime25519} {
		text := publicPEM(t, ed25519.PublicKey(little(y)))
		if _, err := ParsePublicKey(text); err != nil {
			t.Error(err)
		}
		if _, err := SigningKey(text); err == nil || !strings.Contains(err.Error(), "make another") {
			t.Errorf("got %v", err)
		}
	}
	if one, err := SigningKey(publicPEM(t, ed)); err != nil || one.PEM == "" {
		t.Errorf("got %+v, %v", one, err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := publicPEM(t, ed)
	for name, text := range map[string]string{
		"P-384": publicPEM(t, &p384.PublicKey), "RSA": publicPEM(t, &long.PublicKey), "two": good + good, "something behind": good + "x", "none": "",
		"no PEM": "MCowBQYDK2VwAyEA", "private": string(cosignKeys(t)["ed25519"]), "another type": strings.ReplaceAll(good, "PUBLIC KEY", "RSA PUBLIC KEY"),
	} {
		if got, err := ParsePublicKey(text); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestArgsDigest(t *testing.T) {
	digest := func(text string) string {
		d, err := ArgsDigest([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return d
	}
	for _, same := range [][]string{
		{``, ` `, `{}`, ` { } `},
		{`{"a":1,"b":"x"}`, `{ "b": "\u0078", "a": 1.0 }`, `{"b":"x","a":1e0}`},
		{`{"n":9007199254740991}`, `{"n": 9007199254740991}`},
	} {
		for _, text := range same {
			if digest(text) != digest(same[0]) {
				t.Errorf("%s and %s differ", text, same[0])
			}
		}
	}
	if digest(`{"a":null}`) == digest(`{}`) || digest(`{"a":1}`) == digest(`{"a":"1"}`) {
		t.Error("what differs has one digest")
	}
	for _, bad := range []string{`{"n":9007199254740992}`, `{"n":-9007199254740993}`, `{"n":[{"m":1e999}]}`, `{"n":123456789012345678901234567890}`, `{"a"`, `{"a":1,"a":2}`} {
		if d, err := ArgsDigest([]byte(bad)); err == nil {
			t.Errorf("%s: got %s", bad, d)
		}
	}
}

func TestLoadCosignKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.pem")
	if _, err := LoadCosignKey(path); writ.AsError("", err).Hint == "" {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, cosignKeys(t)["ed25519"], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCosignKey(path); err == nil {
		t.Error("a key that is open to others was taken")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err := LoadCosignKey(path); err != nil || !keyIDPattern.MatchString(key.KeyID()) {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCosignKey(path); err == nil {
		t.Error("no key was taken")
	}
}
