package author

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

func TestEval(t *testing.T) {
	tree := treeOf(t, example(t))
	fixture := tree.files["fixtures/protected_paths/protected.yaml"]
	a, err := tree.Eval(t.Context(), fixture, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Effect != writ.EffectDeny || len(a.Packs) < 5 || len(a.Findings) != 1 || a.Findings[0].Rule != "protected_paths.protected" {
		t.Errorf("got %+v", a)
	}
	if a, err := tree.Eval(t.Context(), fixture, "task.claim", []string{"budgets", "lifecycle", "budgets"}); err != nil ||
		a.Effect != writ.EffectAllow || !slices.Equal(a.Packs, []string{"budgets", "lifecycle"}) {
		t.Errorf("got %+v, %v", a, err)
	}
	for _, tc := range []struct {
		input, capability string
		packs             []string
		want              string
	}{
		{"{", "", nil, "neither JSON nor YAML"},
		{"{}", "", nil, "names no capability"},
		{string(fixture), "task.enqueue", nil, "never sends the two apart"},
		{string(fixture), "", []string{"nobody"}, "there is no pack nobody"},
		{`{"secret": "hunter2"}`, "task.claim", nil, "not what packs are shown"},
	} {
		_, err := tree.Eval(t.Context(), []byte(tc.input), writ.CapabilityID(tc.capability), tc.packs)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.input, err, tc.want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error quotes the input: %v", err)
		}
	}
}

func TestRules(t *testing.T) {
	rules, err := treeOf(t, example(t)).Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == "protected_paths.protected" })
	if i < 0 || rules[i].File != "policies/packs/protected_paths/protected_paths.rego" || rules[i].Line != 31 || rules[i].Control != "change management" {
		t.Errorf("got %+v", rules)
	}
}

func TestBench(t *testing.T) {
	all, err := treeOf(t, example(t)).Bench(t.Context(), []string{ExamplePack}, time.Millisecond)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v %v", all, err)
	}
	for _, m := range all {
		if m.Allocs < 1 || m.Micros <= 0 || m.Runs < 10 {
			t.Errorf("%+v", m)
		}
	}
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "writ policy init") {
		t.Errorf("got %v", err)
	}
	if len(Shipped().PackIDs()) < 4 {
		t.Error("the shipped tree lacks packs")
	}
}

// What cannot be read is told of, and never passed over.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"fixtures/protected_paths/big.yaml", pack + "big_test.rego", pack + "big.rego"} {
		files := example(t)
		files[name] = make([]byte, maxFile+1)
		tree := treeOf(t, files)
		if found := tree.Check(t.Context(), options); len(found) != 1 || found[0].File != name {
			t.Errorf("check: %s", list(found))
		}
		if _, err := tree.Test(t.Context(), TestOptions{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("test: %v", err)
		}
	}
	files := example(t)
	files[pack+"picture.png"] = make([]byte, maxFile+1)
	if found := treeOf(t, files).Check(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
}
