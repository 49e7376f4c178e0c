package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// What is asked wrongly is said before anything is read or signed.
func TestVerdictUsage(t *testing.T) {
	g := newStandIn(t, func(asked) (int, string) { return 200, `{}` })
	for words, want := range map[string]string{
		"verdict statement --verdict accept":                                            "--task or --run",
		"verdict statement --verdict accept --task tsk_1 --run run_1":                   "--task or --run",
		"verdict statement --task tsk_1":                                                "--verdict is",
		"verdict statement --task tsk_1 --verdict maybe":                                "--verdict is",
		"verdict statement --task tsk_1 --verdict reject":                               "--reason",
		"verdict statement --run run_1 --verdict accept --gate tests=pass":              "--gate goes with",
		"verdict statement --task tsk_1 --verdict accept --gate tests":                  "--gate is",
		"verdict statement --task tsk_1 --verdict accept --gate tests=pass --gate x=ok": "--gate is",
		"verdict sign --task tsk_1 --verdict accept":                                    "--key is required",
		"verdict get": "accepts 1 arg",
	} {
		args := append(strings.Fields(words), g.flags...)
		if _, text, exit := typed(args...); exit != exitUsage || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", words, exit, text)
		}
	}
	if len(g.got) > 0 {
		t.Errorf("the gateway was asked: %v", g.got)
	}
}

// A verdict is taken from the log where that has it, else from evidence, and never if it is
// another one than the receipt names.
func TestVerdictGet(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "verdicts", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	public := read("cosign.pub")
	key, err := receipts.ParsePublicKey(string(public))
	if err != nil {
		t.Fatal(err)
	}
	// of is a verdict there is: what the log has of it, and evidence.
	of := func(name string) (digest, bundle, evidence string) {
		r, err := receipts.OpenVerdict(read(name), key)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(public)
		r.Public = block.Bytes
		r.Inclusion = &writ.Inclusion{Size: 1, Leaf: tlog.Leaf(r, nil)}
		text, err := tlog.Bundle(r)
		if err != nil {
			t.Fatal(err)
		}
		env, err := receipts.Envelope(r)
		if err != nil {
			t.Fatal(err)
		}
		text2, err := json.Marshal(map[string]any{"evidence": map[string]any{"object": map[string]any{"verdict": map[string]any{"envelope": json.RawMessage(env), "key": key}}}})
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(r.Payload)
		return hex.EncodeToString(sum[:]), string(text), string(text2)
	}
	digest, logged, kept := of("cosign-statement.sigstore.json")
	_, loggedOther, keptOther := of("cosign-predicate.sigstore.json")
	const other = "keep both, and tell"
	const id = "rcp_01M89R8776WWQMDZ1SS4766DAD"
	for name, x := range map[string]struct {
		parents, log, evidence string
		proved                 bool
		wrong                  string
	}{
		"logged":                  {string(writ.VerdictID(digest)), `{"included":true,"bundle":` + logged + `}`, `{}`, true, ""},
		"of a version before":     {id, "", kept, false, ""},
		"with another replica":    {string(writ.VerdictID(digest)), "", kept, false, ""},
		"not covered yet":         {string(writ.VerdictID(digest)), `{"bundle":` + logged + `}`, kept, false, ""},
		"another is logged":       {string(writ.VerdictID(digest)), `{"included":true,"bundle":` + loggedOther + `}`, kept, false, other},
		"with the entry of other": {string(writ.VerdictID(digest)), `{"included":true,"bundle":` + strings.Replace(logged, leafIn(t, logged), leafIn(t, loggedOther), 1) + `}`, kept, false, other},
		"another is kept":         {id, "", keptOther, false, other},
	} {
		g := newStandIn(t, func(a asked) (int, string) {
			switch {
			case a.Capability == "receipt.evidence":
				return 200, x.evidence
			case a.Args["receipt_id"] == id:
				return 200, fmt.Sprintf(`{"receipt_id":%q,"statement":{"predicate":{"parents":[%q],"verdict":{"digest":%q,"keyId":%q}}}}`, id, x.parents, digest, key.ID)
			case x.log == "":
				return 404, `{"code":"not_found","detail":"there is no such receipt","hint":"x"}`
			}
			return 200, x.log
		})
		file := filepath.Join(t.TempDir(), "key.pub")
		out, text, exit := typed(append([]string{"verdict", "get", id, "--key-out", file}, g.flags...)...)
		if (exit == 0) != (x.wrong == "") || !strings.Contains(text, x.wrong) || strings.Contains(out, "inclusionProof") != x.proved {
			t.Errorf("%s: %d %s %s", name, exit, out, text)
		}
		if got, err := os.ReadFile(file); exit == 0 && (err != nil || !bytes.Equal(got, public)) {
			t.Errorf("%s: the key is %s, %v", name, got, err)
		}
	}
}

// leafIn is the entry of the log in a bundle.
func leafIn(t *testing.T, bundle string) string {
	t.Helper()
	_, rest, _ := strings.Cut(bundle, `"canonicalizedBody":"`)
	leaf, _, ok := strings.Cut(rest, `"`)
	if !ok {
		t.Fatal("no entry")
	}
	return leaf
}
