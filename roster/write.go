package roster

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/writ-gateway/writ"
)

// Write writes entries as a file that Read gives the same entries for, by id.
func Write(all []Entry) ([]byte, error) {
	all = slices.SortedFunc(slices.Values(all), func(a, b Entry) int { return cmp.Compare(a.ID, b.ID) })
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for _, e := range all {
		n, err := object(
			"id", e.ID, "name", e.Name, "description", e.Description, "domain", e.Domain, "archetypes", e.Archetypes,
			"implementation_status", e.State, "superseded_by", e.SupersededBy, "contract", e.ContractRef, "mcp_tools", e.Tools,
			"write_scope", e.WriteScope, "shares_write_scope", e.SharesScope, "owns", e.Owns, "defers", e.Defers, "gates", e.Gates, "work_gates", e.WorkGates,
			"routing", e.Routing, "max_concurrent_tasks", e.MaxConcurrent, "keys", e.Keys)
		if err != nil {
			return nil, err
		}
		list.Content = append(list.Content, n)
	}
	root := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: "agents"}, list}}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// object is a mapping with the members that say something, in their order.
func object(members ...any) (*yaml.Node, error) {
	out := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(members); i += 2 {
		b, err := json.Marshal(members[i+1])
		if err != nil {
			return nil, err
		}
		switch string(b) {
		case `""`, "null", "[]", "false", "0":
			continue
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		n := &yaml.Node{}
		if err := n.Encode(numbers(v)); err != nil {
			return nil, err
		}
		out.Content = append(out.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: members[i].(string)}, n)
	}
	return out, nil
}

// numbers turns JSON numbers into ones that YAML writes without quotes, 1.0 and 1e0
// into what 1 is turned into.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// Same says whether the gateway would store the same for two entries, wherever they
// stand: registering one over the other changes nothing.
func Same(a, b Entry) bool {
	x, err := json.Marshal(a.stored())
	if err != nil {
		return false
	}
	y, err := json.Marshal(b.stored())
	return err == nil && bytes.Equal(x, y)
}

// stored is an entry as the gateway keeps it, as far as that can be told here.
func (e Entry) stored() Entry {
	e.Owns, e.Gates, e.WorkGates = slices.Sorted(slices.Values(e.Owns)), slices.Sorted(slices.Values(e.Gates)), slices.Sorted(slices.Values(e.WorkGates))
	e.Defers = slices.SortedFunc(slices.Values(e.Defers), func(a, b writ.Deferral) int { return cmp.Compare(a.Concern, b.Concern) })
	e.Tools = slices.Clone(e.Tools)
	for i := range e.Tools {
		if schema := e.Tools[i].InputSchema; len(schema) > 0 { // blanks, the order of members and 1.0 for 1 make no difference
			var v any
			d := json.NewDecoder(bytes.NewReader(schema))
			d.UseNumber()
			if d.Decode(&v) == nil {
				e.Tools[i].InputSchema, _ = json.Marshal(numbers(v))
			}
		}
	}
	e.Keys = slices.Clone(e.Keys)
	for i := range e.Keys {
		e.Keys[i] = strings.TrimSpace(e.Keys[i])
	}
	if e.MaxConcurrent == 0 {
		e.MaxConcurrent = 4
	}
	if r := e.Routing; r != nil {
		n := writ.Routing{Priority: r.Priority}
		for _, k := range r.Keywords {
			n.Keywords = append(n.Keywords, strings.Join(strings.Fields(norm.NFKC.String(cases.Fold().String(norm.NFKC.String(k)))), " "))
		}
		slices.Sort(n.Keywords)
		if e.Routing = &n; len(n.Keywords) == 0 && n.Priority == 0 {
			e.Routing = nil
		}
	}
	return e
}
