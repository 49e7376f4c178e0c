package author

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ/policies"
)

func TestExampleIsClean(t *testing.T) {
	if found := treeOf(t, example(t)).Lint(t.Context(), options); len(found) > 0 {
		t.Error(found)
	}
}

// Every trap is refused or found, with its id and at its line.
func TestTraps(t *testing.T) {
	const (
		rego    = pack + "protected_paths.rego"
		tests   = pack + "protected_paths_test.rego"
		data    = pack + "data.yaml"
		fixture = "fixtures/protected_paths/protected.yaml"

		manifest = pack + "pack.yaml"
	)
	for _, tc := range []struct{ name, file, from, to, id, want string }{
		// What fails open.
		{"findings misspelt", rego, "findings contains {\n\t\"rule\": \"protected_paths.protected\"", "finding contains {\n\t\"rule\": \"protected_paths.protected\"", "check", rego + ":31:1: a pack exports findings only"},
		{"a field nobody sends", rego, "input.session.role", "input.session.rolle", "check", rego + ":40"},
		{"sprintf", rego, "some scope in input.scopes.requested", "sprintf(\"%v\", [input.run.id]) != \"\"\n\tsome scope in input.scopes.requested", "check", rego + ":38:2: rego_type_error: undefined function sprintf"},
		{"not without its import", rego, "import future.keywords.not\n", "", "check", rego + ":20:2: not is used without"},
		{"computed message", rego, `"the work writes a protected path"`, "$\"the work writes {input.run.id}\"", "check", rego + ":35:13: message must be a constant text"},
		{"another package", rego, "package packs.protected_paths", "package gov", "check", rego + ":4:1: the package must be"},
		{"another pack's rules", rego, "", "\n_x if count(data.packs.budgets.findings) > 0\n", "check", rego + ":64:13: a pack reads its own"},
		{"every pack's rules", rego, "", "\n_x if {\n\tsome id\n\tdata.packs[id]\n}\n", "check", rego + ":64:1: rego_recursion_error"},
		{"another pack's data", rego, "", "\n_x if data.budgets.config.late_percent > 1\n", "check", rego + ":64:7: a pack reads its own"},
		{"with", rego, "", "\n_x if input.run.id == \"x\" with input as {}\n", "check", rego + ":64:7: with is for tests"},
		{"clock", rego, "", "\n_x if time.now_ns() > 1\n", "check", rego + ":64:7: rego_type_error: undefined function time.now_ns"},
		{"network", rego, "", "\n_x if http.send({\"method\": \"get\", \"url\": \"http://x\"}).status_code == 200\n", "check", rego + ":64:7: rego_type_error: undefined function http.send"},
		{"host", rego, "", "\n_x if opa.runtime().env.HOME == \"x\"\n", "check", rego + ":64:7: rego_type_error: undefined function opa.runtime"},
		{"chance", rego, "", "\n_x if rand.intn(\"x\", 2) == 1\n", "check", rego + ":64:7: rego_type_error: undefined function rand.intn"},
		{"empty call allowed", rego, "not _complete", "_complete", "check", "packs/protected_paths: the pack does not deny an empty call"},
		{"rule twice", rego, "protected_paths.protected\",", "protected_paths.incomplete\",", "check", rego + ":31:1: rule protected_paths.incomplete is there twice"},
		{"METADATA of another", rego, "id: protected_paths.protected", "id: protected_paths.other", "check", rego + ":31:1: custom.id"},
		{"pack.yaml at a wrong place", pack + "more.yaml", "", "x: 1\n", "check", pack + "more.yaml: a pack holds"},
		{"data at the top", data, "config:", "configuration:", "check", data + ": the one top key must be config"},

		// What loads.
		{"a text with a number", rego, "", "\n_x if \"5\" > 10\n", "unlike-types", rego + ":64:7: \"5\" is of type string, 10 of type number"},
		{"a text of the input", rego, "", "\n_x if input.call.capability > 10\n", "unlike-types", rego + ":64:7"},
		{"a number of the input", rego, "", "\n_x if {\n\tsome e in input.budget\n\te.band >= \"80\"\n}\n", "unlike-types", rego + ":66:2: e.band is of type number, \"80\" of type string"},
		{"an alias", rego, "", "\n_x if {\n\tn := input.env.now_ms\n\tn > \"0\"\n}\n", "unlike-types", rego + ":66:2"},
		{"null", rego, "", "\n_x if input.env.now_ms < null\n", "unlike-types", rego + ":64:7"},
		{"data", rego, "", "\n_x if data.protected_paths.config.trusted_roles == \"operator\"\n", "unlike-types", rego + ":64:7"},
		{"to_number", rego, "", "\n_x if to_number(input.run.id) > 10\n", "unguarded-to-number", rego + ":64:7: to_number(input.run.id)"},
		{"glob", rego, "", "\n_x if glob.match(\"fs:a/**\", [], input.run.id)\n", "glob-crosses-segments", rego + ":64:7"},
		{"print", rego, "", "\n_x if print(input.run.id)\n", "print-statement", rego + ":64:7"},
		{"two values", rego, "", "\n_x := 1 if input.run.id == \"a\"\n\n_x := 2 if input.run.id == \"b\"\n", "conflicting-values", rego + ":66:1: _x is given a second value: 2 after 1"},
		{"not indexable", rego, "", "\n_x if lower(input.run.id) == \"a\"\n", "unindexable-guard", rego + ":64:7"},
		{"all of the input", rego, "", "\n_x if _y(input)\n\n_y(i) if i.run.id == \"a\"\n", "whole-input", rego + ":64:10"},
		{"all by a name", rego, "", "\n_x if {\n\ti := input\n\ti.run.id == \"a\"\n}\n", "whole-input", rego + ":65:7"},
		{"any part of it", rego, "", "\n_x if {\n\tsome k\n\tinput[k].id == \"a\"\n}\n", "whole-input", rego + ":66:2"},
		{"open without data", rego, "not _complete\n", "not _complete\n\tdata.protected_paths.config.protected\n", "open-without-data", "packs/protected_paths: without data.yaml the pack says allow"},
		{"unused data", data, "", "  spare: {part: 1}\n", "unused-data", data + ":8:17: no rule reads config.spare.part"},
		{"yaml boolean", data, "[operator]", "[operator, on]", "yaml-boolean", data + ":7:29: config.trusted_roles.1 is the text \"on\""},
		{"tests in the pack", tests, "package packs.protected_paths_test", "package packs.protected_paths", "test-package", tests + ":1:1"},
		{"no fixture", fixture, "rules: [protected_paths.protected]", "rules: []", "rule-without-fixture", rego + ":31:1: no fixture expects protected_paths.protected"},
		{"fixture of no rule", fixture, "[protected_paths.protected]", "[protected_paths.gone]", "unknown-fixture-rule", fixture + ":"},
		{"a slip in the match", manifest, "\"task.*\"", "task.clame", "unknown-capability", manifest + ":"},
		{"enqueueing without handing on", rego, "\"task.handoff\", ", "", "handoff-not-named", rego + ":37:"},
		{"a slip in a prefix", manifest, "task.*", "taks.*", "unknown-capability", manifest + ":"},
		{"a slip in a rule", rego, "", "\n_x if input.call.capability == \"task.enqueu\"\n", "unknown-capability", rego + ":64:32: task.enqueu is no capability; did you mean task.enqueue?"},
		{"a fixture of another call", manifest, "\"task.*\"", "task.fail", "fixture-not-routed", fixture + ":1:1: the call is one of task.claim"},
		{"fixture misspelt", fixture, "want:", "wants:", "fixture-shape", fixture + ":1"},
		{"fixture with an unknown input", fixture, "run: {", "rum: {", "fixture-shape", fixture + ":1: input is not what packs are shown"},
		{"fixture without a name", fixture, "name: ", "# ", "fixture-shape", fixture + ":1: name must say"},
		{"fixtures of no pack", "fixtures/gone/a.yaml", "", "name: x\n", "orphan-fixtures", "fixtures/gone: there is no pack gone"},
		{"not formatted", rego, "\tnot _complete", "  not _complete", "not-formatted", rego + ":21:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			found := about(treeOf(t, own(spoiled(t, tc.file, tc.from, tc.to))).Lint(t.Context(), options))
			hit := slices.ContainsFunc(found, func(f Finding) bool {
				return f.ID == tc.id && strings.HasPrefix(f.where()+": "+f.Message, tc.want)
			})
			if !hit {
				t.Errorf("no %s at %s in\n%s", tc.id, tc.want, list(found))
			}
		})
	}
}

