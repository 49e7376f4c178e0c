package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// dataAt makes a data directory as a gateway leaves it.
func dataAt(t *testing.T, dir, url string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"gateway.url": url, "operator.token": "default.ses_x.secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhereACommandCalls(t *testing.T) {
	home := t.TempDir()
	own := dataAt(t, filepath.Join(home, ".local", "state", "writ"), "http://own")
	other := dataAt(t, filepath.Join(t.TempDir(), "other"), "http://other")
	t.Chdir(t.TempDir())
	dataAt(t, ".writ", "http://planted")
	for _, tt := range []struct {
		name       string
		n          connection
		env        map[string]string
		url, token string // "" for a refusal
	}{
		{"the default directory", connection{}, nil, "http://own", own + "/operator.token"},
		{"a named directory", connection{data: other}, nil, "http://other", other + "/operator.token"},
		{"one named by the environment", connection{}, map[string]string{"WRIT_DATA": other}, "http://other", other + "/operator.token"},
		{"the flag wins", connection{data: other}, map[string]string{"WRIT_DATA": own, "WRIT_URL": "http://env", "WRIT_TOKEN_FILE": "/t"}, "http://other", other + "/operator.token"},
		{"both given", connection{url: "http://x", tokenFile: "/t"}, nil, "http://x", "/t"},
		{"one of each", connection{url: "http://x"}, map[string]string{"WRIT_TOKEN_FILE": "/t"}, "http://x", "/t"},
		{"an agent's token for a named gateway", connection{tokenFile: "/t", data: other}, nil, "http://other", "/t"},
		{"a found token for a given URL", connection{url: "http://x"}, nil, "", ""},
		{"a found token for a given URL, by directory", connection{url: "http://x", data: other}, nil, "", ""},
		{"a found token for a URL of the environment", connection{}, map[string]string{"WRIT_URL": "http://x"}, "", ""},
		{"a given token for a found URL", connection{tokenFile: "/t"}, nil, "", ""},
		{"a directory without a gateway", connection{data: "nowhere"}, nil, "", ""},
		{"no home", connection{}, map[string]string{"HOME": ""}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, token, err := tt.n.where(func(k string) string {
				if v, ok := tt.env[k]; ok {
					return v
				}
				return map[string]string{"HOME": home}[k]
			})
			if url != tt.url || token != tt.token || (err == nil) != (tt.url != "") {
				t.Errorf("got %s with %s, %v", url, token, err)
			}
		})
	}
}

func TestTokenFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if err := os.WriteFile(good, []byte("default.ses_x.secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readToken(good); err != nil || got != "default.ses_x.secret" {
		t.Fatalf("%q, %v", got, err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("default.ses_x.secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	prose := filepath.Join(dir, "prose")
	if err := os.WriteFile(prose, []byte("two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{link: "link", open: "chmod 600", prose: "one token", dir: "plain file", dir + "/none": "none"} {
		if got, err := readToken(path); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
}

// The form of a receipt that others verify is told from one that was spoilt.
func TestVerifyKnowsASigstoreBundle(t *testing.T) {
	bundle := filepath.Join(t.TempDir(), "receipt.sigstore.json")
	text := `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{}}`
	if err := os.WriteFile(bundle, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, said, exit := typed("receipt", "verify", bundle, "--key", "../../testdata/vectors/receipts/receipt.pub"); exit != exitUnverified || out != "" || !strings.Contains(said, "cosign") {
		t.Errorf("%d %s %s", exit, out, said)
	}
}

// A key that lies in the working directory proves nothing.
func TestVerifyWantsAKeyThatWasNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("WRIT_DATA", "")
	if err := os.MkdirAll(".writ/keys", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(".writ/keys/receipt.pub", []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("forged.jsonl", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := root()
	r.SetArgs([]string{"receipt", "verify", "forged.jsonl"})
	if err := r.Execute(); err == nil || !strings.Contains(err.Error(), "--key") {
		t.Errorf("got %v", err)
	}
}
