package conformance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// transitionType is the predicate type of every receipt.
const transitionType = "https://writ-gateway.github.io/writ/attestation/transition/v1"

// site is a gateway that has worked for a while, and what it gives an auditor.
type site struct {
	dir     string // where the files are
	writ    string // the program
	data    string // of the gateway; read-only for tests
	receipt string // id of one in the middle of the log
	subject string // its subject's digest
	bundle  string // path
	root    string // path of trusted_root.json
	logKey  string // note verifier key
	key     string // path of receipt.pub
	url     string
	token   string // path of the operator's
	stop    func()
}

// password of every private key here.
const password = "correct horse"

var made = sync.OnceValues(prepare)

// the is that site, made for whichever test comes first.
func the(t *testing.T) site {
	t.Helper()
	s, err := made()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMain(m *testing.M) {
	code := m.Run()
	if s, err := made(); err == nil {
		s.stop()
		_ = os.RemoveAll(s.dir)
	}
	os.Exit(code)
}

// works is how many runs are made: enough for full and partial tiles.
const works = 300

func prepare() (s site, err error) {
	if s.dir, err = os.MkdirTemp("", "conformance"); err != nil {
		return s, err
	}
	s.writ, s.data = filepath.Join(s.dir, "writ"), filepath.Join(s.dir, "state")
	build := exec.Command("go", "build", "-o", s.writ, "./cmd/writ")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("building writ: %w: %s", err, out)
	}
	if err := s.serve(); err != nil {
		return s, err
	}
	run := func(args ...string) (string, error) { return s.run(s.token, args...) }
	token, err := os.ReadFile(s.token)
	if err != nil {
		return s, err
	}
	for n := range works {
		receipt, err := create(s.url, strings.TrimSpace(string(token)))
		if err != nil {
			return s, err
		}
		if n == works/2 {
			s.receipt = receipt
		}
	}
	s.bundle, s.root, s.key = filepath.Join(s.dir, "receipt.sigstore.json"), filepath.Join(s.dir, "trusted_root.json"), filepath.Join(s.data, "keys", "receipt.pub")
	if _, err := run("receipt", "bundle", s.receipt, "--out", s.bundle); err != nil {
		return s, err
	}
	if _, err := run("log", "trusted-root", "--out", s.root); err != nil {
		return s, err
	}
	out, err := run("log", "head", "-o", "json")
	if err != nil {
		return s, err
	}
	var head struct {
		Key string `json:"verifier_key"`
	}
	if err := json.Unmarshal([]byte(out), &head); err != nil {
		return s, err
	}
	s.logKey = head.Key
	text, err := os.ReadFile(s.bundle)
	if err != nil {
		return s, err
	}
	st, err := statementOf(text)
	if err != nil {
		return s, err
	}
	s.subject = st.Subject[0].Digest["sha256"]
	return s, nil
}

// serve starts its gateway, and says in it where that is, and how to stop it.
func (s *site) serve() error {
	serve := exec.Command(s.writ, "serve", "--data", s.data, "--listen", "127.0.0.1:0", "--checkpoint-every", "100ms", "--log-mldsa") // whose line others leave alone
	serve.Env = append(os.Environ(), "WRIT_KEY_PASSWORD="+password)
	words, err := serve.StderrPipe()
	if err != nil {
		return err
	}
	if err := serve.Start(); err != nil {
		return err
	}
	s.stop = func() { _ = serve.Process.Signal(syscall.SIGTERM); _ = serve.Wait() }
	for lines := bufio.NewScanner(words); s.url == "" && lines.Scan(); {
		_, s.url, _ = strings.Cut(lines.Text(), "serving ")
	}
	go func() { _, _ = io.Copy(io.Discard, words) }()
	if s.url == "" {
		return fmt.Errorf("the gateway does not serve")
	}
	s.token = filepath.Join(s.data, "operator.token")
	return nil
}

// run runs writ as whoever has a token.
func (s site) run(token string, args ...string) (string, error) {
	cmd := exec.Command(s.writ, args...)
	cmd.Env = append(os.Environ(), "WRIT_URL="+s.url, "WRIT_TOKEN_FILE="+token, "COSIGN_PASSWORD="+password, "XDG_STATE_HOME="+s.dir)
	out, err := cmd.Output()
	if e, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("writ %s: %w: %s", strings.Join(args, " "), err, e.Stderr)
	}
	return string(out), err
}

// must runs it, and decodes what it says as JSON.
func (s site) must(t *testing.T, token string, args ...string) map[string]any {
	t.Helper()
	out, err := s.run(token, append(args, "-o", "json")...)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// create makes a run, and gives its receipt.
func create(url, token string) (receipt string, err error) {
	req, err := http.NewRequest(http.MethodPost, url+"/v1/runs", strings.NewReader(`{"budget": {"steps": 1}}`))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("creating a run: %s", res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.Header.Get("Receipt-Id"), err
}

// bundle is what these tests read of a Sigstore bundle.
type bundle struct {
	VerificationMaterial struct {
		TlogEntries []struct {
			LogIndex          string `json:"logIndex"`
			CanonicalizedBody []byte `json:"canonicalizedBody"`
		} `json:"tlogEntries"`
	} `json:"verificationMaterial"`
	Envelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig []byte `json:"sig"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type statement struct {
	Subject []struct {
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
}

func parse(text []byte) (b bundle, err error) {
	if err = json.Unmarshal(text, &b); err == nil && (len(b.VerificationMaterial.TlogEntries) != 1 || len(b.Envelope.Signatures) != 1) {
		err = fmt.Errorf("%d entries, %d signatures", len(b.VerificationMaterial.TlogEntries), len(b.Envelope.Signatures))
	}
	return b, err
}

func statementOf(text []byte) (st statement, err error) {
	b, err := parse(text)
	if err == nil {
		err = json.Unmarshal(b.Envelope.Payload, &st)
	}
	if err == nil && len(st.Subject) == 0 {
		err = fmt.Errorf("no subject")
	}
	return st, err
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// changed writes a copy of a file in which a text stands for another, and gives its path.
func changed(t *testing.T, path, from, to string) string {
	t.Helper()
	text := read(t, path)
	if !strings.Contains(text, from) {
		t.Fatalf("%s has no %q", path, from)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(out, []byte(strings.Replace(text, from, to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// offline runs a program that has no network, whatever it tries.
func offline(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	return offlineFor(t, 2*time.Minute, name, args...)
}

func offlineFor(t *testing.T, wait time.Duration, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"--map-root-user", "--net", name}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "COSIGN_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
