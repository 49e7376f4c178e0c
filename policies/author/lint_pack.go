package author

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
	"go.yaml.in/yaml/v3"
)

// Lints of what belongs to a pack besides its rules: tests, fixtures, prose
// and data.

func (s *subject) byRule(missing func(id string) bool, report reporter, what string) {
	for _, r := range s.Rules {
		if missing(r.ID) {
			report(place{r.File, r.Line, r.Col}, "%s %s", what, r.ID)
		}
	}
}

func ruleWithoutTest(s *subject, report reporter) {
	named := map[string]bool{}
	for _, m := range s.tests {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			if text, ok := t.Value.(ast.String); ok {
				named[string(text)] = true
			}
			return false
		})
	}
	s.byRule(func(id string) bool { return !named[id] }, report, "no test names")
}

func ruleWithoutFixture(s *subject, report reporter) {
	hit := map[string]bool{}
	for _, f := range s.fixtures {
		for _, id := range f.Want.Rules {
			hit[id] = true
		}
	}
	s.byRule(func(id string) bool { return !hit[id] }, report, "no fixture expects")
}

func obligationDenies(s *subject, report reporter) {
	for _, r := range s.Rules {
		if r.Denies {
			report(place{r.File, r.Line, r.Col}, "%s has effect %s, and obligations that have no place with it or that the gateway does not know", r.ID, r.Effect)
		}
	}
}

func missingFixture(s *subject, report reporter, allow bool) {
	has := slices.ContainsFunc(s.fixtures, func(f Fixture) bool {
		return allow == (f.Want.Effect == writ.EffectAllow)
	})
	if !has {
		verb := map[bool]string{true: "allowed", false: "denied"}[allow]
		report(place{file: "fixtures/" + s.ID}, "none of %d fixtures is %s", len(s.fixtures), verb)
	}
}

func unknownFixtureRule(s *subject, report reporter) {
	for _, f := range s.fixtures {
		for _, id := range f.Want.Rules {
			known := slices.ContainsFunc(s.DraftPack.PackInfo.Rules, func(r policies.RuleInfo) bool { return r.ID == id })
			if !known {
				report(place{f.File, lineOf(s.tree.files[f.File], id), 1}, "the pack has no rule %s", id)
			}
		}
	}
}

// lineOf is the first line that holds a text, from 1.
func lineOf(b []byte, text string) int {
	before, _, found := bytes.Cut(b, []byte(text))
	if !found {
		return 1
	}
	return 1 + bytes.Count(before, []byte("\n"))
}

func testPackage(s *subject, report reporter) {
	for _, m := range s.tests {
		if want := "data.packs." + s.ID + "_test"; m.Package.Path.String() != want {
			report(at(m.Package.Location), "the package is %s", strings.TrimPrefix(m.Package.Path.String(), "data."))
		}
	}
}

func missingReadme(s *subject, report reporter) {
	if len(bytes.TrimSpace(s.tree.files[s.file("README.md")])) == 0 {
		report(place{file: s.file("README.md")}, "it is missing or empty")
	}
}

func readmeLacksRule(s *subject, report reporter) {
	readme := s.tree.files[s.file("README.md")]
	if len(readme) == 0 {
		return
	}
	for _, r := range s.Rules {
		if !bytes.Contains(readme, []byte(r.ID)) {
			report(place{s.file("README.md"), 1, 1}, "it does not name %s", r.ID)
		}
	}
}

func notFormatted(s *subject, report reporter) {
	for _, name := range s.tree.packFiles(s.ID, "*.rego") {
		b := s.tree.files[name]
		if formatted, err := formatSource(name, b); err == nil && !bytes.Equal(formatted, b) {
			line := 1
			if h := hunks(lines(b), lines(formatted)); len(h) > 0 {
				line = h[0].a0 + 1
			}
			report(place{name, line, 1}, "opa fmt would change it")
		}
	}
}

// openWithoutData: a pack whose data is lost must still deny what it cannot
// judge.
func openWithoutData(s *subject, report reporter) {
	trial, err := s.draft.Trial(s.ctx, []string{s.ID}, false)
	if err != nil {
		return // Check says why
	}
	d, err := trial.Decide(s.ctx, ast.NewObject(), 10*time.Second)
	if err == nil && d.Effect != writ.EffectDeny {
		report(place{file: "packs/" + s.ID}, "without data.yaml the pack says %s to an empty call", d.Effect)
	}
}

// approvalNobodyDecides: a call that waits for people none of whom may decide
// never happens. What the bindings of the source do not say is not judged.
func approvalNobodyDecides(s *subject, report reporter) {
	for _, r := range s.Rules {
		for _, n := range r.Needs {
			verb := writ.CapabilityID("approval.decide")
			if n.Kind == writ.ApproveHumanAction {
				verb = "approval.respond"
			}
			decides := func(role writ.Role) bool {
				may, known := s.draft.Permits(role, verb)
				return may || !known
			}
			if !slices.ContainsFunc(n.Roles, decides) {
				report(place{r.File, r.Line, r.Col}, "%s asks for %v, and none of these roles may invoke %s", r.ID, n.Roles, verb)
			}
		}
	}
}

// unusedData walks the mappings of data.yaml down to values and asks whether
// some rule refers to each, or to something around it.
func unusedData(s *subject, report reporter) {
	prefix := ast.MustParseRef("data." + s.ID + ".config")
	var used [][]string
	s.rules(func(r *ast.Rule) {
		ast.WalkRefs(r, func(ref ast.Ref) bool {
			if ref.HasPrefix(prefix) {
				used = append(used, constants(ref[len(prefix):]))
			}
			return false
		})
	})
	s.data(func(path []string, n *yaml.Node) {
		reads := func(ref []string) bool {
			k := min(len(ref), len(path))
			return slices.Equal(ref[:k], path[:k])
		}
		if !slices.ContainsFunc(used, reads) {
			report(place{s.file("data.yaml"), n.Line, n.Column}, "no rule reads config.%s", strings.Join(path, "."))
		}
	}, false)
}

// constants is the beginning of a reference up to its first variable.
func constants(r ast.Ref) []string {
	var out []string
	for _, t := range r {
		text, ok := t.Value.(ast.String)
		if !ok {
			break
		}
		out = append(out, string(text))
	}
	return out
}

func yamlBooleans(s *subject, report reporter) {
	s.data(func(path []string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Style == 0 && slices.Contains([]string{"yes", "no", "on", "off"}, strings.ToLower(n.Value)) {
			report(place{s.file("data.yaml"), n.Line, n.Column}, "config.%s is the text %q", strings.Join(path, "."), n.Value)
		}
	}, true)
}

// data calls visit for the values of data.yaml that are no mappings, with
// their path; of lists, when asked, the elements.
func (s *subject) data(visit func(path []string, n *yaml.Node), elements bool) {
	var doc yaml.Node
	if yaml.Unmarshal(s.tree.files[s.file("data.yaml")], &doc) != nil || len(doc.Content) != 1 {
		return // Check says why
	}
	var walk func(path []string, n *yaml.Node)
	walk = func(path []string, n *yaml.Node) {
		switch {
		case n.Kind == yaml.MappingNode && len(n.Content) > 0:
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(append(slices.Clone(path), n.Content[i].Value), n.Content[i+1])
			}
		case n.Kind == yaml.SequenceNode && elements:
			for i, e := range n.Content {
				walk(append(slices.Clone(path), strconv.Itoa(i)), e)
			}
		case len(path) > 1:
			visit(path[1:], n) // without config
		}
	}
	walk(nil, doc.Content[0])
}
