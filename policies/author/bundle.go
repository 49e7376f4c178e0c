package author

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ/policies"
	"go.yaml.in/yaml/v3"
)

// bundleManifest is OPA's .manifest: with these roots OPA itself refuses a
// module or data that is not one of the packs', or of a package they adapt.
type bundleManifest struct {
	Revision    string   `json:"revision"`
	Roots       []string `json:"roots"`
	RegoVersion int      `json:"rego_version"`
}

// Bundle writes packs as an OPA bundle: <id>/ with its rules, data.yaml and
// pack.yaml as they are, so that a gateway finds the same digests. Tests,
// fixtures, prose and roles stay at home. Packs are all when ids is empty. The
// same files give the same bytes. It fails when a pack does not load.
func (t *Tree) Bundle(ctx context.Context, ids []string) ([]byte, error) {
	if err := t.has(ids); err != nil {
		return nil, err
	}
	if _, err := t.load(ctx); err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		ids = t.PackIDs()
	}
	content := map[string][]byte{}
	for _, id := range ids {
		for _, name := range slices.Concat(t.packFiles(id, "*"), t.vendored(id, "*")) {
			if inside := "/" + strings.TrimPrefix(name, "packs/"); bundled(inside) {
				content[inside] = t.files[name]
			}
		}
	}
	m, err := json.Marshal(manifestFor(content))
	if err != nil {
		return nil, err
	}
	content[manifestFile] = append(m, '\n')
	return writeArchive(content)
}

// manifestFor is the one manifest that fits the files of packs.
func manifestFor(content map[string][]byte) bundleManifest {
	m := bundleManifest{RegoVersion: 1}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(content)) {
		if name == manifestFile || name == signaturesFile {
			continue
		}
		fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(content[name]))
		h.Write(content[name])
		id, _, _ := strings.Cut(name[1:], "/")
		m.Roots = append(m.Roots, id, "packs/"+id)
		if name == "/"+id+"/pack.yaml" {
			m.Roots = append(m.Roots, adapted(content[name])...)
		}
	}
	m.Revision = "sha256:" + hex.EncodeToString(h.Sum(nil))
	slices.Sort(m.Roots)
	m.Roots = slices.Compact(m.Roots)
	return m
}

// adapted is the root of the package a pack adapts, if it adapts one.
func adapted(packYAML []byte) []string {
	var doc struct {
		Manifest struct {
			Adapts struct {
				Package string `yaml:"package"`
			} `yaml:"adapts"`
		} `yaml:"manifest"`
	}
	if yaml.Unmarshal(packYAML, &doc) != nil || doc.Manifest.Adapts.Package == "" {
		return nil // what is wrong with it is said when the pack is loaded
	}
	return []string{strings.ReplaceAll(doc.Manifest.Adapts.Package, ".", "/")}
}

// Contents is what a bundle holds.
type Contents struct {
	Revision string              `json:"revision"` // sha256 over names and bytes of the packs' files
	Packs    []policies.PackInfo `json:"packs"`
	KeyID    string              `json:"key_id,omitempty"` // that signed it; set by Verify
}

// inspect holds a bundle's files against the contract of packs. Its timeout
// bounds how long each pack may take to judge an empty call.
func inspect(ctx context.Context, content map[string][]byte, timeout time.Duration) (Contents, error) {
	want, err := json.Marshal(manifestFor(content))
	if err != nil {
		return Contents{}, err
	}
	if string(content[manifestFile]) != string(want)+"\n" {
		return Contents{}, errors.New("/.manifest does not describe the files of the bundle; make it again with 'writ policy bundle'")
	}
	files := packFilesOf(content)
	if len(files) == 0 {
		return Contents{}, errors.New("the bundle holds no packs")
	}
	draft := policies.ExaminePacks(ctx, policies.Files("bundle", files), timeout)
	if bad := fromProblems(draft.Problems()); len(bad) > 0 {
		return Contents{}, Refused(bad)
	}
	out := Contents{Revision: manifestFor(content).Revision}
	for _, p := range draft.Packs() {
		out.Packs = append(out.Packs, p.PackInfo)
	}
	return out, nil
}

// OpenBundle reads a bundle as a tree, without looking at its signature: to
// compare it. It has no tests, no fixtures and no roles.
func OpenBundle(name string, archive []byte) (*Tree, error) {
	content, err := readArchive(archive)
	if err != nil {
		return nil, err
	}
	files := packFilesOf(content)
	return &Tree{Dir: name, files: files, source: policies.Files(name, files)}, nil
}

// packFilesOf are a bundle's files where a source has them.
func packFilesOf(content map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, b := range content {
		if name != manifestFile && name != signaturesFile {
			out["packs"+name] = b
		}
	}
	return out
}
