package policies

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/writ-gateway/writ"
)

// pack is one pack as loaded: parsed and within its contract.
type pack struct {
	manifest
	digest   string
	modules  map[string]*ast.Module // by file name
	vendored map[string]*ast.Module // of the package it adapts, by file name
	config   any                    // data.yaml's config; nil without the file
	raw      any                    // pack.yaml's manifest, as OPA's tools would mount it
	rules    map[string]*rule       // by id
	order    []string               // rule ids as they stand in the sources

	// Of compiled rules; a draft has none of it.
	alone *route  // the query of this pack by itself
	reads readSet // what it sees of the input
	memo  *memo   // nil when nothing it says is remembered
}

// rule is one finding a pack can make. All of it is constant, so it is known
// before anything is evaluated.
type rule struct {
	finding     writ.Finding
	title       string
	description string
	severity    string
	control     string
	location    *ast.Location // of the rule in the sources
	last        int           // its last line
	asks        []string      // entry points of the adapted package it depends on

	obligations []writ.Obligation // what it asks the host to do
	needs       []writ.Need       // what it asks people for
	known       bool              // whether the host can do that; otherwise the finding denies
}

// loadPacks parses every pack of the sources, by id. With an error come the
// packs as far as they could be parsed.
func loadPacks(f files) (map[string]*pack, error) {
	groups := packFiles(f)
	packs, all := map[string]*pack{}, []error(nil)
	for _, id := range slices.Sorted(maps.Keys(groups)) {
		p, err := loadPack(id, groups[id])
		if err != nil {
			all = append(all, err)
		}
		if p != nil {
			packs[id] = p
		}
	}
	return packs, errors.Join(checkRoots(packs), errors.Join(all...))
}

// packFiles sorts the sources by pack; the names are those below its directory.
func packFiles(f files) map[string]files {
	groups := map[string]files{}
	for name, b := range f {
		id, base, ok := inPackDir(name)
		if !ok { // a deeper one, for which no id is right
			id, base = path.Split(strings.TrimPrefix(name, "packs/"))
		}
		if strings.HasPrefix(name, "packs/") {
			if groups[id] == nil {
				groups[id] = files{}
			}
			groups[id][base] = b
		}
	}
	return groups
}

func loadPack(id string, f files) (*pack, error) {
	in := func(base string, err error) error { return inPack(id, base, err) }
	var all []error
	m, err := parseManifest(id, f["pack.yaml"])
	for _, e := range parts(err) {
		all = append(all, in("pack.yaml", e))
	}
	if m == nil {
		return nil, errors.Join(all...)
	}
	m.ID = id
	p := &pack{manifest: *m, digest: f.digest(), modules: map[string]*ast.Module{}, vendored: map[string]*ast.Module{}, rules: map[string]*rule{}}
	if p.raw, err = topKey(f["pack.yaml"], "manifest"); err != nil {
		all = append(all, in("pack.yaml", err))
	}
	if b, ok := f["data.yaml"]; ok {
		if p.config, err = topKey(b, "config"); err != nil {
			all = append(all, in("data.yaml", err))
		}
	}
	all = append(all, p.loadVendor(f))
	for _, base := range f.names() {
		if !strings.HasSuffix(base, ".rego") || strings.HasPrefix(base, vendorDir) {
			continue
		}
		name := path.Join("packs", id, base)
		mod, err := ast.ParseModuleWithOpts(name, string(f[base]), ast.ParserOptions{
			Capabilities: capabilities(), ProcessAnnotation: true, RegoVersion: ast.RegoV1,
		})
		if err != nil {
			all = append(all, err) // names file and line
			continue
		}
		p.modules[name] = mod
		if err := p.admit(mod); err != nil {
			all = append(all, err)
		}
	}
	err = errors.Join(all...)
	if err == nil && len(p.rules) == 0 {
		return p, Problem{File: "packs/" + id, Msg: "no rule adds to findings"}
	}
	if err == nil && p.Adapts != nil {
		err = p.adapt()
	}
	return p, err
}

// topKey decodes YAML as OPA's loader does and returns the value under its one
// top key.
func topKey(b []byte, key string) (any, error) {
	var doc map[string]any
	if err := util.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	v, ok := doc[key]
	if !ok || len(doc) != 1 {
		return nil, fmt.Errorf("the one top key must be %s", key)
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, fmt.Errorf("%s must be a mapping", key)
	}
	return v, nil
}

// digest covers names and bytes of a pack's files, each with its length in
// front, so that no two different packs share one.
func (f files) digest() string {
	h := sha256.New()
	for _, name := range f.names() {
		fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(f[name]))
		h.Write(f[name])
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// data is the tree OPA's tools would mount for the packs: data.<id>.config and
// data.<id>.manifest.
func data(packs map[string]*pack) map[string]any {
	out := map[string]any{}
	for id, p := range packs {
		d := map[string]any{"manifest": p.raw}
		if p.config != nil {
			d["config"] = p.config
		}
		out[id] = d
	}
	return out
}

// checkMandatory refuses a set of packs that lacks a mandatory one.
func checkMandatory(packs map[string]*pack) error {
	var all []error
	for _, id := range slices.Sorted(maps.Keys(mandatory)) {
		p := packs[id]
		if p == nil {
			all = append(all, Problem{File: "packs/" + id, Msg: "this mandatory pack is missing"})
			continue
		}
		for _, least := range mandatory[id] {
			covers := func(s selector) bool { return s.covers(least) }
			if p.Kind != KindMandatory || !slices.ContainsFunc(p.Match.Capabilities, covers) {
				all = append(all, Problem{
					File: "packs/" + id + "/pack.yaml",
					Msg:  fmt.Sprintf("kind must be %s and match.capabilities must cover %q", KindMandatory, string(least)),
				})
			}
		}
	}
	return errors.Join(all...)
}

// covers says whether everything t picks is picked by s.
func (s selector) covers(t selector) bool {
	prefix, ok := strings.CutSuffix(string(s), "*")
	return s == t || ok && strings.HasPrefix(string(t), prefix)
}

var errNoSchema = errors.New("the input schema is not valid JSON")

// inputSchema is the shape of the input, for the compiler.
func inputSchema() (*ast.SchemaSet, error) {
	var raw any
	if err := util.NewJSONDecoder(bytes.NewReader(schemaJSON)).Decode(&raw); err != nil {
		return nil, errNoSchema
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, raw)
	return set, nil
}
