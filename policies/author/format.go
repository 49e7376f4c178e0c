package author

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// Formatted is a source whose form is not OPA's.
type Formatted struct {
	File     string // below the directory
	Old, New []byte
}

// Format formats every Rego file of the tree as `opa fmt` does and returns
// those that change. Files that do not parse are findings. Vendored files stay as
// they came.
func (t *Tree) Format() ([]Formatted, []Finding) {
	var out []Formatted
	var bad []Finding
	for _, id := range t.PackIDs() {
		for _, name := range t.packFiles(id, "*.rego") {
			b, err := formatSource(name, t.files[name])
			if err != nil {
				bad = append(bad, fromOPA(err)...)
			} else if !bytes.Equal(b, t.files[name]) {
				out = append(out, Formatted{name, t.files[name], b})
			}
		}
	}
	Sort(bad)
	return out, bad
}

func formatSource(name string, b []byte) ([]byte, error) {
	return format.SourceWithOpts(name, b, format.Opts{RegoVersion: ast.RegoV1})
}

// Rewrite puts the new form into the directory the tree was opened from. A
// file that changed meanwhile is refused.
func (t *Tree) Rewrite(f Formatted) error {
	if t.root == nil {
		return errors.New("the tree is not a directory")
	}
	name := filepath.FromSlash(f.File)
	now, err := fs.ReadFile(t.root.FS(), f.File)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, f.Old) {
		return fmt.Errorf("%s changed while it was formatted; run it again", f.File)
	}
	return t.root.WriteFile(name, f.New, 0o644)
}

// Diff is what formatting changes, in the unified form without context.
func (f Formatted) Diff() string {
	a, b := lines(f.Old), lines(f.New)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", f.File, f.File)
	for _, h := range hunks(a, b) {
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n", h.a0+1, h.a1-h.a0, h.b0+1, h.b1-h.b0)
		for _, l := range a[h.a0:h.a1] {
			out.WriteString("-" + l + "\n")
		}
		for _, l := range b[h.b0:h.b1] {
			out.WriteString("+" + l + "\n")
		}
	}
	return out.String()
}

func lines(b []byte) []string { return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n") }

// hunk is a[a0:a1] replaced by b[b0:b1].
type hunk struct{ a0, a1, b0, b1 int }

// hunks compares lines by their longest common subsequence, and takes long
// files as one hunk.
func hunks(a, b []string) []hunk {
	if len(a)*len(b) > 4<<20 {
		return []hunk{{0, len(a), 0, len(b)}}
	}
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out []hunk
	for i, j := 0, 0; i < len(a) || j < len(b); {
		if i < len(a) && j < len(b) && a[i] == b[j] {
			i, j = i+1, j+1
			continue
		}
		h := hunk{a0: i, b0: j}
		for (i < len(a) || j < len(b)) && (i == len(a) || j == len(b) || a[i] != b[j]) {
			if j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		h.a1, h.b1 = i, j
		out = append(out, h)
	}
	return out
}
