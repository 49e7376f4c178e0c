package conformance

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// @sigstore/verify, which shares nothing with cosign, comes to the same.
func TestSigstoreJSVerifies(t *testing.T) {
	s := the(t)
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(bundle, key, root string) (string, error) {
		return offline(t, node, "verify.mjs", bundle, key, root)
	}
	if out, err := verify(s.bundle, s.key, s.root); err != nil || strings.TrimSpace(out) != "verified" {
		t.Fatalf("%v: %s", err, out)
	}
	for name, refused := range map[string]func() (string, error){
		"another payload": func() (string, error) {
			return verify(changed(t, s.bundle, `"payload":"ey`, `"payload":"eX`), s.key, s.root)
		},
		"another signature": func() (string, error) { return verify(changed(t, s.bundle, `"sig":"M`, `"sig":"N`), s.key, s.root) },
		"another key":       func() (string, error) { return verify(s.bundle, filepath.Join(s.data, "keys", "log.pub"), s.root) },
		"another neighbour": func() (string, error) {
			first := read(t, s.bundle)
			first = first[strings.Index(first, `"hashes":["`):][:len(`"hashes":["`)+8]
			return verify(changed(t, s.bundle, first, first[:len(first)-8]+"AAAAAAAA"), s.key, s.root)
		},
		"no proof": func() (string, error) {
			return verify(changed(t, s.bundle, `"inclusionProof"`, `"inclusionProo"`), s.key, s.root)
		},
	} {
		if out, err := refused(); err == nil || strings.TrimSpace(out) == "verified" {
			t.Errorf("%s: accepted: %s", name, out)
		}
	}
}
