package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func noEnv(k string) string { return map[string]string{"HOME": "/home/op"}[k] }

func TestConfigDefaultsRun(t *testing.T) {
	c, err := Load("", noEnv, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Store != "bolt" || c.Listen != "127.0.0.1:8700" || c.Data != "/home/op/.local/state/writ" || c.Keys != filepath.Join(c.Data, "keys") {
		t.Fatalf("defaults: %+v", c)
	}
}

// Nothing depends on the directory one happens to be in.
func TestDataIsNeverInTheWorkingDirectory(t *testing.T) {
	for _, env := range []map[string]string{{}, {"XDG_STATE_HOME": "state"}, {"HOME": "."}} {
		if _, err := Load("", func(k string) string { return env[k] }, nil); err == nil || !strings.Contains(err.Error(), "data: ") {
			t.Errorf("%v: got %v", env, err)
		}
	}
}

func TestConfigPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "writ.yaml")
	if err := os.WriteFile(path, []byte("listen: 127.0.0.1:1\nlog: warn\noutage_grace: 5s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(k string) string {
		return map[string]string{"HOME": "/home/op", "WRIT_LISTEN": "127.0.0.1:2", "WRIT_MAX_INFLIGHT": "7"}[k]
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
		{"allowed_hosts: a.example,,b.example\n", "allowed_hosts"},
		{"allowed_hosts: http://a.example\n", "allowed_hosts"},
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
