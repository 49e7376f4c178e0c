package policies

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A pack may adapt one package that was written for another host. Its files lie
// in vendor/ as they came; a wrapper in the pack's own package shows them the
// input they expect and makes findings of what they answer. See wrapper.go for
// what a wrapper may say, vendored.go for what the package may be made of.

// vendorDir holds the files of the adapted package, below the pack's directory.
const vendorDir = "vendor/"

// adapts is the part of pack.yaml about the adapted package.
type adapts struct {
	Package     string      `yaml:"package"` // its root: the package and everything below it
	Entrypoints entrypoints `yaml:"entrypoints"`
	Ignores     []string    `yaml:"ignores"` // fields of their input that may stay undefined
}

// entrypoints are the rules of the adapted package that decide, as paths below
// its root, by what their value means.
type entrypoints struct {
	Allow []string `yaml:"allow"` // must be true
	Deny  []string `yaml:"deny"`  // must be empty, or false
	Warn  []string `yaml:"warn"`  // as deny, and a finding about it may have any effect
}

func (e entrypoints) all() []string { return slices.Concat(e.Allow, e.Deny, e.Warn) }

// root is data.<package>.
func (a *adapts) root() ast.Ref { return pathRef("data." + a.Package) }

// entry is the full path of an entry point.
func (a *adapts) entry(name string) ast.Ref { return pathRef("data." + a.Package + "." + name) }

// pathRef is the reference of a dotted path, whatever words are in it.
func pathRef(dotted string) ast.Ref {
	head, rest, _ := strings.Cut(dotted, ".")
	r := ast.Ref{ast.VarTerm(head)}
	for rest != "" {
		var step string
		step, rest, _ = strings.Cut(rest, ".")
		r = append(r, ast.StringTerm(step))
	}
	return r
}

// dotted is a path of plain names: nothing that has to be quoted in Rego.
var dotted = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

// reserved are roots of data that belong to the packs, to OPA or to everybody.
var reserved = []string{"packs", "config", "system", "lib", "data", "input"}

func (a *adapts) check() error {
	var all []error
	note := func(wrong bool, format string, args ...any) {
		if wrong {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	if !dotted.MatchString(a.Package) {
		return fmt.Errorf("adapts.package: %q is not the path of a package, for example agents.tools.guard", a.Package)
	}
	top, _, _ := strings.Cut(a.Package, ".")
	note(slices.Contains(reserved, top), "adapts.package: %s belongs to no pack, and a pack cannot adapt what is below it", top)
	names := a.Entrypoints.all()
	note(len(names) == 0, "adapts.entrypoints is empty: name the rules that decide, under allow, deny or warn")
	for i, name := range names {
		note(!dotted.MatchString(name), "adapts.entrypoints: %q is not the name of a rule", name)
		note(slices.Contains(names[:i], name), "adapts.entrypoints: %s is there twice", name)
	}
	for _, field := range a.Ignores {
		note(!dotted.MatchString(strings.TrimSuffix(field, wholeObject)), "adapts.ignores: %q is not a field of their input, for example user.email, or user.* for what is read of user unseen", field)
	}
	return errors.Join(all...)
}

// checkRoots keeps the packages that packs adapt apart from each other, and from
// data.<id>, where the configuration of packs is.
func checkRoots(packs map[string]*pack) error {
	var all []error
	ids := slices.Sorted(maps.Keys(packs))
	for i, id := range ids {
		a := packs[id].Adapts
		if a == nil || !dotted.MatchString(a.Package) {
			continue
		}
		refuse := func(format string, args ...any) {
			all = append(all, Problem{File: "packs/" + id + "/pack.yaml", Msg: "adapts.package: " + fmt.Sprintf(format, args...)})
		}
		top, _, _ := strings.Cut(a.Package, ".")
		if packs[top] != nil {
			refuse("%s overlaps data.%s, where the configuration of the pack %s is; one of the two needs another name", a.Package, top, top)
		}
		for _, other := range ids[:i] {
			b := packs[other].Adapts
			if b != nil && (within(a.Package, b.Package) || within(b.Package, a.Package)) {
				refuse("%s overlaps %s, which the pack %s adapts", a.Package, b.Package, other)
			}
		}
	}
	return errors.Join(all...)
}

// within says whether a package is another or below it.
func within(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+".") }
