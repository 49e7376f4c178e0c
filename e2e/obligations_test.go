package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// owing are the shipped policies with a pack of a team's own whose findings
// oblige the gateway to everything it can do.
func owing(t testing.TB) string {
	t.Helper()
	s := shipped(t)
	s["packs/owed/pack.yaml"] = `manifest:
  id: owed
  version: 1.0.0
  title: What this team wants done
  owner: team
  kind: guard
  match: {capabilities: [run.list, run.seal, task.claim, task.complete, task.enqueue, task.get]}
  effects: [allow, redact, require_approval, deny]
`
	s["packs/owed/data.yaml"] = "config: {lease_s: 60, hidden: [/args/email, /result]}\n"
	s["packs/owed/owed.rego"] = `package packs.owed

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: owed.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "owed.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Short leases
# description: No lease lasts longer than this team likes.
# custom: {id: owed.lease, severity: low, control: liveness}
findings contains {
	"rule": "owed.lease", "effect": "allow", "code": "policy_denied", "message": "leases are short here",
	"obligations": [{"type": "limit", "args": {"argument": "lease_ttl_s", "max": data.owed.config.lease_s}}],
} if {
	input.call.capability == "task.enqueue"
}

# METADATA
# title: Short pages
# description: No page of runs is longer than this team likes.
# custom: {id: owed.page, severity: low, control: load}
findings contains {
	"rule": "owed.page", "effect": "allow", "code": "policy_denied", "message": "pages are short here",
	"obligations": [{"type": "limit", "args": {"argument": "limit", "max": 2}}],
} if {
	input.call.capability == "run.list"
}

# METADATA
# title: A person looks
# description: Work on a chat message is about to be enqueued.
# custom: {id: owed.ask, severity: medium, control: a person looks}
findings contains {
	"rule": "owed.ask", "effect": "require_approval", "code": "approval_required", "message": "a person looks at work on chats",
	"obligations": [{"type": "approval", "args": {"expires_s": 600}}, {"type": "redact", "args": {"fields": ["/task_id"]}}],
} if {
	input.call.capability == "task.enqueue"
	"pii.chat.message" in input.labels
}

# METADATA
# title: Hidden from operators
# description: An operator looks at a task.
# custom: {id: owed.hidden, severity: medium, control: data minimisation}
findings contains {
	"rule": "owed.hidden", "effect": "redact", "code": "policy_denied", "message": "operators need no addresses",
	"obligations": [{"type": "redact", "args": {"fields": data.owed.config.hidden}}],
} if {
	input.call.capability == "task.get"
	input.session.role == "operator"
}

# METADATA
# title: Signed work
# description: Work begins, or is said to be done.
# custom: {id: owed.signed, severity: high, control: non-repudiation}
findings contains {
	"rule": "owed.signed", "effect": "allow", "code": "policy_denied", "message": "who works signs for it",
	"obligations": [{"type": "cosign"}, {"type": "durability", "args": {"level": "committed"}}],
} if {
	input.call.capability in {"task.claim", "task.complete"}
}

# METADATA
# title: Logged
# description: A run is sealed.
# custom: {id: owed.logged, severity: low, control: transparency}
findings contains {
	"rule": "owed.logged", "effect": "allow", "code": "policy_denied", "message": "the world can see it",
	"obligations": [{"type": "durability", "args": {"level": "logged"}}],
} if {
	input.call.capability == "run.seal"
}
`
	return s.dir(t)
}

// onOwingHosts runs a test on both hosts under those policies, at the last of
// their gateways.
func onOwingHosts(t *testing.T, f func(t *testing.T, c cast)) {
	t.Helper()
	t.Parallel()
	dir := owing(t)
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			f(t, newCast(t, newWorld(t, host, "--policies", dir)))
		})
	}
}

