package queue

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

func TestEnqueue(t *testing.T) {
	l := newLab(t)
	a := &TaskEnqueueArgs{
		Run: l.run, Key: "one", Capability: build, Domain: "web", Args: writ.RawObject(`{"b":1,"a":[1.50]}`),
		WriteScopes: []string{"fs:repo/a/x", "fs:repo/b", "fs:repo/a/", "FS:repo/b/"}, Labels: []writ.Label{"weird", writ.LabelPublic},
	}
	r := l.do("task.enqueue", l.owner, a)
	v := body[TaskView](l, r)
	if r.Outcome != writ.OutcomeCreated || v.State != writ.TaskQueued || v.Version == 0 || v.Priority != 5 || v.LeaseSeconds != 60 ||
		v.MaxAttempts != 3 || v.BackoffMs != 1000 || v.Safety != writ.SafetyMutating {
		t.Fatalf("%s %+v", r.Outcome, v)
	}
	if !slices.Equal(v.WriteScopes, []string{"fs:repo/a/", "fs:repo/b/"}) || !slices.Equal(v.Labels, []writ.Label{writ.LabelPIIChatMessage, writ.LabelPublic}) {
		t.Fatalf("scopes %v, labels %v", v.WriteScopes, v.Labels)
	}
	if !l.inLane(v.ID) || l.w.Counter(writ.RunOpenTasks(l.run)) != 1 {
		t.Fatal("not in its lane or not counted")
	}

	// The same request again, worded differently, is the same task.
	a.Args, a.WriteScopes = writ.RawObject(` {"a": [1.50], "b": 1} `), []string{"fs:repo/b", "fs:repo/a"}
	again, tx, err := l.try("task.enqueue", l.owner, a)
	if err != nil || !tx.Empty() || again.Outcome != writ.OutcomeDone || body[TaskView](l, again).ID != v.ID || again.ETag != v.Version {
		t.Fatalf("err %v, reply %s", err, again.JSON)
	}
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	l.do("task.enqueue", l.owner, a) // even when the run is closed by now
	a.Args = writ.RawObject(`{"a":[1.5],"b":2}`)
	if e := l.refused(writ.CodeIdempotency, "task.enqueue", l.owner, a); !strings.Contains(e.Msg, "a task of this key") || strings.Contains(e.Msg+e.Hint, "Idempotency") {
		t.Errorf("a key of a task is spoken of as another key: %q, %q", e.Msg, e.Hint)
	}
	audit(l)
}

