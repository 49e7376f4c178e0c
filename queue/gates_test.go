package queue

import (
	"slices"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

const lint writ.CapabilityID = "site.lint"

// gated is a lab in which agent-g and agent-b have a gate for what others build.
func gated(t *testing.T) (*lab, writ.Caller) {
	l := newLab(t)
	for id, tools := range map[writ.AgentID][]writ.CapabilityID{"agent-g": {lint}, "agent-b": {build, lint}} {
		a := l.w.Agent(id, "web", tools...)
		for i := range a.Tools {
			a.Tools[i].Gate = a.Tools[i].Name == lint
		}
		l.w.Seed(writ.AgentKey(id), writ.ObjectAgent, a)
	}
	return l, l.w.Open(writ.RoleExecutor, "gate", "agent-g")
}

func passing(gates ...string) func(*TaskEnqueueArgs) {
	return func(a *TaskEnqueueArgs) { a.Verify = &TaskVerification{Required: true, Gates: gates} }
}

// checker enqueues a gate that looks at a task.
func (l *lab) checker(key, at string) writ.TaskID {
	l.Helper()
	return l.enqueue(key, func(a *TaskEnqueueArgs) {
		a.Capability, a.DependsOn = lint, []TaskDependency{{Key: at, When: writ.EndGiven}}
	})
}

func (g grip) says(s writ.GateStatus) *TaskCompleteArgs {
	a := g.complete()
	a.Gate = s
	return a
}

func (l *lab) missing(by writ.Caller, a *TaskVerifyArgs) string {
	l.Helper()
	return l.refused(writ.CodePredicate, "task.verify", by, a).Details["missing"]
}

func (l *lab) owing() []string { return l.w.Members(writ.RunOwed(l.run)) }

// A result that must pass a gate is accepted once a task of that gate has looked at it, by
// the receipt of that, and not before.
func TestAGatePasses(t *testing.T) {
	l, gate := gated(t)
	id := l.enqueue("one", passing(string(lint), "style"))
	look := l.checker("look", "one")
	l.wantState(look, writ.TaskBlocked)
	l.refused(writ.CodeDeps, "task.claim", gate, &TaskClaimArgs{Task: look})
	done := body[TaskView](l, l.do("task.complete", l.a, l.claim(l.a, id).complete()))
	if done.State != writ.TaskVerifying || !slices.Equal(done.Unblocked, []writ.TaskID{look}) {
		t.Fatalf("got %+v", done)
	}
	audit(l)
	style := GateResult{Gate: "style", Status: writ.GatePass}
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, style, GateResult{Gate: string(lint), Status: writ.GatePass})); got != "gates/site.lint" {
		t.Errorf("missing %s", got)
	}
	g := l.claim(gate, look)
	for _, s := range []writ.GateStatus{"", "maybe"} {
		l.refused(writ.CodeInputInvalid, "task.complete", gate, g.says(s))
	}
	l.do("task.complete", gate, g.says(writ.GatePass))
	audit(l)
	v := body[TaskView](l, l.do("task.get", l.judge, &TaskGetArgs{Task: id}))
	if len(v.Passes) != 1 || v.Passes[0] != (TaskGate{lint, "pass", look, l.task(look).Receipt}) {
		t.Fatalf("shown as %+v", v.Passes)
	}
	cited := GateResult{Gate: string(lint), Status: writ.GatePass, Receipt: v.Passes[0].Receipt}
	other := cited
	other.Receipt = l.task(id).Receipt
	for name, gates := range map[string][]GateResult{
		"not cited": {style}, "another receipt": {style, other}, "no receipt": {style, {Gate: string(lint), Status: writ.GatePass}}, "said to fail": {style, {string(lint), writ.GateFail, cited.Receipt}},
		"twice, once wrong": {style, cited, other},
	} {
		if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, gates...)); got != "gates/site.lint" {
			t.Errorf("%s: missing %s", name, got)
		}
	}
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, cited)); got != "gates/style" {
		t.Errorf("missing %s", got)
	}
	// What nobody asks for is not shown either, and a check of the verifier's has no receipt.
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, style, cited, GateResult{"site.other", writ.GatePass, cited.Receipt})); got != "gates/site.other" {
		t.Errorf("missing %s", got)
	}
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, GateResult{"style", writ.GatePass, cited.Receipt}, cited)); got != "gates/style" {
		t.Errorf("missing %s", got)
	}
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept, style, cited))
	l.wantState(id, writ.TaskDone)
	if left := l.owing(); len(left) > 0 {
		t.Errorf("%v are owed", left)
	}
	audit(l)
}

