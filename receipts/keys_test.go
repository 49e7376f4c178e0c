package receipts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/writ-gateway/writ"
)

func password(pw string) KeyOptions {
	return KeyOptions{Password: func() ([]byte, error) { return []byte(pw), nil }}
}

func TestLoadOrCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "keys")
	first, err := LoadOrCreate(dir, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !first.Created || first.Origin != DefaultOrigin || first.Evidence == [32]byte{} {
		t.Errorf("created %+v", first)
	}
	again, err := LoadOrCreate(dir, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Created || !again.Private.Equal(first.Private) || again.Evidence != first.Evidence || again.KeyID != first.KeyID {
		t.Errorf("loaded %+v, created %+v", again, first)
	}
	for name, mode := range map[string]fs.FileMode{FileKey: 0o600, FileEvidence: 0o600, FilePublic: 0o644, FileOrigin: 0o644, ".": 0o700 | fs.ModeDir} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 4 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	if _, err := LoadOrCreate(dir, KeyOptions{Origin: DefaultOrigin}); err != nil {
		t.Errorf("the same origin: %v", err)
	}
	if k, err := LoadOrCreate(t.TempDir(), KeyOptions{Origin: "receipts.example.org"}); err != nil || k.Origin != "receipts.example.org" {
		t.Errorf("own origin: %+v, %v", k, err)
	}
	if _, err := first.Sealer(); err != nil {
		t.Error(err)
	}
}

// A start that crashed after any of the files goes on with what is there.
func TestCreationResumes(t *testing.T) {
	whole := t.TempDir()
	want, err := LoadOrCreate(whole, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	order := []string{FileEvidence, FileOrigin, FileKey, FilePublic}
	for n := range order {
		dir := t.TempDir()
		for _, name := range order[:n] {
			copyFile(t, filepath.Join(whole, name), filepath.Join(dir, name))
		}
		k, err := LoadOrCreate(dir, KeyOptions{})
		if err != nil {
			t.Fatalf("after %d files: %v", n, err)
		}
		if (k.Evidence == want.Evidence) != (n > 0) || k.Private.Equal(want.Private) != (n > 2) {
			t.Errorf("after %d files: kept the wrong ones", n)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, info.Mode()); err != nil {
		t.Fatal(err)
	}
}

func TestCreationRaces(t *testing.T) {
	dir := t.TempDir()
	keys := make([]*Keys, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadOrCreate(dir, KeyOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k == nil || k.KeyID != keys[0].KeyID || k.Evidence != keys[0].Evidence {
			t.Errorf("two starts at once hold different keys: %+v", k)
		}
	}
}

func TestEncryptedKey(t *testing.T) {
	dir := t.TempDir()
	k, err := LoadOrCreate(dir, password("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, FileKey))
	if err != nil || !bytes.Contains(text, []byte("ENCRYPTED SIGSTORE PRIVATE KEY")) {
		t.Errorf("%v: the key stands in clear:\n%s", err, text)
	}
	if again, err := LoadOrCreate(dir, password("correct horse")); err != nil || !again.Private.Equal(k.Private) {
		t.Errorf("right password: %v", err)
	}
	asks := KeyOptions{Password: func() ([]byte, error) { return nil, errors.New("no terminal") }}
	for name, o := range map[string]KeyOptions{"wrong": password("battery staple"), "empty": password(""), "none": {}, "fails": asks} {
		if _, err := LoadOrCreate(dir, o); !names(err, FileKey) || strings.Contains(err.Error(), "battery") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]KeyOptions{"empty": password(""), "fails": asks} {
		fresh := t.TempDir()
		if _, err := LoadOrCreate(fresh, o); !names(err, FileKey) {
			t.Errorf("made with a password that %s: %v", name, err)
		}
	}
}

// names says whether err is a refusal that names the file and what to do.
func names(err error, file string) bool {
	e, ok := errors.AsType[*writ.Error](err)
	return ok && e.Code == writ.CodeNotReady && strings.Contains(e.Msg, file) && e.Hint != ""
}

func TestLoadRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrongCurve, err := cryptoutils.MarshalPrivateKeyToPEM(p384)
	if err != nil {
		t.Fatal(err)
	}
	put := func(file string, text []byte) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, file), text, 0o600) }
	}
	all := []string{FileKey, FilePublic, FileEvidence, FileOrigin}
	type spoil struct {
		name, file string
		do         func(dir string) error
	}
	cases := []spoil{
		{"wrong curve", FileKey, put(FileKey, wrongCurve)},
		{"two keys", FileKey, func(dir string) error {
			text, err := os.ReadFile(filepath.Join(dir, FileKey))
			return errors.Join(err, put(FileKey, append(text, text...))(dir))
		}},
		{"not a private key", FileKey, put(FileKey, testPublic(t))},
		{"pub of another key", FilePublic, put(FilePublic, testPublic(t))},
		{"short", FileEvidence, put(FileEvidence, []byte("00ff\n"))},
		{"not hex", FileEvidence, put(FileEvidence, bytes.Repeat([]byte("zz"), 32))},
		{"a path", FileOrigin, put(FileOrigin, []byte("https://receipts.example.org/x\n"))},
	}
	for _, file := range all {
		at := func(dir string) string { return filepath.Join(dir, file) }
		cases = append(
			cases,
			spoil{"empty", file, put(file, nil)},
			spoil{"garbage", file, put(file, []byte("\x00\x01 garbage"))},
			spoil{"huge", file, put(file, make([]byte, maxKeyFile+1))},
			spoil{"a directory", file, func(dir string) error { return errors.Join(os.Remove(at(dir)), os.Mkdir(at(dir), 0o700)) }},
			spoil{"a pipe", file, func(dir string) error { return errors.Join(os.Remove(at(dir)), syscall.Mkfifo(at(dir), 0o600)) }},
			spoil{"a dead link", file, func(dir string) error { return errors.Join(os.Remove(at(dir)), os.Symlink("nowhere", at(dir))) }},
		)
		if file != FilePublic { // without it the directory was not initialised
			cases = append(cases, spoil{"missing", file, func(dir string) error { return os.Remove(at(dir)) }})
		}
		if file == FileKey || file == FileEvidence {
			for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644} {
				cases = append(cases, spoil{mode.String(), file, func(dir string) error { return os.Chmod(at(dir), mode) }})
			}
		}
	}
	for _, c := range cases {
		dir := t.TempDir()
		if _, err := LoadOrCreate(dir, KeyOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.do(dir); err != nil {
			t.Fatalf("%s %s: %v", c.file, c.name, err)
		}
		before := tree(t, dir)
		if _, err := LoadOrCreate(dir, KeyOptions{}); !names(err, c.file) {
			t.Errorf("%s %s: %v", c.file, c.name, err)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("%s %s: the refused directory was changed\nbefore %s\nafter  %s", c.file, c.name, before, after)
		}
	}
	dir := t.TempDir()
	if _, err := LoadOrCreate(dir, KeyOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir, KeyOptions{Origin: "other.example.org"}); !names(err, FileOrigin) {
		t.Errorf("another origin: %v", err)
	}
	if _, err := LoadOrCreate(dir, KeyOptions{Origin: "Not A Host"}); err == nil {
		t.Error("an origin that is no host name")
	}
	if _, err := LoadOrCreate(filepath.Join(dir, FileKey), KeyOptions{}); err == nil {
		t.Error("a file in place of the directory")
	}
}

// A file that may not be read is refused by name. Root reads everything, so it
// runs the test again as nobody.
func TestUnreadableKeys(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	for _, file := range []string{FileKey, FilePublic, FileEvidence, FileOrigin} {
		dir := t.TempDir()
		if _, err := LoadOrCreate(dir, KeyOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, file), 0); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		if _, err := LoadOrCreate(dir, KeyOptions{}); !names(err, file) || !strings.Contains(err.Error(), "cannot be opened") {
			t.Errorf("%s: %v", file, err)
		} else {
			fmt.Println("refused:", file)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("%s: the refused directory was changed\nbefore %s\nafter  %s", file, before, after)
		}
	}
}

// asNobody runs the test again, from a folder that others may read, as a user
// who may read nothing else.
func asNobody(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-nobody-") // t.TempDir is for its owner alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tmp, bin := filepath.Join(dir, "tmp"), filepath.Join(dir, "receipts.test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, bin)
	const uid = 65534
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(bin, 0o755), os.Mkdir(tmp, 0o700), os.Chown(tmp, uid, uid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-test.run", "^"+t.Name()+"$")
	cmd.Dir, cmd.Env = tmp, append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "refused: ") != 4 {
		t.Errorf("as user %d: %v\n%s", uid, err, out)
	}
}

// tree names the files of a directory with their modes and sizes.
func tree(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(info.Mode().String() + " " + f.Name() + "\n")
	}
	return out.String()
}

func TestNewSealerRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (*Sealer, error){
		"no key": func() (*Sealer, error) { return NewSealer(nil, "writ.local", [32]byte{}) },
		"curve":  func() (*Sealer, error) { return NewSealer(p384, "writ.local", [32]byte{}) },
		"origin": func() (*Sealer, error) { return NewSealer(rfcKey(t), "writ.local/path", [32]byte{}) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
