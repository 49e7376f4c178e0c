package policies

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// theirs was written for another host.
const theirs = `package agents.tools.guard

default allow := false

allow if input.user.role == "executor"

deny contains msg if {
    input.action == "destructive"
    msg := sprintf("not with %s", [input.tool])
}
`

// wrapped is the pack that asks it.
const wrapped = `package packs.extra

import future.keywords.not

_host_input := {
	"action": input.call.safety,
	"tool": input.task.capability,
	"user": {"role": input.session.role},
}

# METADATA
# title: Not allowed
# description: D.
# custom: {id: extra.not_allowed, severity: low, control: c}
findings contains {"rule": "extra.not_allowed", "effect": "deny", "code": "policy_denied", "message": "m"} if not _allowed

# METADATA
# title: Denied
# description: D.
# custom: {id: extra.denied, severity: low, control: c}
findings contains {"rule": "extra.denied", "effect": "deny", "code": "policy_denied", "message": "m"} if not _clean

_allowed if data.agents.tools.guard.allow == true with input as _host_input

_clean if count(data.agents.tools.guard.deny) == 0 with input as _host_input
`

const wraps = `manifest:
  id: extra
  version: 1.0.0
  title: T
  owner: me
  kind: guard
  match: {capabilities: [task.claim]}
  effects: [deny, allow]
  adapts:
    package: agents.tools.guard
    entrypoints: {allow: [allow], deny: [deny]}
`

const (
	theirFile = "packs/extra/vendor/guard.rego"
	wrapFile  = "packs/extra/adapter.rego"
	wrapsFile = "packs/extra/pack.yaml"
)

// adapter is the shipped sources and a pack that adapts a package.
func adapter(t testing.TB) files {
	f := sources(t)
	f[theirFile], f[wrapFile], f[wrapsFile] = []byte(theirs), []byte(wrapped), []byte(wraps)
	return f
}

func change(t *testing.T, f files, name, from, to string) {
	t.Helper()
	if !strings.Contains(string(f[name]), from) {
		t.Fatalf("%s has no %q", name, from)
	}
	f[name] = []byte(strings.Replace(string(f[name]), from, to, 1))
}

// The rules of another host decide, and what they cannot be asked is denied.
func TestAdapter(t *testing.T) {
	e := loadFrom(t, from(adapter(t)))
	for _, tc := range []struct {
		name   string
		change func(*writ.PolicyInput)
		rules  []string
	}{
		{"as it is", func(*writ.PolicyInput) {}, nil},
		{"they deny", func(in *writ.PolicyInput) { in.Capability.Safety = writ.SafetyDestructive }, []string{"extra.denied"}},
		{"they do not allow", func(in *writ.PolicyInput) { in.Session.Role = writ.RoleOperator }, []string{"extra.not_allowed"}},
		{"they cannot be asked", func(in *writ.PolicyInput) { in.Subject.Task = nil }, []string{"extra.denied", "extra.not_allowed"}},
	} {
		in := claim()
		tc.change(&in)
		var got []string
		for _, rule := range decide(t, e, in).Rules() {
			if strings.HasPrefix(rule, "extra.") {
				got = append(got, rule)
			}
		}
		if !slices.Equal(got, tc.rules) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.rules)
		}
	}
}

// An answer is needed also where their rule has none.
func TestAdapterDeniesUndefined(t *testing.T) {
	f := adapter(t)
	change(t, f, theirFile, "default allow := false\n", "")
	in := claim()
	in.Session.Role = writ.RoleOperator
	if got := decide(t, loadFrom(t, from(f)), in).Rules(); !slices.Contains(got, "extra.not_allowed") {
		t.Errorf("an undefined allow let the call through: %v", got)
	}
}

