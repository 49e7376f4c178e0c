package quotas_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/queue"
	"github.com/writ-gateway/writ/quotas"
	"github.com/writ-gateway/writ/writtest"
)

const build writ.CapabilityID = "site.build"

// lab is a shard with the room and the queue on it, and the obligor at its door.
type lab struct {
	*writtest.World
	testing.TB
	verbs     map[writ.CapabilityID]*writ.Capability
	op, orc   writ.Caller
	a, b      writ.Caller
	run       writ.RunID
	tasksMade int
}

func newLab(t testing.TB) *lab {
	l := &lab{World: writtest.New(), TB: t, verbs: map[writ.CapabilityID]*writ.Capability{}}
	l.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen, Schema: 1})
	all := quotas.New(quotas.Config{Capability: func(id writ.CapabilityID) *writ.Capability { return l.verbs[id] }}).Capabilities()
	for _, k := range append(all, queue.Capabilities(queue.Config{MinLeaseSeconds: 1})...) {
		l.verbs[k.ID] = k
	}
	l.run = l.Run("boss", 1000).ID
	l.op = l.Open(writ.RoleOperator, "olga", "")
	l.orc = l.Open(writ.RoleOrchestrator, "boss", "")
	l.priced("agent-a", 100)
	l.priced("agent-b", 7)
	l.a, l.b = l.Open(writ.RoleExecutor, "worker-a", "agent-a"), l.Open(writ.RoleExecutor, "worker-b", "agent-b")
	return l
}

// priced is an agent whose tool states what it uses.
func (l *lab) priced(id writ.AgentID, tokens int64) {
	a := l.Agent(id, "web", build, "site.test")
	a.MaxConcurrent = 1000
	for i := range a.Tools {
		if tokens >= 0 {
			a.Tools[i].Costs = &writ.ToolCosts{Tokens: &tokens, Money: &tokens}
		}
	}
	l.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
}

func (l *lab) try(id writ.CapabilityID, by writ.Caller, args any) (writ.Reply, error) {
	l.Helper()
	r, _, err := l.Charge(l.verbs[id], by, args, quotas.Obligor{})
	return r, err
}

func (l *lab) do(id writ.CapabilityID, by writ.Caller, args any) writ.Reply {
	l.Helper()
	r, err := l.try(id, by, args)
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return r
}

func (l *lab) refused(code writ.Code, id writ.CapabilityID, by writ.Caller, args any) *writ.Error {
	l.Helper()
	_, err := l.try(id, by, args)
	e, ok := errors.AsType[*writ.Error](err)
	if !ok || e.Code != code {
		l.Fatalf("%s: got %v, want %s", id, err, code)
	}
	return e
}

func body[T any](l *lab, r writ.Reply) T {
	l.Helper()
	v, err := writtest.Body[T](r)
	if err != nil {
		l.Fatal(err)
	}
	return v
}

func (l *lab) set(metric string, of writ.QuotaSubject, value string, limit int64) writ.QuotaID {
	l.Helper()
	return body[quotas.QuotaView](l, l.do("quota.set", l.op, &quotas.QuotaSetArgs{Metric: metric, Subject: of, Value: value, Limit: limit})).ID
}

func (l *lab) next() *queue.TaskEnqueueArgs {
	l.tasksMade++
	return &queue.TaskEnqueueArgs{Run: l.run, Key: fmt.Sprintf("task-%d", l.tasksMade), Capability: build, Domain: "web"}
}

func (l *lab) enqueue() *queue.TaskClaimArgs {
	l.Helper()
	return &queue.TaskClaimArgs{Task: body[queue.TaskView](l, l.do("task.enqueue", l.orc, l.next())).ID}
}

func (l *lab) claim(by writ.Caller, a *queue.TaskClaimArgs) *queue.TaskReleaseArgs {
	l.Helper()
	c := body[queue.TaskClaimed](l, l.do("task.claim", by, a))
	return &queue.TaskReleaseArgs{TaskHold: queue.TaskHold{Task: a.Task, Lease: c.Lease.ID, Fence: c.Lease.Fence}}
}

func (l *lab) used(id writ.QuotaID) int64 {
	l.Helper()
	v := body[quotas.QuotaView](l, l.do("quota.get", l.op, &quotas.QuotaArgs{ID: id}))
	if v.Used == nil {
		l.Fatal("it does not say how much is used")
	}
	return *v.Used
}

