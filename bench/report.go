package main

import (
	"fmt"
	"io"
	"runtime"
	"unicode/utf8"
)

// report prints lines as they are measured.
type report struct{ out io.Writer }

// goal is what a figure should be: at most or at least a value.
type goal struct {
	least bool
	value float64
	unit  string // after the value: "×", " ns"
}

func atMost(v float64, unit string) goal  { return goal{value: v, unit: unit} }
func atLeast(v float64, unit string) goal { return goal{least: true, value: v, unit: unit} }

func (g goal) String() string {
	sign := "≤ "
	if g.least {
		sign = "≥ "
	}
	return sign + number(g.value) + g.unit
}

func (r report) header() {
	fmt.Fprintf(r.out, "%s/%s, %d cores, %s\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	r.row("", "figure", "target", "ratio", "")
}

func (r report) row(what, figure, target, ratio, verdict string) {
	fmt.Fprintf(r.out, "%s %s %s %s  %s\n", pad(what, 62), right(figure, 12), right(target, 12), right(ratio, 7), verdict)
}

// line prints a figure, its target and figure/target.
func (r report) line(what string, v float64, g goal) {
	ratio := v / g.value
	verdict := "met"
	if (g.least && ratio < 1) || (!g.least && ratio > 1) {
		verdict = "missed"
	}
	r.row(what, number(v)+g.unit, g.String(), fmt.Sprintf("%.2f", ratio), verdict)
}

// note prints what stands behind the lines before it.
func (r report) note(format string, args ...any) {
	fmt.Fprintf(r.out, "    "+format+"\n", args...)
}

// number writes about three digits.
func number(v float64) string {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// pad and right fill to a width in characters; fmt counts bytes.
func pad(s string, n int) string {
	for utf8.RuneCountInString(s) < n {
		s += " "
	}
	return s
}

func right(s string, n int) string {
	for utf8.RuneCountInString(s) < n {
		s = " " + s
	}
	return s
}
