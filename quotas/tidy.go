package quotas

import (
	"strings"

	"github.com/writ-gateway/writ"
)

// QuotaTidyArgs name a counter that holds a time, as writ.IndexQuotas does.
type QuotaTidyArgs struct {
	Entity string `json:"entity" doc:"Entity of the counter." pattern:"^quota/[A-Za-z0-9._/@-]{1,200}$"`
	Field  string `json:"field" doc:"Field of the counter." pattern:"^(window|told\\.[0-9a-f]{16})$"`
}

// TidyArgs are the arguments of quota.tidy for a member of writ.IndexQuotas.
func TidyArgs(member string) map[string]any {
	entity, field, _ := strings.Cut(member, " ")
	return map[string]any{"entity": entity, "field": field}
}

// QuotaTidied says whether anything was left to take away.
type QuotaTidied struct {
	Tidied bool `json:"tidied" doc:"Whether the counter was taken away."`
}

// tidy takes away what nobody has counted in for two days: a window that is over,
// with what was used in it, or when somebody was last told. Counters that are 0
// are not kept.
func tidy() *writ.Capability {
	counters := func(a *QuotaTidyArgs) []writ.Counter {
		out := []writ.Counter{{Entity: a.Entity, Field: a.Field}}
		if tag := strings.TrimPrefix(a.Entity, "quota/"); a.Field == writ.QuotaBegan(tag).Field {
			out = append(out, writ.QuotaUsed(tag))
		}
		return out
	}
	return writ.Define[QuotaTidyArgs, QuotaTidied](writ.Capability{
		ID: "quota.tidy", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true,
		Summary: "Take away counters of a window that is long over.",
	}, writ.Verb[QuotaTidyArgs]{
		Reads: func(_ *writ.Call, a *QuotaTidyArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Counters: counters(a)}, nil
		},
		Plan: func(_ *writ.Call, a *QuotaTidyArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			tx.Mandate, reply = true, writ.Reply{Outcome: writ.OutcomeDone, Body: QuotaTidied{}}
			if at := s.Counters[writ.Counter{Entity: a.Entity, Field: a.Field}]; s.Now < at+writ.QuotaKeptMs {
				return tx, reply, nil // another window has begun, and its time is noted
			}
			for _, c := range counters(a) {
				v := s.Counters[c]
				tx.Within(c, v, v)
				if v != 0 {
					tx.Add(c, -v)
				}
			}
			tx.Unindex(writ.IndexQuotas, a.Entity+" "+a.Field)
			reply.Body = QuotaTidied{Tidied: true}
			return tx, reply, nil
		},
	})
}
