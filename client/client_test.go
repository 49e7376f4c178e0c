package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "default.ses_01HZZZZZZZZZZZZZZZZZZZZZZZ.abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE"

// call is one request the fake gateway got.
type call struct {
	Capability writ.CapabilityID `json:"capability"`
	Args       json.RawMessage   `json:"args"`
	key, match string
	auth       string
	cosigned   string
}

// fake is a gateway whose answers are scripted, one per request; the last one
// is repeated.
type fake struct {
	t       *testing.T
	mu      sync.Mutex
	calls   []call
	answers []http.HandlerFunc
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/invoke" || r.Header.Get("Content-Type") != "application/json" {
		f.t.Errorf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
	}
	c := call{key: r.Header.Get("Idempotency-Key"), match: r.Header.Get("If-Match"), auth: r.Header.Get("Authorization"), cosigned: r.Header.Get("Cosignature")}
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(&c); err != nil {
		f.t.Errorf("body: %v", err)
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	answer := f.answers[min(len(f.calls), len(f.answers))-1]
	f.mu.Unlock()
	answer(w, r)
}

// got is every request so far.
func (f *fake) got() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]call(nil), f.calls...)
}

func newFake(t *testing.T, change func(*Config), answers ...http.HandlerFunc) (*Client, *fake) {
	t.Helper()
	f := &fake{t: t, answers: answers}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	cfg := Config{URL: srv.URL, Token: token}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, f
}

func ok(status, data string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = fmt.Fprintf(w, `{"capability":"x","schema_version":"1.0","status":%q,"generated_at":"2026-01-01T00:00:00.000Z","data":%s,"receipt":"rcp_1"}`, status, data)
	}
}