func TestEnqueueRefusals(t *testing.T) {
	stranger := func(l *lab) writ.Caller { return l.w.Open(writ.RoleOrchestrator, "stranger", "") }
	owner := func(l *lab) writ.Caller { return l.owner }
	big := writ.RawObject(`{"x":"` + strings.Repeat("<", 10_000) + `"}`) // 60 KB as stored
	deep := make([]string, 0, 8)
	for i := range 8 {
		deep = append(deep, fmt.Sprintf("fs:r%d/%s", i, strings.Repeat("a/", 20)))
	}
	for _, c := range []struct {
		name   string
		by     func(*lab) writ.Caller
		change func(*lab, *TaskEnqueueArgs)
		want   writ.Code
		at     string
	}{
		{"another owner's run", stranger, nil, writ.CodeNotFound, ""},
		{"an executor", func(l *lab) writ.Caller { return l.a }, nil, writ.CodeNotFound, ""},
		{"no such run", owner, func(l *lab, a *TaskEnqueueArgs) { a.Run = writ.RunID(l.w.NewID(writ.PrefixRun)) }, writ.CodeNotFound, ""},
		{"ended run", owner, func(l *lab, _ *TaskEnqueueArgs) { l.setRun(func(r *writ.Run) { r.State = writ.RunDone }) }, writ.CodeIllegal, ""},
		{"sealed run", owner, func(l *lab, _ *TaskEnqueueArgs) { l.setRun(func(r *writ.Run) { r.Sealed = true }) }, writ.CodeIllegal, ""},
		{"nobody declares it", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Capability = "site.paint" }, writ.CodeNoAgent, ""},
		{"nobody in the domain", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Domain = "finance" }, writ.CodeNoAgent, ""},
		{"nobody among the agents", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-v"} }, writ.CodeNoAgent, ""},
		{"no such agent beside one there is", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-z", "agent-a"} }, writ.CodeInputInvalid, "/required_agents/0"},
		{"blocked everywhere", owner, func(l *lab, a *TaskEnqueueArgs) {
			for _, id := range []writ.AgentID{"agent-a", "agent-b"} {
				l.setAgent(id, func(g *writ.Agent) { g.Tools[0].Safety = writ.SafetyBlocked })
			}
		}, writ.CodeNoAgent, ""},
		{"suspended but still listed", owner, func(l *lab, a *TaskEnqueueArgs) {
			for _, id := range []writ.AgentID{"agent-a", "agent-b"} {
				l.setAgent(id, func(g *writ.Agent) { g.State = writ.AgentSuspended })
			}
		}, writ.CodeNoAgent, ""},
		{"arguments fail the schema", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Args = writ.RawObject(`{"bad":1}`) }, writ.CodeInputInvalid, "/args/bad"},
		{"arguments are no object", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Args = writ.RawObject(`[1]`) }, writ.CodeInputInvalid, "/args"},
		{"arguments are two objects", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Args = writ.RawObject(`{}{}`) }, writ.CodeInputInvalid, "/args"},
		{"arguments too large", owner, func(_ *lab, a *TaskEnqueueArgs) { a.Args = big }, writ.CodeInputInvalid, "/args"},
		{"scope not canonical", owner, func(_ *lab, a *TaskEnqueueArgs) { a.WriteScopes = []string{"fs:a", "fs:a/../b"} }, writ.CodeInputInvalid, "/write_scopes/1"},
		{"scopes too deep", owner, func(_ *lab, a *TaskEnqueueArgs) { a.WriteScopes = deep }, writ.CodeInputInvalid, "/write_scopes"},
		{"lease too short", owner, func(_ *lab, a *TaskEnqueueArgs) { v := int64(0); a.LeaseSeconds = &v }, writ.CodeInputInvalid, "/lease_ttl_s"},
		{"bad time", owner, func(_ *lab, a *TaskEnqueueArgs) { a.NotBefore = "tomorrow" }, writ.CodeInputInvalid, "/not_before"},
		{"far time", owner, func(_ *lab, a *TaskEnqueueArgs) { a.NotBefore = "9999-01-01T00:00:00Z" }, writ.CodeInputInvalid, "/not_before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			l.caps["task.enqueue"] = enqueueCapability(Config{MinLeaseSeconds: 1, Validate: func(_, args writ.RawObject) error {
				if strings.Contains(string(args), "bad") {
					return &writ.Error{Code: writ.CodeInputInvalid, Fields: []writ.FieldError{{Pointer: "/bad", Msg: "is not known"}}}
				}
				return nil
			}}.withDefaults())
			a := &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web"}
			if c.change != nil {
				c.change(l, a)
			}
			e := l.refused(c.want, "task.enqueue", c.by(l), a)
			if c.at != "" && (len(e.Fields) != 1 || e.Fields[0].Pointer != c.at) {
				t.Fatalf("fields %v, want %s", e.Fields, c.at)
			}
			if c.name == "scope not canonical" && e.Hint != writ.ScopeForm {
				t.Errorf("hint %q does not say how a resource URI is written", e.Hint)
			}
			if len(l.w.Lanes()) != 0 || l.w.Counter(writ.RunOpenTasks(l.run)) != 0 {
				t.Fatal("a refused task was queued")
			}
		})
	}
}

func (l *lab) setAgent(id writ.AgentID, change func(*writ.Agent)) {
	l.Helper()
	a, _, ok := writtest.Get[writ.Agent](l.w, writ.AgentKey(id))
	if !ok {
		l.Fatalf("no agent %s", id)
	}
	change(&a)
	l.w.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
}

func TestDefaultMinimumOfLeases(t *testing.T) {
	l := newLab(t)
	l.caps["task.enqueue"] = enqueueCapability(Config{}.withDefaults())
	nine := int64(9)
	l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", LeaseSeconds: &nine})
}

