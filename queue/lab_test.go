package queue

import (
	"errors"
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// lab is a world with a run, an owner, an operator and two agents of one
// domain, and short ways to call the verbs of the room.
type lab struct {
	*testing.T
	w     *writtest.World
	caps  map[writ.CapabilityID]*writ.Capability
	run   writ.RunID
	owner writ.Caller // orchestrator that owns the run
	oper  writ.Caller
	a, b  writ.Caller // executors, agents agent-a and agent-b
	judge writ.Caller // verifier, agent agent-v
}

const build writ.CapabilityID = "site.build"

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{T: t, w: writtest.New(), caps: map[writ.CapabilityID]*writ.Capability{}}
	l.w.Seed(writ.GateKey, writ.ObjectGate, writ.Gate{State: writ.GateOpen})
	for _, c := range Capabilities(Config{MinLeaseSeconds: 1}) {
		l.caps[c.ID] = c
	}
	l.run = l.w.Run("boss", 1000).ID
	l.owner = l.w.Open(writ.RoleOrchestrator, "boss", "")
	l.oper = l.w.Open(writ.RoleOperator, "olga", "")
	l.w.Agent("agent-a", "web", build, "site.test")
	l.w.Agent("agent-b", "web", build, "site.test")
	l.a = l.w.Open(writ.RoleExecutor, "worker-a", "agent-a")
	l.b = l.w.Open(writ.RoleExecutor, "worker-b", "agent-b")
	l.w.Agent("agent-v", "web")
	l.judge = l.w.Open(writ.RoleVerifier, "judge", "agent-v")
	return l
}

func (l *lab) try(id writ.CapabilityID, by writ.Caller, args any) (writ.Reply, writ.Tx, error) {
	l.Helper()
	return l.w.Call(l.caps[id], by, args)
}

// do calls and wants success.
func (l *lab) do(id writ.CapabilityID, by writ.Caller, args any) writ.Reply {
	l.Helper()
	r, _, err := l.try(id, by, args)
	if err != nil {
		l.Fatalf("%s: %v", id, err)
	}
	return r
}

// refused calls and wants a refusal with a code.
func (l *lab) refused(code writ.Code, id writ.CapabilityID, by writ.Caller, args any) *writ.Error {
	l.Helper()
	_, _, err := l.try(id, by, args)
	return l.wantCode(code, err)
}

func (l *lab) wantCode(code writ.Code, err error) *writ.Error {
	l.Helper()
	var e *writ.Error
	if !errors.As(err, &e) || e.Code != code {
		l.Fatalf("got %v, want %s", err, code)
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

// enqueue adds a task of priority 5; change may alter the request.
func (l *lab) enqueue(key string, change ...func(*TaskEnqueueArgs)) writ.TaskID {
	l.Helper()
	a := &TaskEnqueueArgs{Run: l.run, Key: key, Capability: build, Domain: "web"}
	for _, c := range change {
		c(a)
	}
	return body[TaskView](l, l.do("task.enqueue", l.owner, a)).ID
}

func scopes(s ...string) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.WriteScopes = s }
}

func attempts(n int64) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.MaxAttempts = &n }
}

func backoff(ms int64) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.BackoffMs = &ms }
}

// grip is what a holder shows.
type grip struct {
	task  writ.TaskID
	lease writ.LeaseID
	fence int64
}

func (l *lab) claim(by writ.Caller, id writ.TaskID) grip {
	l.Helper()
	c := body[TaskClaimed](l, l.do("task.claim", by, &TaskClaimArgs{Task: id}))
	return grip{id, c.Lease.ID, c.Lease.Fence}
}

func (g grip) complete() *TaskCompleteArgs {
	return &TaskCompleteArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}, Result: writ.RawObject(`{"ok":true}`)}
}

func (g grip) fail(retryable bool) *TaskFailArgs {
	return &TaskFailArgs{
		TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence},
		Failure:  TaskFailure{Class: writ.FailureExternal, Code: "broken", Retryable: retryable},
	}
}

func (g grip) release() *TaskReleaseArgs {
	return &TaskReleaseArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}}
}

func (g grip) beat() *TaskHeartbeatArgs {
	return &TaskHeartbeatArgs{TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}}
}

// entry is a delivery of a lane entry; in this world its id is the entry.
func entry(l writ.Lane, id writ.TaskID) *writ.Delivery {
	return &writ.Delivery{Lane: l, ID: string(id), Entry: string(id)}
}

