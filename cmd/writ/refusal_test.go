package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/writ-gateway/writ"
)

// asked is a call as a gateway gets it.
type asked struct {
	Capability writ.CapabilityID `json:"capability"`
	Args       map[string]any    `json:"args"`
}

// standIn is a gateway that gives answers from a function: the data of a reply, or the
// body of a problem. What it is asked it notes.
type standIn struct {
	flags  []string // that make a command call it
	answer func(asked) (status int, body string)
	mu     sync.Mutex
	got    []asked
}

func newStandIn(t *testing.T, answer func(asked) (int, string)) *standIn {
	t.Helper()
	g := &standIn{answer: answer}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var a asked
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		g.mu.Lock()
		g.got = append(g.got, a)
		status, body := g.answer(a)
		g.mu.Unlock()
		if status < 300 {
			body = `{"status":"done","data":` + body + `}`
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("default.ses_x.y"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.flags = []string{"--url", server.URL, "--token-file", token}
	return g
}

// typed runs a command line.
func typed(words ...string) (stdout, stderr string, exit int) {
	var out, err bytes.Buffer
	exit = run(words, &out, &err)
	return out.String(), err.String(), exit
}

const denied = `{"type":"https://writ-gateway.github.io/writ/problems/scope_denied","title":"Outside the agent's write scope","status":403,"code":"scope_denied",
	"detail":"not there","hint":"ask for less","request_id":"cll_1","rule_ids":["write_scopes.outside"],"receipt":"rcp_1",
	"errors":[{"pointer":"/write_scopes/0","message":"is outside\u202e"}],"details":{"agent":"builder"}}`

// With -o json a refusal is one object on one line, the problem the gateway answered
// with, and nothing else is said; the exit code is the same.
func TestRefusalsAsJSON(t *testing.T) {
	g := newStandIn(t, func(asked) (int, string) { return 403, denied })
	words := append([]string{"run", "create", "--budget", `{"steps":1}`}, g.flags...)
	out, plain, exit := typed(words...)
	if exit != exitDenied || out != "" || !strings.Contains(plain, "writ: error: scope_denied: not there\n") {
		t.Fatalf("%d %q %q", exit, out, plain)
	}
	out, text, exit := typed(append(words, "-o", "json")...)
	if exit != exitDenied || out != "" || strings.Count(text, "\n") != 1 || shown(strings.TrimSpace(text)) != strings.TrimSpace(text) {
		t.Fatalf("%d %q %q", exit, out, text)
	}
	var got, want map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(denied), &want); err != nil {
		t.Fatal(err)
	}
	want["exit_code"] = 4.0
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if !bytes.Equal(a, b) {
		t.Errorf("got  %s\nwant %s", a, b)
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// A report that cannot be written is no finding either.
func TestAReportThatCannotBeWritten(t *testing.T) {
	var said strings.Builder
	if exit := run(strings.Fields("receipt verify ../../testdata/vectors/receipts/export-foreign.jsonl --key ../../testdata/vectors/receipts/receipt.pub"), full{}, &said); exit != exitUnverified || !strings.Contains(said.String(), "no space left") {
		t.Errorf("%d, %s", exit, said.String())
	}
}

// What never came to a gateway has a code of its own, wherever -o json stands.
func TestMistakesAsJSON(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for _, tt := range []struct {
		words string
		code  writ.Code
		exit  int
		hint  string
	}{
		{"task get --nothing -o json", "usage", exitUsage, "writ task get --help"},
		{"task get -o json --nothing", "usage", exitUsage, "writ task get --help"},
		{"task get --output=json", "usage", exitUsage, "writ task get --help"},
		{"workflow graph -ojson FILE", "usage", exitUsage, "writ workflow graph --help"},
		{"run list --data FILE -o json", "usage", exitUsage, ""},
		{"run list --url http://127.0.0.1:1 -o json", "failed", exitError, ""},
		{"receipt verify FILE --key FILE -o json", "failed", exitUnverified, ""},
		{"receipt verify FILE -o json", "failed", exitUnverified, ""},
		{"log verify --log-key FILE -o json", "failed", exitUnverified, ""},
		{"log verify FILE -o json", "usage", exitUnverified, "writ log verify --help"},
		{"log verify FILE FILE --log-key FILE -o json", "usage", exitUnverified, "writ log verify --help"},
		{"log consistency FILE -o json", "usage", exitUnverified, "writ log consistency --help"},
		{"log check --nothing -o json", "usage", exitUnverified, "writ log check --help"},
		{"receipt verify FILE --nothing -o json", "usage", exitUnverified, "writ receipt verify --help"},
		{"pack verify -o json", "usage", exitUnverified, "writ pack verify --help"},
		{"run verify FILE -o json", "usage", exitUnverified, "writ run verify --help"},
		{"run verify FILE --run x -o json", "usage", exitUnverified, "writ run verify --help"},
		{"key generate --purpose receipt --dir FILE -o json", "usage", exitUsage, "writ key generate --help"},
	} {
		words := strings.Fields(strings.ReplaceAll(tt.words, "FILE", nowhere))
		t.Setenv("WRIT_DATA", "")
		t.Setenv("WRIT_TOKEN_FILE", "")
		out, text, exit := typed(words...)
		var got refusal
		if err := json.Unmarshal([]byte(text), &got); err != nil || out != "" || exit != tt.exit || got.Exit != exit || got.Code != tt.code || got.Hint != tt.hint || got.Detail == "" || got.Status != 0 {
			t.Errorf("%s: %d %s %v", tt.words, exit, text, err)
		}
	}
	for _, words := range [][]string{{"task", "get", "--nothing"}, {"task", "get", "--nothing", "-o", "table"}, {"task", "get", "--nothing", "--", "-o", "json"}} {
		if _, text, _ := typed(words...); !strings.HasPrefix(text, "writ: error: ") {
			t.Errorf("%v: %s", words, text)
		}
	}
}

// A file that is not there is wrong usage, whatever it is for.
func TestFilesThatAreNotThere(t *testing.T) {
	g := newStandIn(t, func(asked) (int, string) { return 200, `{}` })
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for _, words := range []string{
		"workflow validate FILE", "workflow submit FILE GATEWAY", "workflow graph FILE", "agent import FILE GATEWAY", "run list -f FILE GATEWAY", "run create --budget @FILE GATEWAY",
		"run list --data FILE", "run list GATEWAY --token-file FILE", "run list GATEWAY --cosign-key FILE", "serve -c FILE", "serve --policies FILE", "config check FILE", "doctor -c FILE",
		"policy check FILE", "policy test FILE", "policy eval --input FILE", "policy diff FILE FILE", "policy stage FILE GATEWAY", "policy replay --candidate FILE GATEWAY",
		"policy init FILE --pack mine", "policy sign --key FILE --key-id a FILE", "policy verify --trust FILE FILE", "policy verify --key FILE FILE",
		"verdict sign --task tsk_1 --verdict accept --key FILE GATEWAY", "verdict statement --task tsk_1 --verdict accept --receipt-key FILE GATEWAY",
		"task verify tsk_1 --verdict accept --receipt-id rcp_1 --verdict-file FILE GATEWAY", "run close run_1 --verdict accept --receipt-id rcp_1 --verdict-file FILE GATEWAY",
	} {
		args := []string{}
		for w := range strings.FieldsSeq(words) {
			if w == "GATEWAY" {
				args = append(args, g.flags...)
				continue
			}
			args = append(args, strings.ReplaceAll(w, "FILE", nowhere))
		}
		if _, text, exit := typed(args...); exit != exitUsage || !strings.Contains(text, nowhere) {
			t.Errorf("%s: %d %s", words, exit, text)
		}
	}
	if len(g.got) > 0 {
		t.Errorf("the gateway was asked: %v", g.got)
	}
}

// A refusal says which step it is about, and points into the file.
func TestSubmitNamesTheStep(t *testing.T) {
	const run = `{"run_id":"run_1","state":"%s","workflow":{"digest":"sha256:0","steps":2,"made":%d,"unfolded":false%s}}`
	stands := fmt.Sprintf(run, "failed", 1, `,"step":"test","code":"scope_denied","denial":"rcp_1","wrong":[{"pointer":"/write_scopes/0","message":"is outside"}]`)
	g := newStandIn(t, func(a asked) (int, string) {
		if a.Capability == "run.create" {
			return 201, fmt.Sprintf(run, "active", 0, "")
		}
		return 200, stands
	})
	file := write(t, "version: 1\nbudget: {steps: 9}\nsteps:\n  build: {capability: site.build, required_domain: web}\n  test: {capability: site.test, required_domain: web, depends_on: [build]}\n")
	words := append([]string{"workflow", "submit", file}, g.flags...)
	_, text, exit := typed(words...)
	for _, want := range []string{"writ: error: scope_denied: step test: a step was not made a task, and the run has failed\n", "writ:   at /steps/test/write_scopes/0: is outside"} {
		if exit != exitDenied || !strings.Contains(text, want) {
			t.Errorf("%d, no %q in %s", exit, want, text)
		}
	}
	_, text, exit = typed(append(words, "-o", "json")...)
	var got refusal
	if err := json.Unmarshal([]byte(text), &got); err != nil || exit != exitDenied {
		t.Fatalf("%d %v %s", exit, err, text)
	}
	if d := got.Details; d["step"] != "test" || d["run"] != "run_1" || d["steps_made"] != "1" || got.Receipt != "rcp_1" || got.Errors[0].Pointer != "/steps/test/write_scopes/0" {
		t.Errorf("got %s", text)
	}

	// A step that people are asked about is made when they have agreed, without anybody
	// doing more.
	stands = fmt.Sprintf(run, "active", 1, `,"step":"test","code":"approval_required"`)
	_, text, exit = typed(append(words, "-o", "json")...)
	got = refusal{}
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.Code != writ.CodeApprovalRequired || !strings.Contains(got.Hint, "run_1") || exit == 0 {
		t.Errorf("%d %v %s", exit, err, text)
	}

	// What is wrong with the file itself is one refusal too, and no call is made.
	g.got = nil
	_, text, exit = typed(append([]string{"workflow", "submit", write(t, "version: 2\nbudget: {steps: 9}\nsteps:\n  build: {capability: site.build}\n"), "-o", "json"}, g.flags...)...)
	got = refusal{}
	if err := json.Unmarshal([]byte(text), &got); err != nil || exit != exitError || got.Code != writ.CodeInputInvalid || len(g.got) > 0 ||
		!slices.Contains(got.Errors, writ.FieldError{Pointer: "/version", Msg: "must be 1"}) {
		t.Errorf("%d %v %s %v", exit, err, text, g.got)
	}
}

// So is what is wrong with a file of agents; for people it stands in the lines.
func TestUnsoundRosterAsJSON(t *testing.T) {
	g := newStandIn(t, func(asked) (int, string) { return 200, `{}` })
	file := write(t, "agents:\n- {id: a, domain: web}\n")
	_, plain, exit := typed(append([]string{"agent", "import", file}, g.flags...)...)
	if exit != exitError || !strings.HasPrefix(plain, file+":2:") {
		t.Fatalf("%d %s", exit, plain)
	}
	_, text, exit := typed(append([]string{"agent", "import", file, "-o", "json"}, g.flags...)...)
	var got refusal
	if err := json.Unmarshal([]byte(text), &got); err != nil || exit != exitError || got.Code != writ.CodeInputInvalid || len(got.Errors) != strings.Count(plain, "\n") || len(g.got) > 0 {
		t.Errorf("%d %v %s", exit, err, text)
	}
}

// write makes a file of a text.
func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
