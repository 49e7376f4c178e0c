package daemon

import (
	"bytes"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/jail"
)

// caged registers an agent with a jail, spawns a session of it and takes that as far as
// where its agent runs, with a claim of all the agent may write. It also gives another
// session of the same agent, outside.
func caged(t *testing.T, d *Daemon, op *client.Client) (id writ.SessionID, outside *client.Client) {
	t.Helper()
	must := func(c *client.Client, capability string, args, out any) {
		t.Helper()
		if _, err := c.Invoke(t.Context(), writ.CapabilityID(capability), args, out); err != nil {
			t.Fatalf("%s: %v", capability, err)
		}
	}
	must(op, "agent.register", map[string]any{
		"agent_id": "caged", "archetypes": []string{"executor"}, "domain": "web", "write_scope": []string{"fs:caged/"},
		"tools": []map[string]any{{"name": "site.build", "safety": "mutating"}}, "jail": map[string]any{"program": "builder"},
	}, nil)
	must(op, "agent.activate", map[string]any{"agent_id": "caged"}, nil)
	claims := []map[string]any{{"resource": "fs:caged/"}}
	var opened struct {
		SessionID writ.SessionID `json:"session_id"`
		Token     string         `json:"token"`
	}
	must(op, "session.open", map[string]any{"principal": "caged", "kind": "agent", "role": "executor", "agent_id": "caged", "heartbeat_ttl_s": 300}, &opened)
	outside, err := client.New(client.Config{URL: d.URL(), Token: opened.Token, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	must(outside, "session.start", map[string]any{"session_id": opened.SessionID}, nil)
	must(op, "session.spawn", map[string]any{"agent_id": "caged", "role": "executor", "write_claims": claims}, &opened)
	id = opened.SessionID
	jails := d.door.Jails(shard)
	for _, to := range []writ.JailState{writ.JailStarting, writ.JailStarting, writ.JailRunning, writ.JailRunning} { // whose answer may be lost
		if err := jails.Note(t.Context(), "one", id, to, map[string]string{"net": "none"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	all, err := jails.All(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d jails, %v", len(all), err)
	}
	for range 2 { // whose answer may be lost, too
		if err := jails.As(t.Context(), all[0].Session, "session.start", "start", map[string]any{"session_id": id, "write_claims": claims}); err != nil {
			t.Fatal(err)
		}
	}
	return id, outside
}

// What a session in a jail claims is nobody else's before the end of its jail is noted,
// and then whoever waits for it has it.
func TestClaimsAreFreeWhenTheJailHasEnded(t *testing.T) {
	onStores(t, func(t *testing.T, tune func(*Config)) {
		d, op, _ := start(t, t.TempDir(), tune)
		id, outside := caged(t, d, op)
		var run struct {
			ID writ.RunID `json:"run_id"`
		}
		var task struct {
			ID writ.TaskID `json:"task_id"`
		}
		if _, err := op.Invoke(t.Context(), "run.create", map[string]any{"title": "waits", "budget": map[string]any{"steps": 9}}, &run); err != nil {
			t.Fatal(err)
		}
		if _, err := op.Invoke(t.Context(), "task.enqueue", map[string]any{
			"run_id": run.ID, "key": "one", "capability": "site.build", "required_domain": "web", "write_scopes": []string{"fs:caged/a/"}, "labels": []string{"internal.system"},
		}, &task); err != nil {
			t.Fatal(err)
		}
		claim := func(args map[string]any) (writ.TaskID, error) {
			var got held
			_, err := outside.Invoke(t.Context(), "task.claim", args, &got)
			return got.Task.ID, err
		}
		if got, err := claim(map[string]any{}); got != "" || err != nil { // it waits for the session from now on
			t.Fatalf("a task of a claimed scope is %q, %v", got, err)
		}
		if _, err := op.Invoke(t.Context(), "session.revoke", map[string]any{"session_id": id}, nil); err != nil {
			t.Fatal(err)
		}
		for cleaned := false; !cleaned; time.Sleep(10 * time.Millisecond) {
			_, due := dueMembers(t, d, writ.IndexTodo)["session "+string(id)]
			cleaned = !due
		}
		if _, err := claim(map[string]any{"task_id": task.ID}); writ.CodeOf(err) != writ.CodeScopeConflict {
			t.Fatalf("its agent may still write there, and the task: %v", err)
		}
		if held := members(t, d, writ.IndexScopes); len(held) != 1 {
			t.Fatalf("held are %v", held)
		}
		if err := d.door.Jails(shard).Note(t.Context(), "one", id, writ.JailEnded, nil, &writ.JailExit{Why: writ.JailKilled}); err != nil {
			t.Fatal(err)
		}
		if got, err := claim(map[string]any{"wait_s": 10}); got == "" || err != nil {
			t.Fatalf("nobody woke the task that waited: %q, %v", got, err)
		}
	})
}

// What an agent prints is kept in whole lines up to the bound of its session, on both streams
// and in all its starts together; what is beyond is dropped and keeps nobody waiting.
func TestOutputOfASessionIsBounded(t *testing.T) {
	c := cells{site: jailSite{Programs: map[string]jailProgram{"builder": {Path: "/opt/builder"}}}, logs: t.TempDir()}
	spec, err := c.spec(writ.Jail{Session: "ses_01HZZZZZZZZZZZZZZZZZZZZZZZ", Spec: writ.JailSpec{Program: "builder"}.Filled()})
	if err != nil || spec.Output.Bytes != maxJailLog {
		t.Fatalf("%v: of a stream %d bytes are taken", err, spec.Output.Bytes)
	}
	path := filepath.Join(c.logs, "ses.log")
	line := []byte("token=" + strings.Repeat("x", 8000) + " and the rest\n")
	for range 3 { // starts
		out, err := openOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			if n, err := out.stream([]string{"out", "err"}[i%2]).Write(bytes.Repeat([]byte("a word "), 1000)); err != nil || n != 7000 {
				t.Fatalf("%d bytes, %v", n, err)
			}
			if _, err := out.stream("out").Write(line); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || len(b) > maxJailLog || len(b) < maxJailLog-9000 || b[len(b)-1] != '\n' {
		t.Errorf("%v: %d bytes are kept", err, len(b))
	}
	if bytes.Contains(b, []byte("xxxx")) || !bytes.Contains(b, []byte("token=[removed] and the rest\n")) {
		t.Error("what looks like a secret is kept")
	}
	if last := b[bytes.LastIndexByte(b[:len(b)-1], '\n')+1:]; !bytes.Contains(last, []byte(" writ it printed more than is kept of a session")) {
		t.Errorf("that it was cut is not said: %.100q", last)
	}
}

// What an agent prints is text when it is kept: nothing in it moves a cursor or looks like
// another line, and where something was left out the file says so, in words no agent can
// put there.
func TestOutputIsText(t *testing.T) {
	for name, tc := range map[string]struct {
		prints string
		short  bool
		want   []string
	}{
		"words and a tab":          {prints: "a\tword — ü\n", want: []string{"out a\tword — ü"}},
		"without an end":           {prints: "a word", want: []string{"out a word"}},
		"of another system":        {prints: "a word\r\n", want: []string{"out a word"}},
		"nothing":                  {prints: "\n", want: []string{"out "}},
		"what moves a cursor":      {prints: "\x1b[2J\x1b]0;title\a\b\x7f\u009b31m\n", want: []string{"out �[2J�]0;title����31m"}},
		"what goes back":           {prints: "x\r2026-01-02T15:04:05.000Z writ all is well\n", want: []string{"out x�2026-01-02T15:04:05.000Z writ all is well"}},
		"what turns text":          {prints: "\u202etxet\u200b\n", want: []string{"out �txet�"}},
		"what is no text":          {prints: "\xff\xfe\n", want: []string{"out ��"}},
		"a line as long as may be": {prints: strings.Repeat("x", maxJailLine) + "\n", want: []string{"out " + strings.Repeat("x", maxJailLine)}},
		"a line that is longer":    {prints: strings.Repeat("x", maxJailLine+1) + "\n", want: []string{"out " + strings.Repeat("x", maxJailLine), "writ the line above was longer than 8192 bytes, and its rest is not here"}},
		"a secret that is cut":     {prints: strings.Repeat("x", maxJailLine-30) + " postgres://user:hunter2hunter2@host/db\n", want: []string{"out " + strings.Repeat("x", maxJailLine-30) + " ", "writ the line above was longer than 8192 bytes, and its rest is not here"}},
		"a line that breaks":       {prints: "x\u2028y\u2029z\n", want: []string{"out x�y�z"}},
		"less than was printed":    {prints: "a word\n", short: true, want: []string{"out a word", "writ not all that it printed is here"}},
	} {
		path := filepath.Join(t.TempDir(), "ses.log")
		out, err := openOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := out.stream("out").Write([]byte(tc.prints)); err != nil || n != len(tc.prints) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if err := out.Close(tc.short); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(b)) {
			_, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ") // the time
			got = append(got, after)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %.200q, want %.200q", name, got, tc.want)
		}
	}
}

// saying is a jail that ends as the test says.
type saying struct {
	jail.Jail
	exit jail.Exit
}

func (s saying) Wait() jail.Exit { return s.exit }

// A jail that passed on less than its agent printed says so in the file.
func TestAJailSaysThatOutputWasCut(t *testing.T) {
	for _, cut := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "ses.log")
		out, err := openOutput(path)
		if err != nil {
			t.Fatal(err)
		}
		if exit := (inmate{saying{exit: jail.Exit{Reason: jail.Exited, Truncated: cut}}, out, slog.New(slog.DiscardHandler)}).Wait(); exit.Why != writ.JailExited {
			t.Errorf("it ended %+v", exit)
		}
		if b, err := os.ReadFile(path); err != nil || strings.HasSuffix(string(b), " writ not all that it printed is here\n") != cut {
			t.Errorf("cut %t: %q, %v", cut, b, err)
		}
	}
}
