package client

import (
	"context"

	"github.com/writ-gateway/writ"
)

// AgentOptions describe an agent to register.
type AgentOptions struct {
	ID            writ.AgentID `json:"agent_id"`
	Name          string       `json:"name,omitempty"`
	Description   string       `json:"description,omitempty"`
	Archetypes    []writ.Role  `json:"archetypes"`
	Domain        string       `json:"domain"`
	Tools         []writ.Tool  `json:"tools,omitempty"`
	WriteScope    []string     `json:"write_scope,omitempty"`
	MaxConcurrent int64        `json:"max_concurrent_tasks,omitempty"`

	SharesScope bool            `json:"shares_write_scope,omitempty"`
	Owns        []string        `json:"owns,omitempty"`
	Defers      []writ.Deferral `json:"defers,omitempty"`
	ContractRef string          `json:"contract_ref,omitempty"`
	Gates       []string        `json:"gates,omitempty"`
	WorkGates   []string        `json:"work_gates,omitempty"`
	Routing     *writ.Routing   `json:"routing,omitempty"`

	Endpoints map[string]AgentEndpoint `json:"endpoints,omitempty"`
	Health    *AgentHealthPolicy       `json:"health_policy,omitempty"`
	Keys      []string                 `json:"keys,omitempty"` // PEM
}

// AgentEndpoint is an address the gateway asks whether the agent works. The gateway
// shows no more than Host of it.
type AgentEndpoint struct {
	URL             string  `json:"url,omitempty"`
	Host            string  `json:"url_host,omitempty"` // only shown
	Codes           []int64 `json:"expected_http_codes,omitempty"`
	TimeoutMs       int64   `json:"timeout_ms,omitempty"`
	IntervalSeconds int64   `json:"interval_s,omitempty"`
}

// AgentHealthPolicy says what an agent must show before it gets work. What is zero is
// the gateway's default; no Failures are a pointer to 0.
type AgentHealthPolicy struct {
	Mode            writ.HealthMode `json:"mode,omitempty"`
	MaxAgeSeconds   int64           `json:"max_age_s,omitempty"`
	MinHealthy      int64           `json:"min_healthy,omitempty"`
	Failures        *int64          `json:"failures,omitempty"`
	CoolDownSeconds int64           `json:"cool_down_s,omitempty"`
}

// Agent is a registry entry as the gateway shows it.
type Agent struct {
	AgentOptions
	Keys    []writ.PublicKey `json:"keys"`
	State   writ.AgentState  `json:"state"`
	Receipt writ.ReceiptID   `json:"receipt"`
	Version int64            `json:"version"`

	SupersededBy writ.AgentID     `json:"superseded_by"`
	Revocation   *AgentRevocation `json:"revocation"`
}

// AgentRevocation says how far the revocation of an agent has come.
type AgentRevocation struct {
	At      string         `json:"at"`
	Receipt writ.ReceiptID `json:"receipt"`
	Swept   bool           `json:"swept"`
	SweptAt string         `json:"swept_at"`
}

type agentArg struct {
	ID writ.AgentID `json:"agent_id"`
}

// RegisterAgent adds an agent or replaces one that is planned or suspended, whole: what
// o leaves out it has no more. Options that GetAgent gave are refused while they hold
// endpoints, whose addresses it does not show, and keys are to be named again.
func (c *Client) RegisterAgent(ctx context.Context, o AgentOptions, opts ...Option) (a Agent, err error) {
	_, err = c.Invoke(ctx, "agent.register", o, &a, opts...)
	return a, err
}

// ActivateAgent lets a registered agent open sessions and get work.
func (c *Client) ActivateAgent(ctx context.Context, id writ.AgentID, opts ...Option) (a Agent, err error) {
	_, err = c.Invoke(ctx, "agent.activate", agentArg{id}, &a, opts...)
	return a, err
}

// SuspendAgent stops an agent: its sessions are revoked and its tasks go back
// to the queue.
func (c *Client) SuspendAgent(ctx context.Context, id writ.AgentID, opts ...Option) (a Agent, err error) {
	_, err = c.Invoke(ctx, "agent.suspend", agentArg{id}, &a, opts...)
	return a, err
}

// RevokeAgent stops an agent and all it set going.
func (c *Client) RevokeAgent(ctx context.Context, id writ.AgentID, opts ...Option) (a Agent, err error) {
	_, err = c.Invoke(ctx, "agent.revoke", agentArg{id}, &a, opts...)
	return a, err
}

// GetAgent shows an agent.
func (c *Client) GetAgent(ctx context.Context, id writ.AgentID) (a Agent, err error) {
	_, err = c.Invoke(ctx, "agent.info", agentArg{id}, &a)
	return a, err
}
