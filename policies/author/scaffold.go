package author

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/policies"
)

//go:embed all:scaffold
var scaffold embed.FS

// ExamplePack is the id of the pack that Init adds to the built-in ones.
const ExamplePack = "protected_paths"

// Init writes a whole, working source into a directory: the built-in policies,
// an example pack, the schema of the input, a configuration for Regal, and in
// the working directory a workflow that checks all of it. It returns the files
// made, and makes none when one of them exists.
func Init(dir string) ([]string, error) {
	out := map[string][]byte{}
	err := fs.WalkDir(policies.ShippedFiles(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path.Join(filepath.ToSlash(dir), name)], err = fs.ReadFile(policies.ShippedFiles(), name)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := addPack(out, dir, ExamplePack); err != nil {
		return nil, err
	}
	regal, err := scaffold.ReadFile("scaffold/regal.yaml")
	if err != nil {
		return nil, err
	}
	workflow, err := scaffold.ReadFile("scaffold/workflow.yaml")
	if err != nil {
		return nil, err
	}
	out[path.Join(filepath.ToSlash(dir), ".regal/config.yaml")] = regal
	out[".github/workflows/policies.yaml"] = []byte(strings.ReplaceAll(string(workflow), "DIR", filepath.ToSlash(dir)))
	return write(out)
}

// InitPack adds one pack, made from the example, to a source.
func InitPack(dir, id string) ([]string, error) {
	if err := newPack(dir, id); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	if err := addPack(out, dir, id); err != nil {
		return nil, err
	}
	return write(out)
}

// newPack says whether a pack of that id can be added to a source.
func newPack(dir, id string) error {
	if !packDir.MatchString(id) || id == "packs" {
		return fmt.Errorf("%q is not a pack id: lower case letters, digits and _, and not \"packs\"", id)
	}
	if _, err := os.Stat(filepath.Join(dir, "packs")); err != nil {
		return fmt.Errorf("%s has no packs yet; run 'writ policy init %s' first", dir, dir)
	}
	return nil
}

// addPack fills the example in for a pack id.
func addPack(out map[string][]byte, dir, id string) error {
	for from, to := range map[string]string{"scaffold/pack": "packs/" + id, "scaffold/fixtures": "fixtures/" + id} {
		entries, err := scaffold.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			b, err := scaffold.ReadFile(path.Join(from, e.Name()))
			if err != nil {
				return err
			}
			name := path.Join(filepath.ToSlash(dir), to, strings.ReplaceAll(e.Name(), "PACK", id))
			b = []byte(strings.ReplaceAll(string(b), "PACK", id))
			if out[name], err = fillCall(b); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	callLine   = regexp.MustCompile(`(?m)^  CALL that writes (\S+)$`)
	requested  = regexp.MustCompile(`requested: \[[^\]]*\]`)
	writeScope = regexp.MustCompile(`write_scope: \[[^\]]*\]`)
)

// fillCall puts a call of the built-in fixtures, with other scopes, where an
// example fixture says so: so it always is what this version shows to packs.
func fillCall(fixture []byte) ([]byte, error) {
	m := callLine.FindSubmatch(fixture)
	if m == nil {
		return fixture, nil
	}
	b, err := fs.ReadFile(policies.ShippedFiles(), "fixtures/write_scopes/claim.yaml")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(b), "\ninput:\n")
	call, _, ok := strings.Cut(rest, "\nwant:\n")
	if !ok {
		return nil, errors.New("the built-in fixtures hold no call")
	}
	call = requested.ReplaceAllLiteralString(call, fmt.Sprintf("requested: [%q]", m[1]))
	call = writeScope.ReplaceAllLiteralString(call, `write_scope: ["fs:repo/"]`)
	return callLine.ReplaceAllLiteral(fixture, []byte(call)), nil
}

// write makes new files only.
func write(all map[string][]byte) ([]string, error) {
	names := slices.Sorted(maps.Keys(all))
	for _, name := range names {
		if _, err := os.Lstat(filepath.FromSlash(name)); err == nil {
			return nil, fmt.Errorf("%s is there already, and nothing is overwritten; give another directory", name)
		}
	}
	for _, name := range names {
		file := filepath.FromSlash(name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		_, err = f.Write(all[name])
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	return names, nil
}