// both makes a call as REST and by its name, and wants the same of both.
func (c caller) both(method, path string, body any, id writ.CapabilityID, args obj, header, value, member string) reply {
	c.t.Helper()
	rest := c.do(method, path, body)
	named := c.do("POST", "/v1/invoke", obj{"capability": id, "args": args})
	for _, r := range []reply{rest, named} {
		if r.status >= 300 || r.header.Get(header) != value {
			c.t.Fatalf("want %s: %s, got %q: %s", header, value, r.header.Get(header), r)
		}
	}
	if told, err := json.Marshal(named.at(member)); err != nil || (value == "") != (string(told) == "null") {
		c.t.Fatalf("%s %s is told as %s: %s", header, value, told, named)
	}
	return rest
}

func TestWhatPolicyLimits(t *testing.T) {
	onOwingHosts(t, func(t *testing.T, c cast) {
		long, named := c.task("task-a", obj{"lease_ttl_s": 300}), c.task("task-b", obj{"lease_ttl_s": 300})
		r := c.orc.at(c.last()).both("POST", "/v1/tasks", long, "task.enqueue", named, "Policy-Limited", "lease_ttl_s=60", "limited")
		for _, by := range []reply{r, c.orc.ok(200, "GET", "/v1/tasks/"+r.str("task_id"), nil)} {
			if got := by.num("lease_ttl_s"); got != 60 {
				t.Errorf("the lease lasts %d s: %s", got, by)
			}
		}
		c.orc.both("POST", "/v1/tasks", c.task("task-c", obj{"lease_ttl_s": 60}), "task.enqueue", c.task("task-d", obj{"lease_ttl_s": 20}), "Policy-Limited", "", "limited")
		ev := c.op.ok(200, "GET", "/v1/receipts/"+string(r.receipt())+"/evidence", nil)
		if text := ev.str("text"); !strings.Contains(text, `"lease_ttl_s":300`) || !strings.Contains(text, `"limited":[{"argument":"lease_ttl_s","max":60}]`) || !strings.Contains(text, "owed.lease") {
			t.Errorf("the evidence: %s", text)
		}
		for range 3 {
			c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 5}})
		}
		page := c.orc.ok(200, "GET", "/v1/runs?limit=50", nil)
		if runs, _ := page.at("runs").([]any); len(runs) != 2 || page.header.Get("Policy-Limited") != "limit=2" {
			t.Errorf("a page of two has %d runs, limited %q", len(runs), page.header.Get("Policy-Limited"))
		}
		no := c.orc.refused(403, "policy_denied", "POST", "/v1/tasks", c.task("task-e", nil))
		if !strings.Contains(no.str("hint"), "lease_ttl_s") || no.receipt() == "" {
			t.Errorf("left out: %s", no)
		}
	})
}

