package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/store"
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
		"tools": []map[string]any{{"name": "site." + id, "safety": "mutating", "costs": map[string]any{"net_egress_bytes": 0, "net_ingress_bytes": 0}}}, "write_scope": []string{"fs:" + id + "/"},
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
		return 0, err.Error(), nil
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error(), nil // it was cut off
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

// take has the agent claim a task of another kind of data, besides the one it holds, and
// gives what it shows as its holder.
func (in *inside) take(key string, labels ...writ.Label) map[string]any {
	in.t.Helper()
	var got struct {
		Task  writ.TaskID `json:"task_id"`
		Lease struct {
			ID    writ.LeaseID `json:"id"`
			Fence int64        `json:"fence"`
		} `json:"lease"`
	}
	in.must("task.enqueue", map[string]any{"run_id": in.run, "key": key, "capability": "site." + string(in.agent), "required_domain": "web", "labels": labels}, &got)
	in.as("task.claim", map[string]any{"task_id": got.Task}, &got)
	return map[string]any{"task_id": got.Task, "lease_id": got.Lease.ID, "fence": got.Lease.Fence}
}

// A session that has had a task whose data may not leave sends nothing any more, also
// once it has given the task back.
func TestWhatWasReadMayNotLeave(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		host := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), nil)
		if status, body, _ := in.ask("GET", "/egress/site-api/x", ""); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		in.as("task.release", in.take("restricted", writ.LabelExternalUntrusted), nil)
		status, body, _ := in.ask("GET", "/egress/site-api/x", "")
		if c, rules := code(body); status != http.StatusForbidden || c != writ.CodeClassification || !slices.Contains(rules, "egress.classification") {
			t.Errorf("%d %s", status, body)
		}
	})
}

// As many exchanges are under way as the grant says, and one more when one has ended. One
// that was refused for that has sent nothing, which is known.
func TestExchangesAtATime(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		began, let := make(chan struct{}, 3), make(chan struct{})
		host := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { began <- struct{}{}; <-let }))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), map[string]any{"conns": 2})
		ended := make(chan int, 2)
		for range 2 {
			go func() {
				status, _, _ := in.ask("GET", "/egress/site-api/x", "")
				ended <- status
			}()
			<-began
		}
		status, body, head := in.ask("POST", "/egress/site-api/x", "")
		var p struct {
			Details map[string]string `json:"details"`
		}
		_ = json.Unmarshal([]byte(body), &p)
		if is, _ := code(body); status != http.StatusTooManyRequests || is != writ.CodeQuota || head.Get("Retry-After") == "" || len(began) != 0 {
			t.Errorf("a third: %d %s", status, body)
		}
		if got := in.became(p.Details["effect"]); got != "error quota_exceeded" {
			t.Errorf("a third: %s", got)
		}
		let <- struct{}{}
		if status := <-ended; status != http.StatusOK {
			t.Errorf("one of two: %d", status)
		}
		close(let)
		if status, body, _ := in.ask("POST", "/egress/site-api/x", ""); status != http.StatusOK {
			t.Errorf("once one has ended: %d %s", status, body)
		}
		if status := <-ended; status != http.StatusOK {
			t.Errorf("one of two: %d", status)
		}
	})
}

// became waits until it is known what became of an effect, and says it with its code.
func (in *inside) became(effect string) string {
	in.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var is struct {
			State string    `json:"state"`
			Code  writ.Code `json:"code"`
		}
		in.must("effect.get", map[string]any{"effect_id": effect}, &is)
		if is.State != string(writ.IntentUnderWay) || time.Now().After(end) {
			return strings.TrimSpace(is.State + " " + string(is.Code))
		}
	}
}

