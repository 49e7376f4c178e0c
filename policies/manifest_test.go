package policies

import (
	"reflect"
	"testing"

	"github.com/open-policy-agent/opa/v1/util"
	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
)

// What reads as a manifest names its pack, is routed somewhere, and says the
// same when it is written and read again.
func FuzzManifest(f *testing.F) {
	for id := range mandatory {
		b, err := shipped.ReadFile("packs/" + id + "/pack.yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(id, b)
	}
	for _, text := range []string{
		"", "manifest:\n", "manifest: []\n", "manifest: {id: p}\n", "manifest: {id: p}\n---\nmanifest: {id: q}\n", "other: 1\n",
		"manifest: {id: p, version: 1.0.0, title: T, owner: o, kind: guard, match: {capabilities: ['*']}, effects: [deny]}\n",
		"manifest: {id: p, version: 01.0.0, title: T, owner: o, kind: guard, match: {capabilities: ['a.**']}, effects: [maybe]}\n",
		"manifest: &m {id: p, match: *m}\n", "manifest: !!binary aGk=\n",
	} {
		f.Add("p", []byte(text))
	}
	f.Fuzz(func(t *testing.T, id string, text []byte) {
		m, err := parseManifest(id, text)
		if m == nil && err == nil {
			t.Fatalf("%v and %v", m, err)
		}
		if err != nil {
			return
		}
		if m.ID != id || !packID.MatchString(id) || len(m.Match.Capabilities) == 0 || len(m.Effects) == 0 {
			t.Fatalf("%q was taken for %+v", text, m)
		}
		for _, e := range m.Effects {
			if e.Rank() > writ.EffectDeny.Rank() {
				t.Fatalf("effect %q", e)
			}
		}
		for _, s := range m.Match.Capabilities {
			if s == "" || s[0] != '*' && (s[0] < 'a' || s[0] > 'z') {
				t.Fatalf("selector %q", s)
			}
		}
		b, err := yaml.Marshal(map[string]any{"manifest": m})
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseManifest(id, b)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v was written as %s and read as %+v, %v", m, b, again, err)
		}
	})
}

// What reads as a pack's data is one mapping under one key, and of what OPA can
// hold.
func FuzzData(f *testing.F) {
	for _, text := range []string{
		"", "config:\n", "config: {}\n", "config: {a: 1, b: [x, {c: null}]}\n", "config: {a: 1}\nother: 2\n", "config: {a: 1}\n---\nconfig: {a: 2}\n",
		"config: {1: x}\n", "config: {a: .nan}\n", "config: {a: 1e999}\n", "config: &c {a: *c}\n", "config: {a: 12345678901234567890123}\n", "{\"config\": {}}",
		"config: {a: 2001-01-01, b: !!binary aGk=, c: 0o7}\n", "config: {a: 1, a: 2}\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := topKey(text, "config")
		if err != nil {
			return
		}
		if _, ok := v.(map[string]any); !ok {
			t.Fatalf("%q gave a %T", text, v)
		}
		if err := util.RoundTrip(&v); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
