// Package roster reads and writes the registry of agents as a file: YAML that people
// keep under review, in the shape such files have elsewhere. It says everything that
// is wrong with a file at once, each with its place, and calls nothing.
//
// A file is {agents: [entry, …]}. What an entry may do are its tools. They are
// written down as mcp_tools or tools, as a flat list of capabilities, or as
// capabilities_scope with include_keys, include_prefixes and exclude_keys; Read
// brings all of them into the one form the gateway has, and exclude_keys win.
package roster

import "github.com/writ-gateway/writ"

// Entry is one agent: what agent.register takes, and where it should stand.
type Entry struct {
	ID            writ.AgentID    `json:"agent_id"`
	Name          string          `json:"name,omitempty"`
	Description   string          `json:"description,omitempty"`
	Archetypes    []writ.Role     `json:"archetypes"`
	Domain        string          `json:"domain"`
	Tools         []writ.Tool     `json:"tools,omitempty"`
	WriteScope    []string        `json:"write_scope,omitempty"`
	SharesScope   bool            `json:"shares_write_scope,omitempty"`
	Owns          []string        `json:"owns,omitempty"`
	Defers        []writ.Deferral `json:"defers,omitempty"`
	ContractRef   string          `json:"contract_ref,omitempty"`
	Gates         []string        `json:"gates,omitempty"`
	WorkGates     []string        `json:"work_gates,omitempty"`
	MaxConcurrent int64           `json:"max_concurrent_tasks,omitempty"`
	Routing       *writ.Routing   `json:"routing,omitempty"`
	Keys          []string        `json:"keys,omitempty"`

	State        writ.AgentState `json:"-"`
	Watched      bool            `json:"-"` // the gateway has endpoints or a health policy of it, which no file holds: addresses may carry secrets
	SupersededBy writ.AgentID    `json:"-"`
}

// Problem is one thing that is wrong with a file, and where.
type Problem struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Pointer string `json:"pointer"` // JSON pointer (RFC 6901)
	Msg     string `json:"message"`
	Warning bool   `json:"warning,omitempty"` // it is read, and this part of it left out
}
