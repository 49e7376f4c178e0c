package conformance

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A verifier closes a run with a verdict that stock cosign signed, with a key that cosign
// made and only the verifier has; by its token alone it cannot. The log has that verdict, as
// cosign alone shows.
func TestCosignSignsAVerdict(t *testing.T) {
	s, program := the(t), cosign(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if out, err := offline(t, program, "generate-key-pair", "--output-key-prefix", file("checker")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	closesSigned(t, s, program, dir, "checker", func(statement, bundle string) (string, error) {
		return offline(t, program, "attest-blob", "--yes", "--key", file("checker.key"), "--statement", statement,
			"--use-signing-config=false", "--tlog-upload=false", "--bundle", bundle)
	})
}

// The same with a key of the other kind, by writ.
func TestCosignFindsAVerdictOfEd25519(t *testing.T) {
	s, program := the(t), cosign(t)
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func() ([]byte, error){
		"PUBLIC KEY":  func() ([]byte, error) { return x509.MarshalPKIXPublicKey(public) },
		"PRIVATE KEY": func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(private) },
	} {
		der, err := write()
		if err != nil {
			t.Fatal(err)
		}
		file := map[string]string{"PUBLIC KEY": "second.pub", "PRIVATE KEY": "second.key"}[name]
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	closesSigned(t, s, program, dir, "second", nil)
}

// closesSigned closes a run by a verdict signed with the key of an agent, by sign or by writ, and
// has cosign find it in the log.
func closesSigned(t *testing.T, s site, program, dir, agent string, sign func(statement, bundle string) (string, error)) {
	t.Helper()
	file := func(name string) string { return filepath.Join(dir, name) }
	keys := `["` + strings.ReplaceAll(strings.TrimSpace(read(t, file(agent+".pub"))), "\n", `\n`) + `\n"]`
	s.must(t, s.token, "agent", "register", agent, "--archetypes", "verifier", "--domain", "web", "--tools", "[]", "--write-scope", "[]", "--keys", keys)
	s.must(t, s.token, "agent", "activate", agent)
	open := func(token string, args ...string) {
		t.Helper()
		id := s.must(t, s.token, append([]string{"session", "open", "--token-out", token}, args...)...)["session_id"].(string)
		s.must(t, token, "session", "start", id)
	}
	open(file("checker.token"), "--principal", agent, "--kind", "agent", "--role", "verifier", "--agent-id", agent, "--controller", "vera")
	open(file("planner.token"), "--principal", "planner", "--kind", "service", "--role", "orchestrator")
	run := s.must(t, file("planner.token"), "run", "create", "--close-policy", "verifier", "--budget", `{"steps": 10}`)["run_id"].(string)
	s.must(t, file("planner.token"), "run", "seal", run)
	receipt := s.must(t, file("checker.token"), "run", "get", run)["receipt"].(string)
	plain := []string{"run", "close", run, "--verdict", "accept", "--receipt-id", receipt}
	if out, err := s.run(file("checker.token"), plain...); err == nil || !strings.Contains(err.Error(), "verdict_refused") {
		t.Fatalf("by its token alone: %v %s", err, out)
	}
	if sign == nil {
		if out, err := s.run(file("checker.token"), "verdict", "sign", "--run", run, "--verdict", "accept", "--key", file(agent+".key"), "--out", file("verdict.sigstore.json")); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	} else {
		if _, err := s.run(file("checker.token"), "verdict", "statement", "--run", run, "--verdict", "accept", "--out", file("statement.json")); err != nil {
			t.Fatal(err)
		}
		if out, err := sign(file("statement.json"), file("verdict.sigstore.json")); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	closed := s.must(t, file("checker.token"), append(plain, "--verdict-file", file("verdict.sigstore.json"))...)
	if closed["state"] != "done" {
		t.Errorf("got %v", closed)
	}
	if out, err := s.run(s.token, "verdict", "get", closed["receipt"].(string), "--out", file("logged.sigstore.json"), "--key-out", file("logged.pub")); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if read(t, file("logged.pub")) != read(t, file(agent+".pub")) {
		t.Errorf("the log has the key %s", read(t, file("logged.pub")))
	}
	st, err := statementOf([]byte(read(t, file("logged.sigstore.json"))))
	if err != nil {
		t.Fatal(err)
	}
	find := func(bundle, key string) (string, error) {
		return offline(t, program, "verify-blob-attestation", "--key", key, "--bundle", bundle, "--trusted-root", s.root,
			"--type", "https://in-toto.io/attestation/svr/v0.2", "--digest", st.Subject[0].Digest["sha256"], "--digestAlg", "sha256")
	}
	if out, err := find(file("logged.sigstore.json"), file(agent+".pub")); err != nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := find(file("verdict.sigstore.json"), file(agent+".pub")); err == nil {
		t.Errorf("what is not logged is found: %s", out)
	}
	if out, err := find(file("logged.sigstore.json"), s.key); err == nil {
		t.Errorf("the gateway's key signed it: %s", out)
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
