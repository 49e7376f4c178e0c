package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// secretFile makes a secret as an operator does and returns its file and the
// line in it.
func secretFile(t *testing.T) (path, secret string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "hooks.secret")
	if err := MakeWebhookSecret(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.TrimSpace(string(b))
}

// The setting is the same in a file, a variable and a flag.
func TestWebhooksFromEverywhere(t *testing.T) {
	const line = "[{url: 'https://h/?a=b', secret_file: s, events: [approval.requested]}, {secret_file: s2, url: http://127.0.0.1:1}]"
	want := Webhooks{{URL: "https://h/?a=b", SecretFile: "s", Events: []writ.Event{writ.EventApprovalRequested}}, {URL: "http://127.0.0.1:1", SecretFile: "s2"}}
	path := filepath.Join(t.TempDir(), "writ.yaml")
	text := "public_url: https://writ.example.org/gw\nwebhooks:\n  - url: https://h/?a=b\n    secret_file: s\n    events: [approval.requested]\n  - secret_file: s2\n    url: http://127.0.0.1:1\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(k string) string { return map[string]string{"HOME": "/home/op", "WRIT_WEBHOOKS": line}[k] }
	for name, load := range map[string]func() (Config, error){
		"file": func() (Config, error) { return Load(path, noEnv, nil) },
		"env":  func() (Config, error) { return Load("", env, nil) },
		"flag": func() (Config, error) { return Load("", noEnv, map[string]string{"webhooks": line}) },
	} {
		c, err := load()
		if err != nil || !reflect.DeepEqual(c.Webhooks, want) {
			t.Errorf("%s: %+v, %v", name, []Webhook(c.Webhooks), err)
		}
		if printed := fmt.Sprintf("%v %+v", c, c); strings.Contains(printed, "a=b") {
			t.Errorf("%s: printing it shows the address: %s", name, printed)
		}
	}
	if c, err := Load(path, noEnv, map[string]string{"webhooks": "[]"}); err != nil || c.Webhooks != nil {
		t.Errorf("a flag does not take them away: %+v, %v", c.Webhooks, err)
	}
}

// What cannot be is refused, with the entry, and without a word of it.
func TestWrongWebhooks(t *testing.T) {
	nine := strings.Repeat("{url: 'https://canary/', secret_file: s}, ", 9)
	for _, tt := range []struct{ text, want string }{
		{"canary", "want a list of"},
		{"{url: https://canary/, secret_file: s}", "want a list of"},
		{"[{url: https://canary/, secret_file: s, retries: 3}]", "want a list of"},
		{"[{url: https://canary/, url: https://canary/, secret_file: s}]", "want a list of"},
		{"[{url: [https://canary/], secret_file: s}]", "want a list of"},
		{"[]\n---\n[{url: https://canary/}]", "want a list of"},
		{"[{secret_file: canary}]", "entry 1: url: want a URL"},
		{"[{url: https://canary/}]", "entry 1: secret_file: name a file"},
		{"[{url: https://h/, secret_file: s}, {url: http://canary.example.org/, secret_file: s}]", "entry 2: url: want https"},
		{"[{url: https://me:canary@h/, secret_file: s}]", "entry 1: url: want no user"},
		{"[{url: https://canary/, secret_file: s}, {url: https://canary/, secret_file: s}]", "entry 2: url: is there twice"},
		{"[{url: https://canary/, secret_file: s, events: [approval.canary]}]", "entry 1: events: want any of approval.requested, "},
		{"[{url: https://canary/, secret_file: s, events: [policy.notify, policy.notify]}]", "entry 1: events: want any of"},
		{"[" + nine + "]", "want at most 8"},
	} {
		_, err := Load("", noEnv, map[string]string{"webhooks": tt.text})
		if err == nil || !strings.Contains(err.Error(), "flag --webhooks: "+tt.want) && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.text, err, tt.want)
			continue
		}
		if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "daemon.") {
			t.Errorf("%s: the error repeats it: %v", tt.text, err)
		}
	}
}

