package author

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/open-policy-agent/opa/v1/util"
)

// InitAdapter adds a pack that adapts the package in a file or directory: its
// files as they are, and a wrapper, fixtures and tests made from the rules it
// exports and the fields it reads. What a field is here only a person can say,
// so the pack does not load until that is done.
func InitAdapter(dir, id, from string) ([]string, error) {
	if err := newPack(dir, id); err != nil {
		return nil, err
	}
	s, err := readStranger(from)
	if err != nil {
		return nil, err
	}
	entries, err := s.entries(id)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	pack := path.Join(filepath.ToSlash(dir), "packs", id)
	for name, b := range s.files {
		out[path.Join(pack, "vendor", name)] = b
	}
	call, err := aCall()
	if err != nil {
		return nil, err
	}
	form := adapterForm{ID: id, Package: s.root, Entries: entries, Input: hostInput(s.reads), Call: call}
	fixtures := path.Join(filepath.ToSlash(dir), "fixtures", id)
	for name, to := range map[string]string{
		"adapter.rego": pack, "adapter_test.rego": pack, "pack.yaml": pack, "README.md": pack, "call.yaml": fixtures, "empty.yaml": fixtures,
	} {
		if out[path.Join(to, name)], err = form.fill(name); err != nil {
			return nil, err
		}
	}
	return write(out)
}

// adapterForm is what the files of the scaffold are filled with.
type adapterForm struct {
	ID, Package, Input, Call string
	Entries                  []adaptedEntry
}

func (f adapterForm) fill(name string) ([]byte, error) {
	t, err := template.ParseFS(scaffold, "scaffold/adapter/"+name+".tmpl")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, f); err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".rego") {
		return formatSource(name, b.Bytes())
	}
	return fillCall(b.Bytes())
}

// Roles are the entry points as pack.yaml lists them.
func (f adapterForm) Roles() []struct{ Role, Names string } {
	var out []struct{ Role, Names string }
	for _, role := range []string{"allow", "deny", "warn"} {
		var names []string
		for _, e := range f.Entries {
			if e.Role == role {
				names = append(names, strings.TrimPrefix(e.Path, "data."+f.Package+"."))
			}
		}
		if len(names) > 0 {
			out = append(out, struct{ Role, Names string }{role, strings.Join(names, ", ")})
		}
	}
	return out
}

// list joins one property of the entries, each value once, in order.
func (f adapterForm) list(of func(adaptedEntry) string) string {
	var out []string
	for _, e := range f.Entries {
		out = append(out, of(e))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// Effects are those the findings may have.
func (f adapterForm) Effects() string {
	return f.list(func(e adaptedEntry) string { return e.Effect })
}

// Strongest is the effect on a call of which nothing can be shown.
func (f adapterForm) Strongest() string { return strings.Split(f.Effects(), ", ")[0] } // deny sorts before the other

// EmptyRules are the rules that hold then, strongest first.
func (f adapterForm) EmptyRules() string {
	all := slices.Clone(f.Entries)
	slices.SortFunc(all, func(a, b adaptedEntry) int {
		return slices.Compare([]string{a.Effect, a.Rule}, []string{b.Effect, b.Rule})
	})
	var out []string
	for _, e := range all {
		out = append(out, e.Rule)
	}
	return strings.Join(out, ", ")
}

// EmptyCodes are their codes.
func (f adapterForm) EmptyCodes() string {
	return f.list(func(e adaptedEntry) string { return e.Code })
}

// EmptyAsks are the entries that ask for consent.
func (f adapterForm) EmptyAsks() []adaptedEntry {
	return slices.DeleteFunc(slices.Clone(f.Entries), func(e adaptedEntry) bool { return !e.Asks })
}

// perhaps are fields of other hosts and what may be meant by them here.
var perhaps = map[string]string{
	"action": "input.call.capability", "operation": "input.call.capability", "method": "input.call.capability",
	"tool": "input.task.capability", "capability": "input.call.capability", "safety": "input.call.safety",
	"role": "input.session.role", "agent": "input.agent.id", "session": "input.session.id", "domain": "input.agent.domain",
	"labels": "input.labels", "sinks": "input.sinks", "paths": "input.scopes.requested", "resources": "input.scopes.requested",
	"scopes": "input.scopes.requested",
}

// hostInput writes the object that their rules see out, with a name in place of
// every value that nobody has given yet: the compiler knows none of them.
func hostInput(reads [][]string) string {
	if len(reads) == 0 {
		return "{\"capability\": input.call.capability}"
	}
	var b strings.Builder
	b.WriteString("{\n")
	for i := 0; i < len(reads); {
		key, j := reads[i][0], i
		for ; j < len(reads) && reads[j][0] == key; j++ {
		}
		fmt.Fprintf(&b, "\t%q: %s", key, valueOf(reads[i:j], 1, key))
		i = j
	}
	b.WriteString("}")
	return b.String()
}

// valueOf is the value at a depth of paths that have the same beginning.
func valueOf(reads [][]string, depth int, name string) string {
	if len(reads[0]) == depth {
		hint := ""
		if may := perhaps[reads[0][depth-1]]; may != "" {
			hint = " # perhaps " + may
		}
		return "todo_" + word(name) + "," + hint + "\n"
	}
	var b strings.Builder
	b.WriteString("{\n")
	for i := 0; i < len(reads); {
		key, j := reads[i][depth], i
		for ; j < len(reads) && reads[j][depth] == key; j++ {
		}
		fmt.Fprintf(&b, "%s%q: %s", strings.Repeat("\t", depth+1), key, valueOf(reads[i:j], depth+1, name+"_"+key))
		i = j
	}
	b.WriteString(strings.Repeat("\t", depth) + "},\n")
	return b.String()
}

// word makes a name of any text.
func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}

// aCall is the input of a built-in fixture, as Rego.
func aCall() (string, error) {
	b, err := fillCall([]byte("input:\n  CALL that writes fs:repo/site/\n"))
	if err != nil {
		return "", err
	}
	var doc struct {
		Input json.RawMessage `json:"input"`
	}
	if err := util.Unmarshal(b, &doc); err != nil {
		return "", err
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, doc.Input, "", "\t"); err != nil {
		return "", err
	}
	return pretty.String(), nil
}
