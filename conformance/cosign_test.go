package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// cosign is the stock program, built from its own module at the version of the file's name.
func cosign(t *testing.T) string {
	t.Helper()
	path := os.Getenv("COSIGN_PROGRAM")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("COSIGN_PROGRAM: %v; make conformance builds it and says where it is", err)
	}
	return path
}

// Stock cosign finds that a receipt is signed, and in the log, without a network; and
// says no to anything else.
func TestCosignVerifies(t *testing.T) {
	s, program := the(t), cosign(t)
	other := filepath.Join(t.TempDir(), "other")
	if out, err := offline(t, program, "generate-key-pair", "--output-key-prefix", other); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	verify := func(bundle, key, root, kind, digest string) (string, error) {
		return offline(t, program, "verify-blob-attestation", "--key", key, "--bundle", bundle, "--trusted-root", root,
			"--type", kind, "--digest", digest, "--digestAlg", "sha256")
	}
	if out, err := verify(s.bundle, s.key, s.root, transitionType, s.subject); err != nil || !strings.Contains(out, "Verified OK") {
		t.Fatalf("%v: %s", err, out)
	}
	text := read(t, s.bundle)
	b, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	index := `"logIndex":"` + b.VerificationMaterial.TlogEntries[0].LogIndex + `"`
	another := strings.Repeat("0", len(s.subject))
	log := read(t, s.root)
	raw := log[strings.Index(log, `"rawBytes"`):]
	raw = raw[:strings.IndexByte(raw[len(`"rawBytes":`):], ',')+len(`"rawBytes":`)]
	for name, refused := range map[string]func() (string, error){
		"another key":     func() (string, error) { return verify(s.bundle, other+".pub", s.root, transitionType, s.subject) },
		"another subject": func() (string, error) { return verify(s.bundle, s.key, s.root, transitionType, another) },
		"another type":    func() (string, error) { return verify(s.bundle, s.key, s.root, transitionType+"0", s.subject) },
		"another place": func() (string, error) {
			return verify(changed(t, s.bundle, index, `"logIndex":"1"`), s.key, s.root, transitionType, s.subject)
		},
		"no proof": func() (string, error) {
			return verify(changed(t, s.bundle, `"tlogEntries"`, `"tlogEntrie"`), s.key, s.root, transitionType, s.subject)
		},
		"another log": func() (string, error) {
			return verify(s.bundle, s.key, changed(t, s.root, "https://writ.local", "https://writ.remote"), transitionType, s.subject)
		},
		"another key of a log": func() (string, error) {
			return verify(s.bundle, s.key, changed(t, s.root, raw, strings.Replace(raw, "A", "B", 3)), transitionType, s.subject)
		},
		"another payload": func() (string, error) {
			return verify(changed(t, s.bundle, `"payload":"ey`, `"payload":"eX`), s.key, s.root, transitionType, s.subject)
		},
		"a signature of its own": func() (string, error) {
			return verify(changed(t, s.bundle, `"sig":"M`, `"sig":"N`), s.key, s.root, transitionType, s.subject)
		},
	} {
		if out, err := refused(); err == nil || strings.Contains(out, "Verified OK") {
			t.Errorf("%s: accepted: %s", name, out)
		}
	}
}

// The trusted root that cosign makes of the log's key serves as well as ours.
func TestCosignMakesTheTrustedRoot(t *testing.T) {
	s, program := the(t), cosign(t)
	root := filepath.Join(t.TempDir(), "root.json")
	out, err := offline(t, program, "trusted-root", "create", "--rekor", "url=https://writ.local,public-key="+filepath.Join(s.data, "keys", "log.pub")+",start-time=1970-01-01T00:00:00Z,origin=writ.local",
		"--no-default-fulcio", "--no-default-ctfe", "--no-default-tsa", "--out", root)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err = offline(t, program, "verify-blob-attestation", "--key", s.key, "--bundle", s.bundle, "--trusted-root", root, "--type", transitionType, "--digest", s.subject, "--digestAlg", "sha256")
	if err != nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("%v: %s", err, out)
	}
}

// The lines that the README gives auditors say Verified OK as they are printed, with nothing but tar, sh and cosign.
func TestTheLinesOfTheREADME(t *testing.T) {
	s, program := the(t), cosign(t)
	var lines string
	for block := range strings.SplitSeq(read(t, filepath.Join("..", "README.md")), "```") {
		if strings.Contains(block, "/^cosign /") {
			lines = block
		}
	}
	if strings.Count(strings.TrimSpace(lines), "\n") != 2 {
		t.Fatalf("the README has no three lines with cosign: %q", lines)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(bin, "cosign")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.data, filepath.Join(dir, ".writ")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.run(s.token, "export", "--out", filepath.Join(dir, "pack.tar")); err != nil {
		t.Fatal(err)
	}
	script := "set -e; cd " + dir + "; PATH=" + bin + ":$PATH\n" + lines
	if out, err := offline(t, "sh", "-c", script); err != nil || !strings.Contains(out, "Verified OK") {
		t.Fatalf("%v: %s", err, out)
	}
	// In a pack that was changed they do not.
	first, err := filepath.Glob(filepath.Join(dir, "pack", "receipts", "*.json"))
	if err != nil || len(first) == 0 {
		t.Fatal(first, err)
	}
	if err := os.WriteFile(first[0], []byte(strings.Replace(read(t, first[0]), `"sig":"M`, `"sig":"N`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	last := strings.Split(strings.TrimSpace(lines), "\n")[2]
	if out, err := offline(t, "sh", "-c", "set -e; cd "+dir+"; PATH="+bin+":$PATH\n"+last); err == nil {
		t.Errorf("it is accepted: %s", out)
	}
}
