package quotas

import (
	"cmp"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
)

// QuotaSetArgs say what is limited, for whom.
type QuotaSetArgs struct {
	Metric  string            `json:"metric" doc:"What is counted. schedules is refused: nothing counts them yet." enum:"queued_tasks,running_tasks,claims_per_min,invocations_per_min,tokens_per_day,cost_microusd_per_day,egress_bytes_per_day,artifact_bytes,open_approvals,schedules"`
	Subject writ.QuotaSubject `json:"subject" doc:"What it is counted for." enum:"tenant,agent,session,role,capability"`
	Value   string            `json:"value,omitempty" doc:"Which agent, session, role or capability; without it each of them counts by itself. None for the tenant." maxLength:"128"`
	Limit   int64             `json:"limit" doc:"How much there may be, or may happen in a window; 0 is nothing." minimum:"0" maximum:"100000000000000"`
	Action  writ.QuotaAction  `json:"action,omitempty" doc:"What becomes of a call over it. deny: it is refused. queue: a claim that waits for work waits on; only for what claims take. approval is refused: nobody is asked yet." enum:"deny,queue,approval" default:"deny"`
}

// QuotaView is a quota as shown.
type QuotaView struct {
	ID      writ.QuotaID      `json:"quota_id" doc:"Id of the quota." pattern:"^quo_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Metric  string            `json:"metric" doc:"What is counted."`
	Subject writ.QuotaSubject `json:"subject" doc:"What it is counted for." enum:"tenant,agent,session,role,capability"`
	Value   string            `json:"value,omitempty" doc:"Which one; absent: each counts by itself."`
	Limit   int64             `json:"limit" doc:"How much there may be, or may happen in a window."`
	WindowS int64             `json:"window_s,omitempty" doc:"Length of a window in seconds; absent: it limits how many there are at a time."`
	Action  writ.QuotaAction  `json:"action" doc:"What becomes of a call over it." enum:"deny,queue"`
	SetBy   writ.PrincipalID  `json:"set_by" doc:"Who set it last."`
	Created string            `json:"created_at" doc:"When it was made (RFC 3339, UTC)."`
	Updated string            `json:"updated_at" doc:"When it was last changed (RFC 3339, UTC)."`
	Receipt writ.ReceiptID    `json:"receipt" doc:"Receipt of its last change."`
	Used    *int64            `json:"used,omitempty" doc:"How much is used now; absent where each counts by itself."`
	Ends    string            `json:"window_ends_at,omitempty" doc:"When the next window begins (RFC 3339, UTC)."`
}

func viewOf(q writ.Quota) QuotaView {
	return QuotaView{
		ID: q.ID, Metric: q.Metric, Subject: q.Subject, Value: q.Value, Limit: q.Limit, WindowS: writ.QuotaWindow(q.Metric) / 1000, Action: q.Action,
		SetBy: q.SetBy, Created: writ.FormatTime(q.CreatedAt), Updated: writ.FormatTime(q.UpdatedAt), Receipt: q.Receipt,
	}
}

func gateAndAll() writ.ReadSet { return writ.ReadSet{Docs: []writ.Key{writ.GateKey, writ.QuotasKey}} }

func (r Room) set() *writ.Capability {
	const op = "quotas.Set"
	return writ.Define[QuotaSetArgs, QuotaView](writ.Capability{
		ID: "quota.set", Safety: writ.SafetyMutating, Summary: "Limit how much, or how often, for a tenant, agent, session, role or capability.",
		Example: `{"metric":"claims_per_min","subject":"agent","limit":60}`,
	}, writ.Verb[QuotaSetArgs]{
		Locks: func(*writ.Call, *QuotaSetArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(*writ.Call, *QuotaSetArgs, writ.Snapshot) (writ.ReadSet, error) { return gateAndAll(), nil },
		Plan: func(c *writ.Call, a *QuotaSetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			if err := r.check(op, a); err != nil {
				return tx, reply, err
			}
			all, err := writ.QuotasIn(s)
			if err != nil {
				return tx, reply, err
			}
			all = slices.Clone(all)
			at := slices.IndexFunc(all, func(q writ.Quota) bool {
				return q.Metric == a.Metric && q.Subject == a.Subject && q.Value == a.Value
			})
			q, from, outcome := writ.Quota{}, writ.QuotaState(""), writ.OutcomeCreated
			if at >= 0 {
				q, from, outcome = all[at], writ.QuotaActive, writ.OutcomeDone
				if q.Limit == a.Limit && q.Action == a.action() {
					return tx, writ.Reply{Outcome: outcome, Body: viewOf(q)}, nil
				}
			} else {
				if len(all) >= writ.MaxQuotas {
					return tx, reply, writ.Refuse(writ.CodeQuota, op, "there are as many quotas as there may be", "delete one that is not wanted any more; without value a quota is about each agent, session, role or capability")
				}
				q = writ.Quota{ID: writ.QuotaID(c.NewID(writ.PrefixQuota, 0)), Metric: a.Metric, Subject: a.Subject, Value: a.Value, CreatedAt: s.Now}
				all, at = append(all, q), len(all)
			}
			q.Limit, q.Action, q.SetBy, q.UpdatedAt, q.Receipt = a.Limit, a.action(), c.Caller.Principal, s.Now, writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			all[at] = q
			tx.Move(writ.ObjectQuota, string(q.ID), string(from), string(writ.QuotaActive))
			if err := put(s, &tx, all, q.Receipt); err != nil {
				return tx, reply, err
			}
			return tx, writ.Reply{Outcome: outcome, Body: viewOf(q)}, nil
		},
	})
}

func (a *QuotaSetArgs) action() writ.QuotaAction { return cmp.Or(a.Action, writ.QuotaDeny) }

// put writes all quotas, and the gate, which says that there are any.
func put(s writ.Snapshot, tx *writ.Tx, all []writ.Quota, receipt writ.ReceiptID) error {
	slices.SortFunc(all, func(x, y writ.Quota) int { return cmp.Compare(x.ID, y.ID) })
	if err := tx.PutDoc(s, writ.QuotasKey, "quotas", writ.Quotas{Items: all}); err != nil {
		return err
	}
	gate, _, _, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		return err
	}
	gate.Quotas, gate.Receipt = int64(len(all)), receipt
	tx.Move(writ.ObjectGate, "gate", string(gate.State), string(gate.State))
	return tx.PutDoc(s, writ.GateKey, writ.ObjectGate, gate)
}

// check refuses a quota that would count nothing, or do something else than it
// says. It repeats the schema: what is written here decides who may act.
func (r Room) check(op string, a *QuotaSetArgs) error {
	var wrong []writ.FieldError
	bad := func(pointer, msg string) { wrong = append(wrong, writ.FieldError{Pointer: pointer, Msg: msg}) }
	switch {
	case !slices.Contains(writ.QuotaMetrics(), a.Metric):
		bad("/metric", "is nothing a quota counts")
	case counted[a.Metric] == nil:
		bad("/metric", "is not counted by this version, so the quota would limit nothing")
	}
	if !validValue(a.Subject, a.Value) {
		bad("/value", wanted(a.Subject))
	}
	if a.Subject == writ.QuotaOfCapability && a.Metric == writ.QuotaInvocations && a.Value != "" {
		if k := r.cfg.Capability(writ.CapabilityID(a.Value)); k == nil || k.Internal || k.ReadOnly() || free[k.ID] {
			bad("/value", "is no capability whose calls are counted: it does not exist, changes nothing, or ends, stops or decides something")
		}
	}
	switch a.action() {
	case writ.QuotaDeny:
	case writ.QuotaQueue:
		if !waits(a.Metric) {
			bad("/action", "queue goes only with what claims take: "+writ.QuotaRunning+", "+writ.QuotaClaims+", "+writ.QuotaTokens+" and "+writ.QuotaMoney)
		}
	default:
		bad("/action", "is deny or queue; people are not asked about quotas")
	}
	if a.Limit < 0 || a.Limit > writ.MaxAmount {
		bad("/limit", "is out of range")
	}
	if len(wrong) == 0 {
		return nil
	}
	return &writ.Error{Code: writ.CodeInputInvalid, Op: op, Fields: wrong, Msg: "this cannot be a quota", Hint: "correct every field named in errors"}
}

// waits says whether a claim that meets a quota on a metric can wait.
func waits(metric string) bool {
	switch metric {
	case writ.QuotaRunning, writ.QuotaClaims, writ.QuotaTokens, writ.QuotaMoney:
		return true
	}
	return false
}

// wanted says what names a subject.
func wanted(s writ.QuotaSubject) string {
	switch s {
	case writ.QuotaOfTenant:
		return "must be left out: there is one tenant"
	case writ.QuotaOfAgent:
		return "must be an agent's id: 2 to 63 of a-z, 0-9 and -"
	case writ.QuotaOfSession:
		return "must be a session's id: ses_…"
	case writ.QuotaOfRole:
		roles := []string{}
		for _, r := range writ.BindableRoles() {
			roles = append(roles, string(r))
		}
		return "must be a role: " + strings.Join(roles, ", ")
	case writ.QuotaOfCapability:
		return "must be a capability: a dotted name such as site.build"
	}
	return "names nothing: subject is tenant, agent, session, role or capability"
}

// validValue says whether a value is a name of the subject, or none where each
// counts by itself.
func validValue(s writ.QuotaSubject, value string) bool {
	if value == "" {
		return slices.Contains([]writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfAgent, writ.QuotaOfSession, writ.QuotaOfRole, writ.QuotaOfCapability}, s)
	}
	switch s {
	case writ.QuotaOfAgent:
		return writ.AgentID(value).Valid()
	case writ.QuotaOfSession:
		return writ.SessionID(value).Valid()
	case writ.QuotaOfRole:
		return slices.Contains(writ.BindableRoles(), writ.Role(value))
	case writ.QuotaOfCapability:
		return writ.CapabilityID(value).Valid()
	}
	return false
}
