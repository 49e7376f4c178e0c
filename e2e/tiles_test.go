package e2e

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/s3/s3test"
)

// A log in an object store is as one in a directory, also after kill -9 and while the store
// fails for a time, and nobody who copies it sees a difference.
func TestTheLogInAnObjectStore(t *testing.T) {
	t.Parallel()
	s := s3test.New()
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	secret := filepath.Join(t.TempDir(), "credentials")
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n", s.Credentials.AccessKey, s.Credentials.Secret, s.Credentials.Token)
	if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "bolt", "--tiles", "s3://tiles/of/writ?region="+s.Region+"&endpoint="+srv.URL, "--tiles-credentials", secret)
	c := newCast(t, w)
	auditor := w.session("ada", writ.RoleAuditor, "")
	included := func(task string) {
		t.Helper()
		receipt := w.op.ok(200, "GET", "/v1/tasks/"+task, nil).str("receipt")
		within(t, 20e9, "its receipt is in the log", func() bool {
			return auditor.ok(200, "GET", "/v1/receipts/"+receipt+"?wait=included", nil).at("included") == true
		})
	}
	included(c.enqueue("one", nil))
	s.Fail(func(method, _ string) (int, bool) { return 503, method == "PUT" })
	two := c.enqueue("two", nil)
	within(t, 20e9, "the gateway says that its log waits", func() bool { return caller{t: t, gw: w.gw[0]}.do("GET", "/readyz", nil).status == 503 })
	s.Fail(nil)
	w.ready()
	included(two)
	three := c.enqueue("three", nil)
	w.gw[0].kill()
	w.gw[0].start()
	w.ready()
	included(three)

	head := auditor.ok(200, "GET", "/v1/log/head", nil)
	w.gw[0].stop()
	if _, err := os.Stat(filepath.Join(w.gw[0].data, "log")); err == nil {
		t.Error("there is a log in the data directory too")
	}
	copied := t.TempDir()
	for _, key := range s.Keys() {
		path, ok := strings.CutPrefix(key, "of/writ/")
		if !ok {
			t.Errorf("there is %s", key)
		}
		body, _ := s.Object(key)
		to := filepath.Join(copied, path)
		if err := errorsOf(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, body, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if r := command(t, "log", "verify", copied, "--log-key", head.str("verifier_key"), "--key", w.publicKey()); r.code != 0 {
		t.Errorf("got %s", r)
	}

	// Lost, it is made again; with the wrong secret nothing starts, and the secret is not told.
	for _, key := range s.Keys() {
		s.Set(key, nil)
	}
	w.gw[0].start()
	w.ready()
	included(three)
	w.gw[0].stop()
	if err := os.WriteFile(secret, []byte("aws_access_key_id = AKTEST\naws_secret_access_key = "+canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := command(t, append(w.gw[0].args[:len(w.gw[0].args):len(w.gw[0].args)], "--log", "debug")...)
	if r.code == 0 || !strings.Contains(r.stderr, "SignatureDoesNotMatch") || !strings.Contains(r.stderr, "s3:PutObject") || strings.Contains(r.stderr, canary) {
		t.Errorf("got %s", r)
	}
}
