package author

import (
	"fmt"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	before := treeOf(t, example(t))
	files := example(t, "second")
	edit := func(name, from, to string) {
		t.Helper()
		if !strings.Contains(string(files[name]), from) {
			t.Fatalf("%s does not hold %q", name, from)
		}
		files[name] = []byte(strings.ReplaceAll(string(files[name]), from, to))
	}
	edit(pack+"data.yaml", "[operator]", "[operator, orchestrator]")
	edit(pack+"pack.yaml", `["task.*"]`, `["task.claim", "run.*"]`)
	edit(pack+"protected_paths.rego", "protected_paths.protected", "protected_paths.guarded")
	edit(pack+"pack.yaml", "version: 0.1.0", "version: 0.2.0")
	edit("packs/budgets/data.yaml", "80", "50")
	edit("roles/policy.csv", "p, role:operator, *, session.list, invoke, allow\n", "p, role:auditor, *, session.list, invoke, allow\n")
	edit(pack+"README.md", "#", "##")
	for name := range files {
		if strings.HasPrefix(name, "packs/write_scopes/") {
			delete(files, name)
		}
	}
	changes, err := Diff(t.Context(), before, treeOf(t, files))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, fmt.Sprintf("%s %s %s", c.Change, c.Kind, c.What))
	}
	for _, want := range []string{
		"changed pack version (the content differs: give it a new one)", "changed data late_percent",
		"changed pack version", "changed manifest match.capabilities", "added rule protected_paths.guarded", "removed rule protected_paths.protected",
		"changed data trusted_roles", "changed source packs/protected_paths/protected_paths.rego",
		"added pack second", "removed pack write_scopes",
		"removed role p, role:operator, *, session.list, invoke, allow", "added role p, role:auditor, *, session.list, invoke, allow",
	} {
		found := 0
		for _, g := range got {
			if g == want {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d times %q in\n%s", found, want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 12 {
		t.Errorf("%d changes:\n%s", len(got), strings.Join(got, "\n"))
	}
}

func TestDiffOfWhatDoesNotLoad(t *testing.T) {
	broken := treeOf(t, spoiled(t, pack+"protected_paths.rego", "", "\nx if {\n"))
	if _, err := Diff(t.Context(), treeOf(t, example(t)), broken); err == nil || !strings.HasPrefix(err.Error(), "policies: packs/protected_paths/") {
		t.Errorf("got %v", err)
	}
}