func TestWhatPolicyRedacts(t *testing.T) {
	onOwingHosts(t, func(t *testing.T, c cast) {
		task := c.enqueue("task-a", obj{"lease_ttl_s": 60, "args": obj{"email": "ada@example.org", "n": 7, "deep": obj{"email": "kept"}}})
		op := c.op.at(c.last())
		r := op.both("GET", "/v1/tasks/"+task, nil, "task.get", obj{"task_id": task}, "Policy-Redacted", `"/args/email"`, "redacted")
		if strings.Contains(string(r.body), "ada@") || r.str("args", "email") != "[redacted]" || r.num("args", "n") != 7 || r.str("args", "deep", "email") != "kept" {
			t.Errorf("shown: %s", r)
		}
		if r = c.orc.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("args", "email") != "ada@example.org" || r.header.Get("Policy-Redacted") != "" {
			t.Errorf("the owner: %s", r)
		}
		// People are asked about the call that would run; auditors see that they were.
		work := c.task("chat", obj{"lease_ttl_s": 300, "labels": []string{"pii.chat.message"}, "args": obj{"text": "hello"}})
		wait := c.orc.do("POST", "/v1/tasks", work, "Idempotency-Key", "chat")
		if wait.status != 202 || wait.header.Get("Policy-Limited") != "lease_ttl_s=60" || wait.header.Get("Policy-Redacted") != "" {
			t.Fatalf("want to wait for people, got %s %v", wait, wait.header)
		}
		approval := "/v1/approvals/" + wait.str("approval_id")
		auditor := c.session("ada", writ.RoleAuditor, "")
		r = auditor.both("GET", approval, nil, "approval.get", obj{"approval_id": wait.str("approval_id")}, "Policy-Redacted", `"/args"`, "redacted")
		if strings.Contains(string(r.body), "hello") || r.str("state") != "pending" || !strings.Contains(string(r.body), "pii.chat.message") {
			t.Errorf("the auditor: %s", r)
		}
		done := c.enqueue("told", obj{"lease_ttl_s": 60, "summary": "ada wants", "labels": []string{"pii.chat.metadata"}})
		for path, what := range map[string]string{"/v1/tasks/" + done: `"/args", "/summary"`, "/v1/tasks?run_id=" + c.run: `"/tasks/*/summary"`} {
			r = auditor.ok(200, "GET", path, nil)
			if r.header.Get("Policy-Redacted") != what || strings.Contains(string(r.body), "ada wants") || !strings.Contains(string(r.body), done) {
				t.Errorf("the auditor at %s, without %s: %s", path, r.header.Get("Policy-Redacted"), r)
			}
		}
		r = auditor.both("GET", "/v1/approvals", nil, "approval.list", obj{}, "Policy-Redacted", `"/approvals/*/args"`, "redacted")
		if strings.Contains(string(r.body), "hello") || !strings.Contains(string(r.body), wait.str("approval_id")) {
			t.Errorf("the auditor: %s", r)
		}
		alice := c.alice()
		if r = alice.ok(200, "GET", approval, nil); r.num("args", "lease_ttl_s") != 60 || r.str("args", "args", "text") != "hello" || r.header.Get("Policy-Redacted") != "" {
			t.Errorf("the approver: %s", r)
		}
		alice.approve(wait.str("approval_id"))
		first := c.orc.ok(201, "POST", "/v1/tasks", work, "Idempotency-Key", "chat")
		again := c.orc.at(c.last()).ok(201, "POST", "/v1/tasks", work, "Idempotency-Key", "chat")
		for _, r := range []reply{first, again} {
			if r.str("task_id") != "[redacted]" || r.num("lease_ttl_s") != 60 || r.header.Get("Policy-Redacted") != `"/task_id"` || r.header.Get("Policy-Limited") != "lease_ttl_s=60" {
				t.Errorf("once approved: %s %v", r, r.header)
			}
		}
		if again.header.Get("Idempotency-Replayed") != "true" || string(again.body) != string(first.body) {
			t.Errorf("got %s, want %s", again, first)
		}
	})
}

