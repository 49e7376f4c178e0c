package author

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// pair is a key as PEM, private and public.
func pair(t testing.TB, kind string) (private, public []byte) {
	t.Helper()
	var key, pub any
	var err error
	switch kind {
	case "ed25519":
		pub, key, err = ed25519.GenerateKey(rand.Reader)
	case "p256":
		var k *ecdsa.PrivateKey
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		key, pub = k, k.Public()
	case "p384":
		var k *ecdsa.PrivateKey
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		key, pub = k, k.Public()
	case "rsa":
		var k *rsa.PrivateKey
		k, err = rsa.GenerateKey(rand.Reader, 2048)
		key, pub = k, k.Public()
	}
	if err != nil {
		t.Fatal(err)
	}
	a, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: a}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
}

func signed(t testing.TB, b, key []byte, id string) []byte {
	t.Helper()
	out, err := SignBundle(b, key, id)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSignAndVerify(t *testing.T) {
	b := bundleOf(t, ExamplePack)
	for _, kind := range []string{"ed25519", "p256"} {
		key, pub := pair(t, kind)
		s := signed(t, b, key, "team-a")
		got, err := Verify(t.Context(), s, pub, "")
		if err != nil || got.KeyID != "team-a" || len(got.Packs) != 1 || got.Packs[0].ID != ExamplePack {
			t.Errorf("%s: got %+v, %v", kind, got, err)
		}
		if _, err := Verify(t.Context(), signed(t, s, key, "team-b"), pub, "team-b"); err != nil {
			t.Errorf("%s: signed again: %v", kind, err)
		}
		if kind == "ed25519" && !bytes.Equal(s, signed(t, b, key, "team-a")) {
			t.Error("the same key and files gave two signed bundles")
		}
	}
}

func TestSignRefuses(t *testing.T) {
	b := bundleOf(t, ExamplePack)
	key, pub := pair(t, "ed25519")
	p384, _ := pair(t, "p384")
	rsaKey, _ := pair(t, "rsa")
	for name, tc := range map[string]struct {
		b, key []byte
		id     string
	}{
		"no key":           {b, nil, "a"},
		"a public key":     {b, pub, "a"},
		"another curve":    {b, p384, "a"},
		"RSA":              {b, rsaKey, "a"},
		"a name of a file": {b, []byte("/etc/passwd"), "a"},
		"two keys":         {b, bytes.Repeat(key, 2), "a"},
		"no id":            {b, key, ""},
		"a strange id":     {b, key, "a\nb"},
		"no bundle":        {[]byte("x"), key, "a"},
	} {
		out, err := SignBundle(tc.b, tc.key, tc.id)
		if err == nil || out != nil {
			t.Errorf("%s: signed", name)
		} else if len(tc.key) > 40 && strings.Contains(err.Error(), string(tc.key[30:60])) {
			t.Errorf("%s: the error quotes the key", name)
		}
	}
}

// resigned puts other signatures into a bundle.
func resigned(t testing.TB, b []byte, change func(*bundle.SignaturesConfig)) []byte {
	t.Helper()
	return changed(t, b, func(content map[string][]byte) {
		var sc bundle.SignaturesConfig
		if err := json.Unmarshal(content[signaturesFile], &sc); err != nil {
			t.Fatal(err)
		}
		change(&sc)
		content[signaturesFile], _ = json.Marshal(sc)
	})
}

func changed(t testing.TB, b []byte, change func(map[string][]byte)) []byte {
	t.Helper()
	content, err := readArchive(b)
	if err != nil {
		t.Fatal(err)
	}
	change(content)
	out, err := writeArchive(content)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHostileBundles(t *testing.T) {
	key, pub := pair(t, "ed25519")
	other, otherPub := pair(t, "ed25519")
	ec, _ := pair(t, "p256")
	plain := bundleOf(t, ExamplePack)
	good := signed(t, plain, key, "team-a")
	file := "/protected_paths/protected_paths.rego"
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"team-a"}`))
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"unsigned", plain, "is not signed"},
		{"another key", signed(t, plain, other, "team-a"), "the wrong key"},
		{"another kind of key", signed(t, plain, ec, "team-a"), "the wrong key"},
		{"a rule changed", changed(t, good, func(c map[string][]byte) { c[file] = append(c[file], '\n') }), "not what was signed"},
		{"a value changed", changed(t, good, func(c map[string][]byte) { c["/protected_paths/data.yaml"] = []byte("config: {}\n") }), "not what was signed"},
		{"pack.yaml changed", changed(t, good, func(c map[string][]byte) {
			c["/protected_paths/pack.yaml"] = append(c["/protected_paths/pack.yaml"], '\n')
		}), "not what was signed"},
		{"a file more", changed(t, good, func(c map[string][]byte) { c["/protected_paths/more.rego"] = []byte("package packs.protected_paths\n") }), "not what was signed"},
		{"a file less", changed(t, good, func(c map[string][]byte) { delete(c, "/protected_paths/data.yaml") }), "not what was signed"},
		{"roots changed", changed(t, good, func(c map[string][]byte) {
			c[manifestFile] = bytes.Replace(c[manifestFile], []byte(`"protected_paths"`), []byte(`"packs"`), 1)
		}), "not what was signed"},
		{"a plugin", resigned(t, good, func(s *bundle.SignaturesConfig) { s.Plugin = "evil" }), "names the plugin"},
		{"the default plugin by name", resigned(t, good, func(s *bundle.SignaturesConfig) { s.Plugin = "_default" }), "names the plugin"},
		{"no signature", resigned(t, good, func(s *bundle.SignaturesConfig) { s.Signatures = nil }), "exactly one"},
		{"two signatures", resigned(t, good, func(s *bundle.SignaturesConfig) { s.Signatures = append(s.Signatures, s.Signatures[0]) }), "exactly one"},
		{"no algorithm", resigned(t, good, func(s *bundle.SignaturesConfig) {
			_, rest, _ := strings.Cut(s.Signatures[0], ".")
			s.Signatures[0] = none + "." + rest
		}), "the wrong key"},
		{"no token", resigned(t, good, func(s *bundle.SignaturesConfig) { s.Signatures[0] = "x" }), "does not say which key"},
		{"for another purpose", forPurpose(t, plain, key, "discovery"), "for another purpose"},
		{"for no purpose", forPurpose(t, plain, key, ""), "for another purpose"},
	} {
		if got, err := Verify(t.Context(), tc.b, pub, ""); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v %v, want %q", tc.name, got, err, tc.want)
		}
	}
	for name, pem := range map[string][]byte{"another key": otherPub, "a private key": key, "no key": nil} {
		if _, err := Verify(t.Context(), good, pem, ""); err == nil {
			t.Errorf("verified with %s", name)
		}
	}
	if _, err := Verify(t.Context(), good, pub, "team-b"); err == nil {
		t.Error("verified under another key id")
	}
}

// forPurpose signs as some other program would, with another scope.
func forPurpose(t testing.TB, b, key []byte, scope string) []byte {
	t.Helper()
	return resigned(t, signed(t, b, key, "team-a"), func(s *bundle.SignaturesConfig) {
		content, err := readArchive(signed(t, b, key, "team-a"))
		if err != nil {
			t.Fatal(err)
		}
		var sc bundle.SignaturesConfig
		if err := json.Unmarshal(content[signaturesFile], &sc); err != nil {
			t.Fatal(err)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(sc.Signatures[0], ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		payload = bytes.Replace(payload, []byte(`"scope":"writ"`), fmt.Appendf(nil, `"scope":%q`, scope), 1)
		block, _ := pem.Decode(key)
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"team-a"}`))
		text := head + "." + base64.RawURLEncoding.EncodeToString(payload)
		s.Signatures[0] = text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private.(ed25519.PrivateKey), []byte(text)))
	})
}