// What a host has answered has happened, whatever the agent has had of the answer. It is
// said why that was not all, and nobody takes the request for one that failed.
func TestWhatWasAnsweredHasHappened(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			switch r.URL.Path {
			case "/large":
				_, _ = w.Write(make([]byte, 50_000))
			case "/declared":
				w.Header().Set("Content-Length", "50000")
			case "/short":
				w.Header().Set("Content-Length", "100")
			case "/upgrade":
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
				_ = c.Close()
			case "/long": // for as long as somebody listens
				for r.Context().Err() == nil {
					_, _ = w.Write(make([]byte, 10))
					_ = http.NewResponseController(w).Flush()
					time.Sleep(10 * time.Millisecond)
				}
			}
		}))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), nil)

		for _, c := range []struct{ path, became string }{
			{"/large", "ok too_large"},
			{"/declared", "ok budget_exceeded"}, // its head says that it does not fit
			{"/short", "ok effect_failed"},
			{"/upgrade", "ok effect_failed"},
			{"/ok", "ok"},
		} {
			_, body, _ := in.ask("POST", "/v1/egress/fetch", `{"grant":"site-api","path":"`+c.path+`","method":"POST","max_bytes":1000}`, "Content-Type", "application/json")
			var p struct {
				ID      string            `json:"effect_id"`
				Details map[string]string `json:"details"`
			}
			_ = json.Unmarshal([]byte(body), &p)
			if got := in.became(p.ID + p.Details["effect"]); got != c.became {
				t.Errorf("%s: %s, want %s; %s", c.path, got, c.became, body)
			}
		}

		// While an answer streams the agent hangs up; or it is cut off.
		listen := func() (*http.Response, string) {
			t.Helper()
			req := mustRequest(t, "http://"+in.at.String()+"/egress/site-api/long")
			req.Method = http.MethodPost
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			return res, res.Header.Get("Effect-Id")
		}
		res, effect := listen()
		_ = res.Body.Close()
		if got := in.became(effect); got != "ok effect_stopped" {
			t.Errorf("hung up: %s", got)
		}
		res, effect = listen()
		in.take("restricted", writ.LabelExternalUntrusted)
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("what was cut off looks whole")
		}
		_ = res.Body.Close()
		if got := in.became(effect); got != "ok effect_stopped" {
			t.Errorf("cut off: %s", got)
		}
	})
}

// What an agent wants of the gateway as its proxy and is refused leaves a receipt, also
// where it does not even say in the one way there is where it wants to go.
func TestDenialsOfTheProxyAreReceipted(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		in.grant("site-api", in.at, nil)
		for _, head := range []string{
			"GET http://HOST.example/ HTTP/1.1", "GET https://host.example/ HTTP/1.1", "GET http://host.example/a/../b HTTP/1.1",
			"CONNECT HOST.example:443 HTTP/1.1", "CONNECT host.example HTTP/1.1", "CONNECT host.example:443 HTTP/1.1",
			"GET /egress/Site/ HTTP/1.1", "GET /egress/site-api/%2e%2e/x HTTP/1.1", "TRACE /egress/site-api/x HTTP/1.1",
		} {
			answer := in.raw(head + "\r\nHost: x\r\n\r\n")
			receipt := answer.Header.Get("Receipt-Id")
			if answer.StatusCode != http.StatusForbidden || receipt == "" {
				t.Errorf("%s: %d, receipt %q", head, answer.StatusCode, receipt)
				continue
			}
			var ev struct {
				Evidence struct {
					Object struct {
						Args map[string]any `json:"args"`
					} `json:"object"`
				} `json:"evidence"`
			}
			in.must("receipt.evidence", map[string]any{"receipt_id": receipt}, &ev)
			method, to, _ := strings.Cut(strings.TrimSuffix(head, " HTTP/1.1"), " ")
			if a := ev.Evidence.Object.Args; a["mode"] == nil && (a["to"] != to || a["method"] != method) {
				t.Errorf("%s: the evidence has %v", head, a)
			}
		}
		counted := 0 // beyond what a principal has receipts for
		for range 60 {
			answer := in.raw("CONNECT HOST.example:443 HTTP/1.1\r\nHost: x\r\n\r\n")
			if answer.StatusCode != http.StatusForbidden {
				t.Errorf("%d", answer.StatusCode)
			}
			if answer.Header.Get("Receipt-Id") == "" {
				counted++
			}
		}
		if counted == 0 {
			t.Error("an agent has receipts written as fast as it can ask")
		}
	})
}

