package policies

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Problem is one thing that keeps a source from loading. Loaders return all
// they find, joined; the engine reports the first, the authors' tools all.
type Problem struct {
	File string // slash separated, below the source; empty when it is about the whole
	Line int    // from 1; 0 when it is about the whole file
	Col  int
	Msg  string
}

func (p Problem) Error() string {
	switch {
	case p.File == "":
		return p.Msg
	case p.Line == 0:
		return p.File + ": " + p.Msg
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Msg)
}

var lineIn = regexp.MustCompile(`\bline (\d+)`)

// inFile is err as a problem of a file; YAML's errors say the line.
func inFile(file string, err error) error {
	if err == nil {
		return nil
	}
	p := Problem{File: file, Msg: err.Error()}
	if m := lineIn.FindStringSubmatch(p.Msg); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
	}
	return p
}

// inPack is inFile for a file of a pack.
func inPack(id, base string, err error) error { return inFile("packs/"+id+"/"+base, err) }

// parts takes a joined error apart.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var out []error
	for _, e := range joined.Unwrap() {
		out = append(out, parts(e)...)
	}
	return out
}

// first is the first of joined errors.
func first(err error) error {
	if all := parts(err); len(all) > 0 {
		return all[0]
	}
	return err
}

// problems lists what an error says, sorted by place and without repetition.
func problems(err error) []Problem {
	var out []Problem
	for _, e := range parts(err) {
		if list, ok := errors.AsType[ast.Errors](e); ok {
			for _, x := range list {
				out = append(out, fromOPA(x))
			}
		} else if x, ok := errors.AsType[*ast.Error](e); ok {
			out = append(out, fromOPA(x))
		} else if p, ok := errors.AsType[Problem](e); ok {
			out = append(out, p)
		} else {
			out = append(out, Problem{Msg: e.Error()})
		}
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, a.Col-b.Col, strings.Compare(a.Msg, b.Msg))
	})
	return slices.Compact(out)
}

func fromOPA(e *ast.Error) Problem {
	p := Problem{Msg: e.Code + ": " + e.Message}
	if e.Details != nil {
		for _, line := range e.Details.Lines() {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "^") {
				p.Msg += "; " + line
			}
		}
	}
	if e.Location != nil {
		p.File, p.Line, p.Col = e.Location.File, e.Location.Row, e.Location.Col
	}
	return p
}
