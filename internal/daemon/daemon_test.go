package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/store/blobs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a daemon on the embedded store and returns an operator's client.
func start(t *testing.T, data string, tune ...func(*Config)) (*Daemon, *client.Client, *logs) {
	t.Helper()
	cfg, err := Load("", noEnv, map[string]string{"data": data, "listen": "127.0.0.1:0", "min_lease_seconds": "1", "outage_grace": "1ms"})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(&cfg)
	}
	logged := &logs{}
	d := New(cfg, slog.New(slog.NewTextHandler(logged, nil)))
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopDaemon(t, d) })
	c, err := client.New(client.Config{URL: d.URL(), TokenFile: OperatorToken(data), Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	return d, c, logged
}

// logs is what a daemon under test has logged so far.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func stopDaemon(t *testing.T, d *Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// agent registers an active executor and gives its session's client.
func executor(t *testing.T, op *client.Client, url, id string) *client.Client {
	t.Helper()
	ctx := t.Context()
	must := func(_ client.Meta, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(op.Invoke(ctx, "agent.register", map[string]any{
		"agent_id": id, "archetypes": []string{"executor"}, "domain": "web",
		"tools": []map[string]any{{"name": "site.build", "safety": "mutating"}}, "write_scope": []string{"fs:" + id + "/"},
	}, nil))
	must(op.Invoke(ctx, "agent.activate", map[string]any{"agent_id": id}, nil))
	var opened struct {
		SessionID string `json:"session_id"`
		Token     string `json:"token"`
	}
	must(op.Invoke(ctx, "session.open", map[string]any{"principal": id, "kind": "agent", "role": "executor", "agent_id": id, "heartbeat_ttl_s": 300}, &opened))
	c, err := client.New(client.Config{URL: url, Token: opened.Token, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	must(c.Invoke(ctx, "session.start", map[string]any{"session_id": opened.SessionID}, nil))
	return c
}

// Every capability callers may know is somebody's, and every internal one is
// the gateway's own (each mutating operation has its row in the bindings).
func TestEveryCapabilityBelongsToARole(t *testing.T) {
	cat := Catalog()
	engine, err := policies.Load(t.Context(), policies.Shipped(), policies.Options{Capabilities: IDs(cat), Tenants: []writ.Tenant{shard}})
	if err != nil {
		t.Fatal(err)
	}
	roles := []writ.Role{
		writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor, writ.RoleVerifier, writ.RoleApprover, writ.RoleAuditor, writ.RoleConnector,
	}
	for _, k := range cat.All() {
		var may []writ.Role
		for _, r := range roles {
			if engine.Permit(r, shard, k.ID) {
				may = append(may, r)
			}
		}
		if k.Internal && len(may) > 0 {
			t.Errorf("%s is internal and permitted to %v", k.ID, may)
		}
		if !k.Internal && len(may) == 0 {
			t.Errorf("%s is permitted to nobody", k.ID)
		}
		if !engine.Permit(writ.RoleSystem, shard, k.ID) {
			t.Errorf("%s is not permitted to the gateway itself", k.ID)
		}
	}
}

// The operator's token and the data survive a restart; a token appears in no
// log; the policies in force are kept by digest.
func TestRestart(t *testing.T) {
	data := t.TempDir()
	d, op, logged := start(t, data)
	before, err := os.ReadFile(OperatorToken(data))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(OperatorToken(data)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	ex := executor(t, op, d.URL(), "builder")
	if _, err := ex.Invoke(t.Context(), "task.list", map[string]any{"run_id": "run_01ARYZ6S410000000000000000"}, nil); writ.CodeOf(err) != writ.CodeNotFound {
		t.Fatalf("got %v", err)
	}
	_, digest := d.engine.Bundle()
	kept, err := blobs.OpenDir(filepath.Join(data, "blobs"), maxBundle)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := kept.Has(t.Context(), digest); err != nil || !ok {
		t.Errorf("no blob %s: %v", digest, err)
	}
	stopDaemon(t, d)

	d, op, _ = start(t, data)
	after, err := os.ReadFile(OperatorToken(data))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the operator's token changed: %v", err)
	}
	var agent struct {
		State writ.AgentState `json:"state"`
	}
	if _, err := op.Invoke(t.Context(), "agent.info", map[string]any{"agent_id": "builder"}, &agent); err != nil || agent.State != writ.AgentActive {
		t.Errorf("%+v, %v", agent, err)
	}
	_ = d
	secret := strings.Split(strings.TrimSpace(string(before)), ".")[2]
	if strings.Contains(logged.String(), secret) {
		t.Error("the token's secret was logged")
	}
}

func TestReadyzSaysWhatAReplyMeans(t *testing.T) {
	d, _, _ := start(t, t.TempDir())
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(d.URL() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var report struct {
		Ready  bool `json:"ready"`
		Checks []struct {
			Name   string `json:"name"`
			OK     bool   `json:"ok"`
			Detail string `json:"detail"`
		} `json:"checks"`
	}
	if err := json.NewDecoder(res.Body).Decode(&report); err != nil || !report.Ready || len(report.Checks) < 4 {
		t.Fatalf("%+v, %v", report, err)
	}
	if !strings.Contains(report.Checks[0].Detail, "committed") {
		t.Errorf("got %+v", report.Checks[0])
	}
}

// Other keys than those the store's receipts are signed with are refused before
// anything is committed.
func TestOtherKeysAreRefused(t *testing.T) {
	data := t.TempDir()
	d, _, _ := start(t, data)
	head, err := d.store.Head(t.Context(), shard)
	if err != nil {
		t.Fatal(err)
	}
	stopDaemon(t, d)
	cfg := d.cfg
	cfg.Keys = filepath.Join(t.TempDir(), "keys")
	other := New(cfg, slog.New(slog.DiscardHandler))
	if e := writ.AsError("", other.Start(t.Context())); e == nil || !strings.Contains(e.Msg, "signed with key") || e.Code != writ.CodeNotReady || e.Hint == "" {
		t.Fatalf("got %v", e)
	}
	if _, err := os.Stat(cfg.Keys); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("other keys were made first: %v", err)
	}
	if _, err := Init(cfg); err != nil {
		t.Fatal(err)
	}
	if e := writ.AsError("", New(cfg, slog.New(slog.DiscardHandler)).Start(t.Context())); e == nil || !strings.Contains(e.Msg, "signed with key") || e.Hint == "" {
		t.Fatalf("got %v", e)
	}
	d, _, _ = start(t, data)
	if now, err := d.store.Head(t.Context(), shard); err != nil || now.Seq < head.Seq || now.Seq > head.Seq+2 {
		t.Fatalf("%+v after %+v, %v", now, head, err)
	}
}

func TestPoliciesThatDoNotCompileAreNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "packs", "budgets", "budgets.rego")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(b, "\nfindings contains nonsense(\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load("", noEnv, map[string]string{"data": t.TempDir(), "listen": "127.0.0.1:0", "policies": dir})
	if err != nil {
		t.Fatal(err)
	}
	err = New(cfg, slog.New(slog.DiscardHandler)).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "budgets.rego:") {
		t.Fatalf("got %v", err)
	}
}

// On loopback the gateway answers to loopback names and those it was given.
func TestHostsOnLoopback(t *testing.T) {
	d, _, _ := start(t, t.TempDir(), func(c *Config) { c.Hosts = "writ.example.org, other.example.org" })
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{"": 200, "localhost": 200, "other.example.org": 200, "evil.example": 421} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", d.URL()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%q: %d, want %d", host, res.StatusCode, want)
		}
	}
}

