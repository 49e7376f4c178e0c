package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/writ-gateway/writ"
)

func TestCallIsBuilt(t *testing.T) {
	h, door := newFake(t, nil)
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{Outcome: writ.OutcomeCreated, ETag: 42, Replayed: true, JSON: stdjson.RawMessage(`{"id":"<x>"}`)},
			&writ.Receipt{ID: testReceipt}, nil
	}
	w := send(h, "PUT", "/v1/agents/plug-editor", `{"archetypes":["executor"]}`, "Idempotency-Key", "k1", "If-Match", `"7"`)
	if w.Code != http.StatusCreated || w.Body.String() != `{"id":"<x>"}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, want := range map[string]string{
		"Receipt-Id": testReceipt, "ETag": `"42"`, "Idempotency-Replayed": "true", "Content-Type": "application/json",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	c := door.last(t)
	if c.Capability != "agent.register" || c.IdempotencyKey != "k1" || c.IfVersion != 7 || c.Via != "" {
		t.Errorf("call %+v", c)
	}
	if c.Credential.Tenant != "default" || c.Credential.Session != testSession || c.Credential.SecretHash != sha256.Sum256([]byte(testSecret)) {
		t.Errorf("credential %+v", c.Credential)
	}
	if string(c.ID) != w.Header().Get("Request-Id") || !c.ID.Valid() || c.ReceivedAt != 1_700_000_000_000 || c.Salt == [16]byte{} {
		t.Errorf("id %s, at %d, salt %x", c.ID, c.ReceivedAt, c.Salt)
	}
	if a := c.Args.(*registerArgs); a.AgentID != "plug-editor" || a.Archetypes[0] != "executor" || a.Max != 4 {
		t.Errorf("arguments %+v", a)
	}
}

// What is known of the log goes with every answer to somebody who is known, refusals
// too; where nothing is known nothing is said.
func TestRepliesCarryTheCheckpoint(t *testing.T) {
	known := "AAAA"
	h, door := newFake(t, func(c *Config) { c.Checkpoint = func() string { return known } })
	carried := func() string {
		return send(h, "POST", "/v1/tasks/claim", `{"wait_s":1}`).Header().Get("Writ-Checkpoint")
	}
	for _, code := range []writ.Code{"", writ.CodePolicy, writ.CodeStore, writ.CodeUnauthenticated} {
		door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			if code != "" {
				return writ.Reply{}, nil, writ.Refuse(code, "x", "y", "z")
			}
			return writ.Reply{Outcome: writ.OutcomeEmpty}, nil, nil
		}
		want := "AAAA"
		if code == writ.CodeUnauthenticated {
			want = ""
		}
		if got := carried(); got != want {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
	}
	door.answer = nil
	if known = ""; carried() != "" {
		t.Error("it says what it does not know")
	}
}

func TestStatusFollowsOutcome(t *testing.T) {
	h, door := newFake(t, nil)
	for outcome, status := range statusOf {
		door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			return writ.Reply{Outcome: outcome, JSON: stdjson.RawMessage(`{}`)}, nil, nil
		}
		w := send(h, "POST", "/v1/tasks/claim", `{"wait_s":1}`)
		if w.Code != status || (status == http.StatusNoContent && w.Body.Len() != 0) {
			t.Errorf("%s: %d %s", outcome, w.Code, w.Body)
		}
	}
}

func TestQueryBecomesArguments(t *testing.T) {
	h, door := newFake(t, nil)
	if w := send(h, "GET", "/v1/runs?limit=7&after=run_1&short=true", ""); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	if a := *door.last(t).Args.(*pageArgs); a != (pageArgs{After: "run_1", Limit: 7, Short: true}) {
		t.Errorf("arguments %+v", a)
	}
	if w := send(h, "GET", "/v1/tasks?run_id="+testRun+"&after=-1", ""); w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body)
	}
	if a := door.last(t).Args.(*taskListArgs); a.After == nil || *a.After != -1 {
		t.Errorf("arguments %+v", a)
	}
	n := door.count()
	for _, q := range []string{
		"limit=1&limit=2", "Limit=1", "canary=1", "limit=%zz", "after=%ff", "a;b=1",
	} {
		p := wantProblem(t, send(h, "GET", "/v1/runs?"+q, ""), http.StatusBadRequest, writ.CodeMalformed)
		if strings.Contains(p.Detail+p.Hint, "canary") {
			t.Errorf("%s: %+v", q, p)
		}
	}
	wantProblem(t, send(h, "POST", "/v1/tasks/claim?wait_s=3", `{}`), http.StatusBadRequest, writ.CodeMalformed)
	if door.count() != n {
		t.Error("a bad query reached the door")
	}
	for q, want := range map[string]string{
		"limit=1000": "expected number <= 200", "limit=x": "expected integer", "limit=1.0": "expected integer", "limit=": "expected integer", "limit=9223372036854775808": "expected integer", "short=1": "expected boolean",
	} {
		p := wantProblem(t, send(h, "GET", "/v1/runs?"+q, ""), http.StatusUnprocessableEntity, writ.CodeInputInvalid)
		if name, _, _ := strings.Cut(q, "="); len(p.Errors) != 1 || p.Errors[0].Pointer != "/"+name || p.Errors[0].Msg != want {
			t.Errorf("%s: %+v", q, p.Errors)
		}
	}
}

func TestPathParametersCannotBeOverridden(t *testing.T) {
	h, _ := newFake(t, nil)
	other := strings.Replace(testTask, "ZZZ", "ZZY", 1)
	wantProblem(t, send(h, "POST", "/v1/tasks/"+testTask+"/complete", `{"task_id":"`+other+`"}`), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", "/v1/tasks/"+testTask+"/complete", `{"Task_id":"`+other+`"}`), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "GET", "/v1/tasks/"+testTask+"?task_id="+other, ""), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", "/v1/tasks/x%22,%22fence%22:1,%22y/complete", `{}`), http.StatusUnprocessableEntity, writ.CodeInputInvalid)
	wantProblem(t, send(h, "POST", "/v1/tasks/%ff/complete", `{}`), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", "/v1/tasks/..%2f..%2fruns/complete", `{}`), http.StatusNotFound, writ.CodeNotFound)
}

func TestBodyIsChecked(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Limits.BodyBytes = 100 })
	target := "/v1/sessions"
	n := door.count()
	wantProblem(t, send(h, "POST", target, strings.Repeat(" ", 101)), http.StatusRequestEntityTooLarge, writ.CodeTooLarge)
	wantProblem(t, send(h, "POST", target, `{}`, "Content-Type", "text/plain"), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", target, `{}`, "Content-Type", ""), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", target, `{}`, "Content-Type", "application/json; charset=latin1"), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "POST", target, `"x"`), http.StatusBadRequest, writ.CodeMalformed)
	wantProblem(t, send(h, "GET", "/v1/runs", `{}`), http.StatusBadRequest, writ.CodeMalformed)

	chunked := httptest.NewRequest("POST", target, strings.NewReader(strings.Repeat(" ", 101)))
	chunked.ContentLength = -1
	chunked.Header.Set("Authorization", "Bearer "+testToken)
	chunked.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, chunked)
	wantProblem(t, w, http.StatusRequestEntityTooLarge, writ.CodeTooLarge)
	if door.count() != n {
		t.Error("a bad body reached the door")
	}
	for _, ok := range []string{"application/json", "application/json; charset=UTF-8"} {
		if w := send(h, "POST", target, `{}`, "Content-Type", ok); w.Code != http.StatusOK {
			t.Errorf("%s: %d", ok, w.Code)
		}
	}
	if w := send(h, "POST", target, ""); w.Code != http.StatusOK {
		t.Errorf("no body: %d %s", w.Code, w.Body)
	}
}

func TestHeadersAreChecked(t *testing.T) {
	h, door := newFake(t, nil)
	n := door.count()
	for _, kv := range [][2]string{
		{"Idempotency-Key", strings.Repeat("k", 129)},
		{"Idempotency-Key", "a b"},
		{"Idempotency-Key", "ä"},
		{"If-Match", "*"},
		{"If-Match", `"0"`},
		{"If-Match", `"-1"`},
		{"If-Match", `W/"1"`},
		{"If-Match", `"1", "2"`},
		{"If-Match", "01"},
		{"Cosignature", " "},
		{"Cosignature", "v1"},
		{"Cosignature", "v2" + strings.TrimPrefix(testCosignature, "v1")},
		{"Cosignature", testCosignature + " "},
		{"Cosignature", strings.Replace(testCosignature, "SHA256:", "MD5:", 1)},
		{"Cosignature", strings.TrimSuffix(testCosignature, "=")},
		{"Cosignature", strings.TrimSuffix(testCosignature, "A==") + "B=="},
		{"Cosignature", testCosignature + ", " + testCosignature},
	} {
		wantProblem(t, send(h, "POST", "/v1/sessions", "", kv[0], kv[1]), http.StatusBadRequest, writ.CodeMalformed)
	}
	empty := httptest.NewRequest("POST", "/v1/sessions", nil) // a key that got lost is no key left out
	empty.Header["Authorization"] = []string{"Bearer " + testToken}
	empty.Header["Idempotency-Key"] = []string{""}
	we := httptest.NewRecorder()
	h.ServeHTTP(we, empty)
	wantProblem(t, we, http.StatusBadRequest, writ.CodeMalformed)
	twice := httptest.NewRequest("POST", "/v1/sessions", nil)
	twice.Header["Authorization"] = []string{"Bearer " + testToken}
	twice.Header["Idempotency-Key"] = []string{"a", "b"}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, twice)
	wantProblem(t, w, http.StatusBadRequest, writ.CodeMalformed)
	if door.count() != n {
		t.Error("a bad header reached the door")
	}
}

func TestTokens(t *testing.T) {
	for _, bad := range []string{
		"", "x", "default", testSession + "." + testSecret, "default." + testSession, "default." + testSession + ".", "default." + testSession + ".short",
		"Default." + testSession + "." + testSecret, "default.ses_short." + testSecret, "default." + testTask + "." + testSecret,
		"default." + testSession + "." + testSecret + ".more", "default." + testSession + "." + strings.Repeat("s", 129),
		"default." + strings.ToLower(testSession) + "." + testSecret, "default." + testSession + "." + strings.Repeat("é", 22), "../etc." + testSession + "." + testSecret,
	} {
		if c, ok := ParseToken(bad); ok {
			t.Errorf("%q gave %+v", bad, c)
		}
	}
	if _, ok := ParseToken(testToken); !ok {
		t.Error("a good token is refused")
	}
	h, door := newFake(t, nil)
	for _, header := range []string{"", "Basic abc", "Bearer", "Bearer x", testToken, "Bearer  " + testToken, "Bearer " + testToken + " "} {
		w := send(h, "GET", "/v1/runs", "", "Authorization", header)
		wantProblem(t, w, http.StatusUnauthorized, writ.CodeUnauthenticated)
		if w.Header().Get("WWW-Authenticate") == "" {
			t.Error("no challenge")
		}
	}
	if door.count() != 0 {
		t.Error("a bad credential reached the door")
	}
	if w := send(h, "GET", "/v1/runs", "", "Authorization", "bearer "+testToken); w.Code != http.StatusOK {
		t.Errorf("the scheme is case-insensitive: %d", w.Code)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(testToken)
	f.Add("default..")
	f.Fuzz(func(t *testing.T, s string) {
		if c, ok := ParseToken(s); ok && (!c.Tenant.Valid() || !c.Session.Valid() || !strings.HasPrefix(s, string(c.Tenant)+"."+string(c.Session)+".")) {
			t.Fatalf("%q gave %+v", s, c)
		}
	})
}

func TestInvoke(t *testing.T) {
	var logged bytes.Buffer
	h, door := newFake(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		if c.Capability == "task.claim" {
			return writ.Reply{Outcome: writ.OutcomeEmpty}, nil, nil
		}
		return writ.Reply{Outcome: writ.OutcomeCreated, JSON: stdjson.RawMessage(`{"n":9007199254740993}`)}, &writ.Receipt{ID: testReceipt}, nil
	}
	w := send(h, "POST", "/v1/invoke", `{"capability":"task.enqueue","args":{"run_id":"`+testRun+`","key":"build"}}`, "Idempotency-Key", "k")
	want := `{"capability":"task.enqueue","schema_version":"1.0","status":"created","generated_at":"2023-11-14T22:13:20.000Z","data":{"n":9007199254740993},"receipt":"` + testReceipt + `"}`
	if w.Code != http.StatusCreated || w.Body.String() != want {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if c := door.last(t); c.Via != "capability.invoke" || c.Capability != "task.enqueue" || c.IdempotencyKey != "k" {
		t.Errorf("call %+v", c)
	}
	w = send(h, "POST", "/v1/invoke", `{"capability":"task.claim"}`)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"status":"empty","generated_at":"2023-11-14T22:13:20.000Z","data":null}`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	logged.Reset()
	send(h, "POST", "/v1/invoke", `{"capability":"made.up"}`)
	send(h, "POST", "/v1/invoke", `{"capability":"task.enqueue"}`)
	if s := logged.String(); strings.Contains(s, "made.up") || !strings.Contains(s, "operation=capability.invoke") ||
		!strings.Contains(s, "operation=task.enqueue") || !strings.Contains(s, "via=capability.invoke") {
		t.Errorf("logged %s", s)
	}
	n := door.count()
	for _, bad := range []string{``, `{}`, `[]`, `{"capability":"x"}`, `{"capability":"Task.claim"}`, `{"capability":7}`} {
		if w := send(h, "POST", "/v1/invoke", bad); w.Code != http.StatusBadRequest && w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	for _, bad := range []string{
		`{"capability":"task.claim","args":{},"via":"x"}`, `{"capability":"task.claim","Args":{}}`,
		`{"capability":"task.claim","capability":"run.cancel"}`, `{"capability":"task.claim","args":{"a":1,"a":2}}`,
	} {
		wantProblem(t, send(h, "POST", "/v1/invoke", bad), http.StatusBadRequest, writ.CodeMalformed)
	}
	if door.count() != n {
		t.Error("a bad invocation reached the door")
	}
	wantProblem(t, send(h, "POST", "/v1/invoke", `{"capability":"task.claim","args":[1]}`), http.StatusBadRequest, writ.CodeMalformed)
	// What is not the gateway's is capability.invoke's own to refuse, without
	// arguments that nobody can check.
	send(h, "POST", "/v1/invoke", `{"capability":"no.such.thing","args":{"x":1}}`)
	if c := door.last(t); c.Via != "" || c.Capability != "capability.invoke" || string(c.Raw) != `{"capability":"no.such.thing"}` {
		t.Errorf("got %+v, %s", c, c.Raw)
	}
}

