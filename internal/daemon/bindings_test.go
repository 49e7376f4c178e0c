package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/roles"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// beside is a second replica of a gateway's store that nothing runs by itself in:
// it learns of a change when the test lets it look. On the embedded store, which
// one process has, it shares the open file.
func beside(t *testing.T, d *Daemon) *Daemon {
	t.Helper()
	two := New(d.cfg, slog.New(slog.DiscardHandler))
	two.store, two.registry = d.store, nil
	if d.cfg.Store != "bolt" {
		if err := two.openStore(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = two.store.Close() })
	}
	for _, step := range []func(context.Context) error{two.openKeys, two.openPolicies, two.openDoor} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := two.underGate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return two
}

// session opens and starts a session of a person and gives its token.
func session(t *testing.T, d *Daemon, op *client.Client, principal string, role writ.Role) string {
	t.Helper()
	var opened struct {
		SessionID string `json:"session_id"`
		Token     string `json:"token"`
	}
	if _, err := op.Invoke(t.Context(), "session.open", map[string]any{"principal": principal, "kind": "human", "role": role}, &opened); err != nil {
		t.Fatal(err)
	}
	if _, err := d.asToken(t.Context(), opened.Token, "session.start", map[string]any{"session_id": opened.SessionID}); err != nil {
		t.Fatal(err)
	}
	return opened.Token
}

// says binds or unbinds by the operator's client.
func says(t *testing.T, op *client.Client, id writ.CapabilityID, principal string, role writ.Role) (out roles.RoleChanged) {
	t.Helper()
	if _, err := op.Invoke(t.Context(), id, map[string]any{"principal": principal, "role": role}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func onStores(t *testing.T, f func(t *testing.T, tune func(*Config))) {
	t.Helper()
	t.Run("bolt", func(t *testing.T) { f(t, func(*Config) {}) })
	t.Run("redis", func(t *testing.T) {
		server, common := redistest.Start(t), t.TempDir()
		f(t, func(c *Config) {
			c.Store, c.Keys, c.Blobs = server.URL(), filepath.Join(common, "keys"), filepath.Join(common, "artifacts")
		})
	})
}

// A role that is taken on one replica is gone for the very next commit, and the
// next read, on the other: before it has heard of the change it serves nobody,
// and once it has looked it refuses.
func TestATakenRoleIsGoneOnTheOtherReplica(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		two := beside(t, d)
		mallory := session(t, d, op, "mallory", writ.RoleOrchestrator)
		try := func(at *Daemon, id writ.CapabilityID) *writ.Error {
			t.Helper()
			args := map[string]any{}
			if id == "run.create" {
				args["budget"] = map[string]any{"steps": 5}
			}
			_, err := at.asToken(t.Context(), mallory, id, args)
			return writ.AsError("", err)
		}
		everywhere := func(when string, want writ.Code) {
			t.Helper()
			for name, at := range map[string]*Daemon{"one": d, "two": two} {
				for _, id := range []writ.CapabilityID{"run.create", "run.list"} {
					if e := try(at, id); (e == nil) != (want == "") || e != nil && e.Code != want {
						t.Errorf("%s, replica %s: %s: %v", when, name, id, e)
					}
				}
			}
		}
		everywhere("before", "")
		for round := range 2 {
			out := says(t, op, "role.unbind", "mallory", writ.RoleOrchestrator)
			if !out.Changed || out.Bound {
				t.Fatalf("got %+v", out)
			}
			for _, id := range []writ.CapabilityID{"run.create", "run.list", "session.open"} {
				// It holds what it has held before.
				if e := try(two, id); e == nil || round == 0 && (e.Code != writ.CodePolicyDown || e.RetryMs == 0) || round > 0 && e.Code != writ.CodeRBAC {
					t.Errorf("round %d: the replica that has not heard of it answers %s: %v", round, id, e)
				}
				if e := try(d, id); e == nil || e.Code != writ.CodeRBAC || e.Receipt == "" {
					t.Errorf("round %d: the replica that changed it answers %s: %v", round, id, e)
				}
			}
			if err := two.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			everywhere("unbound", writ.CodeRBAC)
			if _, bindings := two.engine.Revisions(); bindings != out.Revision {
				t.Errorf("the other replica judges by %s, in force is %s", bindings, out.Revision)
			}
			back := says(t, op, "role.bind", "mallory", writ.RoleOrchestrator)
			if err := two.look(t.Context()); err != nil {
				t.Fatal(err)
			}
			everywhere("bound again", "")
			if back.Revision == out.Revision {
				t.Error("the revision did not change")
			}
		}
	})
}

