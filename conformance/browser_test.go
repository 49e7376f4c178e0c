package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The one page an auditor saves comes to the same in a browser, from a file, without a network.
func TestThePageInABrowser(t *testing.T) {
	s := the(t)
	program := os.Getenv("CHROMIUM_PROGRAM")
	if program == "" {
		t.Fatal("CHROMIUM_PROGRAM names no browser: make conformance finds or installs one")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pack, tampered, short := filepath.Join(dir, "pack.tar"), filepath.Join(dir, "tampered.tar"), filepath.Join(dir, "short.tar")
	if _, err := s.run(s.token, "export", "--out", pack); err != nil {
		t.Fatal(err)
	}
	whole := read(t, pack)
	other := strings.Replace(whole, `"payload":"ey`, `"payload":"eX`, 1)
	if other == whole {
		t.Fatal("there is nothing to change")
	}
	for name, text := range map[string]string{tampered: other, short: whole[:len(whole)/2]} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(node, "browser.mjs", program, filepath.Join("..", "verify", "js", "verify.html"), s.logKey, s.key, pack, tampered, short).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, want := range []string{"ok", "tampered", "malformed"} {
		var said struct {
			Verdict string
			Shown   []string
			Errors  []string
		}
		if i >= len(lines) || json.Unmarshal([]byte(lines[i]), &said) != nil {
			t.Fatalf("it says %s", out)
		}
		if said.Verdict != want || len(said.Shown) < 2 || len(said.Errors) > 0 {
			t.Errorf("pack %d: %+v, want %s", i, said, want)
		}
	}
}
