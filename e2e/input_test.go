package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// canary is what no refusal may ever repeat.
const canary = "canary-7f3a9c"

// Whatever is wrong with a request, it is refused with the right status, and
// the refusal repeats nothing of it.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	c := newCast(t, w)
	nobody := caller{t: t, gw: w.gw[0]}
	task := fmt.Sprintf(`"run_id":%q,"key":"x","capability":"site.build","required_domain":"web"`, c.run)
	unknown := func(prefix string) string { return prefix + "01HZZZZZZZZZZZZZZZZZZZZZZZ" }
	bearer := func(token string) caller { return caller{t: t, gw: w.gw[0], token: token} }

	for _, tt := range []struct {
		name   string
		who    caller
		method string
		path   string
		body   any
		status int
		code   writ.Code // "" when any will do
	}{
		{"not JSON", c.orc, "POST", "/v1/runs", `{"title":` + canary, 400, "malformed"},
		{"two values", c.orc, "POST", "/v1/runs", `{"budget":{"steps":1}} {"` + canary + `":1}`, 400, "malformed"},
		{"an array", c.orc, "POST", "/v1/runs", `["` + canary + `"]`, 400, "malformed"},
		{"not UTF-8", c.orc, "POST", "/v1/runs", "{\"title\":\"" + canary + "\xff\",\"budget\":{\"steps\":1}}", 400, "malformed"},
		{"duplicate name", c.orc, "POST", "/v1/runs", `{"budget":{"steps":1},"title":"a","title":"` + canary + `"}`, 400, "malformed"},
		{"duplicate of a path parameter", c.orc, "POST", "/v1/runs/" + c.run + "/seal", `{"run_id":"` + canary + `"}`, 400, "malformed"},
		{"too deep", c.orc, "POST", "/v1/tasks", `{` + task + `,"args":{"` + canary + `":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}}`, 400, "malformed"},
		{"wrong type", c.orc, "POST", "/v1/runs", `{"budget":{"steps":"` + canary + `"}}`, 422, "input_invalid"},
		{"fraction for a number", c.orc, "POST", "/v1/runs", `{"budget":{"steps":1.5}}`, 422, "input_invalid"},
		{"over the largest number", c.orc, "POST", "/v1/runs", `{"budget":{"steps":9223372036854775808}}`, 422, "input_invalid"},
		{"other case", c.orc, "POST", "/v1/runs", `{"Budget":{"steps":1},"budget":{"steps":1}}`, 400, "malformed"},
		{"unknown name", c.orc, "POST", "/v1/runs", `{"budget":{"steps":1},"` + canary + `":1}`, 400, "malformed"},
		{"missing name", c.orc, "POST", "/v1/runs", `{}`, 422, "input_invalid"},
		{"outside the list", w.op, "POST", "/v1/sessions", `{"principal":"x1","kind":"` + canary + `","role":"auditor"}`, 422, "input_invalid"},
		{"pattern", c.orc, "POST", "/v1/tasks", `{` + strings.Replace(task, `"x"`, `"`+canary+`/../.."`, 1) + `}`, 422, "input_invalid"},
		{"too long", c.orc, "POST", "/v1/runs", `{"budget":{"steps":1},"title":"` + strings.Repeat(canary, 100) + `"}`, 422, "input_invalid"},
		{"larger than most bodies", c.orc, "POST", "/v1/tasks", `{"key":"` + strings.Repeat(canary, 1<<15) + `"}`, 413, "too_large"},
		{"larger than any body", c.orc, "POST", "/v1/runs", `{"title":"` + strings.Repeat(canary, 1<<19) + `"}`, 413, "too_large"},
		{"unknown query parameter", c.orc, "GET", "/v1/runs?" + canary + "=1", nil, 400, "malformed"},
		{"query parameter in other case", c.orc, "GET", "/v1/runs?Limit=1", nil, 400, "malformed"},
		{"query parameter twice", c.orc, "GET", "/v1/runs?limit=1&limit=2", nil, 400, "malformed"},
		{"query parameter of a wrong type", c.orc, "GET", "/v1/runs?limit=" + canary, nil, 422, "input_invalid"},
		{"query for a change", c.orc, "POST", "/v1/runs?title=" + canary, `{"budget":{"steps":1}}`, 400, "malformed"},
		{"body for a read", c.orc, "GET", "/v1/runs", `{"` + canary + `":1}`, 400, "malformed"},
		{"unknown path", c.orc, "GET", "/v1/" + canary, nil, 404, "not_found"},
		{"path that is not clean", c.orc, "GET", "/v1//runs/../" + canary, nil, 404, "not_found"},
		{"unknown method", c.orc, "DELETE", "/v1/runs", nil, 405, "malformed"},
		{"unknown capability", c.orc, "POST", "/v1/invoke", `{"capability":"` + canary + `.x"}`, 404, "not_found"},
		{"internal capability", w.op, "POST", "/v1/invoke", `{"capability":"task.expire","args":{"task_id":"` + unknown("tsk_") + `"}}`, 404, "not_found"},
		{"unknown run", c.orc, "GET", "/v1/runs/" + unknown("run_"), nil, 404, "not_found"},
		{"unknown task", c.orc, "GET", "/v1/tasks/" + unknown("tsk_"), nil, 404, "not_found"},
		{"unknown task to claim", c.builder, "POST", "/v1/tasks/" + unknown("tsk_") + "/claim", nil, 404, "not_found"},
		{"unknown agent", w.op, "GET", "/v1/agents/" + canary, nil, 404, "not_found"},
		{"unknown session", w.op, "POST", "/v1/sessions/" + unknown("ses_") + "/revoke", nil, 404, "not_found"},
		{"unknown receipt", w.op, "GET", "/v1/receipts/" + unknown("rcp_"), nil, 404, "not_found"},
		{"id of another form", c.orc, "GET", "/v1/runs/" + canary, nil, 422, "input_invalid"},
		{"id of another kind", c.orc, "GET", "/v1/runs/" + unknown("tsk_"), nil, 422, "input_invalid"},
		{"no token", nobody, "GET", "/v1/runs", nil, 401, "unauthenticated"},
		{"no token and a bad body", nobody, "POST", "/v1/runs", canary, 401, "unauthenticated"},
		{"a word for a token", bearer(canary), "GET", "/v1/runs", nil, 401, "unauthenticated"},
		{"token of an unknown session", bearer("default." + unknown("ses_") + "." + strings.Repeat("A", 43)), "GET", "/v1/runs", nil, 401, "unauthenticated"},
		{"token with another secret", bearer(c.orc.token[:len(c.orc.token)-8] + "AAAAAAAA"), "GET", "/v1/runs", nil, 401, "unauthenticated"},
		{"token of another tenant", bearer("other" + strings.TrimPrefix(c.orc.token, "default")), "GET", "/v1/runs", nil, 401, "unauthenticated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.who.in(t).refused(tt.status, tt.code, tt.method, tt.path, tt.body)
			if strings.Contains(string(r.body), canary) || strings.Contains(fmt.Sprint(r.header), canary) {
				t.Errorf("repeats what was sent: %s %v", r, r.header)
			}
			if r.str("type") == "" || r.num("status") != int64(tt.status) || r.str("hint") == "" || r.str("request_id") != r.header.Get("Request-Id") {
				t.Errorf("an incomplete problem: %s", r)
			}
		})
	}
	if r := c.orc.ok(200, "GET", "/v1/runs", nil); len(r.at("runs").([]any)) != 1 {
		t.Errorf("a refused call made a run: %s", r)
	}
	if strings.Contains(w.gw[0].log.String(), canary) {
		t.Errorf("the log repeats what was sent:\n%s", w.gw[0].log)
	}
}

