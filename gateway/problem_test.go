package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

func TestEveryCodeHasAStatus(t *testing.T) {
	for _, c := range writ.Codes() {
		k, ok := kindOf[c]
		if !ok || k.Title == "" || k.Status < 400 || k.Status > 599 {
			t.Errorf("%s: %+v", c, k)
		}
	}
	if len(kindOf) != len(writ.Codes()) {
		t.Errorf("%d codes in the table, %d in the dictionary", len(kindOf), len(writ.Codes()))
	}
	if StatusOf("made_up") != http.StatusInternalServerError {
		t.Error("an unknown code is not an internal error")
	}
}

func TestProblemCarriesTheRefusal(t *testing.T) {
	h, door := newFake(t, nil)
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		e := writ.IllegalMove("queue.Complete", "task", "done", "running")
		e.Rules, e.RetryMs, e.Receipt = []string{"lifecycle.task_closed"}, 1200, testReceipt
		return writ.Reply{}, nil, e
	}
	w := send(h, "POST", "/v1/tasks/"+testTask+"/complete", `{"fence":1}`)
	p := wantProblem(t, w, http.StatusConflict, writ.CodeIllegal)
	if p.Details["from"] != "done" || p.Details["to"] != "running" || p.RuleIDs[0] != "lifecycle.task_closed" || p.Receipt != testReceipt {
		t.Errorf("problem %+v", p)
	}
	if w.Header().Get("Retry-After") != "2" || w.Header().Get("Receipt-Id") != testReceipt {
		t.Errorf("headers %v", w.Header())
	}
}

// If-Match that no longer holds is 412; a report that is out of order is a
// conflict of its own, whatever If-Match says.
func TestVersionConflicts(t *testing.T) {
	h, door := newFake(t, nil)
	door.answer = func(c *writ.Call) (writ.Reply, *writ.Receipt, error) {
		if err := c.Match("queue.Complete", 8); err != nil {
			return writ.Reply{}, nil, err
		}
		return writ.Reply{}, nil, writ.Refuse(writ.CodeVersion, "queue.Complete", "a later report is known", "")
	}
	for _, c := range []struct {
		match  string
		status int
	}{{`"7"`, http.StatusPreconditionFailed}, {`"8"`, http.StatusConflict}, {"", http.StatusConflict}} {
		w := send(h, "POST", "/v1/tasks/"+testTask+"/complete", `{"fence":1}`, "If-Match", c.match)
		wantProblem(t, w, c.status, writ.CodeVersion)
	}
}

func TestInternalErrorsShowOnlyAnID(t *testing.T) {
	var log bytes.Buffer
	for name, answer := range map[string]func(*writ.Call) (writ.Reply, *writ.Receipt, error){
		"error": func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			return writ.Reply{}, nil, errors.New("password=hunter2")
		},
		"fault": func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			return writ.Reply{}, nil, &writ.Error{Code: writ.CodeInternal, Msg: "hunter2", Hint: "hunter2", Details: map[string]string{"a": "hunter2"}}
		},
		"unknown code": func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
			return writ.Reply{}, nil, &writ.Error{Code: "made_up", Msg: "hunter2"}
		},
		"panic":           func(*writ.Call) (writ.Reply, *writ.Receipt, error) { panic("hunter2") },
		"unknown outcome": func(*writ.Call) (writ.Reply, *writ.Receipt, error) { return writ.Reply{Outcome: "hunter2"}, nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			log.Reset()
			h, door := newFake(t, func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
			door.answer = answer
			w := send(h, "GET", "/v1/runs/"+testRun, "")
			p := wantProblem(t, w, http.StatusInternalServerError, writ.CodeInternal)
			if strings.Contains(w.Body.String(), "hunter2") {
				t.Errorf("shown: %s", w.Body)
			}
			if !strings.Contains(log.String(), p.RequestID) || (name != "unknown outcome" && !strings.Contains(log.String(), "hunter2")) {
				t.Errorf("the log does not have it: %s", log.String())
			}
		})
	}
}

func TestStoreErrorsKeepTheirCauseInTheLog(t *testing.T) {
	var log bytes.Buffer
	h, door := newFake(t, func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(&log, nil)) })
	door.answer = func(*writ.Call) (writ.Reply, *writ.Receipt, error) {
		return writ.Reply{}, nil, writ.Fault(writ.CodeStore, "guard.Commit", errors.New("dial tcp 10.0.0.7: refused"))
	}
	w := send(h, "GET", "/v1/runs/"+testRun, "")
	wantProblem(t, w, http.StatusServiceUnavailable, writ.CodeStore)
	if strings.Contains(w.Body.String(), "10.0.0.7") || !strings.Contains(log.String(), "10.0.0.7") || w.Header().Get("Retry-After") != "1" {
		t.Errorf("body %s\nlog %s", w.Body, log.String())
	}
}

// Huma's own model would repeat the value of a rejected field.
func TestHumaErrorsAreBare(t *testing.T) {
	for _, status := range []int{400, 401, 404, 413, 422, 500} {
		err := huma.NewError(status, "canary", &huma.ErrorDetail{Message: "canary", Value: "canary"})
		p, ok := err.(*Problem)
		if !ok || p.Status != status || p.Detail == "canary" || len(p.Errors) != 0 {
			t.Errorf("%d: %+v", status, err)
		}
	}
}