func list(found []Finding) string {
	var out []string
	for _, f := range found {
		out = append(out, fmt.Sprintf("%s %s: %s", f.ID, f.where(), f.Message))
	}
	return strings.Join(out, "\n")
}

// Tests, fixtures and prose that are missing are found for each rule.
func TestQuality(t *testing.T) {
	files := example(t)
	for name := range files {
		if strings.HasPrefix(name, "fixtures/protected_paths/") || name == pack+"README.md" || name == pack+"protected_paths_test.rego" {
			delete(files, name)
		}
	}
	found := about(treeOf(t, own(files)).Lint(t.Context(), options))
	got := map[string]int{}
	for _, f := range found {
		got[f.ID]++
		if f.Hint == "" || strings.Contains(f.Hint, "<pack>") {
			t.Errorf("%s: the hint is %q", f.ID, f.Hint)
		}
	}
	want := map[string]int{
		"rule-without-test": 2, "rule-without-fixture": 2, "missing-deny-fixture": 1, "missing-allow-fixture": 1, "missing-readme": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v\n%s", got, want, list(found))
	}
	files = example(t)
	files[pack+"README.md"] = []byte("# nothing\n")
	if found := about(treeOf(t, own(files)).Lint(t.Context(), options)); len(found) != 2 || found[0].ID != "readme-lacks-rule" || Errors(found) != 0 {
		t.Errorf("got %s", list(found))
	}
}

