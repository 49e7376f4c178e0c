package policies

import (
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// These tests bear the numbers of docs/lessons.md: weaknesses seen elsewhere,
// as far as policy has to keep them out.

// What is not known to be well is not well: an agent of no status, or of one
// that no rule knows, gets nothing. (A preflight elsewhere passed agents it knew
// nothing of.)
func TestN5UnknownIsNotHealthy(t *testing.T) {
	e := load(t)
	for _, status := range []writ.AgentState{"", "unknown", "healthy", writ.AgentPlanned, writ.AgentSuspended} {
		in := claim()
		in.Subject.Agent.Status = status
		d := decide(t, e, in)
		if d.Effect != writ.EffectDeny || !slices.Contains(d.Rules(), "lifecycle.agent_inactive") {
			t.Errorf("an agent of status %q: %s by %v", status, d.Effect, d.Rules())
		}
	}
	for name, forget := range map[string]func(*writ.PolicyInput){
		"nobody":       func(in *writ.PolicyInput) { in.Session = nil },
		"no run state": func(in *writ.PolicyInput) { in.Subject.Run.State = "" },
		"no budget is known to fit": func(in *writ.PolicyInput) {
			in.Subject.Budget[0].Fits = false
		},
	} {
		in := claim()
		forget(&in)
		if d := decide(t, e, in); d.Effect != writ.EffectDeny {
			t.Errorf("%s: %s", name, d.Effect)
		}
	}
}

// Rules that go in circles, or that build on something nobody provides, are
// refused before they decide anything. (A workflow elsewhere could be a circle,
// and consume what no step produced.)
func TestN6CirclesAndLooseEndsAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ rego, want string }{
		"a circle of two": {"_a if _b\n\n_b if _a\n", "recursive"},
		"itself":          {"_a if _a\n", "recursive"},
		"no such rule":    {meta + deny("_missing"), "_missing"},
		"no such input":   {meta + deny("input.run.owner == \"x\""), "undefined ref: input.run.owner"},
		"no such data":    {meta + deny("data.extra.config.nothing.there"), ""},
	} {
		f := sources(t)
		guardPack(f, "extra", "task.*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
		f["packs/extra/extra.rego"] = []byte(head + incomplete + c.rego)
		if c.want == "" { // data of its own that is not there is no error; the rule does not hold
			loadFrom(t, from(f))
			continue
		}
		_, err := Load(t.Context(), from(f), Options{Capabilities: verbs})
		if err == nil || !strings.Contains(cause(err), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func deny(condition string) string {
	return `findings contains {"rule": "extra.rule", "effect": "deny", "code": "policy_denied", "message": "m"} if ` + condition + "\n"
}

func cause(err error) string {
	if e := writ.AsError("", err); e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// Every step is judged by itself and by who takes it: that a task was let into
// the queue gives its worker no scope. (A handoff elsewhere was valid though an
// earlier change had left what was allowed.)
func TestN7EveryStepIsJudgedAgain(t *testing.T) {
	e := load(t)
	for _, capability := range []writ.CapabilityID{"task.claim", "task.complete"} {
		in := claim()
		in.Call.Capability, in.Capability = capability, &writ.Capability{ID: capability, Class: writ.Ordinary, Safety: writ.SafetyMutating}
		in.Subject.Scopes = []string{"fs:repo/site/", "fs:repo/ops/"} // one of them was never the agent's
		if d := decide(t, e, in); d.Effect != writ.EffectDeny || !slices.Contains(d.Rules(), "write_scopes.outside") {
			t.Errorf("%s: %s by %v", capability, d.Effect, d.Rules())
		}
	}
}

// A run that has ended takes no more work, whoever asks. (A run elsewhere was
// closed by anybody, and took work afterwards.)
func TestN9NothingAfterTheEnd(t *testing.T) {
	e := load(t)
	for _, state := range []writ.RunState{writ.RunDone, writ.RunFailed, writ.RunCancelled} {
		for _, role := range []writ.Role{writ.RoleOperator, writ.RoleOrchestrator, writ.RoleExecutor} {
			in := claim()
			in.Subject.Run.State, in.Session.Role = state, role
			if d := decide(t, e, in); d.Effect != writ.EffectDeny || !slices.Contains(d.Rules(), "lifecycle.run_closed") {
				t.Errorf("%s in a run that is %s: %s by %v", role, state, d.Effect, d.Rules())
			}
		}
	}
}

// Scopes are compared segment by segment: neither a prefix of a name nor a way
// around it is inside. (Elsewhere ops/plug and ops/plugins were taken for one.)
func TestN10ScopesAreSegments(t *testing.T) {
	e := load(t)
	for scope, inside := range map[string]bool{
		"fs:repo/site/":          true,
		"fs:repo/site/assets/":   true,
		"fs:repo/site2/":         false,
		"fs:repo/sit/":           false,
		"fs:repo/":               false,
		"fs:repo/site/../ops/":   false,
		"fs:repo/site/./x/":      false,
		"fs:repo/site//x/":       false,
		"fs:REPO/site/":          false,
		"mem:notes/today/":       true,
		"mem:notesx/":            false,
		"fs:other/repo/site/":    false,
		"fs:repo/site/%2e%2e/x/": false,
	} {
		in := claim()
		in.Subject.Scopes = []string{scope}
		if d := decide(t, e, in); (d.Effect == writ.EffectAllow) != inside {
			t.Errorf("%s: %s by %v", scope, d.Effect, d.Rules())
		}
	}
}

// A role is what the session has, and a right what the bindings give it. Nothing
// in a call's description can make up for either. (A role elsewhere was a value
// of the caller's environment.)
func TestN11RolesComeFromBindings(t *testing.T) {
	e := load(t)
	for _, role := range []writ.Role{"", "root", "operator ", "OPERATOR", "role:operator", "*"} {
		for _, c := range verbs {
			if permits(e, role, c) {
				t.Errorf("the role %q may invoke %s", role, c)
			}
		}
	}
	if permits(e, writ.RoleExecutor, "run.create") || permits(e, writ.RoleOperator, "task.claim") || permits(e, writ.RoleOperator, "approval.decide") {
		t.Error("a role has a right that is another's")
	}
}

// Nobody who works in a run gives it budget. (An agent elsewhere resumed its run
// and raised its limits by the same call that was to end it.)
func TestN16NobodyGrantsToThemselves(t *testing.T) {
	e := load(t)
	for role, may := range map[writ.Role]bool{
		writ.RoleExecutor: false, writ.RoleOrchestrator: false, writ.RoleVerifier: false, writ.RoleAuditor: false, writ.RoleConnector: false,
		writ.RoleOperator: true, writ.RoleApprover: true,
	} {
		in := claim()
		in.Subject.Agent, in.Session.Role, in.Subject.Grant = nil, role, &writ.GrantFacts{Fits: true}
		d := decide(t, e, in)
		if denied := slices.Contains(d.Rules(), "budgets.self_grant"); denied == may {
			t.Errorf("%s: %s by %v", role, d.Effect, d.Rules())
		}
	}
}

// A call that names no run has none of a run's rights, and one that is not what
// its session is bound to is not looked at as if it were. (A gate elsewhere was
// skipped when the run was left out.)
func TestN17NoRunIsNoWayAround(t *testing.T) {
	e := load(t)
	in := claim()
	in.Subject.Run, in.Subject.Labels = nil, []writ.Label{writ.LabelSecretToken}
	if d := decide(t, e, in); d.Effect != writ.EffectDeny || !slices.Contains(d.Rules(), "classification.secret") {
		t.Errorf("without a run: %s by %v", d.Effect, d.Rules())
	}
	in = claim()
	in.Subject.Run, in.Subject.Agent.Status = nil, writ.AgentSuspended
	if d := decide(t, e, in); d.Effect != writ.EffectDeny {
		t.Errorf("without a run: %s by %v", d.Effect, d.Rules())
	}
}

// A refusal names its rules and its effect, and is no allowance with a note.
// (A refusal elsewhere was counted as a success.)
func TestN19RefusalIsAnEffect(t *testing.T) {
	e := load(t)
	in := claim()
	in.Subject.Budget[0].Fits = false
	d := decide(t, e, in)
	if d.Effect != writ.EffectDeny || len(d.Findings) == 0 || d.Findings[0].Effect != writ.EffectDeny || writ.Code(d.Findings[0].Code) != writ.CodeBudget {
		t.Fatalf("got %+v", d)
	}
	in.Capability = &writ.Capability{ID: "no.such"}
	if d, err := e.Decide(t.Context(), in); err == nil || d.Effect != writ.EffectDeny {
		t.Fatalf("what cannot be judged: %s, %v", d.Effect, err)
	}
}

// A negation holds of what is not there, or the pack is refused; and a rule that
// does not parse is no rule at all, so nothing loads. (A predicate elsewhere
// that could not be read counted as none, and its negation as met.)
func TestN20NotHoldsOfNothing(t *testing.T) {
	unsound := strings.Replace(head, "import future.keywords.not", "", 1)
	for name, rego := range map[string]string{
		"not without the import": unsound + incomplete + meta + deny(`not input.task.capability == "x"`),
		"does not parse":         head + incomplete + meta + "findings contains if {",
		"always false":           head + incomplete + meta + deny(`input.run.id == 5`), // a type error by the schema
	} {
		f := sources(t)
		guardPack(f, "extra", "task.*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
		f["packs/extra/extra.rego"] = []byte(rego)
		if _, err := Load(t.Context(), from(f), Options{Capabilities: verbs}); err == nil {
			t.Errorf("%s: it loads", name)
		}
	}
	f := sources(t)
	guardPack(f, "extra", "task.*", "deny", `"effect": "deny", "code": "policy_denied"`, "true")
	f["packs/extra/extra.rego"] = []byte(head + incomplete + meta + deny(`not startswith(lower(input.task.capability), "site.")`))
	e := loadFrom(t, from(f))
	in := claim()
	in.Subject.Task = nil // nothing to be lower-cased
	if d := decide(t, e, in); !slices.Contains(d.Rules(), "extra.rule") {
		t.Errorf("the negation of what is not there does not hold: %v", d.Rules())
	}
}