// dispatch claims a lane entry the way the dispatcher does.
func (l *lab) dispatch(by writ.Caller, lane writ.Lane, id writ.TaskID) (writ.Reply, error) {
	l.Helper()
	call := l.w.NewCall(l.caps["task.claim"], by, &TaskClaimArgs{Task: id})
	call.Entry = entry(lane, id)
	r, _, err := l.w.Do(l.caps["task.claim"], call)
	return r, err
}

func (l *lab) task(id writ.TaskID) writ.Task {
	l.Helper()
	t, _, ok := writtest.Get[writ.Task](l.w, writ.TaskKey(id))
	if !ok {
		l.Fatalf("no task %s", id)
	}
	return t
}

func (l *lab) runDoc() writ.Run {
	l.Helper()
	r, _, ok := writtest.Get[writ.Run](l.w, writ.RunKey(l.run))
	if !ok {
		l.Fatalf("no run %s", l.run)
	}
	return r
}

// setRun changes the run as its own room would.
func (l *lab) setRun(change func(*writ.Run)) {
	l.Helper()
	r := l.runDoc()
	change(&r)
	l.w.Seed(writ.RunKey(l.run), writ.ObjectRun, r)
}

func (l *lab) endSession(id writ.SessionID) {
	l.Helper()
	s, _, _ := writtest.Get[writ.Session](l.w, writ.SessionKey(id))
	s.State = writ.SessionRevoked
	for _, c := range s.WriteClaims { // as its own room does
		l.w.DropIndex(writ.IndexScopes, c.Member(id))
	}
	l.w.Seed(writ.SessionKey(id), writ.ObjectSession, s)
	l.w.SetIndex(writ.IndexTodo, todo(todoSession, string(id)), l.w.Now)
}

// started starts another session of an agent, that claims to write somewhere, as its
// own room would.
func (l *lab) started(agent writ.AgentID, claims ...writ.WriteClaim) writ.Caller {
	l.Helper()
	by := l.w.Open(writ.RoleExecutor, "claims-"+writ.PrincipalID(agent), agent)
	s, _, _ := writtest.Get[writ.Session](l.w, writ.SessionKey(by.Session))
	s.WriteClaims, by.Claims = claims, claims
	l.w.Seed(writ.SessionKey(s.ID), writ.ObjectSession, s)
	for _, c := range claims {
		l.w.SetIndex(writ.IndexScopes, c.Member(s.ID), 0)
	}
	return by
}

func alone(scope string) writ.WriteClaim {
	return writ.WriteClaim{Resource: scope, Mode: writ.ScopeExclusive}
}

func shared(scope string) writ.WriteClaim {
	return writ.WriteClaim{Resource: scope, Mode: writ.ScopeShared}
}

func asHolders[ID ~string](ids ...ID) (out []writ.Holder) {
	for _, id := range ids {
		out = append(out, writ.Holder(id))
	}
	return out
}

func (l *lab) sweep(id writ.CapabilityID, args any) Swept {
	l.Helper()
	return body[Swept](l, l.do(id, l.w.System(), args))
}

func (l *lab) wantState(id writ.TaskID, want writ.TaskState) writ.Task {
	l.Helper()
	t := l.task(id)
	if t.State != want {
		l.Fatalf("task is %q, want %q", t.State, want)
	}
	return t
}

// unplace takes a queued task off its place, for a test that moves it by hand.
func (l *lab) unplace(t writ.Task) {
	l.Helper()
	d := draft{s: l.w.Snapshot(writ.ReadSet{Docs: []writ.Key{writ.RunKey(t.Run)}, Counters: placeReads(t)})}
	d.withdraw(t)
	tx, err := d.done()
	if err == nil {
		err = l.w.Apply(tx)
	}
	if err != nil {
		l.Fatal(err)
	}
}

// small makes windows small for one test.
func small(t *testing.T, n int64) {
	was, low := window, lowWater
	window, lowWater = n, n/2
	t.Cleanup(func() { window, lowWater = was, low })
}

func (l *lab) lane() writ.Lane { return writ.LaneOf(build, "web", 5) }

func (l *lab) inLane(id writ.TaskID) bool { return slices.Contains(l.w.Lane(l.lane()), string(id)) }

func TestCapabilitiesRegister(t *testing.T) {
	if _, err := writ.NewRegistry(Capabilities(Config{})...); err != nil {
		t.Fatal(err)
	}
}
