package pack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// Evidence that a receipt says was shredded need not be there; any other must.
func TestEvidenceThatWasShredded(t *testing.T) {
	o := node(t)
	l, c := story(t)
	other := c
	other.run, other.task = writ.RunID(ulid("run", 2)), ulid("tsk", 2)
	l.begin(other)
	l.accept(other, c.judge)
	before := len(l.list)
	l.shred(c.operator, c.run, "")
	l.do(call{what: "task.get", by: c.worker, run: c.run, code: writ.CodeNotFound})
	l.shred(c.operator, c.run, "shredded")
	l.do(call{what: "task.get", by: c.worker, run: c.run, code: writ.CodeNotFound})
	last := int64(len(l.list)) - 1
	run := Scope{Kind: ScopeRun, Run: c.run}
	for name, x := range map[string]struct {
		options  Options
		evidence bool
		ask      Ask
		change   func(files)
		want     string
	}{
		"of the log":                   {Options{}, true, Ask{}, nil, ""},
		"of the run":                   {Options{Scope: run}, true, Ask{}, nil, ""},
		"of another run":               {Options{}, true, Ask{Run: other.run, Close: true}, nil, ""},
		"of another run, by itself":    {Options{Scope: Scope{Kind: ScopeRun, Run: other.run}}, true, Ask{Run: other.run, Close: true}, nil, ""},
		"who closed it":                {Options{}, true, Ask{Run: c.run, Close: true}, nil, "evidence_missing@8"},
		"who closed it, by itself":     {Options{Scope: run}, true, Ask{Run: c.run, Close: true}, nil, "evidence_missing@8"},
		"its chain":                    {Options{}, true, Ask{Run: c.run}, nil, ""},
		"in a range that ends before":  {Options{Scope: Scope{Kind: ScopeRange, Last: int64(before) - 1}}, false, Ask{}, nil, ""},
		"by a checkpoint before":       {Options{Checkpoint: l.checkpoint(before)}, false, Ask{}, nil, ""},
		"of what came since":           {Options{}, true, Ask{}, drop(evidenceName(last)), fmt.Sprintf("evidence_missing@%d", last)},
		"of the shredding":             {Options{}, true, Ask{}, drop(evidenceName(int64(before))), fmt.Sprintf("evidence_missing@%d", before)},
		"of a run that was not":        {Options{}, true, Ask{}, drop(evidenceName(15)), "evidence_missing@15"},
		"of what is about no run":      {Options{}, true, Ask{}, drop(evidenceName(3)), "evidence_missing@3"},
		"that lies there nevertheless": {Options{}, true, Ask{}, func(p files) { p[evidenceName(9)] = []byte("{}") }, "evidence_differs@9"},
	} {
		t.Run(name, func(t *testing.T) {
			f := l.export(x.options)
			if got := strings.Contains(string(f[FileManifest]), `"evidence":true`); got != x.evidence {
				t.Errorf("all evidence is promised: %v", got)
			}
			changed := f
			if x.change != nil {
				changed = f.with(x.change)
			}
			if a := both(t, o, name, f, changed, l.trust(), x.ask); strings.Join(a.Codes, " ") != x.want {
				t.Errorf("got %v, want %s", a.Codes, x.want)
			}
		})
	}
	// Without what says so it is missing.
	f := l.export(Options{Scope: run})
	a := both(t, o, "unsaid", f, f.with(l.without(before, before+2)), l.trust(), Ask{})
	if a.Exit != 3 || !slices.Contains(a.Codes, "evidence_missing@9") {
		t.Errorf("without the shredding: got %v", a.Codes)
	}
}