// hostile makes and signs a bundle with other rules, past all checks of ours.
func hostile(t testing.TB, key []byte, id, rego string) []byte {
	t.Helper()
	content := map[string][]byte{}
	files := example(t, "extra")
	for _, base := range []string{"pack.yaml", "data.yaml", "extra.rego"} {
		content["/"+id+"/"+base] = bytes.ReplaceAll(files["packs/extra/"+base], []byte("id: extra"), []byte("id: "+id))
	}
	if rego != "" {
		content["/"+id+"/extra.rego"] = append(content["/"+id+"/extra.rego"], rego...)
	}
	m, err := json.Marshal(manifestFor(content))
	if err != nil {
		t.Fatal(err)
	}
	content[manifestFile] = append(m, '\n')
	b, err := writeArchive(content)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, b, key, "team-a")
}

// A signature does not make a pack good.
func TestSignedAndStillRefused(t *testing.T) {
	key, pub := pair(t, "ed25519")
	for _, tc := range []struct{ name, id, rego, want string }{
		{"good", "extra", "", ""},
		{"foreign package", "other", "", "roots"},
		{"network", "extra", "\n_x if http.send({\"method\": \"get\", \"url\": \"http://x\"}).status_code == 200\n", "undefined function http.send"},
		{"other data", "extra", "\n_x if data.budgets.config.late_percent > 1\n", "a pack reads its own"},
		{"does not parse", "extra", "\n_x if\n", "unexpected"},
	} {
		got, err := Verify(t.Context(), hostile(t, key, tc.id, tc.rego), pub, "")
		if tc.want == "" {
			if err != nil || len(got.Packs) != 1 {
				t.Errorf("%s: %v %v", tc.name, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestEndlessPackIsRefused(t *testing.T) {
	key, _ := pair(t, "ed25519")
	content, err := readArchive(hostile(t, key, "extra", "\n_complete if {\n\tn := numbers.range(1, 100000)\n\tsome i in n\n\tsome j in n\n\tsome k in n\n\ti + j + k < 0\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inspect(t.Context(), content, 200*time.Millisecond); err == nil || !strings.Contains(err.Error(), "warm-up") {
		t.Errorf("got %v", err)
	}
}
