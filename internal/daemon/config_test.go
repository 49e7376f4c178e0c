package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func noEnv(string) string { return "" }

func TestConfigDefaultsRun(t *testing.T) {
	c, err := Load("", noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Store != "bolt" || c.Listen != "127.0.0.1:8700" || c.Keys != filepath.Join(".writ", "keys") {
		t.Fatalf("defaults: %+v", c)
	}
}

func TestConfigPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.yaml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:1\nlog: warn\noutage_grace: 5s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(k string) string {
		return map[string]string{"WRIT_LISTEN": "127.0.0.1:2", "WRIT_MAX_INFLIGHT": "7"}[k]
	}
	c, err := Load(path, env, map[string]string{"log": "error"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2" || c.Log != "error" || c.Inflight != 7 || c.Grace != Duration(5*time.Second) {
		t.Fatalf("got %+v", c)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"listn: x\n", "line 1: field listn not found"},
		{"\noutage_grace: soon\n", "line 2"},
		{"store: mysql://x\n", "store"},
		{"ledger: none\n", "ledger"},
		{"origin: https://x/\n", "origin"},
		{"max_inflight: many\n", "line 1"},
	} {
		path := filepath.Join(t.TempDir(), "writ.yaml")
		if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, noEnv, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want mention of %q", tt.file, err, tt.want)
		}
	}
}

func TestSchemaCoversEverySetting(t *testing.T) {
	props := Schema()["properties"].(map[string]any)
	if len(props) != len(Settings()) || len(props) < 10 {
		t.Fatalf("schema has %d properties, the struct %d settings", len(props), len(Settings()))
	}
	for _, s := range Settings() {
		if !strings.HasSuffix(s.Doc, ".") {
			t.Errorf("%s: documentation is not a sentence", s.Name)
		}
	}
}

// The sample holds what was given, with absolute paths, and loads to the same
// configuration from any directory without any flag.
func TestSampleIsTheConfiguration(t *testing.T) {
	t.Chdir(t.TempDir())
	given := map[string]string{
		"data": "here", "listen": "127.0.0.1:0", "activate_policies": "true", "outage_grace": "1500ms", "log": "info", "max_inflight": "9",
	}
	c, err := Load("", noEnv, given)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Sample(c, given, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "writ.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Data, _ = filepath.Abs(c.Data)
	c.Keys = filepath.Join(c.Data, "keys")
	t.Chdir("/")
	if got, err := Load(path, noEnv, nil); err != nil || got != c {
		t.Fatalf("got %+v, want %+v: %v\n%s", got, c, err, text)
	}
	for _, want := range []string{"\ndata: " + c.Data + "\n", "\nlog: info\n", "\n# store: bolt\n", "\n# min_lease_seconds: 10\n", "\n# origin: writ.local\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the sample does not hold %q:\n%s", want, text)
		}
	}
}