// An obligation the gateway cannot carry out would deny without a word.
func TestObligationThatDenies(t *testing.T) {
	for obligations, wrong := range map[string]bool{
		`[{"type": "redact", "args": {"fields": ["/args"]}}]`:                                 false,
		`[{"type": "redact", "args": {"fields": data.protected_paths.config.trusted_roles}}]`: true, // no pointers
		`[{"type": "redact", "args": {"fields": ["/labels"]}}]`:                               true,
		`[{"type": "redact", "args": {"fields": ["/args"]}}, {"type": "approval"}]`:           true,
		`[{"type": "redact", "args": {"fields": ["/args"]}}, {"type": "weather"}]`:            true,
	} {
		files := spoiled(t, pack+"protected_paths.rego", "\"effect\": \"deny\",\n\t\"code\": \"scope_denied\"", "\"effect\": \"redact\",\n\t\"obligations\": "+obligations+",\n\t\"code\": \"scope_denied\"")
		files[pack+"pack.yaml"] = bytes.Replace(files[pack+"pack.yaml"], []byte("effects: [deny]"), []byte("effects: [deny, redact]"), 1)
		var got []Finding
		for _, f := range about(treeOf(t, own(files)).Lint(t.Context(), options)) {
			if f.ID == "obligation-denies" || f.ID == "check" {
				got = append(got, f)
			}
		}
		if wrong != (len(got) == 1) || wrong && (got[0].ID != "obligation-denies" || got[0].File != pack+"protected_paths.rego" || got[0].Line != 31) {
			t.Errorf("%s: got %s", obligations, list(got))
		}
	}
}

