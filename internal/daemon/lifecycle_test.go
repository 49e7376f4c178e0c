package daemon

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/store/blobs"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
	"github.com/writ-gateway/writ/writtest"
)

// behind changes the gate, and deletes documents, behind the door: what another
// version of the program would have left.
func behind(t *testing.T, d *Daemon, change func(*writ.Gate), gone ...writ.Key) {
	t.Helper()
	s, err := d.store.Read(t.Context(), shard, writ.ReadSet{Docs: []writ.Key{writ.GateKey}})
	if err != nil {
		t.Fatal(err)
	}
	gate, _, _, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		t.Fatal(err)
	}
	change(&gate)
	put(t, d, map[writ.Key]any{writ.GateKey: gate}, gone...)
}

// put writes and deletes documents behind the door.
func put(t *testing.T, d *Daemon, docs map[writ.Key]any, gone ...writ.Key) {
	t.Helper()
	call := &writ.Call{}
	if err := d.door.Stamp(call); err != nil {
		t.Fatal(err)
	}
	id := writ.ReceiptID(call.NewID(writ.PrefixReceipt, 0))
	head, tail, err := d.sealer.Draft(writ.Statement{
		Receipt: id, Call: call.ID, Tenant: shard, Log: d.keys.Origin, Transition: "gate.set", Version: "1", Outcome: writ.OutcomeOfTransition,
		Changes: []writ.Change{{Kind: "gate", ID: "gate", From: "open", To: "open"}}, KeyID: d.sealer.KeyID(),
		Actor: writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}, Decision: writ.Decision{Effect: writ.EffectAllow},
	})
	if err != nil {
		t.Fatal(err)
	}
	tx := writ.Tx{Call: call.ID, Fact: &writ.Fact{ID: id, KeyID: d.sealer.KeyID(), Head: head, Tail: tail}}
	for k, doc := range docs {
		kind, _, _ := strings.Cut(string(k), "/")
		if err := tx.PutDoc(writ.Snapshot{}, k, kind, doc); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range gone {
		tx.Delete(k)
	}
	if _, err := d.store.Commit(t.Context(), shard, tx); err != nil {
		t.Fatal(err)
	}
}

func gateOf(t *testing.T, d *Daemon) writ.Gate {
	t.Helper()
	gate, ok, err := d.readGate(t.Context())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return gate
}

func listed(t *testing.T, op *client.Client) bundles.PolicyList {
	t.Helper()
	var page bundles.PolicyList
	if _, err := op.Invoke(t.Context(), "policy.list", map[string]any{}, &page); err != nil {
		t.Fatal(err)
	}
	return page
}

// A store of before there were bundles: its gate names revisions and no bundle.
// The policies the gateway is started with are adopted.
func TestAStoreWithoutBundlesStarts(t *testing.T) {
	for name, change := range map[string]func(*writ.Gate){
		"the same policies": func(g *writ.Gate) { g.Bundle = "" },
		"other policies":    func(g *writ.Gate) { g.Bundle, g.PolicyRevision, g.BindingsRevision = "", "sha256:aa", "sha256:bb" },
	} {
		t.Run(name, func(t *testing.T) {
			data := t.TempDir()
			d, _, _ := start(t, data)
			id := gateOf(t, d).Bundle
			behind(t, d, change, append(writ.ChunkKeys(id)[:1], writ.BundleKey(id))...)
			stopDaemon(t, d)
			d, op, _ := start(t, data)
			policy, bindings := d.engine.Revisions()
			if g := gateOf(t, d); g.Bundle != id || g.PolicyRevision != policy || g.BindingsRevision != bindings {
				t.Errorf("got %+v", g)
			}
			if l := listed(t, op); len(l.Bundles) != 1 || l.Bundles[0].State != writ.BundleActive || len(l.Bundles[0].Ready) != 1 {
				t.Errorf("got %+v", l)
			}
		})
	}
}

// The same bundle under another version of the engine has another revision; a
// replica that is alone takes it over.
func TestAnotherEngineTakesTheBundleOver(t *testing.T) {
	data := t.TempDir()
	d, _, _ := start(t, data)
	before := gateOf(t, d)
	behind(t, d, func(g *writ.Gate) { g.PolicyRevision = "sha256:aa" })
	stopDaemon(t, d)
	d, _, _ = start(t, data)
	if g := gateOf(t, d); g.Bundle != before.Bundle || g.PolicyRevision != before.PolicyRevision {
		t.Errorf("got %+v, want %+v", g, before)
	}
}

