package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// Where a session claims to write nobody else takes work; it does itself, by whole
// segments, wherever below.
func TestNobodyElseWorksWhereASessionClaims(t *testing.T) {
	l := newLab(t)
	by := l.started("agent-b", alone("fs:repo/ops/plug/"))
	for name, scope := range map[string]string{"same": "fs:repo/ops/plug/", "inside": "fs:repo/ops/plug/a/b/", "around": "fs:repo/"} {
		id := l.enqueue(name, scopes(scope))
		e := l.refused(writ.CodeScopeConflict, "task.claim", l.a, &TaskClaimArgs{Task: id})
		if e.Details["holder"] != string(by.Session) || e.Details["holder_agent"] != "agent-b" || e.Details["scope"] != "fs:repo/ops/plug/" {
			t.Errorf("%s: %v", name, e.Details)
		}
	}
	for name, scope := range map[string]string{"longer": "fs:repo/ops/plugins2/", "beside": "fs:repo/ops/b/"} {
		l.do("task.complete", l.a, l.claim(l.a, l.enqueue(name, scopes(scope))).complete())
	}
	audit(l)
	g := l.claim(by, l.enqueue("own", scopes("fs:repo/ops/plug/x/")))
	audit(l)
	// Two tasks of one session keep out of each other's way all the same.
	l.refused(writ.CodeScopeConflict, "task.claim", by, &TaskClaimArgs{Task: l.enqueue("second", scopes("fs:repo/ops/plug/"))})
	l.do("task.complete", by, g.complete())
	audit(l)
}

// A task that is met in a lane waits for the session, which may take it, and goes back
// to its lane when the session ends, however many wait.
func TestWaitingForASession(t *testing.T) {
	l := newLab(t)
	by := l.started("agent-b", alone("fs:repo/"))
	var ids []writ.TaskID
	for i := range wakeAtOnce + 3 {
		id := l.enqueue(fmt.Sprintf("waits-%d", i), scopes("fs:repo/a/"))
		if r, err := l.dispatch(l.a, l.lane(), id); err != nil || r.Outcome != writ.OutcomeEmpty || l.inLane(id) {
			t.Fatalf("%v %v", r.Outcome, err)
		}
		ids = append(ids, id)
	}
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: ids[0]})); !slices.Equal(v.BlockedOn, asHolders(by.Session)) {
		t.Fatalf("blocked on %v", v.BlockedOn)
	}
	audit(l)
	l.do("task.complete", by, l.claim(by, ids[0]).complete())
	audit(l)
	l.endSession(by.Session)
	audit(l)
	if got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: by.Session}); !got.More {
		t.Fatalf("the first cleanup did it all: %+v", got)
	}
	audit(l)
	if got := l.sweep("session.cleanup", &SessionCleanupArgs{Session: by.Session}); got.More {
		t.Fatalf("and the second left some: %+v", got)
	}
	audit(l)
	for _, id := range ids[1:] {
		if !l.inLane(id) {
			t.Fatalf("%s was not woken", id)
		}
	}
	l.claim(l.a, ids[1])
	audit(l)
}

// A session that ends while a task begins to wait for it: nothing waits for one that
// has ended.
func TestNoWakeUpOfASessionIsLost(t *testing.T) {
	l := newLab(t)
	by := l.started("agent-b", alone("fs:repo/"))
	id := l.enqueue("waits", scopes("fs:repo/a/"))
	c := l.caps["task.claim"]
	call := l.w.NewCall(c, l.a, &TaskClaimArgs{Task: id})
	call.Entry = entry(l.lane(), id)
	p, err := l.w.Plan(c, call)
	if err != nil {
		t.Fatal(err)
	}
	l.endSession(by.Session)
	l.sweep("session.cleanup", &SessionCleanupArgs{Session: by.Session})
	if _, err := l.w.Commit(p); !errors.As(err, new(*writtest.Conflict)) {
		t.Fatalf("it waits for a session that has ended: %v", err)
	}
	audit(l)
	l.claim(l.a, id)
}

// A claim that is granted between a task's claim and its commit.
func TestASessionThatStartsIsInTheWay(t *testing.T) {
	for _, mode := range []writ.ScopeMode{writ.ScopeExclusive, writ.ScopeShared} {
		for _, scope := range []string{"fs:repo/", "fs:repo/a/", "fs:repo/a/b/"} {
			l := newLab(t)
			id := l.enqueue("one", scopes("fs:repo/a/"))
			c := l.caps["task.claim"]
			p, err := l.w.Plan(c, l.w.NewCall(c, l.a, &TaskClaimArgs{Task: id}))
			if err != nil {
				t.Fatal(err)
			}
			l.started("agent-b", writ.WriteClaim{Resource: scope, Mode: mode})
			if _, err := l.w.Commit(p); !errors.As(err, new(*writtest.Conflict)) {
				t.Errorf("%s %s: claimed all the same: %v", mode, scope, err)
			}
		}
	}
}

