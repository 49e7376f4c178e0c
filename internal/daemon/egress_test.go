package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// inside is an agent's session that holds a task and is served on a listener of its own.
type inside struct {
	t       *testing.T
	d       *Daemon
	op      *client.Client
	agent   writ.AgentID
	session writ.SessionID
	run     writ.RunID
	task    writ.TaskID
	lease   writ.LeaseID
	fence   int64
	token   string
	at      net.Addr
	served  chan error
}

// newInside brings an agent to where it works.
func newInside(t *testing.T, d *Daemon, op *client.Client, id string, budget map[string]any) *inside {
	t.Helper()
	in := &inside{t: t, d: d, op: op, agent: writ.AgentID(id), served: make(chan error, 1)}
	in.must("agent.register", map[string]any{
		"agent_id": id, "archetypes": []string{"executor"}, "domain": "web",
		"tools": []map[string]any{{"name": "site." + id, "safety": "mutating"}}, "write_scope": []string{"fs:" + id + "/"},
	}, nil)
	in.must("agent.activate", map[string]any{"agent_id": id}, nil)
	var opened struct {
		SessionID writ.SessionID `json:"session_id"`
		Token     string         `json:"token"`
	}
	in.must("session.open", map[string]any{"principal": id, "kind": "agent", "role": "executor", "agent_id": id, "heartbeat_ttl_s": 300}, &opened)
	in.session, in.token = opened.SessionID, opened.Token
	in.as("session.start", map[string]any{"session_id": opened.SessionID}, nil)
	limits := map[string]any{"steps": 1000}
	for k, v := range budget {
		limits[k] = v
	}
	var run struct {
		ID writ.RunID `json:"run_id"`
	}
	in.must("run.create", map[string]any{"title": "outside", "budget": limits}, &run)
	in.run = run.ID
	var got struct {
		Task  writ.TaskID  `json:"task_id"`
		Lease writ.LeaseID `json:"lease_id"`
		Fence int64        `json:"fence"`
	}
	in.must("task.enqueue", map[string]any{"run_id": run.ID, "key": "one", "capability": "site." + id, "required_domain": "web", "labels": []string{"internal.system"}}, &got)
	in.as("task.claim", map[string]any{"task_id": got.Task}, &got)

	in.task, in.lease, in.fence = got.Task, got.Lease, got.Fence

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in.at = l.Addr()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { in.served <- d.ServeSession(ctx, l, Served{Session: in.session, Jailed: true}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-in.served; err != nil {
			t.Error(err)
		}
	})
	return in
}

func (in *inside) must(id writ.CapabilityID, args map[string]any, out any) {
	in.t.Helper()
	if _, err := in.op.Invoke(in.t.Context(), id, args, out); err != nil {
		in.t.Fatalf("%s: %v", id, err)
	}
}

// as calls with the agent's token, from outside.
func (in *inside) as(id writ.CapabilityID, args map[string]any, out any) {
	in.t.Helper()
	reply, err := in.d.asToken(in.t.Context(), in.token, id, args)
	if err == nil && out != nil {
		err = json.Unmarshal(reply.JSON, out)
	}
	if err != nil {
		in.t.Fatalf("%s: %v", id, err)
	}
}

// grant lets the agent reach what is at an address on loopback.
func (in *inside) grant(id string, at net.Addr, more map[string]any) {
	in.t.Helper()
	_, port, _ := net.SplitHostPort(at.String())
	n, _ := strconv.ParseInt(port, 10, 64)
	args := map[string]any{
		"grant_id": id, "host": "127.0.0.1", "port": n, "scheme": "http", "private": []string{"127.0.0.1/32"}, "agents": []string{string(in.agent)}, "rps": 1000,
		"methods": []string{"GET", "POST"},
	}
	for k, v := range more {
		args[k] = v
	}
	in.must("egress.grant", args, nil)
}