// A start reads the secrets before it does anything, and the doctor finds what
// it would refuse.
func TestWebhookSecretsAreLookedAt(t *testing.T) {
	path, secret := secretFile(t)
	if err := MakeWebhookSecret(path); writ.CodeOf(err) != writ.CodeExists {
		t.Errorf("made over another: %v", err)
	}
	data := filepath.Join(t.TempDir(), "data")
	cfg, err := Load("", noEnv, map[string]string{
		"data": data, "listen": "127.0.0.1:0", "webhooks": "[{url: 'https://h.example.org/path?token=canary', secret_file: " + path + "}]",
	})
	if err != nil {
		t.Fatal(err)
	}
	all, wrong := examined(t, cfg)
	if len(wrong) != 0 || !strings.Contains(all["webhook"], "public_url is not set") {
		t.Errorf("looked at %v, wrong %v", all, wrong)
	}
	cfg.Public = "https://writ.example.org"
	if all, _ = examined(t, cfg); !strings.Contains(all["webhook"], "https://h.example.org/…: every event") {
		t.Errorf("looked at %v", all)
	}
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(path, []byte(secret+"x\n"), 0o600) },
		func() error { return os.Chmod(path, 0o644) },
		func() error { return os.Remove(path) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		_, wrong := examined(t, cfg)
		d := New(cfg, nil)
		e := writ.AsError("", d.Start(t.Context()))
		if len(wrong) != 1 || e == nil || e.Hint == "" || wrong["webhook"] != e.Error()+" "+e.Hint {
			t.Errorf("the start says %v, the doctor %v", e, wrong)
		}
		if text := fmt.Sprint(e, wrong, all); strings.Contains(text, "canary") || strings.Contains(text, secret) {
			t.Errorf("it tells what is secret: %s", text)
		}
		if _, err := os.Stat(data); err == nil {
			t.Error("the refused start has made its data directory")
		}
	}
}

// hook is a receiver that verifies what it gets.
type hook struct {
	*httptest.Server
	got chan received
}

type received struct {
	ID   string
	Type writ.Event     `json:"type"`
	Data map[string]any `json:"data"`
}

func newHook(t *testing.T, secret string) *hook {
	t.Helper()
	h := &hook{got: make(chan received, 1000)}
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			err = wh.Verify(b, r.Header) // the time too
		}
		m := received{ID: r.Header.Get("webhook-id")}
		if err == nil {
			err = json.Unmarshal(b, &m)
		}
		if err != nil {
			t.Errorf("a receiver would not take it: %v", err)
		}
		h.got <- m
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) next(t *testing.T) received {
	t.Helper()
	select {
	case m := <-h.got:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return received{}
	}
}

