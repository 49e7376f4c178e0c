package writ_test

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What make runs without the race detector starts no goroutine: neither do packages it
// takes for pure, nor their tests, but for those it runs with the race detector by themselves.
func TestRacesAreLookedFor(t *testing.T) {
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	list := func(name string) []string {
		m := regexp.MustCompile(`(?m)^` + name + `\s*=\s*(\S+)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("the Makefile has no list %s", name)
		}
		return strings.Split(string(m[1]), "|")
	}
	pure, shared, found := list("PURE"), list("SHARED"), []string{}
	for _, f := range sources(t) {
		if f.pkg == "e2e" || !slices.Contains(pure, f.pkg) { // e2e calls programs that are built with it
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !starts(fn) || f.test && strings.HasPrefix(fn.Name.Name, "Benchmark") {
				continue
			}
			if !f.test || !slices.Contains(shared, fn.Name.Name) {
				t.Errorf("%s: %s starts a goroutine, and is run without the race detector: SHARED and PURE in the Makefile", f.path, fn.Name.Name)
			}
			found = append(found, fn.Name.Name)
		}
	}
	for _, name := range shared {
		if !slices.Contains(found, name) {
			t.Errorf("SHARED in the Makefile names %s, which starts no goroutine", name)
		}
	}
}

// starts says whether a function starts a goroutine.
func starts(fn *ast.FuncDecl) (is bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.GoStmt:
			is = true
		case *ast.CallExpr:
			s, ok := x.Fun.(*ast.SelectorExpr)
			is = is || ok && (s.Sel.Name == "Go" || s.Sel.Name == "Parallel")
		}
		return !is
	})
	return is
}
