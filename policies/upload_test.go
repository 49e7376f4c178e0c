package policies

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// sent packs files as anybody's tar would.
func sent(t testing.TB, f files, tune ...func(*tar.Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range f.names() {
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(f[name])), Typeflag: tar.TypeReg, Uname: "me"}
		for _, change := range tune {
			change(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// However a bundle was packed, its digest and revisions are those of its
// sources.
func TestOpenBundle(t *testing.T) {
	e := load(t)
	canonical, want := e.Bundle()
	policy, bindings := e.Revisions()
	more := sources(t)
	more["packs/budgets/budgets_test.rego"] = []byte("package nonsense")
	more["packs/budgets/README.md"] = []byte("prose")
	more[".manifest"] = []byte("{}")
	bare := sources(t)
	delete(bare, modelFile)
	delete(bare, rowsFile)
	for name, b := range map[string][]byte{
		"canonical":      canonical,
		"gzip":           zipped(t, canonical),
		"with prose":     sent(t, more),
		"dot in front":   sent(t, sources(t), func(h *tar.Header) { h.Name = "./" + h.Name }),
		"slash in front": sent(t, sources(t), func(h *tar.Header) { h.Name = "/" + h.Name }),
		"without roles":  sent(t, bare),
		"as OPA has it":  sent(t, bare, func(h *tar.Header) { h.Name = "/" + strings.TrimPrefix(h.Name, "packs/") }),
	} {
		c, err := OpenBundle(b, canonical, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Digest != want || !bytes.Equal(c.Bundle, canonical) || c.Policy != policy || c.Bindings != bindings || len(c.Packs) != len(e.Info().Packs) || c.Packs[0].Version == "" {
			t.Errorf("%s: got %s %s %s %v", name, c.Digest, c.Policy, c.Bindings, c.Packs)
		}
		if again, err := Unpack(c.Packed, c.Digest); err != nil || !bytes.Equal(again, canonical) {
			t.Errorf("%s: unpacked it is something else: %v", name, err)
		}
		if _, err := Unpack(c.Packed, digest([]byte("other"))); err == nil {
			t.Errorf("%s: unpacked under another digest", name)
		}
	}
}

func TestOpenBundleRefuses(t *testing.T) {
	canonical, _ := load(t).Bundle()
	with := func(name string, text string) []byte {
		f := sources(t)
		f[name] = []byte(text)
		return sent(t, f)
	}
	bare := sources(t)
	delete(bare, rowsFile)
	link := tarOf(t, &tar.Header{Name: "packs/a/a.rego", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
	for name, tc := range map[string]struct {
		b    []byte
		code writ.Code
	}{
		"nothing":              {nil, writ.CodeInputInvalid},
		"noise":                {[]byte(strings.Repeat("noise", 500)), writ.CodeInputInvalid},
		"cut":                  {canonical[:len(canonical)/2], writ.CodeInputInvalid},
		"cut gzip":             {zipped(t, canonical)[:2000], writ.CodeInputInvalid},
		"a bomb":               {zipped(t, make([]byte, maxUpload+1)), writ.CodeTooLarge},
		"too large":            {make([]byte, maxUpload+1), writ.CodeTooLarge},
		"a large file":         {with("packs/budgets/big.rego", strings.Repeat("#", maxFileBytes+1)), writ.CodeTooLarge},
		"upwards":              {with("packs/../../etc/x.rego", "x"), writ.CodeInputInvalid},
		"another file":         {with("evil.sh", "x"), writ.CodeInputInvalid},
		"no pack":              {with("packs/x.rego", "x"), writ.CodeInputInvalid},
		"other data":           {with("packs/budgets/x.json", "{}"), writ.CodeInputInvalid},
		"a deep file":          {with("packs/budgets/deep/x.rego", "x"), writ.CodeInputInvalid},
		"a strange name":       {with("packs/budgets/x\n.rego", "x"), writ.CodeInputInvalid},
		"a strange pack":       {with("packs/Budgets/x.rego", "x"), writ.CodeInputInvalid},
		"what opa build makes": {with("data.json", "{}"), writ.CodeInputInvalid},
		"a link":               {link, writ.CodeInputInvalid},
		"no roles at all":      {sent(t, bare), writ.CodeInputInvalid},
	} {
		_, err := OpenBundle(tc.b, nil, false)
		if writ.CodeOf(err) != tc.code {
			t.Errorf("%s: want %s, got %v", name, tc.code, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%s: the refusal repeats what was sent: %q", name, err)
		}
	}
}

// A manifest that cannot be read is for the compiler to refuse, with the reason;
// the bundle is opened all the same.
func TestOpenBundleWithABadManifest(t *testing.T) {
	f := sources(t)
	f["packs/budgets/pack.yaml"] = []byte("manifest: {id: other}\n")
	c, err := OpenBundle(sent(t, f), nil, false)
	i := slices.IndexFunc(c.Packs, func(p writ.PackVer) bool { return p.ID == "budgets" })
	if err != nil || c.Policy != "" || i < 0 || c.Packs[i].Version != "" || c.Packs[i].Digest == "" {
		t.Errorf("got %v, %v", c.Packs, err)
	}
}

// What is sent never panics, and what is taken is canonical and named rightly.
func FuzzOpenBundle(f *testing.F) {
	canonical, _ := load(f).Bundle()
	f.Add(canonical)
	f.Add(zipped(f, canonical))
	f.Add([]byte("noise"))
	f.Add(canonical[:1024])
	f.Add(zipped(f, canonical)[:1024])
	small := sent(f, files{"packs/a/pack.yaml": []byte("manifest: {id: a}"), "packs/a/a.rego": []byte("package packs.a")})
	f.Add(small)
	f.Add(zipped(f, small))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := OpenBundle(b, canonical, false)
		if err != nil {
			if code := writ.CodeOf(err); code != writ.CodeInputInvalid && code != writ.CodeTooLarge {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := OpenBundle(c.Packed, nil, false)
		if err != nil || again.Digest != c.Digest || !bytes.Equal(again.Bundle, c.Bundle) {
			t.Errorf("opened again, the bundle differs: %v", err)
		}
		if _, err := readBundle(c.Bundle); err != nil {
			t.Errorf("not canonical: %v", err)
		}
	})
}

// A call is judged by the rules its gate names, old or new; the engine itself
// follows the newest gate it has seen.
func TestUnder(t *testing.T) {
	e := load(t)
	p1, b1 := e.Revisions()
	f := sources(t)
	f["packs/budgets/budgets.rego"] = append(f["packs/budgets/budgets.rego"], "\n# more\n"...)
	c, err := OpenBundle(sent(t, f), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := e.Under(c.Policy, c.Bindings, 2); ok {
		t.Fatal("rules nobody compiled")
	}
	select {
	case <-e.Missed():
	default:
		t.Error("nobody was told")
	}
	s, err := e.Prepare(t.Context(), c.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := e.Revisions(); now != p1 || s.Digest() != c.Digest {
		t.Error("preparing put the candidate in force")
	}
	if got, ok := e.Under(c.Policy, c.Bindings, 2); !ok || got != s {
		t.Error("the candidate was not found")
	}
	if now, _ := e.Revisions(); now != c.Policy {
		t.Error("the engine does not follow the gate")
	}
	// A call that read the gate before is judged by the old rules still, and does
	// not take the engine back.
	if got, ok := e.Under(p1, b1, 1); !ok || got == s {
		t.Error("the rules before are gone")
	}
	if now, _ := e.Revisions(); now != c.Policy {
		t.Error("an old gate took the engine back")
	}
	e.Keep(nil)
	if _, ok := e.Under(p1, b1, 3); ok {
		t.Error("the rules before are still held")
	}
	if _, ok := e.Under(c.Policy, c.Bindings, 3); !ok {
		t.Error("the rules in force were let go")
	}
}

// Bindings under which the gateway cannot work are refused.
func TestSystemKeepsItsRights(t *testing.T) {
	f := sources(t)
	f[rowsFile] = append(f[rowsFile], "\np, role:system, *, task.claim, invoke, deny\n"...)
	refused(t, from(f), "role:system must be allowed every capability, and is not allowed task.claim")
}

// A pack by itself joins the ones in force.
func TestOpenBundleAdds(t *testing.T) {
	canonical, _ := load(t).Bundle()
	f := files{}
	guardPack(f, "extra", "run.*", "deny", `"effect": "deny", "code": "policy_denied"`, `input.run.id == "x"`)
	want := sources(t)
	for name, b := range f {
		want[name] = b
	}
	whole, err := OpenBundle(sent(t, want), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenBundle(sent(t, f), canonical, true)
	if err != nil || got.Digest != whole.Digest {
		t.Errorf("got %v, %v", got.Packs, err)
	}
	if got, err := OpenBundle(sent(t, f), canonical, false); err != nil || len(got.Packs) != 1 {
		t.Errorf("got %v, %v", got.Packs, err)
	}
}
