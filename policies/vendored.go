package policies

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What an adapted package may be made of. Nobody edits it, so nothing is asked of
// its style; what it is held to is what would make it fail open or reach further
// than its own package.

// adaptedLanguage is that of packs, with sprintf and trace, which nearly every
// message is made with. An undefined argument makes a rule of theirs disappear,
// so all they read of the input must be shown to them (see shown.go).
func adaptedLanguage(language *ast.Capabilities) *ast.Capabilities {
	c := *language
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		has := func(x *ast.Builtin) bool { return x.Name == b.Name }
		if slices.Contains(banned, b.Name) && !slices.ContainsFunc(c.Builtins, has) {
			c.Builtins = append(slices.Clip(c.Builtins), b)
		}
	}
	return &c
}

// AdaptedLanguage is what packages that packs adapt, and the tests of all
// packs, may be written in: the language of packs with what messages are made of.
func AdaptedLanguage() *ast.Capabilities { return adaptedLanguage(capabilities()) }

// loadVendor parses the files of the adapted package and finds its entry points.
func (p *pack) loadVendor(f files) error {
	var all []error
	for _, base := range f.names() {
		if strings.HasPrefix(base, vendorDir) {
			all = append(all, p.loadVendored("packs/"+p.ID+"/"+base, f[base]))
		}
	}
	if err := errors.Join(all...); err != nil || p.Adapts == nil {
		return err
	}
	return p.entries()
}

// ParseVendored parses a file of a package that was written for another host.
func ParseVendored(name string, b []byte) (*ast.Module, error) {
	parse := func(v ast.RegoVersion) (*ast.Module, error) {
		return ast.ParseModuleWithOpts(name, string(b), ast.ParserOptions{ProcessAnnotation: true, RegoVersion: v})
	}
	m, err := parse(ast.RegoV1)
	if err != nil {
		if _, old := parse(ast.RegoV0); old == nil {
			err = Problem{File: name, Line: lineOf(err), Msg: "this is Rego v0, and OPA's own tool makes v1 of it: opa fmt -w --v0-v1 " + name}
		}
	}
	return m, err
}

// loadVendored parses a file of the adapted package and checks what can be seen
// without compiling it.
func (p *pack) loadVendored(name string, b []byte) error {
	m, err := ParseVendored(name, b)
	if err != nil {
		return err
	}
	if p.Adapts == nil {
		return at(m.Package.Location, "a file in vendor/, and pack.yaml names no package the pack adapts; add manifest.adapts")
	}
	p.vendored[name] = m
	return p.admitVendored(m)
}

// lineOf is the line of the first error of a parser.
func lineOf(err error) int {
	if list, ok := errors.AsType[ast.Errors](err); ok && len(list) > 0 && list[0].Location != nil {
		return list[0].Location.Row
	}
	return 1
}

func (p *pack) admitVendored(m *ast.Module) error {
	root := p.Adapts.root()
	if !m.Package.Path.HasPrefix(root) {
		return at(m.Package.Location, "the package must be %s or below it, as adapts.package says", p.Adapts.Package)
	}
	var all []error
	for _, imp := range m.Imports {
		if r, ok := imp.Path.Value.(ast.Ref); ok && r.HasPrefix(ast.DefaultRootRef) && !r.HasPrefix(root) {
			all = append(all, p.outside(imp.Location, r))
		}
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if len(e.With) > 0 {
			all = append(all, at(e.Location, "with is for tests: no rule may judge an input or data other than what it was given"))
		}
		return false
	})
	return errors.Join(all...)
}

func (p *pack) outside(loc *ast.Location, r ast.Ref) error {
	return at(loc, "reads %s: an adapted package reads its input and its own rules below data.%s; "+
		"constants it expects as data can be given to it as rules, in one more file of vendor/", r.GroundPrefix(), p.Adapts.Package)
}

// vendoredRefs checks compiled modules, where every name is resolved: data that
// no rule of theirs makes is undefined, and what depends on it would never deny.
func (p *pack) vendoredRefs(c *ast.Compiler) error {
	root := p.Adapts.root()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(p.vendored)) {
		for _, rule := range c.Modules[name].Rules {
			ast.WalkRefs(rule, func(r ast.Ref) bool {
				if !r.HasPrefix(ast.DefaultRootRef) || r.HasPrefix(root) && len(c.GetRulesDynamicWithOpts(r, ast.RulesOptions{IncludeHiddenModules: true})) > 0 {
					return false
				}
				all = append(all, p.outside(cmp.Or(r[0].Location, rule.Location), r))
				return false
			})
		}
	}
	return errors.Join(all...)
}

