package author

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
)

// Lints of names of capabilities. A name no gateway has is no error: packs are
// written for what is to come. One that differs by a letter or two from one there
// is, is a slip, and what it stands in is never asked.

// unknownCapability finds slips in what a pack is asked about, and in what its
// rules compare.
func unknownCapability(s *subject, report reporter) {
	for _, sel := range s.Capabilities {
		if like := slip(sel, s.draft.Governed()); like != "" {
			report(place{s.file("pack.yaml"), lineOf(s.tree.files[s.file("pack.yaml")], sel), 1}, "match.capabilities names %s, which fits no capability; did you mean %s?", sel, like)
		}
	}
	for _, m := range s.Modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			text, ok := t.Value.(ast.String)
			if like := slip(string(text), s.draft.Governed()); ok && like != "" {
				report(at(t.Location), "%s is no capability; did you mean %s?", string(text), like)
			}
			return false
		})
	}
}

// handoffNotNamed finds packs that look at the enqueueing of tasks and not at the other
// way in which tasks are made.
func handoffNotNamed(s *subject, report reporter) {
	var first *ast.Location
	handoff := slices.Contains(s.Capabilities, "task.handoff")
	for _, m := range s.Modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			switch text, _ := t.Value.(ast.String); {
			case text == "task.handoff":
				handoff = true
			case text == "task.enqueue" && first == nil:
				first = t.Location
			}
			return false
		})
	}
	switch {
	case handoff:
	case first != nil:
		report(at(first), "the pack asks for task.enqueue, and never for task.handoff")
	case slices.Contains(s.Capabilities, "task.enqueue"):
		report(place{s.file("pack.yaml"), lineOf(s.tree.files[s.file("pack.yaml")], "task.enqueue"), 1}, "match.capabilities names task.enqueue, and not task.handoff")
	}
}

// slipsInRows finds slips in the rows of roles.
func (t *Tree) slipsInRows(d *policies.Draft) (out []Finding) {
	const file = "roles/policy.csv"
	l := lint("unknown-capability")
	for i, line := range strings.Split(string(t.files[file]), "\n") {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Split(line, ",")
		if len(f) != 6 || strings.TrimSpace(f[0]) != "p" {
			continue
		}
		name := strings.TrimSpace(f[3])
		if like := slip(name, d.Governed()); like != "" {
			out = append(out, l.finding("", place{file, i + 1, 1}, "the row names "+name+", which is no capability; did you mean "+like+"?"))
		}
	}
	return out
}

// fixtureNotRouted finds fixtures of calls the pack is never asked about: what they
// show happens in no gateway.
func fixtureNotRouted(s *subject, report reporter) {
	for _, f := range s.fixtures {
		call, _ := f.Input["call"].(map[string]any)
		name, _ := call["capability"].(string)
		if f.Foreign || name == "" || !writ.CapabilityID(name).Valid() {
			continue
		}
		if !slices.ContainsFunc(s.Capabilities, func(sel string) bool { return fits(sel, name) }) {
			report(place{file: f.File, line: 1, col: 1}, "the call is one of %s, and match.capabilities of the pack has nothing that fits it", name)
		}
	}
}

// fits says whether a selector fits a capability.
func fits(selector, name string) bool {
	prefix, all := strings.CutSuffix(selector, "*")
	return selector == name || all && strings.HasPrefix(name, prefix)
}

// slip is the capability, or the selector of some, that a name was probably meant
// to be; "" when the name fits one, or is like none.
func slip(name string, caps []writ.CapabilityID) string {
	space, all := strings.CutSuffix(name, ".*")
	if !all && !writ.CapabilityID(name).Valid() || name == "*" {
		return ""
	}
	best, distance := "", 3
	for _, c := range caps {
		if fits(name, string(c)) {
			return ""
		}
		candidate := string(c)
		if all {
			candidate, _, _ = strings.Cut(candidate, ".")
		}
		if d := edits(space, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	if best != "" && all {
		best += ".*"
	}
	return best
}

// edits is the number of letters to insert, remove, replace or swap with the next
// to make one word of another (optimal string alignment distance).
func edits(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
