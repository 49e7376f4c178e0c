package jail

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLinksOfASystemProgram(t *testing.T) {
	program, err := filepath.EvalSymlinks("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	got, err := linksOf(program)
	if err != nil || !strings.Contains(got.loader, "ld") || len(got.libraries) == 0 {
		t.Errorf("it is linked with %+v, %v", got, err)
	}
	for _, lib := range got.libraries {
		if !underSystem(lib) {
			t.Errorf("%s is not the system's", lib)
		}
	}
}

func TestLinksOfWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"script": "#!/bin/sh\n", "empty": "", "cut": "\x7fELF\x02\x01\x01"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if got, err := linksOf(path); err != nil || got.loader != "" || len(got.libraries) > 0 {
			t.Errorf("%s is linked with %+v, %v", name, got, err)
		}
	}
	if _, err := linksOf(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}

// A program may say that any file is its library, or its loader. Only those of the system are believed: the
// gateway can read more than the agent may.
func TestLibrariesOfOthersAreNotShown(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret.so")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{secret, "/etc/passwd", "/usr/../etc/passwd", "/lib/../etc/passwd"} {
		if got := ofSystem(name); got != "" {
			t.Errorf("%s is shown as %s", name, got)
		}
	}
	for _, name := range []string{"../../etc/passwd", "passwd", secret} {
		if got := findLibrary(name); got != "" {
			t.Errorf("%s is found at %s", name, got)
		}
	}
}