func TestPathsOutsideRoutes(t *testing.T) {
	h, door := newFake(t, nil)
	for _, p := range []string{"/", "/v1", "/v1/canary", "/v1/tasks/", "//v1/tasks", "/v1//tasks", "/v1/../canary", "/v1/./tasks", "/schemas/Task.json"} {
		w := send(h, "GET", p, "")
		wantProblem(t, w, http.StatusNotFound, writ.CodeNotFound)
		if strings.Contains(w.Body.String(), "canary") || w.Header().Get("Location") != "" {
			t.Errorf("%s: %v %s", p, w.Header(), w.Body)
		}
	}
	for _, c := range []struct{ method, path, allow string }{
		{"DELETE", "/v1/tasks", "GET, POST"},
		{"POST", "/v1/policy", "GET"},
		{"GET", "/v1/sessions/" + testSession + "/start", "POST"},
		{"PATCH", "/v1/agents/plug-editor", "GET, PUT"},
		{"POST", "/healthz", "GET"},
		{"OPTIONS", "/v1/runs", "GET, POST"},
	} {
		w := send(h, c.method, c.path, "")
		wantProblem(t, w, http.StatusMethodNotAllowed, writ.CodeMalformed)
		if got := w.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	if door.count() != 0 {
		t.Error("something reached the door")
	}
}

func TestReady(t *testing.T) {
	ready := true
	h, _ := newFake(t, func(c *Config) {
		c.Ready = func(context.Context) ReadyReport {
			return ReadyReport{Ready: ready, Checks: []ReadyCheck{{Name: "store", OK: ready, Detail: "buffered"}}}
		}
	})
	w := send(h, "GET", "/readyz", "", "Authorization", "")
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"ready":true,"checks":[{"name":"store","ok":true,"detail":"buffered"}]}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	ready = false
	if w := send(h, "GET", "/readyz", ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := send(h, "GET", "/healthz", "", "Authorization", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, send(h, "GET", "/metrics", ""), http.StatusNotFound, writ.CodeNotFound)
}

type heard struct {
	mu   sync.Mutex
	seen []string
}

func (s *heard) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("metrics 1\n")) })
}