// The last word of a gate counts; and none that was begun before there was this result, nor
// one on what was sent back since.
func TestAGateLooksAtWhatThereIs(t *testing.T) {
	l, gate := gated(t)
	id := l.enqueue("one", passing(string(lint)))
	first := l.checker("first", "one")
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	cite := func() GateResult {
		v := body[TaskView](l, l.do("task.get", l.judge, &TaskGetArgs{Task: id}))
		return GateResult{string(lint), writ.GatePass, v.Passes[0].Receipt}
	}
	early := l.claim(gate, first)
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject))
	audit(l)
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	l.do("task.complete", gate, early.says(writ.GatePass)) // of the result before
	if got := body[TaskView](l, l.do("task.get", l.judge, &TaskGetArgs{Task: id})).Passes[0]; got.Status != "open" {
		t.Fatalf("got %+v", got)
	}
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, GateResult{string(lint), writ.GatePass, l.task(first).Receipt})); got != "gates/site.lint" {
		t.Errorf("missing %s", got)
	}
	second := l.checker("second", "one") // may begin at once
	l.do("task.complete", gate, l.claim(gate, second).says(writ.GatePass))
	passed := cite()
	third := l.checker("third", "one")
	l.do("task.complete", gate, l.claim(gate, third).says(writ.GateFail))
	audit(l)
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, passed)); got != "gates/site.lint" {
		t.Errorf("missing %s", got)
	}
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictReject, GateResult{string(lint), writ.GateFail, ""}))
	if left := l.owing(); len(left) > 0 {
		t.Errorf("%v are owed by what was sent back", left)
	}
	audit(l)
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	if got := l.missing(l.judge, l.verdict(id, writ.VerdictAccept, passed)); got != "gates/site.lint" {
		t.Errorf("missing %s", got)
	}
	// The run is sealed by now, and takes what looks at it once more, and nothing else.
	l.setRun(func(r *writ.Run) { r.Sealed = true })
	more := func(key string, c writ.CapabilityID, when writ.DependencyEnd) *TaskEnqueueArgs {
		return &TaskEnqueueArgs{Run: l.run, Key: key, Capability: c, Domain: "web", DependsOn: []TaskDependency{{Key: "one", When: when}}}
	}
	l.refused(writ.CodeIllegal, "task.enqueue", l.owner, more("work", build, writ.EndGiven))
	l.refused(writ.CodeIllegal, "task.enqueue", l.owner, more("later", lint, writ.EndDone))
	fourth := l.checker("fourth", "one")
	l.do("task.complete", gate, l.claim(gate, fourth).says(writ.GatePass))
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept, cite()))
	l.wantState(id, writ.TaskDone)
	if r := l.runDoc(); r.State != writ.RunDone {
		t.Errorf("the run is %s", r.State)
	}
	audit(l)
}

