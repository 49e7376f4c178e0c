package author

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/format"
)

func TestFormatIsOPAs(t *testing.T) {
	files := spoiled(t, pack+"protected_paths.rego", "\tnot _complete\n", "   not   _complete\n")
	files[pack+"protected_paths_test.rego"] = append(files[pack+"protected_paths_test.rego"], "\n\n\ntest_more if  true\n"...)
	changed, bad := treeOf(t, files).Format()
	if len(changed) != 2 || len(bad) > 0 {
		t.Fatalf("%d changed, %v", len(changed), bad)
	}
	for _, f := range changed {
		want, err := format.Source(f.File, f.Old)
		if err != nil || !bytes.Equal(f.New, want) {
			t.Errorf("%s: %v\n%s", f.File, err, f.New)
		}
	}
	want := "--- packs/protected_paths/protected_paths.rego\n+++ packs/protected_paths/protected_paths.rego\n@@ -20,1 +20,1 @@\n-   not   _complete\n+\tnot _complete\n"
	if got := changed[0].Diff(); !strings.HasSuffix(got, "-   not   _complete\n+\tnot _complete\n") || len(got) != len(want) {
		t.Errorf("got %s", got)
	}
	files = spoiled(t, pack+"protected_paths.rego", "", "\n_x if {\n")
	if _, bad := treeOf(t, files).Format(); len(bad) == 0 || bad[0].Line == 0 {
		t.Errorf("got %v", bad)
	}
}

func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	for name, b := range spoiled(t, pack+"protected_paths.rego", "\tnot _complete\n", "   not   _complete\n") {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	changed, _ := tree.Format()
	if len(changed) != 1 {
		t.Fatalf("%d changed", len(changed))
	}
	if err := tree.Rewrite(changed[0]); err != nil {
		t.Fatal(err)
	}
	if err := tree.Rewrite(changed[0]); err == nil {
		t.Error("a file that changed meanwhile was overwritten")
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if changed, _ := again.Format(); len(changed) > 0 {
		t.Error("it still changes")
	}
}
