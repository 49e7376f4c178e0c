package author

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// exampleDir holds packs that adapt packages, made by hand.
const exampleDir = "../../examples/adapted-pack"

// adaptedTree is a fresh source with one more pack that adapts a package of the
// example.
func adaptedTree(t *testing.T, from string) (made []string, source string) {
	t.Helper()
	source, err := filepath.Abs(filepath.Join(exampleDir, from))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if _, err := Init("policies"); err != nil {
		t.Fatal(err)
	}
	if made, err = InitAdapter("policies", "foreign", source); err != nil {
		t.Fatal(err)
	}
	return made, source
}

func open(t *testing.T) *Tree {
	t.Helper()
	tree, err := Open("policies")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree
}

// fillIn replaces texts in a file of the pack.
func fillIn(t *testing.T, name string, pairs ...string) {
	t.Helper()
	name = filepath.Join("policies/packs/foreign", name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !bytes.Contains(b, []byte(pairs[i])) {
			t.Fatalf("%s has no %q", name, pairs[i])
		}
	}
	if err := os.WriteFile(name, []byte(strings.NewReplacer(pairs...).Replace(string(b))), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What InitAdapter makes waits for what only a person can say, and is then
// whole.
func TestInitAdapter(t *testing.T) {
	for _, tc := range []struct {
		name, from string
		todo       []string // and what is meant
		ignore     string
	}{
		{"allow, deny and warn in a directory", "packs/tool_guard/vendor", []string{
			"todo_action", `{"read-only": "read", "mutating": "write", "destructive": "destroy"}[input.call.safety]`,
			"todo_data_labels", "input.labels", "todo_tool", "input.task.capability", "todo_user_role", "input.session.role",
			"\t\"ticket\": {\n\t\t\"state\": todo_ticket_state,\n\t},\n", "",
		}, "[ticket.state]"},
		{"violations in a file", "packs/change_review/vendor/frozen_paths.rego", []string{
			"todo_parameters_exempt_roles", `["operator"]`, "todo_parameters_frozen", `["fs:repo/release/"]`,
			"todo_review_object_paths", "input.scopes.requested", "todo_review_operation", `"UPDATE"`,
			"todo_review_userInfo", `{"role": input.session.role}`,
		}, "[review.userInfo.*]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			made, source := adaptedTree(t, tc.from)
			found := open(t).Check(t.Context(), options)
			if len(found) != len(tc.todo)/2 {
				t.Errorf("%d places to fill in, want %d: %s", len(found), len(tc.todo)/2, list(found))
			}
			for _, f := range found {
				if f.File != "packs/foreign/adapter.rego" || f.Line == 0 || !strings.Contains(f.Hint, "adapts.ignores") {
					t.Errorf("got %+v", f)
				}
			}
			fillIn(t, "adapter.rego", tc.todo...)
			fillIn(t, "pack.yaml", "ignores: []", "ignores: "+tc.ignore)
			tree := open(t)
			if found := tree.Check(t.Context(), options); len(found) > 0 {
				t.Error(list(found))
			}
			if found := tree.Lint(t.Context(), options); len(found) > 0 {
				t.Error(list(found))
			}
			all, err := tree.Test(t.Context(), TestOptions{Packs: []string{"foreign"}})
			if err != nil || all[0].Failed() > 0 || all[0].Coverage < 100 {
				t.Errorf("%+v %v", all, err)
			}
			vendored := 0
			for _, name := range made {
				if filepath.Base(filepath.Dir(name)) != "vendor" {
					continue
				}
				vendored++
				got, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if filepath.Ext(source) == "" {
					name = filepath.Join(source, filepath.Base(name))
				} else {
					name = source
				}
				if want, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s was changed: %v", name, err)
				}
			}
			if vendored == 0 {
				t.Error("nothing was copied")
			}
		})
	}
}

// Packages that cannot be asked, or not all of them, are refused with what to do.
func TestInitAdapterRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Init("policies"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", map[string]string{"README.md": "x"}, "holds no .rego files but tests"},
		{"tests alone", map[string]string{"a_test.rego": "package a"}, "holds no .rego files but tests"},
		{"no Rego", map[string]string{"a.rego": "package a\n\nallow if {"}, "a.rego:3"},
		{"Rego v0", map[string]string{"a.rego": "package a\n\ndeny[msg] { msg := input.x }"}, "a.rego:3: this is Rego v0, and OPA's own tool makes v1 of it: opa fmt -w --v0-v1"},
		{"other names", map[string]string{"a.rego": "package a\n\nverdict := true"}, "a has no rule called allow, deny, violation or warn, it has verdict"},
		{"two packages", map[string]string{"a.rego": "package a\n\nallow := true", "b.rego": "package b\n\nallow := true"}, "no package in common"},
		{"warnings alone", map[string]string{"a.rego": "package a\n\nwarn contains \"x\" if input.x"}, "a only warns"},
		{"true or undefined", map[string]string{"a.rego": "package a\n\ndeny if input.x"}, "put one more file beside theirs, with `package a` and `default deny := false`"},
		{"one name for two", map[string]string{"x/y.rego": "package a\n\nallow := true", "x_y.rego": "package a"}, "another file has this name too"},
	} {
		dir := t.TempDir()
		for name, text := range tc.files {
			name = filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := InitAdapter("policies", "foreign", dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
		}
	}
	if _, err := os.Stat("policies/packs/foreign"); err == nil {
		t.Error("half of it was written")
	}
	if _, err := InitAdapter("policies", "foreign", "nowhere"); err == nil {
		t.Error("from nowhere")
	}
	if _, err := InitAdapter("policies", "packs", "nowhere"); err == nil || !strings.Contains(err.Error(), "is not a pack id") {
		t.Errorf("got %v", err)
	}
}

// Several packages below one root, several rules of a kind, and a deny that is no
// set.
func TestInitAdapterOfAFamily(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Init("policies"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"theirs/a.rego":     "package corp.agents\n\ndefault deny := false\n\ndeny if input.role == \"x\"\n\ndeny_night contains \"x\" if input.hour > 22\n",
		"theirs/sub/a.rego": "package corp.agents.sub\n\nviolation contains {\"msg\": \"m\"} if input.role == \"y\"\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := InitAdapter("policies", "foreign", "theirs"); err != nil {
		t.Fatal(err)
	}
	fillIn(t, "adapter.rego", "todo_role", "input.session.role", "\t\"hour\": todo_hour,\n", "")
	fillIn(t, "pack.yaml", "ignores: []", "ignores: [hour]")
	tree := open(t)
	if found := tree.Lint(t.Context(), options); len(found) > 0 {
		t.Error(list(found))
	}
	all, err := tree.Test(t.Context(), TestOptions{Packs: []string{"foreign"}})
	if err != nil || all[0].Failed() > 0 {
		t.Errorf("%+v %v", all, err)
	}
	rules, err := tree.Rules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		if r.Pack == "foreign" {
			got = append(got, r.ID)
		}
	}
	if strings.Join(got, " ") != "foreign.denied foreign.deny_night foreign.sub_violation" {
		t.Errorf("got %v", got)
	}
}
