package receipts

import (
	"context"
	"crypto/ecdsa"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// service builds the key management service of these tests and puts it on the PATH.
func service(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "sigstore-kms-testkms"), "./testdata/kmsplugin").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func generated(t *testing.T, purpose writ.KeyPurpose, password []byte) (path string, g Generated) {
	t.Helper()
	g, err := Generate(purpose, password)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), string(purpose)+".key")
	if err := Write(path, g.Private, true); err != nil {
		t.Fatal(err)
	}
	return path, g
}

// A root and the log's key can be with a key management service: what they sign verifies
// as if they lay in a file, and a service that signs something else is not believed.
func TestKeysOfAService(t *testing.T) {
	service(t)
	s := life(t)
	payload, err := Manifest(s.ring(), "writ.local", "default")
	if err != nil {
		t.Fatal(err)
	}
	for name, purpose := range map[string]writ.KeyPurpose{"Ed25519": writ.KeyRoot, "P-256": writ.KeyReceipt} {
		path, g := generated(t, purpose, nil)
		root, err := OpenSigner(t.Context(), "testkms://"+path, KeyOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		env, err := SignManifest(payload, root)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		o, err := openEnvelope(env)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyAny(g.Public, o); err != nil || o.keyID != g.KeyID {
			t.Errorf("%s: %v", name, err)
		}
		t.Setenv("LIE", "1")
		if _, err := SignManifest(payload, root); err == nil || !strings.Contains(err.Error(), "something else") {
			t.Errorf("%s: a lie is believed: %v", name, err)
		}
		t.Setenv("LIE", "")
	}

	// The log's: its public half is kept, and another key in its place refused.
	dir := t.TempDir()
	path, _ := generated(t, writ.KeyLog, nil)
	key, err := OpenLogKey(t.Context(), dir, "testkms://"+path, KeyOptions{}, false)
	if err == nil {
		err = KeepLogKey(dir, key)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SignCheckpoint(key, []byte("a checkpoint\n")); err != nil {
		t.Error(err)
	}
	if _, err := OpenLogKey(t.Context(), dir, "testkms://"+path, KeyOptions{}, true); err != nil {
		t.Errorf("again: %v", err)
	}
	other, _ := generated(t, writ.KeyLog, nil)
	wrong, _ := generated(t, writ.KeyReceipt, nil)
	for name, ref := range map[string]string{
		"another key": "testkms://" + other, "a file instead": other, "a P-256 key": "testkms://" + wrong,
		"no such key": "testkms:///nowhere", "no such service": "nokms://key",
	} {
		if _, err := OpenLogKey(t.Context(), dir, ref, KeyOptions{}, true); writ.CodeOf(err) != writ.CodeNotReady || writ.AsError("", err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReferences(t *testing.T) {
	for s, want := range map[string]bool{"awskms://alias/x": true, "a://b": true, "log.key": false, "/etc/keys/log.key": false, "://x": false, "a:b": false, "a://": false} {
		if IsReference(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
	if _, err := OpenRemote(context.Background(), "log.key"); err == nil {
		t.Error("a file is taken for a reference")
	}
}

// Keys that came later lie beside the first, encrypted or not, made here or by cosign; the
// one in force is used, and the first may go.
func TestLaterKeys(t *testing.T) {
	for name, password := range map[string][]byte{"in clear": nil, "encrypted": []byte("secret")} {
		dir := filepath.Join(t.TempDir(), "keys [1] *") // a name is no pattern
		o := KeyOptions{}
		if password != nil {
			o.Password = func() ([]byte, error) { return password, nil }
		}
		first, err := LoadOrCreate(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		g, err := Generate(writ.KeyReceipt, password)
		if err != nil {
			t.Fatal(err)
		}
		if err := Keep(dir, g); err != nil {
			t.Fatal(err)
		}
		if err := Keep(dir, g); err != nil {
			t.Errorf("%s: kept again: %v", name, err)
		}
		private, public := FilesOf(g.SPKI)
		if info, err := os.Stat(filepath.Join(dir, private)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
		if encrypted := strings.Contains(string(g.Private), "ENCRYPTED"); encrypted != (password != nil) {
			t.Errorf("%s: encrypted is %v", name, encrypted)
		}
		k, err := LoadOrCreate(dir, o)
		if err != nil || k.KeyID != first.KeyID || len(k.Later) != 1 {
			t.Fatalf("%s: %+v, %v", name, k, err)
		}
		sealer, err := k.Sealer()
		if err != nil || !sealer.Holds(first.KeyID) || !sealer.Holds(g.KeyID) || sealer.KeyID() != first.KeyID {
			t.Fatalf("%s: %v", name, err)
		}
		o.InForce = g.KeyID
		if k, err = LoadOrCreate(dir, o); err != nil || k.KeyID != g.KeyID || len(k.Later) != 1 {
			t.Fatalf("%s: %+v, %v", name, k, err)
		}
		halves, err := PublicKeys(dir)
		if err != nil || len(halves) != 2 {
			t.Errorf("%s: %d public halves, %v", name, len(halves), err)
		}
		if err := os.Remove(filepath.Join(dir, FileKey)); err != nil {
			t.Fatal(err)
		}
		if k, err = LoadOrCreate(dir, o); err != nil || k.KeyID != g.KeyID || len(k.Later) != 0 {
			t.Errorf("%s: without the first: %+v, %v", name, k, err)
		}
		for _, inForce := range []string{"", first.KeyID, "SHA256:" + strings.Repeat("x", 43)} {
			o.InForce = inForce
			if _, err := LoadOrCreate(dir, o); writ.CodeOf(err) != writ.CodeNotReady {
				t.Errorf("%s: without the first, %q in force: %v", name, inForce, err)
			}
		}
		o.InForce = g.KeyID
		if err := os.Chmod(filepath.Join(dir, private), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrCreate(dir, o); err == nil || !strings.Contains(err.Error(), private) {
			t.Errorf("%s: open to others: %v", name, err)
		}
		if err := os.Chmod(filepath.Join(dir, private), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, public), []byte("half"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := PublicKeys(dir); err == nil {
			t.Errorf("%s: a damaged public half is taken", name)
		}
	}
}

// A key signs as of a gate, and an older gate changes nothing.
func TestUseGoesForwardOnly(t *testing.T) {
	s := testSealer(t)
	old := s.KeyID()
	next := numberedKey(t, 1)
	id, err := s.Hold(next)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Use(old, 3) || s.KeyID() != old || !s.Use(id, 5) || s.KeyID() != id || !s.Use(old, 4) || s.KeyID() != id {
		t.Errorf("it signs with %s", s.KeyID())
	}
	if s.Use("SHA256:other", 6) || s.KeyID() != id {
		t.Error("a key that is not held is used")
	}
	if s.Public().Equal(&next.PublicKey) == false || s.PublicOf(old) == nil || s.PublicOf("SHA256:other") != nil {
		t.Error("the public halves are mixed up")
	}
	if _, err := s.Hold((*ecdsa.PrivateKey)(nil)); err == nil {
		t.Error("no key is held")
	}
}
