package gateway

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	stdjson "encoding/json"

	"github.com/writ-gateway/writ"
)

// Argument types of the test registry: small, but with everything a schema
// can ask for.
type (
	noArgs      struct{}
	sessionArgs struct {
		SessionID writ.SessionID `json:"session_id" doc:"The session." pattern:"^ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	}
	approvalArgs struct {
		Approval writ.ApprovalID `json:"approval_id" pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	}
	bundleArgs struct {
		Digest string `json:"digest" pattern:"^sha256:[0-9a-f]{64}$"`
	}
	wordsArgs struct {
		Input string `json:"input" doc:"Words." maxLength:"512"`
	}
	agentArgs struct {
		AgentID writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	}
	registerArgs struct {
		AgentID    writ.AgentID `json:"agent_id" doc:"The agent." pattern:"^[a-z][a-z0-9-]{1,62}$"`
		Name       string       `json:"name,omitempty" maxLength:"16"`
		Archetypes []writ.Role  `json:"archetypes" enum:"orchestrator,executor,verifier" minItems:"1" maxItems:"3"`
		Tools      []writ.Tool  `json:"tools,omitempty" maxItems:"4"`
		Max        int64        `json:"max,omitempty" default:"4" minimum:"1" maximum:"1000"`
	}
	runArgs struct {
		RunID  writ.RunID `json:"run_id" pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		Reason string     `json:"reason,omitempty" default:"requested" enum:"requested,mistake"`
	}
	runCreateArgs struct {
		Title  string           `json:"title,omitempty" maxLength:"20"`
		Budget map[string]int64 `json:"budget" doc:"Limits by dimension."`
		Home   string           `json:"home,omitempty" format:"uri"`
		Wait   string           `json:"wait,omitempty" format:"duration"`
		Rule   string           `json:"rule,omitempty" format:"regex"`
		Mail   string           `json:"mail,omitempty" format:"email"`
		Uuid   string           `json:"uuid,omitempty" format:"uuid"`
		Flow   writ.RawObject   `json:"flow,omitempty"`
	}
	taskArgs struct {
		TaskID writ.TaskID `json:"task_id" pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		Fence  int64       `json:"fence,omitempty" minimum:"1"`
	}
	claimArgs struct {
		TaskID  writ.TaskID `json:"task_id,omitempty" pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		Domains []string    `json:"domains,omitempty" maxItems:"8" uniqueItems:"true"`
		Wait    int64       `json:"wait_s,omitempty" minimum:"0" maximum:"30"`
	}
	step struct {
		Name  string `json:"name" pattern:"^[a-z]+$"`
		Tries int64  `json:"tries,omitempty" default:"3"`
	}
	enqueueArgs struct {
		RunID    writ.RunID        `json:"run_id" pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		Key      string            `json:"key" pattern:"^[a-z][a-z0-9-]{1,62}$"`
		Args     writ.RawObject    `json:"args,omitempty"`
		Labels   []writ.Label      `json:"labels,omitempty" maxItems:"9"`
		Tags     map[string]string `json:"tags,omitempty"`
		Priority int64             `json:"priority,omitempty" default:"5" minimum:"0" maximum:"9"`
		Retry    *int64            `json:"retry,omitempty" default:"7"`
		Domains  []string          `json:"domains,omitempty" default:"web,ops"`
		Steps    []step            `json:"steps,omitempty"`
		First    step              `json:"first,omitempty"`
	}
	actionArgs struct {
		Run   string `json:"run_id,omitempty"`
		After string `json:"after,omitempty" doc:"Where the last page ended."`
		Limit int64  `json:"limit,omitempty" default:"50" minimum:"1" maximum:"200"`
		Short bool   `json:"short,omitempty"`
	}
	pageArgs struct {
		After string `json:"after,omitempty" doc:"Where the last page ended."`
		Limit int64  `json:"limit,omitempty" default:"50" minimum:"1" maximum:"200"`
		Short bool   `json:"short,omitempty"`
	}
	taskListArgs struct {
		RunID writ.RunID `json:"run_id" pattern:"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		After *int64     `json:"after,omitempty" minimum:"-1"`
	}
	putArgs struct {
		TaskID writ.TaskID `json:"task_id" pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
		Digest string      `json:"digest,omitempty" pattern:"^sha256:[0-9a-f]{64}$"`
		Size   int64       `json:"size,omitempty" minimum:"0"`
	}
	madeArgs struct {
		Digest string      `json:"digest" pattern:"^sha256:[0-9a-f]{64}$"`
		TaskID writ.TaskID `json:"task_id" pattern:"^tsk_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	}
	capArgs struct {
		Capability writ.CapabilityID `json:"capability"`
	}
	invokeArgs struct {
		Capability writ.CapabilityID `json:"capability"`
		Args       writ.RawObject    `json:"args,omitempty"`
	}
	roleArgs struct {
		Principal writ.PrincipalID `json:"principal"`
		Role      writ.Role        `json:"role"`
	}
	receiptArgs struct {
		ReceiptID writ.ReceiptID `json:"receipt_id"`
	}
	quotaArgs struct {
		QuotaID writ.QuotaID `json:"quota_id"`
	}
	effectArgs struct {
		EffectID writ.EffectID `json:"effect_id"`
	}
	fetchArgs struct {
		Grant  string `json:"grant,omitempty"`
		URL    string `json:"to,omitempty"`
		Path   string `json:"path,omitempty"`
		Method string `json:"method,omitempty"`
		Mode   string `json:"mode,omitempty"`
		Length int64  `json:"length,omitempty"`
	}
	grantArgs struct {
		Grant writ.EgressID `json:"grant_id"`
	}
	secretArgs struct {
		Name string `json:"name"`
	}
	hiddenArgs struct {
		Part hiddenPart `json:"part"`
	}
	hiddenPart struct{ N int64 }
	shown      struct {
		ID    string      `json:"id"`
		Items []string    `json:"items"`
		Tools []writ.Tool `json:"tools,omitempty"`
	}
)

func stub[A any](id writ.CapabilityID, s writ.Safety) *writ.Capability {
	return writ.Define[A, shown](writ.Capability{ID: id, Summary: "Do " + string(id) + ".", Safety: s}, writ.Verb[A]{
		Plan: func(*writ.Call, *A, writ.Snapshot, writ.Decision) (writ.Tx, writ.Reply, error) {
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone}, nil
		},
	})
}

func acts[A any](id writ.CapabilityID) *writ.Capability {
	c := *stub[A](id, writ.SafetyMutating)
	c.Class, c.Effects = writ.Effectful, []string{"network"}
	return &c
}

func testCapabilities() []*writ.Capability {
	const ro, mut = writ.SafetyReadOnly, writ.SafetyMutating
	hidden := stub[hiddenArgs]("task.sweep", mut)
	hidden.Internal = true
	return []*writ.Capability{
		hidden,
		stub[noArgs]("session.open", mut), stub[pageArgs]("session.list", ro), stub[sessionArgs]("session.get", ro),
		stub[sessionArgs]("session.start", mut), stub[sessionArgs]("session.heartbeat", mut),
		stub[sessionArgs]("session.close", mut), stub[sessionArgs]("session.revoke", mut),
		stub[registerArgs]("agent.register", mut), stub[pageArgs]("agent.list", ro), stub[agentArgs]("agent.info", ro),
		stub[agentArgs]("agent.tools", ro), stub[agentArgs]("agent.health", ro), stub[wordsArgs]("agent.route", ro), stub[agentArgs]("agent.activate", mut), stub[agentArgs]("agent.suspend", mut),
		stub[agentArgs]("agent.revoke", mut), stub[agentArgs]("agent.supersede", mut), stub[agentArgs]("agent.retire", mut),
		stub[agentArgs]("session.spawn", mut),
		stub[runCreateArgs]("run.create", mut), stub[pageArgs]("run.list", ro), stub[runArgs]("run.get", ro), stub[runArgs]("run.budget", ro),
		stub[runArgs]("run.seal", mut), stub[runArgs]("run.cancel", mut), stub[runArgs]("run.close", mut),
		stub[enqueueArgs]("task.enqueue", mut), stub[taskListArgs]("task.list", ro), stub[taskArgs]("task.get", ro),
		stub[claimArgs]("task.claim", mut), stub[taskArgs]("task.heartbeat", mut), stub[taskArgs]("task.complete", mut),
		stub[taskArgs]("task.fail", mut), stub[taskArgs]("task.release", mut), stub[taskArgs]("task.cancel", mut), stub[taskArgs]("task.admit", mut), stub[taskArgs]("task.handoff", mut), stub[taskArgs]("task.revive", mut), stub[runArgs]("agent.delegate", mut), stub[taskArgs]("task.verify", mut), stub[pageArgs]("scope.list", ro),
		stub[putArgs]("artifact.put", mut), stub[pageArgs]("artifact.list", ro), stub[madeArgs]("artifact.get", ro), stub[madeArgs]("artifact.content", ro),
		stub[pageArgs]("approval.list", ro), stub[approvalArgs]("approval.get", ro), stub[approvalArgs]("approval.decide", mut),
		stub[approvalArgs]("approval.respond", mut), stub[approvalArgs]("approval.revoke", mut),
		stub[noArgs]("capability.list", ro), stub[capArgs]("capability.get", ro), stub[invokeArgs]("capability.invoke", mut),
		stub[noArgs]("policy.info", ro), stub[receiptArgs]("policy.explain", ro), stub[pageArgs]("policy.records", ro), stub[noArgs]("policy.shadow", ro), stub[actionArgs]("receipt.list", ro), stub[pageArgs]("receipt.export", ro),
		stub[noArgs]("key.list", ro), stub[noArgs]("key.introduce", mut), stub[noArgs]("key.activate", mut), stub[noArgs]("key.retire", mut), stub[noArgs]("key.revoke", mut),
		stub[noArgs]("log.head", ro), stub[receiptArgs]("receipt.get", ro), stub[receiptArgs]("receipt.evidence", ro), stub[runArgs]("evidence.shred", mut),
		stub[pageArgs]("policy.list", ro), stub[noArgs]("policy.stage", mut), stub[noArgs]("policy.rollback", mut),
		stub[bundleArgs]("policy.activate", mut), stub[bundleArgs]("policy.withdraw", mut),
		stub[pageArgs]("role.list", ro), stub[pageArgs]("role.permissions", ro), stub[roleArgs]("role.bind", mut), stub[roleArgs]("role.unbind", mut),
		stub[pageArgs]("quota.list", ro), stub[noArgs]("quota.set", mut), stub[quotaArgs]("quota.get", ro), stub[quotaArgs]("quota.delete", mut),
		stub[pageArgs]("secret.list", ro), stub[secretArgs]("secret.put", mut), stub[secretArgs]("secret.delete", mut),
		stub[pageArgs]("effect.list", ro), stub[effectArgs]("effect.get", ro), stub[effectArgs]("effect.resolve", mut),
		acts[fetchArgs]("egress.fetch"), stub[grantArgs]("egress.grant", mut), stub[grantArgs]("egress.revoke", mut), stub[pageArgs]("egress.grants", ro),
	}
}

func testRegistry(t testing.TB) *writ.Registry {
	t.Helper()
	reg, err := writ.NewRegistry(testCapabilities()...)
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// fakeDoor decodes what it gets, as the real one does, and answers with answer.
type fakeDoor struct {
	reg *writ.Registry
	val *Validator

	mu     sync.Mutex
	calls  []*writ.Call
	answer func(*writ.Call) (writ.Reply, *writ.Receipt, error)
}

func (d *fakeDoor) Do(_ context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error) {
	d.mu.Lock()
	d.calls = append(d.calls, call)
	answer := d.answer
	d.mu.Unlock()
	c := d.reg.Get(call.Capability)
	if c == nil {
		return writ.Reply{}, nil, writ.Refuse(writ.CodeNotFound, "test", "no such capability", "")
	}
	args, err := d.val.Decode(c, call.Raw)
	if err != nil {
		return writ.Reply{}, nil, err
	}
	call.Args = args
	if answer != nil {
		return answer(call)
	}
	return writ.Reply{Outcome: writ.OutcomeDone, JSON: stdjson.RawMessage(`{"id":"x","items":[]}`)}, nil, nil
}

func (d *fakeDoor) last(t *testing.T) *writ.Call {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.calls) == 0 {
		t.Fatal("nothing reached the door")
	}
	return d.calls[len(d.calls)-1]
}

func (d *fakeDoor) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.calls)
}

// zeros is randomness that counts.
type counting struct {
	mu sync.Mutex
	n  byte
}

func (c *counting) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b {
		c.n++
		b[i] = c.n
	}
	return len(b), nil
}

func newFake(t testing.TB, change func(*Config)) (http.Handler, *fakeDoor) {
	t.Helper()
	reg := testRegistry(t)
	val, err := NewValidator(reg)
	if err != nil {
		t.Fatal(err)
	}
	door := &fakeDoor{reg: reg, val: val}
	cfg := Config{
		Door: door, Registry: reg, Rand: &counting{},
		Now: func() time.Time { return time.UnixMilli(1_700_000_000_000) },
	}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h, door
}

const (
	testSession = "ses_01HZZZZZZZZZZZZZZZZZZZZZZZ"
	testTask    = "tsk_01HZZZZZZZZZZZZZZZZZZZZZZZ"
	testRun     = "run_01HZZZZZZZZZZZZZZZZZZZZZZZ"
	testReceipt = "rcp_01HZZZZZZZZZZZZZZZZZZZZZZZ"
	testSecret  = "abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE"
	testToken   = "default." + testSession + "." + testSecret
)

// send makes a request with the test token.
func send(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, rd)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// wantProblem checks status, code and form of a refusal.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code writ.Code) Problem {
	t.Helper()
	var p Problem
	dec := stdjson.NewDecoder(bytes.NewReader(w.Body.Bytes()))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		t.Fatalf("not a problem: %v: %s", err, w.Body)
	}
	if w.Code != status || p.Code != code || p.Status != status {
		t.Fatalf("got %d %s, want %d %s: %s", w.Code, p.Code, status, code, w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("content type %q", ct)
	}
	if p.Type != ProblemType+string(code) || p.Title == "" || p.RequestID == "" {
		t.Fatalf("incomplete problem: %s", w.Body)
	}
	return p
}
