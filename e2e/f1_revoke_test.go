package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// after reads what was committed after a fact, from every receipt there is.
func (w *world) after(seq int64) (out []statement) {
	w.t.Helper()
	for {
		r := w.op.ok(200, "GET", "/v1/receipts?limit=200&after="+strconv.FormatInt(seq, 10), nil)
		list, _ := r.at("receipts").([]any)
		for _, v := range list {
			b, err := json.Marshal(v.(map[string]any)["statement"])
			if err != nil {
				w.t.Fatal(err)
			}
			var s statement
			if err := json.Unmarshal(b, &s); err != nil {
				w.t.Fatal(err)
			}
			out, seq = append(out, s), s.Predicate.Commit.Seq
		}
		if len(list) == 0 {
			return out
		}
	}
}

// agentsOpenSessions are policies like the shipped ones, under which orchestrators open
// sessions too.
func agentsOpenSessions(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../policies")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "roles", "policy.csv")
	rows, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows = append(rows, "p, role:orchestrator, *, session.open, invoke, allow\n"...)
	if err := os.WriteFile(file, rows, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The kill switch: with the one commit of the revocation no fact of the agent's
// sessions follows, nor of those it opened for others, at any replica, however busy they
// are; what they held, had enqueued, had given to others and had asked for is swept
// behind it, and every receipt of that names the revocation, under which one command
// shows them as a tree. Judged by reading the receipts.
func TestF1RevokedAtOnce(t *testing.T) {
	policies := agentsOpenSessions(t)
	onHostsOf(t, raced, []string{"--policies", policies}, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.op.ok(201, "PUT", "/v1/agents/rogue", obj{
			"archetypes": []string{"orchestrator", "executor"}, "domain": "web", "max_concurrent_tasks": 1000,
			"tools": []obj{{"name": "site.raid", "safety": "mutating"}, {"name": "site.burn", "safety": "destructive"}},
		})
		w.op.ok(200, "POST", "/v1/agents/rogue/activate", nil)
		plans := w.session("rogue", writ.RoleOrchestrator, "rogue")
		works := []caller{w.session("rogue", writ.RoleExecutor, "rogue"), w.session("rogue", writ.RoleExecutor, "rogue").at(w.last())}
		opens := func(by caller, principal string, role writ.Role, agent writ.AgentID) caller { // as world.opened, by an agent
			r := by.ok(201, "POST", "/v1/sessions", obj{"principal": principal, "kind": "agent", "role": role, "agent_id": agent, "heartbeat_ttl_s": 300})
			s := caller{t: t, gw: by.gw, token: r.str("token"), id: writ.SessionID(r.str("session_id")), agent: agent}
			s.ok(200, "POST", "/v1/sessions/"+string(s.id)+"/start", nil)
			return s
		}
		heir := opens(plans, "planner", writ.RoleOrchestrator, "planner") // other agents', and one that stands on two sessions of others
		minion := opens(heir.at(w.last()), "builder", writ.RoleExecutor, "builder")
		w.agent("helper", "web", "executor", "site.raid", []string{}, nil)
		run := plans.ok(201, "POST", "/v1/runs", obj{"title": "a raid", "budget": obj{"steps": 100_000}}).str("run_id")
		ask := func(key, capability string) obj {
			return obj{"run_id": run, "key": key, "capability": capability, "required_domain": "web"}
		}
		// What it set going: a task somebody else works on, one that waits for another,
		// and one people are asked about.
		delegated := plans.ok(201, "POST", "/v1/tasks", ask("delegated", tool)).str("task_id")
		held := c.builder.claim(delegated)
		blocked := plans.ok(201, "POST", "/v1/tasks", with(ask("blocked", tool), "depends_on", []obj{{"key": "delegated"}})).str("task_id")
		pending := plans.waits("POST", "/v1/tasks", ask("burn", "site.burn"))
		mine := c.enqueue("mine", obj{"capability": "site.raid", "backoff_ms": 0}) // somebody else's, which it works on
		l := works[0].claim(mine)
		helper := w.session("helper", writ.RoleExecutor, "helper")
		part := works[0].ok(201, "POST", "/v1/agents/delegate", obj{ // and what it gave to another agent of what it worked on
			"task_id": l.task, "lease_id": l.id, "fence": l.fence, "to": "helper", "task": obj{"key": "part", "capability": "site.raid"},
		}).str("task", "task_id")
		given := helper.claim(part)

		var busy sync.WaitGroup
		stop := make(chan struct{})
		hammer := func(by caller, call func(n int) (method, path string, body obj)) {
			busy.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					method, path, body := call(n)
					if _, err := by.try(method, path, body); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for i, g := range append(w.gw, w.gw[0]) {
			hammer(plans.at(g), func(n int) (string, string, obj) {
				return "POST", "/v1/tasks", ask(fmt.Sprintf("more-%d-%d", i, n), "site.raid")
			})
			hammer(works[1].at(g), func(int) (string, string, obj) { return "POST", "/v1/tasks/claim", obj{} })
			hammer(works[0].at(g), func(int) (string, string, obj) { // leaves receipts of denials
				return "POST", "/v1/runs", obj{"budget": obj{"steps": 1}}
			})
			for _, s := range []caller{works[1], minion} {
				hammer(s.at(g), func(int) (string, string, obj) {
					return "POST", "/v1/sessions/" + string(s.id) + "/heartbeat", nil
				})
			}
			hammer(heir.at(g), func(n int) (string, string, obj) {
				return "POST", "/v1/runs", obj{"budget": obj{"steps": 1}}
			})
		}
		within(t, 20*time.Second, "the agent is at work", func() bool {
			r := w.op.ok(200, "GET", "/v1/tasks?run_id="+run+"&state=running", nil)
			list, _ := r.at("tasks").([]any)
			return len(list) > 3
		})
		revoked := w.op.ok(200, "POST", "/v1/agents/rogue/revoke", obj{"reason": "compromised"})
		theirs := append(works, plans, heir, minion)
		for _, by := range theirs { // while the sweep may not have begun
			for _, g := range w.gw {
				by.at(g).refused(401, writ.CodeUnauthenticated, "POST", "/v1/tasks/claim", nil)
			}
		}
		within(t, 30*time.Second, "all it set going is gone", func() bool {
			return w.op.ok(200, "GET", "/v1/agents/rogue", nil).at("revocation", "swept") == true
		})
		close(stop)
		busy.Wait()

		switchedOff := revoked.receipt()
		seq := w.op.ok(200, "GET", "/v1/receipts/"+string(switchedOff), nil).num("statement", "predicate", "commit", "seq")
		type leaf struct {
			Receipt writ.ReceiptID `json:"receipt_id"`
		}
		var tree struct {
			Complete bool
			Receipts []leaf
		}
		shown := command(t, "receipt", "tree", string(switchedOff), "--data", w.gw[0].data, "--within", "1000000", "-o", "json")
		if err := json.Unmarshal([]byte(shown.stdout), &tree); err != nil || shown.code != 0 || !tree.Complete {
			t.Fatalf("receipt tree: %v %s", err, shown)
		}
		swept := map[writ.CapabilityID]bool{}
		for _, s := range w.after(seq) {
			p := s.Predicate
			if slices.ContainsFunc(theirs, func(by caller) bool { return by.id == p.Actor.Session }) {
				t.Errorf("%s of a session of the agent is %d commits behind its revocation", p.Transition, p.Commit.Seq-seq)
			}
			switch p.Transition {
			case "agent.cleanup", "session.cleanup", "task.recall", "approval.withdraw", "agent.settle":
				swept[p.Transition] = true
				if !slices.Contains(p.Parents, switchedOff) {
					t.Errorf("%s does not name the revocation: %v", p.Transition, p.Parents)
				}
				if !slices.ContainsFunc(tree.Receipts, func(l leaf) bool { return l.Receipt == p.ReceiptID }) {
					t.Errorf("%s is not in the tree of the revocation", p.Transition)
				}
			}
		}
		for _, want := range []writ.CapabilityID{"agent.cleanup", "session.cleanup", "task.recall", "approval.withdraw", "agent.settle"} {
			if !swept[want] {
				t.Errorf("there is no receipt of %s", want)
			}
		}
		for _, task := range []string{delegated, blocked, part} {
			if s := c.state(task); s != writ.TaskCancelled {
				t.Errorf("a task it had enqueued is %s", s)
			}
		}
		c.builder.refused(409, writ.CodeLeaseLost, "POST", "/v1/tasks/"+delegated+"/complete", held.hold(nil))
		helper.refused(409, writ.CodeLeaseLost, "POST", "/v1/tasks/"+part+"/complete", given.hold(nil))
		for _, by := range []caller{heir, minion} {
			if r := w.op.ok(200, "GET", "/v1/sessions/"+string(by.id), nil); r.str("state") != "revoked" || r.str("reason") != "agent_revoked" {
				t.Errorf("a session it had opened is %s", r)
			}
		}
		if r := w.approval(pending); r.str("state") != "revoked" {
			t.Errorf("%s", r)
		}
		if s := c.state(mine); s != writ.TaskQueued { // it was not the agent's to enqueue: others may do it
			t.Errorf("the task it worked on is %s", s)
		}
		for _, state := range []string{"queued", "running", "blocked", "parked"} {
			if r := w.op.ok(200, "GET", "/v1/tasks?run_id="+run+"&state="+state, nil); len(r.at("tasks").([]any)) > 0 {
				t.Errorf("left behind: %s", r)
			}
		}
		// It can come back, with new sessions only.
		w.op.ok(200, "POST", "/v1/agents/rogue/activate", nil)
		plans.refused(401, writ.CodeUnauthenticated, "POST", "/v1/runs", nil)
		w.session("rogue", writ.RoleOrchestrator, "rogue").ok(201, "POST", "/v1/tasks", ask("again", "site.raid"))
	})
}