func (s *heard) ObserveRequest(op string, status int, _ float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, op+" "+http.StatusText(status))
}

func TestRequestsAreObserved(t *testing.T) {
	var tel heard
	var log bytes.Buffer
	h, door := newFake(t, func(c *Config) { c.Telemetry, c.Log = &tel, slog.New(slog.NewTextHandler(&log, nil)) })
	send(h, "GET", "/v1/runs", "")
	send(h, "GET", "/v1/canary", "")
	send(h, "GET", "/healthz", "")
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) { panic("x") }
	send(h, "GET", "/v1/runs", "")
	want := "run.list OK|other Not Found|/healthz OK|run.list Internal Server Error"
	if got := strings.Join(tel.seen, "|"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if w := send(h, "GET", "/metrics", "", "Authorization", ""); w.Body.String() != "metrics 1\n" {
		t.Errorf("/metrics: %d %s", w.Code, w.Body)
	}
	if strings.Contains(log.String(), "canary") || strings.Contains(log.String(), testSecret) || strings.Contains(log.String(), "healthz") {
		t.Errorf("log: %s", log.String())
	}
}

// A call that fails because its caller has hung up is told of, and no error.
func TestHangingUpIsNoError(t *testing.T) {
	var log bytes.Buffer
	h, door := newFake(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, x := range []struct {
		hangs bool
		code  writ.Code
		want  string
	}{
		{false, writ.CodeStore, "level=ERROR"},
		{true, writ.CodeStore, "level=INFO"},
		{true, writ.CodeInternal, "level=ERROR"}, // nobody hides a defect by hanging up
	} {
		want := x.want
		ctx, hangUp := context.WithCancel(t.Context())
		door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			if x.hangs {
				hangUp()
			}
			return writ.Reply{}, nil, writ.Fault(x.code, "guard.read", context.Canceled)
		}
		log.Reset()
		r := httptest.NewRequestWithContext(ctx, "GET", "/v1/runs", nil)
		r.Header.Set("Authorization", "Bearer "+testToken)
		h.ServeHTTP(httptest.NewRecorder(), r)
		hangUp()
		if line, _, _ := strings.Cut(log.String(), "\n"); !strings.Contains(line, want) || !strings.Contains(line, "call failed") {
			t.Errorf("want %s, got %s", want, line)
		}
	}
}

