package policies

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/writ-gateway/writ"
)

// pack is one pack as loaded: parsed and within its contract.
type pack struct {
	manifest
	digest  string
	modules map[string]*ast.Module // by file name
	config  any                    // data.yaml's config; nil without the file
	raw     any                    // pack.yaml's manifest, as OPA's tools would mount it
	rules   map[string]*rule       // by id
	order   []string               // rule ids as they stand in the sources
}

// rule is one finding a pack can make. All of it but the obligations is
// constant text of the pack, so it is known before anything is evaluated.
type rule struct {
	finding     writ.Finding
	title       string
	description string
	severity    string
	control     string
}

// loadPacks parses every pack of the sources, by id.
func loadPacks(f files) (map[string]*pack, error) {
	packs := map[string]*pack{}
	for id, g := range packFiles(f) {
		p, err := loadPack(id, g)
		if err != nil {
			return nil, err
		}
		packs[id] = p
	}
	return packs, nil
}

// packFiles sorts the sources by pack.
func packFiles(f files) map[string]files {
	groups := map[string]files{}
	for name, b := range f {
		dir, base := path.Split(name)
		if id, ok := strings.CutPrefix(path.Clean(dir), "packs/"); ok {
			if groups[id] == nil {
				groups[id] = files{}
			}
			groups[id][base] = b
		}
	}
	return groups
}

func loadPack(id string, f files) (*pack, error) {
	in := func(base string, err error) error { return fmt.Errorf("packs/%s/%s: %w", id, base, err) }
	m, err := parseManifest(id, f["pack.yaml"])
	if err != nil {
		return nil, in("pack.yaml", err)
	}
	p := &pack{manifest: *m, digest: f.digest(), modules: map[string]*ast.Module{}, rules: map[string]*rule{}}
	if p.raw, err = topKey(f["pack.yaml"], "manifest"); err != nil {
		return nil, in("pack.yaml", err)
	}
	if b, ok := f["data.yaml"]; ok {
		if p.config, err = topKey(b, "config"); err != nil {
			return nil, in("data.yaml", err)
		}
	}
	for _, base := range f.names() {
		if !strings.HasSuffix(base, ".rego") {
			continue
		}
		name := path.Join("packs", id, base)
		mod, err := ast.ParseModuleWithOpts(name, string(f[base]), ast.ParserOptions{
			Capabilities: capabilities(), ProcessAnnotation: true, RegoVersion: ast.RegoV1,
		})
		if err != nil {
			return nil, err // names file and line
		}
		if err := p.admit(mod); err != nil {
			return nil, err
		}
		p.modules[name] = mod
	}
	if len(p.rules) == 0 {
		return nil, fmt.Errorf("packs/%s: no rule adds to findings", id)
	}
	return p, nil
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
	for id, least := range mandatory {
		p := packs[id]
		if p == nil {
			return fmt.Errorf("packs/%s: this mandatory pack is missing", id)
		}
		covered := false
		for _, s := range p.Match.Capabilities {
			covered = covered || s.covers(least)
		}
		if p.Kind != KindMandatory || !covered {
			return fmt.Errorf("packs/%s/pack.yaml: kind must be %s and match.capabilities must cover %q", id, KindMandatory, string(least))
		}
	}
	return nil
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