// What is over is refused, until the next window begins on the store's clock; the
// refusal names the quota and tells until when, and nothing of the caller.
func TestAWindow(t *testing.T) {
	l := newLab(t)
	id := l.set(writ.QuotaClaims, writ.QuotaOfAgent, "agent-a", 2)
	var tasks []*queue.TaskClaimArgs
	for range 4 {
		tasks = append(tasks, l.enqueue())
	}
	l.Now += 59_000
	l.claim(l.a, tasks[0])
	l.claim(l.a, tasks[1])
	e := l.refused(writ.CodeQuota, "task.claim", l.a, tasks[2])
	if e.RetryMs != 1000 || e.Details["quota"] != string(id) || e.Details["metric"] != writ.QuotaClaims || e.Details["limit"] != "2" || e.Once == nil {
		t.Errorf("%+v", e)
	}
	if e.Once.At != l.Now-59_000 {
		t.Errorf("told for %d", e.Once.At)
	}
	l.refused(writ.CodeQuota, "task.claim", l.a, &queue.TaskClaimArgs{}) // nothing is taken from a lane for it
	l.claim(l.b, tasks[3])                                               // others are not held to it
	if l.used(id) != 2 {
		t.Errorf("used %d", l.used(id))
	}
	l.Now += 999
	l.refused(writ.CodeQuota, "task.claim", l.a, tasks[2])
	l.Now++
	if l.used(id) != 0 {
		t.Errorf("a new window begins with %d used", l.used(id))
	}
	l.claim(l.a, tasks[2])
	if l.used(id) != 1 {
		t.Errorf("used %d", l.used(id))
	}
	l.Now -= 10 // a clock that goes back opens no window again
	if l.used(id) != 1 {
		t.Errorf("used %d", l.used(id))
	}
}

// What is judged in one window is not committed in the next, and two that are
// judged at once do not take the same place.
func TestJudgedAndCommittedInOneWindow(t *testing.T) {
	l := newLab(t)
	l.set(writ.QuotaInvocations, writ.QuotaOfCapability, "task.enqueue", 2)
	l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 4)
	plan := func() *writtest.Planned {
		p, _, err := l.PlanCharged(l.verbs["task.enqueue"], l.NewCall(l.verbs["task.enqueue"], l.orc, l.next()), quotas.Obligor{})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	conflicts := func(p *writtest.Planned, want string) {
		t.Helper()
		_, err := l.Commit(p)
		if c, ok := errors.AsType[*writtest.Conflict](err); !ok || !strings.Contains(c.What, want) {
			t.Errorf("got %v, want a conflict: %s", err, want)
		}
	}
	late := plan()
	l.Advance(60)
	conflicts(late, "not after")

	one, two := plan(), plan() // both would begin the window
	if _, err := l.Commit(one); err != nil {
		t.Fatal(err)
	}
	conflicts(two, "within quota/")
	three, four := plan(), plan() // both would take the last place
	if _, err := l.Commit(three); err != nil {
		t.Fatal(err)
	}
	conflicts(four, "limit quota/")
	l.refused(writ.CodeQuota, "task.enqueue", l.orc, l.next())

	l.Advance(60) // another window; two wait, and there may be four
	if _, err := l.Commit(plan()); err != nil {
		t.Fatal(err)
	}
	five, six := plan(), plan() // both would be the fourth that waits
	if _, err := l.Commit(five); err != nil {
		t.Fatal(err)
	}
	conflicts(six, "within quota/")
}

// A level is how many there are: what goes makes room, what comes back takes it.
func TestALevel(t *testing.T) {
	l := newLab(t)
	queued := l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 3)
	running := l.set(writ.QuotaRunning, writ.QuotaOfRole, "executor", 1)
	one, two := l.enqueue(), l.enqueue()
	l.enqueue()
	e := l.refused(writ.CodeQuota, "task.enqueue", l.orc, l.next())
	if e.RetryMs == 0 || e.Details["quota"] != string(queued) || e.Once == nil {
		t.Errorf("%+v", e)
	}
	grip := l.claim(l.a, one)
	if l.used(queued) != 2 || l.used(running) != 1 {
		t.Errorf("%d wait, %d run", l.used(queued), l.used(running))
	}
	l.enqueue()
	l.refused(writ.CodeQuota, "task.claim", l.b, two)
	l.do("task.release", l.a, grip) // back in the queue, which is full: work that has begun can end
	if l.used(queued) != 4 || l.used(running) != 0 {
		t.Errorf("%d wait, %d run", l.used(queued), l.used(running))
	}
	l.refused(writ.CodeQuota, "task.enqueue", l.orc, l.next())
	l.do("task.cancel", l.op, &queue.TaskCancelArgs{Task: two.Task})
	l.do("task.cancel", l.op, &queue.TaskCancelArgs{Task: one.Task})
	l.enqueue()
}