// As many grants for a host as are looked at fit into one commit, and where there are
// more the refusal says it, not that there is none.
func TestManyGrantsForAHost(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		host := httptest.NewServer(http.NotFoundHandler())
		defer host.Close()
		var other struct {
			ID writ.RunID `json:"run_id"`
		}
		in.must("run.create", map[string]any{"title": "another", "budget": map[string]any{"steps": 1}}, &other)
		for i := range 127 {
			in.grant(fmt.Sprintf("b-%03d", i), host.Listener.Addr(), map[string]any{"run_id": other.ID})
		}
		in.grant("mine", host.Listener.Addr(), nil)
		get := "GET http://" + host.Listener.Addr().String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		if answer := in.raw(get); answer.StatusCode != http.StatusNotFound || answer.Header.Get("Effect-Id") == "" {
			t.Errorf("behind 127: %d %v", answer.StatusCode, answer.Header)
		}
		in.grant("a-first", host.Listener.Addr(), map[string]any{"run_id": other.ID})
		answer := in.raw(get)
		if answer.StatusCode != http.StatusForbidden || answer.Header.Get("Receipt-Id") == "" {
			t.Errorf("behind 128: %d %v", answer.StatusCode, answer.Header)
		}
		_, err := d.asToken(t.Context(), in.token, "egress.fetch", map[string]any{"to": "http://" + host.Listener.Addr().String() + "/"})
		if writ.CodeOf(err) != writ.CodeEgress || !strings.Contains(fmt.Sprint(err), "more grants") {
			t.Errorf("behind 128: %v", err)
		}
		if status, body, _ := in.ask("GET", "/egress/mine/", ""); status != http.StatusNotFound {
			t.Errorf("by its name: %d %s", status, body)
		}
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

// N15: elsewhere a jail left the network open. Here what leads out is the listener, and
// behind it are grants: not hosts of the house, not the gateway itself, not what a
// name turns out to be.
func TestN15OnlyGrantsLeadOut(t *testing.T) {
	d, op, _ := start(t, t.TempDir())
	in := newInside(t, d, op, "builder", nil)
	hits := 0
	house := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer house.Close()
	gatewayAt := strings.TrimPrefix(d.URL(), "http://")
	for _, to := range []string{house.Listener.Addr().String(), gatewayAt, "169.254.169.254", "metadata.google.internal", "localhost:1", "2130706433"} {
		if res := in.raw("GET http://" + to + "/ HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", to, res.StatusCode)
		}
		if res := in.raw("CONNECT " + to + ":443 HTTP/1.1\r\nHost: x\r\n\r\n"); res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusBadRequest {
			t.Errorf("CONNECT %s: %d", to, res.StatusCode)
		}
	}
	// A host on the internet does not lie in the house, whatever its name says.
	in.grant("plain", house.Listener.Addr(), map[string]any{"private": []string{"10.0.0.0/8"}})
	if status, body, _ := in.ask("GET", "/egress/plain/", ""); status != http.StatusForbidden {
		t.Errorf("another network is granted: %d %s", status, body)
	}
	// Not even an operator lets an agent reach the gateway from outside itself.
	own, err := net.ResolveTCPAddr("tcp", gatewayAt)
	if err != nil {
		t.Fatal(err)
	}
	in.grant("self", own, nil)
	if status, body, _ := in.ask("POST", "/egress/self/v1/approvals", ""); status != http.StatusForbidden {
		t.Errorf("the gateway itself: %d %s", status, body)
	}
	if hits != 0 {
		t.Errorf("%d requests", hits)
	}
}

