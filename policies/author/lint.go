package author

import (
	"context"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ/policies"
)

// Lint is one thing that loads and should still not be released. Its id is
// stable; hint says what to do.
type Lint struct {
	ID       string
	Severity string
	Title    string // what is wrong, in a few words
	Hint     string
	run      func(*subject, reporter)
}

// reporter notes a finding at a place.
type reporter func(where place, format string, args ...any)

type place struct {
	file      string
	line, col int
}

func at(l *ast.Location) place { return place{l.File, l.Row, l.Col} }

// subject is one pack under the lints.
type subject struct {
	policies.DraftPack
	ctx      context.Context
	tree     *Tree
	draft    *policies.Draft
	fixtures []Fixture
	tests    map[string]*ast.Module
}

func (s *subject) file(base string) string { return "packs/" + s.ID + "/" + base }

// Lints lists all lints, in the order of the documentation.
func Lints() []Lint {
	return []Lint{
		{"unlike-types", Error, "values of unlike types are compared", "types are ordered among each other (every text is greater than every number): compare like with like", unlikeTypes},
		{"unguarded-to-number", Error, "to_number of something that may be no number", "an error refuses every call the pack judges: guard it with regex.match or is_number of the same value", unguardedToNumber},
		{"glob-crosses-segments", Error, "a glob with **", "** also matches across .. and not the directory itself: compare prefixes that end in / with startswith", globs},
		{"print-statement", Error, "print in a pack", "print while you work, in tests; remove it here", prints},
		{"conflicting-values", Warning, "a helper with several values", "when two bodies hold at once the evaluation fails and the call is refused: use else, or make it a set", conflicting},
		{"unindexable-guard", Warning, "a guard the rule index cannot use", "compare the field itself with a constant, or look it up: data.<pack>.config.table[input.call.capability]", unindexable},
		{"whole-input", Warning, "the rules see all of the input", "name the parts they need: what sees everything, the time included, is evaluated anew for each call; memo: false in pack.yaml says that this is meant", wholeInput},
		{"open-without-data", Error, "the pack lets the empty call through when its data is lost", "deny in a rule that needs no data: <pack>.incomplete", openWithoutData},
		{"obligation-denies", Error, "an obligation that cannot be carried out", "the finding always denies: see the table of obligations in docs/policies.md for what there is, with which arguments and beside which effect", obligationDenies},
		{"approval-nobody-decides", Error, "the rule asks people of whom nobody may decide", "name a role in roles that roles/policy.csv lets invoke approval.decide (for a human_action approval.respond), or give one of them that row", approvalNobodyDecides},
		{"unknown-capability", Error, "a name that is almost that of a capability", "mend the name; a pack is not asked about, and a row grants or denies nothing for, what no gateway has", unknownCapability},
		{"handoff-not-named", Warning, "task.enqueue is named, and task.handoff is not", "a holder makes tasks by task.handoff too, which is judged as itself: name it beside task.enqueue where new work is meant (input.task.raised tells it from a step that was planned)", handoffNotNamed},
		{"unused-data", Warning, "a value in data.yaml that no rule reads", "remove it, or use it", unusedData},
		{"yaml-boolean", Warning, "yes, no, on or off in data.yaml", "YAML 1.2 reads a text: write true or false, or put it in quotes", yamlBooleans},
		{"test-package", Error, "a test file in another package", "tests stand in package packs.<pack>_test", testPackage},
		{"rule-without-test", Error, "no test names the rule", "add a test_ rule to <pack>_test.rego that expects its id", ruleWithoutTest},
		{"rule-without-fixture", Error, "no fixture is denied by the rule", "add fixtures/<pack>/<case>.yaml with its id in want.rules", ruleWithoutFixture},
		{"missing-deny-fixture", Error, "no fixture is denied", "add one with want.effect: deny", func(s *subject, r reporter) { missingFixture(s, r, false) }},
		{"missing-allow-fixture", Error, "no fixture is allowed", "add one with want.effect: allow, or nobody sees when the pack denies everything", func(s *subject, r reporter) { missingFixture(s, r, true) }},
		{"fixture-not-routed", Error, "a fixture of a call the pack is never asked about", "mend its input.call.capability, or match.capabilities in pack.yaml", fixtureNotRouted},
		{"unknown-fixture-rule", Error, "a fixture names a rule that does not exist", "mend the id in want.rules", unknownFixtureRule},
		{"fixture-shape", Error, "a fixture that cannot be run", "a fixture has name, input (see schema/input.json) and want: {effect, rules, codes, obligations}", nil},
		{"orphan-fixtures", Error, "fixtures of a pack that does not exist", "rename the directory, or remove it", nil},
		{"missing-readme", Error, "a pack without a README.md", "say in README.md what each rule denies, with one call that is allowed and one that is not", missingReadme},
		{"readme-lacks-rule", Warning, "the README does not name the rule", "add it to the table of rules", readmeLacksRule},
		{"not-formatted", Warning, "the file is not formatted", "run writ policy fmt -w", notFormatted},
	}
}

// Lint looks for what loads and still should not be released. What keeps the
// tree from loading is in it too, with id check.
func (t *Tree) Lint(ctx context.Context, o policies.Options) []Finding {
	draft := policies.Examine(ctx, t.source, o)
	out := t.withUnread(fromProblems(draft.Problems()))
	out = append(append(out, t.orphans()...), t.slipsInRows(draft)...)
	for _, p := range draft.Packs() {
		s := &subject{DraftPack: p, ctx: ctx, tree: t, draft: draft, tests: map[string]*ast.Module{}}
		var bad []Finding
		s.fixtures, bad = t.fixtures(p.ID)
		out = append(out, bad...)
		for _, name := range t.packFiles(p.ID, "*_test.rego") {
			m, err := parseTest(name, t.files[name])
			if err != nil {
				out = append(out, fromOPA(err)...)
				continue
			}
			s.tests[name] = m
		}
		out = append(out, s.lint()...)
	}
	Sort(out)
	return out
}

func (s *subject) lint() []Finding {
	var out []Finding
	for _, l := range Lints() {
		if l.run == nil {
			continue
		}
		l.run(s, func(where place, format string, args ...any) {
			out = append(out, l.finding(s.ID, where, fmt.Sprintf(format, args...)))
		})
	}
	return out
}

func (l Lint) finding(pack string, where place, message string) Finding {
	return Finding{
		ID: l.ID, Severity: l.Severity, File: where.file, Line: where.line, Col: where.col,
		Message: message, Hint: strings.ReplaceAll(l.Hint, "<pack>", pack),
	}
}

// lint is the lint of an id.
func lint(id string) Lint {
	for _, l := range Lints() {
		if l.ID == id {
			return l
		}
	}
	panic("no lint " + id) // ids are constants of this package
}

func (t *Tree) orphans() []Finding {
	var out []Finding
	for _, id := range t.below("fixtures") {
		if len(t.packFiles(id, "pack.yaml")) == 0 {
			out = append(out, lint("orphan-fixtures").finding(id, place{file: "fixtures/" + id}, "there is no pack "+id))
		}
	}
	return out
}