// A whole gateway tells of a request, of its decision and of a lapse, once; its
// metrics count it; nothing of the arguments leaves.
func TestWebhooksEndToEnd(t *testing.T) {
	onBoth := func(t *testing.T, store string) {
		path, secret := secretFile(t)
		h := newHook(t, secret)
		d, op, logged := start(t, filepath.Join(t.TempDir(), "data"), func(c *Config) {
			c.Store, c.Public, c.Webhooks = store, "https://writ.example.org", Webhooks{{URL: h.URL + "/in?token=canary", SecretFile: path}}
		})
		person := func(name, role string) *client.Client {
			t.Helper()
			var opened struct {
				SessionID string `json:"session_id"`
				Token     string `json:"token"`
			}
			if _, err := op.Invoke(t.Context(), "session.open", map[string]any{"principal": name, "kind": "human", "role": role}, &opened); err != nil {
				t.Fatal(err)
			}
			c, err := client.New(client.Config{URL: d.URL(), Token: opened.Token, Transport: &http.Transport{DisableKeepAlives: true}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Invoke(t.Context(), "session.start", map[string]any{"session_id": opened.SessionID}, nil); err != nil {
				t.Fatal(err)
			}
			return c
		}
		orc, alice := person("planner", "orchestrator"), person("alice", "approver")
		if _, err := op.Invoke(t.Context(), "agent.register", map[string]any{
			"agent_id": "builder", "archetypes": []string{"executor"}, "domain": "web", "write_scope": []string{"fs:x/"},
			"tools": []map[string]any{{"name": "site.build", "safety": "mutating", "approval": "manual"}},
		}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := op.Invoke(t.Context(), "agent.activate", map[string]any{"agent_id": "builder"}, nil); err != nil {
			t.Fatal(err)
		}
		var run struct {
			ID string `json:"run_id"`
		}
		if _, err := orc.Invoke(t.Context(), "run.create", map[string]any{"title": "r", "budget": map[string]any{"steps": 100}}, &run); err != nil {
			t.Fatal(err)
		}
		enqueue := func(key string) {
			t.Helper()
			_, err := orc.Invoke(t.Context(), "task.enqueue", map[string]any{
				"run_id": run.ID, "key": key, "summary": "canary summary", "capability": "site.build", "required_domain": "web", "args": map[string]any{"x": "canary"},
			}, nil)
			if writ.CodeOf(err) != writ.CodeApprovalRequired && err != nil {
				t.Fatal(err)
			}
		}
		enqueue("one")
		asked := h.next(t)
		id, _ := asked.Data["approval_id"].(string)
		if asked.Type != writ.EventApprovalRequested || asked.Data["state"] != "pending" || asked.Data["capability"] != "task.enqueue" ||
			asked.Data["run_id"] != run.ID || asked.Data["url"] != "https://writ.example.org/v1/approvals/"+id {
			t.Fatalf("got %+v", asked)
		}
		// The link needs a credential.
		if res, err := get(t.Context(), strings.Replace(asked.Data["url"].(string), "https://writ.example.org", d.URL(), 1)); err != nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("the link without a credential: %v, %v", res, err)
		} else {
			_ = res.Body.Close()
		}
		if _, err := alice.Invoke(t.Context(), "approval.decide", map[string]any{"approval_id": id, "decision": "approve", "reason": "canary reason"}, nil); err != nil {
			t.Fatal(err)
		}
		decided := h.next(t)
		if decided.Type != writ.EventApprovalDecided || decided.Data["approval_id"] != id || decided.Data["state"] != "approved" || decided.ID == asked.ID {
			t.Errorf("got %+v", decided)
		}
		enqueue("one") // uses it
		for _, m := range []received{asked, decided} {
			if text := fmt.Sprint(m); strings.Contains(text, "canary") {
				t.Errorf("it tells of the call: %s", text)
			}
		}
		waitFor(t, func() bool {
			res, err := get(t.Context(), d.URL()+"/metrics")
			if err != nil {
				return false
			}
			b, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			return strings.Contains(string(b), `writ_webhook_deliveries_total{event="approval.decided",outcome="delivered"} 1`) &&
				strings.Contains(string(b), "writ_webhook_waiting 0")
		})
		if len(h.got) != 0 {
			t.Errorf("more came: %+v", <-h.got)
		}
		stopDaemon(t, d)
		if text := logged.String(); strings.Contains(text, "canary") || strings.Contains(text, secret) {
			t.Errorf("the log holds what is secret:\n%s", text)
		}
	}
	t.Run("bolt", func(t *testing.T) { onBoth(t, "bolt") })
	t.Run("redis", func(t *testing.T) { onBoth(t, redistest.Start(t).URL()) })
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it does not come to be")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Without webhooks nothing is queued for anybody.
func TestNothingIsQueuedForNobody(t *testing.T) {
	d, _, _ := start(t, filepath.Join(t.TempDir(), "data"))
	if d.tell != nil || len(d.endpoints) != 0 {
		t.Errorf("told are %v", d.tell)
	}
	s, err := d.store.Read(t.Context(), shard, writ.ReadSet{Ranges: []writ.Range{{Index: writ.IndexEndpoints, Limit: 10}}})
	for _, r := range s.Ranges {
		if len(r.Members) != 0 || err != nil {
			t.Errorf("holders: %v, %v", r.Members, err)
		}
	}
}
