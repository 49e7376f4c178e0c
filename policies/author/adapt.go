package author

import (
	"cmp"
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

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/writ-gateway/writ/policies"
)

// stranger is a package written for another host, as it is found.
type stranger struct {
	files map[string][]byte // by name below vendor/
	from  map[string]string // where each was found
	root  string            // package above all of it
	rules map[string]*ast.Rule
	deflt map[string]bool // rules that have a default
	reads [][]string      // fields of its input, longest paths only
}

// readStranger reads the .rego files of a file or directory.
func readStranger(from string) (*stranger, error) {
	s := &stranger{files: map[string][]byte{}, from: map[string]string{}, rules: map[string]*ast.Rule{}, deflt: map[string]bool{}}
	err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".rego" {
			return err
		}
		inside, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		if inside == "." {
			inside = filepath.Base(name)
		}
		b, err := read(os.DirFS(filepath.Dir(name)), filepath.Base(name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		flat := strings.ReplaceAll(filepath.ToSlash(inside), "/", "_")
		if s.files[flat] != nil {
			return fmt.Errorf("%s: another file has this name too, and vendor/ has no directories; rename one of the two", name)
		}
		s.files[flat], s.from[flat] = b, filepath.ToSlash(name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, s.understand(from)
}

// understand finds the package, its rules and what it reads.
func (s *stranger) understand(from string) error {
	var modules []*ast.Module
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		m, err := policies.ParseVendored(s.from[name], s.files[name])
		if err != nil {
			return err
		}
		modules = append(modules, m)
	}
	if len(modules) == 0 {
		return fmt.Errorf("%s holds no .rego files but tests", from)
	}
	root := modules[0].Package.Path
	for _, m := range modules {
		for !m.Package.Path.HasPrefix(root) {
			root = root[:len(root)-1]
		}
	}
	if len(root) < 2 {
		return errors.New("the files have no package in common; adapt one package at a time")
	}
	s.root = dots(root[1:])
	for _, m := range modules {
		for _, r := range m.Rules {
			if len(r.Head.Args) > 0 {
				continue
			}
			head := r.Head.Ref().GroundPrefix()
			name := dots(slices.Concat(m.Package.Path[len(root):], ast.Ref{ast.StringTerm(head[0].Value.String())}, head[1:]))
			if r.Default {
				s.deflt[name] = true
			}
			if s.rules[name] == nil || s.rules[name].Default {
				s.rules[name] = r
			}
		}
		s.fields(m)
	}
	s.reads = longest(s.reads)
	return nil
}

func dots(r ast.Ref) string { return strings.Join(constants(r), ".") }

// fields notes what a module reads of its input.
func (s *stranger) fields(m *ast.Module) {
	ast.WalkRefs(m, func(r ast.Ref) bool {
		if r.HasPrefix(ast.InputRootRef) && len(r) > 1 {
			if path := constants(r[1:]); len(path) > 0 {
				s.reads = append(s.reads, path)
			}
		}
		return false
	})
}

// longest drops paths that lead to others, and repetitions.
func longest(all [][]string) [][]string {
	slices.SortFunc(all, slices.Compare)
	var out [][]string
	for i, p := range all {
		if i+1 == len(all) || len(all[i+1]) < len(p) || !slices.Equal(all[i+1][:len(p)], p) {
			out = append(out, p)
		}
	}
	return out
}

// The names by which hosts ask; a suffix makes several of a kind.
var (
	allowNames = regexp.MustCompile(`(^|\.)allow$`)
	denyNames  = regexp.MustCompile(`(^|\.)(deny|violation)(_\w+)?$`)
	warnNames  = regexp.MustCompile(`(^|\.)warn(_\w+)?$`)
)

// past names what the usual answers come to.
var past = map[string]string{"allow": "not_allowed", "deny": "denied", "warn": "warned"}

// adaptedEntry is an entry point and what the wrapper makes of it.
type adaptedEntry struct {
	Role, Name, Path, Rule, Helper, Question, Good, Bad string
	Title, Says, Message, Effect, Code                  string
	Asks                                                bool // for a person's consent
}

// entries are the rules by which the package is asked.
func (s *stranger) entries(id string) ([]adaptedEntry, error) {
	var out []adaptedEntry
	for _, name := range slices.Sorted(maps.Keys(s.rules)) {
		word := strings.ReplaceAll(name, ".", "_")
		e := adaptedEntry{
			Name: word, Path: "data." + s.root + "." + name, Helper: "_passes_" + word,
			Rule:   id + "." + cmp.Or(past[name], strings.ToLower(word)),
			Effect: "deny", Code: "policy_denied", Title: "Denied by " + name,
		}
		switch {
		case allowNames.MatchString(name):
			e.Role, e.Rule, e.Title = "allow", id+"."+cmp.Or(past[name], "not_"+strings.ToLower(word)), "Not allowed by "+name
			e.Says, e.Message = "Their `"+name+"` is not true", "the rules of another host do not allow the call"
			e.Question, e.Good, e.Bad = e.Path+" == true", "true", "false"
			out = append(out, e)
			continue
		case denyNames.MatchString(name):
			e.Role, e.Message = "deny", "the rules of another host deny the call"
		case warnNames.MatchString(name):
			e.Role, e.Message = "warn", "the rules of another host warn of the call; a person may let it happen"
			e.Effect, e.Code, e.Asks, e.Title = "require_approval", "approval_required", true, "Warned by "+name
		default:
			continue
		}
		e.Says, e.Question, e.Good, e.Bad = "Their `"+name+"` is not empty", "count("+e.Path+") == 0", "set()", `{"no"}`
		if truth(s.rules[name]) {
			if !s.deflt[name] {
				return nil, fmt.Errorf("%s.%s is true or undefined, and what is undefined denies: put one more file beside theirs, with `package %s` and `default %s := false`",
					s.root, name, s.root, name)
			}
			e.Says, e.Question, e.Good, e.Bad = "Their `"+name+"` is not false", e.Path+" == false", "false", "true"
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no rule called allow, deny, violation or warn, it has %s; write the pack by hand, with these as adapts.entrypoints",
			s.root, strings.Join(slices.Sorted(maps.Keys(s.rules)), ", "))
	}
	if !slices.ContainsFunc(out, func(e adaptedEntry) bool { return !e.Asks }) {
		return nil, fmt.Errorf("%s only warns, and a pack must deny what it cannot judge; write the pack by hand, with its rules as adapts.entrypoints.deny", s.root)
	}
	slices.SortStableFunc(out, func(a, b adaptedEntry) int { return cmp.Compare(a.Role, b.Role) })
	return out, nil
}

// truth says whether a rule is true or false, and no set.
func truth(r *ast.Rule) bool {
	if r.Head.RuleKind() != ast.SingleValue || r.Head.Value == nil || len(r.Head.Ref()) != len(r.Head.Ref().GroundPrefix()) {
		return false
	}
	_, ok := r.Head.Value.Value.(ast.Boolean)
	return ok
}
