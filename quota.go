package writ

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// Metrics of quotas. The unit is in the name; what has none is a number of
// things. Those with a window count what happens in it, the others how many
// there are now.
const (
	QuotaQueued      = "queued_tasks"  // tasks that are blocked or queued
	QuotaRunning     = "running_tasks" // tasks somebody holds
	QuotaClaims      = "claims_per_min"
	QuotaInvocations = "invocations_per_min"
	QuotaTokens      = "tokens_per_day"
	QuotaMoney       = "cost_microusd_per_day"
	QuotaEgress      = "egress_bytes_per_day"
	QuotaArtifacts   = "artifact_bytes"
	QuotaApprovals   = "open_approvals"
	QuotaSchedules   = "schedules"
)

// QuotaMetrics lists what quotas count, or will.
func QuotaMetrics() []string {
	return []string{
		QuotaQueued, QuotaRunning, QuotaClaims, QuotaInvocations, QuotaTokens, QuotaMoney,
		QuotaEgress, QuotaArtifacts, QuotaApprovals, QuotaSchedules,
	}
}

// QuotaWindow is how long a window of a metric is, in milliseconds; 0 for what
// counts how many there are. Windows begin at full minutes and days, UTC.
func QuotaWindow(metric string) int64 {
	switch metric {
	case QuotaClaims, QuotaInvocations:
		return 60_000
	case QuotaTokens, QuotaMoney, QuotaEgress:
		return 24 * 3600_000
	}
	return 0
}

// QuotaSubject says what a quota counts for.
type QuotaSubject string

const (
	QuotaOfTenant     QuotaSubject = "tenant"
	QuotaOfAgent      QuotaSubject = "agent"
	QuotaOfSession    QuotaSubject = "session"
	QuotaOfRole       QuotaSubject = "role"
	QuotaOfCapability QuotaSubject = "capability"
)

// QuotaAction says what becomes of a call that is over a quota.
type QuotaAction string

const (
	QuotaDeny  QuotaAction = "deny"  // it is refused
	QuotaQueue QuotaAction = "queue" // a claim that waits for work waits on; any other call is refused
)

// QuotaState is where a quota stands.
type QuotaState string

const (
	QuotaActive  QuotaState = "active"  // by quota.set
	QuotaDeleted QuotaState = "deleted" // by quota.delete. Terminal.
)

// QuotaMoves are the legal moves of a quota. active → active is another limit or
// action.
var QuotaMoves = Table[QuotaState]{
	"":           {QuotaActive},
	QuotaActive:  {QuotaActive, QuotaDeleted},
	QuotaDeleted: {},
}

// Quota is a limit on how much, or how often, for somebody. There is one per
// metric, subject and value.
type Quota struct {
	ID        QuotaID      `json:"id"`
	Metric    string       `json:"metric"`
	Subject   QuotaSubject `json:"subject"`
	Value     string       `json:"value,omitempty"` // which one; "": each counts by itself
	Limit     int64        `json:"limit"`
	Action    QuotaAction  `json:"action"`
	SetBy     PrincipalID  `json:"set_by"`
	CreatedAt int64        `json:"created_at"` // milliseconds
	UpdatedAt int64        `json:"updated_at"`
	Receipt   ReceiptID    `json:"receipt"`
}

// Quotas is the document that holds every quota of a shard. It changes with the
// gate only, which says how many there are, so who finds none there need not read
// it, and nothing commits under quotas of before.
type Quotas struct {
	Items []Quota `json:"items"` // by id
}

// Copy returns quotas that share no memory with q.
func (q Quotas) Copy() Quotas { return Quotas{slices.Clone(q.Items)} }

const (
	QuotasKey Key = "quotas"
	// MaxQuotas is how many quotas a shard has at most: every call looks at all.
	MaxQuotas = 64
)

// QuotaWho is for whom something is counted.
type QuotaWho struct {
	Agent      AgentID
	Session    SessionID
	Role       Role
	Capability CapabilityID // that is called, or that the task asks for
}

// QuotaCaller is a caller as quotas see it, with a capability.
func QuotaCaller(c Caller, id CapabilityID) QuotaWho {
	return QuotaWho{Agent: c.Agent, Session: c.Session, Role: c.Role, Capability: id}
}

// Tag names the counter of a quota for somebody; ok is false when it does not
// count for them.
func (q Quota) Tag(w QuotaWho) (tag string, ok bool) {
	value := ""
	switch q.Subject {
	case QuotaOfTenant:
		return string(q.ID), true
	case QuotaOfAgent:
		value = string(w.Agent)
	case QuotaOfSession:
		value = string(w.Session)
	case QuotaOfRole:
		value = string(w.Role)
	case QuotaOfCapability:
		value = string(w.Capability)
	}
	switch {
	case value == "" || q.Value != "" && q.Value != value:
		return "", false
	case q.Value == "":
		return string(q.ID) + "/" + value, true
	}
	return string(q.ID), true
}