func TestWhatCallersSign(t *testing.T) {
	onOwingHosts(t, func(t *testing.T, c cast) {
		path := filepath.Join(t.TempDir(), "signer.pem")
		key, public := newKey(t, path)
		c.agent("signer", "web", "executor", tool, []string{"fs:other/"}, obj{"keys": []string{public}})
		signer := c.session("signer", writ.RoleExecutor, "signer")
		keyID := c.op.ok(200, "GET", "/v1/agents/signer", nil).at("keys").([]any)[0].(obj)["id"]
		if keyID != key.KeyID() {
			t.Fatalf("registered as %v, want %s", keyID, key.KeyID())
		}
		sign := func(id writ.CapabilityID, args obj, idem string) []string {
			b, err := json.Marshal(args)
			if err != nil {
				t.Fatal(err)
			}
			h, err := key.Header(writ.Cosigned{Capability: id, IdempotencyKey: idem, Session: signer.id, Tenant: "default"}, b)
			if err != nil {
				t.Fatal(err)
			}
			return []string{"Idempotency-Key", idem, "Cosignature", h}
		}
		first := c.enqueue("task-a", obj{"lease_ttl_s": 60})
		if no := signer.refused(403, "policy_denied", "POST", "/v1/tasks/claim", obj{}); !strings.Contains(no.str("hint"), "Cosignature") {
			t.Errorf("unsigned: %s", no)
		}
		signer.refused(400, "malformed", "POST", "/v1/tasks/claim", obj{}, "Cosignature", "v1 me")
		// What waits for work is signed for whatever comes.
		args := obj{"wait_s": 10}
		l := leaseOf(signer.ok(200, "POST", "/v1/tasks/claim", args, sign("task.claim", args, "claim")...))
		if l.task != first {
			t.Fatalf("claimed %+v", l)
		}
		// The path's parameter is an argument like any other.
		body := l.hold(obj{"result": obj{"ok": true}})
		signed := l.hold(obj{"result": obj{"ok": true}, "task_id": l.task})
		at := signer.at(c.last())
		at.refused(403, "policy_denied", "POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"result": obj{"ok": false}}), sign("task.complete", signed, "done")...)
		done := at.ok(200, "POST", "/v1/tasks/"+l.task+"/complete", body, sign("task.complete", signed, "done")...)
		ev := c.op.ok(200, "GET", "/v1/receipts/"+string(done.receipt())+"/evidence", nil)
		if !strings.Contains(ev.str("text"), `"cosigned":{"key_id":"`+key.KeyID()) {
			t.Errorf("the evidence: %s", ev)
		}
		// The same by name, as the command line sends it.
		second := c.enqueue("task-b", obj{"lease_ttl_s": 60})
		token := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(token, []byte(signer.token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := command(t, "task", "claim", second, "--url", c.last().url, "--token-file", token, "--cosign-key", path, "-o", "json"); r.code != 0 || !strings.Contains(r.stdout, second) {
			t.Fatalf("writ task claim: %s", r)
		}
		// An agent without keys, and a person, cannot sign.
		c.enqueue("task-c", obj{"lease_ttl_s": 60})
		c.builder.refused(403, "policy_denied", "POST", "/v1/tasks/claim", obj{}, sign("task.claim", obj{}, "mine")...)
	})
}

// A change waits for a store that keeps it, whatever the store did before.
func TestWhatStoresPromise(t *testing.T) {
	onOwingHosts(t, func(t *testing.T, c cast) {
		sealed := c.orc.at(c.last()).ok(200, "POST", "/v1/runs/"+c.run+"/seal", obj{})
		if r := c.session("ada", writ.RoleAuditor, "").at(c.gw[0]).ok(200, "GET", "/v1/receipts/"+string(sealed.receipt()), nil); r.at("included") != true {
			t.Errorf("logged, and not in the log when it is answered: %s", r)
		}
		if c.redis == nil {
			return
		}
		path := filepath.Join(t.TempDir(), "signer.pem")
		_, public := newKey(t, path)
		c.agent("signer", "web", "executor", tool, []string{"fs:other/"}, obj{"keys": []string{public}})
		signer := c.session("signer", writ.RoleExecutor, "signer")
		c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100}}).str("run_id")
		task := c.enqueue("task-a", obj{"lease_ttl_s": 60})
		token := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(token, []byte(signer.token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		claim := func() result {
			return command(t, "task", "claim", task, "--url", c.last().url, "--token-file", token, "--cosign-key", path)
		}
		c.redis.Command("CONFIG", "SET", "appendfsync", "everysec")
		if r := claim(); r.code == 0 || !strings.Contains(r.stderr, "the store does not promise that") {
			t.Errorf("a store that does not sync: %s", r)
		}
		c.redis.Command("CONFIG", "SET", "appendfsync", "always")
		if r := claim(); r.code != 0 {
			t.Errorf("a store that syncs: %s", r)
		}
	})
}

// newKey makes a key, its private half in a file.
func newKey(t testing.TB, path string) (*receipts.CosignKey, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(public); err != nil {
		t.Fatal(err)
	}
	key, err := receipts.LoadCosignKey(path)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
