package author

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-gateway/writ/internal/printable"
)

// Formats of reports.
const (
	FormatText   = "text"
	FormatJSON   = "json"
	FormatJUnit  = "junit"
	FormatGitHub = "github" // annotations of a workflow run
)

// Report writes findings. Dir is put in front of their files, so that editors
// and CI find them; title names the suite.
func Report(w io.Writer, format, title, dir string, all []Finding) error {
	all = placed(dir, all)
	switch format {
	case FormatJSON:
		return encode(w, map[string]any{"findings": all, "errors": Errors(all), "warnings": len(all) - Errors(all)})
	case FormatJUnit:
		return junit(w, []suite{findingsSuite(title, all)})
	case FormatGitHub:
		for _, f := range all {
			if _, err := fmt.Fprintln(w, annotation(f)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%s: %s: %s [%s]\n", clean(f.where()), f.Severity, clean(f.Message), f.ID); err != nil {
			return err
		}
		if f.Hint != "" {
			if _, err := fmt.Fprintf(w, "    hint: %s\n", clean(f.Hint)); err != nil {
				return err
			}
		}
	}
	return nil
}

// placed puts the directory in front of the files of findings.
func placed(dir string, all []Finding) []Finding {
	out := make([]Finding, len(all))
	for i, f := range all {
		f.File = below(dir, f.File)
		out[i] = f
	}
	return out
}

func below(dir, file string) string {
	if file == "" {
		return ""
	}
	return path.Join(filepath.ToSlash(dir), file)
}

func (f Finding) where() string {
	switch {
	case f.File == "":
		return "policies"
	case f.Line == 0:
		return f.File
	case f.Col == 0:
		return fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Col)
}

// clean keeps what a pack says from moving the cursor of a terminal.
func clean(s string) string {
	return printable.Text(strings.ReplaceAll(s, "\t", "  "), "\n")
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// annotation is a workflow command; its values are escaped as GitHub asks.
func annotation(f Finding) string {
	value := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	property := strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
	var at []string
	if f.File != "" {
		at = append(at, "file="+property.Replace(f.File))
	}
	if f.Line > 0 {
		at = append(at, fmt.Sprintf("line=%d", f.Line))
	}
	if f.Col > 0 {
		at = append(at, fmt.Sprintf("col=%d", f.Col))
	}
	at = append(at, "title="+property.Replace(f.ID))
	text := f.Message
	if f.Hint != "" {
		text += "\n" + f.Hint
	}
	return fmt.Sprintf("::%s %s::%s", f.Severity, strings.Join(at, ","), value.Replace(clean(text)))
}

type suites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []suite  `xml:"testsuite"`
}

type suite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr,omitempty"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	File    string   `xml:"file,attr,omitempty"`
	Line    int      `xml:"line,attr,omitempty"`
	Time    string   `xml:"time,attr,omitempty"`
	Failure *failure `xml:"failure,omitempty"`
	Skipped *empty   `xml:"skipped,omitempty"`
	Out     string   `xml:"system-out,omitempty"`
}

type failure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

type empty struct{}

func junit(w io.Writer, all []suite) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suites{Suites: all}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// findingsSuite has one failed case a finding, or one that passed.
func findingsSuite(title string, all []Finding) suite {
	s := suite{Name: title, Tests: max(1, len(all))}
	for _, f := range all {
		c := junitCase{Class: f.ID, Name: f.where(), File: f.File, Line: f.Line}
		if f.Severity == Error {
			s.Failures++
			c.Failure = &failure{Message: clean(f.Message), Text: clean(f.Hint)}
		} else {
			c.Out = clean("warning: " + f.Message + "\n" + f.Hint)
		}
		s.Cases = append(s.Cases, c)
	}
	if len(all) == 0 {
		s.Cases = []junitCase{{Class: title, Name: "no findings"}}
	}
	return s
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
