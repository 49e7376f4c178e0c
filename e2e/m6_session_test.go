package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// A session that was opened and not started does nothing but start, or end.
func TestM6T1ClaimBeforeTheStart(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("one", nil)
		r := w.op.ok(201, "POST", "/v1/sessions", obj{"principal": "builder", "kind": "agent", "role": "executor", "agent_id": "builder"})
		fresh := caller{t: t, gw: w.last(), token: r.str("token"), id: writ.SessionID(r.str("session_id")), agent: "builder"}
		for _, path := range []string{"/v1/tasks/claim", "/v1/tasks/" + task + "/claim"} {
			r := fresh.refused(409, writ.CodeIllegal, "POST", path, nil)
			if !strings.Contains(string(r.body), "lifecycle.session_inactive") || r.receipt() == "" {
				t.Errorf("got %s", r)
			}
		}
		if s := c.state(task); s != writ.TaskQueued {
			t.Fatalf("the task is %s", s)
		}
		own := "/v1/sessions/" + string(fresh.id)
		fresh.ok(200, "POST", own+"/start", nil)
		fresh.refused(409, writ.CodeIllegal, "POST", own+"/start", nil)
		fresh.complete(fresh.claim(task))
		w.audited()
	})
}

// agentTask names the task that beAnAgent works on.
const agentTask = "WRIT_E2E_AGENT_TASK"

// beAnAgent is an agent as its own process: it starts its session, claims a task, says
// so, and keeps both for as long as it lives.
func beAnAgent() int {
	ctx := context.Background()
	c, err := client.New(client.Config{URL: os.Getenv("WRIT_URL"), TokenFile: os.Getenv("WRIT_TOKEN_FILE")})
	var held *client.Claimed
	if err == nil {
		_, err = c.StartSession(ctx, writ.SessionID(os.Getenv("WRIT_E2E_AGENT_SESSION")))
	}
	if err == nil {
		held, err = c.Claim(ctx, client.ClaimOptions{Task: writ.TaskID(os.Getenv(agentTask))})
	}
	for n := int64(1); err == nil; n++ {
		if _, err = c.Heartbeat(ctx, held, &client.Progress{Pct: 50, Seq: n}); err == nil {
			fmt.Println(held.Lease.ID, held.Lease.Fence, n)
			time.Sleep(200 * time.Millisecond)
		}
	}
	fmt.Println(err)
	return 1
}

// An agent whose process is killed sends no more heartbeats: its lease ends, the task
// is queued again and its scopes are free, with a receipt; its session is suspended,
// and is good for nothing until it is heard again.
func TestM6T2KilledAgent(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("one", obj{"lease_ttl_s": 2, "backoff_ms": 0, "write_scopes": []string{"fs:repo/x/"}})
		killed := w.openedOnly("builder", obj{"heartbeat_ttl_s": 10}).at(w.last())
		token := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(token, []byte(killed.token), 0o600); err != nil {
			t.Fatal(err)
		}
		agent := exec.Command(os.Args[0])
		agent.Env = append(environ(t), agentTask+"="+task, "WRIT_E2E_AGENT_SESSION="+string(killed.id), "WRIT_URL="+killed.gw.url, "WRIT_TOKEN_FILE="+token)
		out, err := agent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := agent.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = agent.Process.Kill(), agent.Wait() })
		l := lease{task: task}
		for said, n := bufio.NewScanner(out), 0; n < 15; { // for longer than a lease lasts
			if !said.Scan() {
				t.Fatal("the agent ended by itself")
			}
			if _, err := fmt.Sscan(said.Text(), &l.id, &l.fence, &n); err != nil {
				t.Fatalf("the agent says %q", said.Text())
			}
		}
		if r := w.op.ok(200, "GET", "/v1/tasks/"+task, nil); r.str("state") != "running" || r.num("attempt") != 1 {
			t.Fatalf("while the agent lives: %s", r)
		}
		if err := agent.Process.Kill(); err != nil { // SIGKILL
			t.Fatal(err)
		}

		c.becomes(task, writ.TaskQueued)
		if list, _ := w.op.ok(200, "GET", "/v1/scopes?under=fs:repo/", nil).at("scopes").([]any); len(list) != 0 {
			t.Errorf("still held: %v", list)
		}
		again := c.builder.claim(task)
		if again.fence <= l.fence {
			t.Errorf("the fence went from %d to %d", l.fence, again.fence)
		}
		killed.refused(409, writ.CodeLeaseLost, "POST", "/v1/tasks/"+task+"/complete", l.hold(nil))
		c.builder.complete(again)
		expired := 0
		_, all := w.export()
		for _, s := range all {
			if p := s.Predicate; p.Transition == "task.expire" && len(p.Changes) == 1 && p.Changes[0] == (writ.Change{Kind: writ.ObjectTask, ID: task, From: "running", To: "queued"}) {
				expired++
			}
		}
		if expired != 1 {
			t.Errorf("%d receipts of the end of its lease", expired)
		}

		own := "/v1/sessions/" + string(killed.id)
		within(t, 30*time.Second, "the silent session is suspended", func() bool { return w.op.ok(200, "GET", own, nil).str("state") == "suspended" })
		killed.refused(409, writ.CodeIllegal, "POST", "/v1/tasks/claim", nil)
		if r := killed.ok(200, "POST", own+"/heartbeat", nil); r.str("state") != "active" {
			t.Errorf("heard again it is %s", r)
		}
		w.audited()
	})
}