// A rule of theirs that never ends is cancelled, and the call refused.
func TestAdapterIsCancelled(t *testing.T) {
	f := adapter(t)
	change(t, f, theirFile, `input.action == "destructive"`, "some a in numbers.range(1, 100000)\n    some b in numbers.range(1, 100000)\n    a * b < 0")
	e, err := Load(t.Context(), from(f), Options{Capabilities: verbs, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d, err := e.Decide(t.Context(), claim())
	if writ.CodeOf(err) != writ.CodePolicyDown || d.Effect != writ.EffectDeny {
		t.Errorf("got %s, %v", d.Effect, err)
	}
}

// What an adapter may not be, each refused with file, line and what to do.
func TestAdapterContract(t *testing.T) {
	const clean = "_clean if count(data.agents.tools.guard.deny) == 0 with input as _host_input"
	for _, tc := range []struct{ name, file, from, to, want string }{
		{"an entry point is misspelt", wrapsFile, "deny: [deny]", "deny: [denny]", "pack.yaml: adapts.entrypoints: agents.tools.guard has no rule denny; it has allow, deny"},
		{"their rule is renamed", theirFile, "deny contains", "denied contains", "pack.yaml: adapts.entrypoints: agents.tools.guard has no rule deny; it has allow, denied"},
		{"an entry point is a function", theirFile, "deny contains msg if", "deny(msg) if", "has no rule deny; it has allow"},
		{"no entry points", wrapsFile, "{allow: [allow], deny: [deny]}", "{}", "adapts.entrypoints is empty"},
		{"an entry point twice", wrapsFile, "[deny]", "[deny, deny]", "deny is there twice"},
		{"a strange entry point", wrapsFile, "[deny]", "['deny[x]']", "is not the name of a rule"},
		{"another field of adapts", wrapsFile, "entrypoints:", "entries: {}\n    entrypoints:", "there is no field entries"},

		{"another name for a field", wrapFile, `"tool":`, `"instrument":`, "vendor/guard.rego:9: rego_type_error: undefined ref: input.tool"},
		{"a field that is not shown", theirFile, `input.user.role ==`, `input.user.name ==`, "vendor/guard.rego:5: rego_type_error: undefined ref: input.user.name"},
		{"what to do about it", theirFile, `input.user.role ==`, `input.user.name ==`, "write it out in _host_input, or name it in adapts.ignores"},
		{"by an alias", theirFile, `allow if input.user.role == "executor"`, "allow if {\n    u := input.user\n    u.name == \"x\"\n}", "vendor/guard.rego:7: rego_type_error: undefined ref"},
		{"by an import", theirFile, "default allow", "import input.user as u\n\nowner if u.name == \"x\"\n\ndefault allow", "vendor/guard.rego:5: rego_type_error: undefined ref"},
		{"below a text", theirFile, `input.user.role ==`, `input.user.role.name ==`, "vendor/guard.rego:5: rego_type_error: undefined ref"},
		{"in a comprehension", theirFile, `input.user.role ==`, "count([1 | input.roles[_] == \"x\"]) == 0\n\nallow if input.user.role ==", "vendor/guard.rego:5: rego_type_error: undefined ref"},
		{"by its name in a call", theirFile, `allow if input`, "allow if object.get(input, [\"user\", \"name\"], 1) == 1\n\nallow if input", "vendor/guard.rego:5: reads"},
		{"by its name in a call alone", theirFile, `allow if input`, "allow if object.get(input.user, \"admin\", true)\n\nallow if input", "vendor/guard.rego:5: reads"},
		{"an object of our input as a whole", wrapFile, `{"role": input.session.role}`, `input.session`, "vendor/guard.rego:5: rego_type_error: undefined ref: input.user.role"},
		{"with a schema of their own", theirFile, "package agents", "# METADATA\n# schemas: [{input: {type: object}}]\npackage agents", ""},
		{"whatever their schema says", theirFile, theirs, "# METADATA\n# schemas: [{input: {type: object}}]\n" + strings.Replace(theirs, "user.role", "user.name", 1), "vendor/guard.rego:7: rego_type_error: undefined ref: input.user.name"},
		{"whatever the schema of a rule says", theirFile, "allow if input.user.role", "# METADATA\n# schemas: [{input: {type: object}}]\nallow if input.user.name", "vendor/guard.rego:7: rego_type_error: undefined ref: input.user.name"},
		{"a field that is ignored", wrapsFile, "deny: [deny]}", "deny: [deny]}\n    ignores: [user.name]", ""},
		{"ignoring what is shown", wrapsFile, "deny: [deny]}", "deny: [deny]}\n    ignores: [user.role]", "adapts.ignores: user.role is written out"},
		{"ignoring below what is shown", wrapsFile, "deny: [deny]}", "deny: [deny]}\n    ignores: [tool.name]", "adapts.ignores: tool.name is written out in _host_input, or is below"},

		{"the network", theirFile, condition, `http.send({"method": "get", "url": "http://x"}).status_code == 200`, "vendor/guard.rego:8: rego_type_error: undefined function http.send"},
		{"the clock", theirFile, condition, `time.now_ns() > 0`, "undefined function time.now_ns"},
		{"the host", theirFile, condition, `opa.runtime().env.HOME`, "undefined function opa.runtime"},
		{"the configuration of a pack", theirFile, condition, `data.budgets.config.late_percent > 0`, "vendor/guard.rego:8: reads data.budgets.config.late_percent"},
		{"their pack's own", theirFile, condition, `data.extra.config.x`, "vendor/guard.rego:8: reads data.extra.config.x"},
		{"the findings of a pack", theirFile, condition, `count(data.packs.budgets.findings) > 0`, "vendor/guard.rego:8: reads data.packs.budgets.findings"},
		{"all data", theirFile, condition, `some k; data[k].config`, "vendor/guard.rego:8: reads data: "},
		{"data nobody has", theirFile, condition, `input.tool in data.agents.tools.guard.tools`, "vendor/guard.rego:8: reads data.agents.tools.guard.tools"},
		{"a library of others", theirFile, "default allow", "import data.lib.text\n\ndefault allow", "vendor/guard.rego:3: reads data.lib.text"},
		{"with in their rules", theirFile, condition, `allow with input as {"user": {"role": "executor"}}`, "vendor/guard.rego:8: with is for tests"},
		{"another package", theirFile, "agents.tools.guard", "agents.tools", "vendor/guard.rego:1: the package must be agents.tools.guard or below it"},
		{"a pack's package", theirFile, "agents.tools.guard", "packs.budgets", "vendor/guard.rego:1: the package must be agents.tools.guard"},
		{"Rego v0", theirFile, theirs, "package agents.tools.guard\n\nallow { true }\n\ndeny[msg] { msg := \"x\" }\n", "vendor/guard.rego:3: this is Rego v0, and OPA's own tool makes v1 of it: opa fmt -w --v0-v1 packs/extra/vendor/guard.rego"},
		{"no Rego at all", theirFile, theirs, "package agents.tools.guard\n\nallow if {", "packs/extra/vendor/guard.rego:3"},
		{"an unused variable", theirFile, condition, "x := input.user.role", ""},

		{"the root of packs", wrapsFile, "agents.tools.guard", "packs.other", "packs belongs to no pack"},
		{"everything", wrapsFile, "agents.tools.guard", "data", "data belongs to no pack"},
		{"OPA's root", wrapsFile, "agents.tools.guard", "system.authz", "system belongs to no pack"},
		{"the libraries", wrapsFile, "agents.tools.guard", "lib.text", "lib belongs to no pack"},
		{"no root", wrapsFile, "package: agents.tools.guard", "package: ''", "is not the path of a package"},
		{"a strange root", wrapsFile, "package: agents.tools.guard", "package: 'agents[\"x\"]'", "is not the path of a package"},
		{"another pack's data", wrapsFile, "agents.tools.guard", "budgets.config", "budgets.config overlaps data.budgets, where the configuration of the pack budgets is"},
		{"its own data", wrapsFile, "agents.tools.guard", "extra", "extra overlaps data.extra"},

		{"with another input", wrapFile, clean, strings.Replace(clean, "_host_input", `{"action": "x", "tool": "x"}`, 1), "adapter.rego:25: with is for tests, and to ask a declared entry point"},
		{"with our input", wrapFile, clean, strings.Replace(clean, "_host_input", "input", 1), "adapter.rego:25: with is for tests"},
		{"with data", wrapFile, clean, clean + " with data.agents.tools.guard.deny as set()", "adapter.rego:25: with is for tests"},
		{"with about our own rules", wrapFile, clean, "_clean if _other with input as _host_input", "adapter.rego:25: with is for tests"},
		{"an entry point that is not declared", wrapFile, clean, strings.Replace(clean, ".deny)", ".warn)", 1), "adapter.rego:25: with is for tests"},
		{"more than none", wrapFile, clean, strings.Replace(clean, "== 0", ">= 0", 1), "adapter.rego:25: with is for tests"},
		{"the other way round", wrapFile, clean, "_clean if data.agents.tools.guard.deny == true with input as _host_input", "adapter.rego:25: with is for tests"},
		{"exactly one", wrapFile, clean, strings.Replace(clean, "== 0", "== 1", 1), "adapter.rego:25: with is for tests"},
		{"when they do not allow", wrapFile, ".allow == true", ".allow == false", "adapter.rego:23: with is for tests"},
		{"with data alone", wrapFile, clean, strings.Replace(clean, "with input as", "with data.agents.tools.x as", 1), "adapter.rego:25: with is for tests"},
		{"a set of helpers", wrapFile, clean, "_clean contains x if {\n\tx := true\n\tcount(data.agents.tools.guard.deny) == 0 with input as _host_input\n}", "adapter.rego:25: what asks the adapted package is a helper"},
		{"a function", wrapFile, clean, "_clean(_) if count(data.agents.tools.guard.deny) == 0 with input as _host_input", "adapter.rego:25: what asks the adapted package is a helper"},
		{"not false", wrapFile, ".allow == true", ".allow != false", "adapter.rego:23: with is for tests"},
		{"by itself", wrapFile, ".allow == true", ".allow", "adapter.rego:23: with is for tests"},
		{"negated", wrapFile, clean, "_clean if not data.agents.tools.guard.deny with input as _host_input", "adapter.rego:25: with is for tests"},
		{"on our input", wrapFile, clean, "_clean if count(data.agents.tools.guard.deny) == 0", "adapter.rego:25: data.agents.tools.guard.deny may be used in one form only"},
		{"in a comprehension", wrapFile, clean, "_clean if count([1 | count(data.agents.tools.guard.deny) == 0 with input as _host_input]) == 0", "adapter.rego:25: data.agents.tools.guard.deny may be used in one form only"},
		{"inside not", wrapFile, clean, "_clean if not { count(data.agents.tools.guard.deny) == 0 with input as _host_input }", "adapter.rego:25: data.agents.tools.guard.deny may be used in one form only"},
		{"in a finding", wrapFile, "if not _clean", "if count(data.agents.tools.guard.deny) == 0 with input as _host_input", "adapter.rego:21: what asks the adapted package is a helper"},
		{"their messages", wrapFile, `"user": {`, `"said": data.agents.tools.guard.deny, "user": {`, "adapter.rego:5: data.agents.tools.guard.deny may be used in one form only"},
		{"a default", wrapFile, clean, "default _clean := true\n\n" + clean, "adapter.rego:27: what asks the adapted package is a helper with one body"},
		{"a choice", wrapFile, clean, clean + "\n\n_clean if input.call.safety == \"mutating\"", "adapter.rego:25: what asks the adapted package is a helper with one body"},
		{"an else", wrapFile, clean, clean + "\n\nelse := true", "adapter.rego:25: what asks the adapted package is a helper with one body"},
		{"in an else", wrapFile, clean, "_clean if input.call.safety == \"mutating\"\n\nelse if count(data.agents.tools.guard.deny) == 0 with input as _host_input", "what asks the adapted package is a helper with one body"},
		{"false for true", wrapFile, clean, strings.Replace(clean, "_clean if", "_clean := false if", 1), "adapter.rego:25: what asks the adapted package is a helper"},
		{"another input by the same name", wrapFile, clean, "_clean if {\n\t_host_input := {\"action\": \"x\", \"tool\": \"x\"}\n\tcount(data.agents.tools.guard.deny) == 0 with input as _host_input\n}", "adapter.rego:25: _host_input may only be denied"},
		{"the same", wrapFile, clean, "_clean if {\n\tsome _host_input in [{\"action\": \"x\", \"tool\": \"x\"}]\n\tcount(data.agents.tools.guard.deny) == 0 with input as _host_input\n}", "adapter.rego:25: _host_input may only be denied"},

		{"denied on a condition", wrapFile, "if not _clean", "if {\n\tinput.task.raised\n\tnot _clean\n}", "adapter.rego:21: _clean may only be denied"},
		{"not denied", wrapFile, "if not _clean", "if _clean", "adapter.rego:21: _clean may only be denied"},
		{"denied by another name", wrapFile, "if not _clean", "if not data.packs.extra._clean", "adapter.rego:21: _clean may only be denied"},
		{"turned round", wrapFile, "if not _clean\n", "if _dirty\n\n_dirty if not _clean\n", "adapter.rego:23: _clean may only be denied"},
		{"never denied", wrapFile, "if not _clean", "if not _allowed", "no finding of effect deny or require_approval depends on deny"},
		{"allowed when denied", wrapFile, `"extra.denied", "effect": "deny"`, `"extra.denied", "effect": "allow"`, "no finding of effect deny or require_approval depends on deny"},

		{"no input", wrapFile, "_host_input := {", "_theirs := {", "adapts wants one rule _host_input := {…} in the pack, with what their rules see as input; there are 0"},
		{"two inputs", wrapFile, clean, clean + "\n\n_host_input := {\"action\": \"x\"}", "there are 2"},
		{"a default input", wrapFile, clean, clean + "\n\ndefault _host_input := {}", "there are 2"},
		{"a computed input", wrapFile, `"user": {"role": input.session.role},` + "\n}", `"user": {"role": input.session.role},` + "\n} | {}", "packs/extra/adapter.rego"},
		{"an input that is ours", wrapFile, wrapped[strings.Index(wrapped, "_host_input"):strings.Index(wrapped, "\n\n# METADATA")], "_host_input := input", "adapter.rego:5: _host_input must be one object that is written out"},
		{"a computed name", wrapFile, `"tool":`, `input.call.capability:`, "adapter.rego:7: the names in _host_input must be constant texts"},
		{"a constant input", wrapFile, wrapped[strings.Index(wrapped, "_host_input"):strings.Index(wrapped, "\n\n# METADATA")], `_host_input := {"action": "x", "tool": "x", "user": {"role": "executor"}}`, "packs/extra: the pack does not deny an empty call"},
		{"a misspelt field of ours", wrapFile, "input.session.role", "input.session.roles", "adapter.rego:8: rego_type_error: undefined ref: input.session.roles"},
		{"sprintf in the wrapper", wrapFile, "input.task.capability", `sprintf("%s", [input.task.capability])`, "undefined function sprintf"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := adapter(t)
			change(t, f, tc.file, tc.from, tc.to)
			if tc.want == "" {
				loadFrom(t, from(f))
				return
			}
			refused(t, from(f), tc.want)
		})
	}
}

// condition is a condition of theirs, at line 8.
const condition = `input.action == "destructive"`

func TestAdapterKeepsToItself(t *testing.T) {
	second := func(t *testing.T, pkg string) files {
		f := adapter(t)
		for _, name := range []string{theirFile, wrapFile, wrapsFile} {
			text := strings.ReplaceAll(strings.ReplaceAll(string(f[name]), "agents.tools.guard", pkg), "extra", "zweit")
			f[strings.Replace(name, "extra", "zweit", 1)] = []byte(text)
		}
		return f
	}
	loadFrom(t, from(second(t, "agents.tools.other")))
	for _, pkg := range []string{"agents.tools.guard", "agents.tools", "agents", "agents.tools.guard.more"} {
		refused(t, from(second(t, pkg)), "packs/zweit/pack.yaml: adapts.package: "+pkg+" overlaps agents.tools.guard, which the pack extra adapts")
	}

	f := adapter(t)
	guardPack(f, "agents", "*", "deny", `"effect": "deny", "code": "policy_denied"`, `input.run.id == "x"`)
	refused(t, from(f), "agents.tools.guard overlaps data.agents, where the configuration of the pack agents is")

	f = adapter(t)
	guardPack(f, "other", "*", "deny", `"effect": "deny", "code": "policy_denied"`, `data.agents.tools.guard.allow`)
	refused(t, from(f), "a pack reads its own data.other.config and rules only")

	f = adapter(t)
	delete(f, theirFile)
	refused(t, from(f), "packs/extra/pack.yaml: adapts.package: vendor/ holds no file of agents.tools.guard")

	f = sources(t)
	f["packs/budgets/vendor/guard.rego"] = []byte(theirs)
	refused(t, from(f), "packs/budgets/vendor/guard.rego:1: a file in vendor/, and pack.yaml names no package the pack adapts")
	f = sources(t)
	f["packs/budgets/guard.rego"] = []byte(theirs)
	refused(t, from(f), "packs/budgets/guard.rego:1: the package must be packs.budgets")
}

// An adapter travels as every pack does: with its files as they came.
func TestAdapterInBundles(t *testing.T) {
	f := adapter(t)
	e := loadFrom(t, from(f))
	canonical, want := e.Bundle()
	for name, b := range map[string][]byte{"canonical": canonical, "anybody's tar": sent(t, f)} {
		c, err := OpenBundle(b, nil, false)
		if err != nil || c.Digest != want {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := load(t).Prepare(t.Context(), c.Bundle); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	alone := files{theirFile: f[theirFile], wrapFile: f[wrapFile], wrapsFile: f[wrapsFile]}
	shipped, _ := load(t).Bundle()
	if c, err := OpenBundle(sent(t, alone), shipped, true); err != nil || c.Digest != want {
		t.Errorf("added to those in force: %v", err)
	}
	if kept, err := OpenBundle(sent(t, files{rowsFile: f[rowsFile]}), canonical, true); err != nil || kept.Digest != want {
		t.Errorf("kept when others are added: %v", err)
	}

	// A change of theirs is another policy.
	old, _ := e.Revisions()
	change(t, f, theirFile, "not with", "never with")
	if now, _ := loadFrom(t, from(f)).Revisions(); now == old {
		t.Error("the revision does not cover vendor/")
	}
	for _, name := range []string{"packs/extra/vendor/deep/x.rego", "packs/extra/vendor/data.json", "packs/extra/vendor/pack.yaml"} {
		if _, err := OpenBundle(sent(t, files{name: []byte("x")}), canonical, true); writ.CodeOf(err) != writ.CodeInputInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused(t, from(files{"packs/extra/vendor/deep/x.rego": nil}), "packs/extra/vendor/deep")
}

// An explanation names the rules of theirs, and where they stand; what they say
// is nowhere.
func TestAdapterIsExplained(t *testing.T) {
	e := loadFrom(t, from(adapter(t)))
	in := claim()
	in.Capability.Safety = writ.SafetyDestructive
	d := decide(t, e, in)
	got, err := e.now.Load().Explain(t.Context(), "task.claim", d.Record)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]AdaptedRule{
		"extra.not_allowed": {Rule: "agents.tools.guard.allow", Held: true, File: theirFile, Line: 5},
		"extra.denied":      {Rule: "agents.tools.guard.deny", Held: true, File: theirFile, Line: 7},
	}
	for _, r := range got.Rules {
		if x, ours := want[r.Rule]; ours && (len(r.Adapted) != 1 || r.Adapted[0] != x) {
			t.Errorf("%s: got %+v, want %+v", r.Rule, r.Adapted, x)
		} else if !ours && r.Adapted != nil {
			t.Errorf("%s: got %+v", r.Rule, r.Adapted)
		}
	}
	got, err = e.now.Load().Explain(t.Context(), "task.claim", decide(t, e, claim()).Record)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got.Rules {
		if r.Rule == "extra.denied" && (r.Held || r.Adapted[0].Held || r.Adapted[0].Stopped != 8) {
			t.Errorf("got %+v", r)
		}
	}
	for _, f := range d.Findings {
		if strings.Contains(f.Message, "not with") {
			t.Errorf("their message is passed on: %s", f.Message)
		}
	}
}