func problem(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// cut ends the connection without an answer.
func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestInvoke(t *testing.T) {
	c, f := newFake(t, nil, ok("created", `{"n":9007199254740993}`, "ETag", `"42"`, "Idempotency-Replayed", "true", "Policy-Revision", "sha256:1", "Request-Id", "cll_1"))
	var out struct{ N int64 }
	m, err := c.Invoke(context.Background(), "run.create", map[string]any{"title": "x"}, &out, WithIdempotencyKey("mine"), WithIfVersion(7))
	if err != nil || out.N != 9007199254740993 {
		t.Fatal(out, err)
	}
	if want := (Meta{Receipt: "rcp_1", RequestID: "cll_1", Outcome: "created", PolicyRevision: "sha256:1", Version: 42, Replayed: true, Tries: 1}); !reflect.DeepEqual(m, want) {
		t.Errorf("meta %+v", m)
	}
	got := f.got()[0]
	if got.Capability != "run.create" || string(got.Args) != `{"title":"x"}` || got.key != "mine" || got.match != `"7"` || got.auth != "Bearer "+token {
		t.Errorf("call %+v %s", got, got.Args)
	}
	if _, err := c.Invoke(context.Background(), "policy.info", nil, nil); err != nil || string(f.got()[1].Args) != `{}` {
		t.Errorf("no arguments: %s %v", f.got()[1].Args, err)
	}
}

// Every try of one change carries one key; two changes never share one.
func TestRetriesKeepTheKey(t *testing.T) {
	c, f := newFake(t, nil, cut, problem(503, `{"code":"contention","status":503}`), problem(429, `{"code":"backpressure","status":429}`), ok("done", `{}`))
	m, err := c.Invoke(context.Background(), "task.enqueue", nil, nil)
	if err != nil || m.Tries != 4 {
		t.Fatal(m, err)
	}
	first := f.got()[0].key
	if len(first) < 20 {
		t.Errorf("key %q", first)
	}
	for _, k := range f.got() {
		if k.key != first {
			t.Errorf("keys %q and %q for one change", first, k.key)
		}
	}
	if _, err := c.Invoke(context.Background(), "task.enqueue", nil, nil); err != nil {
		t.Fatal(err)
	}
	if f.got()[4].key == first {
		t.Error("two changes share a key")
	}
}

// A change whose receipt the log does not have in time is made: the call is repeated with
// its key for the reply.
func TestLateInTheLog(t *testing.T) {
	late := ok("pending", `{"status":"pending_log","receipt":"rcp_1","hint":"wait"}`)
	c, f := newFake(t, nil, late, late, ok("done", `{"state":"done"}`))
	var out struct{ State string }
	if m, err := c.Invoke(context.Background(), "run.close", nil, &out); err != nil || m.Outcome != writ.OutcomeDone || out.State != "done" {
		t.Errorf("%+v %v %v", m, out, err)
	}
	if calls := f.got(); len(calls) != 3 || calls[2].key == "" || calls[2].key != calls[0].key {
		t.Errorf("calls %+v", calls)
	}
	c, f = newFake(t, func(c *Config) { c.Retries = 2 }, late)
	e, _ := errors.AsType[*writ.Error](func() error { _, err := c.Invoke(context.Background(), "run.close", nil, nil); return err }())
	if e == nil || e.Code != writ.CodeReceiptPending || e.Receipt != "rcp_1" || len(f.got()) != 3 {
		t.Errorf("%v after %d calls", e, len(f.got()))
	}
}

func TestWhatIsNotRetried(t *testing.T) {
	for _, code := range []writ.Code{
		writ.CodeMalformed, writ.CodeUnauthenticated, writ.CodeRBAC, writ.CodePolicy, writ.CodeNotFound, writ.CodeIllegal, writ.CodeVersion,
		writ.CodeLeaseLost, writ.CodeInputInvalid, writ.CodeIdempotency, writ.CodePaused, writ.CodeQuota, writ.CodeTokenIssued, writ.CodeInternal,
	} {
		c, f := newFake(t, nil, problem(400, `{"code":"`+string(code)+`"}`))
		if _, err := c.Invoke(context.Background(), "x.y", nil, nil); writ.CodeOf(err) != code || len(f.got()) != 1 {
			t.Errorf("%s: %v after %d calls", code, err, len(f.got()))
		}
	}
}

func TestRetriesAreBounded(t *testing.T) {
	c, f := newFake(t, func(c *Config) { c.Retries = 2 }, problem(503, `{"code":"not_ready"}`))
	m, err := c.Invoke(context.Background(), "x.y", nil, nil)
	if writ.CodeOf(err) != writ.CodeNotReady || len(f.got()) != 3 || m.Tries != 3 {
		t.Errorf("%v after %d calls", err, len(f.got()))
	}
	c, f = newFake(t, func(c *Config) { c.Retries = -1 }, cut)
	if _, err := c.Invoke(context.Background(), "x.y", nil, nil); writ.CodeOf(err) != writ.CodeNotReady || len(f.got()) != 1 {
		t.Errorf("%v after %d calls", err, len(f.got()))
	}
	// The caller's own end comes first, even when the gateway asks for a minute.
	c, f = newFake(t, nil, problem(503, `{"code":"not_ready"}`, "Retry-After", "60"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := c.Invoke(ctx, "x.y", nil, nil); writ.CodeOf(err) != writ.CodeNotReady || time.Since(start) > 5*time.Second || len(f.got()) != 1 {
		t.Errorf("%v after %s and %d calls", err, time.Since(start), len(f.got()))
	}
}

func TestPauses(t *testing.T) {
	for n := 1; n < 100; n++ {
		for range 50 {
			if d := pause(n, errors.New("x")); d <= 0 || d > maxPause {
				t.Fatalf("pause %d: %s", n, d)
			}
		}
	}
	for range 50 {
		if d := pause(1, &writ.Error{RetryMs: 2000}); d < 1500*time.Millisecond || d > 3*time.Second {
			t.Fatalf("asked for 2 s, waits %s", d)
		}
	}
}

func TestProblemsBecomeErrors(t *testing.T) {
	c, _ := newFake(t, nil, problem(409, `{"type":"https://writ-gateway.github.io/writ/problems/illegal_transition","title":"…","status":409,
		"code":"illegal_transition","detail":"no such move","hint":"read again","request_id":"cll_1","rule_ids":["a.b"],"receipt":"rcp_9","aggregated":true,
		"errors":[{"pointer":"/a","message":"m"}],"missing":["b"],"probes":[{"agent_id":"tester","name":"api","state":"fail","reason":"timeout"}],"details":{"from":"done"},"new_in_a_later_version":1}`, "Retry-After", "3"))
	_, err := c.Invoke(context.Background(), "x.y", nil, nil)
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != writ.CodeIllegal || e.Msg != "no such move" || e.Hint != "read again" || e.Rules[0] != "a.b" || e.Receipt != "rcp_9" ||
		!e.Aggregated || e.Fields[0].Pointer != "/a" || e.Missing[0] != "b" || len(e.Probes) != 1 || e.Probes[0].Reason != writ.ReasonTimeout || e.Details["from"] != "done" || e.Details["request_id"] != "cll_1" || e.RetryMs != 3000 {
		t.Errorf("%+v", e)
	}
}

func TestAnswersOfSomebodyElse(t *testing.T) {
	html := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html>")
		}
	}
	for _, x := range []struct {
		answer http.HandlerFunc
		code   writ.Code
	}{
		{html(200), writ.CodeInternal},
		{html(404), writ.CodeInternal},
		{html(502), writ.CodeNotReady},
		{html(504), writ.CodeNotReady},
		{problem(400, `{"code":"made_up"}`), writ.CodeInternal},
		{problem(200, `{}`), writ.CodeInternal},
		{problem(302, ``, "Location", "http://127.0.0.1:1/steal"), writ.CodeInternal},
		{ok("done", `{"n":"text"}`), writ.CodeInternal},
	} {
		c, _ := newFake(t, func(c *Config) { c.Retries = -1 }, x.answer)
		var out struct{ N int64 }
		if _, err := c.Invoke(context.Background(), "x.y", nil, &out); writ.CodeOf(err) != x.code {
			t.Errorf("got %v, want %s", err, x.code)
		}
	}
}

func TestCancelled(t *testing.T) {
	c, _ := newFake(t, nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.Invoke(ctx, "x.y", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A claim that waits gets that much longer to be answered.
func TestClaimOutlivesTheTimeout(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(400 * time.Millisecond):
		case <-r.Context().Done():
		}
		ok("done", `{"task":{"task_id":"tsk_1"},"lease":{"id":"lse_1","fence":7}}`)(w, r)
	}
	c, f := newFake(t, func(c *Config) { c.Timeout, c.Retries = 100*time.Millisecond, -1 }, slow)
	got, err := c.Claim(context.Background(), ClaimOptions{Wait: 2 * time.Second, Domains: []string{"web"}})
	if err != nil || got == nil || got.Task.ID != "tsk_1" || got.Lease.Fence != 7 {
		t.Fatal(got, err)
	}
	if string(f.got()[0].Args) != `{"domains":["web"],"wait_s":2}` {
		t.Errorf("arguments %s", f.got()[0].Args)
	}
	if _, err := c.Invoke(context.Background(), "task.claim", map[string]any{"wait_s": 2}, nil); err != nil {
		t.Errorf("untyped: %v", err)
	}
	if _, err := c.Invoke(context.Background(), "task.get", nil, nil); writ.CodeOf(err) != writ.CodeNotReady || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call that does not wait: %v", err)
	}
}

func TestNothingToClaim(t *testing.T) {
	c, _ := newFake(t, nil, ok("empty", `null`))
	if got, err := c.Claim(context.Background(), ClaimOptions{}); got != nil || err != nil {
		t.Errorf("%+v %v", got, err)
	}
}

// The life of a task, as an executor sees it.
func TestTaskVerbs(t *testing.T) {
	ctx := context.Background()
	c, f := newFake(t, nil, ok("done", `{"task_id":"tsk_1","control":"cancel","state":"done"}`))
	held := &Claimed{Task: Task{ID: "tsk_1"}, Lease: Lease{ID: "lse_1", Fence: 7}}
	five := int64(5)
	_, err := c.Enqueue(ctx, TaskOptions{Run: "run_1", Key: "build", Capability: "site.build", Domain: "web", Priority: &five, Args: map[string]any{"ref": "main"}})
	beat, err2 := c.Heartbeat(ctx, held, &Progress{Pct: 40, Seq: 1})
	done, err3 := c.Complete(ctx, held, map[string]any{"ok": true}, nil)
	_, err4 := c.Fail(ctx, held, writ.Failure{Class: "external", Code: "timeout", Retryable: true})
	_, err5 := c.Release(ctx, held)
	if err := errors.Join(err, err2, err3, err4, err5); err != nil {
		t.Fatal(err)
	}
	if !beat.Cancelled() || done.State != writ.TaskDone {
		t.Errorf("%+v %+v", beat, done)
	}
	for i, want := range []string{
		`task.enqueue {"run_id":"run_1","key":"build","capability":"site.build","args":{"ref":"main"},"required_domain":"web","priority":5}`,
		`task.heartbeat {"task_id":"tsk_1","lease_id":"lse_1","fence":7,"progress":{"pct":40,"seq":1}}`,
		`task.complete {"task_id":"tsk_1","lease_id":"lse_1","fence":7,"result":{"ok":true}}`,
		`task.fail {"task_id":"tsk_1","lease_id":"lse_1","fence":7,"failure":{"class":"external","code":"timeout","retryable":true}}`,
		`task.release {"task_id":"tsk_1","lease_id":"lse_1","fence":7}`,
	} {
		got := f.got()[i]
		if text := string(got.Capability) + " " + string(got.Args); text != want {
			t.Errorf("got  %s\nwant %s", text, want)
		}
		if (got.key == "") != (got.Capability == "task.heartbeat") {
			t.Errorf("%s: key %q", got.Capability, got.key)
		}
	}
}

func TestOtherVerbs(t *testing.T) {
	ctx := context.Background()
	c, f := newFake(t, nil, ok("done", `{"session_id":"ses_1","token":"secret","agent_id":"plug","run_id":"run_1","budget":{"steps":{"limit":4,"used":1,"remaining":3}},"receipt_id":"rcp_1"}`))
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	s, err := c.OpenSession(ctx, SessionOptions{Principal: "plug", Kind: writ.KindAgent, Role: writ.RoleExecutor, Agent: "plug"})
	note(err)
	_, err = c.StartSession(ctx, s.ID)
	note(err)
	_, err = c.HeartbeatSession(ctx, s.ID)
	note(err)
	_, err = c.GetSession(ctx, s.ID)
	note(err)
	_, err = c.CloseSession(ctx, s.ID)
	note(err)
	_, err = c.RevokeSession(ctx, s.ID)
	note(err)
	a, err := c.RegisterAgent(ctx, AgentOptions{ID: "plug", Archetypes: []writ.Role{writ.RoleExecutor}, Domain: "web"})
	note(err)
	_, err = c.ActivateAgent(ctx, a.ID)
	note(err)
	_, err = c.SuspendAgent(ctx, a.ID)
	note(err)
	_, err = c.GetAgent(ctx, a.ID)
	note(err)
	r, err := c.CreateRun(ctx, RunOptions{Title: "t", Budget: map[string]int64{writ.BudgetSteps: 4}})
	note(err)
	_, err = c.SealRun(ctx, r.ID)
	note(err)
	_, err = c.CancelRun(ctx, r.ID)
	note(err)
	_, err = c.GetRun(ctx, r.ID)
	note(err)
	_, err = c.GetTask(ctx, "tsk_1")
	note(err)
	_, err = c.CancelTask(ctx, "tsk_1")
	note(err)
	_, err = c.GetReceipt(ctx, "rcp_1")
	note(err)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if s.Token != "secret" || a.ID != "plug" || r.Budget["steps"].Remaining != 3 {
		t.Errorf("%+v %+v %+v", s, a, r)
	}
	var got []string
	for _, k := range f.got() {
		got = append(got, string(k.Capability)+" "+string(k.Args))
	}
	want := []string{
		`session.open {"principal":"plug","kind":"agent","role":"executor","agent_id":"plug"}`,
		`session.start {"session_id":"ses_1"}`, `session.heartbeat {"session_id":"ses_1"}`, `session.get {"session_id":"ses_1"}`,
		`session.close {"session_id":"ses_1"}`, `session.revoke {"session_id":"ses_1"}`,
		`agent.register {"agent_id":"plug","archetypes":["executor"],"domain":"web"}`,
		`agent.activate {"agent_id":"plug"}`, `agent.suspend {"agent_id":"plug"}`, `agent.info {"agent_id":"plug"}`,
		`run.create {"title":"t","budget":{"steps":4}}`, `run.seal {"run_id":"run_1"}`, `run.cancel {"run_id":"run_1"}`, `run.get {"run_id":"run_1"}`,
		`task.get {"task_id":"tsk_1"}`, `task.cancel {"task_id":"tsk_1"}`, `receipt.get {"receipt_id":"rcp_1"}`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestReceiptsPage(t *testing.T) {
	c, f := newFake(t, nil,
		ok("done", `{"receipts":[{"receipt_id":"rcp_1","seq":0},{"receipt_id":"rcp_2","seq":1}],"next_after":1,"more":true}`),
		problem(503, `{"code":"store_unavailable"}`),
		ok("done", `{"receipts":[{"receipt_id":"rcp_3","seq":2}],"next_after":2,"more":false}`))
	var seqs []int64
	for r, err := range c.Receipts(context.Background(), -1, "run_1") {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, r.Seq)
	}
	if fmt.Sprint(seqs) != "[0 1 2]" || string(f.got()[2].Args) != `{"after":1,"limit":200,"run_id":"run_1"}` {
		t.Errorf("%v %s", seqs, f.got()[2].Args)
	}
	// A page that does not advance ends the walk instead of repeating it.
	c, f = newFake(t, nil, ok("done", `{"receipts":[{"receipt_id":"rcp_1","seq":5}],"next_after":4,"more":true}`))
	for range c.Receipts(context.Background(), 4, "") {
	}
	if len(f.got()) != 1 {
		t.Errorf("%d calls", len(f.got()))
	}
	c, _ = newFake(t, func(c *Config) { c.Retries = -1 }, problem(403, `{"code":"rbac_denied"}`))
	n := 0
	for _, err := range c.Receipts(context.Background(), -1, "") {
		n++
		if writ.CodeOf(err) != writ.CodeRBAC {
			t.Errorf("%v", err)
		}
	}
	if n != 1 {
		t.Errorf("an error was yielded %d times", n)
	}
}

func TestExports(t *testing.T) {
	c, _ := newFake(t, nil,
		ok("done", `{"header":{"v":1},"receipts":[{"a":9007199254740993},{"b":2}],"head":{"h":1},"next_after":1,"more":true}`),
		ok("done", `{"header":{"v":1},"receipts":[],"head":{"h":2},"next_after":1,"more":false}`))
	var b bytes.Buffer
	for e, err := range c.Exports(context.Background(), -1) {
		if err != nil {
			t.Fatal(err)
		}
		n, err := e.WriteTo(&b)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if want := "{\"v\":1}\n{\"a\":9007199254740993}\n{\"b\":2}\n{\"h\":1}\n{\"h\":2}\n"; b.String() != want {
		t.Errorf("got %s", b.String())
	}
}

func TestConfig(t *testing.T) {
	for _, bad := range []Config{
		{},
		{URL: "http://x"},
		{Token: "x"},
		{URL: "http://x", Token: "a", TokenFile: "b"},
		{URL: "ftp://x", Token: "a"},
		{URL: "x", Token: "a"},
		{URL: "http://user:pw@x", Token: "a"},
		{URL: "http://x?a=1", Token: "a"},
		{URL: "http://%zz", Token: "a"},
		{URL: "http://", Token: "a"},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// A token that is renewed in its file is used from the next call on.
func TestTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	c, f := newFake(t, func(c *Config) { c.Token, c.TokenFile = "", path }, ok("done", `{}`))
	if _, err := c.Invoke(context.Background(), "x.y", nil, nil); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("no file: %v", err)
	}
	for _, text := range []string{"", "a b\n", "\n\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Invoke(context.Background(), "x.y", nil, nil); writ.CodeOf(err) != writ.CodeUnauthenticated {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Invoke(context.Background(), "x.y", nil, nil); err != nil || f.got()[len(f.got())-1].auth != "Bearer "+text {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, answers: []http.HandlerFunc{ok("done", `{}`)}}
	srv := &http.Server{Handler: f, ReadHeaderTimeout: time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-ended })
	c, err := New(Config{UnixSocket: path, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Invoke(context.Background(), "x.y", nil, nil); err != nil || len(f.got()) != 1 {
		t.Error(err)
	}
}

// Every try of a change is signed with the key it carries, and what is signed are
// the arguments as they are sent.
func TestCosign(t *testing.T) {
	type asked struct {
		call writ.Cosigned
		args string
	}
	var all []asked
	c, f := newFake(t, func(cfg *Config) {
		cfg.Cosign = func(call writ.Cosigned, args []byte) (string, error) {
			all = append(all, asked{call, string(args)})
			if call.Capability == "run.seal" {
				return "", errors.New("the key is gone")
			}
			return fmt.Sprint("v1 ", len(all)), nil
		}
	}, problem(503, `{"code":"not_ready"}`), func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"done","data":{},"redacted":["/args"],"limited":[{"argument":"wait_s","max":5}]}`)
	})
	meta, err := c.Invoke(t.Context(), "task.complete", map[string]any{"task_id": "<t>"}, nil, WithIdempotencyKey("k"))
	if err != nil || fmt.Sprint(meta.Redacted, meta.Limited) != "[/args] [{wait_s 5}]" {
		t.Fatalf("got %+v, %v", meta, err)
	}
	want := asked{writ.Cosigned{
		Capability: "task.complete", IdempotencyKey: "k", Session: "ses_01HZZZZZZZZZZZZZZZZZZZZZZZ", Tenant: "default",
	}, `{"task_id":"\u003ct\u003e"}`}
	got := f.got()
	if len(got) != 2 || len(all) != 2 || all[0] != want || all[1] != want || got[0].cosigned != "v1 1" || got[1].cosigned != "v1 2" || string(got[0].Args) != want.args {
		t.Fatalf("asked %+v, sent %+v", all, got)
	}
	if _, err := c.Invoke(t.Context(), "task.heartbeat", nil, nil); err != nil || f.got()[2].cosigned != "" {
		t.Errorf("a call without a key: %+v, %v", f.got()[2], err)
	}
	if _, err := c.Invoke(t.Context(), "run.seal", nil, nil); err == nil || len(f.got()) != 3 {
		t.Errorf("a call that cannot be signed was sent: %v", err)
	}
}