// A folder that cannot be read keeps nobody from serving what is in force; on a
// new store it does.
func TestABrokenFolderIsOnlyAProposal(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	d, _, _ := start(t, data)
	want := gateOf(t, d)
	stopDaemon(t, d)
	broken := func(c *Config) { c.Policies = dir }
	d, op, logged := start(t, data, broken)
	if g := gateOf(t, d); g != want {
		t.Errorf("got %+v", g)
	}
	if !strings.Contains(logged.String(), "cannot be read") || len(listed(t, op).Bundles) != 1 {
		t.Errorf("got %s", logged)
	}
	stopDaemon(t, d)

	// One that reads and does not compile is staged and refused, once.
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "packs", "budgets", "more.rego"), []byte("package packs.budgets\n\nx := 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d, op, _ = start(t, data, broken)
		var l bundles.PolicyList
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if l = listed(t, op); len(l.Bundles) == 2 && l.Bundles[0].State == writ.BundleRefused {
				break
			}
		}
		if len(l.Bundles) != 2 || l.Bundles[0].State != writ.BundleRefused || !strings.Contains(l.Bundles[0].Reason, "packs/budgets/more.rego:3") {
			t.Errorf("got %+v", l)
		}
		if g := gateOf(t, d); g != want {
			t.Errorf("got %+v", g)
		}
		stopDaemon(t, d)
	}
}