// The largest claim fits into its transaction under as many quotas as can count for
// one, all of whose windows begin with it.
func TestTheLargestClaimFitsUnderAllQuotas(t *testing.T) {
	l := newLab(t)
	var agents []writ.AgentID
	for i := range 8 {
		agents = append(agents, writ.AgentID(fmt.Sprintf("agent-%d", i)))
		l.priced(agents[i], 1)
	}
	by := l.Open(writ.RoleExecutor, "worker", agents[0])
	set := 0
	for _, metric := range []string{writ.QuotaQueued, writ.QuotaRunning, writ.QuotaClaims, writ.QuotaTokens, writ.QuotaMoney, writ.QuotaInvocations} {
		who := writ.QuotaCaller(by, build)
		switch metric {
		case writ.QuotaQueued:
			who = writ.QuotaCaller(l.orc, build)
		case writ.QuotaInvocations:
			who.Capability = "task.claim"
		}
		for of, value := range map[writ.QuotaSubject]string{
			writ.QuotaOfTenant: "", writ.QuotaOfAgent: string(who.Agent), writ.QuotaOfSession: string(who.Session),
			writ.QuotaOfRole: string(who.Role), writ.QuotaOfCapability: string(who.Capability),
		} {
			l.set(metric, of, "", 1000)
			set++
			if value != "" {
				l.set(metric, of, value, 1000)
				set++
			}
		}
	}
	if set < 50 {
		t.Fatalf("%d quotas", set)
	}
	a := l.next()
	a.Agents = agents
	for i := range queue.MaxScopes {
		a.WriteScopes = append(a.WriteScopes, fmt.Sprintf("fs:r%d/a/b/c/d/e", i))
	}
	id := body[queue.TaskView](l, l.do("task.enqueue", l.orc, a)).ID
	for i := range 64 {
		l.SetIndex(writ.Refusers(id), fmt.Sprintf("agent-%d", i), 0)
		if i < 8 {
			l.SetIndex(writ.BlockedOn(id), l.NewID(writ.PrefixTask), int64(i))
		}
	}
	k := l.verbs["task.claim"]
	p, _, err := l.PlanCharged(k, l.NewCall(k, by, &queue.TaskClaimArgs{Task: id}), quotas.Obligor{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-24 { // for a budget, the session and the door
		t.Errorf("%d guards and %d operations", len(p.Tx.Guards), len(p.Tx.Ops))
	}
	if _, err := l.Commit(p); err != nil {
		t.Error(err)
	}
}

// The same request again finds what it made: it takes no place, and is not refused.
func TestWhatChangesNothingTakesNoPlace(t *testing.T) {
	l := newLab(t)
	id := l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 1)
	rate := l.set(writ.QuotaInvocations, writ.QuotaOfRole, "", 1)
	a := l.next()
	l.do("task.enqueue", l.orc, a)
	l.do("task.enqueue", l.orc, a)
	l.refused(writ.CodeQuota, "task.enqueue", l.orc, l.next())
	if l.used(id) != 1 {
		t.Errorf("used %d", l.used(id))
	}
	if v := body[quotas.QuotaView](l, l.do("quota.get", l.op, &quotas.QuotaArgs{ID: rate})); v.Used != nil {
		t.Errorf("one number for many counters: %d", *v.Used)
	}
}

// What attempts may use is counted as their tools state it; who does not state it
// gets no task, and who may use more than there is at all neither.
func TestWhatAttemptsUse(t *testing.T) {
	l := newLab(t)
	id := l.set(writ.QuotaTokens, writ.QuotaOfTenant, "", 210)
	l.claim(l.a, l.enqueue())
	l.claim(l.b, l.enqueue())
	l.claim(l.a, l.enqueue())
	if l.used(id) != 207 {
		t.Errorf("used %d", l.used(id))
	}
	third := l.enqueue()
	l.refused(writ.CodeQuota, "task.claim", l.a, third)
	if e := l.refused(writ.CodeQuota, "task.claim", l.b, third); e.RetryMs != 24*3600_000 {
		t.Errorf("%+v", e)
	}
	l.priced("agent-b", -1)
	if e := l.refused(writ.CodeBudget, "task.claim", l.b, third); e.Once != nil || e.RetryMs != 0 {
		t.Errorf("%+v", e)
	}
	l.priced("agent-b", 211)
	l.refused(writ.CodeBudget, "task.claim", l.b, third)
	l.priced("agent-b", 0)
	l.claim(l.b, third)
}

// A quota that counts nothing is no quota, and none does what it does not say.
func TestWhatCannotBeAQuota(t *testing.T) {
	l := newLab(t)
	l.verbs["task.expire"].Internal = true
	for pointer, bad := range map[string][]quotas.QuotaSetArgs{
		"/metric": {
			{Metric: writ.QuotaSchedules, Subject: "tenant"},
			{Metric: "anything", Subject: "tenant"},
		},
		"/value": {
			{Metric: writ.QuotaClaims, Subject: "tenant", Value: "default"},
			{Metric: writ.QuotaClaims, Subject: "agent", Value: "Not a slug"},
			{Metric: writ.QuotaClaims, Subject: "session", Value: "ses_1"},
			{Metric: writ.QuotaClaims, Subject: "role", Value: "system"},
			{Metric: writ.QuotaClaims, Subject: "capability", Value: "../x"},
			{Metric: writ.QuotaClaims, Subject: "planet"},
			{Metric: writ.QuotaInvocations, Subject: "capability", Value: "no.such"},
			{Metric: writ.QuotaInvocations, Subject: "capability", Value: "quota.list"},
			{Metric: writ.QuotaInvocations, Subject: "capability", Value: "task.complete"},
			{Metric: writ.QuotaInvocations, Subject: "capability", Value: "task.expire"},
		},
		"/action": {
			{Metric: writ.QuotaClaims, Subject: "tenant", Action: "approval"},
			{Metric: writ.QuotaQueued, Subject: "tenant", Action: "queue"},
			{Metric: writ.QuotaInvocations, Subject: "tenant", Action: "queue"},
			{Metric: writ.QuotaApprovals, Subject: "tenant", Action: "queue"},
		},
		"/limit": {{Metric: writ.QuotaClaims, Subject: "tenant", Limit: -1}, {Metric: writ.QuotaClaims, Subject: "tenant", Limit: writ.MaxAmount + 1}},
	} {
		for _, a := range bad {
			e := l.refused(writ.CodeInputInvalid, "quota.set", l.op, &a)
			if len(e.Fields) != 1 || e.Fields[0].Pointer != pointer || strings.Contains(e.Error()+e.Hint+e.Fields[0].Msg, "no.such") {
				t.Errorf("%+v: %+v", a, e)
			}
		}
	}
	if g, _, _ := writtest.Get[writ.Gate](l.World, writ.GateKey); g.Quotas != 0 {
		t.Error("something was set")
	}
}

// A value that names nothing is refused with what would.
func TestAQuotaSaysWhatNamesItsSubject(t *testing.T) {
	l := newLab(t)
	for subject, want := range map[writ.QuotaSubject]string{
		writ.QuotaOfTenant: "left out", writ.QuotaOfAgent: "2 to 63", writ.QuotaOfSession: "ses_", writ.QuotaOfRole: "operator, orchestrator, executor",
		writ.QuotaOfCapability: "site.build",
	} {
		e := l.refused(writ.CodeInputInvalid, "quota.set", l.op, &quotas.QuotaSetArgs{Metric: writ.QuotaClaims, Subject: subject, Value: "No Body"})
		if len(e.Fields) != 1 || !strings.Contains(e.Fields[0].Msg, want) {
			t.Errorf("%s: %+v", subject, e.Fields)
		}
	}
}

// One metric, subject and value have one quota: setting it again changes its limit
// and leaves its count. The gate says how many there are.
func TestQuotasAreKept(t *testing.T) {
	l := newLab(t)
	gate := func() int64 { g, _, _ := writtest.Get[writ.Gate](l.World, writ.GateKey); return g.Quotas }
	id := l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 1)
	l.enqueue()
	if again := l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 2); again != id || gate() != 1 || l.used(id) != 1 {
		t.Errorf("%s is %s now, %d quotas, %d used", id, again, gate(), l.used(id))
	}
	before := len(l.Facts)
	l.set(writ.QuotaQueued, writ.QuotaOfTenant, "", 2)
	if len(l.Facts) != before {
		t.Error("nothing changed and a receipt says so")
	}
	other := l.set(writ.QuotaQueued, writ.QuotaOfCapability, string(build), 9)
	list := body[quotas.QuotaList](l, l.do("quota.list", l.op, &quotas.QuotaListArgs{Subject: writ.QuotaOfCapability}))
	if len(list.Quotas) != 1 || list.Quotas[0].ID != other || gate() != 2 {
		t.Errorf("%+v", list)
	}
	l.do("quota.delete", l.op, &quotas.QuotaArgs{ID: id})
	l.refused(writ.CodeNotFound, "quota.delete", l.op, &quotas.QuotaArgs{ID: id})
	l.refused(writ.CodeNotFound, "quota.get", l.op, &quotas.QuotaArgs{ID: id})
	if gate() != 1 {
		t.Errorf("%d quotas", gate())
	}
	l.enqueue()
	l.enqueue()
	for i := range writ.MaxQuotas - 1 {
		l.set(writ.QuotaClaims, writ.QuotaOfAgent, fmt.Sprintf("agent-%d", i), 1)
	}
	l.refused(writ.CodeQuota, "quota.set", l.op, &quotas.QuotaSetArgs{Metric: writ.QuotaClaims, Subject: writ.QuotaOfTenant, Limit: 1})
	if d := l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.QuotasKey}}).Docs[writ.QuotasKey]; len(d.Body) > 16<<10 {
		t.Errorf("all quotas are %d bytes and would be decoded in every call", len(d.Body))
	}
}

