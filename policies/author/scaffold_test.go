package author

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/loader"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// What Init makes passes our tools, and those of OPA, which do not know us.
func TestInit(t *testing.T) {
	t.Chdir(t.TempDir())
	made, err := Init("policies")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := InitPack("policies", "second"); err != nil {
		t.Fatal(err)
	}
	tree, err := Open("policies")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	if found := tree.Check(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
	if found := tree.Lint(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
	if changed, bad := tree.Format(); len(changed)+len(bad) > 0 {
		t.Error("not formatted")
	}
	all, err := tree.Test(t.Context(), TestOptions{})
	if err != nil || len(all) != len(Shipped().PackIDs())+2 {
		t.Fatalf("%d packs: %v", len(all), err)
	}
	for _, p := range all {
		if p.Failed() > 0 || p.Coverage < 100 {
			t.Errorf("%s: %d failed, %.1f %% covered", p.Pack, p.Failed(), p.Coverage)
		}
	}
	for _, name := range []string{"policies/schema/input.json", "policies/.regal/config.yaml", ".github/workflows/policies.yaml"} {
		if !strings.Contains(strings.Join(made, " "), name) {
			t.Errorf("%s is missing", name)
		}
	}
	workflow, err := os.ReadFile(".github/workflows/policies.yaml")
	if err != nil || !bytes.Contains(workflow, []byte("writ policy test policies --min-coverage 90")) {
		t.Errorf("%s %v", workflow, err)
	}
	opaTools(t, filepath.Join("policies", "packs"))
}

// opaTools does what `opa check --strict`, `opa fmt --fail` and `opa test` do; the
// first two without the directories to ignore.
func opaTools(t *testing.T, dir string, ignore ...string) {
	t.Helper()
	loaded, err := loader.NewFileLoader().WithProcessAnnotation(true).WithRegoVersion(ast.RegoV1).All([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]*ast.Module{}
	for name, m := range loaded.ParsedModules() {
		if !slices.Contains(ignore, filepath.Base(filepath.Dir(name))) {
			ours[name] = m
		}
	}
	c := ast.NewCompiler().WithStrict(true)
	if c.Compile(ours); c.Failed() {
		t.Error(c.Errors)
	}
	for name, m := range loaded.Modules {
		if ours[name] == nil {
			continue
		}
		if b, err := format.Source(name, m.Raw); err != nil || !bytes.Equal(b, m.Raw) {
			t.Errorf("%s: opa fmt would change it: %v", name, err)
		}
	}
	store := inmem.NewFromObject(loaded.Documents)
	err = storage.Txn(t.Context(), store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := tester.NewRunner().SetStore(store).SetModules(loaded.ParsedModules()).SetTimeout(time.Minute).RunTests(t.Context(), txn)
		if err != nil {
			return err
		}
		n := 0
		for r := range results {
			if n++; !r.Pass() {
				t.Errorf("opa test: %s", r)
			}
		}
		if n < 10 {
			t.Errorf("opa test ran %d tests", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("policies/packs/budgets", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("policies/packs/budgets/data.yaml", []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Init("policies"); err == nil || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile("policies/packs/budgets/data.yaml"); string(b) != "mine" {
		t.Error("it was overwritten")
	}
	if _, err := os.Stat("policies/roles"); err == nil {
		t.Error("half of it was written")
	}
	for _, id := range []string{"", "Upper", "../x", "packs", "a/b"} {
		if _, err := InitPack("policies", id); err == nil {
			t.Errorf("a pack called %q", id)
		}
	}
	if _, err := InitPack("nowhere", "x"); err == nil || !strings.Contains(err.Error(), "writ policy init") {
		t.Errorf("got %v", err)
	}
	if _, err := InitPack("policies", "mine"); err != nil {
		t.Error(err)
	}
	if _, err := InitPack("policies", "mine"); err == nil {
		t.Error("made twice")
	}
}
