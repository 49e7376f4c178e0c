package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// There is a key for every purpose: nobody else reads the private half, with a password it is
// encrypted, and who made it is told where the public half goes.
func TestKeysForEveryPurpose(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened := receipts.KeyOptions{Password: func() ([]byte, error) { return []byte("open sesame"), nil }}
	for purpose, told := range map[string]string{
		"receipt": "writ key rotate", "log": "log_key: ", "root": "writ key manifest", "verifier": "writ agent register", "witness": "--witness",
	} {
		for _, encrypted := range []bool{false, true} {
			args := []string{"key", "generate", "--purpose", purpose, "--dir", t.TempDir(), "-o", "json"}
			o := receipts.KeyOptions{}
			if encrypted {
				args, o = append(args, "--password-file", password), opened
			}
			if purpose == "witness" {
				args = append(args, "--name", "witness.example.org")
			}
			out, said, exit := typed(args...)
			var pair struct {
				Private, Public string
				Encrypted       bool
				Verifier        string `json:"verifier_key"`
			}
			if err := json.Unmarshal([]byte(out), &pair); err != nil || exit != 0 || pair.Encrypted != encrypted {
				t.Fatalf("%s: %d %s %s %v", purpose, exit, out, said, err)
			}
			info, err := os.Stat(pair.Private)
			text, rerr := os.ReadFile(pair.Private)
			if err != nil || rerr != nil || info.Mode().Perm() != 0o600 || bytes.Contains(text, []byte("ENCRYPTED")) != encrypted {
				t.Errorf("%s: mode %o, %.40s, %v %v", purpose, info.Mode(), text, err, rerr)
			}
			signer, err := receipts.OpenSigner(context.Background(), pair.Private, o)
			if err != nil {
				t.Fatalf("%s: %v", purpose, err)
			}
			public, err := os.ReadFile(pair.Public)
			if err != nil {
				t.Fatal(err)
			}
			if mine, err := receipts.PublicPEM(signer.Public()); err != nil || !bytes.Equal(mine, public) {
				t.Errorf("%s: the halves are not of one key: %v", purpose, err)
			}
			if !strings.Contains(said, told) || strings.Contains(said, "PRIVATE") {
				t.Errorf("%s: it is not said where it goes: %s", purpose, said)
			}
			if _, err := tlog.NewWitnessKey(pair.Verifier); (err == nil) != (purpose == "witness") {
				t.Errorf("%s: verifier key %q: %v", purpose, pair.Verifier, err)
			}
			if purpose == "verifier" {
				if _, err := receipts.LoadVerdictKey(pair.Private, func() ([]byte, error) { return []byte("open sesame"), nil }); err != nil {
					t.Errorf("no verdict can be signed with it: %v", err)
				}
			}
		}
	}
	for words, want := range map[string]string{
		"--purpose witness":                        "--name goes with",
		"--purpose root --name witness.example":    "--name goes with",
		"--purpose witness --name Witness/example": "--name must be",
		"--purpose agent":                          "one of receipt",
	} {
		dir := t.TempDir()
		if _, said, exit := typed(append([]string{"key", "generate", "--dir", dir}, strings.Fields(words)...)...); exit != exitUsage || !strings.Contains(said, want) {
			t.Errorf("%s: %d %s", words, exit, said)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v %v", words, left, err)
		}
	}
}