// Rules that forbid everything, the way back included, can be replaced by who
// starts the gateway.
func TestNobodyIsLockedOut(t *testing.T) {
	data := t.TempDir()
	d, op, _ := start(t, data)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	pack := filepath.Join(dir, "packs", "nothing")
	if err := os.Mkdir(pack, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"pack.yaml": "manifest: {id: nothing, version: 1.0.0, title: T, owner: me, kind: guard, match: {capabilities: ['*']}, effects: [deny]}\n",
		"nothing.rego": `package packs.nothing

# METADATA
# title: Nothing
# description: Nothing may happen.
# custom: {id: nothing.at_all, severity: low, control: c}
findings contains {"rule": "nothing.at_all", "effect": "deny", "code": "policy_denied", "message": "no"} if true
`,
	} {
		if err := os.WriteFile(filepath.Join(pack, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := proposal(policies.Directory(dir))
	if err != nil {
		t.Fatal(err)
	}
	sent, err := packed(b)
	if err != nil {
		t.Fatal(err)
	}
	var v bundles.BundleView
	if _, err := op.Invoke(t.Context(), "policy.stage", map[string]any{"bundle": sent}, &v); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := op.Invoke(t.Context(), "policy.activate", map[string]any{"digest": v.Digest}, nil)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if _, err := op.Invoke(t.Context(), "policy.rollback", map[string]any{}, nil); writ.CodeOf(err) != writ.CodePolicy {
		t.Fatalf("got %v", err)
	}
	stopDaemon(t, d)
	_, op, _ = start(t, data, func(c *Config) { c.Activate = true })
	if l := listed(t, op); l.Bundles[0].State != writ.BundleRetired {
		t.Errorf("got %+v", l)
	}
}

func TestReasonIsShort(t *testing.T) {
	got := reason(writ.Refuse(writ.CodeInternal, "", strings.Repeat("é", 3000)+"\x00", ""))
	if len(got) > 2000 || strings.ContainsRune(got, 0) || !json.Valid([]byte(`"`+got+`"`)) {
		t.Errorf("%d bytes", len(got))
	}
}

// Two replicas meet on an empty store with different folders: one is adopted, the
// other replica serves it too, and its own is staged.
func TestTwoReplicasOnAnEmptyStore(t *testing.T) {
	redis := redistest.Start(t)
	data := t.TempDir()
	var both []*Daemon
	for i, name := range []string{"one", "two"} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
			t.Fatal(err)
		}
		note := filepath.Join(dir, "packs", "budgets", "more.rego")
		if err := os.WriteFile(note, []byte("package packs.budgets\n\n_"+name+" := 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load("", noEnv, map[string]string{
			"data": filepath.Join(data, name), "keys": filepath.Join(data, "keys"), "blobs": filepath.Join(data, "artifacts"), "listen": "127.0.0.1:0", "store": redis.URL(), "policies": dir,
			"ledger": []string{"writer", "none"}[i],
		})
		if err != nil {
			t.Fatal(err)
		}
		d := New(cfg, slog.New(slog.DiscardHandler))
		t.Cleanup(func() { stopDaemon(t, d) })
		both = append(both, d)
	}
	ctx := t.Context()
	for _, d := range both {
		for _, step := range []func(context.Context) error{d.openListener, d.openData, d.openStore, d.openKeys, d.sameKey, d.openLedger, d.openPolicies, d.openArtifacts, d.openDoor} {
			if err := step(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	var done sync.WaitGroup
	for _, d := range both {
		done.Go(func() {
			if err := d.openGate(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	gate := gateOf(t, both[0])
	staged := 0
	for _, d := range both {
		if p, b := d.engine.Revisions(); p != gate.PolicyRevision || b != gate.BindingsRevision {
			t.Errorf("one replica serves %s, the gate says %s", p, gate.PolicyRevision)
		}
		id := writ.BundleOf(digestOf(d.proposed))
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.BundleKey(id)}})
		if err != nil {
			t.Fatal(err)
		}
		b, _, _, err := writ.Get[writ.Bundle](s, writ.BundleKey(id))
		if err != nil || b.State != writ.BundleStaged && id != gate.Bundle {
			t.Errorf("got %+v, %v", b, err)
		}
		if b.State == writ.BundleStaged {
			staged++
		}
	}
	if staged != 1 {
		t.Errorf("%d folders are staged", staged)
	}
}

// A replica that has said it holds a bundle finds that said, in whatever order
// replicas said so and whenever: nobody says it again and again.
func TestReadyIsSaidOnce(t *testing.T) {
	redis := redistest.Start(t)
	for _, host := range []string{"bolt", redis.URL()} {
		d, _, _ := start(t, t.TempDir(), func(c *Config) { c.Store = host })
		gate := gateOf(t, d)
		index := writ.ReadyOn(gate.Bundle)
		names := []string{"z9", d.replica, "a0"}
		for _, name := range []string{"z9", "a0"} {
			if _, _, err := d.door.System(t.Context(), shard, "policy.beat", bundles.PolicyBeatArgs{Replica: name, Seconds: 600}, nil); err != nil {
				t.Fatal(err)
			}
		}
		said := func() (found []string, version int64) {
			var rs writ.ReadSet
			for _, name := range names {
				rs.Ranges = append(rs.Ranges, writ.Range{Index: index, From: name, To: name + "\x00", Limit: 1})
			}
			s, err := d.store.Read(t.Context(), shard, rs)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rs.Ranges {
				for _, m := range s.Ranges[r].Members {
					found = append(found, m.Name)
				}
				version = s.Ranges[r].Version
			}
			return found, version
		}
		quiet := func(when string) {
			t.Helper()
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				found, version := said()
				if slices.Equal(found, names) {
					time.Sleep(2500 * time.Millisecond)
					if _, now := said(); now != version {
						t.Errorf("%s, %s: it is said again and again", host, when)
					}
					return
				}
				if time.Now().After(end) {
					t.Errorf("%s, %s: found %v, want %v", host, when, found, names)
					return
				}
			}
		}
		for _, name := range []string{"z9", "a0"} {
			report := bundles.PolicyReportArgs{Digest: gate.Bundle.Digest(), Replica: name, OK: true}
			if _, _, err := d.door.System(t.Context(), shard, "policy.report", report, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		quiet("said one after the other")

		var tx writ.Tx // an earlier version kept since when
		for i, name := range names {
			tx.Index(index, name, 1_700_000_000_000+int64(i))
		}
		if _, err := d.store.Commit(t.Context(), shard, tx); err != nil {
			t.Fatal(err)
		}
		quiet("kept by an earlier version")
		stopDaemon(t, d)
	}
}

// Where a trust file is configured an unsigned bundle is denied, with a receipt.
func TestUnsignedIsDenied(t *testing.T) {
	trust := trustFile(t)
	_, op, _ := start(t, t.TempDir(), func(c *Config) { c.Trust = trust })
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	b, err := policies.PackDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = op.Invoke(t.Context(), "policy.stage", map[string]any{"bundle": b}, nil)
	if e := writ.AsError("", err); e == nil || e.Code != writ.CodePolicy || e.Receipt == "" || !strings.Contains(e.Msg, "not signed") {
		t.Errorf("got %v", err)
	}
}

// trustFile is one that trusts a key nobody here has.
func trustFile(t *testing.T) string {
	t.Helper()
	trust := filepath.Join(t.TempDir(), "trust.yaml")
	text := "keys:\n  team:\n    packs: [freeze]\n    public_key: |\n      -----BEGIN PUBLIC KEY-----\n      MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE5pKefyqZ1R0Q+4pVitEuyAX1dIjn\n      fWZVN8SRqWworB8kSsmzJ2cPhA1xQCqmXp4thnNqX7AUN53hah6B8nqugw==\n      -----END PUBLIC KEY-----\n"
	if err := os.WriteFile(trust, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return trust
}

// Whoever reads what a replica kept changes nothing there: it may be a copy that is evidence, and not writable.
func TestKeptBundlesAreOnlyRead(t *testing.T) {
	data := t.TempDir()
	none := "sha256:" + strings.Repeat("a", 64)
	if _, err := KeptBundle(t.Context(), data, none); writ.CodeOf(err) != writ.CodeNotFound {
		t.Errorf("of a replica that kept none: %v", err)
	}
	if made, err := os.ReadDir(data); err != nil || len(made) > 0 {
		t.Errorf("it made %v, %v", made, err)
	}
	dir, err := blobs.OpenDir(filepath.Join(data, keptDir), 0)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := dir.Put(t.Context(), strings.NewReader("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(data, keptDir, "tmp", "put-left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, time.Time{}, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	before := writtest.Files(t, data)
	if text, err := KeptBundle(t.Context(), data, digest); err != nil || string(text) != "bundle" {
		t.Errorf("got %q, %v", text, err)
	}
	writtest.SameFiles(t, data, before)
}