// Nobody looks at their own work, under whatever name.
func TestAGateOfOnesOwn(t *testing.T) {
	l, _ := gated(t)
	id := l.enqueue("one", passing(string(lint)))
	look := l.checker("look", "one")
	l.do("task.complete", l.b, l.claim(l.b, id).complete())
	twin := l.w.Open(writ.RoleExecutor, "other", "agent-g")
	twin.Controller = "worker-b"
	for name, by := range map[string]writ.Caller{"the worker": l.b, "its agent": l.w.Open(writ.RoleExecutor, "other", "agent-b"), "who answers to it": twin} {
		if e := l.refused(writ.CodeNotEligible, "task.claim", by, &TaskClaimArgs{Task: look}); e.Details["reason"] != "own_work" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	// Not even with a claim from before there was anything to look at.
	free := l.enqueue("free", func(a *TaskEnqueueArgs) { a.Capability = lint })
	g := l.claim(twin, free)
	tk := l.task(free)
	tk.DependsOn = []writ.Dependency{{Key: "one", Task: id, When: writ.EndGiven}}
	l.w.Seed(writ.TaskKey(free), writ.ObjectTask, tk)
	g.fence = l.task(free).FenceOf(g.fence)
	_, version, _ := writtest.Get[writ.Task](l.w, writ.TaskKey(free))
	g.fence = version
	l.do("task.complete", twin, g.says(writ.GatePass))
	if got := body[TaskView](l, l.do("task.get", l.judge, &TaskGetArgs{Task: id})).Passes[0]; got.Status != "open" {
		t.Errorf("got %+v", got)
	}
}

// What an agent must pass its work owes, whoever asks for it; a run is not accepted before.
func TestWorkGatesOfAnAgent(t *testing.T) {
	l, gate := gated(t)
	l.setAgent("agent-a", func(a *writ.Agent) { a.WorkGates = []writ.CapabilityID{lint} })
	l.setAgent("agent-g", func(a *writ.Agent) { a.WorkGates = []writ.CapabilityID{lint} }) // a gate owes none of its own
	l.setRun(func(r *writ.Run) { r.ClosePolicy = writ.CloseVerifier })
	id := l.enqueue("one")
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	want := []string{"site.lint " + string(id)}
	if got := l.owing(); !slices.Equal(got, want) {
		t.Fatalf("owed are %v", got)
	}
	audit(l)
	for _, s := range []writ.GateStatus{writ.GateFail, writ.GatePass} {
		look := l.checker("look-"+string(s), "one")
		l.do("task.complete", gate, l.claim(gate, look).says(s))
		if got := l.owing(); (len(got) == 0) != (s == writ.GatePass) {
			t.Errorf("after %s owed are %v", s, got)
		}
		audit(l)
	}
	// It is of who did it, not of who might have.
	other := l.enqueue("two")
	l.do("task.complete", l.b, l.claim(l.b, other).complete())
	if got := l.owing(); len(got) > 0 {
		t.Errorf("owed are %v", got)
	}
	// And no more of what is not wanted any more.
	judged := l.enqueue("three", passing(string(lint)))
	l.do("task.complete", l.b, l.claim(l.b, judged).complete())
	l.do("task.cancel", l.owner, &TaskCancelArgs{Task: judged})
	if got := l.owing(); len(got) > 0 {
		t.Errorf("owed are %v", got)
	}
	audit(l)
}

// A gate that nobody has is refused when the task is enqueued.
func TestAGateNobodyHas(t *testing.T) {
	l, _ := gated(t)
	a := &TaskEnqueueArgs{Run: l.run, Key: "one", Capability: build, Domain: "web"}
	passing("site.nothing")(a)
	if e := l.refused(writ.CodeInputInvalid, "task.enqueue", l.owner, a); e.Fields[0].Pointer != "/verify/gates" {
		t.Errorf("got %+v", e)
	}
	id := l.enqueue("plain")
	g := l.claim(l.a, id)
	l.refused(writ.CodeInputInvalid, "task.complete", l.a, g.says(writ.GatePass)) // its tool is none
	l.do("task.complete", l.a, g.complete())
}

// Those that look at a result are let go by it, the others by its end, however many of
// each there are, and whoever is made to wait later.
func TestWhoLooksIsLetGoFirst(t *testing.T) {
	l, _ := gated(t)
	id := l.enqueue("one", passing())
	var looks, nexts []writ.TaskID
	for i := range 2*releaseAtOnce + 3 {
		key := string(rune('a'+i)) + "-x"
		nexts = append(nexts, l.enqueue("next-"+key, after("one")))
		looks = append(looks, l.checker("look-"+key, "one"))
	}
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	l.finishes("task.unblock", &TaskSweepArgs{Task: id})
	for i := range looks {
		l.wantState(looks[i], writ.TaskQueued)
		l.wantState(nexts[i], writ.TaskBlocked)
	}
	audit(l)
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept))
	l.finishes("task.unblock", &TaskSweepArgs{Task: id})
	for i := range nexts {
		l.wantState(nexts[i], writ.TaskQueued)
	}
	audit(l)
	// Of one that gives nothing they learn that too.
	bad := l.enqueue("bad", attempts(1))
	look := l.checker("look-bad", "bad")
	l.do("task.fail", l.a, l.claim(l.a, bad).fail(false))
	l.finishes("task.unblock", &TaskSweepArgs{Task: bad})
	l.wantState(look, writ.TaskFailed)
	audit(l)
}

