package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// Two checkpoints of one size need no proof, and prove it where the log's key signed two logs. What is no checkpoint, or
// has no hashes, accuses nobody.
func TestCheckpointsOfOneSize(t *testing.T) {
	private, key, err := note.GenerateKey(rand.Reader, "log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	signed := func(name string, size int, root string) string {
		sum := sha256.Sum256([]byte(root))
		text, err := note.Sign(&note.Note{Text: fmt.Sprintf("log.example.org\n%d\n%s\n", size, base64.StdEncoding.EncodeToString(sum[:]))}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return file(name, string(text))
	}
	empty := signed("empty", 0, "")
	one, another, larger := signed("one", 62, "one"), signed("another", 62, "another"), signed("larger", 63, "one")
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct {
		old, now, proof string
		code            int
		says            string
	}{
		"the same":             {one, one, "", 0, "ok"},
		"two logs":             {one, another, "", 1, "signed two logs"},
		"two logs, and hashes": {one, another, file("hashes", hash+"\n"), 1, "signed two logs"},
		"the empty one":        {empty, larger, "", 0, "ok"},
		"the same, no file":    {one, one, filepath.Join(dir, "nowhere"), 0, "no such file"},
		"no proof":             {one, larger, "", 3, "there is no proof"},
		"no hashes":            {one, larger, file("none", ""), 3, "there is no proof"},
		"other hashes":         {one, larger, file("json", `{"consistency":["`+hash+`"]}`), 1, "does not begin"},
		"a key for hashes":     {one, larger, file("key.pub", "-----BEGIN PUBLIC KEY-----\n"), 0, "holds no hashes"},
		"a key for the old":    {file("log.vkey", key+"\n"), larger, "", 0, "is no checkpoint"},
		"a key for the new":    {one, file("new.vkey", key+"\n"), "", 0, "is no checkpoint"},
		"an empty directory":   {one, t.TempDir(), "", 0, "has no checkpoint"},
	} {
		v, code, err := grew(c.old, c.now, key, c.proof)
		if said := fmt.Sprint(v.Verdict, " ", v.Reason, " ", err); code != c.code || !strings.Contains(said, c.says) || (err == nil) == (v.Verdict == "") {
			t.Errorf("%s: got %d, %s", name, code, said)
		}
	}
}