// Bindings by capability outlive the gateway, and receipts name the revision of
// the rules they were judged by.
func TestBindingsOutliveARestart(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		data := t.TempDir()
		d, op, _ := start(t, data, tune)
		token := session(t, d, op, "mallory", writ.RoleAuditor)
		out := says(t, op, "role.unbind", "mallory", writ.RoleAuditor)
		stopDaemon(t, d)
		d, op, logged := start(t, data, tune)
		if g := gateOf(t, d); g.BindingsRevision != out.Revision {
			t.Errorf("after the restart %s is in force, want %s", g.BindingsRevision, out.Revision)
		}
		if strings.Contains(logged.String(), "level=WARN") {
			t.Errorf("the start warns: %s", logged)
		}
		_, err := d.asToken(t.Context(), token, "run.list", map[string]any{})
		e := writ.AsError("", err)
		if e == nil || e.Code != writ.CodeRBAC {
			t.Fatalf("got %v", err)
		}
		var receipt struct {
			Envelope struct {
				Payload []byte `json:"payload"`
			} `json:"envelope"`
		}
		if _, err := op.Invoke(t.Context(), "receipt.get", map[string]any{"receipt_id": e.Receipt}, &receipt); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(receipt.Envelope.Payload, []byte(out.Revision)) {
			t.Errorf("the denial does not name %s: %s", out.Revision, receipt.Envelope.Payload)
		}
		for _, r := range d.ready(t.Context()).Checks {
			if !r.OK {
				t.Errorf("not ready: %+v", r)
			}
		}
		for _, f := range Examine(t.Context(), d.cfg) {
			if f.Err != nil || strings.Contains(f.Detail, "only staged") {
				t.Errorf("the doctor says %+v", f)
			}
		}
	})
}

// withBindings is a folder of the shipped policies whose roles bind whom these rows
// bind, and nobody else.
func withBindings(t *testing.T, rows string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "roles", "policy.csv")
	csv, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kept := ""
	for line := range strings.Lines(string(csv)) {
		if !strings.HasPrefix(line, "g, principal:") {
			kept += line
		}
	}
	if err := os.WriteFile(file, []byte(kept+rows), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A bundle of before there were bindings binds nobody and does not load. The start
// says which row is missing and how others take its place, and then they do.
func TestABundleOfBeforeThereWereBindings(t *testing.T) {
	data := t.TempDir()
	d, _, _ := start(t, data)
	canonical, err := proposal(policies.Directory(withBindings(t, "")))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policies.OpenCanonical(canonical)
	if err != nil {
		t.Fatal(err)
	}
	gate, id := gateOf(t, d), writ.BundleOf(c.Digest)
	gate.Bundle, gate.BindingsRevision = id, c.Bindings
	put(t, d, map[writ.Key]any{
		writ.GateKey: gate, writ.ChunkKey(id, 0): writ.Chunk{Data: base64.StdEncoding.EncodeToString(c.Packed)},
		writ.BundleKey(id): writ.Bundle{ID: id, State: writ.BundleActive, Packs: c.Packs, Policy: c.Policy, Bindings: c.Bindings, Chunks: 1, Source: writ.SourceFolder},
	})
	stopDaemon(t, d)
	cfg := d.cfg
	again := New(cfg, slog.New(slog.DiscardHandler))
	err = again.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "g, principal:operator, role:operator, *") || !strings.Contains(err.Error(), "--activate-policies") {
		t.Fatalf("got %v", err)
	}
	d, _, _ = start(t, data, func(c *Config) { c.Activate = true })
	if !d.engine.Bound("anybody", writ.RoleAuditor, shard) || gateOf(t, d).Bundle == id || !d.ready(t.Context()).Ready {
		t.Error("the policies it was started with did not take its place")
	}
}

// The file closes the role operator to the machine: the gateway starts, serves,
// and says how to have a token again.
func TestAMachineThatIsNoOperator(t *testing.T) {
	dir := withBindings(t, "g, principal:alice, role:operator, *\n")
	d, _, logged := start(t, t.TempDir(), func(c *Config) { c.Policies = dir })
	if !strings.Contains(logged.String(), "the principal operator is not bound") || !strings.Contains(logged.String(), "writ role bind --principal operator") {
		t.Errorf("got %s", logged)
	}
	if !d.ready(t.Context()).Ready {
		t.Error("it does not serve")
	}
}

// Default deny reaches the door: session.open and every call go by the bindings,
// and a token of a role that is not bound is good for nothing.
func TestSessionsOfWhoIsNotBound(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	says(t, op, "role.unbind", "*", writ.RoleApprover)
	open := map[string]any{"principal": "alice", "kind": "human", "role": "approver"}
	_, err := op.Invoke(t.Context(), "session.open", open, nil)
	e := writ.AsError("", err)
	if e == nil || e.Code != writ.CodeRBAC || gateway.StatusOf(e.Code) != 403 || e.Receipt == "" || !strings.Contains(e.Hint, "role.bind") {
		t.Fatalf("got %v", err)
	}
	says(t, op, "role.bind", "alice", writ.RoleApprover)
	token := session(t, d, op, "alice", writ.RoleApprover)
	if _, err := d.asToken(t.Context(), token, "approval.list", map[string]any{}); err != nil {
		t.Error(err)
	}
	if _, err := d.asToken(t.Context(), token, "role.bind", map[string]any{"principal": "alice", "role": "operator"}); writ.CodeOf(err) != writ.CodeRBAC {
		t.Errorf("an approver binds himself: %v", err)
	}
	reply, err := d.asToken(t.Context(), token, "role.permissions", map[string]any{})
	var may roles.RolePermissions
	if err == nil {
		err = json.Unmarshal(reply.JSON, &may)
	}
	if err != nil || may.Principal != "alice" || len(may.Roles) != 7 {
		t.Errorf("got %+v, %v", may, err)
	}
	for _, c := range may.Capabilities {
		if k := d.registry.Get(c.Capability); k == nil || k.Internal || c.Row == "" {
			t.Errorf("shown: %+v", c)
		}
		if rules := d.engine; c.Allowed != rules.Permit(c.Role, shard, c.Capability) {
			t.Errorf("%+v, and the rules say otherwise", c)
		}
	}
}