// N26: elsewhere a secret was put into a URL the agent chose, and redirects were followed
// without another look. Here it goes to its host, and comes back to nobody.
func TestN26SecretsGoToTheirHostOnly(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		const canary = "canary-3f9c1d77"
		d, op, logged := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		var elsewhere []string
		other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		}))
		defer other.Close()
		var got []string
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("Authorization"))
			switch r.URL.Path {
			case "/away":
				http.Redirect(w, r, other.URL+"/steal", http.StatusTemporaryRedirect)
			case "/echo":
				_, _ = io.WriteString(w, "you are "+r.Header.Get("Authorization"))
			}
		}))
		defer host.Close()
		in.must("secret.put", map[string]any{"name": "site-token", "host": host.Listener.Addr().String(), "value": canary}, nil)
		in.grant("site-api", host.Listener.Addr(), map[string]any{"credential_ref": "site-token"})
		in.grant("other-api", other.Listener.Addr(), map[string]any{"credential_ref": "site-token"})

		status, _, h := in.ask("GET", "/egress/site-api/ok", "", "Authorization", "Bearer mine")
		if status != http.StatusOK || len(got) != 1 || got[0] != "Bearer "+canary {
			t.Fatalf("%d, %v", status, got)
		}
		if used := docOf[writ.Intent](t, d, writ.IntentKey(writ.EffectID(h.Get("Effect-Id")))).Secrets; len(used) != 1 || used[0].Version != 1 {
			t.Errorf("%+v", used)
		}
		if status, body, h := in.ask("GET", "/egress/site-api/away", ""); status != http.StatusTemporaryRedirect || len(elsewhere) != 0 || strings.Contains(body+fmt.Sprint(h), canary) {
			t.Errorf("a redirect: %d, %v", status, elsewhere)
		}
		status, body, _ := in.ask("GET", "/egress/site-api/echo", "")
		if status == http.StatusOK || strings.Contains(body, canary[:10]) {
			t.Errorf("an echo: %d %s", status, body)
		}
		status, body, _ = in.ask("GET", "/egress/other-api/", "")
		if c, rules := code(body); status != http.StatusForbidden || c != writ.CodeEgress || len(rules) == 0 || rules[0] != "egress.secret_elsewhere" || len(elsewhere) != 0 {
			t.Errorf("another host: %d %s, %v", status, body, elsewhere)
		}
		if status, _, _ := in.ask("GET", "/v1/secrets", ""); status != http.StatusForbidden {
			t.Errorf("an agent lists secrets: %d", status)
		}
		if strings.Contains(logged.String(), canary) {
			t.Error("the log has it")
		}
		var list struct {
			Receipts []struct {
				ID string `json:"receipt_id"`
			} `json:"receipts"`
		}
		in.must("receipt.list", map[string]any{"limit": 200}, &list)
		if len(list.Receipts) == 0 {
			t.Error("there are no receipts")
		}
		for _, r := range list.Receipts {
			for _, id := range []writ.CapabilityID{"receipt.get", "receipt.evidence"} {
				var out json.RawMessage
				if _, err := op.Invoke(t.Context(), id, map[string]any{"receipt_id": r.ID}, &out); err == nil && strings.Contains(string(out), canary) {
					t.Errorf("%s of %s has it", id, r.ID)
				}
			}
		}
	})
}

// N31: elsewhere tokens lay in arguments and logs, and outlived their session. On a
// listener there is none, and with its session the listener goes, and what is under way.
func TestN31TheListenerNeedsNoTokenAndEndsWithItsSession(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		begun, ended := make(chan struct{}), make(chan struct{})
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			close(begun)
			<-r.Context().Done()
			close(ended)
		}))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), nil)
		var me struct {
			Principal string `json:"principal"`
		}
		status, body, _ := in.ask("GET", "/v1/sessions/"+string(in.session), "", "Authorization", "Bearer default.ses_01HZZZZZZZZZZZZZZZZZZZZZZZ.abcdefghijklmnopqrstuvwxyz")
		if err := json.Unmarshal([]byte(body), &me); err != nil || status != http.StatusOK || me.Principal != "builder" {
			t.Fatalf("%d %s", status, body)
		}
		cut := make(chan error, 1)
		go func() {
			res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, "http://"+in.at.String()+"/egress/site-api/wait"))
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
			cut <- err
		}()
		<-begun
		in.must("session.revoke", map[string]any{"session_id": string(in.session)}, nil)
		<-ended
		if err := <-cut; err == nil {
			t.Error("what was cut off looks whole")
		}
		if err := <-in.served; err != nil {
			t.Error(err)
		}
		in.served <- nil
		if c, err := net.Dial("tcp", in.at.String()); err == nil {
			_ = c.Close()
			t.Error("somebody still listens")
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := d.ServeSession(t.Context(), l, Served{Session: in.session, Jailed: true}); writ.CodeOf(err) != writ.CodeNotFound {
			t.Errorf("a session that has ended is served: %v", err)
		}
	})
}

