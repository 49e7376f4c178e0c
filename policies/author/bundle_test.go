package author

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/writ-gateway/writ/policies"
)

func bundleOf(t testing.TB, ids ...string) []byte {
	t.Helper()
	b, err := treeOf(t, example(t)).Bundle(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundleIsReproducible(t *testing.T) {
	a := bundleOf(t)
	if !bytes.Equal(a, bundleOf(t)) {
		t.Error("the same files gave two bundles")
	}
	if bytes.Equal(a, bundleOf(t, "budgets")) {
		t.Error("--pack changes nothing")
	}
	content, err := readArchive(a)
	if err != nil {
		t.Fatal(err)
	}
	for name := range content {
		if strings.Contains(name, "_test") || strings.Contains(name, "README") || strings.Contains(name, "roles") {
			t.Errorf("the bundle holds %s", name)
		}
	}
	if _, err := treeOf(t, example(t)).Bundle(t.Context(), []string{"nobody"}); err == nil || !strings.Contains(err.Error(), "there are ") {
		t.Errorf("got %v", err)
	}
}

// Plain OPA loads the bundle and finds the rules and data where opa test does.
func TestOPALoadsTheBundle(t *testing.T) {
	r := rego.New(rego.Query(`x := data.protected_paths.config.trusted_roles; y := data.packs.protected_paths.findings`),
		rego.ParsedBundle("b", read1(t, bundleOf(t))), rego.Input(map[string]any{}))
	rs, err := r.Eval(t.Context())
	if err != nil || len(rs) != 1 {
		t.Fatalf("%v %v", rs, err)
	}
	if got := rs[0].Bindings["y"].([]any); len(got) != 1 || len(rs[0].Bindings["x"].([]any)) != 1 {
		t.Errorf("got %v", rs[0].Bindings)
	}
}

func read1(t *testing.T, b []byte) *bundle.Bundle {
	t.Helper()
	got, err := bundle.NewReader(bytes.NewReader(b)).WithRegoVersion(ast.RegoV1).Read()
	if err != nil {
		t.Fatal(err)
	}
	return &got
}

// A pack has the same digest in its directory, in a bundle and in the gateway.
func TestBundleKeepsDigests(t *testing.T) {
	b := bundleOf(t)
	content, err := readArchive(b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := inspect(t.Context(), content, 0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := policies.Load(t.Context(), policies.Shipped(), options)
	if err != nil {
		t.Fatal(err)
	}
	digests := map[string]string{}
	for _, p := range got.Packs {
		digests[p.ID] = p.Digest
	}
	for _, p := range e.Info().Packs {
		if digests[p.ID] != p.Digest {
			t.Errorf("%s: got %s, the gateway has %s", p.ID, digests[p.ID], p.Digest)
		}
	}
	tree, err := OpenBundle("b.tar.gz", b)
	if err != nil {
		t.Fatal(err)
	}
	if changes, err := Diff(t.Context(), treeOf(t, example(t)), tree); err != nil || len(changes) > 0 {
		t.Errorf("a bundle differs from its source: %v %v", changes, err)
	}
}

// rawTar writes entries as they are, without our rules.
func rawTar(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range entries {
		body := h.PAXRecords["body"]
		h.PAXRecords = nil
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entry(name, body string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"body": body}, Format: tar.FormatUSTAR}
}

func TestHostileArchives(t *testing.T) {
	link := tar.Header{Name: "/a/a.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd", Format: tar.FormatUSTAR}
	hard := tar.Header{Name: "/a/a.rego", Typeflag: tar.TypeLink, Linkname: "/a/b.rego", Format: tar.FormatUSTAR}
	dir := tar.Header{Name: "/a/", Typeflag: tar.TypeDir, Format: tar.FormatUSTAR}
	executable := entry("/a/a.rego", "x")
	executable.Mode = 0o755
	good := bundleOf(t)
	for _, tc := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "not a tar.gz"},
		{"noise", []byte(strings.Repeat("noise", 100)), "not a tar.gz"},
		{"cut", good[:len(good)/2], "broken"},
		{"a second gzip member", append(bytes.Clone(good), good...), "not in the form"},
		{"bytes after it", append(bytes.Clone(good), "more"...), "not in the form"},
		{"path upwards", rawTar(t, entry("/../../etc/x.rego", "x")), "plain files"},
		{"path upwards in a pack", rawTar(t, entry("/a/../b/x.rego", "x")), "a bundle holds"},
		{"relative path", rawTar(t, entry("a/a.rego", "x")), "a bundle holds"},
		{"double slash", rawTar(t, entry("//a/a.rego", "x")), "a bundle holds"},
		{"deeper", rawTar(t, entry("/a/b/a.rego", "x")), "a bundle holds"},
		{"at the top", rawTar(t, entry("/a.rego", "x")), "a bundle holds"},
		{"data at the top", rawTar(t, entry("/data.json", "{}")), "a bundle holds"},
		{"data of a pack as JSON", rawTar(t, entry("/a/data.json", "{}")), "a bundle holds"},
		{"wasm", rawTar(t, entry("/policy.wasm", "x")), "a bundle holds"},
		{"a patch", rawTar(t, entry("/patch.json", "{}")), "a bundle holds"},
		{"another manifest", rawTar(t, entry("/a/.manifest", "{}")), "a bundle holds"},
		{"a test", rawTar(t, entry("/a/a_test.rego", "x")), "a bundle holds"},
		{"twice", rawTar(t, entry("/a/a.rego", "x"), entry("/a/a.rego", "y")), "is there twice"},
		{"out of order", rawTar(t, entry("/a/b.rego", "x"), entry("/a/a.rego", "y")), "out of order"},
		{"a link", rawTar(t, link), "no links"},
		{"a hard link", rawTar(t, hard), "no links"},
		{"a directory", rawTar(t, dir), "no directories"},
		{"other mode", rawTar(t, executable), "not in the form"},
		{"a file too big", rawTar(t, entry("/a/a.rego", strings.Repeat("#", maxFile+1))), "over its limits"},
		{"a bomb", rawTar(t, bomb()...), "more than"},
		{"too big", make([]byte, maxArchive+1), "more than"},
	} {
		if tc.want == "plain files" {
			tc.want = "a bundle holds"
		}
		if _, err := readArchive(tc.b); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

// bomb is little as it travels and much when it is unpacked.
func bomb() []tar.Header {
	var out []tar.Header
	for _, c := range "abcdefghijklmnopqrst" {
		out = append(out, entry("/a/"+string(c)+".rego", strings.Repeat("#", maxFile)))
	}
	return out
}

// Whatever reads as an archive is written back as the same content.
func FuzzArchive(f *testing.F) {
	good := bundleOf(f, "budgets")
	f.Add(good)
	f.Add([]byte("noise"))
	f.Add(good[:len(good)-8])
	f.Add(rawTar(f, entry("/a/a.rego", "x"), entry("/a/a.rego", "y")))
	f.Add(rawTar(f, entry(manifestFile, "{}")))
	f.Fuzz(func(t *testing.T, b []byte) {
		content, err := readArchive(b)
		if err != nil {
			return
		}
		for name := range content {
			if !bundled(name) || strings.Contains(name, "..") && !strings.HasSuffix(name, ".rego") {
				t.Errorf("took %q", name)
			}
		}
		again, err := writeTar(content)
		plain, errPlain := unzip(b)
		if err != nil || errPlain != nil || !bytes.Equal(again, plain) {
			t.Errorf("read and written again, the archive differs: %v", err)
		}
	})
}
