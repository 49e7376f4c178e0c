package quotas

import (
	"slices"

	"github.com/writ-gateway/writ"
)

// QuotaArgs name a quota.
type QuotaArgs struct {
	ID writ.QuotaID `json:"quota_id" doc:"The quota." pattern:"^quo_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

// QuotaDeleted says that a quota holds nobody any more.
type QuotaDeleted struct {
	ID      writ.QuotaID   `json:"quota_id" doc:"The quota."`
	Receipt writ.ReceiptID `json:"receipt" doc:"Receipt of the change."`
}

func (r Room) delete() *writ.Capability {
	const op = "quotas.Delete"
	return writ.Define[QuotaArgs, QuotaDeleted](writ.Capability{
		ID: "quota.delete", Safety: writ.SafetyMutating, Summary: "Take a limit away: the next call is not held to it, on any replica.",
		Example: `{"quota_id":"quo_01M89R8763R5PGQGSMXGFWBA4N"}`,
	}, writ.Verb[QuotaArgs]{
		Locks: func(*writ.Call, *QuotaArgs) []writ.Key { return []writ.Key{writ.GateKey} },
		Reads: func(*writ.Call, *QuotaArgs, writ.Snapshot) (writ.ReadSet, error) { return gateAndAll(), nil },
		Plan: func(c *writ.Call, a *QuotaArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			q, err := find(op, s, a.ID)
			if err != nil {
				return tx, reply, err
			}
			all, err := writ.QuotasIn(s)
			if err != nil {
				return tx, reply, err
			}
			receipt := writ.ReceiptID(c.NewID(writ.PrefixReceipt, 0))
			tx.Move(writ.ObjectQuota, string(q.ID), string(writ.QuotaActive), string(writ.QuotaDeleted))
			left := slices.DeleteFunc(slices.Clone(all), func(x writ.Quota) bool { return x.ID == q.ID })
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: QuotaDeleted{ID: q.ID, Receipt: receipt}}, put(s, &tx, left, receipt)
		},
	})
}

func find(op string, s writ.Snapshot, id writ.QuotaID) (writ.Quota, error) {
	all, err := writ.QuotasIn(s)
	if err != nil {
		return writ.Quota{}, err
	}
	at := slices.IndexFunc(all, func(q writ.Quota) bool { return q.ID == id })
	if at < 0 {
		return writ.Quota{}, writ.Refuse(writ.CodeNotFound, op, "there is no such quota", "quota.list shows all")
	}
	return all[at], nil
}

// usage names the counters that say how a quota stands; none where each counts by
// itself.
func usage(q writ.Quota) []writ.Counter {
	if q.Subject != writ.QuotaOfTenant && q.Value == "" {
		return nil
	}
	return []writ.Counter{writ.QuotaUsed(string(q.ID)), writ.QuotaBegan(string(q.ID))}
}

// standing is the view of a quota with how it stands. It wants usage.
func standing(q writ.Quota, s writ.Snapshot) QuotaView {
	v := viewOf(q)
	if usage(q) == nil {
		return v
	}
	n := stands(need{quota: q, tag: string(q.ID)}, s)
	v.Used = &n.used
	if n.window > 0 {
		v.Ends = writ.FormatTime(n.ends() + 1)
	}
	return v
}

func (r Room) get() *writ.Capability {
	const op = "quotas.Get"
	return writ.Define[QuotaArgs, QuotaView](writ.Capability{
		ID: "quota.get", Safety: writ.SafetyReadOnly, Summary: "Show a quota and how much of it is used.",
		Example: `{"quota_id":"quo_01M89R8763R5PGQGSMXGFWBA4N"}`,
	}, writ.Verb[QuotaArgs]{
		Reads: func(_ *writ.Call, a *QuotaArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := gateAndAll()
			all, err := writ.QuotasIn(s)
			for _, q := range all {
				if q.ID == a.ID {
					rs.Counters = usage(q)
				}
			}
			return rs, err
		},
		Plan: func(_ *writ.Call, a *QuotaArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			q, err := find(op, s, a.ID)
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: standing(q, s)}, nil
		},
	})
}

// QuotaListArgs say which quotas.
type QuotaListArgs struct {
	Metric  string            `json:"metric,omitempty" doc:"Only quotas on this." enum:"queued_tasks,running_tasks,claims_per_min,invocations_per_min,tokens_per_day,cost_microusd_per_day,egress_bytes_per_day,artifact_bytes,open_approvals,schedules"`
	Subject writ.QuotaSubject `json:"subject,omitempty" doc:"Only quotas for these." enum:"tenant,agent,session,role,capability"`
}

// QuotaList is every quota that was asked for. There are 64 at most.
type QuotaList struct {
	Quotas []QuotaView `json:"quotas" doc:"By id, which is the order in which they were made."`
}

func (r Room) list() *writ.Capability {
	return writ.Define[QuotaListArgs, QuotaList](writ.Capability{
		ID: "quota.list", Safety: writ.SafetyReadOnly, Summary: "List the quotas and how much of each is used.",
		Example: `{"metric":"queued_tasks"}`,
	}, writ.Verb[QuotaListArgs]{
		Reads: func(_ *writ.Call, _ *QuotaListArgs, s writ.Snapshot) (writ.ReadSet, error) {
			rs := gateAndAll()
			all, err := writ.QuotasIn(s)
			for _, q := range all {
				rs.Counters = append(rs.Counters, usage(q)...)
			}
			return rs, err
		},
		Plan: func(_ *writ.Call, a *QuotaListArgs, s writ.Snapshot, _ writ.Decision) (writ.Tx, writ.Reply, error) {
			all, err := writ.QuotasIn(s)
			if err != nil {
				return writ.Tx{}, writ.Reply{}, err
			}
			out := QuotaList{Quotas: []QuotaView{}}
			for _, q := range all {
				if (a.Metric == "" || a.Metric == q.Metric) && (a.Subject == "" || a.Subject == q.Subject) {
					out.Quotas = append(out.Quotas, standing(q, s))
				}
			}
			return writ.Tx{}, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, nil
		},
	})
}
