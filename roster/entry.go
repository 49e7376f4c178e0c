package roster

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
)

// leftOut are members such files have elsewhere and that are nothing to the gateway.
var leftOut = []string{"runtime_bindings", "project_binding", "terminal_binding"}

// scope is which of its tools an agent may be given.
type scope struct {
	Prefixes []string `json:"include_prefixes"`
	Keys     []string `json:"include_keys"`
	Exclude  []string `json:"exclude_keys"`
}

// toolEntry is a tool as files write it: its capability, or a name that is one.
type toolEntry struct {
	writ.Tool
	Name       string            `json:"name"`
	Capability writ.CapabilityID `json:"capability"`
}

func (r *reader) entry(n *yaml.Node, at string) (e Entry) {
	m := r.members(n, at)
	if m == nil {
		return e
	}
	var status, contract string
	var flat, archetypes []string
	fields := map[string]any{
		"id": &e.ID, "name": &e.Name, "description": &e.Description, "domain": &e.Domain, "archetypes": &archetypes,
		"write_scope": &e.WriteScope, "shares_write_scope": &e.SharesScope, "owns": &e.Owns, "defers": &e.Defers,
		"contract": &contract, "gates": &e.Gates, "work_gates": &e.WorkGates, "max_concurrent_tasks": &e.MaxConcurrent, "routing": &e.Routing, "keys": &e.Keys,
		"implementation_status": &status, "superseded_by": &e.SupersededBy, "capabilities": &flat,
		"capabilities_scope": nil, "mcp_tools": nil, "tools": nil,
	}
	for name, v := range m {
		into, known := fields[name]
		switch {
		case name == "endpoints" || name == "health_policy":
			r.warn(v, at+"/"+name, "is left out: register it with writ agent register, which an import does not undo")
		case slices.Contains(leftOut, name):
			r.warn(v, at+"/"+name, "is left out: the registry of this gateway does not hold it")
		case !known:
			r.add(v, at+"/"+escape(name), "there is no such member")
		case into != nil:
			r.into(v, at+"/"+name, into)
		}
	}
	if b := m["project_binding"]; b != nil && b.Kind == yaml.MappingNode {
		if id := r.members(b, at)["agent_id"]; id != nil && id.Value != string(e.ID) {
			r.add(id, at+"/project_binding/agent_id", "is not the id of the agent")
		}
	}
	need := func(name string, ok bool, msg string) {
		if !ok {
			r.add(pick(m[name], n), at+"/"+name, msg)
		}
	}
	need("id", e.ID.Valid(), "must be a slug: lower-case letters, digits and -, at least two")
	need("domain", writ.ValidSlug(e.Domain), "must be a slug")
	e.ContractRef = contract
	e.Archetypes = roles(archetypes)
	for i, a := range e.Archetypes {
		if a != writ.RoleOrchestrator && a != writ.RoleExecutor && a != writ.RoleVerifier || slices.Contains(e.Archetypes[:i], a) {
			r.add(pick(m["archetypes"], n), fmt.Sprintf("%s/archetypes/%d", at, i), "must be orchestrator, executor or verifier, each once")
		}
	}
	e.State = writ.AgentState(status)
	if status == "" {
		e.State = writ.AgentPlanned
	}
	_, known := writ.AgentMoves[e.State]
	need("implementation_status", known, "must be planned, active, suspended, superseded or retired")
	need("superseded_by", (e.State == writ.AgentSuperseded) == (e.SupersededBy != "") && (e.SupersededBy == "" || e.SupersededBy.Valid() && e.SupersededBy != e.ID),
		"names another agent for one that is superseded, and for no other")
	for i, s := range e.WriteScope {
		c, err := writ.CanonicalScope(s)
		if err != nil {
			r.add(pick(m["write_scope"], n), fmt.Sprintf("%s/write_scope/%d", at, i), "is no resource URI: "+writ.ScopeForm)
			continue
		}
		e.WriteScope[i] = c
	}
	for i, c := range e.Owns {
		if !writ.ValidSlug(c) || slices.Contains(e.Owns[:i], c) {
			r.add(pick(m["owns"], n), fmt.Sprintf("%s/owns/%d", at, i), "must be a slug, named once")
		}
	}
	for i, d := range e.Defers {
		if !writ.ValidSlug(d.Concern) || !d.To.Valid() || d.To == e.ID || slices.Contains(e.Owns, d.Concern) {
			r.add(pick(m["defers"], n), fmt.Sprintf("%s/defers/%d", at, i), "must leave a concern it does not own to another agent")
		}
	}
	r.tools(&e, m, flat, n, at)
	return e
}