// What is handed on owes its gates as what is completed does, and so does what follows it.
func TestWhatIsHandedOnMustPass(t *testing.T) {
	l, gate := gated(t)
	id := l.enqueue("one", passing(string(lint)))
	look := l.checker("look", "one")
	g := l.claim(l.a, id)
	h := body[HandedOff](l, l.do("task.handoff", l.a, &TaskHandoffArgs{
		TaskHold: TaskHold{Task: g.task, Lease: g.lease, Fence: g.fence}, To: HandoffTarget{Task: &HandoffTask{Key: "next", Capability: build}},
	}))
	if got := l.owing(); !slices.Equal(got, []string{owed(lint, id)}) {
		t.Fatalf("owed are %v", got)
	}
	l.refused(writ.CodeInputInvalid, "task.handoff", l.a, &TaskHandoffArgs{TaskHold: TaskHold{Task: look}, To: HandoffTarget{}})
	l.do("task.complete", gate, l.claim(gate, look).says(writ.GatePass))
	l.do("task.verify", l.judge, l.verdict(id, writ.VerdictAccept, GateResult{string(lint), writ.GatePass, l.task(look).Receipt}))
	l.do("task.complete", l.b, l.claim(l.b, h.Next.ID).complete())
	if got := l.missing(l.judge, l.verdict(h.Next.ID, writ.VerdictAccept)); got != "gates/site.lint" {
		t.Errorf("missing %s", got)
	}
	audit(l)
}

// A gate that looks at as many results as a task may depend on says so of all of them.
func TestAGateOfMany(t *testing.T) {
	l, gate := gated(t)
	l.setAgent("agent-a", func(a *writ.Agent) { a.WorkGates, a.MaxConcurrent = []writ.CapabilityID{lint}, 100 })
	a := &TaskEnqueueArgs{Run: l.run, Key: "look", Capability: lint, Domain: "web"}
	for i := range writ.MaxDependencies {
		key := "t-" + string(rune('a'+i/8)) + string(rune('a'+i%8))
		id := l.enqueue(key)
		l.do("task.complete", l.a, l.claim(l.a, id).complete())
		a.DependsOn = append(a.DependsOn, TaskDependency{Key: key})
	}
	id := body[TaskView](l, l.do("task.enqueue", l.owner, a)).ID
	for i := range releaseAtOnce { // who waits for the gate itself
		l.enqueue("next-"+string(rune('a'+i)), after("look"))
	}
	if n := len(l.owing()); n != writ.MaxDependencies {
		t.Fatalf("%d are owed", n)
	}
	l.do("task.complete", gate, l.claim(gate, id).says(writ.GatePass))
	if got := l.owing(); len(got) > 0 {
		t.Errorf("owed are %v", got)
	}
	audit(l)
}

// Two that look at one result at the same time both count, the last one last.
func TestGatesAtOnce(t *testing.T) {
	l, gate := gated(t)
	l.setAgent("agent-g", func(a *writ.Agent) { a.MaxConcurrent = 2 })
	id := l.enqueue("one", passing(string(lint)))
	l.do("task.complete", l.a, l.claim(l.a, id).complete())
	first, second := l.claim(gate, l.checker("first", "one")), l.claim(gate, l.checker("second", "one"))
	for i, g := range []grip{first, second} {
		l.do("task.complete", gate, g.says([]writ.GateStatus{writ.GatePass, writ.GateFail}[i]))
		if got := len(l.owing()); got != i {
			t.Errorf("after %d: %d are owed", i, got)
		}
	}
	audit(l)
}
