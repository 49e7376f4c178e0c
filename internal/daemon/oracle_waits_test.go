package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// asking is a folder of policies under which work waits for people: a run whose steps are
// used up may be given more, some tasks may not be begun before somebody agrees, and
// others not be completed.
func asking(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	budgets := filepath.Join("packs", "budgets", "data.yaml")
	b, err := os.ReadFile(filepath.Join(dir, budgets))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		budgets: strings.NewReplacer("on_exceed: {}", "on_exceed: {steps: approval_required}", "    steps: 100\n", "    steps: 5\n").Replace(string(b)),
		"packs/ask/pack.yaml": `manifest:
  id: ask
  version: 1.0.0
  title: What this team wants to be asked
  owner: team
  kind: guard
  match: {capabilities: [task.claim, task.complete]}
  effects: [deny, require_approval]
`,
		"packs/ask/ask.rego": `package packs.ask

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: ask.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "ask.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Checking
# description: Something is checked.
# custom: {id: ask.check, severity: low, control: a person looks}
findings contains {
	"rule": "ask.check", "effect": "require_approval", "code": "approval_required", "message": "a person agrees before it is begun",
	"obligations": [{"type": "approval", "args": {"scope": "task", "expires_s": 600}}],
} if {
	input.call.capability == "task.claim"
	input.task.capability == "site.check"
}

# METADATA
# title: Stamping
# description: Something is stamped.
# custom: {id: ask.stamp, severity: low, control: a person looks}
findings contains {
	"rule": "ask.stamp", "effect": "require_approval", "code": "approval_required", "message": "a person agrees before it is done",
	"obligations": [{"type": "approval", "args": {"scope": "call", "expires_s": 600}}],
} if {
	input.call.capability == "task.complete"
	input.task.capability == "site.stamp"
}
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// waits says whether a call that was made is one that people are asked about, now or since
// it was made before.
func waits(err error, status string) bool {
	return err == nil && status == "approval_required" || writ.CodeOf(err) == writ.CodeApprovalRequired
}

// silence has the caller give no sign of life for as long as a session may without, which
// is put behind it, until its session is suspended.
func (c *caller) silence() {
	id := writ.SessionKey(writ.SessionID(c.ses))
	beat := writ.Counter{Entity: string(id), Field: "beat"}
	s := readOf(c.t, c.at, writ.ReadSet{Docs: []writ.Key{id}, Counters: []writ.Counter{beat}})
	ses, version, _, err := writ.Get[writ.Session](s, id)
	due := s.Counters[beat]
	if err != nil || ses.State != writ.SessionActive || due <= s.Now {
		return
	}
	call := writ.Call{}
	if err := c.at.door.Stamp(&call); err != nil {
		c.t.Error(err)
		return
	}
	tx := writ.Tx{Call: call.ID}
	tx.Expect(id, version)
	tx.Within(beat, due, due)
	tx.Add(beat, s.Now-1-due)
	tx.Index(writ.IndexBeats, c.ses, s.Now-1)
	if _, err := c.at.store.Commit(c.t.Context(), shard, tx); err != nil {
		return // it has ended meanwhile
	}
	for range 40 {
		if docOf[writ.Session](c.t, c.at, id).State != writ.SessionActive {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// comeBack goes on with the caller's session where it was only silent, and else with
// another one.
func (c *caller) comeBack() {
	if c.do("session.heartbeat", map[string]any{"session_id": c.ses}, nil) == nil {
		return
	}
	_ = c.enter(map[string]any{"principal": c.agent, "kind": "agent", "role": "executor", "agent_id": c.agent, "heartbeat_ttl_s": 300})
}

// replaceTight makes another run whose steps are soon used up: the one of before may have
// been given no more.
func (c *caller) replaceTight() {
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	if err := c.do("run.create", map[string]any{"budget": map[string]any{"steps": 10}}, &run); err != nil {
		c.t.Error(err)
		return
	}
	c.runs = append(c.runs, c.runs[2])
	c.runs[2] = run.ID
}
