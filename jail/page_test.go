package jail

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// docs/jail.md says what to change for each feature a jail can be refused for, and names each profile.
func TestThePageNamesEveryRefusal(t *testing.T) {
	page, err := os.ReadFile("../docs/jail.md")
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Feature") {
			return true
		}
		found++
		feature := strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)
		if !strings.Contains(string(page), "\n| `"+feature+"` | ") {
			t.Errorf("the page has no row of %s", feature)
		}
		return true
	})
	if found < 15 {
		t.Errorf("%d features were found", found)
	}
	for _, p := range Profiles() {
		if !strings.Contains(string(page), p.Name) {
			t.Errorf("the page does not name the profile %s", p.Name)
		}
	}
}

func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		if got, err := ProfileNamed(p.Name); err != nil || got != p {
			t.Errorf("%s is %+v, %v", p.Name, got, err)
		}
		if p.WithoutCgroup || p.WithoutProc || p.ExecInScope || p.MinLandlock < minLandlock {
			t.Errorf("%s gives away what somebody must decide: %+v", p.Name, p)
		}
	}
	if _, err := ProfileNamed("none"); err == nil {
		t.Error("there is a profile none")
	}
}
