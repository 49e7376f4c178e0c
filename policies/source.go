package policies

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

//go:embed packs/*/*.rego packs/*/*.yaml packs/*/README.md fixtures/*/*.yaml roles/model.conf roles/policy.csv schema/input.json
var shipped embed.FS

// ShippedFiles is everything the built-in policies are made of, with their
// tests, fixtures and prose: what authors start from.
func ShippedFiles() fs.FS { return shipped }

// Limits of what is loaded, so that a wrong directory fails instead of filling
// the memory.
const (
	maxFileBytes  = 1 << 20
	maxTotalBytes = 16 << 20
	maxFiles      = 4096
)

// files are the sources a decision depends on, by slash separated path:
// packs/<id>/pack.yaml, packs/<id>/data.yaml, packs/<id>/*.rego and
// packs/<id>/vendor/*.rego without tests,
// roles/model.conf and roles/policy.csv.
type files map[string][]byte

func (f files) names() []string { return slices.Sorted(maps.Keys(f)) }

// Source is where packs and roles come from.
type Source struct {
	name string
	read func() (files, error)
}

// Shipped is the source built into the program.
func Shipped() Source {
	return Source{"the built-in policies", func() (files, error) { return readTree(shipped) }}
}

// Directory is a source laid out like the shipped one: dir/packs/<id>/ and
// dir/roles/. Nothing outside dir is read, also not through a symbolic link.
func Directory(dir string) Source {
	return Source{dir, func() (files, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return readTree(root.FS())
	}}
}

// FromBundle is what (*Engine).Bundle or OpenBundle gave.
func FromBundle(b []byte) Source { return bundleSource(b) }

// Tree is Directory for any file system.
func Tree(name string, tree fs.FS) Source {
	return Source{name, func() (files, error) { return readTree(tree) }}
}

// Files is a source of files by slash separated path, laid out like a
// directory: packs/<id>/ and roles/.
func Files(name string, content map[string][]byte) Source {
	return Source{name, func() (files, error) { return content, nil }}
}

// bundleSource is what (*Engine).Bundle wrote.
func bundleSource(b []byte) Source {
	return Source{"bundle", func() (files, error) { return readBundle(b) }}
}

// inPackDir takes the name of a pack's file apart: packs/<id>/<base>, where base
// may be below vendor/.
func inPackDir(name string) (id, base string, ok bool) {
	rest, ok := strings.CutPrefix(name, "packs/")
	if !ok {
		return "", "", false
	}
	id, base, ok = strings.Cut(rest, "/")
	return id, base, ok && !strings.Contains(strings.TrimPrefix(base, vendorDir), "/")
}

// decides says whether a decision depends on a file of a pack. Tests and prose
// do not; err is set for what OPA's own tools would load and the engine would
// not, because then the two would disagree about the pack.
func decides(base string) (bool, error) {
	base, vendored := strings.CutPrefix(base, vendorDir)
	switch {
	case strings.HasPrefix(base, "."), strings.HasSuffix(base, "_test.rego"):
		return false, nil
	case strings.HasSuffix(base, ".rego"), !vendored && (base == "pack.yaml" || base == "data.yaml"):
		return true, nil
	}
	switch path.Ext(base) {
	case ".yaml", ".yml", ".json", ".gz":
		return false, errors.New("a pack holds pack.yaml, data.yaml and .rego files, vendor/ the last only; opa would load this one as data")
	}
	return false, nil
}

// readTree collects the files of a tree that decide, and refuses layouts that
// OPA's own tools would read differently.
func readTree(tree fs.FS) (files, error) { return readSome(tree, true) }

// readSome is readTree for trees that may lack roles.
func readSome(tree fs.FS, needRoles bool) (files, error) {
	out, total, all := files{}, 0, []error(nil)
	note := func(name string, err error) { all = append(all, inFile(name, err)) }
	take := func(name string) {
		b, err := readFile(tree, name)
		if err != nil {
			note(name, err)
			return
		}
		if total += len(b); total > maxTotalBytes || len(out) == maxFiles {
			note(name, fmt.Errorf("more than %d bytes or %d files", maxTotalBytes, maxFiles))
			return
		}
		out[name] = b
	}
	packs, err := fs.ReadDir(tree, "packs")
	if err != nil {
		return nil, err
	}
	for _, p := range packs {
		dir := path.Join("packs", p.Name())
		if !p.IsDir() {
			if wanted, err := decides(p.Name()); wanted || err != nil {
				note(dir, errors.New("a pack is a directory"))
			}
			continue
		}
		for _, below := range []string{"", vendorDir} {
			entries, err := fs.ReadDir(tree, path.Join(dir, below))
			if err != nil && (below == "" || !errors.Is(err, fs.ErrNotExist)) {
				note(path.Join(dir, below), err)
			}
			for _, e := range entries {
				name := path.Join(dir, below, e.Name())
				wanted, err := decides(below + e.Name())
				switch {
				case e.IsDir() && below == "" && e.Name()+"/" == vendorDir:
				case e.IsDir():
					note(name, errors.New("a pack holds no directories but vendor/, and that holds none"))
				case err != nil:
					note(name, err)
				case wanted:
					take(name)
				}
			}
		}
	}
	for _, name := range []string{modelFile, rowsFile} {
		if _, err := fs.Stat(tree, name); needRoles || !errors.Is(err, fs.ErrNotExist) {
			take(name)
		}
	}
	return out, errors.Join(all...)
}

func readFile(tree fs.FS, name string) ([]byte, error) {
	f, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = fmt.Errorf("more than %d bytes", maxFileBytes)
	}
	return b, err
}