// Nobody is locked out: what ends, stops, decides or changes quotas goes on.
func TestNobodyIsLockedOut(t *testing.T) {
	l := newLab(t)
	grip := l.claim(l.a, l.enqueue())
	task := l.enqueue()
	for _, of := range []writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfRole, writ.QuotaOfSession, writ.QuotaOfCapability} {
		l.set(writ.QuotaInvocations, of, "", 0)
	}
	id := l.set(writ.QuotaInvocations, writ.QuotaOfAgent, "", 0)
	l.refused(writ.CodeQuota, "task.claim", l.a, task)
	l.refused(writ.CodeQuota, "task.enqueue", l.orc, l.next())
	l.do("task.complete", l.a, &queue.TaskCompleteArgs{TaskHold: queue.TaskHold{Task: grip.Task, Lease: grip.Lease, Fence: grip.Fence}})
	l.do("task.cancel", l.op, &queue.TaskCancelArgs{Task: task.Task})
	l.do("quota.delete", l.op, &quotas.QuotaArgs{ID: id})
}

// Who has used up what may be asked does not keep operators from being asked about
// when they stop somebody or change quotas. Agents are held to it in all they ask.
func TestOperatorsMayAskWhateverOthersAsked(t *testing.T) {
	l := newLab(t)
	id := l.set(writ.QuotaApprovals, writ.QuotaOfTenant, "", 0)
	asks := func(by writ.Caller, verb writ.CapabilityID) error {
		k := &writ.Capability{ID: verb, Safety: writ.SafetyMutating, Class: writ.Ordinary}
		call := &writ.Call{Capability: verb, Caller: by}
		var tx writ.Tx
		tx.Count([]string{string(id)}, 1)
		s := l.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.GateKey, writ.QuotasKey}})
		return quotas.Obligor{}.Asked(call, k, s, writ.Subject{}, &tx)
	}
	for _, verb := range []writ.CapabilityID{"agent.revoke", "session.revoke", "quota.delete", "quota.set"} {
		if err := asks(l.op, verb); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	for _, refused := range []struct {
		by   writ.Caller
		verb writ.CapabilityID
	}{{l.op, "agent.register"}, {l.orc, "task.cancel"}, {l.a, "task.complete"}} {
		if err := asks(refused.by, refused.verb); writ.CodeOf(err) != writ.CodeQuota {
			t.Errorf("%s: %v", refused.verb, err)
		}
	}
}