// failing is a store that answers no reads while it is down.
type failing struct {
	store.Store
	down  atomic.Bool
	asked atomic.Int64 // while it was
	how   error
}

func (f *failing) Read(ctx context.Context, of writ.Tenant, rs writ.ReadSet) (writ.Snapshot, error) {
	if f.down.Load() {
		f.asked.Add(1)
		return writ.Snapshot{}, f.how
	}
	return f.Store.Read(ctx, of, rs)
}

// A store that fails the moment a listener is to be served does not close it: who connects
// waits, and is answered when the store is, however often it was asked. While it never
// answers the listener is there until its context ends.
func TestAListenerOutlastsItsStore(t *testing.T) {
	for name, how := range map[string]error{"of the store": &writ.Error{Code: writ.CodeStore}, "of its host": io.ErrUnexpectedEOF} {
		t.Run(name, func(t *testing.T) {
			d, op, _ := start(t, t.TempDir())
			in := newInside(t, d, op, "builder", nil)
			f := &failing{Store: d.store, how: how}
			logged := &logs{}
			warned := func(n int) {
				t.Helper()
				if said := logged.String(); strings.Count(said, "the store does not answer") != n {
					t.Fatalf("want it said %d times: %s", n, said)
				}
			}
			of := &Daemon{cfg: d.cfg, log: slog.New(slog.NewTextHandler(logged, nil)), store: f} // which shares no field with what runs
			of.faces.open(d.server.Handler)
			serve := func(ctx context.Context) (string, <-chan error) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- of.ServeSession(ctx, l, Served{Session: in.session, Jailed: true}) }()
				return "http://" + l.Addr().String() + "/v1/sessions/" + string(in.session), served
			}
			asked := func(n int64) {
				t.Helper()
				for until := time.Now().Add(20 * time.Second); f.asked.Load() < n; time.Sleep(time.Millisecond) {
					if time.Now().After(until) {
						t.Fatalf("the store was asked %d times", f.asked.Load())
					}
				}
			}

			f.down.Store(true)
			ctx, cancel := context.WithCancel(t.Context())
			url, served := serve(ctx)
			answered := make(chan error, 1)
			go func() {
				res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(mustRequest(t, url))
				if err == nil {
					if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
						err = fmt.Errorf("status %d", res.StatusCode)
					}
				}
				answered <- err
			}()
			asked(3)
			warned(1)
			f.down.Store(false)
			if err := <-answered; err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-served; err != nil {
				t.Fatal(err)
			}

			f.down.Store(true)
			for i, end := range []string{"its context", "the gateway"} {
				f.asked.Store(0)
				ctx, cancel := context.WithCancel(t.Context())
				_, served := serve(ctx)
				asked(3)
				warned(i + 2)
				select {
				case err := <-served:
					t.Fatalf("it is served no more: %v", err)
				default:
				}
				if end == "the gateway" {
					of.faces.close()
				} else {
					cancel()
				}
				if err := <-served; err != nil {
					t.Errorf("%s ends: %v", end, err)
				}
				cancel()
			}
		})
	}
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What goes out and comes in is charged to the run, once and as much as it was; what
// does not fit any more is refused, or cut off.
func TestBytesAreTheRuns(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", map[string]any{"net_egress_bytes": 200_000, "net_ingress_bytes": 60_000})
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			n, _ := strconv.Atoi(r.URL.RawQuery)
			_, _ = w.Write(make([]byte, n))
		}))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), nil)
		used := func() (up, down int64) {
			s := readOf(t, d, writ.ReadSet{Counters: []writ.Counter{writ.BudgetUsed(in.run, writ.BudgetEgress), writ.BudgetUsed(in.run, writ.BudgetIngress)}})
			return s.Counters[writ.BudgetUsed(in.run, writ.BudgetEgress)], s.Counters[writ.BudgetUsed(in.run, writ.BudgetIngress)]
		}
		if status, body, _ := in.ask("POST", "/egress/site-api/x?20000", strings.Repeat("x", 10_000)); status != http.StatusOK || len(body) != 20_000 {
			t.Fatalf("%d, %d bytes", status, len(body))
		}
		if up, down := used(); up < 10_000 || up > 10_500 || down < 20_000 || down > 20_500 {
			t.Errorf("%d up, %d down", up, down)
		}
		if status, body, _ := in.ask("GET", "/egress/site-api/x?50000", ""); status == http.StatusOK && len(body) == 50_000 {
			t.Error("more came in than the run may have")
		}
		if _, down := used(); down < 40_000 { // what came before it was cut off
			t.Errorf("%d down", down)
		}
		soundQueue(t, d, "after all that")
	})
}

