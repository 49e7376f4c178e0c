package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A verifier closes a run with a verdict that stock cosign signed, with a key that cosign
// made and only the verifier has; by its token alone it cannot.
func TestCosignSignsAVerdict(t *testing.T) {
	s, program := the(t), cosign(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if out, err := offline(t, program, "generate-key-pair", "--output-key-prefix", file("checker")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	keys := `["` + strings.ReplaceAll(strings.TrimSpace(read(t, file("checker.pub"))), "\n", `\n`) + `\n"]`
	s.must(t, s.token, "agent", "register", "checker", "--archetypes", "verifier", "--domain", "web", "--tools", "[]", "--write-scope", "[]", "--keys", keys)
	s.must(t, s.token, "agent", "activate", "checker")
	open := func(token string, args ...string) {
		t.Helper()
		id := s.must(t, s.token, append([]string{"session", "open", "--token-out", token}, args...)...)["session_id"].(string)
		s.must(t, token, "session", "start", id)
	}
	open(file("checker.token"), "--principal", "checker", "--kind", "agent", "--role", "verifier", "--agent-id", "checker", "--controller", "vera")
	open(file("planner.token"), "--principal", "planner", "--kind", "service", "--role", "orchestrator")
	run := s.must(t, file("planner.token"), "run", "create", "--close-policy", "verifier", "--budget", `{"steps": 10}`)["run_id"].(string)
	s.must(t, file("planner.token"), "run", "seal", run)
	receipt := s.must(t, file("checker.token"), "run", "get", run)["receipt"].(string)
	plain := []string{"run", "close", run, "--verdict", "accept", "--receipt-id", receipt}
	if out, err := s.run(file("checker.token"), plain...); err == nil || !strings.Contains(err.Error(), "verdict_refused") {
		t.Fatalf("by its token alone: %v %s", err, out)
	}
	if _, err := s.run(file("checker.token"), "verdict", "statement", "--run", run, "--verdict", "accept", "--out", file("statement.json")); err != nil {
		t.Fatal(err)
	}
	out, err := offline(t, program, "attest-blob", "--yes", "--key", file("checker.key"), "--statement", file("statement.json"),
		"--use-signing-config=false", "--tlog-upload=false", "--bundle", file("verdict.sigstore.json"))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	closed := s.must(t, file("checker.token"), append(plain, "--verdict-file", file("verdict.sigstore.json"))...)
	if closed["state"] != "done" {
		t.Errorf("got %v", closed)
	}
}

// A pair of keys that cosign made serves as receipt key: cosign verifies what it signs.
func TestCosignMakesTheReceiptKey(t *testing.T) {
	s, program := the(t), cosign(t)
	keys := filepath.Join(s.data, "keys")
	pair := filepath.Join(keys, "receipt-cosign")
	if out, err := offline(t, program, "generate-key-pair", "--output-key-prefix", pair); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(pair+".key", 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.run(s.token, "key", "rotate", "--keys", keys, "--password-file", secret(t)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	token := strings.TrimSpace(read(t, s.token))
	receipt, err := create(s.url, token)
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "receipt.sigstore.json")
	if _, err := s.run(s.token, "receipt", "bundle", receipt, "--out", bundle); err != nil {
		t.Fatal(err)
	}
	st, err := statementOf([]byte(read(t, bundle)))
	if err != nil {
		t.Fatal(err)
	}
	verify := func(key string) (string, error) {
		return offline(t, program, "verify-blob-attestation", "--key", key, "--bundle", bundle, "--trusted-root", s.root,
			"--type", transitionType, "--digest", st.Subject[0].Digest["sha256"], "--digestAlg", "sha256")
	}
	if out, err := verify(pair + ".pub"); err != nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := verify(s.key); err == nil {
		t.Errorf("the key before it signed: %s", out)
	}
}

func secret(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
