package author

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
)

var update = flag.Bool("update", false, "write the golden files")

// capabilities of the tests; the built-in packs judge them all.
var options = policies.Options{Capabilities: []writ.CapabilityID{"run.create", "task.claim", "task.enqueue", "policy.info"}}

// example is what Init writes, by path below the directory.
func example(t testing.TB, ids ...string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	err := fs.WalkDir(policies.ShippedFiles(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[name], err = fs.ReadFile(policies.ShippedFiles(), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range append(ids, ExamplePack) {
		if err := addPack(out, "", id); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// own is the example pack alone: quicker, and not all there must be.
func own(files map[string][]byte) map[string][]byte {
	for name := range files {
		if dir, rest, _ := strings.Cut(name, "/"); dir != "roles" && !strings.HasPrefix(rest, ExamplePack) && !strings.HasPrefix(rest, "gone/") {
			delete(files, name)
		}
	}
	return files
}

// about are the findings about the example pack.
func about(found []Finding) []Finding {
	var out []Finding
	for _, f := range found {
		if strings.Contains(f.File, ExamplePack) || strings.Contains(f.File, "gone") {
			out = append(out, f)
		}
	}
	return out
}

func treeOf(t testing.TB, files map[string][]byte) *Tree {
	t.Helper()
	m := fstest.MapFS{}
	for name, b := range files {
		m[name] = &fstest.MapFile{Data: b, Mode: 0o644}
	}
	tree, err := Read("policies", m)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// golden compares with testdata/name, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

const pack = "packs/protected_paths/"

// spoiled is the example with one text of one file replaced.
func spoiled(t testing.TB, file, from, to string) map[string][]byte {
	t.Helper()
	files := example(t)
	if from == "" {
		files[file] = append(bytes.Clone(files[file]), to...)
		return files
	}
	if !strings.Contains(string(files[file]), from) {
		t.Fatalf("%s does not hold %q", file, from)
	}
	files[file] = []byte(strings.Replace(string(files[file]), from, to, 1))
	return files
}
