package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/policies"
	"github.com/writ-gateway/writ/policies/policytest"
)

// law is a bundle of files, each a name and a text.
func law(t testing.TB, format tar.Format, all ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(all); i += 2 {
		h := &tar.Header{Name: all[i], Mode: 0o644, Size: int64(len(all[i+1])), Typeflag: tar.TypeReg, Format: format}
		if format == tar.FormatPAX {
			h.PAXRecords = map[string]string{"comment": "x"}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(all[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A pack that promises its policies has a bundle with each pack that receipts were judged by, and each that
// they put in force; what was taken out is found.
func TestPoliciesThatWereTakenOut(t *testing.T) {
	o := node(t)
	base, more := []string{"packs/base/data.yaml", "a: 1\n", "packs/base/pack.yaml", "id: base\n"}, []string{"packs/more/pack.yaml", "id: more\n", "packs/more/vendor/x.rego", "package x\n"}
	first := law(t, tar.FormatUSTAR, append(append([]string{}, base...), "roles/model.yaml", "x")...)
	second := law(t, tar.FormatUSTAR, append(append([]string{}, base...), more...)...)
	rows := law(t, tar.FormatUSTAR, append(append([]string{}, base...), "roles/model.yaml", "y")...) // the same packs
	l := world(t)
	l.laws = [][]byte{first}
	c := l.cast()
	l.begin(c)
	at := len(l.list)
	l.enacts(c.operator, second)
	l.accept(c, c.judge)
	l.enacts(c.operator, rows)
	file := func(text []byte) string { return policyName(lawID(text)) }
	instead := func(text, other []byte) func(files) {
		return twoOf(drop(file(text)), func(p files) { p[file(other)] = other })
	}
	reordered := append(append([]string{}, more...), base...)
	for _, scope := range []Scope{{Kind: ScopeLog}, {Kind: ScopeRun, Run: c.run}, {Kind: ScopeRange, First: 2, Last: int64(len(l.list)) - 1}} {
		f := l.export(Options{Scope: scope})
		whole := scope.Kind == ScopeLog
		for _, x := range []struct {
			name   string
			change func(files)
			log    string // of the whole log, what is found
			others string // of the others, each code once
		}{
			{"as it was", func(files) {}, "", ""},
			{"all are gone", drop(file(first), file(second), file(rows)), "policy_missing@0 policy_missing@14 policy_missing@15 policy_missing@18", "policy_missing"},
			{"one is gone", drop(file(second)), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"one of the same packs is gone", drop(file(rows)), "policy_missing@18", ""},
			{"one is another", put(file(second), func([]byte) []byte { return rows }), "policy_differs@-1 policy_missing@14 policy_missing@15", "policy_differs policy_missing"},
			{"one is in another order", instead(second, law(t, tar.FormatUSTAR, reordered...)), "policy_missing@14", ""},
			{"one lacks a file", instead(second, law(t, tar.FormatUSTAR, append(append([]string{}, base...), more[:2]...)...)), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"one has a file twice", instead(second, law(t, tar.FormatUSTAR, append(append([]string{}, reordered...), more[:2]...)...)), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"one is of another form of tar", instead(second, law(t, tar.FormatPAX, reordered...)), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"one is cut off", instead(second, second[:len(second)-1500]), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"one is no bundle", instead(second, []byte("none")), "policy_missing@14 policy_missing@15", "policy_missing"},
			{"nothing is promised", twoOf(drop(file(first), file(second), file(rows)), put(FileManifest, replace(`"policies":true,`, ``))), "", ""},
			{"a promise in another form", put(FileManifest, replace(`"policies":true`, `"policies":false`)), "pack_malformed@-1", "pack_malformed"},
			{"a promise that is none", put(FileManifest, replace(`"policies":true`, `"policies":"yes"`)), "pack_malformed@-1", "pack_malformed"},
		} {
			t.Run(scope.Kind+"/"+x.name, func(t *testing.T) {
				a := both(t, o, "policies"+scope.Kind, f, f.with(x.change), l.trust(), Ask{})
				if promised := x.name != "nothing is promised" && x.log != "pack_malformed@-1"; a.Promised != (Promises{x.log != "pack_malformed@-1", promised}) {
					t.Errorf("promised: got %+v", a.Promised)
				}
				if got := strings.Join(a.Codes, " "); whole && got != x.log || !whole && scope.Kind == ScopeRun && a.each() != x.others {
					t.Errorf("got %q, want %q, %q", got, x.log, x.others)
				}
			})
		}
		if !bytes.Contains(f[FileManifest], []byte(`"policies":true`)) {
			t.Errorf("%s: the policies are not promised: %s", scope.Kind, f[FileManifest])
		}
	}
	if at != 13 {
		t.Errorf("the second bundle is put in force behind %d", at)
	}
	// What is not there is not promised.
	l.laws = [][]byte{first, rows}
	if f := l.export(Options{}); bytes.Contains(f[FileManifest], []byte("policies")) || both(t, o, "some", f, f, l.trust(), Ask{}).Exit != 0 {
		t.Errorf("policies are promised: %s", f[FileManifest])
	}
	if f := l.export(Options{Scope: Scope{Kind: ScopeRange, First: 1, Last: int64(at)}}); !bytes.Contains(f[FileManifest], []byte(`"policies":true`)) {
		t.Errorf("none that receipts name is missing: %s", f[FileManifest])
	}
}

// forgets has a bundle until it is asked for the second time.
type forgets struct {
	*lab
	asked int
	then  []byte
}

func (f *forgets) Policies(ctx context.Context, digests []string, want func([]writ.PackVer) bool) iter.Seq2[[]byte, error] {
	if f.asked++; f.asked == 1 {
		return f.lab.Policies(ctx, digests, want)
	}
	return func(yield func([]byte, error) bool) {
		if f.then != nil {
			yield(f.then, nil)
		}
	}
}

// Bundles are not kept while the rest is written: each is asked for again, and must be the same then.
func TestBundlesAreAskedForAgain(t *testing.T) {
	l, _ := story(t)
	for _, then := range [][]byte{nil, []byte("another")} {
		o := Options{Checkpoint: l.checkpoint(len(l.list)), LogKey: l.logKey(), Scope: Scope{Kind: ScopeLog}}
		if err := Write(context.Background(), Tar(io.Discard), &forgets{lab: l, then: then}, o); err == nil || !strings.Contains(err.Error(), "export again") {
			t.Errorf("%q: got %v", then, err)
		}
	}
}

// The packs of a bundle have the digests that the engine gives them, and receipts name: of this program's own policies, and with
// a team's pack among them.
func TestPacksAreThoseOfTheEngine(t *testing.T) {
	for _, src := range []policies.Source{policies.Shipped(), policies.Directory(policytest.Asking(t, "run.create"))} {
		e, err := policies.Load(t.Context(), src, policies.Options{Capabilities: []writ.CapabilityID{"run.create"}})
		if err != nil {
			t.Fatal(err)
		}
		text, digest := e.Bundle()
		var want []string
		for _, p := range e.Info().Packs {
			want = append(want, p.Digest)
		}
		slices.Sort(want)
		if got := packsOf(text); len(got) < 5 || !slices.Equal(got, want) || digest != "sha256:"+sumOf(text) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}