// QuotasIn are the quotas a snapshot holds: none where nobody asked for them,
// which the door does for every call that can be held to one.
func QuotasIn(s Snapshot) ([]Quota, error) {
	if !s.Has(QuotasKey) {
		return nil, nil
	}
	q, _, _, err := Get[Quotas](s, QuotasKey)
	return q.Items, err
}

// QuotaTags names the counters of a metric in which something that comes to be
// counts. It is kept with the object: what is counted in is counted out, whatever
// becomes of the quotas meanwhile.
func QuotaTags(s Snapshot, metric string, w QuotaWho) (tags []string, err error) {
	all, err := QuotasIn(s)
	for _, q := range all {
		if tag, ok := q.Tag(w); ok && q.Metric == metric {
			tags = append(tags, tag)
		}
	}
	return tags, err
}

// QuotaBegins is when the window began in which something counts that comes to be now,
// as far as read: one that has begun stays begun, whatever the clock says.
func QuotaBegins(s Snapshot, metric, tag string) int64 {
	length := QuotaWindow(metric)
	if length == 0 {
		return 0
	}
	return max(s.Counters[QuotaBegan(tag)], s.Now-s.Now%length)
}

// QuotaHold is what an effect has taken of a window in advance.
type QuotaHold struct {
	Tag    string `json:"tag"`
	Window int64  `json:"window"` // when it began
	Amount int64  `json:"amount"`
}

// QuotaHolds are those of a call that may use so much of a metric.
func QuotaHolds(s Snapshot, metric string, w QuotaWho, amount int64) (out []QuotaHold, err error) {
	tags, err := QuotaTags(s, metric, w)
	for _, tag := range tags {
		out = append(out, QuotaHold{tag, QuotaBegins(s, metric, tag), amount})
	}
	return out, err
}

// SettleQuotas counts what was used instead of what was taken, where the window is still
// the one it was taken of. It may be more, and more than there is: it has happened.
func (t *Tx) SettleQuotas(s Snapshot, holds []QuotaHold, used int64) {
	for _, h := range holds {
		began := QuotaBegan(h.Tag)
		if h.Amount != used && s.Counters[began] == h.Window {
			t.Within(began, h.Window, h.Window)
			t.Add(QuotaUsed(h.Tag), used-h.Amount)
		}
	}
}

// Count counts an object in (1) or out (-1) where it is counted.
func (t *Tx) Count(tags []string, delta int64) {
	for _, tag := range tags {
		t.Add(QuotaUsed(tag), delta)
	}
}

// Recount moves an amount from the quotas in which it counted to those in which it counts
// now.
func (t *Tx) Recount(was []string, before int64, tags []string, now int64) {
	for _, tag := range was {
		if !slices.Contains(tags, tag) {
			t.recount(tag, -before)
		}
	}
	for _, tag := range tags {
		if slices.Contains(was, tag) {
			t.recount(tag, now-before)
		} else {
			t.recount(tag, now)
		}
	}
}

func (t *Tx) recount(tag string, delta int64) {
	if delta != 0 {
		t.Add(QuotaUsed(tag), delta)
	}
}

// QuotaUsed counts what a quota counts: how many there are, or what there was in
// the window that began at QuotaBegan. A new window begins in place, so windows
// leave no counters behind.
func QuotaUsed(tag string) Counter  { return Counter{"quota/" + tag, "used"} }
func QuotaBegan(tag string) Counter { return Counter{"quota/" + tag, "window"} }

// QuotaTold is the window in which a principal was last refused for a quota with a
// receipt of its own.
func QuotaTold(tag string, p PrincipalID) Counter {
	h := sha256.Sum256([]byte(p))
	return Counter{"quota/" + tag, "told." + hex.EncodeToString(h[:8])}
}

// IndexQuotas holds "<entity> <field>" of counters of quotas that hold a time, with
// the time at which nobody needs them any more, unless they are moved on.
const IndexQuotas Index = "due/quota"

// QuotaKeptMs is how long after the beginning of its window a counter is kept.
const QuotaKeptMs = 2 * 24 * 3600_000

// KeepQuota notes that a counter holds the time at and when it can go.
func (t *Tx) KeepQuota(c Counter, at int64) {
	t.Index(IndexQuotas, c.Entity+" "+c.Field, at+QuotaKeptMs)
}
