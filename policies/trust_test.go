package policies

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/writ-gateway/writ"
)

// signer is a key that signs as `opa sign` does.
type signer struct{ private, public string }

func newSigner(t testing.TB) signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	priv, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return signer{text("EC PRIVATE KEY", priv), text("PUBLIC KEY", pub)}
}

func (s signer) sign(t testing.TB, f files) files {
	t.Helper()
	h, err := bundle.NewSignatureHasher(bundle.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	out, list := files{}, []bundle.FileInfo{}
	for name, b := range f {
		out[name] = b
		var v any = b
		if bundle.IsStructuredDoc(name) {
			if err := util.Unmarshal(b, &v); err != nil {
				t.Fatal(err)
			}
		}
		sum, err := h.HashFile(v)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, bundle.NewFile(name, hex.EncodeToString(sum), "SHA-256"))
	}
	token, err := bundle.GenerateSignedToken(list, bundle.NewSigningConfig(s.private, "ES256", ""), "")
	if err != nil {
		t.Fatal(err)
	}
	if out[signaturesFile], err = json.Marshal(map[string]any{"signatures": []string{token}}); err != nil {
		t.Fatal(err)
	}
	return out
}

// What is not signed by a trusted key, is not what was signed, or changes what
// its key may not change, is refused.
func TestTrust(t *testing.T) {
	inForce, _ := load(t).Bundle()
	all, team, stranger := newSigner(t), newSigner(t), newSigner(t)
	path := filepath.Join(t.TempDir(), "trust.yaml")
	indent := func(s string) string { return "      " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n      ") }
	text := "keys:\n  security:\n    packs: ['*']\n    roles: true\n    public_key: |\n" + indent(all.public) +
		"\n  team:\n    packs: [freeze]\n    public_key: |\n" + indent(team.public) + "\n"
	write(t, path, text)
	trust, err := LoadTrust(path)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(files)) files {
		f := sources(t)
		guardPack(f, "freeze", "run.*", "deny", `"effect": "deny", "code": "policy_denied"`, `input.run.id == "x"`)
		if change != nil {
			change(f)
		}
		return f
	}
	same := func(files) {}
	budgets := func(f files) {
		f["packs/budgets/budgets.rego"] = append(bytes.Clone(f["packs/budgets/budgets.rego"]), "\n#\n"...)
	}
	rows := func(f files) { f[rowsFile] = append(bytes.Clone(f[rowsFile]), "\n#\n"...) }
	bare := func(f files) { delete(f, rowsFile); delete(f, modelFile) }
	without := func(f files) {
		for name := range f {
			if strings.HasPrefix(name, "packs/write_scopes/") {
				delete(f, name)
			}
		}
	}
	for _, tc := range []struct {
		name   string
		f      files
		signer string
		want   string
	}{
		{"not signed", with(nil), "", "is not signed"},
		{"signed by a stranger", stranger.sign(t, with(nil)), "", "no key this gateway trusts"},
		{"by who may change all", all.sign(t, with(budgets)), "security", ""},
		{"roles by who may", all.sign(t, with(rows)), "security", ""},
		{"its own pack", team.sign(t, with(same)), "team", ""},
		{"its own pack, no roles", team.sign(t, with(bare)), "team", ""},
		{"another's pack", team.sign(t, with(budgets)), "", "may not change the pack budgets"},
		{"another's pack left out", team.sign(t, with(without)), "", "may not change the pack write_scopes"},
		{"roles", team.sign(t, with(rows)), "", "may not change roles"},
	} {
		got, err := trust.Vet(zipped(t, sent(t, tc.f)), inForce)
		if got != tc.signer && err == nil || tc.want == "" && err != nil || tc.want != "" && (writ.CodeOf(err) != writ.CodePolicy || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %q, %v; want %q, %q", tc.name, got, err, tc.signer, tc.want)
		}
	}
	for name, change := range map[string]func(files){
		"a rule": budgets,
		"a manifest": func(f files) {
			f["packs/freeze/pack.yaml"] = bytes.Replace(f["packs/freeze/pack.yaml"], []byte("run.*"), []byte("task.*"), 1)
		},
		"a file more":   func(f files) { f["packs/freeze/more.rego"] = []byte("package packs.freeze\n") },
		"a file less":   func(f files) { delete(f, "packs/freeze/freeze.rego") },
		"a pack less":   without,
		"roles less":    bare,
		"the signature": func(f files) { f[signaturesFile] = []byte(`{"signatures": []}`) },
		"no JSON":       func(f files) { f[signaturesFile] = []byte(`{`) },
		"a plugin":      func(f files) { f[signaturesFile] = []byte(`{"signatures": ["x.y.z"], "plugin": "none"}`) },
		"two signatures": func(f files) {
			f[signaturesFile] = bytes.Replace(f[signaturesFile], []byte(`["`), []byte(`["x.y.z","`), 1)
		},
	} {
		f := all.sign(t, with(nil))
		change(f)
		if _, err := trust.Vet(sent(t, f), inForce); writ.CodeOf(err) != writ.CodePolicy {
			t.Errorf("tampered with %s: got %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"no keys":       "keys: {}\n",
		"a strange key": "keys: {a: {packs: ['*'], public_key: x}}\n",
		"a secret":      "keys: {a: {packs: ['*'], algorithm: HS256, public_key: x}}\n",
		"a field":       text + "more: 1\n",
		"nothing to do": strings.Replace(text, "packs: [freeze]", "packs: []", 1),
	} {
		write(t, path, text)
		if _, err := LoadTrust(path); err == nil {
			t.Errorf("a trust file with %s was taken", name)
		}
	}
	if _, err := LoadTrust(path + ".gone"); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
