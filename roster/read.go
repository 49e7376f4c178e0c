package roster

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file.
const (
	MaxBytes  = 4 << 20
	MaxAgents = 1000
	maxDepth  = 64
)

// Read reads a file. Entries are in the order of the file, in the form the gateway
// stores; with a problem that is no warning nothing may be done with them.
func Read(b []byte) (out []Entry, problems []Problem) {
	r := &reader{}
	if len(b) > MaxBytes {
		r.addAt(nil, "the file is larger than 4 MiB")
		return nil, r.problems
	}
	if !r.text(b) {
		return nil, r.problems
	}
	var doc yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&doc); err != nil {
		r.unread(b, err)
		return nil, r.problems
	}
	var more yaml.Node
	if err := d.Decode(&more); err == nil {
		r.add(&more, "", "holds more than one document")
		return nil, r.problems
	} else if !errors.Is(err, io.EOF) {
		r.unread(b, err)
		return nil, r.problems
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || !r.plain(doc.Content[0], "", 0) {
		if len(r.problems) == 0 {
			r.add(&doc, "", "must be an object with the member agents")
		}
		return nil, r.problems
	}
	root := r.members(doc.Content[0], "")
	for name, n := range root {
		if name != "agents" && name != "version" && name != "routing_rules" {
			r.add(n, "/"+name, "there is no such member")
		}
	}
	if n := root["routing_rules"]; n != nil {
		r.warn(n, "/routing_rules", "is left out: each agent names its own words under routing")
	}
	list := root["agents"]
	switch {
	case list == nil || list.Kind != yaml.SequenceNode:
		r.add(cmp.Or(list, doc.Content[0]), "/agents", "must be a list of agents")
		return nil, r.problems
	case len(list.Content) > MaxAgents:
		r.add(list, "/agents", "holds more than 1000 agents")
		return nil, r.problems
	}
	for i, n := range list.Content {
		e := r.entry(n, fmt.Sprintf("/agents/%d", i))
		out = append(out, e)
	}
	r.together(out, list.Content)
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Pointer, b.Pointer), strings.Compare(a.Msg, b.Msg))
	})
	return out, r.problems
}

// Sound says whether there are warnings at most.
func Sound(all []Problem) bool {
	return !slices.ContainsFunc(all, func(p Problem) bool { return !p.Warning })
}

type reader struct{ problems []Problem }

func (r *reader) add(n *yaml.Node, pointer, msg string) {
	p := Problem{Pointer: pointer, Msg: msg}
	if n != nil {
		p.Line, p.Column = n.Line, n.Column
	}
	r.problems = append(r.problems, p)
}

func (r *reader) warn(n *yaml.Node, pointer, msg string) {
	r.add(n, pointer, msg)
	r.problems[len(r.problems)-1].Warning = true
}

const anchored = "uses an anchor or an alias: write it out"

// plain refuses what makes a file say something else than it shows: aliases, merge
// keys, tags, times, names that are no text, and names that stand twice.
func (r *reader) plain(n *yaml.Node, pointer string, depth int) bool {
	ok := true
	bad := func(n *yaml.Node, pointer, msg string) { r.add(n, pointer, msg); ok = false }
	switch {
	case depth > maxDepth:
		bad(n, pointer, "is nested too deeply")
		return false
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		bad(n, pointer, anchored)
		return false
	case n.Tag == "!!timestamp":
		bad(n, pointer, "reads as a time: put it into quotes")
	case n.Style&yaml.TaggedStyle != 0:
		bad(n, pointer, "has a tag: write the plain value")
	}
	switch n.Kind {
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			at := pointer + "/" + escape(k.Value)
			switch {
			case k.Kind != yaml.ScalarNode || k.Tag != "!!str" || k.Anchor != "":
				bad(k, pointer, "has a name that is no text")
				continue
			case seen[k.Value]:
				bad(k, at, "stands here twice")
			}
			seen[k.Value] = true
			ok = r.plain(n.Content[i+1], at, depth+1) && ok
		}
	case yaml.SequenceNode:
		for i, one := range n.Content {
			ok = r.plain(one, fmt.Sprintf("%s/%d", pointer, i), depth+1) && ok
		}
	}
	return ok
}

func escape(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }

// members are the values of an object by name; nil when it is none.
func (r *reader) members(n *yaml.Node, pointer string) map[string]*yaml.Node {
	if n.Kind != yaml.MappingNode {
		r.add(n, pointer, "must be an object")
		return nil
	}
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i+1]
	}
	return out
}

// into decodes a value by way of JSON, so that it is held to the form the gateway
// takes, unknown members included, and says whether it is.
func (r *reader) into(n *yaml.Node, pointer string, v any) bool {
	if n == nil {
		return true
	}
	if odd := oddName(n); odd != nil { // JSON would take Safety for safety
		r.add(odd, pointer, "has a member there is not")
		return false
	}
	var plain any
	err := n.Decode(&plain)
	var b []byte
	if err == nil {
		b, err = json.Marshal(plain)
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err == nil {
		return true
	}
	msg := "does not have the form that is wanted here"
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		msg = "must be of another form: " + t.Type.String()
	} else if strings.Contains(err.Error(), "unknown field") {
		msg = "has a member there is not"
	}
	r.add(n, pointer, msg)
	return false
}

// oddName is a name in an object, or in those of a list, that no member has.
func oddName(n *yaml.Node) *yaml.Node {
	for i, one := range n.Content {
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 0 && strings.Trim(one.Value, "abcdefghijklmnopqrstuvwxyz_") != "":
			return one
		case n.Kind == yaml.SequenceNode:
			if odd := oddName(one); odd != nil {
				return odd
			}
		}
	}
	return nil
}
