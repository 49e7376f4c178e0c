package webhooks

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"pgregory.net/rapid"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

var update = flag.Bool("update", false, "write the golden files")

// The vectors were made elsewhere: each says where.
func TestSignature(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "testdata", "vectors", "webhooks", "signatures.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Source    string   `json:"source"`
		Secrets   []string `json:"secrets"`
		ID        string   `json:"webhook-id"`
		At        int64    `json:"webhook-timestamp"`
		Body      string   `json:"body"`
		Signature string   `json:"webhook-signature"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) != 3 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		s, err := parseSecrets(strings.Join(v.Secrets, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.signature(v.ID, v.At, []byte(v.Body)); got != v.Signature {
			t.Errorf("%s: got %s, want %s", v.Source, got, v.Signature)
		}
	}
}

// Whatever is sent, a receiver with any of the secrets takes it, and nothing
// else.
func TestReceiversVerify(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text []string
		for range rapid.IntRange(1, maxSecrets).Draw(t, "secrets") {
			s, err := NewSecret(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, s)
		}
		s, err := parseSecrets(strings.Join(text, "\n"))
		if err != nil {
			t.Fatal(err)
		}
		id, body := rapid.StringMatching(`[a-zA-Z0-9_-]{1,40}`).Draw(t, "id"), rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		at := rapid.Int64Range(0, 4_000_000_000).Draw(t, "at")
		h := http.Header{}
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", strconv.FormatInt(at, 10))
		h.Set("Webhook-Signature", s.signature(id, at, body))
		for _, secret := range text {
			wh, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := wh.VerifyIgnoringTimestamp(body, h); err != nil {
				t.Errorf("not taken: %v", err)
			}
			if wh.VerifyIgnoringTimestamp(append(bytes.Clone(body), 'x'), h) == nil {
				t.Error("another body is taken")
			}
		}
	})
}

// The bodies receivers parse: a difference is a change of the interface.
func TestBodies(t *testing.T) {
	const receipt, approvalID = "rcp_01ARYZ6S410000000000000000", "apr_01ARYZ6S410000000000000000"
	of := func(e writ.Event, s writ.ApprovalState) writ.Notice {
		return writ.Notice{Event: e, Receipt: receipt, At: 1_767_225_600_123, Tries: 3, Approval: approvalID, State: s}
	}
	for _, n := range []writ.Notice{
		of(writ.EventApprovalRequested, writ.ApprovalPending), of(writ.EventApprovalDecided, writ.ApprovalApproved), of(writ.EventApprovalExpired, writ.ApprovalExpired),
		{Event: writ.EventPolicyNotify, Receipt: receipt, At: 1_767_225_600_123, Capability: "run.create", Rules: []string{"budgets.soft_limit"}},
	} {
		got, err := body(n, approval(), "https://writ.example.org/")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, string(n.Event), got)
		if strings.Contains(string(got), "canary") {
			t.Errorf("%s tells what it must not: %s", n.Event, got)
		}
		without, err := body(n, approval(), "")
		if err != nil || strings.Contains(string(without), "url") {
			t.Errorf("without an address of the gateway: %s, %v", without, err)
		}
	}
	got, err := probe(time.UnixMilli(1_767_225_600_123))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "webhook.test", got)
}

func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	writtest.GoldenFile(t, *update, filepath.Join("..", "testdata", "vectors", "webhooks", name+".json"), out.Bytes())
}

func TestWait(t *testing.T) {
	var total time.Duration
	for i, want := range []string{"5s", "15s", "45s", "2m15s", "6m45s", "20m15s", "1h0m45s", "3h2m15s", "6h0m0s", "6h0m0s", "6h0m0s"} {
		got := wait(int64(i+1), .5)
		total += got
		if got.String() != want {
			t.Errorf("after %d failures %v, want %s", i+1, got, want)
		}
		if low, high := wait(int64(i+1), 0), wait(int64(i+1), 1); low != got*4/5 || high != got*6/5 {
			t.Errorf("after %d failures from %v to %v, want a fifth either way of %v", i+1, low, high, got)
		}
	}
	if total < 20*time.Hour || total > 28*time.Hour || total*6/5 > tooOld {
		t.Errorf("%d tries take %v", maxTries, total)
	}
	if got := wait(1<<40, 1); got != longestWait*6/5 {
		t.Errorf("after ages %v", got)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "0": 0, "120": 2 * time.Minute, "999999": longestWait, "9223372036854775807": longestWait, "99999999999999999999": 0,
		"Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "Wed, 31 Dec 2025 00:00:00 GMT": 0, "Fri, 01 Jan 2038 00:00:00 GMT": longestWait,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, good := range []string{
		"https://hooks.example.org/writ?token=x", "https://10.0.0.7:8443/", "https://[fd00::1]/x", "http://127.0.0.1:9/x", "http://localhost:9", "http://[::1]:9/x",
	} {
		if err := CheckURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"": "want a URL", "hooks.example.org": "want a URL", "https://": "want a URL", "https:///x": "want a URL", "mailto:canary@example.org": "want a URL", "https://canary\x7f/": "want a URL",
		"http://canary.example.org/": "this machine only", "http://localhost.canary.org/": "this machine only", "http://127.0.0.1.canary.org/": "this machine only", "http://10.0.0.7/": "this machine only",
		"https://me:canary@example.org/": "no password", "https://canary@example.org/": "no password", "http://canary@localhost/": "no password",
		"https://example.org/#canary": "no fragment", "ftp://example.org/canary": "want https", "unix:///canary": "want a URL", "HTTPS//canary": "want a URL",
	} {
		err := CheckURL(bad)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", bad, err, want)
			continue
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: the error repeats it: %v", bad, err)
		}
	}
	for raw, want := range map[string]string{
		"https://hooks.example.org/services/T0/secret?token=x": "https://hooks.example.org/…", "https://h:8443": "https://h:8443/…",
		"https://user:secret@h/x": "https://h/…", "%secret": "(an address)", "": "(an address)",
	} {
		if got := Shown(raw); got != want {
			t.Errorf("%q is shown as %q, want %q", raw, got, want)
		}
	}
	a, b := Endpoint{URL: "https://h/a?token=secret"}, Endpoint{URL: "https://h/b", Events: []writ.Event{writ.EventApprovalDecided}}
	if a.ID() == b.ID() || !writ.ValidName(string(writ.Notices(a.ID()))) || strings.Contains(string(a.ID()), "secret") {
		t.Errorf("ids %s and %s", a.ID(), b.ID())
	}
	who := Subscribers([]Endpoint{a, b})
	for _, e := range writ.Events() {
		if want := map[bool]int{true: 2, false: 1}[e == writ.EventApprovalDecided]; len(who[e]) != want {
			t.Errorf("%s is told to %v", e, who[e])
		}
	}
	if len(Subscribers(nil)) != 0 {
		t.Error("without endpoints somebody is told")
	}
}

func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	made, err := NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"one": secretA, "made": made + "\n", "several": made + "\r\n" + secretA + "\n\n"} {
		if _, err := ReadSecrets(write(text, 0o600)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := strings.Repeat(secretA+"\n", maxSecrets+1)
	for name, tt := range map[string]struct {
		path, want string
	}{
		"missing":   {filepath.Join(dir, "nowhere"), "cannot be read"},
		"a folder":  {dir, "no plain file"},
		"open":      {write(secretA, 0o640), "open to others (mode 0640)"},
		"empty":     {write("", 0o600), "line 1"},
		"no prefix": {write(strings.TrimPrefix(secretA, secretPrefix), 0o600), "line 1"},
		"no base64": {write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!", 0o600), "line 1"},
		"short":     {write("whsec_MfKQ9r8GKYqrTwjUPD8ILA==", 0o600), "24 to 64 bytes"},
		"a gap":     {write(secretA+"\n\n"+secretA, 0o600), "line 2"},
		"many":      {write(many, 0o600), "at most 4"},
		"long":      {write(strings.Repeat("x", maxSecretFile+1), 0o600), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSecrets(tt.path)
			e := writ.AsError("", err)
			if e == nil || !strings.Contains(e.Msg, tt.want) || e.Hint == "" {
				t.Fatalf("got %+v, want %q and a hint", err, tt.want)
			}
			if strings.Contains(err.Error()+e.Hint, "MfKQ9r8GKYqr") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
	s, _ := parseSecrets(secretB)
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(form, Endpoint{URL: "u", Secrets: s}); strings.Contains(got, "0x1") || strings.Contains(got, "30 31") {
			t.Errorf("%s prints secrets: %s", form, got)
		}
	}
}
