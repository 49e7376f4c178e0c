package author

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/writ-gateway/writ/policies"
)

// Limits of what is read, so that a wrong directory fails instead of filling
// the memory.
const (
	maxFile  = 1 << 20
	maxTotal = 16 << 20
)

// Tree is a policy source with what its authors keep beside it: packs/<id>/
// with tests and prose, fixtures/<id>/*.yaml and roles/.
type Tree struct {
	Dir    string // as given; only for messages and for writing
	files  map[string][]byte
	unread []Finding // files that are looked at and could not be read
	source policies.Source
	root   *os.Root
}

// Open reads a directory. Nothing outside it is read, also not through a
// symbolic link. The caller closes the tree.
func Open(dir string) (*Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t, err := Read(dir, root.FS())
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	t.root = root
	return t, nil
}

// Read is Open for any file system.
func Read(name string, tree fs.FS) (*Tree, error) {
	t := &Tree{Dir: name, files: map[string][]byte{}, source: policies.Tree(name, tree)}
	total := 0
	for _, top := range []string{"packs", "fixtures", "roles"} {
		err := fs.WalkDir(tree, top, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && name == top:
				return fs.SkipDir
			case err != nil:
				return err
			case name != top && strings.HasPrefix(d.Name(), "."):
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			case d.IsDir(), !lookedAt(name):
				return nil
			}
			b, err := read(tree, name)
			if err != nil {
				t.unread = append(t.unread, Finding{ID: "check", Severity: Error, File: name, Message: err.Error()})
				return nil
			}
			if total += len(b); total > maxTotal {
				return fmt.Errorf("%s: more than %d bytes in all; is this the right directory?", name, maxTotal)
			}
			t.files[name] = b
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(t.PackIDs()) == 0 {
		return nil, fmt.Errorf("%s has no packs; give a directory with packs/<id>/, or make one with 'writ policy init'", name)
	}
	return t, nil
}

// lookedAt says whether a file matters to authors; pictures and the like do not.
func lookedAt(name string) bool {
	return strings.HasPrefix(name, "fixtures/") || slices.Contains([]string{".rego", ".yaml", ".md", ".conf", ".csv"}, path.Ext(name))
}

// load compiles the packs by themselves. Its error is Refused when they do not
// load.
func (t *Tree) load(ctx context.Context) (*policies.Draft, error) {
	draft := policies.ExaminePacks(ctx, t.source, 0)
	if bad := t.withUnread(fromProblems(draft.Problems())); len(bad) > 0 {
		return nil, Refused(bad)
	}
	return draft, nil
}

// withUnread adds the files that could not be read and are not spoken of yet.
func (t *Tree) withUnread(found []Finding) []Finding {
	for _, f := range t.unread {
		if !slices.ContainsFunc(found, func(x Finding) bool { return x.File == f.File }) {
			found = append(found, f)
		}
	}
	Sort(found)
	return found
}

// Shipped is the tree of the built-in policies.
func Shipped() *Tree {
	t, err := Read("the built-in policies", policies.ShippedFiles())
	if err != nil {
		panic(err) // built in
	}
	return t
}

func read(tree fs.FS, name string) ([]byte, error) {
	f, err := tree.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	return b, err
}

// Close releases the directory.
func (t *Tree) Close() error {
	if t.root == nil {
		return nil
	}
	return t.root.Close()
}

// PackIDs lists the directories below packs, sorted.
func (t *Tree) PackIDs() []string { return t.below("packs") }

// NoPack is the error of who asks for a pack there is not.
type NoPack struct {
	ID    string
	There []string
}

func (e NoPack) Error() string {
	return fmt.Sprintf("there is no pack %s; there are %s", e.ID, strings.Join(e.There, ", "))
}

// has fails for the first of some packs there is not.
func (t *Tree) has(ids []string) error {
	there := t.PackIDs()
	for _, id := range ids {
		if !slices.Contains(there, id) {
			return NoPack{id, there}
		}
	}
	return nil
}

// below lists the directories of files directly below a top directory.
func (t *Tree) below(top string) []string {
	ids := map[string]bool{}
	for name := range t.files {
		if rest, ok := strings.CutPrefix(name, top+"/"); ok {
			if id, _, deeper := strings.Cut(rest, "/"); deeper {
				ids[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// in lists the files of a directory that match a pattern, sorted.
func (t *Tree) in(dir, pattern string) []string {
	var out []string
	for name := range t.files {
		if ok, _ := path.Match(pattern, path.Base(name)); ok && path.Dir(name) == dir {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (t *Tree) packFiles(id, pattern string) []string { return t.in("packs/"+id, pattern) }

// vendored lists the files of the package a pack adapts.
func (t *Tree) vendored(id, pattern string) []string { return t.in("packs/"+id+"/vendor", pattern) }
