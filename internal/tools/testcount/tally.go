package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
)

// event is one line of the test2json stream.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	ImportPath  string // of build-output and build-fail
	FailedBuild string
}

// tally counts results and reports them to out.
type tally struct {
	out       io.Writer
	failSkips bool

	passed, failed, skipped int
	failures                []string // the names counted in failed, in order
	skips                   []string

	pkgs map[string]*pkg
}

type pkg struct {
	hasSubtests map[string]bool
	running     map[string]*strings.Builder // output of the tests that have not ended
	results     []result
	output      strings.Builder // what belongs to no test
}

type result struct{ test, action string }

// readGo counts a test2json stream. Lines that are not events are passed through.
func (t *tally) readGo(in io.Reader) error {
	t.pkgs = map[string]*pkg{}
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			var e event
			if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprintln(t.out, strings.TrimRight(line, "\n"))
			} else {
				t.event(e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	// A stream that was cut off ends no package.
	var cut []string
	for name := range t.pkgs {
		cut = append(cut, name)
	}
	sort.Strings(cut)
	for _, name := range cut {
		fmt.Fprintf(t.out, "FAIL  %s: the stream ended before the package did\n", name)
		t.endPackage(event{Action: "fail", Package: name})
	}
	return nil
}

func (t *tally) event(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.out, e.Output)
		return
	case "build-fail":
		return // the package's own fail event names the build
	}
	if e.Package == "" {
		return
	}
	if e.Action == "output" && strings.HasPrefix(e.Output, "note: ") {
		fmt.Fprint(t.out, e.Output)
	}
	p := t.pkgs[e.Package]
	if p == nil {
		p = &pkg{hasSubtests: map[string]bool{}, running: map[string]*strings.Builder{}}
		t.pkgs[e.Package] = p
	}
	if e.Test == "" {
		switch e.Action {
		case "output":
			if !noise(e.Output) {
				p.output.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			t.endPackage(e)
		}
		return
	}
	buf := p.running[e.Test]
	switch e.Action {
	case "run":
		p.running[e.Test] = &strings.Builder{}
		for i, c := range e.Test {
			if c == '/' {
				p.hasSubtests[e.Test[:i]] = true
			}
		}
	case "output":
		if buf == nil { // output after the test has ended
			p.output.WriteString(e.Output)
		} else if !strings.HasPrefix(e.Output, "=== ") {
			buf.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		delete(p.running, e.Test)
		p.results = append(p.results, result{e.Test, e.Action})
		if e.Action == "fail" {
			t.printFailure(e.Package, e.Test, buf)
		}
	}
}

// noise tells whether a line of package output says nothing that the package's
// own line does not.
func noise(s string) bool {
	s = strings.TrimRight(s, "\n")
	if s == "PASS" || s == "FAIL" {
		return true
	}
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "coverage: "} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func (t *tally) printFailure(pkg, test string, buf *strings.Builder) {
	fmt.Fprintf(t.out, "FAIL  %s %s\n", pkg, test)
	if buf == nil {
		return
	}
	t.indent(buf.String())
}

func (t *tally) indent(s string) {
	for line := range strings.Lines(s) {
		fmt.Fprintln(t.out, "      "+strings.TrimRight(line, "\n"))
	}
}

func (t *tally) endPackage(e event) {
	p := t.pkgs[e.Package]
	delete(t.pkgs, e.Package)

	var unfinished []string
	for test := range p.running {
		unfinished = append(unfinished, test)
	}
	sort.Strings(unfinished)
	for _, test := range unfinished {
		p.running[test].WriteString("(did not finish)\n")
		t.printFailure(e.Package, test, p.running[test])
		p.results = append(p.results, result{test, "fail"})
	}

	passed, failed, skipped := t.passed, t.failed, t.skipped
	parentOfFailure := map[string]bool{}
	for _, r := range p.results {
		if r.action == "fail" {
			for i, c := range r.test {
				if c == '/' {
					parentOfFailure[r.test[:i]] = true
				}
			}
		}
	}
	for _, r := range p.results {
		name := e.Package + " " + r.test
		switch {
		case r.action == "fail" && !parentOfFailure[r.test]:
			t.fail(name)
		case r.action == "skip":
			t.skip(name)
		case r.action == "pass" && !p.hasSubtests[r.test]:
			t.passed++
		}
	}
	if e.Action == "fail" && t.failed == failed {
		if e.FailedBuild != "" {
			t.fail(e.Package + " (does not build)")
		} else {
			t.fail(e.Package + " (the package failed, no test of it did)")
		}
	}
	if t.failed > failed {
		t.indent(p.output.String())
	}

	switch {
	case e.FailedBuild != "":
		fmt.Fprintf(t.out, "FAIL  %s: does not build\n", e.Package)
	case t.failed > failed:
		fmt.Fprintf(t.out, "FAIL  %s: %d of %d failed (%.1fs)\n", e.Package, t.failed-failed, t.failed-failed+t.passed-passed, e.Elapsed)
	case t.passed == passed && t.skipped == skipped:
		fmt.Fprintf(t.out, "none  %s\n", e.Package)
	default:
		fmt.Fprintf(t.out, "ok    %s: %d (%.1fs)\n", e.Package, t.passed-passed, e.Elapsed)
	}
}

func (t *tally) fail(name string) {
	t.failed++
	t.failures = append(t.failures, name)
}

func (t *tally) skip(name string) {
	if t.failSkips {
		t.fail(name + " (skipped)")
		return
	}
	t.skipped++
	t.skips = append(t.skips, name)
}

// readOPA counts the array that opa test --format json prints.
func (t *tally) readOPA(in io.Reader) error {
	var results []struct {
		Location struct {
			File string `json:"file"`
			Row  int    `json:"row"`
		} `json:"location"`
		Package string          `json:"package"`
		Name    string          `json:"name"`
		Fail    bool            `json:"fail"`
		Skip    bool            `json:"skip"`
		Error   json.RawMessage `json:"error"`
		Output  []byte          `json:"output"`
	}
	if err := json.NewDecoder(in).Decode(&results); err != nil {
		t.fail("(opa test printed no results)")
		return nil // the reason is on the standard error of opa test
	}
	for _, r := range results {
		name := r.Package + "." + r.Name
		hasError := len(r.Error) > 0 && string(r.Error) != "null"
		switch {
		case r.Fail || hasError:
			fmt.Fprintf(t.out, "FAIL  %s (%s:%d)\n", name, r.Location.File, r.Location.Row)
			if hasError {
				t.indent(string(r.Error))
			}
			t.indent(string(r.Output))
			t.fail(name)
		case r.Skip:
			t.skip(name)
		default:
			t.passed++
		}
	}
	return nil
}

func (t *tally) summary() {
	if len(t.failures) > 0 {
		fmt.Fprintln(t.out, "failed:")
		for _, name := range t.failures {
			fmt.Fprintln(t.out, "  "+name)
		}
	}
	if len(t.skips) > 0 {
		fmt.Fprintln(t.out, "skipped:")
		for _, name := range t.skips {
			fmt.Fprintln(t.out, "  "+name)
		}
	}
	fmt.Fprintf(t.out, "tests: passed=%d failed=%d skipped=%d\n", t.passed, t.failed, t.skipped)
}
