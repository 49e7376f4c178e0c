package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
)

func TestMain(m *testing.M) {
	// The process that starts jails is heard for as long as this one lives.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/writ-gateway/writ/jail.(*launcher).run"))
}

var update = flag.Bool("update", false, "write the generated files")

// upToDate holds a committed file to what the code makes, or writes it.
func upToDate(t *testing.T, file string, made []byte) {
	t.Helper()
	path := filepath.Join("../..", file)
	if *update {
		if err := os.WriteFile(path, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, committed) {
		t.Errorf("%s is not what the code makes: run make generate", file)
	}
}

// The committed description is the one the code makes.
func TestOpenAPIIsUpToDate(t *testing.T) {
	got, err := gateway.OpenAPIYAML(daemon.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	upToDate(t, "openapi/openapi.yaml", got)
}

// So is the schema of requests about tasks, and it takes what the examples of the
// commands send and nothing a caller says of who it is.
func TestTaskEnvelope(t *testing.T) {
	got, err := gateway.TaskEnvelope(daemon.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	upToDate(t, "openapi/task-envelope.json", got)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("envelope", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("envelope")
	if err != nil {
		t.Fatal(err)
	}
	const id = "01ARYZ6S41TSV4RRFFQ69G5FAV"
	hold := `"task_id":"tsk_` + id + `","lease_id":"lse_` + id + `","fence":3`
	for body, valid := range map[string]bool{
		`{"capability":"task.enqueue","args":{"run_id":"run_` + id + `","key":"build","capability":"site.build","required_domain":"web"}}`: true,
		`{"capability":"task.claim","args":{"wait_s":20}}`:                                                            true,
		`{"capability":"task.heartbeat","args":{` + hold + `,"progress":{"pct":3,"seq":1}}}`:                          true,
		`{"capability":"task.complete","args":{` + hold + `,"result":{"ok":true}}}`:                                   true,
		`{"capability":"task.handoff","args":{` + hold + `,"to":{"key":"test"}}}`:                                     true,
		`{"capability":"task.fail","args":{` + hold + `,"failure":{"class":"external","code":"x","retryable":true}}}`: true,
		`{"capability":"task.release","args":{` + hold + `}}`:                                                         true,
		`{"capability":"task.cancel","args":{"task_id":"tsk_` + id + `"}}`:                                            true,
		`{"capability":"task.release","args":{` + hold + `,"actor":{"session":"ses_` + id + `"}}}`:                    false,
		`{"capability":"task.release","args":{` + hold + `},"actor":{"session":"ses_` + id + `"}}`:                    false,
		`{"capability":"task.expire","args":{"task_id":"tsk_` + id + `"}}`:                                            false,
		`{"capability":"task.complete","args":{"task_id":"tsk_` + id + `"}}`:                                          false,
		`{"capability":"run.cancel","args":{"run_id":"run_` + id + `"}}`:                                              false,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != valid {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// Every capability callers may know has a command, and every command says what
// it is for.
func TestEveryCapabilityHasACommand(t *testing.T) {
	r := root()
	for _, k := range daemon.Catalog().All() {
		if k.Internal || k.ID == "capability.invoke" {
			continue
		}
		cmd, rest, err := r.Find(strings.Split(string(k.ID), "."))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s has no command: %v", k.ID, err)
			continue
		}
		if cmd.Short == "" {
			t.Errorf("%s: the command does not say what it does", k.ID)
		}
	}
}

func TestCommandsAreDocumented(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help %q", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root())
}

// The commands of policy authors teach by an example each.
func TestPolicyCommandsHaveExamples(t *testing.T) {
	policy, _, err := root().Find([]string{"policy"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range policy.Commands() {
		if c.GroupID == "" {
			continue
		}
		if n++; !strings.Contains(c.Example, "writ policy "+c.Name()) || c.Long == "" {
			t.Errorf("%s has no example, or does not say what it does", c.CommandPath())
		}
	}
	if n < 13 {
		t.Errorf("got %d commands, want 13 or more", n)
	}
}

func TestExitCodes(t *testing.T) {
	want := map[writ.Code]int{
		writ.CodeInputInvalid: exitUsage, writ.CodeNotFound: exitNotFound, writ.CodePolicy: exitDenied, writ.CodeLeaseLost: exitConflict,
		writ.CodeStore: exitUnavailable, writ.CodeInternal: exitError,
	}
	for c, code := range want {
		if got := exitCode(c); got != code {
			t.Errorf("%s: got %d, want %d", c, got, code)
		}
	}
	for _, c := range writ.Codes() {
		if c != writ.CodeInternal && exitCode(c) == exitError {
			t.Errorf("%s has no exit code of its own", c)
		}
	}
}

// No agent's words can move an operator's cursor.
func TestOutputIsPrintable(t *testing.T) {
	raw := json.RawMessage(`{"title":"a\u001b[31mred\u202e","n":9007199254740993,"list":[{"id":"x\ty","s":1}]}`)
	var b bytes.Buffer
	if err := render(&b, "table", raw); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\x1b\u202e") || !strings.Contains(b.String(), "9007199254740993") {
		t.Errorf("got %q", b.String())
	}
}

// argumentOf is an argument of a verb.
func argumentOf(t *testing.T, verb writ.CapabilityID, name string) argument {
	t.Helper()
	for _, a := range argumentsOf(daemon.Catalog().Get(verb).Args) {
		if a.name == name {
			return a
		}
	}
	t.Fatalf("%s has no argument %s", verb, name)
	return argument{}
}

func TestArguments(t *testing.T) {
	find := func(name string) argument { return argumentOf(t, "task.enqueue", name) }
	if !find("run_id").required || find("labels").required {
		t.Error("required arguments are not told from optional ones")
	}
	if v, err := find("write_scopes").parse("fs:a,fs:b"); err != nil || len(v.([]string)) != 2 {
		t.Errorf("a list: %v, %v", v, err)
	}
	if _, err := find("args").parse("{"); err == nil {
		t.Error("half an object passed")
	}
	if _, err := find("args").parse("{\n\"a\": secret}"); err == nil || !strings.Contains(err.Error(), "line 2, column 6") || strings.Contains(err.Error(), "secret") {
		t.Errorf("bad JSON: %v", err)
	}
	if v, err := find("priority").parse("7"); err != nil || v != int64(7) {
		t.Errorf("a number: %v, %v", v, err)
	}
}

// A list is words between commas or a JSON array, a structure is JSON; what is neither
// is answered with what to write, and without what was sent.
func TestListsSayWhatToWrite(t *testing.T) {
	for _, tt := range []struct {
		verb       writ.CapabilityID
		name, text string
		want       string // as JSON; what it says, if it is refused
	}{
		{"task.enqueue", "write_scopes", "fs:a, fs:b", `["fs:a","fs:b"]`},
		{"task.enqueue", "write_scopes", `["fs:a","fs:b"]`, `["fs:a","fs:b"]`},
		{"task.enqueue", "write_scopes", "", `[]`},
		{"task.enqueue", "write_scopes", `["secret"`, `'["one","two"]'`},
		{"task.enqueue", "write_scopes", `{"secret":1}`, `'["one","two"]'`},
		{"task.enqueue", "write_scopes", `[1]`, `'["one","two"]'`},
		{"task.enqueue", "write_scopes", "secret,,b", "as in one,two"},
		{"task.enqueue", "write_scopes", "secret,", "as in one,two"},
		{"task.enqueue", "depends_on", `[{"key":"build"}]`, `[{"key":"build"}]`},
		{"task.enqueue", "depends_on", "secret,test", `'[{"key":"…"}]'`},
		{"task.enqueue", "depends_on", `{"key":"secret"}`, "is not an array"},
		{"task.enqueue", "verify", "secret", `'{"required":true}'`},
		{"task.enqueue", "args", `["secret"]`, "is not an object"},
		{"task.handoff", "to", "secret", `'{"key":"…"}'`},
		{"agent.register", "tools", "secret", `'[{"name":"…","safety":"read-only"}]'`},
	} {
		v, err := argumentOf(t, tt.verb, tt.name).parse(tt.text)
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s %s: %v", tt.name, tt.text, err)
			}
			continue
		}
		if got, err := json.Marshal(v); err != nil || string(got) != tt.want {
			t.Errorf("%s %s: got %s, %v", tt.name, tt.text, got, err)
		}
	}
}

// With a JSON log, what serve says is JSON too, whatever the level.
func TestServingIsSaidInTheFormOfTheLog(t *testing.T) {
	var plain, logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))
	announce(&plain, log, daemon.Config{LogForm: "json", Data: "/data"}, "http://127.0.0.1:8700")
	var line struct{ Msg, URL, Token string }
	if err := json.Unmarshal(logged.Bytes(), &line); err != nil || line.Msg != "serving" || line.URL != "http://127.0.0.1:8700" || plain.Len() > 0 {
		t.Errorf("logged %q, said %q: %v", &logged, &plain, err)
	}
	announce(&plain, log, daemon.Config{LogForm: "text", Data: "/data"}, "http://127.0.0.1:8700")
	if want := "writ: serving http://127.0.0.1:8700\nwrit: operator token in /data/operator.token\n"; plain.String() != want {
		t.Errorf("said %q", &plain)
	}
}