// A quota on what is sent outside in a day takes the most an exchange may send while it is
// under way, and what it did send afterwards; what it sends is counted at one place for all runs.
func TestBytesOfADay(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		in := newInside(t, d, op, "builder", nil)
		begun, let := make(chan struct{}), make(chan struct{})
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if r.URL.Path == "/waits" {
				close(begun)
				<-let
			}
			_, _ = w.Write([]byte("done"))
		}))
		defer host.Close()
		in.grant("site-api", host.Listener.Addr(), nil)
		const limit = 60_000
		var quota struct {
			ID writ.QuotaID `json:"quota_id"`
		}
		in.must("quota.set", map[string]any{"metric": "egress_bytes_per_day", "subject": "agent", "limit": limit}, &quota)
		used := func() int64 {
			tag := string(quota.ID) + "/builder"
			return readOf(t, d, writ.ReadSet{Counters: []writ.Counter{writ.QuotaUsed(tag)}}).Counters[writ.QuotaUsed(tag)]
		}
		first := make(chan int)
		go func() {
			status, _, _ := in.ask("POST", "/egress/site-api/waits", strings.Repeat("x", 1000))
			first <- status
		}()
		<-begun
		// While it goes on the most it may send is taken, and another that does not fit beside that is refused.
		if n := used(); n < 20_000 || n > 30_000 {
			t.Errorf("%d are taken", n)
		}
		status, body, head := in.ask("POST", "/egress/site-api/x", strings.Repeat("x", 20_000))
		if is, _ := code(body); status != http.StatusTooManyRequests || is != writ.CodeQuota || head.Get("Retry-After") == "" {
			t.Errorf("%d %s", status, body)
		}
		close(let)
		if status := <-first; status != http.StatusOK {
			t.Fatalf("the first: %d", status)
		}
		if n := used(); n < 1000 || n > 2000 {
			t.Errorf("%d are counted of 1,000", n)
		}
		if status, body, _ := in.ask("POST", "/egress/site-api/x", strings.Repeat("x", 20_000)); status != http.StatusOK {
			t.Errorf("there is room now: %d %s", status, body)
		}
		if status, body, _ := in.ask("POST", "/egress/site-api/x", strings.Repeat("x", 70_000)); status != http.StatusForbidden {
			t.Errorf("more than there is in any day: %d %s", status, body)
		} else if is, _ := code(body); is != writ.CodeBudget {
			t.Errorf("more than there is in any day: %s", body)
		}
		if n := used(); n < 21_000 || n > 23_000 {
			t.Errorf("%d are counted of 21,000", n)
		}
		soundQueue(t, d, "after all that")
	})
}
