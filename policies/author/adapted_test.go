package author

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
)

// adapting is the example of Init with the packs of examples/adapted-pack.
func adapting(t testing.TB) map[string][]byte { return with(t, exampleDir) }

// with is the example of Init with the packs of another.
func with(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := example(t)
	tree := os.DirFS(dir)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Dir(name) == "." {
			return err
		}
		files[name], err = fs.ReadFile(tree, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

const (
	guard  = "packs/tool_guard/"
	review = "packs/change_review/"
)

// The example holds up to everything an author can ask.
func TestAdaptedExample(t *testing.T) {
	tree := treeOf(t, adapting(t))
	if found := tree.Check(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
	if found := tree.Lint(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
	if changed, bad := tree.Format(); len(changed)+len(bad) > 0 {
		t.Errorf("%v %v", changed, bad)
	}
	all, err := tree.Test(t.Context(), TestOptions{Packs: []string{"tool_guard", "change_review"}})
	if err != nil {
		t.Fatal(err)
	}
	theirs, shown := 0, 0
	for _, p := range all {
		if p.Failed() > 0 || p.Coverage < 100 || len(Low(all, 90)) > 0 {
			t.Errorf("%s: %d failed, %.1f %% covered", p.Pack, p.Failed(), p.Coverage)
		}
		for _, c := range p.Cases {
			if c.File == guard+"vendor/guard_test.rego" {
				theirs++
			}
		}
		for _, f := range p.Files {
			if f.Vendored {
				shown++
			}
		}
	}
	if theirs != 2 || shown != 2 {
		t.Errorf("%d of their tests ran, want 2; coverage of %d of their files is shown, want 2", theirs, shown)
	}
	rules, err := tree.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if strings.Contains(r.File, "vendor") {
			t.Errorf("%s is listed as a rule of the pack", r.File)
		}
	}
}

// The example of packs that want stronger jails does, too.
func TestConfinementExample(t *testing.T) {
	const dir = "../../examples/confinement-pack"
	tree := treeOf(t, with(t, dir))
	if found := append(tree.Check(t.Context(), options), tree.Lint(t.Context(), options)...); len(found) > 0 {
		t.Error(list(found))
	}
	if changed, bad := tree.Format(); len(changed)+len(bad) > 0 {
		t.Errorf("%v %v", changed, bad)
	}
	all, err := tree.Test(t.Context(), TestOptions{Packs: []string{"confinement"}})
	if err != nil {
		t.Fatal(err)
	}
	if p := all[0]; len(all) != 1 || p.Failed() > 0 || p.Coverage < 100 || len(p.Cases) < 9 {
		t.Errorf("%s: %d failed of %d, %.1f %% covered", p.Pack, p.Failed(), len(p.Cases), p.Coverage)
	}
}

// Their rules have other schemas, spaces for tabs and names nobody uses: OPA's
// own tools take them all the same.
func TestAdaptedExampleUnderOPA(t *testing.T) {
	opaTools(t, filepath.Join(exampleDir, "packs"), "vendor")
}

// What a gateway makes of the example, from the caller's input to the decision.
func TestAdaptedExampleDecides(t *testing.T) {
	e, err := policies.Load(t.Context(), treeOf(t, adapting(t)).source, policies.Options{Capabilities: options.Capabilities, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*writ.PolicyInput)
		rules  string
		effect writ.Effect
	}{
		{"allowed", func(*writ.PolicyInput) {}, "", writ.EffectAllow},
		{"their deny", func(in *writ.PolicyInput) { in.Capability.Safety = writ.SafetyDestructive }, "tool_guard.denied tool_guard.not_allowed", writ.EffectDeny},
		{"their warn", func(in *writ.PolicyInput) { in.Subject.Task.Capability = "beta.build" }, "tool_guard.warned", writ.EffectRequireApproval},
		{"their violation", func(in *writ.PolicyInput) { in.Subject.Scopes = []string{"fs:repo/release/"} }, "change_review.violation", writ.EffectDeny},
		{"they cannot be asked", func(in *writ.PolicyInput) { in.Subject.Task = nil }, "tool_guard.denied tool_guard.not_allowed tool_guard.warned", writ.EffectDeny},
	} {
		in := writ.PolicyInput{
			Call:       &writ.Call{Capability: "task.claim", Caller: writ.Caller{Kind: writ.KindAgent}},
			Capability: &writ.Capability{ID: "task.claim", Class: writ.Ordinary, Safety: writ.SafetyMutating},
			Session:    &writ.Session{ID: "ses_01J0000000000000000000000A", Role: writ.RoleExecutor, State: writ.SessionActive},
			Subject: writ.Subject{
				Agent:  &writ.AgentFacts{ID: "builder-1", Status: writ.AgentActive, Domain: "web", WriteScope: []string{"fs:repo/"}},
				Run:    &writ.RunFacts{ID: "run_01J0000000000000000000000B", State: writ.RunActive},
				Task:   &writ.TaskFacts{ID: "tsk_01J0000000000000000000000C", State: writ.TaskQueued, Capability: "site.build", Domain: "web", Safety: writ.SafetyMutating, Approval: writ.ApprovalAuto},
				Scopes: []string{"fs:repo/site/"},
				Labels: []writ.Label{writ.LabelInternalSystem},
				Budget: []writ.BudgetFacts{{Dimension: writ.BudgetSteps, Limit: 1000, Cost: 1, Fits: true, Band: 50, OnExceed: "hard_stop"}},
			},
			Now: 1_790_000_000_123,
		}
		tc.change(&in)
		d, err := e.Decide(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rule := range d.Rules() {
			if strings.HasPrefix(rule, "tool_guard.") || strings.HasPrefix(rule, "change_review.") {
				got = append(got, rule)
			}
		}
		if strings.Join(got, " ") != tc.rules || d.Effect != tc.effect && tc.effect != writ.EffectDeny || d.Effect == writ.EffectAllow && tc.effect != writ.EffectAllow {
			t.Errorf("%s: got %s %v, want %s %s", tc.name, d.Effect, got, tc.effect, tc.rules)
		}
	}
}

// Mistakes that would make their rules silent keep the pack from loading, and the
// author is told what to do.
func TestAdaptedExampleRefused(t *testing.T) {
	for _, tc := range []struct{ name, file, from, to, where, want, hint string }{
		{"a misspelt entry point", review + "pack.yaml", "[violation]", "[violations]", review + "pack.yaml", "changes.review has no rule violations; it has violation", ""},
		{"their rule is renamed", review + "vendor/frozen_paths.rego", "violation contains", "violations contains", review + "pack.yaml", "", ""},
		{"a field that is not shown", review + "adapter.rego", `"object":`, `"objects":`, review + "vendor/frozen_paths.rego", "undefined ref: input.review.object.paths", "nothing but what _host_input writes out"},
		{"a field that is not ignored", guard + "pack.yaml", "[ticket.state]", "[]", guard + "vendor/guard.rego", "undefined ref: input.ticket.state", "nothing but what _host_input writes out"},
		{"a value that is not in data.yaml", review + "data.yaml", "exempt_roles: [operator]", "exempt: [operator]", review + "vendor/frozen_paths.rego", "undefined ref: input.parameters.exempt_roles", "nothing but what"},
		{"asked in another form", guard + "adapter.rego", "== 0 with", "< 1 with", guard + "adapter.rego", "with is for tests, and to ask a declared entry point", "deny its absence"},
	} {
		files := adapting(t)
		if !bytes.Contains(files[tc.file], []byte(tc.from)) {
			t.Fatalf("%s: %s has no %q", tc.name, tc.file, tc.from)
		}
		files[tc.file] = bytes.ReplaceAll(files[tc.file], []byte(tc.from), []byte(tc.to))
		if e, err := policies.Load(t.Context(), treeOf(t, files).source, options); e != nil || writ.CodeOf(err) != writ.CodePolicyDown {
			t.Errorf("%s: the engine loads it", tc.name)
		}
		found := treeOf(t, files).Check(t.Context(), options)
		told := false
		for _, f := range found {
			told = told || f.File == tc.where && strings.Contains(f.Message, tc.want) && strings.Contains(f.Hint, tc.hint)
		}
		if !told {
			t.Errorf("%s: want %s %q (%q) in\n%s", tc.name, tc.where, tc.want, tc.hint, list(found))
		}
	}
}

// An adapter is bundled, signed, verified and staged with its vendored files, and
// OPA loads the bundle.
func TestAdaptedBundle(t *testing.T) {
	private, public := pair(t, "ed25519")
	tree := treeOf(t, adapting(t))
	b, err := tree.Bundle(t.Context(), []string{"tool_guard"})
	if err != nil {
		t.Fatal(err)
	}
	content, err := readArchive(b)
	if err != nil || content["/tool_guard/vendor/guard.rego"] == nil || content["/tool_guard/vendor/guard_test.rego"] != nil {
		t.Errorf("the bundle holds %d files: %v", len(content), err)
	}
	if got, err := Verify(t.Context(), signed(t, b, private, "k"), public, "k"); err != nil || got.Packs[0].Adapts != "agents.tools.guard" {
		t.Errorf("got %+v, %v", got, err)
	}

	opened, err := bundle.NewReader(bytes.NewReader(b)).WithRegoVersion(ast.RegoV1).Read()
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rego.New(rego.Query("x := count(data.packs.tool_guard.findings)"), rego.ParsedBundle("b", &opened), rego.Input(map[string]any{})).Eval(t.Context())
	if err != nil || len(rs) != 1 {
		t.Errorf("opa: %v %v", rs, err)
	}

	e, err := policies.Load(t.Context(), policies.Shipped(), options)
	if err != nil {
		t.Fatal(err)
	}
	inForce, _ := e.Bundle()
	sent, err := policies.OpenBundle(b, inForce, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Prepare(t.Context(), sent.Bundle); err != nil {
		t.Error(err)
	}
}

// Bundles that use an adapter to reach further are refused, signed or not.
func TestHostileAdapters(t *testing.T) {
	private, public := pair(t, "ed25519")
	b, err := treeOf(t, adapting(t)).Bundle(t.Context(), []string{"tool_guard"})
	if err != nil {
		t.Fatal(err)
	}
	edit := func(file, from, to string) func(map[string][]byte) {
		return func(content map[string][]byte) {
			if !bytes.Contains(content[file], []byte(from)) {
				t.Fatalf("%s has no %q", file, from)
			}
			content[file] = bytes.ReplaceAll(content[file], []byte(from), []byte(to))
		}
	}
	const packYAML, theirs, wrapper = "/tool_guard/pack.yaml", "/tool_guard/vendor/guard.rego", "/tool_guard/adapter.rego"
	root := func(pkg string) func(map[string][]byte) {
		return func(content map[string][]byte) {
			for _, file := range []string{packYAML, theirs, wrapper} {
				edit(file, "agents.tools.guard", pkg)(content)
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(map[string][]byte)
		want   string
	}{
		"another pack's rules":    {root("packs.budgets"), "packs belongs to no pack"},
		"another pack's data":     {root("tool_guard.config"), "roots"},
		"OPA's root":              {root("system"), "system belongs to no pack"},
		"a file without adapts":   {edit(packYAML, "  adapts:\n    package: agents.tools.guard\n    entrypoints:\n      allow: [allow]\n      deny: [deny]\n      warn: [warn]\n    ignores: [ticket.state]\n", ""), "roots"},
		"the network":             {edit(theirs, "count(deny) == 0", `http.send({"method": "get", "url": "http://x"}).status_code == 200`), "undefined function http.send"},
		"another's configuration": {edit(theirs, "count(deny) == 0", "data.budgets.config.late_percent > 0"), "reads data.budgets.config.late_percent"},
	} {
		bad := changed(t, b, func(content map[string][]byte) {
			tc.change(content)
			m, err := json.Marshal(manifestFor(content))
			if err != nil {
				t.Fatal(err)
			}
			content[manifestFile] = append(m, '\n')
		})
		_, err := Verify(t.Context(), signed(t, bad, private, "k"), public, "k")
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, name := range []string{"/tool_guard/vendor/deep/x.rego", "/tool_guard/vendor/data.yaml", "/tool_guard/vendor/x_test.rego", "/tool_guard/vendored/x.rego", "/vendor/vendor/../x.rego", "//vendor/x.rego"} {
		if bundled(name) {
			t.Errorf("%s is taken", name)
		}
	}
	for _, name := range []string{"/tool_guard/vendor/x.rego", "/vendor/pack.yaml", "/vendor/x.rego", "/vendor/vendor/x.rego"} {
		if !bundled(name) {
			t.Errorf("%s is not taken", name)
		}
	}
}

// A change of what is vendored, and of how it is asked, shows.
func TestDiffOfAdapters(t *testing.T) {
	before, files := treeOf(t, adapting(t)), adapting(t)
	files[guard+"vendor/guard.rego"] = append(files[guard+"vendor/guard.rego"], "\ndeny contains \"no\" if input.tool == \"x\"\n"...)
	files[guard+"pack.yaml"] = bytes.Replace(files[guard+"pack.yaml"], []byte("[ticket.state]"), []byte("[ticket.state, ticket.id]"), 1)
	changes, err := Diff(t.Context(), before, treeOf(t, files))
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for _, c := range changes {
		said[c.Kind+" "+c.What] = true
	}
	if !said["source "+guard+"vendor/guard.rego"] || !said["manifest adapts.ignores"] || said["manifest adapts.package"] {
		t.Errorf("got %+v", changes)
	}
}
