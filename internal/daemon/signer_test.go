package daemon

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/receipts"
)

// noSigner is a sealer whose key is gone.
type noSigner struct{ *receipts.Sealer }

func (noSigner) Ready() error { return errors.New("the signer is gone") }

func (noSigner) Seal(writ.StoredFact) (writ.Receipt, error) {
	return writ.Receipt{}, errors.New("the signer is gone")
}

// Without its signer the gateway answers every call that changes something with
// 503, and no document gets another version.
func TestNothingChangesWithoutTheSigner(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	d.sweeper.Stop() // nothing else moves
	executor(t, op, d.URL(), "builder")
	must := func(id writ.CapabilityID, c *client.Client, args map[string]any, out any) {
		t.Helper()
		if _, err := c.Invoke(t.Context(), id, args, out); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
	}
	type named struct {
		Session writ.SessionID `json:"session_id"`
		Token   string         `json:"token"`
		Run     writ.RunID     `json:"run_id"`
		Task    writ.TaskID    `json:"task_id"`
	}
	open := func() (named, *writ.Credential) {
		var n named
		must("session.open", op, map[string]any{"principal": "builder", "kind": "agent", "role": "executor", "agent_id": "builder", "heartbeat_ttl_s": 300}, &n)
		cred, ok := gateway.ParseToken(n.Token)
		if !ok {
			t.Fatal("a token that does not parse")
		}
		return n, cred
	}
	fresh, freshCred := open()
	idle, idleCred := open()
	other, err := client.New(client.Config{URL: d.URL(), Token: idle.Token, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	must("session.start", other, map[string]any{"session_id": idle.Session}, nil)
	must("agent.register", op, map[string]any{"agent_id": "caged", "archetypes": []string{"verifier"}, "domain": "web", "jail": map[string]any{"program": "none"}}, nil)
	must("agent.activate", op, map[string]any{"agent_id": "caged"}, nil)
	var caged named
	must("session.spawn", op, map[string]any{"agent_id": "caged", "role": "verifier"}, &caged)
	must("agent.register", op, map[string]any{
		"agent_id": "planned", "archetypes": []string{"executor"}, "domain": "web", "tools": []map[string]any{{"name": "site.plan", "safety": "mutating"}},
	}, nil)
	var run, taken, queued named
	must("run.create", op, map[string]any{"budget": map[string]any{"steps": 100}}, &run)
	task := map[string]any{
		"run_id": run.Run, "key": "held", "capability": "site.build", "required_domain": "web", "lease_ttl_s": 600,
		"produces": []map[string]any{{"name": "site", "media_type": "text/plain"}},
	}
	must("task.enqueue", op, task, &taken)
	var lease held
	must("task.claim", other, map[string]any{"task_id": taken.Task}, &lease)
	task["key"] = "queued"
	must("task.enqueue", op, task, &queued)

	// Two calls that people must agree to, and one person who did once.
	must("agent.register", op, map[string]any{
		"agent_id": "mailer", "archetypes": []string{"executor"}, "domain": "web",
		"tools": []map[string]any{{"name": "mail.send", "safety": "mutating", "approval": "manual"}},
	}, nil)
	must("agent.activate", op, map[string]any{"agent_id": "mailer"}, nil)
	var person named
	must("session.open", op, map[string]any{"principal": "alice", "kind": "human", "role": "approver"}, &person)
	aliceCred, _ := gateway.ParseToken(person.Token)
	alice, err := client.New(client.Config{URL: d.URL(), Token: person.Token, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	must("session.start", alice, map[string]any{"session_id": person.Session}, nil)
	// Who opens a person's session cannot have it approve what they ask for.
	must("agent.register", op, map[string]any{"agent_id": "planner", "archetypes": []string{"orchestrator"}, "domain": "web"}, nil)
	must("agent.activate", op, map[string]any{"agent_id": "planner"}, nil)
	var plans named
	must("session.open", op, map[string]any{"principal": "planner", "kind": "agent", "role": "orchestrator", "agent_id": "planner", "heartbeat_ttl_s": 300}, &plans)
	planner, err := client.New(client.Config{URL: d.URL(), Token: plans.Token, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	must("session.start", planner, map[string]any{"session_id": plans.Session}, nil)
	var mine named
	must("run.create", planner, map[string]any{"budget": map[string]any{"steps": 100}}, &mine)
	ask := func(key string) string {
		_, err := planner.Invoke(t.Context(), "task.enqueue", map[string]any{"run_id": mine.Run, "key": key, "capability": "mail.send", "required_domain": "web"}, nil)
		if writ.CodeOf(err) != writ.CodeApprovalRequired {
			t.Fatal(err)
		}
		return writ.AsError("", err).Details["approval"]
	}
	pending, approved := ask("mail-1"), ask("mail-2")
	must("approval.decide", alice, map[string]any{"approval_id": approved, "decision": "approve"}, nil)

	// The same gateway, but for its signer.
	validator, err := gateway.NewValidator(d.registry)
	if err != nil {
		t.Fatal(err)
	}
	door, err := guard.New(guard.Config{
		Effectors: map[writ.CapabilityID]guard.Effector{"egress.fetch": d.fetcher},
		Store:     d.store, Registry: d.registry, Decider: d.engine, Sealer: noSigner{d.sealer}, Archive: d.archive(),
		Validator: validator, Origin: d.keys.Origin, Shards: []writ.Tenant{shard}, Seal: d.vault.Seal,
	})
	if err != nil {
		t.Fatal(err)
	}
	operator := credentialOf(t, d)
	inForce := gateOf(t, d).Bundle.Digest()
	another := func() bundles.Upload {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "packs", "budgets", "more.rego"), []byte("package packs.budgets\n\n_more := 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := policies.PackDirectory(dir)
		if err != nil {
			t.Fatal(err)
		}
		return bundles.Upload(base64.StdEncoding.EncodeToString(b))
	}()
	failure := map[string]any{"class": "external", "code": "x", "retryable": true}
	hold := func(more map[string]any) map[string]any {
		out := map[string]any{"task_id": taken.Task, "lease_id": lease.Lease.ID, "fence": lease.Lease.Fence}
		maps.Copy(out, more)
		return out
	}
	task["key"] = "new"
	must("egress.grant", op, map[string]any{"grant_id": "site-api", "host": "a.example", "agents": []string{"builder"}}, nil)
	// Every capability that changes something, with a call that would succeed.
	calls := map[writ.CapabilityID]struct {
		who  *writ.Credential
		args map[string]any
	}{
		"session.open":      {operator, map[string]any{"principal": "auditor", "kind": "human", "role": "auditor"}},
		"session.start":     {freshCred, map[string]any{"session_id": fresh.Session}},
		"session.heartbeat": {idleCred, map[string]any{"session_id": idle.Session}},
		"session.close":     {idleCred, map[string]any{"session_id": idle.Session}},
		"session.revoke":    {operator, map[string]any{"session_id": idle.Session}},
		"session.spawn":     {operator, map[string]any{"agent_id": "caged", "role": "verifier"}},
		"agent.register":    {operator, map[string]any{"agent_id": "another", "archetypes": []string{"executor"}, "domain": "web"}},
		"agent.activate":    {operator, map[string]any{"agent_id": "planned"}},
		"agent.suspend":     {operator, map[string]any{"agent_id": "builder"}},
		"agent.revoke":      {operator, map[string]any{"agent_id": "builder"}},
		"agent.supersede":   {operator, map[string]any{"agent_id": "builder", "successor": "planned"}},
		"agent.retire":      {operator, map[string]any{"agent_id": "builder"}},
		"run.create":        {operator, map[string]any{"budget": map[string]any{"steps": 1}}},
		"run.seal":          {operator, map[string]any{"run_id": run.Run}},
		"run.cancel":        {operator, map[string]any{"run_id": run.Run}},
		"task.enqueue":      {operator, task},
		"task.claim":        {idleCred, map[string]any{"task_id": queued.Task}},
		"task.heartbeat":    {idleCred, hold(nil)},
		"task.complete":     {idleCred, hold(nil)},
		"artifact.put":      {idleCred, hold(map[string]any{"name": "site"})},
		"task.fail":         {idleCred, hold(map[string]any{"failure": failure})},
		"task.release":      {idleCred, hold(nil)},
		"task.verify":       {nil, map[string]any{"task_id": taken.Task, "verdict": "accept", "receipt_id": "rcp_01J00000000000000000000000"}},
		"run.close":         {nil, map[string]any{"run_id": run.Run, "verdict": "accept", "receipt_id": "rcp_01J00000000000000000000000"}},
		"task.cancel":       {operator, map[string]any{"task_id": queued.Task}},
		"approval.decide":   {aliceCred, map[string]any{"approval_id": pending, "decision": "approve"}},
		"approval.revoke":   {operator, map[string]any{"approval_id": approved}},
		"approval.respond":  {nil, map[string]any{"approval_id": pending, "response": map[string]any{}}}, // a decision with an answer
		"policy.stage":      {operator, map[string]any{"bundle": another}},
		"policy.activate":   {nil, map[string]any{"digest": inForce}}, // these write the same documents as staging and adopting
		"policy.rollback":   {nil, map[string]any{}},
		"policy.withdraw":   {nil, map[string]any{"digest": inForce}},
		"role.bind":         {operator, map[string]any{"principal": "somebody", "role": "auditor"}},
		"role.unbind":       {operator, map[string]any{"principal": "nobody", "role": "auditor"}},
		"quota.set":         {operator, map[string]any{"metric": "queued_tasks", "subject": "tenant", "limit": 1000}},
		"key.introduce":     {operator, map[string]any{"public_key": newPublicKey(t)}},
		"key.activate":      {nil, map[string]any{"key_id": d.sealer.KeyID()}}, // these write the same documents as introducing
		"key.retire":        {nil, map[string]any{"key_id": d.sealer.KeyID()}},
		"key.revoke":        {nil, map[string]any{"key_id": d.sealer.KeyID()}},
		"evidence.shred":    {nil, map[string]any{"run_id": run.Run, "reason": "legal_order"}},
		"quota.delete":      {nil, map[string]any{"quota_id": "quo_01J00000000000000000000000"}},
		"egress.grant":      {operator, map[string]any{"grant_id": "site-api", "host": "a.example", "agents": []string{"builder"}}},
		"egress.revoke":     {operator, map[string]any{"grant_id": "site-api"}},
		"egress.fetch":      {idleCred, map[string]any{"grant": "site-api"}},
		"secret.put":        {operator, map[string]any{"name": "stripe", "host": "api.example.com", "value": "s3cret"}},
		"secret.delete":     {nil, map[string]any{"name": "stripe"}},
		"effect.resolve":    {nil, map[string]any{"effect_id": "eff_01J00000000000000000000000", "as": "ok"}},
		// What the gateway does by itself.
		"effect.settle":       {nil, map[string]any{"effect_id": "eff_01J00000000000000000000000", "attempt": 1, "by": "cll_01J00000000000000000000000", "state": "ok"}},
		"effect.expire":       {nil, map[string]any{"effect_id": "eff_01J00000000000000000000000"}},
		"quota.tidy":          {nil, map[string]any{"entity": "quota/quo_01J00000000000000000000000", "field": "window"}},
		"policy.adopt":        {nil, map[string]any{"bundle": another, "replica": d.replica, "receipt_key_id": d.sealer.KeyID(), "force": true}},
		"policy.report":       {nil, map[string]any{"digest": inForce, "replica": d.replica, "ok": true}},
		"key.report":          {nil, map[string]any{"spki": strings.Repeat("00", 32), "replica": d.replica}},
		"policy.beat":         {nil, map[string]any{"replica": d.replica, "seconds": 60}},
		"approval.expire":     {nil, map[string]any{"approval_id": pending}},
		"run.offer":           {nil, map[string]any{"run_id": run.Run}},
		"gate.set":            {nil, map[string]any{"policy_revision": "x", "bindings_revision": "y", "receipt_key_id": "z"}},
		"log.publish":         {nil, map[string]any{"size": 1}},
		"session.jail":        {nil, map[string]any{"session_id": caged.Session, "host": "one", "state": "ended"}},
		"session.jail.lapse":  {nil, map[string]any{"session_id": idle.Session}},
		"session.lapse":       {nil, map[string]any{"session_id": idle.Session}},
		"session.expire":      {nil, map[string]any{"session_id": idle.Session}},
		"session.cleanup":     {nil, map[string]any{"session_id": idle.Session}},
		"agent.cleanup":       {nil, map[string]any{"agent_id": "builder"}},
		"run.unfold":          {nil, map[string]any{"run_id": run.Run, "from": 0, "made": 0}},
		"run.reap":            {nil, map[string]any{"run_id": run.Run}},
		"run.exhaust":         {nil, map[string]any{"run_id": run.Run, "dimension": writ.BudgetSteps, "amount": 2}},
		"run.overrun":         {nil, map[string]any{"run_id": run.Run}},
		"run.stall":           {nil, map[string]any{"run_id": run.Run}},
		"task.untangle":       {nil, map[string]any{"task_id": taken.Task}},
		"run.settle":          {nil, map[string]any{"run_id": run.Run}},
		"run.cascade":         {nil, map[string]any{"run_id": run.Run}},
		"task.expire":         {nil, map[string]any{"task_id": taken.Task}},
		"task.ready":          {nil, map[string]any{"task_id": queued.Task}},
		"task.wake":           {nil, map[string]any{"task_id": taken.Task}},
		"task.admit":          {nil, map[string]any{"task_id": queued.Task}},
		"agent.delegate":      {nil, map[string]any{"run_id": run.Run, "to": "builder", "task": map[string]any{"key": "given", "capability": "site.build"}}},
		"task.handoff":        {nil, hold(map[string]any{"to": map[string]any{"key": "next"}})},
		"task.unreserve":      {nil, map[string]any{"task_id": taken.Task}},
		"task.revive":         {nil, map[string]any{"task_id": queued.Task, "key": "again"}},
		"task.outrun":         {nil, map[string]any{"task_id": taken.Task}},
		"task.overdue":        {nil, map[string]any{"task_id": taken.Task}},
		"task.unblock":        {nil, map[string]any{"task_id": taken.Task}},
		"task.refill":         {nil, map[string]any{"run_id": run.Run, "lane": writ.LaneOf("site.build", "web", 5)}},
		"task.reoffer":        {nil, map[string]any{"task_id": queued.Task}},
		"task.refuse":         {nil, map[string]any{"task_id": queued.Task, "agent_id": "builder", "lane": writ.LaneOf("site.build", "web", 5)}},
		"queue.repair":        {nil, map[string]any{"counters": []map[string]any{{"entity": "run/" + run.Run, "field": "open", "add": 1}}}},
		"agent.settle":        {nil, map[string]any{"agent_id": "builder"}},
		"task.recall":         {nil, map[string]any{"agent_id": "builder"}},
		"approval.withdraw":   {nil, map[string]any{"agent_id": "builder"}},
		"agent.health.record": {nil, map[string]any{"agent_id": "builder"}},
		"artifact.purge":      {nil, map[string]any{"task_id": taken.Task}},
		"artifact.attach":     {nil, map[string]any{"store": strings.Repeat("0", 32)}},
	}
	before := versions(t, d)
	for _, k := range d.registry.All() {
		if k.ReadOnly() || k.ID == "capability.invoke" { // which stands for the others
			continue
		}
		c, ok := calls[k.ID]
		if !ok {
			t.Errorf("no call is known for %s", k.ID)
			continue
		}
		if c.who == nil {
			// Most have nothing to do now; none may do it.
			if _, _, err := door.System(t.Context(), shard, k.ID, c.args, nil); err != nil && gateway.StatusOf(writ.CodeOf(err)) == http.StatusInternalServerError {
				t.Errorf("%s: %v", k.ID, err)
			}
			continue
		}
		raw, err := json.Marshal(c.args)
		if err != nil {
			t.Fatal(err)
		}
		call := &writ.Call{Capability: k.ID, Credential: c.who, Raw: raw}
		if k.ID == "artifact.put" {
			call.Body = empty{}
		}
		if err := door.Stamp(call); err != nil {
			t.Fatal(err)
		}
		_, _, err = door.Do(t.Context(), call)
		if code := writ.CodeOf(err); code != writ.CodeNotReady || gateway.StatusOf(code) != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", k.ID, err)
		}
	}
	if after := versions(t, d); !maps.Equal(before, after) {
		t.Errorf("before %v\nafter  %v", before, after)
	}
	// With its signer the same gateway takes the same calls.
	must("task.complete", other, hold(nil), nil)
}

// versions are those of every document that callers know of, and the sequence
// of the last fact.
func versions(t *testing.T, d *Daemon) map[writ.Key]int64 {
	t.Helper()
	keys := []writ.Key{writ.GateKey}
	for _, m := range members(t, d, writ.IndexAgents) {
		keys = append(keys, writ.AgentKey(writ.AgentID(m.Name)))
	}
	for _, m := range members(t, d, writ.IndexSessions) {
		keys = append(keys, writ.SessionKey(writ.SessionID(m.Name)))
	}
	for _, m := range members(t, d, writ.IndexRuns) {
		keys = append(keys, writ.RunKey(writ.RunID(m.Name)))
		for _, task := range members(t, d, writ.RunTasks(writ.RunID(m.Name))) {
			keys = append(keys, writ.TaskKey(writ.TaskID(task.Name)))
		}
	}
	s, err := d.store.Read(t.Context(), shard, writ.ReadSet{Docs: keys})
	if err != nil {
		t.Fatal(err)
	}
	out := map[writ.Key]int64{}
	for k, doc := range s.Docs {
		out[k] = doc.Version
	}
	head, err := d.store.Head(t.Context(), shard)
	if err != nil {
		t.Fatal(err)
	}
	out["last fact"] = head.Seq
	if len(out) < 8 {
		t.Fatalf("only %v", out)
	}
	return out
}

// empty is a body of no bytes.
type empty struct{}

func (empty) Receive(context.Context, int64) (writ.Received, error) {
	return writ.Received{Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Small: []byte{}}, nil
}
func (empty) Keep(context.Context) error { return nil }

// newPublicKey is the public half of a receipt key nobody has yet, in PEM.
func newPublicKey(t *testing.T) string {
	t.Helper()
	g, err := receipts.Generate(writ.KeyReceipt, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(g.Public)
}