// An agent that works, or waits for work, is not silent: its session's
// heartbeat is renewed.
func TestWorkKeepsTheSession(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	ex := executor(t, op, d.URL(), "builder")
	var run struct {
		RunID writ.RunID `json:"run_id"`
	}
	if _, err := op.Invoke(t.Context(), "run.create", map[string]any{"budget": map[string]any{"steps": 9}}, &run); err != nil {
		t.Fatal(err)
	}
	due := func() int64 {
		t.Helper()
		for name, at := range dueMembers(t, d, writ.IndexBeats) {
			if strings.HasPrefix(name, writ.PrefixSession) {
				return at
			}
		}
		t.Fatal("no session has a heartbeat")
		return 0
	}
	var h held
	for _, step := range []func() error{
		func() error { _, err := ex.Invoke(t.Context(), "task.claim", map[string]any{}, nil); return err },
		func() error {
			_, err := op.Invoke(t.Context(), "task.enqueue", map[string]any{
				"run_id": run.RunID, "key": "one-task", "capability": "site.build", "required_domain": "web",
			}, nil)
			if err == nil {
				_, err = ex.Invoke(t.Context(), "task.claim", map[string]any{}, &h)
			}
			return err
		},
		func() error { _, err := ex.Invoke(t.Context(), "task.heartbeat", h.args(nil), nil); return err },
	} {
		before := due()
		time.Sleep(1100 * time.Millisecond)
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if after := due(); after < before+1000 {
			t.Fatalf("the heartbeat was due at %d and is at %d", before, after)
		}
	}
}