// A task is as dangerous as the most dangerous agent that may get it, and
// flows wherever one of them sends its data.
func TestEnqueueExposure(t *testing.T) {
	l := newLab(t)
	l.setAgent("agent-b", func(a *writ.Agent) {
		a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyDestructive, []writ.Sink{writ.SinkLog, writ.SinkEgress}
	})
	c := l.caps["task.enqueue"]
	call := l.w.NewCall(c, l.owner, &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web", WriteScopes: []string{"fs:x"}})
	p, err := l.w.Plan(c, call)
	if err != nil {
		t.Fatal(err)
	}
	sub := p.Subject
	if sub.Task.Safety != writ.SafetyDestructive || !slices.Equal(sub.Sinks, []writ.Sink{writ.SinkEgress, writ.SinkLog}) ||
		!slices.Equal(sub.Labels, []writ.Label{writ.LabelInternalSystem}) || !slices.Equal(sub.Scopes, []string{"fs:x/"}) || sub.Run.ID != l.run {
		t.Fatalf("subject %+v %+v", sub, sub.Task)
	}
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[0].Sinks = []writ.Sink{writ.SinkMemory} })
	if _, err := l.w.Commit(p); err == nil {
		t.Fatal("committed on agents nobody judged")
	}
	only := l.enqueue("two", func(a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-a"} })
	if got := l.task(only); got.Safety != writ.SafetyMutating || !slices.Equal(got.Sinks, []writ.Sink{writ.SinkMemory}) {
		t.Fatalf("safety %s, sinks %v", got.Safety, got.Sinks)
	}
}

// A call is planned again after a conflict, on what is true by then and on the
// arguments as they were: nothing of an earlier plan sticks to it.
func TestEnqueuePlannedAgain(t *testing.T) {
	l := newLab(t)
	c := l.caps["task.enqueue"]
	args := func() *TaskEnqueueArgs {
		return &TaskEnqueueArgs{
			Run: l.run, Key: "one", Capability: build, Domain: "web", Agents: []writ.AgentID{"agent-b", "agent-a"},
			Args: writ.RawObject(`{"b":1, "a":[2]}`), Labels: []writ.Label{writ.LabelPublic, "unheard of"}, WriteScopes: []string{"fs:y", "fs:x"},
		}
	}
	plan := func(call *writ.Call) (writ.Tx, writ.Subject) {
		t.Helper()
		p, err := l.w.Plan(c, call)
		if err != nil {
			t.Fatal(err)
		}
		return p.Tx, p.Subject
	}
	call := l.w.NewCall(c, l.owner, args())
	once, _ := plan(call)
	if again, _ := plan(call); !reflect.DeepEqual(again.Ops, once.Ops) {
		t.Fatal("planned twice, not the same")
	}
	l.setAgent("agent-a", func(a *writ.Agent) {
		a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyDestructive, []writ.Sink{writ.SinkLog, writ.SinkEgress}
	})
	got, sub := plan(call)
	fresh := *call
	fresh.Memo = nil
	fresh.Args = args()
	want, wantSub := plan(&fresh)
	if !reflect.DeepEqual(got.Ops, want.Ops) || !reflect.DeepEqual(sub, wantSub) || sub.Task.Safety != writ.SafetyDestructive {
		t.Fatalf("%+v\nwant %+v", sub, wantSub)
	}
	l.setAgent("agent-a", func(a *writ.Agent) { a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyMutating, nil })
	if back, _ := plan(call); !reflect.DeepEqual(back.Ops, once.Ops) {
		t.Fatal("an earlier plan stuck to the call")
	}
}

// An agent whose tool became more dangerous after the enqueue raises the task
// when it claims it, and policy sees that.
func TestClaimExposure(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one")
	l.setAgent("agent-a", func(a *writ.Agent) {
		a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyDestructive, []writ.Sink{writ.SinkEgress}
	})
	c := l.caps["task.claim"]
	asked := func() writ.Subject {
		p, err := l.w.Plan(c, l.w.NewCall(c, l.a, &TaskClaimArgs{Task: id}))
		if err != nil {
			t.Fatal(err)
		}
		return p.Subject
	}
	if sub := asked(); !sub.Task.Raised || sub.Task.Safety != writ.SafetyDestructive || !slices.Equal(sub.Sinks, []writ.Sink{writ.SinkEgress}) {
		t.Fatalf("subject %+v %+v", sub, sub.Task)
	}
	for what, raise := range map[string]func(*writ.Tool){
		"nothing":  func(*writ.Tool) {},
		"approval": func(tool *writ.Tool) { tool.Approval = writ.ApprovalManual },
		"sinks":    func(tool *writ.Tool) { tool.Sinks = []writ.Sink{writ.SinkMemory} },
	} {
		l.setAgent("agent-a", func(a *writ.Agent) {
			a.Tools[0].Safety, a.Tools[0].Sinks, a.Tools[0].Approval = writ.SafetyReadOnly, nil, writ.ApprovalAuto
			raise(&a.Tools[0])
		})
		if got := asked().Task.Raised; got != (what != "nothing") {
			t.Errorf("%s: raised %t", what, got)
		}
	}
	l.setAgent("agent-a", func(a *writ.Agent) {
		a.Tools[0].Safety, a.Tools[0].Sinks = writ.SafetyDestructive, []writ.Sink{writ.SinkEgress}
	})
	l.claim(l.a, id)
	if got := l.task(id); got.Safety != writ.SafetyDestructive {
		t.Fatalf("safety %s", got.Safety)
	}
}

// The one agent that fits may stand behind many that do not.
func TestEnqueueManyCandidates(t *testing.T) {
	l := newLab(t)
	for i := range 40 {
		l.w.Agent(writ.AgentID(fmt.Sprintf("other-%02d", i)), "finance", "wide.work")
	}
	l.w.Agent("zed", "web", "wide.work")
	id := l.enqueue("one", func(a *TaskEnqueueArgs) { a.Capability = "wide.work" })
	l.wantState(id, writ.TaskQueued)
}

func TestNotBefore(t *testing.T) {
	l := newLab(t)
	at := l.w.Now + 5000
	id := l.enqueue("one", func(a *TaskEnqueueArgs) { a.NotBefore = writ.FormatTime(at) })
	if l.inLane(id) || l.w.Index(writ.IndexReady)[string(id)] != at {
		t.Fatal("not waiting for its time")
	}
	e := l.refused(writ.CodeIllegal, "task.claim", l.a, &TaskClaimArgs{Task: id})
	if e.RetryMs != 5000 || e.Details["not_before"] != writ.FormatTime(at) {
		t.Fatalf("%+v", e)
	}
	if got := l.sweep("task.ready", &TaskSweepArgs{Task: id}); got.Changed != 0 || l.inLane(id) {
		t.Fatal("queued before its time")
	}
	l.w.Now = at
	if got := l.sweep("task.ready", &TaskSweepArgs{Task: id}); got.Changed != 1 || !l.inLane(id) || len(l.w.Index(writ.IndexReady)) != 0 {
		t.Fatal("not queued in time")
	}
	audit(l)
	l.claim(l.a, id)
	past := l.enqueue("two", func(a *TaskEnqueueArgs) { a.NotBefore = "2001-01-01T00:00:00+02:00" })
	if !l.inLane(past) {
		t.Fatal("a time in the past delays")
	}
}

func TestDirectedLanes(t *testing.T) {
	l := newLab(t)
	id := l.enqueue("one", func(a *TaskEnqueueArgs) { a.Agents = []writ.AgentID{"agent-b", "agent-b"} })
	lane := writ.DirectedLane("agent-b", build, "web", 5)
	if got := l.w.Lanes(); !slices.Equal(got, []writ.Lane{lane}) || len(l.w.Lane(lane)) != 1 {
		t.Fatalf("lanes %v", got)
	}
	if e := l.refused(writ.CodeNotEligible, "task.claim", l.a, &TaskClaimArgs{Task: id}); e.Details["reason"] != "required_agents" {
		t.Fatalf("details %v", e.Details)
	}
	if r, err := l.dispatch(l.b, lane, id); err != nil || r.Outcome != writ.OutcomeDone {
		t.Fatalf("%v %v", r, err)
	}
}
