package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// sources are the shipped policies as files of a bundle.
type sources map[string]string

func shipped(t testing.TB) sources {
	t.Helper()
	s := sources{}
	s.add(t, filepath.Join("..", "policies"), "packs", "roles")
	return s
}

// add takes in what is in directories below a root.
func (s sources) add(t testing.TB, root string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			s[filepath.ToSlash(name)] = string(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

const freezeManifest = `manifest:
  id: freeze
  version: 1.0.0
  title: Freeze
  owner: team
  kind: guard
  match: {capabilities: [run.create]}
  effects: [deny]
`

const freezeHead = `package packs.freeze

import future.keywords.not

# METADATA
# title: Incomplete
# description: The input names no capability.
# custom: {id: freeze.incomplete, severity: critical, control: fail closed}
findings contains {"rule": "freeze.incomplete", "effect": "deny", "code": "policy_denied", "message": "the call cannot be judged"} if {
	not input.call.capability
}

# METADATA
# title: Frozen
# description: No runs begin.
# custom: {id: freeze.run, severity: low, control: change freeze}
findings contains {"rule": "freeze.run", "effect": "deny", "code": "policy_denied", "message": "nothing begins during the freeze"} if {
`

// frozen are policies under which no run begins. mark makes them others of the
// same kind.
func frozen(t testing.TB, mark string) sources {
	s := shipped(t)
	s["packs/freeze/pack.yaml"] = freezeManifest
	s["packs/freeze/freeze.rego"] = freezeHead + "\tinput.call.capability == \"run.create\"\n}\n# " + mark + "\n"
	return s
}

// withRule are policies with a rule body of a pack of the team's own.
func withRule(t testing.TB, body string) sources {
	s := frozen(t, "")
	s["packs/freeze/freeze.rego"] = freezeHead + body + "\n}\n"
	return s
}

func (s sources) tar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	var names []string
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o600, Size: int64(len(s[name])), ModTime: time.Now(), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(s[name])); err != nil {
			t.Fatal(err)
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

func (s sources) dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range s {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (s sources) upload(t testing.TB) obj {
	return obj{"bundle": base64.StdEncoding.EncodeToString(s.tar(t)), "note": "for a test"}
}

// stage brings a bundle in.
func (c caller) stage(s sources) string {
	c.t.Helper()
	r := c.do("POST", "/v1/policy/bundles", s.upload(c.t))
	if r.status != 201 && r.status != 200 || r.str("state") != "staged" {
		c.t.Fatalf("want a staged bundle, got %s", r)
	}
	return r.str("digest")
}

// bundle is one bundle as the list shows it.
type bundleView struct {
	Digest, State, Reason, Replica, Replaced string
	Policy                                   string
	Ready, Waiting                           []any
}

func (c caller) bundle(digest string) bundleView {
	c.t.Helper()
	r := c.ok(200, "GET", "/v1/policy/bundles?digest="+digest, nil)
	list, _ := r.at("bundles").([]any)
	if len(list) != 1 {
		c.t.Fatalf("bundle %s: %s", digest, r)
	}
	m := list[0].(map[string]any)
	str := func(name string) string { s, _ := m[name].(string); return s }
	v := bundleView{Digest: str("digest"), State: str("state"), Reason: str("reason"), Replica: str("replica"), Replaced: str("replaced"), Policy: str("policy_revision")}
	v.Ready, _ = m["ready"].([]any)
	v.Waiting, _ = m["waiting"].([]any)
	return v
}

// settled waits until every replica is ready for a bundle, or it is refused.
func (w *world) settled(digest string) bundleView {
	w.t.Helper()
	var v bundleView
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		v = w.op.bundle(digest)
		if v.State != "staged" || len(v.Ready) == len(w.gw) && len(v.Waiting) == 0 {
			return v
		}
	}
	w.t.Fatalf("the replicas are not ready after a minute: %+v", v)
	return v
}

func (w *world) activate(digest string) reply {
	w.t.Helper()
	return w.op.ok(200, "POST", "/v1/policy/bundles/"+digest+"/activate", obj{})
}

// mayBegin says whether the rules let a run begin, and under which they said so.
func (c caller) mayBegin() (bool, string) {
	c.t.Helper()
	r := c.do("POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 5}})
	switch {
	case r.status == 201:
		return true, r.header.Get("Policy-Revision")
	case r.status == 403 && strings.Contains(string(r.body), "freeze.run"):
		return false, r.header.Get("Policy-Revision")
	}
	c.t.Fatalf("want a run or a denial by freeze.run, got %s", r)
	return false, ""
}

func (w *world) everywhere(want bool, when string) {
	w.t.Helper()
	for i, g := range w.gw {
		if got, _ := w.op.at(g).mayBegin(); got != want {
			w.t.Errorf("%s, replica %d: a run may begin: %t", when, i+1, got)
		}
	}
}

// Staged, compiled by every replica, put in force by one commit: the next call is
// judged by the new rules wherever it is made. A rollback is one commit too.
func TestABundleBecomesActiveEverywhere(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.everywhere(true, "before")
		digest := w.op.stage(frozen(t, ""))
		if again := w.op.stage(frozen(t, "")); again != digest {
			t.Errorf("the same bundle staged again has another digest: %s and %s", digest, again)
		}
		v := w.settled(digest)
		if v.State != "staged" {
			t.Fatalf("got %+v", v)
		}
		w.everywhere(true, "staged")
		if r := w.activate(digest); r.str("state") != "active" {
			t.Fatalf("got %s", r)
		}
		w.everywhere(false, "active")
		if _, revision := w.op.at(w.last()).mayBegin(); revision != v.Policy {
			t.Errorf("judged under %s, want %s", revision, v.Policy)
		}
		before := w.op.bundle(digest).Replaced
		if got := w.op.bundle(before); got.State != "retired" {
			t.Errorf("the bundle before is %+v", got)
		}
		w.op.at(w.last()).ok(200, "POST", "/v1/policy/rollback", obj{"from": digest})
		w.everywhere(true, "rolled back")
		if r := w.op.do("POST", "/v1/policy/rollback", obj{"from": digest}); r.code() != writ.CodeIllegal {
			t.Errorf("rolling back from a bundle that is not in force: %s", r)
		}
		w.op.ok(200, "POST", "/v1/policy/rollback", nil)
		w.everywhere(false, "rolled forward")

		_, all := w.export()
		var moves []string
		for _, st := range all {
			for _, c := range st.Predicate.Changes {
				if c.Kind == writ.ObjectBundle && c.ID == digest[7:] {
					moves = append(moves, fmt.Sprintf("%s: %s → %s", st.Predicate.Transition, c.From, c.To))
				}
			}
		}
		want := []string{"policy.stage:  → staged", "policy.activate: staged → active", "policy.rollback: active → retired", "policy.rollback: retired → active"}
		if !slices.Equal(moves, want) {
			t.Errorf("receipts say\n%s\nwant\n%s", strings.Join(moves, "\n"), strings.Join(want, "\n"))
		}
	})
}
