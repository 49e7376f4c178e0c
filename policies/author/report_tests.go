package author

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Low lists the packs whose coverage is below a percentage.
func Low(all []PackTests, least float64) []Finding {
	var out []Finding
	for _, p := range all {
		if p.Coverage >= least {
			continue
		}
		f := Finding{
			ID: "coverage", Severity: Error, File: "packs/" + p.Pack,
			Message: fmt.Sprintf("the tests of pack %s cover %.1f %% of its lines, want %g", p.Pack, p.Coverage, least),
			Hint:    "'writ policy coverage' shows the lines no test comes to",
		}
		for _, c := range p.Files {
			if len(c.Uncovered) > 0 && !c.Vendored {
				f.File, f.Line = c.File, c.Uncovered[0][0]
				break
			}
		}
		out = append(out, f)
	}
	return out
}

// findings are the failed cases as findings.
func (p PackTests) findings() []Finding {
	var out []Finding
	for _, c := range p.Cases {
		if !c.Passed && !c.Skipped {
			out = append(out, Finding{ID: "test", Severity: Error, File: c.File, Line: c.Line, Message: c.Name + ": " + c.Message})
		}
	}
	return out
}

// ReportTests writes the results of tests; low are packs without enough
// coverage. Text names failures only, unless verbose.
func ReportTests(w io.Writer, format, dir string, all []PackTests, low []Finding, verbose bool) error {
	all, low = placedTests(dir, all), placed(dir, low)
	switch format {
	case FormatJSON:
		return encode(w, map[string]any{"packs": all, "low_coverage": slices.Concat([]Finding{}, low)})
	case FormatGitHub:
		var bad []Finding
		for _, p := range all {
			bad = append(bad, p.findings()...)
		}
		return Report(w, format, "", "", append(bad, low...))
	case FormatJUnit:
		var out []suite
		for _, p := range all {
			out = append(out, p.suite())
		}
		if len(low) > 0 {
			out = append(out, findingsSuite("coverage", low))
		}
		return junit(w, out)
	}
	for _, p := range all {
		if err := p.text(w, verbose); err != nil {
			return err
		}
	}
	return Report(w, format, "", "", low)
}

// placedTests puts the directory in front of all files.
func placedTests(dir string, all []PackTests) []PackTests {
	out := []PackTests{}
	for _, p := range all {
		p.Cases, p.Files = slices.Clone(p.Cases), slices.Clone(p.Files)
		for i := range p.Cases {
			p.Cases[i].File = below(dir, p.Cases[i].File)
		}
		for i := range p.Files {
			p.Files[i].File = below(dir, p.Files[i].File)
		}
		out = append(out, p)
	}
	return out
}

func (p PackTests) suite() suite {
	s := suite{Name: "packs/" + p.Pack, Tests: len(p.Cases), Failures: p.Failed()}
	var took time.Duration
	for _, c := range p.Cases {
		took += c.Took
		x := junitCase{Class: p.Pack + "." + c.Kind, Name: c.Name, File: c.File, Line: c.Line, Time: seconds(c.Took), Out: clean(c.Output)}
		switch {
		case c.Skipped:
			s.Skipped++
			x.Skipped = &empty{}
		case !c.Passed:
			x.Failure = &failure{Message: clean(c.Message), Text: clean(c.Trace)}
		}
		s.Cases = append(s.Cases, x)
	}
	s.Time = seconds(took)
	return s
}

func (p PackTests) text(w io.Writer, verbose bool) error {
	var b strings.Builder
	kinds := map[string]int{}
	for _, c := range p.Cases {
		kinds[c.Kind]++
		if c.Passed && !verbose && c.Output == "" {
			continue
		}
		verdict := map[bool]string{true: "ok  ", false: "FAIL"}[c.Passed]
		if c.Skipped {
			verdict = "skip"
		}
		fmt.Fprintf(&b, "%s  %s  %s:%d\n", verdict, clean(c.Name), c.File, c.Line)
		for _, part := range []string{c.Message, c.Output, c.Trace} {
			for _, line := range strings.Split(strings.TrimSpace(part), "\n") {
				if line != "" && (!c.Passed || part == c.Output) {
					fmt.Fprintf(&b, "      %s\n", clean(line))
				}
			}
		}
	}
	fmt.Fprintf(&b, "%s  %-24s %d of %d failed (%d Rego tests, %d fixtures), %.1f %% covered\n",
		map[bool]string{true: "ok  ", false: "FAIL"}[p.Failed() == 0], p.Pack, p.Failed(), len(p.Cases), kinds["rego"], kinds["fixture"], p.Coverage)
	_, err := io.WriteString(w, b.String())
	return err
}
