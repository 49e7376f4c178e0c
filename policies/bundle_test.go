package policies

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

func TestBundle(t *testing.T) {
	e := load(t)
	b, d := e.Bundle()
	if again, d2 := load(t).Bundle(); !bytes.Equal(b, again) || d != d2 || d != digest(b) {
		t.Error("the same sources gave two bundles")
	}
	for _, name := range []string{"_test.rego", "README"} {
		if bytes.Contains(b, []byte(name)) {
			t.Errorf("the bundle holds a file no decision depends on: %s", name)
		}
	}
	other := sources(t)
	other["packs/budgets/data.yaml"] = bytes.Replace(other["packs/budgets/data.yaml"], []byte("late_percent: 80"), []byte("late_percent: 50"), 1)
	fresh := loadFrom(t, from(other))
	if err := fresh.Reload(t.Context(), bundleSource(b)); err != nil {
		t.Fatal(err)
	}
	p, r := e.Revisions()
	if p2, r2 := fresh.Revisions(); p != p2 || r != r2 {
		t.Error("the bundle loads as something else than its source")
	}
}

func TestRevisions(t *testing.T) {
	p, r := load(t).Revisions()
	for name, tc := range map[string]struct {
		file             string
		policy, bindings bool // whether each must change
		change           func([]byte) []byte
	}{
		"a rule":    {"packs/budgets/budgets.rego", true, false, func(b []byte) []byte { return append(b, "\n# more\n"...) }},
		"data":      {"packs/budgets/data.yaml", true, false, func(b []byte) []byte { return append(b, "# more\n"...) }},
		"a version": {"packs/budgets/pack.yaml", true, false, func(b []byte) []byte { return bytes.Replace(b, []byte("2.0.0"), []byte("2.0.1"), 1) }},
		"roles":     {rowsFile, false, true, func(b []byte) []byte { return append(b, "# more\n"...) }},
		"the model": {modelFile, false, true, func(b []byte) []byte { return append(b, "# more\n"...) }},
	} {
		f := sources(t)
		f[tc.file] = tc.change(bytes.Clone(f[tc.file]))
		p2, r2 := loadFrom(t, from(f)).Revisions()
		if (p2 != p) != tc.policy || (r2 != r) != tc.bindings {
			t.Errorf("%s changed: policy revision changed %t, bindings %t", name, p2 != p, r2 != r)
		}
	}
}

func tarOf(t *testing.T, entries ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBundleRefuses(t *testing.T) {
	file := func(name string) *tar.Header {
		return &tar.Header{Name: name, Mode: 0o644, Size: 1, Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
	}
	twice, mode, link := file(rowsFile), file(rowsFile), file("packs/a/a.rego")
	mode.Mode = 0o755
	link.Typeflag, link.Size, link.Linkname = tar.TypeSymlink, 0, "/etc/passwd"
	e := load(t)
	good, _ := e.Bundle()
	before, _ := e.Revisions()
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"noise":         []byte(strings.Repeat("noise", 1000)),
		"cut":           good[:len(good)/2],
		"more after it": append(bytes.Clone(good), good...),
		"zeros after":   append(bytes.Clone(good), make([]byte, 512)...),
		"path upwards":  tarOf(t, file("packs/../../etc/x.rego")),
		"absolute path": tarOf(t, file("/packs/a/a.rego")),
		"a test":        tarOf(t, file("packs/a/a_test.rego")),
		"other data":    tarOf(t, file("packs/a/x.json")),
		"other file":    tarOf(t, file("evil.sh")),
		"twice":         tarOf(t, file(rowsFile), twice),
		"not in order":  tarOf(t, file(rowsFile), file(modelFile)),
		"other mode":    tarOf(t, mode),
		"a link":        tarOf(t, link),
	} {
		if err := e.Reload(t.Context(), bundleSource(b)); writ.CodeOf(err) != writ.CodePolicyDown {
			t.Errorf("%s: got %v, want %s", name, err, writ.CodePolicyDown)
		}
	}
	if after, _ := e.Revisions(); after != before {
		t.Error("a refused bundle changed what is loaded")
	}
}

// Whatever reads as a bundle is written back as the same bytes.
func FuzzBundle(f *testing.F) {
	good, _ := load(f).Bundle()
	f.Add(good)
	f.Add([]byte("noise"))
	f.Add(good[:1024])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readBundle(b)
		if err != nil {
			return
		}
		again, err := writeBundle(got)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("read and written again, the bundle differs: %v", err)
		}
	})
}