// A session ends once, however many say so at once, and gives back what it held once.
// From then on its token is nobody's: at no replica, and for no call there is.
func TestM6T3T4AfterTheEnd(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		for verb, ends := range map[string]func(s caller) map[int]int{
			"close": func(s caller) map[int]int {
				return w.race(8, s, "POST", "/v1/sessions/"+string(s.id)+"/close", obj{})
			},
			"revoke": func(s caller) map[int]int {
				return w.race(8, w.op, "POST", "/v1/sessions/"+string(s.id)+"/revoke", obj{})
			},
		} {
			s := c.another()
			task := c.enqueue(verb, obj{"backoff_ms": 0, "write_scopes": []string{"fs:repo/x/"}})
			s.claim(task)
			late := map[string]int{"close": 401, "revoke": 409}[verb]
			if got := ends(s); got[200] != 1 || got[late] != 7 {
				t.Fatalf("%s eight times at once: %v", verb, got)
			}
			c.becomes(task, writ.TaskQueued)
			ended := w.op.ok(200, "GET", "/v1/sessions/"+string(s.id), nil)
			w.op.refused(409, writ.CodeIllegal, "POST", "/v1/sessions/"+string(s.id)+"/revoke", nil)
			if r := w.op.at(w.last()).ok(200, "GET", "/v1/sessions/"+string(s.id), nil); string(r.body) != string(ended.body) {
				t.Errorf("%s, and again: %s, then %s", verb, ended, r)
			}

			stand := strings.NewReplacer("{session_id}", string(s.id), "{agent_id}", "builder", "{run_id}", c.run, "{task_id}", task, "{", "", "}", "")
			for _, op := range w.operations() {
				for _, g := range w.gw {
					s.at(g).refused(401, writ.CodeUnauthenticated, op.method, stand.Replace(op.path), op.body())
				}
			}
			c.builder.complete(c.builder.claim(task))

			moved := map[string]int{}
			_, all := w.export()
			for _, r := range all {
				for _, m := range r.Predicate.Changes {
					if m.ID == string(s.id) || m.ID == task && r.Predicate.Transition == "session.cleanup" {
						moved[string(r.Predicate.Transition)+" "+m.To]++
					}
				}
			}
			if moved["session."+verb+" "+ended.str("state")] != 1 || moved["session.cleanup queued"] != 1 || len(moved) != 4 {
				t.Errorf("%s: its receipts say %v", verb, moved)
			}
		}
		w.audited()
	})
}