// notShown says of a reference to what the wrapper does not show what to do.
func notShown(list ast.Errors) error {
	var all []error
	for _, e := range list {
		if e.Location == nil || path.Base(path.Dir(e.Location.File))+"/" != vendorDir || !strings.Contains(e.Message, "undefined ref") {
			all = append(all, e)
			continue
		}
		x := fromOPA(e)
		x.Msg += "; write it out in " + hostInput + ", or name it in adapts.ignores of pack.yaml, and it stays undefined"
		all = append(all, x)
	}
	return errors.Join(all...)
}

// entries refuses entry points that no rule of the adapted package makes: of a
// rule that does not exist nothing would ever be denied.
func (p *pack) entries() error {
	if len(p.vendored) == 0 {
		return inPack(p.ID, "pack.yaml", fmt.Errorf("adapts.package: vendor/ holds no file of %s", p.Adapts.Package))
	}
	have := map[string]bool{}
	for name := range p.vendoredRules() {
		have[name] = true
	}
	var all []error
	for _, name := range p.Adapts.Entrypoints.all() {
		if !have[name] {
			all = append(all, inPack(p.ID, "pack.yaml", fmt.Errorf("adapts.entrypoints: %s has no rule %s; it has %s",
				p.Adapts.Package, name, strings.Join(slices.Sorted(maps.Keys(have)), ", "))))
		}
	}
	return errors.Join(all...)
}

// vendoredRules are the rules of the adapted package that have a value, with their
// paths below its root, in the order of the sources.
func (p *pack) vendoredRules() iter.Seq2[string, *ast.Rule] {
	return func(yield func(string, *ast.Rule) bool) {
		for _, name := range slices.Sorted(maps.Keys(p.vendored)) {
			m := p.vendored[name]
			below := m.Package.Path[len(p.Adapts.root()):]
			for _, r := range m.Rules {
				if len(r.Head.Args) == 0 && !yield(pathOf(slices.Concat(below, tail(r.Head.Ref().GroundPrefix()))), r) {
					return
				}
			}
		}
	}
}

// entryRules are the rules of an entry point, without its default.
func (p *pack) entryRules(entry string) []*ast.Rule {
	var out []*ast.Rule
	for name, r := range p.vendoredRules() {
		if name == entry && !r.Default {
			out = append(out, r)
		}
	}
	return out
}

// tail is the reference in the head of a rule, as steps below its package.
func tail(r ast.Ref) ast.Ref {
	out := ast.Ref{ast.StringTerm(string(r[0].Value.(ast.Var)))}
	return append(out, r[1:]...)
}

// pathOf writes constant steps with dots between.
func pathOf(steps ast.Ref) string {
	var out []string
	for _, t := range steps {
		s, ok := t.Value.(ast.String)
		if !ok {
			s = ast.String(t.Value.String())
		}
		out = append(out, string(s))
	}
	return strings.Join(out, ".")
}

// schematise has the compiler hold what the package reads of its input against
// what the wrapper shows to it, instead of against the input of packs. Schemas in
// a package's own METADATA say nothing about this host.
func (p *pack) schematise(shown any) {
	for _, m := range p.vendored {
		for _, a := range m.Annotations {
			a.Schemas = nil
		}
	}
	done := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.vendored)) {
		m := p.vendored[name]
		pkg := m.Package.Path.String()
		if done[pkg] {
			continue
		}
		done[pkg] = true
		schema := []*ast.SchemaAnnotation{{Path: ast.InputRootRef, Definition: &shown}}
		if own := p.packageAnnotation(pkg); own != nil {
			own.Schemas = schema
			continue
		}
		a := &ast.Annotations{Scope: "package", Schemas: schema, Location: m.Package.Location}
		m.Annotations = append(m.Annotations, a.Copy(m.Package))
	}
}

// packageAnnotation is the one METADATA a package can have for all its files.
func (p *pack) packageAnnotation(pkg string) *ast.Annotations {
	for _, m := range p.vendored {
		for _, a := range m.Annotations {
			if a.Scope == "package" && m.Package.Path.String() == pkg {
				return a
			}
		}
	}
	return nil
}
