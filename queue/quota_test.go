package queue

import (
	"maps"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// quotas sets one quota on each level for every subject, for each of them by itself.
func (m *model) quotas() {
	var all writ.Quotas
	for _, metric := range []string{writ.QuotaQueued, writ.QuotaRunning} {
		for _, of := range []writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfAgent, writ.QuotaOfSession, writ.QuotaOfRole, writ.QuotaOfCapability} {
			all.Items = append(all.Items, writ.Quota{ID: writ.QuotaID(metric + "." + string(of)), Metric: metric, Subject: of, Limit: writ.MaxAmount})
		}
	}
	m.w.Seed(writ.QuotasKey, "quotas", all)
}

// levels counts by hand what quotas count: tasks by where they stand, whoever
// enqueued or holds them. Nothing else has a counter.
func (m *model) levels() {
	m.Helper()
	want := map[string]int64{}
	add := func(metric string, c writ.Caller, id writ.CapabilityID) {
		want[metric+".tenant"]++
		want[metric+".session/"+string(c.Session)]++
		want[metric+".role/"+string(c.Role)]++
		want[metric+".capability/"+string(id)]++
		if c.Agent != "" {
			want[metric+".agent/"+string(c.Agent)]++
		}
	}
	for _, id := range m.w.Members(writ.RunTasks(m.run)) {
		t := m.task(writ.TaskID(id))
		if t.State == writ.TaskBlocked || t.State == writ.TaskQueued {
			by, _, _ := writtest.Get[writ.Session](m.w, writ.SessionKey(t.EnqueuedBy)) // a holder, if it was handed on
			add(writ.QuotaQueued, writ.Caller{Session: by.ID, Agent: by.Agent, Role: by.Role}, t.Capability)
		}
		if t.Lease != nil {
			add(writ.QuotaRunning, writ.Caller{Session: t.Lease.Session, Agent: t.Lease.Agent, Role: writ.RoleExecutor}, t.Capability)
		}
	}
	got := map[string]int64{}
	for c, n := range m.w.Counters() {
		if tag, ok := strings.CutPrefix(c.Entity, "quota/"); ok && n != 0 {
			got[tag] = n
		}
	}
	if !maps.Equal(got, want) {
		m.Fatalf("counted %v, there are %v", got, want)
	}
}
