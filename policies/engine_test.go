package policies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
)

// verbs stand for the gateway's capabilities.
var verbs = []writ.CapabilityID{
	"session.open", "session.spawn", "session.revoke", "session.list", "session.start", "session.heartbeat", "session.close", "session.get",
	"agent.register", "agent.activate", "agent.suspend", "agent.revoke", "agent.supersede", "agent.retire", "agent.list", "agent.info", "agent.tools",
	"run.create", "run.seal", "run.cancel", "run.get", "run.list",
	"task.enqueue", "task.cancel", "task.get", "task.list", "task.claim", "task.heartbeat", "task.complete", "task.fail", "task.release",
	"capability.list", "capability.get", "capability.invoke", "policy.info",
	"receipt.get", "receipt.list", "receipt.export", "receipt.evidence", "evidence.shred",
	"session.expire", "task.expire", // internal
}

// sources is a copy of the shipped files, to be changed by a test.
func sources(t testing.TB) files {
	t.Helper()
	f, err := readTree(shipped)
	if err != nil {
		t.Fatal(err)
	}
	return maps.Clone(f)
}

func from(f files) Source {
	return Source{"test", func() (files, error) { return f, nil }}
}

func loadFrom(t testing.TB, src Source) *Engine {
	t.Helper()
	// A busy machine must not fail a test: only the tests of the time limit have a short one.
	e, err := Load(t.Context(), src, Options{Capabilities: verbs, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func load(t testing.TB) *Engine { return loadFrom(t, Shipped()) }

// claim is an allowed task.claim as the gateway makes one.
func claim() writ.PolicyInput {
	return writ.PolicyInput{
		Call:       &writ.Call{Capability: "task.claim", Caller: writ.Caller{Kind: writ.KindAgent}, Via: "capability.invoke"},
		Capability: &writ.Capability{ID: "task.claim", Class: writ.Ordinary, Safety: writ.SafetyMutating},
		Session:    &writ.Session{ID: "ses_01J0000000000000000000000A", Role: writ.RoleExecutor, State: writ.SessionActive},
		Subject: writ.Subject{
			Agent:  &writ.AgentFacts{ID: "builder-1", Status: writ.AgentActive, Domain: "web", WriteScope: []string{"fs:repo/site/", "mem:notes/"}},
			Run:    &writ.RunFacts{ID: "run_01J0000000000000000000000B", State: writ.RunActive},
			Task:   &writ.TaskFacts{ID: "tsk_01J0000000000000000000000C", State: writ.TaskQueued, Capability: "site.build", Domain: "web", Safety: writ.SafetyMutating, Approval: writ.ApprovalAuto},
			Scopes: []string{"fs:repo/site/assets/"},
			Labels: []writ.Label{writ.LabelInternalSystem, writ.LabelPublic},
			Sinks:  []writ.Sink{writ.SinkEgress},
			Budget: []writ.BudgetFacts{{Dimension: writ.BudgetSteps, Limit: 1000, Cost: 1, Fits: true, Band: 50, OnExceed: "hard_stop"}},
		},
		Now: 1_790_000_000_123,
	}
}

// full is a call with everything a call can carry.
func full() writ.PolicyInput {
	in := claim()
	in.Subject.Budget = nil
	for _, d := range writ.BudgetDimensions() {
		in.Subject.Budget = append(in.Subject.Budget, writ.BudgetFacts{Dimension: d, Limit: 1000, Cost: 1, Fits: true, Band: 50, Waits: true, OnExceed: "approval_required"})
	}
	in.Subject.Claimed = []string{"fs:repo/site/assets/"}
	in.Subject.Approval = &writ.ApprovalFacts{ID: "apr_01J0000000000000000000000D", Kind: writ.ApproveEffect, Scope: writ.ScopeCall, State: writ.ApprovalApproved}
	in.Subject.Content = &writ.ContentFacts{Declared: []writ.Label{writ.LabelPublic}, Verified: true}
	in.Subject.Duty = &writ.DutyFacts{}
	in.Subject.Egress = &writ.EgressFacts{Scheme: "https", Pinned: true, Jailed: true, Grant: &writ.EgressGrantFacts{
		ID: "site-api", Found: true, Live: true, Method: true, Path: true, Mode: writ.EgressRequest, Admits: []writ.Label{writ.LabelInternalSystem},
	}}
	in.Subject.Entry = &writ.EntryFacts{Domain: "web", Contract: true, Safety: writ.SafetyMutating}
	in.Subject.Grant = &writ.GrantFacts{Child: true, Fits: true}
	in.Subject.Price = &writ.PriceFacts{Known: true, MicroUSD: 250}
	in.Subject.Quotas = []writ.QuotaFacts{{Metric: "running_tasks", Subject: "agent", Limit: 4, Fits: true, OnExceed: "queue"}}
	in.Subject.Skill = &writ.SkillFacts{Source: "inline", State: "active", Intact: true, Ready: true}
	return in
}

func decide(t testing.TB, e *Engine, in writ.PolicyInput) writ.Decision {
	t.Helper()
	d, err := e.Decide(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDecide(t *testing.T) {
	e := load(t)
	policy, bindings := e.Revisions()
	for _, tc := range []struct {
		name   string
		change func(*writ.PolicyInput)
		rules  []string
		code   writ.Code
	}{
		{"as it is", func(*writ.PolicyInput) {}, []string{}, ""},
		{"nobody", func(in *writ.PolicyInput) { in.Session = nil }, []string{"lifecycle.incomplete"}, writ.CodePolicy},
		{"the system", func(in *writ.PolicyInput) {
			in.Session, in.Subject.Agent, in.Call.Caller.Kind = nil, nil, writ.KindSystem
		}, []string{}, ""},
		{"suspended agent", func(in *writ.PolicyInput) { in.Subject.Agent.Status = writ.AgentSuspended }, []string{"lifecycle.agent_inactive"}, writ.CodePolicy},
		{"run ended", func(in *writ.PolicyInput) { in.Subject.Run.State = writ.RunDone }, []string{"lifecycle.run_closed"}, writ.CodeIllegal},
		{"outside", func(in *writ.PolicyInput) { in.Subject.Scopes = []string{"fs:repo/ops/"} }, []string{"write_scopes.outside"}, writ.CodeScope},
		{"secret", func(in *writ.PolicyInput) { in.Subject.Labels = []writ.Label{writ.LabelSecretToken} }, []string{"classification.secret"}, writ.CodeClassification},
		{"steps used up", func(in *writ.PolicyInput) { in.Subject.Budget[0].Fits = false }, []string{"budgets.hard_stop.steps"}, writ.CodeBudget},
		{"all at once, in order", func(in *writ.PolicyInput) {
			in.Subject.Budget[0].Fits = false
			in.Subject.Labels = []writ.Label{writ.LabelSecretToken, writ.LabelPIIAttachment}
			in.Subject.Run.State = writ.RunFailed
			in.Subject.Agent.Status = writ.AgentPlanned
			in.Subject.Scopes = []string{"fs:repo/../ops/"}
		}, []string{
			"budgets.hard_stop.steps", "classification.pii_raw", "classification.secret", "lifecycle.agent_inactive",
			"lifecycle.run_closed", "write_scopes.canonical", "write_scopes.outside",
		}, writ.CodeBudget},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := claim()
			tc.change(&in)
			d := decide(t, e, in)
			if !slices.Equal(d.Rules(), tc.rules) {
				t.Fatalf("rules: got %v, want %v", d.Rules(), tc.rules)
			}
			want := writ.EffectAllow
			if len(tc.rules) > 0 {
				want = writ.EffectDeny
				if writ.Code(d.Findings[0].Code) != tc.code {
					t.Errorf("code: got %s, want %s", d.Findings[0].Code, tc.code)
				}
			}
			if d.Effect != want {
				t.Errorf("effect: got %s, want %s", d.Effect, want)
			}
			if d.PolicyRevision != policy || d.BindingsRevision != bindings || len(d.Packs) != 6 {
				t.Errorf("decision does not name what decided: %+v", d)
			}
		})
	}
}

func TestRouting(t *testing.T) {
	e, err := Load(t.Context(), Shipped(), Options{
		Capabilities: slices.Concat(verbs, []writ.CapabilityID{"approval.decide", "egress.fetch", "skill.load", "skill.execute"}), Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range map[writ.CapabilityID]string{
		"task.enqueue":    "approvals budgets classification lifecycle sod write_scopes",
		"task.claim":      "approvals budgets classification lifecycle sod write_scopes",
		"run.create":      "budgets lifecycle quotas",
		"policy.info":     "budgets lifecycle",
		"task.expire":     "approvals budgets classification lifecycle sod write_scopes",
		"agent.list":      "budgets lifecycle",
		"session.open":    "budgets lifecycle quotas",
		"approval.decide": "approvals budgets lifecycle sod",
		"egress.fetch":    "approvals budgets classification egress lifecycle quotas",
		"skill.load":      "approvals budgets lifecycle quotas skills",
		"skill.execute":   "approvals budgets classification egress lifecycle quotas skills write_scopes",
	} {
		in := claim()
		in.Capability.ID = c
		var got []string
		for _, p := range decide(t, e, in).Packs {
			got = append(got, p.ID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", c, got, want)
		}
	}
	s := e.now.Load()
	if s.routes["task.claim"] != s.routes["task.get"] || s.routes["run.get"] != s.routes["agent.list"] {
		t.Error("capabilities with the same packs do not share one prepared query")
	}
}

func TestDecideFailsClosed(t *testing.T) {
	e := load(t)
	policy, _ := e.Revisions()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	unknown := claim()
	unknown.Capability.ID = "task.teleport"
	garbled := claim()
	garbled.Subject.Agent.Domain = "we\xffb"
	for _, tc := range []struct {
		name string
		ctx  context.Context
		in   writ.PolicyInput
	}{
		{"no call", t.Context(), writ.PolicyInput{}},
		{"unknown capability", t.Context(), unknown},
		{"caller gone", gone, claim()},
		{"text is not UTF-8", t.Context(), garbled},
	} {
		d, err := e.Decide(tc.ctx, tc.in)
		if writ.CodeOf(err) != writ.CodePolicyDown || d.Effect != writ.EffectDeny || d.PolicyRevision != policy {
			t.Errorf("%s: got %s %v, want deny, %s and the revision", tc.name, d.Effect, err, writ.CodePolicyDown)
		}
	}
}

// guardPack is a further pack with one more rule than it must have.
func guardPack(f files, id, match, effects, finding, body string) {
	f["packs/"+id+"/pack.yaml"] = fmt.Appendf(nil,
		"manifest: {id: %s, version: 1.0.0, title: T, owner: me, kind: guard, match: {capabilities: [%q]}, effects: [%s]}\n", id, match, effects)
	f["packs/"+id+"/"+id+".rego"] = fmt.Appendf(nil, `package packs.%[1]s

import future.keywords.not

# METADATA
# title: Incomplete
# description: Says nothing.
# custom: {id: %[1]s.incomplete, severity: low, control: fail closed}
findings contains {"rule": "%[1]s.incomplete", "effect": "deny", "code": "policy_denied", "message": "incomplete"} if not input.call.capability

# METADATA
# title: Rule
# description: The rule of the test.
# custom: {id: %[1]s.rule, severity: low, control: test}
findings contains {"rule": "%[1]s.rule", %[2]s, "message": "held"} if {
	%[3]s
}
`, id, finding, body)
}

// What the host cannot carry out, or cannot read, denies.
func TestWhatTheHostCannotDoDenies(t *testing.T) {
	for _, tc := range []struct {
		effects, finding string
		effect           writ.Effect
		code             writ.Code
	}{
		{"allow, deny", `"effect": "allow", "code": "quota_exceeded"`, writ.EffectAllow, writ.CodeQuota},
		{"allow, deny", `"effect": "allow", "code": "quota_exceeded", "obligations": []`, writ.EffectAllow, writ.CodeQuota},
		{"allow, deny", `"effect": "allow", "code": "quota_exceeded", "obligations": [{"type": "note"}]`, writ.EffectDeny, writ.CodePolicy},
		{"allow, deny", `"effect": "allow", "code": "quota_exceeded", "obligations": [{"type": "notify"}]`, writ.EffectAllow, writ.CodeQuota},
		{"allow, deny", `"effect": "allow", "code": "quota_exceeded", "obligations": [{"type": "approval"}]`, writ.EffectDeny, writ.CodePolicy},
		{"redact, deny", `"effect": "redact", "code": "quota_exceeded"`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "approval_required", "obligations": [{"type": "approval", "args": {"Approvers": 3, "approvers": 1}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "approval_required", "obligations": [{"type": "approval", "args": {"approvers": null}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded"`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval"}]`, writ.EffectRequireApproval, writ.CodeQuota},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval", "args": {"approvers": 0}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval", "args": {"scope": "tenant"}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval", "args": {"aprovers": 2}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval", "args": {"rule": "a.b"}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval", "args": {"kind": "budget_extension"}}]`, writ.EffectDeny, writ.CodePolicy},
		{"require_approval, deny", `"effect": "require_approval", "code": "quota_exceeded", "obligations": [{"type": "approval"}, {"type": "countersign"}]`, writ.EffectDeny, writ.CodePolicy},
		{"deny", `"effect": "deny", "code": "quota_exceeded", "obligations": [{"type": "retry_after"}]`, writ.EffectDeny, writ.CodeQuota},
	} {
		f := sources(t)
		guardPack(f, "extra", "task.claim", tc.effects, tc.finding, "input.call.capability")
		d := decide(t, loadFrom(t, from(f)), claim())
		if d.Effect != tc.effect || len(d.Findings) != 1 || d.Findings[0].Code != string(tc.code) {
			t.Errorf("%s: got %s %+v, want %s %s", tc.finding, d.Effect, d.Findings, tc.effect, tc.code)
		}
	}
}

func TestStrongestFindingWins(t *testing.T) {
	f := sources(t)
	guardPack(f, "aaa", "task.claim", "allow, deny", `"effect": "allow", "code": "quota_exceeded"`, "input.call.capability")
	guardPack(f, "zzz", "task.claim", "deny", `"effect": "deny", "code": "quota_exceeded"`, "input.call.capability")
	d := decide(t, loadFrom(t, from(f)), claim())
	if want := []string{"zzz.rule", "aaa.rule"}; d.Effect != writ.EffectDeny || !slices.Equal(d.Rules(), want) {
		t.Errorf("got %s %v, want deny %v", d.Effect, d.Rules(), want)
	}
}

// A call has one answer, so it is asked one question: rules that ask people
// different ones deny it together, and nothing of what is remembered changes.
func TestACallAsksOneQuestion(t *testing.T) {
	asks := func(args string) string {
		return `"effect": "require_approval", "code": "approval_required", "obligations": [{"type": "approval", "args": {` + args + `}}]`
	}
	const number, text = `"kind": "human_action", "response_schema": {"type": "number", "minimum": 1}`, `"kind": "human_action", "response_schema": {"type": "string"}`
	for name, tc := range map[string]struct {
		one, two string
		effect   writ.Effect
	}{
		"the same":            {number, `"kind": "human_action", "response_schema": {"minimum": 1, "type": "number"}`, writ.EffectRequireApproval},
		"the same, of others": {number, number + `, "roles": ["operator"]`, writ.EffectRequireApproval},
		"any, twice":          {`"kind": "human_action"`, `"kind": "human_action", "approvers": 2`, writ.EffectRequireApproval},
		"and a yes":           {number, `"kind": "effect"`, writ.EffectRequireApproval},
		"two":                 {number, text, writ.EffectDeny},
		"two, of others":      {number, text + `, "roles": ["operator"]`, writ.EffectDeny},
		"one, and any":        {number, `"kind": "human_action"`, writ.EffectDeny},
	} {
		t.Run(name, func(t *testing.T) {
			f := sources(t)
			guardPack(f, "first", "task.claim", "require_approval, deny", asks(tc.one), "input.call.capability")
			guardPack(f, "other", "task.claim", "require_approval, deny", asks(tc.two), "input.call.capability")
			guardPack(f, "aaa", "task.claim", "require_approval, deny", asks(`"kind": "effect"`), "input.call.capability")
			e := loadFrom(t, from(f))
			for range 2 { // the second time what they found is remembered
				d := decide(t, e, claim())
				if d.Effect != tc.effect || len(d.Findings) != 3 {
					t.Fatalf("got %s %v, want %s", d.Effect, d.Rules(), tc.effect)
				}
				if again, err := e.Judge(t.Context(), "task.claim", d.Record); err != nil || again.Effect != tc.effect {
					t.Errorf("judged again: %s, %v", again.Effect, err)
				}
				if x, err := e.OfRevision(d.PolicyRevision).Explain(t.Context(), "task.claim", d.Record); err != nil || x.Effect != tc.effect {
					t.Errorf("explained as %s, %v", x.Effect, err)
				}
				if tc.effect != writ.EffectDeny {
					if len(d.Needs) != 3 {
						t.Errorf("asks for %v", d.Needs)
					}
					continue
				}
				if want := []string{"first.rule", "other.rule", "aaa.rule"}; !slices.Equal(d.Rules(), want) || len(d.Needs) > 0 {
					t.Errorf("got %v, want %v; asks for %v", d.Rules(), want, d.Needs)
				}
				if f := d.Findings[0]; f.Code != string(writ.CodePolicy) || !strings.Contains(f.Message, "different questions") {
					t.Errorf("says %s: %s", f.Code, f.Message)
				}
				if d.Findings[2].Effect != writ.EffectRequireApproval {
					t.Errorf("%+v asks no question", d.Findings[2])
				}
			}
		})
	}
}

func TestEvaluationErrors(t *testing.T) {
	for name, body := range map[string]string{
		"builtin":  `input.call.capability == "task.claim"; to_number(input.run.id) > 10`,
		"runaway":  `input.call.capability == "task.claim"; some a in numbers.range(1, 4000); some b in numbers.range(1, 4000); a * b == -1`,
		"conflict": `input.call.capability == "task.claim"; _both`,
	} {
		t.Run(name, func(t *testing.T) {
			f := sources(t)
			guardPack(f, "extra", "task.claim", "deny", `"effect": "deny", "code": "quota_exceeded"`, body)
			f["packs/extra/extra.rego"] = append(f["packs/extra/extra.rego"], "\n_both := true if input.run\n\n_both := false if input.task\n"...)
			e, err := Load(t.Context(), from(f), Options{Capabilities: verbs, Timeout: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			d, err := e.Decide(t.Context(), claim())
			if writ.CodeOf(err) != writ.CodePolicyDown || d.Effect != writ.EffectDeny {
				t.Fatalf("got %s %v, want deny and %s", d.Effect, err, writ.CodePolicyDown)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("gave up after %s, want about 100 ms", took)
			}
		})
	}
}

// read trusts no pack: what is not exactly as declared is an error.
func TestReadRefuses(t *testing.T) {
	r := load(t).now.Load().routes["run.get"] // budgets, lifecycle
	good := `{"rule": "budgets.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged: it does not say what it would spend"}`
	found := make([][]writ.Finding, 2)
	if err := r.read(ast.MustParseTerm(`[{`+good+`}, set()]`), found); err != nil || len(found[0]) != 1 || found[1] != nil {
		t.Fatalf("a good finding: got %v %v", found, err)
	}
	for name, text := range map[string]string{
		"no array":        `{"a"}`,
		"too short":       `[set()]`,
		"too long":        `[set(), set(), set()]`,
		"no set":          `[[], set()]`,
		"text":            `[{"deny"}, set()]`,
		"empty":           `[{{}}, set()]`,
		"other's rule":    `[set(), {` + good + `}]`,
		"unknown rule":    `[{` + strings.Replace(good, "incomplete", "nonsense", 1) + `}, set()]`,
		"unknown effect":  `[{` + strings.Replace(good, `"deny"`, `"shrug"`, 1) + `}, set()]`,
		"weaker effect":   `[{` + strings.Replace(good, `"deny"`, `"allow"`, 1) + `}, set()]`,
		"unknown code":    `[{` + strings.Replace(good, "policy_denied", "because", 1) + `}, set()]`,
		"other message":   `[{` + strings.Replace(good, "the call", "alice", 1) + `}, set()]`,
		"effect a number": `[{` + strings.Replace(good, `"deny"`, `3`, 1) + `}, set()]`,
	} {
		if err := r.read(ast.MustParseTerm(text), found); err == nil {
			t.Errorf("%s: got %v, want an error", name, found)
		}
	}
	if err := r.read(nil, found); !errors.Is(err, errNoAnswer) {
		t.Errorf("nothing: got %v, want %v", err, errNoAnswer)
	}
}

func TestReloadKeepsTheLastGood(t *testing.T) {
	e := load(t)
	before, _ := e.Revisions()
	f := sources(t)
	f["packs/budgets/budgets.rego"] = []byte("package packs.budgets\n\nfindings contains x if")
	if err := e.Reload(t.Context(), from(f)); writ.CodeOf(err) != writ.CodePolicyDown {
		t.Fatalf("got %v, want %s", err, writ.CodePolicyDown)
	}
	if after, _ := e.Revisions(); after != before {
		t.Error("a source that does not load replaced the one in use")
	}
	decide(t, e, claim())

	f = sources(t)
	f["packs/budgets/data.yaml"] = bytes.Replace(f["packs/budgets/data.yaml"], []byte("late_percent: 80"), []byte("late_percent: 50"), 1)
	if err := e.Reload(t.Context(), from(f)); err != nil {
		t.Fatal(err)
	}
	if after, _ := e.Revisions(); after == before {
		t.Error("another configuration has the same revision")
	}
	in := claim()
	in.Subject.Task.Safety = writ.SafetyDestructive
	if got := decide(t, e, in).Rules(); !slices.Equal(got, []string{"budgets.late_destructive"}) {
		t.Errorf("got %v after the reload, want budgets.late_destructive", got)
	}
}

// Every decision comes whole from one snapshot, whatever is loaded meanwhile.
func TestDecideWhileReloading(t *testing.T) {
	early := sources(t)
	early["packs/budgets/data.yaml"] = bytes.Replace(early["packs/budgets/data.yaml"], []byte("late_percent: 80"), []byte("late_percent: 50"), 1)
	two := []files{sources(t), early}
	e := loadFrom(t, from(two[0]))
	rev := [2]string{}
	for i, f := range two {
		if err := e.Reload(t.Context(), from(f)); err != nil {
			t.Fatal(err)
		}
		rev[i], _ = e.Revisions()
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			in := claim()
			in.Subject.Task.Safety = writ.SafetyDestructive
			for {
				select {
				case <-stop:
					return
				default:
				}
				d, err := e.Decide(t.Context(), in)
				if err != nil {
					t.Error(err)
					return
				}
				if held := d.Effect != writ.EffectAllow; held != (d.PolicyRevision == rev[1]) {
					t.Errorf("%s by revision %s", d.Effect, d.PolicyRevision)
					return
				}
				if !e.Permit(writ.RoleExecutor, "default", "task.claim") {
					t.Error("a permission was gone for a moment")
					return
				}
			}
		})
	}
	for i := range 10 {
		if err := e.Reload(t.Context(), from(two[i%2])); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestInfo(t *testing.T) {
	info := load(t).Info()
	if len(info.Packs) != 9 || info.Packs[1].ID != "budgets" || info.Packs[1].Kind != KindMandatory {
		t.Fatalf("got %d packs, the second %+v", len(info.Packs), info.Packs[1].ID)
	}
	r := info.Packs[1].Rules[1]
	want := RuleInfo{
		ID: "budgets.hard_stop.steps", Title: "Steps used up", Description: "The call would take more steps than the run has left.",
		Severity: "high", Control: "runaway work", Effect: writ.EffectDeny, Code: "budget_exceeded", Message: "the run's steps are used up",
	}
	if r != want {
		t.Errorf("got %+v, want %+v", r, want)
	}
}

// permits asks for a role's right in the tenant there always is.
func permits(e *Engine, r writ.Role, c writ.CapabilityID) bool { return e.Permit(r, "default", c) }
