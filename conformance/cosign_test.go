package conformance

import (
	"os"
	"os/exec"
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

// The lines that the README gives auditors say Verified OK as they are printed, with nothing but tar, sh, sed, base64 and
// cosign; and fail where one receipt is changed, whichever, or is in another log than the one whose key was kept.
func TestTheLinesOfTheREADME(t *testing.T) {
	s, program := the(t), cosign(t)
	var keep, lines string
	for block := range strings.SplitSeq(read(t, filepath.Join("..", "README.md")), "```\n") {
		switch {
		case strings.Contains(block, "cosign verify-blob-attestation "):
			lines = block
		case strings.Contains(block, "bin/writ log trusted-root "):
			keep = block
		}
	}
	if keep == "" || strings.Count(lines, "\n") != 3 {
		t.Fatalf("the README has no line that keeps keys and three with cosign: %q, %q", keep, lines)
	}
	dir := t.TempDir()
	for from, to := range map[string]string{program: "cosign", s.writ: "writ", s.data: "../.writ"} {
		if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, filepath.Join(dir, "bin", to)); err != nil {
			t.Fatal(err)
		}
	}
	at := "set -e; cd " + dir + "; PATH=" + dir + "/bin:$PATH\n"
	if out, err := exec.Command("sh", "-c", at+keep).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// check runs them on a pack, after a change, in a shell as who copies them has it.
	check := func(pack string, change func(dir string)) (string, error) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, "pack")); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			in := t.TempDir()
			if out, err := exec.Command("tar", "-xf", pack, "-C", in).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			change(in)
			pack = filepath.Join(t.TempDir(), "changed.tar")
			if out, err := exec.Command("tar", "--format=ustar", "-cf", pack, "-C", in, ".").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "pack.tar"), []byte(read(t, pack)), 0o600); err != nil {
			t.Fatal(err)
		}
		return offline(t, "sh", "-c", strings.Replace(at, "set -e; ", "", 1)+lines)
	}
	pack := filepath.Join(t.TempDir(), "two.tar")
	if _, err := s.run(s.token, "export", "--first", "100", "--last", "101", "--out", pack); err != nil {
		t.Fatal(err)
	}
	if out, err := check(pack, nil); err != nil || strings.Count(out, "Verified OK") != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	for name, change := range map[string]func(dir string){
		"the first is changed":  func(dir string) { tamper(t, dir, 0) },
		"the second is changed": func(dir string) { tamper(t, dir, 1) },
		"there are none": func(dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "receipts")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if out, err := check(pack, change); err == nil {
			t.Errorf("%s: accepted: %s", name, out)
		}
	}
	if out, err := check(anotherLog(t, s), nil); err == nil {
		t.Errorf("another log, with its own root: accepted: %s", out)
	}
	// Which is sound but for its key.
	own := strings.ReplaceAll(at+lines, "--trusted-root ", "--trusted-root pack/")
	if out, err := offline(t, "sh", "-c", strings.Replace(own, "mkdir pack && ", "", 1)); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	// What a pack says in its README is not run.
	ran := filepath.Join(t.TempDir(), "ran")
	if out, err := check(pack, func(dir string) {
		text := "cosign version\ntouch " + ran + "\nsha256\n"
		if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("they run what the pack says")
	}
}

// tamper changes the signature of one receipt of a pack.
func tamper(t *testing.T, dir string, n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "receipts", "*.json"))
	if err != nil || n >= len(files) {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[n], []byte(strings.Replace(read(t, files[n]), `"sig":"M`, `"sig":"N`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// anotherLog is a pack of receipts that the site's receipt key signed, in a log with a key of its own: what
// whoever has that key can show to somebody who takes the log's from the pack.
func anotherLog(t *testing.T, s site) (pack string) {
	t.Helper()
	other := site{dir: t.TempDir(), writ: s.writ}
	other.data = filepath.Join(other.dir, "made")
	if err := other.serve(); err != nil { // which makes the other keys
		t.Fatal(err)
	}
	other.stop()
	keys, err := filepath.Glob(filepath.Join(other.data, "keys", "*"))
	if err != nil {
		t.Fatal(err)
	}
	other.data, other.url = filepath.Join(other.dir, "state"), ""
	if err := os.MkdirAll(filepath.Join(other.data, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range keys {
		name := filepath.Base(path)
		if strings.HasPrefix(name, "receipt.") {
			path = filepath.Join(s.data, "keys", name)
		}
		if err := os.WriteFile(filepath.Join(other.data, "keys", name), []byte(read(t, path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.serve(); err != nil {
		t.Fatal(err)
	}
	defer other.stop()
	var receipt string
	for range 2 {
		var err error
		if receipt, err = create(other.url, strings.TrimSpace(read(t, other.token))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.run(other.token, "receipt", "bundle", receipt, "--out", filepath.Join(other.dir, "in")); err != nil { // the log has it by then
		t.Fatal(err)
	}
	pack = filepath.Join(other.dir, "pack.tar")
	if _, err := other.run(other.token, "export", "--out", pack); err != nil {
		t.Fatal(err)
	}
	return pack
}