// ask makes a request on the listener and says what came of it.
func (in *inside) ask(method, path, body string, header ...string) (int, string, http.Header) {
	in.t.Helper()
	req, err := http.NewRequestWithContext(in.t.Context(), method, "http://"+in.at.String()+path, strings.NewReader(body))
	if err != nil {
		in.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		in.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		in.t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// code is the code of a refusal, and its rules.
func code(body string) (writ.Code, []string) {
	var p struct {
		Code  writ.Code `json:"code"`
		Rules []string  `json:"rule_ids"`
	}
	_ = json.Unmarshal([]byte(body), &p)
	return p.Code, p.Rules
}

// What an agent does outside is judged, carried out and receipted, in each of the ways
// there are, on both stores.
func TestOutside(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, logged := start(t, t.TempDir(), tune)
		defer func() {
			if t.Failed() {
				t.Log(logged.String())
			}
		}()
		in := newInside(t, d, op, "builder", nil)
		hits := 0
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hits++
			b, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, b, r.Header.Get("Authorization"))
		}))
		defer host.Close()
		if status, body, _ := in.ask("GET", "/egress/site-api/x", ""); status != http.StatusForbidden {
			t.Errorf("without a grant: %d %s", status, body)
		} else if c, rules := code(body); c != writ.CodeEgress || len(rules) == 0 || rules[0] != "egress.ungranted" {
			t.Errorf("without a grant: %s", body)
		}
		in.grant("site-api", host.Listener.Addr(), map[string]any{"path_prefix": "/v1"})
		status, body, h := in.ask("POST", "/egress/site-api/v1/x?y=z", "hello", "Authorization", "Bearer stolen")
		if status != http.StatusOK || body != "POST /v1/x?y=z hello " || hits != 1 {
			t.Fatalf("%d %s, %d requests", status, body, hits)
		}
		effect, intent := h.Get("Effect-Id"), h.Get("Receipt-Id")
		var shown struct {
			State   string         `json:"state"`
			Settled map[string]any `json:"settled"`
		}
		in.must("effect.get", map[string]any{"effect_id": effect}, &shown)
		if shown.State != "ok" || intent == "" {
			t.Errorf("%+v, receipt %s", shown, intent)
		}
		in.must("receipt.get", map[string]any{"receipt_id": intent}, nil)

		status, body, _ = in.ask("POST", "/v1/egress/fetch", `{"grant":"site-api","path":"/v1/y","method":"POST","body":"again","headers":{"X-A":"b"}}`, "Content-Type", "application/json")
		var got struct {
			Status int64  `json:"status"`
			Body   string `json:"body"`
			Up     int64  `json:"up_bytes"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || got.Status != 200 || got.Body != "POST /v1/y again " || got.Up < 5 {
			t.Errorf("fetch: %d %s", status, body)
		}
		if status, body, _ = in.ask("POST", "/v1/egress/fetch", `{"to":"http://`+host.Listener.Addr().String()+`/v1/z"}`, "Content-Type", "application/json"); status != http.StatusOK || !strings.Contains(body, "GET /v1/z") {
			t.Errorf("fetch by url: %d %s", status, body)
		}
		if answer := in.raw("GET http://" + host.Listener.Addr().String() + "/v1/w HTTP/1.1\r\nHost: x\r\n\r\n"); answer.StatusCode != http.StatusOK {
			t.Errorf("as a proxy: %d", answer.StatusCode)
		}
		if hits != 4 {
			t.Errorf("%d requests", hits)
		}
		for _, c := range []struct{ method, path, rule string }{
			{"GET", "/egress/site-api/v2/x", "egress.path"},
			{"GET", "/egress/site-api/v10", "egress.path"},
			{"DELETE", "/egress/site-api/v1/x", "egress.method"},
			{"GET", "/egress/other-api/v1/x", "egress.ungranted"},
		} {
			status, body, _ := in.ask(c.method, c.path, "")
			if cd, rules := code(body); status != http.StatusForbidden || cd != writ.CodeEgress || len(rules) == 0 || rules[0] != c.rule {
				t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
			}
		}
		if answer := in.raw("CONNECT " + host.Listener.Addr().String() + " HTTP/1.1\r\nHost: x\r\n\r\n"); answer.StatusCode != http.StatusForbidden {
			t.Errorf("a tunnel: %d", answer.StatusCode)
		}
		if hits != 4 {
			t.Errorf("%d requests", hits)
		}
		// From outside the jail the same agent gets nowhere.
		if _, err := d.asToken(t.Context(), in.token, "egress.fetch", map[string]any{"grant": "site-api", "path": "/v1/x"}); writ.CodeOf(err) != writ.CodeEgress || !strings.Contains(strings.Join(writ.AsError("", err).Rules, " "), "egress.unjailed") {
			t.Errorf("outside the jail: %v", err)
		}
		// Nor does it grant itself anything.
		if _, err := d.asToken(t.Context(), in.token, "egress.grant", map[string]any{"grant_id": "mine", "host": "a.example", "agents": []string{"builder"}}); writ.CodeOf(err) != writ.CodeRBAC {
			t.Errorf("an agent grants: %v", err)
		}
		in.must("egress.revoke", map[string]any{"grant_id": "site-api"}, nil)
		if status, _, _ := in.ask("GET", "/egress/site-api/v1/x", ""); status != http.StatusForbidden {
			t.Errorf("revoked: %d", status)
		}
		soundQueue(t, d, "after all that")
	})
}

// raw says something on the listener and gives the head of the answer.
func (in *inside) raw(text string) *http.Response {
	in.t.Helper()
	c, err := net.Dial("tcp", in.at.String())
	if err != nil {
		in.t.Fatal(err)
	}
	in.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		in.t.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		in.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}
