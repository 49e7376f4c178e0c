package author

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// columns writes rows that line up.
func columns(w io.Writer, head string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if head != "" {
		fmt.Fprintln(t, strings.ReplaceAll(head, " ", "\t"))
	}
	for _, r := range rows {
		for i := range r {
			r[i] = strings.ReplaceAll(clean(r[i]), "\n", " ")
		}
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// ReportRules writes rules as text, json or markdown.
func ReportRules(w io.Writer, format string, all []Rule) error {
	if format == FormatJSON {
		return encode(w, all)
	}
	var rows [][]string
	for _, r := range all {
		rows = append(rows, []string{r.ID, string(r.Effect), cmp.Or(strings.Join(r.Obliges, ","), "-"), r.Code, r.Severity, r.Control, fmt.Sprintf("%s:%d", r.File, r.Line), r.Title})
	}
	if format != "markdown" {
		return columns(w, "RULE EFFECT OBLIGES CODE SEVERITY CONTROL WHERE TITLE", rows)
	}
	if _, err := io.WriteString(w, "| Rule | Effect | Obliges to | Code | Severity | Control | Where | Title |\n|---|---|---|---|---|---|---|---|\n"); err != nil {
		return err
	}
	for _, r := range rows {
		for i := range r {
			r[i] = strings.ReplaceAll(clean(r[i]), "|", `\|`)
		}
		if _, err := fmt.Fprintf(w, "| `%s` | %s |\n", r[0], strings.Join(r[1:], " | ")); err != nil {
			return err
		}
	}
	return nil
}

// ReportAnswer writes a decision.
func ReportAnswer(w io.Writer, format string, a Answer) error {
	if format == FormatJSON {
		return encode(w, a)
	}
	rows := [][]string{{"capability", string(a.Capability)}, {"packs", strings.Join(a.Packs, ", ")}, {"effect", string(a.Effect)}}
	for _, f := range a.Findings {
		rows = append(rows, []string{"finding", fmt.Sprintf("%s  %s  %s: %s", f.Rule, f.Effect, f.Code, f.Message)})
		for _, o := range f.Obligations {
			args, err := json.Marshal(o.Args)
			if err != nil {
				return err
			}
			rows = append(rows, []string{"obliges", fmt.Sprintf("%s  %s  %s", f.Rule, o.Type, args)})
		}
	}
	return columns(w, "", rows)
}

// ReportBench writes measurements.
func ReportBench(w io.Writer, format string, all []Measured) error {
	if format == FormatJSON {
		return encode(w, all)
	}
	var rows [][]string
	for _, m := range all {
		rows = append(rows, []string{m.Pack, fmt.Sprintf("%.0f", m.Allocs), fmt.Sprintf("%.0f", m.Bytes), fmt.Sprintf("%.1f", m.Micros), m.Fixture})
	}
	return columns(w, "PACK ALLOCS BYTES US FIXTURE", rows)
}

// ReportChanges writes a comparison.
func ReportChanges(w io.Writer, format string, all []Change) error {
	if format == FormatJSON {
		return encode(w, all)
	}
	var rows [][]string
	for _, c := range all {
		mark := map[string]string{Added: "+", Removed: "-", Changed: "~"}[c.Change]
		values := strings.Trim(c.Old+" → "+c.New, " →")
		if c.Change == Changed {
			values = c.Old + " → " + c.New
		}
		rows = append(rows, []string{mark, c.Kind, c.Pack, c.What, values})
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "no difference")
		return err
	}
	return columns(w, "", rows)
}

// ReportContents writes what a verified bundle holds.
func ReportContents(w io.Writer, format string, c Contents) error {
	if format == FormatJSON {
		return encode(w, c)
	}
	rows := [][]string{{"verified with key", c.KeyID}, {"revision", c.Revision}}
	for _, p := range c.Packs {
		rows = append(rows, []string{"pack", fmt.Sprintf("%s %s  %s", p.ID, p.Version, p.Digest)})
	}
	return columns(w, "", rows)
}

// ReportCoverage writes the share of covered lines and the lines that are not.
func ReportCoverage(w io.Writer, format, dir string, all []PackTests) error {
	all = placedTests(dir, all)
	if format == FormatJSON {
		type pack struct {
			Pack     string         `json:"pack"`
			Coverage float64        `json:"coverage"`
			Files    []FileCoverage `json:"files"`
		}
		var out []pack
		for _, p := range all {
			out = append(out, pack{p.Pack, p.Coverage, p.Files})
		}
		return encode(w, out)
	}
	for _, p := range all {
		if _, err := fmt.Fprintf(w, "%-24s %5.1f %%\n", p.Pack, p.Coverage); err != nil {
			return err
		}
		for _, f := range p.Files {
			for _, u := range f.Uncovered {
				line := fmt.Sprintf("  %s:%d", f.File, u[0])
				if u[1] > u[0] {
					line += fmt.Sprintf("-%d", u[1])
				}
				if f.Vendored {
					line += "  (vendored, not counted)"
				}
				if _, err := fmt.Fprintln(w, line); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