// Counters of windows that are long over are taken away, those of a window that
// goes on never; what was told is forgotten too.
func TestCountersAreTidied(t *testing.T) {
	l := newLab(t)
	l.set(writ.QuotaClaims, writ.QuotaOfSession, "", 5)
	l.claim(l.a, l.enqueue())
	l.claim(l.b, l.enqueue())
	tidy := func() (n int) {
		for member, due := range l.Index(writ.IndexQuotas) {
			if due > l.Now {
				continue
			}
			entity, field, _ := strings.Cut(member, " ")
			args := &quotas.QuotaTidyArgs{Entity: entity, Field: field}
			if got := quotas.TidyArgs(member); got["entity"] != entity || got["field"] != field {
				t.Errorf("%v", got)
			}
			if _, _, err := l.Call(l.verbs["quota.tidy"], l.System(), args); err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	left := func() (n int) {
		for c, v := range l.Counters() {
			if strings.HasPrefix(c.Entity, "quota/") && v != 0 {
				n++
			}
		}
		return n
	}
	if left() != 4 || tidy() != 0 {
		t.Fatalf("%d counters", left())
	}
	l.Advance(24 * 3600)
	l.claim(l.a, l.enqueue())
	l.Advance(24 * 3600)
	if tidy() != 1 || left() != 2 || len(l.Index(writ.IndexQuotas)) != 1 {
		t.Errorf("%d counters are left, due is %v", left(), l.Index(writ.IndexQuotas))
	}
	for member := range l.Index(writ.IndexQuotas) { // called too early
		entity, field, _ := strings.Cut(member, " ")
		l.do("quota.tidy", l.System(), &quotas.QuotaTidyArgs{Entity: entity, Field: field})
	}
	if left() != 2 {
		t.Error("a window that may go on was taken away")
	}
	l.Advance(24 * 3600)
	if tidy() != 1 || left() != 0 || len(l.Index(writ.IndexQuotas)) != 0 {
		t.Errorf("%d counters are left", left())
	}
}

// Random claims of random workers, half of them with another between judging and
// commit, under quotas for everybody: no window ever holds more than its limit, by
// a count kept beside, and each count is what was committed.
func TestWindowsAgainstACountBeside(t *testing.T) {
	const rounds, steps = 8, 80
	refused, conflicts := 0, 0
	for seed := range rounds {
		l := newLab(t)
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		type limit struct {
			id   writ.QuotaID
			of   writ.QuotaSubject
			most int64
		}
		var limits []limit
		for _, of := range []writ.QuotaSubject{writ.QuotaOfTenant, writ.QuotaOfAgent, writ.QuotaOfSession, writ.QuotaOfCapability} {
			most := r.Int64N(5) + 1
			limits = append(limits, limit{l.set(writ.QuotaClaims, of, "", most), of, most})
		}
		people := []writ.Caller{l.a, l.b, l.Open(writ.RoleExecutor, "worker-c", "agent-a")}
		count := map[string]int64{} // quota, value, window
		tag := func(q limit, c writ.Caller) string {
			switch q.of {
			case writ.QuotaOfAgent:
				return string(q.id) + "/" + string(c.Agent)
			case writ.QuotaOfSession:
				return string(q.id) + "/" + string(c.Session)
			case writ.QuotaOfCapability:
				return string(q.id) + "/" + string(build)
			}
			return string(q.id)
		}
		prepare := func() *writtest.Planned {
			who := people[r.IntN(len(people))]
			call := l.NewCall(l.verbs["task.claim"], who, l.enqueue())
			p, _, err := l.PlanCharged(l.verbs["task.claim"], call, quotas.Obligor{})
			if writ.CodeOf(err) == writ.CodeQuota {
				refused++
				room := int64(writ.MaxAmount)
				for _, q := range limits {
					room = min(room, q.most-count[fmt.Sprint(tag(q, who), l.Now/60_000)])
				}
				if e := writ.AsError("", err); e.Details["quota"] != "" && room > 0 {
					t.Fatalf("refused with room for %d: %v", room, err)
				}
				return nil
			}
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		commit := func(p *writtest.Planned) {
			if p == nil {
				return
			}
			if _, err := l.Commit(p); err != nil {
				conflicts++
				return
			}
			for _, q := range limits {
				name := fmt.Sprint(tag(q, p.Call.Caller), l.Now/60_000)
				if count[name]++; count[name] > q.most {
					t.Fatalf("%d in a window of %d", count[name], q.most)
				}
				if used := l.Counter(writ.QuotaUsed(tag(q, p.Call.Caller))); used != count[name] {
					t.Fatalf("counted %d, there were %d", used, count[name])
				}
			}
		}
		for range steps {
			first := prepare()
			if r.IntN(2) == 0 {
				commit(prepare())
			}
			if r.IntN(4) == 0 {
				l.Now += r.Int64N(40_000)
			}
			commit(first)
		}
	}
	if refused == 0 || conflicts == 0 {
		t.Errorf("%d refusals and %d conflicts: this tested nothing", refused, conflicts)
	}
}