// Who shares a claim takes turns; who does not is kept out.
func TestSessionsThatShareTakeTurns(t *testing.T) {
	l := newLab(t)
	one, two := l.started("agent-a", shared("fs:repo/a/")), l.started("agent-b", shared("fs:repo/"))
	id, other := l.enqueue("one", scopes("fs:repo/a/x/")), l.enqueue("two", scopes("fs:repo/a/"))
	for _, by := range []writ.Caller{l.a, l.started("agent-a", alone("mem:notes/"))} {
		l.refused(writ.CodeScopeConflict, "task.claim", by, &TaskClaimArgs{Task: id})
	}
	g := l.claim(one, id)
	audit(l)
	if e := l.refused(writ.CodeScopeConflict, "task.claim", two, &TaskClaimArgs{Task: other}); e.Details["holder"] != string(id) {
		t.Errorf("in the way: %v", e.Details)
	}
	if r, err := l.dispatch(two, l.lane(), other); err != nil || r.Outcome != writ.OutcomeEmpty {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	audit(l)
	l.do("task.complete", one, g.complete())
	audit(l)
	l.do("task.complete", two, l.claim(two, other).complete())
	// A task wider than what its claimer shares is not covered by that.
	l.refused(writ.CodeScopeConflict, "task.claim", one, &TaskClaimArgs{Task: l.enqueue("wide", scopes("fs:repo/"))})
	audit(l)
}

// Another session's shared claim that comes between is no reason to fail; a task is.
func TestSharedClaimsMeetAtTheCommit(t *testing.T) {
	l := newLab(t)
	one, two := l.started("agent-a", shared("fs:repo/")), l.started("agent-b", shared("fs:repo/"))
	c := l.caps["task.claim"]
	plan := func(by writ.Caller, id writ.TaskID) *writtest.Planned {
		t.Helper()
		p, err := l.w.Plan(c, l.w.NewCall(c, by, &TaskClaimArgs{Task: id}))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second := plan(one, l.enqueue("one", scopes("fs:repo/a/"))), plan(two, l.enqueue("two", scopes("fs:repo/a/b/")))
	l.started("agent-b", shared("fs:repo/a/"))
	if _, err := l.w.Commit(first); err != nil {
		t.Fatal(err)
	}
	if _, err := l.w.Commit(second); !errors.As(err, new(*writtest.Conflict)) {
		t.Fatalf("two tasks on one scope: %v", err)
	}
	audit(l)
}

// Where more share a scope than are read, nobody can tell who else is there: a task
// waits, and does not try for ever.
func TestMoreShareThanAreRead(t *testing.T) {
	l := newLab(t)
	by := l.started("agent-a", shared("fs:repo/"))
	for i := range 130 {
		l.started("agent-b", shared(fmt.Sprintf("fs:repo/%03d/", i)))
	}
	id := l.enqueue("wide", scopes("fs:repo/"))
	l.refused(writ.CodeScopeConflict, "task.claim", by, &TaskClaimArgs{Task: id})
	if r, err := l.dispatch(by, l.lane(), id); err != nil || r.Outcome != writ.OutcomeEmpty || l.inLane(id) {
		t.Fatalf("%v %v", r.Outcome, err)
	}
	l.claim(by, l.enqueue("narrow", scopes("fs:repo/007/")))
	audit(l)
}

// What a session hands on keeps its scopes under the claim, shared or not, and the
// session takes it.
func TestHandingOnUnderAClaim(t *testing.T) {
	for _, claim := range []writ.WriteClaim{alone("fs:repo/a/"), shared("fs:repo/a/"), alone("fs:repo/")} {
		l := newLab(t)
		by := l.started("agent-a", claim)
		l.started("agent-b", shared("mem:notes/"))
		if claim.Mode == writ.ScopeShared {
			l.started("agent-b", claim)
		}
		g := l.claim(by, l.enqueue("one", scopes("fs:repo/a/")))
		next := body[HandedOff](l, l.do("task.handoff", by, &TaskHandoffArgs{
			TaskHold: TaskHold{g.task, g.lease, g.fence}, To: HandoffTarget{Task: &HandoffTask{Key: "two", Capability: build, WriteScopes: []string{"fs:repo/a/"}}},
		})).Next.ID
		audit(l)
		if l.task(next).KeptUntil == 0 {
			t.Fatal("nothing is kept")
		}
		g = l.claim(by, next)
		audit(l)
		l.do("task.complete", by, g.complete())
		audit(l)
	}
}

// Policy sees what a session claims where it takes work or gives its result, and
// nowhere else.
func TestPolicySeesWhatASessionClaims(t *testing.T) {
	l := newLab(t)
	by := l.started("agent-a", alone("fs:repo/"), shared("mem:notes/"))
	claimed := func(id writ.CapabilityID, who writ.Caller, args any) []string {
		t.Helper()
		p, err := l.w.Plan(l.caps[id], l.w.NewCall(l.caps[id], who, args))
		if err != nil {
			t.Fatal(err)
		}
		return p.Subject.Claimed
	}
	want := []string{"fs:repo/", "mem:notes/"}
	id := l.enqueue("one", scopes("fs:repo/a/"))
	if got := claimed("task.claim", by, &TaskClaimArgs{Task: id}); !slices.Equal(got, want) {
		t.Errorf("claim: %v", got)
	}
	if got := claimed("task.claim", l.b, &TaskClaimArgs{Task: l.enqueue("two")}); got != nil {
		t.Errorf("a session without claims: %v", got)
	}
	g := l.claim(by, id)
	if got := claimed("task.complete", by, g.complete()); !slices.Equal(got, want) {
		t.Errorf("complete: %v", got)
	}
	handoff := &TaskHandoffArgs{TaskHold: TaskHold{g.task, g.lease, g.fence}, To: HandoffTarget{Task: &HandoffTask{Key: "next", Capability: build}}}
	if got := claimed("task.handoff", by, handoff); !slices.Equal(got, want) {
		t.Errorf("handoff: %v", got)
	}
	if got := claimed("task.heartbeat", by, g.beat()); got != nil {
		t.Errorf("heartbeat: %v", got)
	}
}

// The largest task under the most claims there may be fits into one transaction.
func TestLargestClaimUnderClaimsFits(t *testing.T) {
	l := newLab(t)
	var wide []string
	var claims []writ.WriteClaim
	for i := range MaxScopes {
		wide = append(wide, fmt.Sprintf("fs:r%02d/a/b/c/d/e/", i))
		claims = append(claims, shared(wide[i]))
	}
	by := l.started("agent-a", claims...)
	id := l.enqueue("one", scopes(wide...))
	for i := range 8 {
		l.w.SetIndex(writ.BlockedOn(id), string(l.enqueue(fmt.Sprintf("blocker-%d", i))), 0)
	}
	for i := range 64 {
		l.w.SetIndex(writ.Refusers(id), writ.Refuser(writ.AgentID(fmt.Sprintf("agent-%d", i)), "p"), 0)
	}
	l.w.SetIndex(writ.Refused(build, "web"), string(id), 0)
	c := l.caps["task.claim"]
	p, err := l.w.Plan(c, l.w.NewCall(c, by, &TaskClaimArgs{Task: id}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Tx.Guards) + len(p.Tx.Ops); n > writ.MaxOps-16 { // which the door adds
		t.Fatalf("%d guards and operations", n)
	}
	if _, err := l.w.Commit(p); err != nil {
		t.Fatal(err)
	}
	audit(l)
}

// Everybody sees what sessions claim, all who share it.
func TestClaimsAreListed(t *testing.T) {
	l := newLab(t)
	one, two, three := l.started("agent-a", shared("fs:repo/")), l.started("agent-b", shared("fs:repo/")), l.started("agent-b", alone("mem:notes/"))
	g := l.claim(one, l.enqueue("one", scopes("fs:repo/a/")))
	var got []string
	for after, more := "", true; more; more = after != "" {
		page := body[ScopeList](l, l.do("scope.list", l.owner, &ScopeListArgs{Limit: 1, After: after}))
		after = page.Next
		for _, s := range page.Scopes {
			got = append(got, fmt.Sprint(s.Resource, " ", s.Mode, " ", s.Session, s.Task, " ", s.Agent))
			if s.ExpiresAt == "" {
				t.Errorf("%+v says not until when", s)
			}
		}
	}
	want := []string{
		"fs:repo/ shared " + string(one.Session) + " agent-a", "fs:repo/ shared " + string(two.Session) + " agent-b",
		"fs:repo/a/ exclusive " + string(g.task) + " agent-a", "mem:notes/ exclusive " + string(three.Session) + " agent-b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// A session that was refused for its claims is noted beside its agent, shown as that,
// and forgotten before the list is longer than is read.
func TestRefusalsOfSessions(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	refuse := func(by writ.SessionID) {
		t.Helper()
		if got := l.sweep("task.refuse", &TaskRefuseArgs{Task: id, Agent: "agent-a", By: by}); got.Changed != 1 {
			t.Fatalf("got %+v", got)
		}
	}
	list := refusers(id)
	for range list.Limit + 3 {
		refuse(writ.SessionID(l.w.NewID(writ.PrefixSession)))
	}
	last := writ.SessionID(l.w.NewID(writ.PrefixSession))
	refuse(last)
	refuse(last)
	got := l.w.Members(list.Index)
	if len(got) != list.Limit || !slices.Contains(got, writ.RefuserAs("agent-a", last, "")) {
		t.Errorf("%d are noted, the last among them: %v", len(got), slices.Contains(got, writ.RefuserAs("agent-a", last, "")))
	}
	if v := body[TaskView](l, l.do("task.get", l.owner, &TaskGetArgs{Task: id})); !slices.Equal(v.RefusedTo, []writ.AgentID{"agent-a"}) {
		t.Errorf("refused to %v", v.RefusedTo)
	}
	l.claim(l.b, id)
	audit(l)
}
