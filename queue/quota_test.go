package queue

import (
	"errors"
	"maps"
	"strings"
	"testing"

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

// Bytes of artifacts count from when they are put until the task has them no more: they
// are replaced, left out, let go by the next attempt, or purged; once, whoever purges.
func TestBytesAreCounted(t *testing.T) {
	l := newLab(t)
	var all writ.Quotas
	for _, of := range []writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfAgent} {
		all.Items = append(all.Items, writ.Quota{ID: writ.QuotaID("bytes." + string(of)), Metric: writ.QuotaArtifacts, Subject: of, Limit: writ.MaxAmount})
	}
	l.w.Seed(writ.QuotasKey, "quotas", all)
	want := func(tenant, a, b int64) {
		t.Helper()
		for tag, n := range map[string]int64{"bytes.tenant": tenant, "bytes.agent/agent-a": a, "bytes.agent/agent-b": b} {
			if got := l.w.Counters()[writ.QuotaUsed(tag)]; got != n {
				t.Errorf("%s counts %d, want %d", tag, got, n)
			}
		}
	}
	one, two := l.enqueue("one", makes("x", "y"), backoff(0)), l.enqueue("two", makes("x"))
	g, h := l.claim(l.a, one), l.claim(l.b, two)
	l.put(l.a, g, "x", "12345")
	l.put(l.a, g, "y", "12345") // under two names it counts twice
	l.put(l.b, h, "x", "12345")
	want(15, 10, 5)
	l.put(l.a, g, "x", "12")
	l.put(l.a, g, "x", "12")
	want(12, 7, 5)
	l.do("task.fail", l.a, g.fail(true))
	want(12, 7, 5)
	g = l.claim(l.b, one) // lets go what the attempt before had put
	want(5, 0, 5)
	made := []TaskMade{l.put(l.b, g, "x", "1"), l.put(l.b, g, "y", "22")}
	all.Items = all.Items[:1] // a quota that is gone counts out all the same
	l.w.Seed(writ.QuotasKey, "quotas", all)
	want(8, 0, 8)
	done := g.complete()
	done.Artifacts = made
	l.do("task.complete", l.b, done)
	done = h.complete()
	done.Artifacts = []TaskMade{l.put(l.b, h, "x", "333")} // counts where it counts now
	want(6, 0, 3)
	l.do("task.complete", l.b, done)
	audit(l)
	l.setRun(func(r *writ.Run) { r.State = writ.RunDone })
	purge := func(id writ.TaskID) *writtest.Planned {
		p, err := l.w.Plan(l.caps["artifact.purge"], l.w.NewCall(l.caps["artifact.purge"], l.w.System(), &ArtifactPurgeArgs{Task: id}))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second := purge(one), purge(one)
	if _, err := l.w.Commit(first); err != nil {
		t.Fatal(err)
	}
	var c *writtest.Conflict
	if _, err := l.w.Commit(second); !errors.As(err, &c) {
		t.Errorf("got %v, want a conflict", err)
	}
	want(3, 0, 0)
	for _, id := range []writ.TaskID{one, two, two} {
		if _, err := l.w.Commit(purge(id)); err != nil {
			t.Fatal(err)
		}
	}
	want(0, 0, 0)
}