// Headers are checked like bodies.
func TestBadHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	c := newCast(t, w)
	body := obj{"budget": obj{"steps": 1}}
	for name, h := range map[string][]string{
		"content type":         {"Content-Type", "text/plain"},
		"charset":              {"Content-Type", "application/json; charset=latin1"},
		"long key":             {"Idempotency-Key", strings.Repeat("k", 129)},
		"key with a space":     {"Idempotency-Key", "a " + canary},
		"version not a number": {"If-Match", canary},
		"any version":          {"If-Match", "*"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.orc.in(t).refused(400, "malformed", "POST", "/v1/runs", body, h...)
			if strings.Contains(string(r.body), canary) {
				t.Errorf("repeats what was sent: %s", r)
			}
		})
	}
}

// A run belongs to who created it: to another orchestrator it does not exist
// (N17).
func TestN17ForeignRun(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("planner-2", "web", "orchestrator", "", []string{}, nil)
		foreign := w.session("planner-2", "orchestrator", "planner-2").at(w.last())
		task := c.enqueue("one", nil)
		for _, call := range []struct {
			method, path string
			body         any
		}{
			{"GET", "/v1/runs/" + c.run, nil},
			{"POST", "/v1/runs/" + c.run + "/seal", nil},
			{"POST", "/v1/runs/" + c.run + "/cancel", nil},
			{"POST", "/v1/tasks", c.task("foreign", nil)},
			{"POST", "/v1/tasks", c.task("one", nil)},
			{"GET", "/v1/tasks?run_id=" + c.run, nil},
			{"GET", "/v1/tasks/" + task, nil},
			{"POST", "/v1/tasks/" + task + "/cancel", nil},
		} {
			foreign.refused(404, "not_found", call.method, call.path, call.body)
		}
		if r := foreign.ok(200, "GET", "/v1/runs", nil); len(r.at("runs").([]any)) != 0 {
			t.Errorf("a foreign run is listed: %s", r)
		}
		if s := c.state(task); s != "queued" {
			t.Errorf("the task is %s", s)
		}
	})
}

// Probes and descriptions are open, and nothing else is.
func TestOpenPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	nobody := caller{t: t, gw: w.gw[0]}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/openapi.json", "/openapi.yaml", "/docs", "/schemas/task-envelope.json"} {
		r := nobody.ok(http.StatusOK, "GET", path, nil)
		if r.header.Get("X-Content-Type-Options") != "nosniff" || len(r.body) == 0 {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	nobody.refused(401, "unauthenticated", "GET", "/v1/policy", nil)
	nobody.refused(404, "not_found", "GET", "/", nil)
}
