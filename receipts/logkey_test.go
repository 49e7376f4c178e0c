package receipts

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"github.com/writ-gateway/writ"
)

// The log's key is made once, and never in the place of one that is gone.
func TestTheLogsKey(t *testing.T) {
	for name, o := range map[string]KeyOptions{"in clear": {}, "encrypted": password("p")} {
		dir := t.TempDir()
		first, err := LoadLogKey(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := LoadLogKey(dir, o); err != nil || !again.Equal(first) {
			t.Errorf("%s: %v", name, err)
		}
		sig, err := SignCheckpoint(first, []byte("x"))
		if err != nil || !ed25519.Verify(first.Public().(ed25519.PublicKey), []byte("x"), sig) {
			t.Errorf("%s: it does not sign: %v", name, err)
		}
		if info, err := os.Stat(filepath.Join(dir, FileLogKey)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		refused := func(why string, o KeyOptions) {
			t.Helper()
			if _, err := LoadLogKey(dir, o); writ.CodeOf(err) != writ.CodeNotReady {
				t.Errorf("%s, %s: %v", name, why, err)
			}
		}
		if name == "encrypted" {
			refused("without a password", KeyOptions{})
			refused("another password", password("q"))
		}
		if err := os.Remove(filepath.Join(dir, FileLogPublic)); err != nil {
			t.Fatal(err)
		}
		if again, err := LoadLogKey(dir, o); err != nil || !again.Equal(first) { // a crash before it was written
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Rename(filepath.Join(dir, FileLogKey), filepath.Join(dir, "kept")); err != nil {
			t.Fatal(err)
		}
		refused("the private key is gone", o)
		other := t.TempDir()
		if _, err := LoadLogKey(other, o); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(other, FileLogKey), filepath.Join(dir, FileLogKey)); err != nil {
			t.Fatal(err)
		}
		refused("of another log", o)
		ecdsa, err := (&keyDir{}).generate(writ.KeyReceipt)()
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, FileLogKey), ecdsa, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		refused("no Ed25519", o)
	}
}
