package author

import (
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/cover"
)

// FileCoverage says which lines of a file no test came to.
type FileCoverage struct {
	File      string   `json:"file"`
	Coverage  float64  `json:"coverage"` // percent
	Uncovered [][2]int `json:"uncovered,omitempty"`
	Vendored  bool     `json:"vendored,omitempty"` // shown, and not counted: nobody here edits it
}

// cover takes the share of covered lines over the pack's own files: tests
// would lift it, since they run, and what was written elsewhere is tested there.
func (p *PackTests) cover(r cover.Report) {
	covered, all := 0, 0
	for name, f := range r.Files {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		fc := FileCoverage{File: name, Coverage: f.Coverage, Vendored: path.Base(path.Dir(name)) == "vendor"}
		for _, x := range f.NotCovered {
			fc.Uncovered = append(fc.Uncovered, [2]int{x.Start.Row, x.End.Row})
		}
		if !fc.Vendored {
			covered += f.CoveredLines
			all += f.CoveredLines + f.NotCoveredLines
		}
		p.Files = append(p.Files, fc)
	}
	slices.SortFunc(p.Files, func(a, b FileCoverage) int { return strings.Compare(a.File, b.File) })
	if all > 0 {
		p.Coverage = 100 * float64(covered) / float64(all)
	}
}
