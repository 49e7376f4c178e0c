package daemon

import (
	"os"
	"path/filepath"
	"reflect"
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
	if every := time.Duration(c.Checkpoint); every < 100*time.Millisecond || every > time.Second {
		t.Errorf("the log is published every %s", every)
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
		{"max_inflight: many\n", "line 1: max_inflight: \"many\" is not a whole number"},
		{"log: warn\n\nlisten: nowhere\n", "line 3: listen: want host:port"},
		{"log: loud\nlisten: nowhere\nmax_inflight: -4\n", "line 1: log: want debug"},
		{"log: loud\nlisten: nowhere\nmax_inflight: -4\n", "line 2: listen: want"},
		{"log: loud\nlisten: nowhere\nmax_inflight: -4\n", "line 3: max_inflight: want 1 to 100000"},
		{"checkpoint_every: 99ms\n", "line 1: checkpoint_every: want 100ms or more"},
		{"listen: [1, 2]\n", "line 1: listen: want one value"},
		{"- listen\n", "line 1: want settings"},
		{"log: warn\nlog: info\n", "line 2: log is set a second time"},
		{"log: \"warn\n", "line 2"},
		{"log: info\n---\nlog: debug\n", "more than one document"},
		{"log: info\n...\nlog: [\n", "more than one document"},
		{"allowed_hosts: a.example,,b.example\n", "allowed_hosts"},
		{"allowed_hosts: http://a.example\n", "allowed_hosts"},
		{"public_url: writ.example.org\n", "public_url: want https://host"},
		{"public_url: https://me:pw@writ.example.org\n", "public_url: want https://host"},
		{"public_url: https://writ.example.org/?a=b\n", "public_url: want https://host"},
	} {
		path := filepath.Join(t.TempDir(), "writ.yaml")
		if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path, noEnv, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want mention of %q", tt.file, err, tt.want)
			continue
		}
		for _, ours := range []string{"daemon.", "!!", "unmarshal"} {
			if strings.Contains(err.Error(), ours) {
				t.Errorf("%q: the error speaks of this program: %v", tt.file, err)
			}
		}
	}
}

// Whatever the file holds, it is a configuration that can be, or refused.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		"", "listen: 127.0.0.1:1\nlog: warn\noutage_grace: 5s\n", "listn: x\n", "outage_grace: soon\n", "max_inflight: 1e3\n", "log: info\n---\nlog: debug\n",
		"data: &a x\nkeys: *a\n", "<<: {log: debug}\n", "store: redis://h:1/0\nledger: none\n", "outage_grace: [1]\n", "gc_percent: 0x10\nmemory_limit_mb: 0o7\n",
		"activate_policies: yes\n", "data: ~\n", "!!binary aGk=: x\n", "\t", "{", "- a\n", "\xff",
		"public_url: https://h/x\nwebhooks:\n- {url: 'https://h/?a=b', secret_file: s, events: [policy.notify]}\n", "webhooks: []\n", "webhooks: ''\n", "webhooks: |\n  - url: x\n",
		"log: &a info\nwebhooks: [*a]\n", "webhooks: &b [{url: http://localhost/, secret_file: *b}]\n", "webhooks: [[[", "webhooks: {a: b}\n", "webhooks: 7\n",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "writ.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path, noEnv, nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "configuration") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if err := c.Validate(); err != nil || c.Data == "" || c.Keys == "" || c.Inflight < 1 || c.MinLease < 1 || c.Grace < 0 {
			t.Fatalf("%q gave %+v, %v", text, c, err)
		}
		again, err := Load(path, noEnv, nil)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%q gave %+v and then %+v, %v", text, c, again, err)
		}
	})
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
		"webhooks": "[{url: 'https://h/?token=x', secret_file: s1, events: [approval.decided, policy.notify]}, {url: https://h/2, secret_file: /s2}]",
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
	c.Keys, c.Blobs = filepath.Join(c.Data, "keys"), filepath.Join(c.Data, "artifacts")
	c.Webhooks[0].SecretFile, _ = filepath.Abs("s1")
	t.Chdir("/")
	c.file = path
	if got, err := Load(path, noEnv, nil); err != nil || !reflect.DeepEqual(got, c) {
		t.Fatalf("got %+v, want %+v: %v\n%s", got, c, err, text)
	}
	for _, want := range []string{"\ndata: " + c.Data + "\n", "\nlog: info\n", "\n# store: bolt\n", "\n# min_lease_seconds: 10\n", "\n# origin: writ.local\n", "\n# public_url: \"\"\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the sample does not hold %q:\n%s", want, text)
		}
	}
}

func TestUnknownVariablesAreRefused(t *testing.T) {
	known := []string{"WRIT_LISTEN=x", "WRIT_KEY_PASSWORD=x", "WRIT_TOKEN_FILE=", "HOME=/", "WRIT_PORT=tcp://10.0.0.1:8700", "WRIT_SERVICE_HOST=10.0.0.1", "WRIT_GONE="}
	if err := CheckEnv(known); err != nil {
		t.Fatal(err)
	}
	err := CheckEnv(append(known, "WRIT_LISTN=127.0.0.1:1", "WRIT_GRACE=1s"))
	if err == nil || !strings.Contains(err.Error(), "no setting WRIT_GRACE, WRIT_LISTN\n") || !strings.Contains(err.Error(), "WRIT_OUTAGE_GRACE") {
		t.Fatalf("got %v", err)
	}
}
