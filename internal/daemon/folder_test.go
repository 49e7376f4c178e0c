package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// A folder that changes while the gateway runs is proposed and never put in
// force; what it proposed before is taken back.
func TestAChangedFolderIsStaged(t *testing.T) {
	for name, tune := range map[string]func(*testing.T, *Config){
		"embedded": func(*testing.T, *Config) {},
		"redis":    func(t *testing.T, c *Config) { c.Store = redistest.Start(t).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
				t.Fatal(err)
			}
			d, op, logged := start(t, t.TempDir(), func(c *Config) { c.Policies = dir; tune(t, c) })
			inForce := gateOf(t, d)
			more := filepath.Join(dir, "packs", "budgets", "more.rego")
			write := func(rule string) {
				t.Helper()
				if err := os.WriteFile(more, []byte("package packs.budgets\n\n"+rule+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}

			write("_a := 1")
			a := awaitBundles(t, op, writ.BundleStaged, writ.BundleActive)[0]
			if a.Source != writ.SourceFolder || !strings.Contains(logged.String(), "writ policy activate "+a.Digest) {
				t.Errorf("got %+v\n%s", a, logged)
			}
			write("_bb := 1")
			b := awaitBundles(t, op, writ.BundleStaged, writ.BundleWithdrawn, writ.BundleActive)[0]
			write("_a := 1") // as it was: staged again
			if again := awaitBundles(t, op, writ.BundleWithdrawn, writ.BundleStaged, writ.BundleActive); again[1].Digest != a.Digest || again[0].Digest != b.Digest {
				t.Errorf("got %+v", again)
			}
			write("shown := 1")
			if refused := awaitBundles(t, op, writ.BundleRefused, writ.BundleWithdrawn, writ.BundleWithdrawn, writ.BundleActive)[0]; !strings.Contains(refused.Reason, "packs/budgets/more.rego:3") {
				t.Errorf("got %+v", refused)
			}

			// What cannot be read is said, and stages nothing.
			if err := os.WriteFile(filepath.Join(dir, "packs", "budgets", "more.json"), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			awaitLog(t, logged, "opa would load this one as data")

			// Somebody else's proposal is not this folder's to take back.
			if err := os.RemoveAll(filepath.Join(dir, "packs", "budgets", "more.json")); err != nil {
				t.Fatal(err)
			}
			write("_a := 1")
			awaitBundles(t, op, writ.BundleRefused, writ.BundleWithdrawn, writ.BundleStaged, writ.BundleActive)
			if err := os.Remove(more); err != nil {
				t.Fatal(err)
			}
			awaitBundles(t, op, writ.BundleRefused, writ.BundleWithdrawn, writ.BundleWithdrawn, writ.BundleActive)
			if g := gateOf(t, d); g != inForce {
				t.Errorf("the folder moved the gate: %+v", g)
			}
		})
	}
}

// Where bundles must be signed the folder brings nothing in.
func TestAChangedFolderIsNotStagedUnsigned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../policies")); err != nil {
		t.Fatal(err)
	}
	trust := trustFile(t)
	_, op, logged := start(t, t.TempDir(), func(c *Config) { c.Policies, c.Trust = dir, trust })
	if err := os.WriteFile(filepath.Join(dir, "packs", "budgets", "more.rego"), []byte("package packs.budgets\n\n_a := 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	awaitLog(t, logged, "bundles must be signed here")
	if l := listed(t, op); len(l.Bundles) != 1 {
		t.Errorf("got %+v", l)
	}
}

// A folder is taken when it has been the same for a while, whatever changes in it.
func TestStampOf(t *testing.T) {
	dir := t.TempDir()
	packs := filepath.Join(dir, "packs", "one")
	seen := map[string]string{}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"nothing there", func() error { return os.RemoveAll(dir) }},
		{"an empty folder", func() error { return os.Mkdir(dir, 0o700) }},
		{"a pack", func() error { return os.MkdirAll(packs, 0o700) }},
		{"a file", func() error { return os.WriteFile(filepath.Join(packs, "a.rego"), []byte("package a"), 0o600) }},
		{"written again", func() error {
			return os.Chtimes(filepath.Join(packs, "a.rego"), time.Time{}, time.Unix(1_000_000_000, 7))
		}},
		{"renamed", func() error { return os.Rename(filepath.Join(packs, "a.rego"), filepath.Join(packs, "b.rego")) }},
		{"below vendor", func() error { return os.MkdirAll(filepath.Join(packs, "vendor"), 0o700) }},
		{"roles", func() error { return os.MkdirAll(filepath.Join(dir, "roles"), 0o700) }},
		{"a link", func() error { return os.Symlink("b.rego", filepath.Join(packs, "c.rego")) }},
		{"another link", func() error {
			return os.Rename(filepath.Join(packs, "c.rego"), filepath.Join(packs, "d.rego"))
		}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		now := stampOf(dir)
		if before, ok := seen[now]; ok {
			t.Errorf("%s: the same stamp as %s", step.what, before)
		}
		if stampOf(dir) != now {
			t.Errorf("%s: not the same stamp twice", step.what)
		}
		seen[now] = step.what
	}
}

// awaitBundles waits until the bundles are in these states, newest first.
func awaitBundles(t *testing.T, op *client.Client, want ...writ.BundleState) []bundles.BundleView {
	t.Helper()
	var l bundles.PolicyList
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		l = listed(t, op)
		same := len(l.Bundles) == len(want)
		for i := 0; same && i < len(want); i++ {
			same = l.Bundles[i].State == want[i]
		}
		if same {
			return l.Bundles
		}
	}
	t.Fatalf("want %v, got %+v", want, l.Bundles)
	return nil
}

func awaitLog(t *testing.T, logged *logs, what string) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for !strings.Contains(logged.String(), what) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say %q:\n%s", what, logged)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// What one look at the built-in policies, as a folder, costs.
func BenchmarkStamp(b *testing.B) {
	for b.Loop() {
		if stampOf("../../policies") == "" {
			b.Fatal("no stamp")
		}
	}
}
