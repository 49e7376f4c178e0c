package webhooks

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
)

// eventTest is the event an operator sends by hand.
const eventTest writ.Event = "webhook.test"

// message is the body of every webhook.
type message struct {
	Type      writ.Event `json:"type"`
	Timestamp string     `json:"timestamp"`
	Data      any        `json:"data"`
}

// approvalData is what is told of an approval: what it takes to look it up and
// to say who may decide it, and nothing of what the call is about.
type approvalData struct {
	Approval   writ.ApprovalID    `json:"approval_id"`
	State      writ.ApprovalState `json:"state"`
	Kind       writ.ApprovalKind  `json:"kind"`
	Scope      writ.ApprovalScope `json:"scope"`
	Capability writ.CapabilityID  `json:"capability"`
	Roles      []writ.Role        `json:"roles"`
	Approvers  int64              `json:"approvers"`
	ExpiresAt  string             `json:"expires_at"`
	Run        writ.RunID         `json:"run_id,omitempty"`
	Task       writ.TaskID        `json:"task_id,omitempty"`
	Rules      []string           `json:"rule_ids"`
	Receipt    writ.ReceiptID     `json:"receipt"`
	URL        string             `json:"url,omitempty"`
}

// callData is what is told of an allowed call.
type callData struct {
	Receipt    writ.ReceiptID    `json:"receipt"`
	Capability writ.CapabilityID `json:"capability"`
	Rules      []string          `json:"rule_ids"`
}

// body renders a notice. Of the approval it uses what never changes; what does
// is in the notice, so that every delivery has the same bytes. public is where
// people reach the gateway, if it is known.
func body(n writ.Notice, a writ.Approval, public string) ([]byte, error) {
	m := message{Type: n.Event, Timestamp: writ.FormatTime(n.At)}
	if n.Event == writ.EventPolicyNotify {
		m.Data = callData{Receipt: n.Receipt, Capability: n.Capability, Rules: append([]string{}, n.Rules...)}
		return json.Marshal(m)
	}
	d := approvalData{
		Approval: n.Approval, State: n.State, Scope: a.Scope, Capability: a.Capability, Roles: []writ.Role{}, ExpiresAt: writ.FormatTime(a.ExpiresAt),
		Run: a.Run, Task: a.Task, Rules: []string{}, Receipt: n.Receipt,
	}
	for i, need := range a.Needs {
		if i == 0 {
			d.Kind = need.Kind
		}
		d.Roles = append(d.Roles, need.Roles...)
		d.Approvers = max(d.Approvers, need.Approvers)
		d.Rules = append(d.Rules, need.Rule)
	}
	slices.Sort(d.Roles)
	d.Roles = slices.Compact(d.Roles)
	if public != "" {
		d.URL = strings.TrimSuffix(public, "/") + "/v1/approvals/" + string(n.Approval)
	}
	m.Data = d
	return json.Marshal(m)
}

// probe is the body of a webhook.test.
func probe(at time.Time) ([]byte, error) {
	return json.Marshal(message{Type: eventTest, Timestamp: writ.FormatTime(at.UnixMilli()), Data: struct{}{}})
}
