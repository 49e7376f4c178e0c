package author

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/policies"
)

// Severities of findings.
const (
	Error   = "error"   // keeps a pack from being released
	Warning = "warning" // worth a look
)

// Finding is one thing to mend, at a place.
type Finding struct {
	ID       string `json:"id"` // of the lint, or "check"
	Severity string `json:"severity"`
	File     string `json:"file,omitempty"` // below the directory of the source
	Line     int    `json:"line,omitempty"` // from 1
	Col      int    `json:"col,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"` // what to do
}

// Sort orders findings by file, line, column and id.
func Sort(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(
			strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col,
			strings.Compare(a.ID, b.ID), strings.Compare(a.Message, b.Message),
		)
	})
}

// Errors counts the findings that are errors.
func Errors(all []Finding) int {
	n := 0
	for _, f := range all {
		if f.Severity == Error {
			n++
		}
	}
	return n
}

// Check does everything that a gateway does to load the tree, and returns all
// that keeps it from loading.
func (t *Tree) Check(ctx context.Context, o policies.Options) []Finding {
	return t.withUnread(fromProblems(policies.Examine(ctx, t.source, o).Problems()))
}

func fromProblems(all []policies.Problem) []Finding {
	out := []Finding{}
	for _, p := range all {
		f := Finding{ID: "check", Severity: Error, File: p.File, Line: p.Line, Col: p.Col, Message: p.Msg}
		for _, h := range hints {
			if strings.Contains(p.Msg, h.of) {
				f.Hint = h.hint
				break
			}
		}
		out = append(out, f)
	}
	Sort(out)
	return out
}

// hints say what to do about the problems people meet first.
var hints = []struct{ of, hint string }{
	{"undefined function sprintf", "messages are constant text; elsewhere write a template string: $\"{input.call.capability}\""},
	{"undefined function trace", "use print while you work, in tests"},
	{"undefined function", "packs may not read a clock, randomness, the network or the host; the time is input.env.now_ms"},
	{"write it out in _host_input", "their rules see nothing but what _host_input writes out"},
	{"var todo_", "say which part of our input their rules see there (schema/input.json), or remove the line and name the field in adapts.ignores"},
	{"undefined ref: input", "see schema/input.json for what packs are told about a call"},
	{"the package must be", "a pack owns its own package and nothing else"},
	{"future.keywords.not", "add the import below the package; then not also holds of what is undefined"},
	{"mandatory pack", "copy it from a fresh 'writ policy init', and keep it"},
	{"the one top key must be config", "indent the content under config:"},
	{"the one top key must be manifest", "indent the content under manifest:"},
	{"adds to findings", "write rules of the form: findings contains {…} if {…}"},
	{"does not deny an empty call", "add a rule <pack>.incomplete that denies a call without input.call.capability"},
	{"METADATA", "copy the comment above another rule: title, description, custom.id, custom.severity, custom.control"},
	{"reads its own data", "repeat the value in your own data.yaml"},
	{"a pack exports findings only", "begin the name of a helper with _, and spell findings right"},
	{"to ask a declared entry point", "take this form, in a helper of its own, and deny its absence: findings contains {…} if not _clean"},
	{"this is Rego v0", "it changes the syntax and not what the rules say; do it before the files are vendored"},
	{"with is for tests", "move it into a _test.rego file"},
}