// tools brings the ways in which files say what an agent can do into one.
func (r *reader) tools(e *Entry, m map[string]*yaml.Node, flat []string, n *yaml.Node, at string) {
	declare := func(t writ.Tool, n *yaml.Node, pointer string) {
		switch {
		case !t.Name.Valid():
			r.add(n, pointer, "names no capability such as site.build")
		case slices.ContainsFunc(e.Tools, func(x writ.Tool) bool { return x.Name == t.Name }):
			r.add(n, pointer, "is declared twice")
		default:
			e.Tools = append(e.Tools, t)
		}
	}
	for _, name := range []string{"tools", "mcp_tools"} {
		list := m[name]
		if list == nil {
			continue
		}
		if list.Kind != yaml.SequenceNode {
			r.add(list, at+"/"+name, "must be a list")
			continue
		}
		for i, one := range list.Content {
			pointer := fmt.Sprintf("%s/%s/%d", at, name, i)
			var t toolEntry
			if !r.into(one, pointer, &t) {
				continue
			}
			t.Tool.Name = t.Capability
			if t.Capability == "" {
				t.Tool.Name = writ.CapabilityID(t.Name)
			}
			if t.Safety == "" {
				t.Safety = writ.SafetyMutating
			}
			if !slices.Contains([]writ.Safety{writ.SafetyReadOnly, writ.SafetyMutating, writ.SafetyDestructive, writ.SafetyBlocked}, t.Safety) {
				r.add(one, pointer+"/safety", "must be read-only, mutating, destructive or blocked")
			}
			declare(t.Tool, one, pointer)
		}
	}
	var s scope
	r.into(m["capabilities_scope"], at+"/capabilities_scope", &s)
	include := func(keys []string, node *yaml.Node, pointer string) {
		for i, k := range keys {
			if _, ok := find(e.Tools, k); !ok {
				declare(writ.Tool{Name: writ.CapabilityID(k), Safety: writ.SafetyMutating}, pick(node, n), fmt.Sprintf("%s/%d", pointer, i))
			}
		}
	}
	include(flat, m["capabilities"], at+"/capabilities") // the older form: a flat list of keys
	include(s.Keys, m["capabilities_scope"], at+"/capabilities_scope/include_keys")
	if node := m["capabilities_scope"]; node != nil {
		wanted := func(name writ.CapabilityID) bool {
			return slices.Contains(s.Keys, string(name)) || slices.Contains(flat, string(name)) ||
				slices.ContainsFunc(s.Prefixes, func(p string) bool { return strings.HasPrefix(string(name), p) })
		}
		if len(s.Keys)+len(s.Prefixes)+len(flat) == 0 {
			r.add(node, at+"/capabilities_scope", "includes nothing")
		}
		for i, p := range s.Prefixes {
			if p == "" || !slices.ContainsFunc(e.Tools, func(t writ.Tool) bool { return strings.HasPrefix(string(t.Name), p) }) {
				r.add(node, fmt.Sprintf("%s/capabilities_scope/include_prefixes/%d", at, i), "matches none of the agent's tools")
			}
		}
		for i, x := range s.Exclude {
			if _, ok := find(e.Tools, x); !ok {
				r.add(node, fmt.Sprintf("%s/capabilities_scope/exclude_keys/%d", at, i), "names none of the agent's tools")
			}
		}
		e.Tools = slices.DeleteFunc(e.Tools, func(t writ.Tool) bool { return !wanted(t.Name) || slices.Contains(s.Exclude, string(t.Name)) })
	}
	if e.State == writ.AgentActive && slices.Contains(e.Archetypes, writ.RoleExecutor) && len(e.Tools) == 0 {
		r.add(n, at, "an executor that is active needs at least one tool")
	}
}

func find(tools []writ.Tool, name string) (writ.Tool, bool) {
	return writ.Agent{Tools: tools}.Tool(writ.CapabilityID(name))
}

func roles(names []string) []writ.Role {
	if len(names) == 0 {
		return []writ.Role{writ.RoleExecutor}
	}
	out := make([]writ.Role, len(names))
	for i, n := range names {
		out[i] = writ.Role(n)
	}
	return out
}

// pick is a node, or the one around it when it is not there.
func pick(n, around *yaml.Node) *yaml.Node {
	if n != nil {
		return n
	}
	return around
}

// together finds what is wrong between entries.
func (r *reader) together(all []Entry, nodes []*yaml.Node) {
	for i, e := range all {
		at := fmt.Sprintf("/agents/%d", i)
		for _, o := range all[:i] {
			if e.ID != "" && e.ID == o.ID {
				r.add(nodes[i], at+"/id", "is the id of another entry")
			}
			if e.State != writ.AgentActive || o.State != writ.AgentActive {
				continue
			}
			for j, c := range e.Owns {
				if e.Domain == o.Domain && slices.Contains(o.Owns, c) {
					r.add(nodes[i], fmt.Sprintf("%s/owns/%d", at, j), "is owned by another active agent of the domain")
				}
			}
			if e.SharesScope && o.SharesScope {
				continue
			}
			for j, s := range e.WriteScope {
				if slices.ContainsFunc(o.WriteScope, func(x string) bool { return writ.ScopesOverlap(s, x) }) {
					r.add(nodes[i], fmt.Sprintf("%s/write_scope/%d", at, j), "overlaps that of another active agent, and not both share theirs")
				}
			}
		}
	}
}
