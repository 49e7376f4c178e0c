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
		load := func(o KeyOptions, published bool) (ed25519.PrivateKey, error) {
			key, err := OpenLogKey(t.Context(), dir, "", o, published)
			if err != nil {
				return nil, err
			}
			return key.(ed25519.PrivateKey), nil
		}
		if _, err := load(o, true); writ.CodeOf(err) != writ.CodeNotReady {
			t.Errorf("%s: a key was made for a log there is: %v", name, err)
		}
		first, err := load(o, false)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := load(o, false); err != nil || !again.Equal(first) { // a crash before its public half was kept
			t.Errorf("%s: %v", name, err)
		}
		if err := KeepLogKey(dir, first); err != nil {
			t.Fatal(err)
		}
		if again, err := load(o, true); err != nil || !again.Equal(first) {
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
			if _, err := load(o, false); writ.CodeOf(err) != writ.CodeNotReady {
				t.Errorf("%s, %s: %v", name, why, err)
			}
		}
		if name == "encrypted" {
			refused("without a password", KeyOptions{})
			refused("another password", password("q"))
		}
		if err := os.Rename(filepath.Join(dir, FileLogKey), filepath.Join(dir, "kept")); err != nil {
			t.Fatal(err)
		}
		refused("the private key is gone", o)
		other := t.TempDir()
		stranger, err := OpenLogKey(t.Context(), other, "", o, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := KeepLogKey(dir, stranger); writ.CodeOf(err) != writ.CodeNotReady {
			t.Errorf("%s: another key is kept: %v", name, err)
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
