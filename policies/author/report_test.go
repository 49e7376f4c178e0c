package author

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"strings"
	"testing"
)

// The outputs other programs read do not change unnoticed.
func TestReports(t *testing.T) {
	files := spoiled(t, pack+"protected_paths.rego", "", "\n_x if \"5\" > 10\n\n_y if lower(input.run.id) == \"a,b: 100%\"\n\nallowed if sprintf(\"%v\", [1]) == \"\"\n")
	found := about(treeOf(t, own(files)).Lint(t.Context(), options))
	for _, format := range []string{FormatText, FormatJSON, FormatJUnit, FormatGitHub} {
		var b bytes.Buffer
		if err := Report(&b, format, "writ policy lint", "policies", found); err != nil {
			t.Fatal(err)
		}
		golden(t, "lint."+format, b.Bytes())
		wellFormed(t, format, b.Bytes())
	}
	files = spoiled(t, testFile, "", "\ntest_wrong if {\n\tprint(\"judging\")\n\trules(base) == {\"x\"}\n}\n\ntodo_test_later if false\n")
	p, err := run(t, files, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Cases {
		p.Cases[i].Took = 0
	}
	p.Coverage = 80
	p.Files[0].Uncovered = [][2]int{{12, 13}}
	all := []PackTests{p}
	for _, format := range []string{FormatText, FormatJSON, FormatJUnit, FormatGitHub} {
		var b bytes.Buffer
		if err := ReportTests(&b, format, "policies", all, Low(all, 90), false); err != nil {
			t.Fatal(err)
		}
		golden(t, "test."+format, b.Bytes())
		wellFormed(t, format, b.Bytes())
	}
}

func wellFormed(t *testing.T, format string, b []byte) {
	t.Helper()
	switch format {
	case FormatJSON:
		if !json.Valid(b) {
			t.Error("not JSON")
		}
	case FormatJUnit:
		if err := xml.Unmarshal(b, new(suites)); err != nil {
			t.Error(err)
		}
	case FormatGitHub:
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "::error ") && !strings.HasPrefix(line, "::warning ") {
				t.Errorf("not an annotation: %s", line)
			}
		}
	}
}

// What a pack says cannot give orders to a terminal or to a workflow.
func TestReportsAreInert(t *testing.T) {
	evil := []Finding{{ID: "check", Severity: Error, File: "a,line=1::x", Line: 1, Message: "x\n::set-output name=a::b\x1b[31m\u202e%0A"}}
	for _, format := range []string{FormatText, FormatGitHub, FormatJUnit} {
		var b bytes.Buffer
		if err := Report(&b, format, "t", "d", evil); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b\u202e") {
			t.Errorf("%s: %q", format, b.String())
		}
		if format == FormatGitHub && (strings.Count(b.String(), "\n") != 1 || strings.Contains(b.String(), "::x,")) {
			t.Errorf("%s: %q", format, b.String())
		}
	}
}