// What is right is not complained of.
func TestNoFalseAlarms(t *testing.T) {
	for _, rego := range []string{
		"_x if {\n\tregex.match(`^[0-9]+$`, input.run.id)\n\tto_number(input.run.id) > 10\n}\n",
		"_x if {\n\tsome e in input.budget\n\te.band >= 80\n\te.on_exceed == \"hard_stop\"\n}\n",
		"_x if count(input.labels) > 3\n",
		"_x if _y(input.run)\n\n_y(r) if r.id == \"a\"\n",
		"_x := 1 if {\n\tinput.run.id == \"a\"\n} else := 2 if {\n\tinput.run.id == \"b\"\n}\n",
		"_x if startswith(input.run.id, \"a\")\n",
		"_x if not lower(input.run.id) == \"a\"\n",
		"_x if glob.match(\"fs:a/*\", [\"/\"], input.run.id)\n",
		"_x if input.call.capability in {\"a\", \"b\"}\n",
		"_x if {\n\tsome n in input.labels\n\tn != \"public\"\n}\n\n_y if {\n\tsome n in input.budget\n\tn.band > 1\n}\n",
		"_f(x) := x\n\n_f(x) := x if x == 1\n",
	} {
		files := spoiled(t, pack+"protected_paths.rego", "", "\n"+rego)
		if found := about(treeOf(t, own(files)).Lint(t.Context(), options)); len(found) > 0 {
			t.Errorf("%s\n%s", rego, list(found))
		}
	}
}

// A rule that asks people of whom nobody may decide is found, as far as the
// source says who may.
func TestApprovalsNobodyDecides(t *testing.T) {
	const (
		rules = "packs/approvals/approvals.rego"
		data  = "packs/approvals/data.yaml"
		rows  = "roles/policy.csv"
	)
	type change struct{ file, from, to string }
	governed := policies.Options{Capabilities: append(slices.Clone(options.Capabilities), "approval.decide", "approval.respond")}
	manual := func(roles string) change { return change{rules, `"roles": ["approver"]`, `"roles": [` + roles + `]`} }
	for name, c := range map[string]struct {
		changes []change
		want    string // "": nothing
	}{
		"as shipped":               {nil, ""},
		"another role":             {[]change{manual(`"executor", "operator"`)}, "approvals.manual asks for [executor operator], and none of these roles may invoke approval.decide"},
		"one of several":           {[]change{manual(`"executor", "approver"`)}, ""},
		"the role has the row":     {[]change{manual(`"operator"`), {rows, "p, role:approver, *, approval.decide", "p, role:operator, *, approval.decide"}}, "approvals.four_eyes asks for [approver]"},
		"a role of data.yaml":      {[]change{manual(`data.approvals.config.who`), {data, "config:\n", "config:\n  who: verifier\n"}}, "asks for [verifier]"},
		"nobody named":             {[]change{{rules, "\t\t\"roles\": [\"approver\"],\n", ""}}, ""},
		"nobody named, nobody may": {[]change{{rows, "p, role:approver, *, approval.decide", "# "}}, "approvals.manual asks for [approver]"},
		"an answer":                {[]change{{rules, `"kind": "effect"`, `"kind": "human_action"`}, {rows, "p, role:approver, *, approval.respond", "# "}}, "may invoke approval.respond"},
		"no bindings":              {[]change{manual(`"executor"`), {rows, "", ""}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := example(t)
			for _, c := range c.changes {
				if c.from == "" {
					delete(files, c.file)
					continue
				}
				if !strings.Contains(string(files[c.file]), c.from) {
					t.Fatalf("%s does not hold %q", c.file, c.from)
				}
				files[c.file] = []byte(strings.Replace(string(files[c.file]), c.from, c.to, 1))
			}
			var got []string
			for _, f := range treeOf(t, files).Lint(t.Context(), governed) {
				if f.ID == "approval-nobody-decides" {
					got = append(got, f.where()+": "+f.Message)
				}
			}
			if c.want == "" && len(got) > 0 || c.want != "" && !strings.Contains(strings.Join(got, "\n"), c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Lint ids are what people suppress and search for.
func TestLintIDs(t *testing.T) {
	seen := map[string]bool{"check": true}
	for _, l := range Lints() {
		if seen[l.ID] || l.Title == "" || l.Hint == "" || l.Severity != Error && l.Severity != Warning {
			t.Errorf("%+v", l)
		}
		seen[l.ID] = true
	}
}
