package author

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/policies"
)

// Change is one difference between two sources.
type Change struct {
	Kind   string `json:"kind"` // pack, manifest, rule, data, source or role
	Change string `json:"change"`
	Pack   string `json:"pack,omitempty"`
	What   string `json:"what"`
	Old    string `json:"old,omitempty"`
	New    string `json:"new,omitempty"`
}

// Values of Change.Change.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
)

// Diff says what a gateway would see of the step from one source to the other:
// packs, rules, values of data.yaml and rows of roles. Tests and prose are not
// compared. It fails when one of them does not load.
func Diff(ctx context.Context, before, after *Tree) ([]Change, error) {
	a, err := packsOf(ctx, before)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", before.Dir, err)
	}
	b, err := packsOf(ctx, after)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", after.Dir, err)
	}
	d := differ{out: []Change{}}
	for _, id := range union(a, b) {
		old, was := a[id]
		now, is := b[id]
		switch {
		case !was:
			d.add("pack", Added, id, id, "", now.Version)
		case !is:
			d.add("pack", Removed, id, id, old.Version, "")
		case old.Digest != now.Digest:
			d.pack(old, now)
			d.sources(before, after, id)
		}
	}
	d.roles(before, after)
	return d.out, nil
}

func packsOf(ctx context.Context, t *Tree) (map[string]policies.DraftPack, error) {
	draft, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]policies.DraftPack{}
	for _, p := range draft.Packs() {
		out[p.ID] = p
	}
	return out, nil
}

type differ struct{ out []Change }

func (d *differ) add(kind, change, pack, what, before, after string) {
	d.out = append(d.out, Change{kind, change, pack, what, before, after})
}

// compare notes what two maps of texts differ in.
func (d *differ) compare(kind, pack string, a, b map[string]string) {
	for _, k := range union(a, b) {
		x, was := a[k]
		y, is := b[k]
		switch {
		case !was:
			d.add(kind, Added, pack, k, "", y)
		case !is:
			d.add(kind, Removed, pack, k, x, "")
		case x != y:
			d.add(kind, Changed, pack, k, x, y)
		}
	}
}

func (d *differ) pack(a, b policies.DraftPack) {
	what := "version"
	if a.Version == b.Version {
		what = "version (the content differs: give it a new one)"
	}
	d.add("pack", Changed, a.ID, what, a.Version, b.Version)
	d.compare("manifest", a.ID, manifestOf(a), manifestOf(b))
	d.compare("rule", a.ID, rulesOf(a), rulesOf(b))
	d.compare("data", a.ID, valuesOf(a.Config), valuesOf(b.Config))
}

// sources names the files whose rules changed in what they ask, which no list
// of rules shows.
func (d *differ) sources(a, b *Tree, id string) {
	of := func(t *Tree) map[string]string {
		out := map[string]string{}
		for _, name := range slices.Concat(t.packFiles(id, "*.rego"), t.vendored(id, "*.rego")) {
			if !strings.HasSuffix(name, "_test.rego") {
				out[name] = string(t.files[name])
			}
		}
		return out
	}
	x, y := of(a), of(b)
	for _, name := range union(x, y) {
		if x[name] != y[name] {
			d.add("source", Changed, id, name, fmt.Sprintf("%d lines", len(lines([]byte(x[name])))), fmt.Sprintf("%d lines", len(lines([]byte(y[name])))))
		}
	}
}

// roles compares the rows of roles; a bundle has none, and is not held against them.
func (d *differ) roles(a, b *Tree) {
	if len(inDir(a, "roles")) == 0 || len(inDir(b, "roles")) == 0 {
		return
	}
	for _, name := range union(inDir(a, "roles"), inDir(b, "roles")) {
		d.compare("role", "", rowsOf(a.files[name]), rowsOf(b.files[name]))
	}
}

func inDir(t *Tree, dir string) map[string]bool {
	out := map[string]bool{}
	for _, name := range t.in(dir, "*") {
		out[name] = true
	}
	return out
}

// rowsOf are the lines that say something, each its own name.
func rowsOf(b []byte) map[string]string {
	out := map[string]string{}
	for line := range bytes.Lines(b) {
		text, _, _ := strings.Cut(string(line), "#")
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			out[text] = ""
		}
	}
	return out
}

func manifestOf(p policies.DraftPack) map[string]string {
	return map[string]string{
		"title": p.Title, "owner": p.Owner, "kind": p.Kind, "stage": p.Stage, "memo": fmt.Sprint(!p.Forgets),
		"match.capabilities": strings.Join(p.Capabilities, ", "), "effects": fmt.Sprint(p.Effects),
		"adapts.package": p.Adapts, "adapts.entrypoints": strings.Join(p.Asks, ", "), "adapts.ignores": strings.Join(p.Ignores, ", "),
	}
}

func rulesOf(p policies.DraftPack) map[string]string {
	out := map[string]string{}
	for _, r := range p.Rules {
		out[r.ID] = fmt.Sprintf("%s %s, %s: %s", r.Effect, r.Code, r.Severity, r.Message)
	}
	return out
}

// valuesOf flattens mappings to paths; anything else is its JSON.
func valuesOf(config any) map[string]string {
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, x := range m {
				walk(strings.TrimPrefix(path+"."+k, "."), x)
			}
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			b = fmt.Append(nil, v)
		}
		out[path] = string(b)
	}
	if config != nil {
		walk("", config)
	}
	return out
}

func union[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