func TestNoEntropyNoCall(t *testing.T) {
	h, door := newFake(t, func(c *Config) { c.Rand = strings.NewReader("") })
	if w := send(h, "GET", "/v1/runs", ""); w.Code != http.StatusInternalServerError || door.count() != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Bad JSON is refused with its place in what was sent, whatever the path added.
func TestBadTextsAreLocated(t *testing.T) {
	h, _ := newFake(t, nil)
	complete := "/v1/tasks/" + testTask + "/complete"
	for _, c := range []struct{ target, body, want string }{
		{complete, `{"fence":}`, "line 1, column 10 of the body"},
		{complete, "\n {\n  \"fence\": 1,\n  ü}", "line 4, column 3 of the body"},
		{complete, `{"fence":1`, "line 1, column 11 of the body"},
		{complete, `{"fence":1,"fence":2}`, "a member appears twice: line 1, column 12 of the body"},
		{complete, `{"task_id":"` + testTask + `","fence":1}`, "task_id comes from the path"},
		{"/v1/tasks", "{\n\"key\" 1}", "line 2, column 7 of the body"},
		{"/v1/invoke", "{\n\"capability\":\"task.enqueue\",\"args\":{]}", "line 2, column 37 of the body"},
	} {
		p := wantProblem(t, send(h, "POST", c.target, c.body), http.StatusBadRequest, writ.CodeMalformed)
		if !strings.Contains(p.Detail, c.want) {
			t.Errorf("%s %s: got %q, want %q", c.target, c.body, p.Detail, c.want)
		}
	}
}

func TestBoundsHaveNoExponent(t *testing.T) {
	million := 1e6
	s := &huma.Schema{Maximum: &million}
	if got := plainNumber(s, fmt.Sprintf(validation.MsgExpectedMaximumNumber, million)); got != "expected number <= 1000000" {
		t.Errorf("got %q", got)
	}
	if got := plainNumber(s, "expected string"); got != "expected string" {
		t.Errorf("got %q", got)
	}
}
